//! The command `log`: who did what when.

use quarta_daemon::{
    Role,
    cli::{Common, During, Failure, Output},
    client::Target,
};

use super::moment;
use crate::api::model::{LogEntry, LogPage};

/// Entries of one request.
const PAGE: usize = 500;

/// Which part of the log.
#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// Only what this member did, or what was done to its membership
    member: Option<String>,
    /// How many entries, the newest first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only what this super-peer saw for itself
    #[arg(long, conflicts_with = "signed")]
    observed: bool,
    /// Only what all super-peers agree on
    #[arg(long)]
    signed: bool,
}

pub(super) async fn run(common: &Common, output: &mut Output, wanted: &Wanted) -> Result<(), Failure> {
    let client = common.client(Role::Superpeer)?;
    let mut target = Target::new("/api/v1/log");
    if let Some(member) = &wanted.member {
        target = target.query("member", member);
    }
    if wanted.observed || wanted.signed {
        target = target.query("kind", if wanted.observed { "observed" } else { "signed" });
    }
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let (mut entries, mut cursor) = (Vec::new(), None::<String>);
    while entries.len() < limit {
        let mut here = target.clone().query("limit", &PAGE.min(limit - entries.len()).to_string());
        if let Some(cursor) = &cursor {
            here = here.query("cursor", cursor);
        }
        let page: LogPage = client.get(here).await.during("cannot read the log")?;
        entries.extend(page.entries);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    output.table(&["TIME", "WHO", "DID", "WHAT", "SAYS"], &entries, row)
}

fn row(entry: &LogEntry) -> Vec<String> {
    let says = if entry.kind == "observed" { format!("{} (saw it)", entry.by) } else { entry.by.clone() };
    let what = match (entry.action.as_str(), &entry.detail) {
        // About the member itself: its name stands there already.
        ("joined" | "renewed" | "left", _) => "-".to_owned(),
        (_, Some(detail)) => detail.clone(),
        _ if entry.subject.is_empty() => {
            entry.subject_id.as_deref().unwrap_or("-").chars().take(12).collect()
        }
        _ => entry.subject.clone(),
    };
    // An observation is something that happened to a member, not something that it did.
    let did = match entry.action.as_str() {
        "removed" | "returned" | "refused" => format!("was {}", entry.action),
        "handed_over" => "took over".to_owned(),
        action => action.to_owned(),
    };
    let did = if did == "was returned" { "returned".to_owned() } else { did };
    vec![moment(entry.time_ms), entry.actor.clone(), did, what, says]
}
