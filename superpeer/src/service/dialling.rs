//! Dialling members, and hearing from other super-peers where one is reached.
//!
//! The catalog says who is a super-peer and not where: addresses change without anybody's signature. Each super-peer
//! tells its own to those that it is connected to. That alone leaves two apart that never were, such as two that joined
//! at the same time or one that has moved while the other was down. So a super-peer asks each one that connects, and who
//! cannot reach another one asks those that it can reach. What they say is only where to dial: who answers there proves
//! itself.

use std::sync::Arc;

use libp2p::PeerId;
use quarta_protocols::{
    credentials::Role,
    messages::admission::{Admission, Request, Response},
};

use super::Shared;

impl Shared {
    /// Dials a member, unless that is under way; nothing is done for a node whose addresses are not known.
    pub(super) fn dial(self: &Arc<Self>, peer: PeerId) {
        let (addresses, superpeer) = {
            let mut state = self.state();
            let (addresses, superpeer) = (state.addresses_of(&peer), state.may_be_superpeer(&peer));
            let nowhere = addresses.is_empty() && !superpeer;
            if nowhere || !state.dialling.insert(peer) {
                return;
            }
            (addresses, superpeer)
        };
        let shared = self.clone();
        tokio::spawn(async move {
            let reached = !addresses.is_empty()
                && shared
                    .network
                    .connect(peer, addresses)
                    .await
                    .inspect_err(|error| tracing::debug!(%peer, %error, "a member could not be dialled"))
                    .is_ok();
            if superpeer && !reached {
                shared.ask_where(peer).await;
            }
            shared.state().dialling.remove(&peer);
        });
    }

    /// Hears from a super-peer that has connected where it is reached, so that nodes are told at once, and where those
    /// are that were never met.
    pub(super) fn ask_newcomer(self: &Arc<Self>, peer: PeerId) {
        let shared = self.clone();
        tokio::spawn(async move {
            let Ok(Response::Superpeers(told)) =
                shared.network.call::<Admission>(peer, Request::Discover).await
            else {
                return;
            };
            let own = shared.identity.keys.peer();
            for told in told.into_iter().filter(|told| told.peer != own) {
                // Hearsay does not replace what is known.
                if told.peer == peer || shared.state().addresses_of(&told.peer).is_empty() {
                    shared.hear_addresses(told.peer, told.addresses);
                }
            }
        });
    }

    /// Asks the connected super-peers where another one is reached, for the next dial.
    async fn ask_where(self: &Arc<Self>, sought: PeerId) {
        let mut asked: Vec<PeerId> = Vec::new();
        for admitted in self.network.connections(None).await {
            let known = admitted.membership();
            if known.role != Role::Superpeer || asked.contains(&known.peer) {
                continue;
            }
            asked.push(known.peer);
            let Ok(Response::Superpeers(told)) =
                self.network.call::<Admission>(known.peer, Request::Discover).await
            else {
                continue;
            };
            // Only of the one that cannot be reached: what others say of themselves is newer than hearsay.
            if let Some(told) =
                told.into_iter().find(|told| told.peer == sought && !told.addresses.is_empty())
            {
                self.hear_addresses(sought, told.addresses);
                return;
            }
        }
    }
}
