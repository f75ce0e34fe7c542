//! `quarta ls` and `quarta info`: the network's files.

use std::cell::Cell;

use quarta_daemon::{
    Role,
    cli::{Common, During, Failure, Output, size},
    client::Target,
};

use serde::Serialize;

use crate::api::model::{File, FileHolder, FilePage, Keeps, Replication};

/// Says that a list is what this node has heard of.
pub(super) fn warn_of(stale: bool, common: &Common) {
    if stale {
        let next = "run `quarta status` to see which super-peers are reachable";
        Failure::new("this list may be out of date", "no super-peer answers", next).report(common.json);
    }
}

pub(super) async fn list(common: &Common, output: &mut Output, query: &str) -> Result<(), Failure> {
    let target = Target::new("/api/v1/files").query("query", query);
    let stale = Cell::new(false);
    let files = common
        .client(Role::Node)?
        .get_all(target, |page: FilePage| {
            stale.set(stale.get() || page.stale);
            (page.files, page.next)
        })
        .await
        .during("cannot list the files")?;
    warn_of(stale.get(), common);
    output.table(&["NAME", "OWNER", "SIZE", "HOLDERS", "HERE", "ID"], &files, |f| {
        vec![
            f.name.clone(),
            if f.orphaned { format!("{} (gone)", f.owner) } else { f.owner.clone() },
            size(f.size_bytes),
            f.holders.map_or_else(|| "?".to_owned(), |n| n.to_string()),
            match (&f.path, f.defect) {
                (Some(_), Some(defect)) => defect.as_str().to_owned(),
                (Some(_), None) => "yes".to_owned(),
                (None, _) => "no".to_owned(),
            },
            f.id.chars().take(12).collect(),
        ]
    })
}

/// Shows one file.
pub(super) async fn info(common: &Common, output: &mut Output, file: &str) -> Result<(), Failure> {
    let target = Target::new("/api/v1/files").segment(file);
    let client = common.client(Role::Node)?;
    let file: File = client.get(target).await.during(format!("cannot show {file}"))?;
    let target = Target::new("/api/v1/files").segment(&file.id).segment("holders");
    // The file can be shown without; why nobody answers is `quarta status`' to tell.
    let replication = client.get(target).await.ok();
    let mut fields = fields(&file);
    let (copies, held_by) = kept(replication.as_ref());
    fields.extend([("Copies", copies), ("Held by", held_by)]);
    output.fields(&Shown { file, replication }, &fields)
}

/// A file with who holds it.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    file: File,
    replication: Option<Replication>,
}

/// How many copies there are of how many, and with whom.
fn kept(replication: Option<&Replication>) -> (String, String) {
    let Some(found) = replication else {
        let unknown = "unknown: no super-peer answers".to_owned();
        return (unknown.clone(), unknown);
    };
    let whole = format!("{} whole, {} wanted", found.copies, found.target);
    let copies = if found.at_target {
        whole
    } else if found.copies < found.floor {
        format!(
            "{whole}: fewer than the {} that keep it safe; more are made while branches are online",
            found.floor
        )
    } else {
        format!("{whole}; more are made while branches are online")
    };
    let holder = |holder: &FileHolder| {
        let keeps = match holder.keeps {
            Keeps::Library => "library",
            Keeps::Vault => "vault",
        };
        let part = if holder.complete { "" } else { ", in part" };
        format!("{} ({keeps}{part}, {})", holder.name, holder.state)
    };
    let held_by = found.holders.iter().map(holder).collect::<Vec<_>>().join(", ");
    (copies, if held_by.is_empty() { "nobody".to_owned() } else { held_by })
}

fn owner(file: &File) -> String {
    let owner = format!("{} ({})", file.owner, file.owner_id);
    if file.orphaned {
        return format!(
            "{owner}, which is gone; who holds the root key gives the file a new owner with `quarta-superpeer assign`"
        );
    }
    match &file.offered_to {
        Some(to) => format!("{owner}; it is being handed over to {to}"),
        None => owner,
    }
}

fn fields(file: &File) -> Vec<(&'static str, String)> {
    vec![
        ("Name", file.name.clone()),
        ("Owner", owner(file)),
        ("Size", format!("{} ({} bytes)", size(file.size_bytes), file.size_bytes)),
        ("SHA-256", file.sha256.clone().unwrap_or_else(|| "-".to_owned())),
        ("Type", file.media_type.clone().unwrap_or_else(|| "-".to_owned())),
        ("Id", file.id.clone()),
        ("Revision", file.revision.to_string()),
        (
            "Holders",
            file.holders.map_or_else(|| "unknown: no super-peer answers".to_owned(), |n| n.to_string()),
        ),
        (
            "Here",
            match (&file.path, file.defect) {
                (Some(path), Some(defect)) => format!(
                    "{path}, which is {} and offered to nobody; share a file of your own as it is now with `quarta update`, or put \
                     the right file back and run `quarta verify`, or fetch it with `quarta get`",
                    defect.as_str()
                ),
                (Some(path), None) => path.clone(),
                (None, _) => "no; fetch it with `quarta get`".to_owned(),
            },
        ),
    ]
}
