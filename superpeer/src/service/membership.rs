//! Who is a member and where: what connections, the catalog and other super-peers tell of it.

use std::{collections::HashSet, sync::Arc, time::Instant};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use quarta_daemon::{
    cli::Failure,
    identity::{self},
};
use quarta_protocols::{
    credentials::{Membership, Role, UnixSeconds},
    endings::Ended,
    messages::{
        admission::PeerAddresses,
        index::{ListedMember, MemberState},
        sync::Entry,
    },
    network::Admitted,
};

use super::{Shared, wall_ms};
use crate::{
    catalog::{self, EnrolError, Observed, Reader, Standing, Taken},
    health::Input,
};

impl Shared {
    /// A member is connected, or showed a new credential.
    pub(super) fn admitted(self: &Arc<Self>, admitted: &Admitted, first: bool) {
        let membership = admitted.membership().clone();
        let peer = membership.peer;
        {
            let mut state = self.state();
            state.meet(&membership, admitted.presented.version.as_str().to_owned());
            let relay = admitted.remote.iter().any(|part| part == Protocol::P2pCircuit);
            state.connected_through(&peer, relay, first);
            if !admitted.inbound {
                state.reached_at(&peer, &admitted.remote);
            }
        }
        // Before the catalog is asked: what it says of an ended membership must come last.
        if first {
            self.feed(Input::Connected(peer, membership.role));
        }
        let enrolment = admitted.presented.enrolled.enrolment().clone();
        let shared = self.clone();
        tokio::spawn(async move {
            match shared.store.write(move |catalog| catalog.meet(enrolment, wall_ms())).await {
                Ok(Ok(entries)) => shared.push(&entries),
                Ok(Err(EnrolError::Ended(standing))) => shared.end(peer, standing).await,
                Ok(Err(error @ EnrolError::IssuerEnded)) => {
                    tracing::warn!(%peer, %error, "a peer is sent away");
                    shared.observe(Observed::Refused, peer, error.to_string());
                    shared.feed(Input::Forgotten(peer));
                    shared.network.disconnect(peer).await;
                }
                Ok(Err(error)) => tracing::error!(%error, "a member could not be noted"),
                Err(error) => tracing::error!(%error, "a member could not be noted"),
            }
            // Those who follow are told of it only once it stands in the catalog.
            shared.following.touch(peer);
        });
        if membership.role == Role::Superpeer {
            self.link(peer).connected();
            self.ask_newcomer(peer);
        }
    }

    /// Takes over entries of another super-peer's catalog.
    pub(super) async fn take_entries(
        self: &Arc<Self>,
        from: Membership,
        entries: Vec<Entry>,
    ) -> Result<Taken, String> {
        let taken = self
            .store
            .write(move |catalog| catalog.take(&from, entries, wall_ms()))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        if taken.restored {
            tracing::warn!(
                "this super-peer was restored from a backup: others know of acts of its own that it does not. Its \
                 invites up to now cannot be used any more, because who used them is lost; issue new ones"
            );
        }
        self.apply(&taken.applied).await;
        Ok(taken)
    }

    /// Does what follows from changes of the catalog that did not begin here.
    pub(super) async fn apply(self: &Arc<Self>, applied: &[catalog::Applied]) {
        for applied in applied {
            match applied {
                catalog::Applied::Member(membership) => {
                    self.state().meet(membership, String::new());
                    self.feed(Input::Known(membership.peer, membership.role));
                }
                catalog::Applied::Ended { peer, standing } => self.end(*peer, *standing).await,
                catalog::Applied::EndedAsNode(peer) => self.network.end(*peer, Ended::RevokedNode).await,
                catalog::Applied::File { .. } | catalog::Applied::Unknown(_) => {}
            }
        }
    }

    /// A membership has ended: nobody of it is let in, looked for or offered any more. Repeatable.
    pub(crate) async fn end(self: &Arc<Self>, peer: PeerId, standing: Standing) {
        if peer == self.identity.keys.peer() {
            tracing::error!(%standing, "this super-peer's own membership has ended; it stops");
            self.stop.cancel();
            return;
        }
        tracing::info!(member = self.state().name_of(&peer), %standing, "a membership has ended");
        self.close_to(peer, standing).await;
        let last_seen = self.state().health.last_seen(&peer);
        self.feed(Input::Forgotten(peer));
        self.state().forget(&peer, last_seen);
        self.following.touch(peer);
    }

    async fn close_to(&self, peer: PeerId, standing: Standing) {
        let ended = if standing == Standing::Left { Ended::Left } else { Ended::Revoked };
        self.network.end(peer, ended).await;
    }

    /// Makes the members of the catalog known, so that lists and dials begin with them.
    pub(super) async fn remember_members(self: &Arc<Self>) -> Result<(), Failure> {
        let failed = |e: String| Failure::new("cannot read the catalog", e, "check the disk and start again");
        let own = self.identity.keys.peer();
        // Before anybody connects.
        let ended = self.store.read(Reader::ended).await.map_err(|e| failed(e.to_string()))?;
        let mut gone = HashSet::new();
        for ended in &ended {
            match ended {
                catalog::Applied::Ended { peer, standing } => {
                    self.close_to(*peer, *standing).await;
                    gone.insert(*peer);
                }
                catalog::Applied::EndedAsNode(peer) => self.network.end(*peer, Ended::RevokedNode).await,
                _ => {}
            }
        }
        let known = identity::load_superpeers(self.dir.folder()).map_err(|e| failed(e.to_string()))?;
        for known in known.into_iter().filter(|known| !gone.contains(&known.peer)) {
            self.state().hear_addresses(known.peer, known.addresses);
            if known.peer != own {
                self.feed(Input::Known(known.peer, Role::Superpeer));
            }
        }
        let mut after = None;
        loop {
            let from = after.take();
            let page = self
                .store
                .read(move |reader| reader.members(from.as_ref(), 1000))
                .await
                .map_err(|e| failed(e.to_string()))?;
            for member in page.members.iter().filter(|member| member.peer != own) {
                self.state().know(member.peer, member.name.clone(), member.role);
                if member.standing.is_member() {
                    self.feed(Input::Known(member.peer, member.role));
                }
                self.following.touch(member.peer);
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Where this super-peer is reached.
    pub(crate) async fn advertised(&self) -> Vec<Multiaddr> {
        self.reach.advertised(&self.network).await
    }

    /// All super-peers and where they are reached, this one first.
    pub(crate) async fn superpeers(&self) -> Vec<PeerAddresses> {
        let mut superpeers =
            vec![PeerAddresses { peer: self.identity.keys.peer(), addresses: self.advertised().await }];
        superpeers.extend(self.state().other_superpeers());
        superpeers.truncate(quarta_protocols::limits::SUPERPEERS_MAX);
        superpeers
    }

    /// Takes note of where another super-peer is reached, also for the next start.
    pub(super) fn hear_addresses(self: &Arc<Self>, peer: PeerId, addresses: Vec<Multiaddr>) {
        let addresses = self.policy.select(&peer, addresses);
        let known = {
            let mut state = self.state();
            if addresses.is_empty() || !state.hear_addresses(peer, addresses) {
                return;
            }
            state.other_superpeers()
        };
        self.following.touch(peer);
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = identity::save_superpeers(shared.dir.folder(), &known) {
                tracing::error!(%error, "the known super-peers could not be stored");
            }
        });
    }

    pub(super) async fn superpeer_membership(&self, peer: &PeerId) -> Option<Membership> {
        let connections = self.network.connections(Some(*peer)).await;
        connections
            .first()
            .map(|admitted| admitted.membership().clone())
            .filter(|m| m.role == Role::Superpeer)
    }

    /// A member of the catalog with what is known of it now.
    pub(crate) fn describe(&self, member: catalog::Member) -> ListedMember {
        if member.peer == self.identity.keys.peer() {
            return ListedMember {
                peer: member.peer,
                name: member.name,
                role: member.role,
                state: MemberState::Online,
                last_seen: Some(UnixSeconds::now()),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                files: 0,
                stored_bytes: 0,
                free_bytes: 0,
                addresses: self.state().own_addresses.clone(),
                relayed: false,
            };
        }
        self.state().describe(member, Instant::now(), UnixSeconds::now())
    }
}
