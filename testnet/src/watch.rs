//! Watching for a member to leave the lists and to come back, by asking those who keep them.
//!
//! The functions own what they need, so that several can watch at once as tasks, each with its own moment.

use crate::api::{NodeApi, SuperpeerApi};
use crate::wait::{Late, Look, until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Who watched, and when they saw it; or what was missing at the deadline.
pub type Seen = (String, Result<Instant, Late>);

/// Waits until a super-peer lists `victim` as offline and as nobody's holder.
pub async fn gone_at_superpeer(superpeer: SuperpeerApi, victim: String, deadline: Duration) -> Seen {
    let seen = until(deadline, async || {
        match superpeer.members().await {
            Ok(members)
                if members.iter().any(|member| member.name == victim && member.state != "offline") =>
            {
                return Look::NotYet(format!("{victim} is still listed"));
            }
            Ok(_) => {}
            Err(error) => return Look::failed(error),
        }
        match superpeer.files().await {
            Ok(files) if files.iter().any(|file| file.holders.contains(&victim)) => {
                Look::NotYet(format!("{victim} is still listed as a holder"))
            }
            Ok(_) => Look::Holds(()),
            Err(error) => Look::failed(error),
        }
    })
    .await;
    (superpeer.member().to_owned(), seen.map(|((), at)| at))
}

/// Waits until a super-peer lists `name` as online with exactly the files in `expected`.
pub async fn back_at_superpeer(
    superpeer: SuperpeerApi,
    name: String,
    expected: BTreeSet<String>,
    deadline: Duration,
) -> Seen {
    let seen = until(deadline, async || {
        match superpeer.members().await {
            Ok(members) if !members.iter().any(|member| member.name == name && member.state == "online") => {
                return Look::NotYet(format!("{name} is not listed"));
            }
            Ok(_) => {}
            Err(error) => return Look::failed(error),
        }
        match superpeer.held(&name).await {
            Ok(held) => {
                let files: BTreeSet<_> =
                    held.into_iter().filter(|entry| entry.complete).filter_map(|entry| entry.id).collect();
                let missing = expected.len().saturating_sub(files.len());
                Look::of((files == expected).then_some(()), || {
                    format!("{missing} files of {name} are missing")
                })
            }
            Err(error) => Look::failed(error),
        }
    })
    .await;
    (superpeer.member().to_owned(), seen.map(|((), at)| at))
}

/// Waits until a node hears that `name` is in `state`.
pub async fn state_at_node(node: NodeApi, name: String, state: &'static str, deadline: Duration) -> Seen {
    let seen = until(deadline, async || match node.members().await {
        Ok(members) => {
            let there = members.iter().any(|member| member.name == name && member.state == state);
            Look::of(there.then_some(()), || format!("{name} is not yet {state}"))
        }
        Err(error) => Look::failed(error),
    })
    .await;
    (node.member().to_owned(), seen.map(|((), at)| at))
}
