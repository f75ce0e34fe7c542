//! `quarta transfers`: this node's fetches, and steering them.

use clap::Subcommand;
use quarta_daemon::{
    Role,
    cli::{Common, During, ExitCode, Failure, Output, size},
    client::Target,
};
use serde_json::json;

use crate::api::model::{Transfer, TransferPage, TransferState};

/// What is done with transfers. TRANSFER is a number as `quarta transfers` shows it, or a FILE.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Steer {
    /// Stop transfers until they are resumed; they keep what has arrived
    Pause {
        /// Numbers or files
        #[arg(required = true, value_name = "TRANSFER")]
        transfers: Vec<String>,
    },
    /// Go on with transfers that are paused or failed
    Resume {
        /// Numbers or files
        #[arg(required = true, value_name = "TRANSFER")]
        transfers: Vec<String>,
    },
    /// End transfers for good and remove what has arrived
    Cancel {
        /// Numbers or files
        #[arg(required = true, value_name = "TRANSFER")]
        transfers: Vec<String>,
    },
}

/// Lists the fetches, the latest first.
pub(super) async fn list(common: &Common, output: &mut Output) -> Result<(), Failure> {
    let transfers: Vec<Transfer> = common
        .client(Role::Node)?
        .get_all("/api/v1/transfers", |page: TransferPage| (page.transfers, page.next))
        .await
        .during("cannot list the transfers")?;
    output.table(&["NO", "FILE", "OWNER", "STATE", "DONE", "OF", "SIZE", "RATE", "FROM"], &transfers, row)
}

pub(super) async fn steer(common: &Common, output: &mut Output, steer: Steer) -> Result<ExitCode, Failure> {
    let (transfers, word) = match &steer {
        Steer::Pause { transfers } => (transfers, "pause"),
        Steer::Resume { transfers } => (transfers, "resume"),
        Steer::Cancel { transfers } => (transfers, "cancel"),
    };
    let client = common.client(Role::Node)?;
    let (mut done, mut last_failure) = (0u32, None);
    for reference in transfers {
        let target = Target::new("/api/v1/transfers").segment(reference);
        let answer: Result<Transfer, _> = match &steer {
            Steer::Pause { .. } | Steer::Resume { .. } => client.post(target.segment(word), &json!({})).await,
            Steer::Cancel { .. } => client.delete(target).await,
        };
        match answer.during(format!("cannot {word} {reference}")) {
            Ok(transfer) => {
                done += 1;
                let at = percent(transfer.done_bytes, transfer.size_bytes);
                let line = format!("{}  {}  {}  {at}", transfer.id, transfer.name, standing(&transfer));
                output.line(&transfer, &line)?;
            }
            Err(failure) if transfers.len() > 1 => last_failure = Some(failure.report(common.json)),
            Err(failure) => return Err(failure),
        }
    }
    Ok(match last_failure {
        None => ExitCode::Success,
        Some(code) if done == 0 => code,
        Some(_) => ExitCode::PartlyDone,
    })
}

pub(super) fn senders(transfer: &Transfer) -> String {
    let senders: Vec<String> = transfer
        .sources
        .iter()
        .filter(|source| source.bytes > 0)
        .map(|source| format!("{} ({})", source.name, source.transport.as_deref().unwrap_or("?")))
        .collect();
    if senders.is_empty() { "here".to_owned() } else { senders.join(", ") }
}

fn row(transfer: &Transfer) -> Vec<String> {
    vec![
        transfer.id.to_string(),
        transfer.name.clone(),
        transfer.owner.clone(),
        standing(transfer),
        size(transfer.done_bytes),
        percent(transfer.done_bytes, transfer.size_bytes),
        size(transfer.size_bytes),
        format!("{}/s", size(rounded(transfer.bytes_per_second))),
        senders(transfer),
    ]
}

/// How a transfer stands, and why where that asks for it.
fn standing(transfer: &Transfer) -> String {
    let state = format!("{:?}", transfer.state).to_lowercase();
    match &transfer.error {
        Some(error) if matches!(transfer.state, TransferState::Failed | TransferState::Waiting) => {
            format!("{state}: {error}")
        }
        _ => state,
    }
}

/// How much of something is done, rounded down: 100 % is all of it.
pub(super) fn percent(done: u64, all: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(all.max(1));
    format!("{} %", if all == 0 { 100 } else { percent })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative, and `as` saturates"
)]
pub(super) fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_rounded_down_so_that_all_of_it_is_all() {
        let shown = [(0, 0), (0, 7), (71, 100), (999, 1000), (7, 7)].map(|(done, all)| percent(done, all));
        assert_eq!(shown, ["100 %", "0 %", "71 %", "99 %", "100 %"]);
    }
}
