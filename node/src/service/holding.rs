//! Who holds a file, and how many should: what a super-peer's index says of it.

use std::{collections::HashSet, sync::Arc};

use quarta_protocols::messages::index::{Holder, MemberState, Request, Response};

use super::{
    Shared,
    listing::{FindError, FoundFile},
    superpeers::AskError,
};
use crate::api::model::{FileHolder, Keeps, Replication};

impl Shared {
    /// Who holds a file's present content.
    ///
    /// # Errors
    /// [`FindError::Unanswered`].
    pub(crate) async fn holders(self: &Arc<Self>, found: &FoundFile) -> Result<Replication, FindError> {
        let request = Request::Holders { file: found.record.file() };
        match self.superpeers.ask(self, request).await {
            Ok(Response::Holders { holders, target, floor }) => Ok(replication(holders, target, floor)),
            Ok(_) => Err(FindError::Unanswered(AskError::Unanswered("it answered something else".into()))),
            Err(error) => Err(FindError::Unanswered(error)),
        }
    }
}

/// Counts the copies that a branch can rely on now: whole, and with a member that answers.
fn replication(mut holders: Vec<Holder>, target: u32, floor: u32) -> Replication {
    holders.sort_by(|a, b| (&a.name, a.vault).cmp(&(&b.name, b.vault)));
    let answers = |holder: &&Holder| matches!(holder.state, MemberState::Online | MemberState::Suspect);
    let whole: HashSet<_> =
        holders.iter().filter(answers).filter(|holder| holder.complete).map(|holder| holder.peer).collect();
    let copies = u32::try_from(whole.len()).unwrap_or(u32::MAX);
    Replication {
        copies,
        target,
        floor,
        at_target: copies >= target,
        holders: holders
            .into_iter()
            .map(|holder| FileHolder {
                name: holder.name.to_string(),
                peer_id: holder.peer.to_string(),
                state: holder.state.to_string(),
                keeps: if holder.vault { Keeps::Vault } else { Keeps::Library },
                complete: holder.complete,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;
    use quarta_protocols::names::MemberName;

    use super::*;

    fn holder(peer: PeerId, name: &str, state: MemberState, vault: bool, complete: bool) -> Holder {
        Holder { peer, name: MemberName::new(name).unwrap(), state, vault, complete }
    }

    #[test]
    fn copies_are_counted_once_for_each_branch_that_answers_and_has_all() {
        let peers: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        let shown = replication(
            vec![
                holder(peers[1], "b", MemberState::Suspect, true, true),
                holder(peers[0], "a", MemberState::Online, true, true),
                holder(peers[0], "a", MemberState::Online, false, true),
                holder(peers[2], "c", MemberState::Offline, true, true),
                holder(peers[3], "d", MemberState::Online, true, false),
            ],
            3,
            2,
        );
        assert_eq!((shown.copies, shown.target, shown.floor, shown.at_target), (2, 3, 2, false));
        let order: Vec<_> = shown.holders.iter().map(|holder| (holder.name.as_str(), holder.keeps)).collect();
        assert_eq!(
            order,
            [
                ("a", Keeps::Library),
                ("a", Keeps::Vault),
                ("b", Keeps::Vault),
                ("c", Keeps::Vault),
                ("d", Keeps::Vault)
            ]
        );
    }
}
