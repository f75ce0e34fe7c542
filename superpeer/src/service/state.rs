//! All soft state of a super-peer in one place: the lists, the health and the balance, and how members are called and
//! reached.
//!
//! Synchronous and without effects; the service holds it behind a lock and never across an await.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use quarta_metrics::superpeer::{EntryRefusal, InventoryKind, SuperPeer as Metrics};
use quarta_protocols::{
    credentials::{Membership, Role, UnixSeconds},
    ids::ContentId,
    messages::{
        admission::PeerAddresses,
        index::{ListedMember, MemberState, Source, SourceOutcome},
        inventory::{Completeness, Coverage, Page},
        poll::Load,
    },
    names::MemberName,
};
use rand::{SeedableRng, rngs::SmallRng};

use crate::{
    balancing::{Balancer, Candidate, Request},
    catalog::{self, Standing},
    health::{Health, PollInterval},
    index::{Index, Outcome, Refusal},
};

/// The state.
pub(crate) struct State {
    pub(crate) interval: PollInterval,
    pub(crate) index: Index,
    pub(crate) health: Health,
    pub(crate) balancer: Balancer,
    /// Members being dialled.
    pub(super) dialling: HashSet<PeerId>,
    /// Where this super-peer is reached.
    pub(super) own_addresses: Vec<Multiaddr>,
    contacts: HashMap<PeerId, Contact>,
}

/// A member beyond its health.
#[derive(Debug, Default)]
struct Contact {
    name: Option<MemberName>,
    role: Option<Role>,
    version: String,
    addresses: Vec<Multiaddr>,
    load: Option<Load>,
    /// Whether it is connected through a relay only, as of its latest connections.
    relayed: bool,
    /// When a membership that has ended was last seen; of others its health knows.
    last_seen: Option<Instant>,
}

impl Contact {
    /// Whether it is a super-peer as far as is known: one whose catalog entry has not come yet is told as one.
    fn may_be_superpeer(&self) -> bool {
        self.role.is_none_or(|role| role == Role::Superpeer)
    }
}

impl State {
    pub(super) fn new(interval: PollInterval, now: Instant) -> Self {
        Self {
            interval,
            index: Index::default(),
            health: Health::new(interval, now),
            balancer: Balancer::default(),
            dialling: HashSet::new(),
            own_addresses: Vec::new(),
            contacts: HashMap::new(),
        }
    }

    /// Takes note of a member of the catalog.
    pub(super) fn know(&mut self, peer: PeerId, name: MemberName, role: Role) {
        let contact = self.contacts.entry(peer).or_default();
        contact.name = Some(name);
        contact.role = Some(role);
    }

    /// Forgets where a member is and what it holds; how it was called and when it was seen stays known.
    pub(super) fn forget(&mut self, peer: &PeerId, last_seen: Option<Instant>) {
        self.index.remove(peer);
        self.balancer.forget(peer);
        if let Some(contact) = self.contacts.get_mut(peer) {
            contact.addresses.clear();
            contact.load = None;
            contact.last_seen = last_seen.or(contact.last_seen);
        }
    }

    /// Takes note of a member that showed its credential; `version` may be empty where it is not known.
    pub(crate) fn meet(&mut self, membership: &Membership, version: String) {
        self.know(membership.peer, membership.name.clone(), membership.role);
        if let Some(contact) = self.contacts.get_mut(&membership.peer).filter(|_| !version.is_empty()) {
            contact.version = version;
        }
    }

    /// Whether a member is a super-peer as far as is known.
    pub(super) fn may_be_superpeer(&self, peer: &PeerId) -> bool {
        self.contacts.get(peer).is_some_and(Contact::may_be_superpeer)
    }

    /// Takes note of how a member is connected; of its connections one that is direct is enough.
    pub(super) fn connected_through(&mut self, peer: &PeerId, relay: bool, first: bool) {
        let contact = self.contacts.entry(*peer).or_default();
        contact.relayed = relay && (first || contact.relayed);
    }

    /// Takes note of an address at which a member was reached, unless better ones are known.
    pub(super) fn reached_at(&mut self, peer: &PeerId, address: &Multiaddr) {
        let contact = self.contacts.entry(*peer).or_default();
        if contact.addresses.is_empty() {
            contact.addresses.push(address.clone());
        }
    }

    /// Takes note of where a member is reached; whether that is news.
    pub(super) fn hear_addresses(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        let contact = self.contacts.entry(peer).or_default();
        let news = contact.addresses != addresses;
        contact.addresses = addresses;
        news
    }

    pub(super) fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.contacts.get(peer).map(|contact| contact.addresses.clone()).unwrap_or_default()
    }

    /// The other super-peers that are reached somewhere.
    pub(super) fn other_superpeers(&self) -> Vec<PeerAddresses> {
        let reachable = |(peer, contact): (&PeerId, &Contact)| {
            let superpeer = contact.may_be_superpeer();
            (superpeer && !contact.addresses.is_empty())
                .then(|| PeerAddresses { peer: *peer, addresses: contact.addresses.clone() })
        };
        self.contacts.iter().filter_map(reachable).collect()
    }

    /// A member's name for people; its peer id where it is not known.
    pub(crate) fn name_of(&self, peer: &PeerId) -> String {
        self.known_name(peer).map_or_else(|| peer.to_string(), MemberName::to_string)
    }

    pub(super) fn known_name(&self, peer: &PeerId) -> Option<&MemberName> {
        self.contacts.get(peer)?.name.as_ref()
    }

    /// Takes in a page of a node's list with what came along.
    pub(super) fn take_page(
        &mut self,
        now: Instant,
        peer: PeerId,
        page: Page,
        load: Load,
        addresses: Vec<Multiaddr>,
        metrics: &Metrics,
    ) -> Outcome {
        self.balancer.load(now, peer, load);
        let contact = self.contacts.entry(peer).or_default();
        contact.load = Some(load);
        if !addresses.is_empty() {
            contact.addresses = addresses;
        }
        let kind = match page.coverage {
            Coverage::Full { .. } => InventoryKind::Full,
            Coverage::Since(_) => InventoryKind::Delta,
        };
        let entries = u64::try_from(page.present.len() + page.gone.len()).unwrap_or(u64::MAX);
        let outcome = self.index.apply(peer, page);
        match outcome {
            Outcome::Stands { .. } => metrics.inventories_registered.inc(kind),
            Outcome::Refused(refusal) => {
                let reason = match refusal {
                    Refusal::Duplicate => EntryRefusal::Duplicate,
                    Refusal::TooMany => EntryRefusal::OverQuota,
                    Refusal::ImpossibleSize | Refusal::OutOfOrder | Refusal::Malformed => {
                        EntryRefusal::Malformed
                    }
                };
                metrics.inventory_entries_refused.add(reason, entries.max(1));
            }
            Outcome::Staged | Outcome::Elsewhere(_) | Outcome::Unusable(_) => {}
        }
        outcome
    }

    /// Members that hold all of a content and are available.
    pub(crate) fn available_holders(&self, content: &ContentId) -> impl Iterator<Item = PeerId> {
        self.index
            .holders(content)
            .filter(|(peer, held)| *held == Completeness::Complete && self.health.is_offered(peer))
            .map(|(peer, _)| peer)
    }

    /// Chooses sources for a fetch.
    pub(super) fn locate(&mut self, now: Instant, request: &Request<'_>, seed: u64) -> Vec<Source> {
        let candidates: Vec<Candidate> = self
            .index
            .holders(&request.content)
            .filter(|(peer, _)| self.health.is_offered(peer))
            .map(|(peer, completeness)| Candidate { peer, completeness })
            .collect();
        let ranked = self.balancer.locate(now, request, candidates, &mut SmallRng::seed_from_u64(seed));
        let source = |ranked: crate::balancing::Ranked| {
            let contact = self.contacts.get(&ranked.peer)?;
            Some(Source {
                peer: ranked.peer,
                name: contact.name.clone()?,
                addresses: contact.addresses.clone(),
                weight: ranked.weight,
                complete: ranked.complete,
            })
        };
        ranked.into_iter().filter_map(source).collect()
    }

    /// Takes in what sources did in a fetch.
    pub(super) fn report(
        &mut self,
        now: Instant,
        reporter: PeerId,
        content: ContentId,
        outcomes: &[SourceOutcome],
    ) {
        self.balancer.report(now, reporter, content, outcomes);
    }

    pub(super) fn round_trip(&mut self, peer: PeerId, round_trip: Duration) {
        self.balancer.round_trip(peer, round_trip);
    }

    /// A member of the catalog with what is known of it now.
    pub(super) fn describe(&self, member: catalog::Member, now: Instant, wall: UnixSeconds) -> ListedMember {
        let contact = self.contacts.get(&member.peer);
        let load = contact.and_then(|contact| contact.load).unwrap_or_default();
        let seen = self.health.last_seen(&member.peer).or(contact.and_then(|contact| contact.last_seen));
        ListedMember {
            peer: member.peer,
            name: member.name,
            role: member.role,
            state: match member.standing {
                Standing::Member => self.health.state(&member.peer),
                Standing::Left => MemberState::Left,
                Standing::Revoked => MemberState::Revoked,
            },
            last_seen: seen
                .map(|seen| UnixSeconds(wall.0.saturating_sub(now.duration_since(seen).as_secs()))),
            version: contact.map(|contact| contact.version.clone()).unwrap_or_default(),
            files: u64::try_from(self.index.files_of(&member.peer)).unwrap_or(u64::MAX),
            stored_bytes: load.stored_bytes,
            free_bytes: load.free_bytes,
            addresses: contact.map(|contact| contact.addresses.clone()).unwrap_or_default(),
            relayed: contact.is_some_and(|contact| contact.relayed),
        }
    }

    /// How many bytes a node's disk has for files, by its own word: what is there and what is free.
    pub(super) fn room_of(&self, peer: &PeerId) -> Option<u64> {
        let load = self.contacts.get(peer)?.load?;
        Some(load.stored_bytes.saturating_add(load.free_bytes))
    }

    /// Bytes under lease, by member name.
    pub(super) fn leased(&mut self, now: Instant) -> Vec<(String, u64)> {
        let shares: Vec<_> = self.balancer.shares(now).filter(|share| share.leased_bytes > 0).collect();
        shares.into_iter().map(|share| (self.name_of(&share.peer), share.leased_bytes)).collect()
    }

    /// Bytes that each available node was reported to have served.
    pub(super) fn served_by_available(&mut self, now: Instant) -> Vec<f64> {
        let served: HashMap<PeerId, u64> =
            self.balancer.shares(now).map(|share| (share.peer, share.served_bytes)).collect();
        self.health
            .iter()
            .filter(|seen| seen.role == Role::Node && self.health.is_offered(&seen.peer))
            .map(|seen| served.get(&seen.peer).copied().unwrap_or(0) as f64)
            .collect()
    }
}
