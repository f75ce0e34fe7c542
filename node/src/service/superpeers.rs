//! The super-peers this node knows: connecting, registering and asking, around the pure [`Liaison`].
//!
//! Every super-peer gets this node's list. Questions go to one of them: each node prefers another one, so that the
//! load spreads, and when the preferred one does not answer soon the next is asked too (see [`crate::asking`]). Where
//! super-peers are, and whether they still are, is heard in the feed (see [`super::following`]).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use libp2p::{Multiaddr, PeerId};
use quarta_daemon::identity;
use quarta_protocols::{
    cbor,
    credentials::Role,
    ids::FileId,
    limits::{PAGE_FILL_BYTES, RECORD_PAGE_ENTRIES},
    messages::{
        admission::PeerAddresses,
        index::{Index, ListedMember, MemberState, Publication, Registered, Request, Response},
        inventory::{Coverage, Position},
    },
    names::MemberName,
    network::{Admitted, Refusal},
    records::SignedRecord,
};
use tokio::sync::{Notify, mpsc};

use super::Shared;
use crate::{
    api::model::NodeEvent,
    asking::{self, Question, Roster},
    liaison::{Effect, Input, Liaison},
};

/// Pages of members read at a time: an end for a super-peer that never ends.
const MEMBER_PAGES_MAX: usize = 100;

/// Why no super-peer gave an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// None is connected.
    #[error("no super-peer is reachable")]
    Unreachable,
    /// Those that are did not answer; the text is the last one's reason.
    #[error("no super-peer answered: {0}")]
    Unanswered(String),
}

/// All super-peers.
pub(crate) struct Superpeers {
    own: PeerId,
    state: Mutex<State>,
    /// Tells whoever follows that others can be asked than before.
    changed: Notify,
}

struct State {
    superpeers: HashMap<PeerId, Superpeer>,
    roster: Roster,
    /// One that others say was revoked: it may withhold just that, so it is asked and followed last.
    doubted: Option<PeerId>,
    /// Where the list stands, for super-peers that are heard of later.
    position: Position,
    /// Own files that no super-peer has acknowledged yet.
    unpublished: HashSet<FileId>,
}

struct Superpeer {
    name: Option<MemberName>,
    addresses: Vec<Multiaddr>,
    liaison: Liaison,
    /// Whether it has been sent all own records since this start.
    has_records: bool,
    refusal: Option<Refusal>,
    reconnecting: bool,
}

/// One super-peer, for showing.
pub(crate) struct Known {
    pub(crate) peer: PeerId,
    pub(crate) name: Option<MemberName>,
    pub(crate) connected: bool,
    pub(crate) registered: bool,
    pub(crate) refusal: Option<Refusal>,
}

impl Superpeers {
    /// `known`: where super-peers were last; `members`: those that were heard of in the feed.
    pub(super) fn new(
        own: PeerId,
        known: Vec<PeerAddresses>,
        members: &[ListedMember],
        position: Position,
        own_files: Vec<FileId>,
    ) -> Self {
        let mut superpeers: HashMap<PeerId, Superpeer> =
            known.into_iter().map(|known| (known.peer, Superpeer::new(known.addresses, position))).collect();
        for member in members.iter().filter(|member| member.role == Role::Superpeer) {
            if is_ended(member.state) {
                superpeers.remove(&member.peer);
            } else if !member.addresses.is_empty() || superpeers.contains_key(&member.peer) {
                let known = superpeers
                    .entry(member.peer)
                    .or_insert_with(|| Superpeer::new(member.addresses.clone(), position));
                known.name = Some(member.name.clone());
            }
        }
        let unpublished = own_files.into_iter().collect();
        let state = State { superpeers, roster: Roster::default(), doubted: None, position, unpublished };
        Self { own, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When time next makes something due.
    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        self.state().superpeers.values().filter_map(|superpeer| superpeer.liaison.next_wakeup()).min()
    }

    /// Takes in what happened with all of them.
    pub(super) fn feed_all(&self, shared: &Arc<Shared>, input: Input) {
        let peers: Vec<PeerId> = {
            let mut state = self.state();
            if let Input::Changed(position) = input {
                state.position = position;
            }
            state.superpeers.keys().copied().collect()
        };
        for peer in peers {
            self.feed(shared, peer, input);
        }
    }

    /// Takes in what happened with one of them; nothing where it is none.
    pub(super) fn feed(&self, shared: &Arc<Shared>, peer: PeerId, input: Input) {
        if let Input::Polled(_) = input {
            self.heard(&peer);
        }
        let effects = match self.state().superpeers.get_mut(&peer) {
            Some(superpeer) => superpeer.liaison.handle(Instant::now(), input),
            None => return,
        };
        for effect in effects {
            let shared = shared.clone();
            match effect {
                Effect::Connect { fresh } => {
                    tokio::spawn(async move { shared.superpeers.connect(&shared, peer, fresh).await });
                }
                Effect::Register { since, after } => {
                    tokio::spawn(
                        async move { shared.superpeers.register(&shared, peer, since, after).await },
                    );
                }
            }
        }
        shared.rescheduled.notify_one();
    }

    /// A super-peer is connected.
    pub(super) fn connected(&self, shared: &Arc<Shared>, admitted: &Admitted) {
        let membership = admitted.membership();
        {
            let mut state = self.state();
            let position = state.position;
            let superpeer = state
                .superpeers
                .entry(membership.peer)
                .or_insert_with(|| Superpeer::new(vec![admitted.remote.clone()], position));
            superpeer.name = Some(membership.name.clone());
            superpeer.refusal = None;
        }
        tracing::info!(superpeer = %membership.name, transport = %admitted.transport, "connected to a super-peer");
        shared.events.publish(NodeEvent::SuperpeerConnected {
            name: membership.name.to_string(),
            peer_id: membership.peer.to_string(),
        });
        shared.catching_up.connected();
        self.feed(shared, membership.peer, Input::Connected);
        self.state().roster.is_heard(&membership.peer);
        self.changed.notify_one();
        let (shared, peer) = (shared.clone(), membership.peer);
        tokio::spawn(async move { shared.superpeers.publish_missing(&shared, peer).await });
    }

    /// Whether this is a super-peer that this node knows.
    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        self.state().superpeers.contains_key(peer)
    }

    /// A peer is not connected any more.
    pub(super) fn departed(&self, shared: &Arc<Shared>, peer: PeerId) {
        let lost =
            self.state().superpeers.get(&peer).filter(|known| known.liaison.is_connected()).map(|known| {
                let name = known.name.as_ref().map_or_else(|| peer.to_string(), MemberName::to_string);
                NodeEvent::SuperpeerLost { name, peer_id: peer.to_string() }
            });
        if let Some(lost) = lost {
            shared.events.publish(lost);
        }
        self.feed(shared, peer, Input::Departed);
        if self.connected_peers().is_empty() {
            shared.catching_up.alone();
        }
        self.state().roster.is_heard(&peer);
        self.changed.notify_one();
    }

    /// A super-peer did not let this node in.
    pub(super) fn refused(&self, peer: PeerId, refusal: Refusal) {
        if let Some(superpeer) = self.state().superpeers.get_mut(&peer) {
            superpeer.refusal = Some(refusal);
        }
    }

    /// Tries a further connection beside one that seems dead.
    pub(super) fn reconnect(&self, shared: &Arc<Shared>, peer: PeerId) {
        match self.state().superpeers.get_mut(&peer) {
            Some(superpeer) if !superpeer.reconnecting => superpeer.reconnecting = true,
            _ => return,
        }
        let shared = shared.clone();
        tokio::spawn(async move {
            shared.superpeers.connect(&shared, peer, true).await;
            if let Some(superpeer) = shared.superpeers.state().superpeers.get_mut(&peer) {
                superpeer.reconnecting = false;
            }
        });
    }

    async fn connect(&self, shared: &Arc<Shared>, peer: PeerId, fresh: bool) {
        let addresses = match self.state().superpeers.get(&peer) {
            Some(superpeer) => superpeer.addresses.clone(),
            None => return,
        };
        let connected = if fresh {
            shared.network.connect_fresh(peer, addresses).await
        } else {
            shared.network.connect(peer, addresses).await
        };
        // Success comes as an event, since the super-peer may have dialled us meanwhile.
        if let Err(error) = connected {
            tracing::debug!(%peer, %error, fresh, "a super-peer could not be connected");
            self.feed(shared, peer, Input::ConnectFailed);
        }
    }

    async fn register(
        &self,
        shared: &Arc<Shared>,
        peer: PeerId,
        since: Option<Position>,
        after: Option<quarta_protocols::messages::inventory::Key>,
    ) {
        let page = shared.inventory().page(since, after);
        let last_key = match page.coverage {
            Coverage::Full { .. } => {
                page.present.last().map(quarta_protocols::messages::inventory::Item::key)
            }
            Coverage::Since(_) => None,
        };
        let request = Request::Register { page, load: shared.load(), addresses: shared.addresses() };
        let input = match shared.network.call::<Index>(peer, request).await {
            Ok(Response::Registered(registered)) => {
                self.heard(&peer);
                if let Registered::At(_) = registered {
                    shared.keeping.is_heard();
                }
                Input::Answered { registered, last_key }
            }
            Ok(other) => {
                tracing::warn!(%peer, ?other, "a super-peer did not take this node's list");
                Input::RegisterFailed
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "registering with a super-peer failed");
                Input::RegisterFailed
            }
        };
        self.feed(shared, peer, input);
    }

    /// Asks the super-peers until one answers: in time, whether one of them answers nothing or not.
    ///
    /// Questions that were given up on run out by themselves, and their late answers are signs of life.
    pub(crate) async fn ask(&self, shared: &Arc<Shared>, request: Request) -> Result<Response, AskError> {
        let preferred = self.connected_peers();
        if preferred.is_empty() {
            return Err(AskError::Unreachable);
        }
        let (answers, mut answered) = mpsc::channel(preferred.len());
        let (mut question, mut effects) = {
            let state = self.state();
            let order = state.roster.order(preferred);
            let patience = state.roster.patience(&order);
            Question::new(Instant::now(), order, patience)
        };
        let mut last = "no answer in time".to_owned();
        loop {
            for effect in effects.drain(..) {
                match effect {
                    asking::Effect::Ask(peer) => {
                        let (shared, request, answers) = (shared.clone(), request.clone(), answers.clone());
                        tokio::spawn(async move {
                            let answer = shared.network.call::<Index>(peer, request).await;
                            if answer.is_ok() {
                                shared.superpeers.heard(&peer);
                            }
                            // Whoever asked may have another answer by now.
                            let _ = answers.send((peer, answer)).await;
                        });
                    }
                    asking::Effect::Silent(peer) => self.silent(peer),
                    asking::Effect::GiveUp => return Err(AskError::Unanswered(last)),
                }
            }
            let due = question.next_wakeup();
            effects = tokio::select! {
                Some((peer, answer)) = answered.recv() => {
                    match answer {
                        Ok(Response::Refused(refusal)) => last = refusal.to_string(),
                        Ok(response) => return Ok(response),
                        Err(error) => last = error.to_string(),
                    }
                    question.failed(Instant::now(), &peer)
                }
                () = tokio::time::sleep_until(due.into()) => question.tick(Instant::now()),
            };
        }
    }

    /// An answer of this one is overdue.
    pub(super) fn silent(&self, peer: PeerId) {
        if self.state().roster.is_silent(peer) {
            tracing::info!(%peer, "a super-peer does not answer in time, and is asked last for now");
            self.changed.notify_one();
        }
    }

    /// This one gives a sign of life.
    pub(super) fn heard(&self, peer: &PeerId) {
        if self.state().roster.is_heard(peer) {
            tracing::info!(%peer, "a super-peer answers again");
            self.changed.notify_one();
        }
    }

    /// Returns when others can be asked than before.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The super-peers that can be asked now, the preferred one first; the silent ones only where all are.
    pub(super) fn askable(&self) -> Vec<PeerId> {
        let connected = self.connected_peers();
        self.state().roster.answering(connected)
    }

    /// The connected super-peers in this node's order of preference.
    pub(crate) fn connected_peers(&self) -> Vec<PeerId> {
        let state = self.state();
        let mut peers: Vec<PeerId> = state
            .superpeers
            .iter()
            .filter(|(_, superpeer)| superpeer.liaison.is_connected())
            .map(|(peer, _)| *peer)
            .collect();
        peers.sort_by_cached_key(|peer| (state.doubted == Some(*peer), preference(&self.own, peer)));
        peers
    }

    /// Others say that this one was revoked.
    pub(super) fn doubt(&self, peer: PeerId) {
        self.state().doubted = Some(peer);
        self.changed.notify_one();
    }

    /// All known ones with their addresses.
    pub(crate) fn known(&self) -> Vec<PeerAddresses> {
        let state = self.state();
        let known = |(peer, superpeer): (&PeerId, &Superpeer)| PeerAddresses {
            peer: *peer,
            addresses: superpeer.addresses.clone(),
        };
        state.superpeers.iter().map(known).take(quarta_protocols::limits::SUPERPEERS_MAX).collect()
    }

    /// All known ones, for showing.
    pub(crate) fn overview(&self) -> Vec<Known> {
        let state = self.state();
        let mut all: Vec<Known> = state
            .superpeers
            .iter()
            .map(|(peer, superpeer)| Known {
                peer: *peer,
                name: superpeer.name.clone(),
                connected: superpeer.liaison.is_connected(),
                registered: superpeer.liaison.is_registered(),
                refusal: superpeer.refusal,
            })
            .collect();
        all.sort_by_cached_key(|known| (known.name.clone(), known.peer));
        all
    }

    /// Publishes own records: to all connected super-peers' benefit it is enough that one takes them. Whether one did.
    pub(crate) async fn publish(
        &self,
        shared: &Arc<Shared>,
        records: Vec<(FileId, SignedRecord)>,
    ) -> Result<(), AskError> {
        self.state().unpublished.extend(records.iter().map(|(file, _)| *file));
        for page in pages(records) {
            let files: Vec<FileId> = page.iter().map(|(file, _)| *file).collect();
            let request = Request::Publish(page.into_iter().map(|(_, record)| record).collect());
            let response = self.ask(shared, request).await?;
            if !self.published(&files, response) {
                self.publish_missing_soon(shared);
            }
        }
        Ok(())
    }

    /// Whether no super-peer has acknowledged the newest record of an own file since this node started.
    pub(crate) fn owes(&self, file: &FileId) -> bool {
        self.state().unpublished.contains(file)
    }

    /// Publishes what no super-peer has acknowledged, with the keys that go before it, to each of them: the one that was
    /// asked may have lacked what another had been told.
    fn publish_missing_soon(&self, shared: &Arc<Shared>) {
        for peer in self.connected_peers() {
            let shared = shared.clone();
            tokio::spawn(async move { shared.superpeers.publish_missing(&shared, peer).await });
        }
    }

    /// Takes note of what became of records; whether all of them were taken.
    fn published(&self, files: &[FileId], response: Response) -> bool {
        let Response::Published(outcomes) = response else { return false };
        let mut state = self.state();
        let mut all = true;
        for (file, outcome) in files.iter().zip(outcomes) {
            match outcome {
                Publication::Stored | Publication::Known | Publication::Superseded => {
                    state.unpublished.remove(file);
                }
                Publication::Invalid(_) | Publication::TooMany => {
                    all = false;
                    tracing::error!(%file, ?outcome, "a super-peer refused a record of this node");
                }
            }
        }
        all
    }

    /// Publishes to a super-peer that has just connected what it may lack: everything own after a start, later what no
    /// super-peer has acknowledged.
    async fn publish_missing(&self, shared: &Arc<Shared>, peer: PeerId) {
        let (all, unpublished) = {
            let mut state = self.state();
            let unpublished: Vec<FileId> = state.unpublished.iter().copied().collect();
            let Some(superpeer) = state.superpeers.get_mut(&peer) else { return };
            (!std::mem::replace(&mut superpeer.has_records, true), unpublished)
        };
        if let Err(error) = shared.publish_keys_to(peer, all).await {
            tracing::debug!(%peer, %error, "keys could not be published; the next connection tries again");
            if let Some(superpeer) = self.state().superpeers.get_mut(&peer) {
                superpeer.has_records = false;
            }
            return;
        }
        let (database, own) = (shared.database.clone(), self.own);
        let read = tokio::task::spawn_blocking(move || {
            if all { database.records_of_owner(&own) } else { records_of(&database, &own, &unpublished) }
        });
        let records = match read.await {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => {
                tracing::error!(%error, "own records could not be read");
                return;
            }
            Err(_) => return,
        };
        for page in pages(records) {
            let files: Vec<FileId> = page.iter().map(|(file, _)| *file).collect();
            let request = Request::Publish(page.into_iter().map(|(_, record)| record).collect());
            match shared.network.call::<Index>(peer, request).await {
                Ok(response) => {
                    self.published(&files, response);
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "own records could not be published; the next connection tries again");
                    if let Some(superpeer) = self.state().superpeers.get_mut(&peer) {
                        superpeer.has_records = false;
                    }
                    return;
                }
            }
        }
    }

    /// Publishes everything own once more to a super-peer that may have lost it.
    pub(super) async fn publish_again(&self, shared: &Arc<Shared>, peer: PeerId) {
        if let Some(superpeer) = self.state().superpeers.get_mut(&peer) {
            superpeer.has_records = false;
        }
        self.publish_missing(shared, peer).await;
    }

    /// Takes note of where super-peers are, also for the next start.
    pub(super) fn hear(&self, shared: &Arc<Shared>, members: &[ListedMember]) {
        let mut news = false;
        {
            let mut state = self.state();
            let position = state.position;
            for member in members.iter().filter(|member| member.role == Role::Superpeer) {
                if is_ended(member.state) {
                    continue;
                }
                let addresses = shared.policy.select(&member.peer, member.addresses.clone());
                if addresses.is_empty() {
                    continue;
                }
                let superpeer = state.superpeers.entry(member.peer).or_insert_with(|| {
                    news = true;
                    Superpeer::new(Vec::new(), position)
                });
                news |= superpeer.addresses != addresses;
                superpeer.addresses = addresses;
                superpeer.name = Some(member.name.clone());
            }
        }
        if news {
            self.feed_all(shared, Input::Tick);
            self.save(shared);
        }
    }

    /// Forgets a super-peer whose membership has ended.
    pub(super) fn forget(&self, shared: &Arc<Shared>, peer: &PeerId) {
        if self.state().superpeers.remove(peer).is_some() {
            self.state().roster.is_heard(peer);
            self.changed.notify_one();
            self.save(shared);
        }
    }

    fn save(&self, shared: &Arc<Shared>) {
        let (shared, known) = (shared.clone(), self.known());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = identity::save_superpeers(shared.dir.folder(), &known) {
                tracing::error!(%error, "the known super-peers could not be stored");
            }
        });
    }

    /// All members as one super-peer sees them.
    pub(crate) async fn members(&self, shared: &Arc<Shared>) -> Result<Vec<ListedMember>, AskError> {
        let mut all = Vec::new();
        let mut after = None;
        for _ in 0..MEMBER_PAGES_MAX {
            let Response::Members { members, next } = self.ask(shared, Request::Members { after }).await?
            else {
                return Err(AskError::Unanswered("it answered something else".to_owned()));
            };
            all.extend(members);
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(all)
    }
}

impl Superpeer {
    fn new(addresses: Vec<Multiaddr>, position: Position) -> Self {
        Self {
            name: None,
            addresses,
            liaison: Liaison::new(Instant::now(), position, rand::random()),
            has_records: false,
            refusal: None,
            reconnecting: false,
        }
    }
}

const fn is_ended(state: MemberState) -> bool {
    matches!(state, MemberState::Left | MemberState::Revoked)
}

/// Rendezvous hashing: every node has its own order, and the loss of one super-peer spreads its askers over the others.
fn preference(own: &PeerId, superpeer: &PeerId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("quarta 2026 super-peer preference v1");
    hasher.update(&own.to_bytes());
    hasher.update(&superpeer.to_bytes());
    *hasher.finalize().as_bytes()
}

/// Splits records into messages that fit.
fn pages(records: Vec<(FileId, SignedRecord)>) -> Vec<Vec<(FileId, SignedRecord)>> {
    let mut pages: Vec<Vec<(FileId, SignedRecord)>> = Vec::new();
    let mut bytes = 0;
    for record in records {
        let size = cbor::to_vec(&record.1).len();
        let full = pages
            .last()
            .is_none_or(|page| page.len() == RECORD_PAGE_ENTRIES || bytes + size > PAGE_FILL_BYTES);
        if full {
            pages.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(page) = pages.last_mut() {
            page.push(record);
        }
    }
    pages
}

type Records = Result<Vec<(FileId, SignedRecord)>, crate::database::DatabaseError>;

fn records_of(database: &crate::database::Database, own: &PeerId, files: &[FileId]) -> Records {
    // A file that was handed over meanwhile is its new owner's to publish.
    let found =
        files.iter().map(|file| Ok(database.record_of_owner(own, file)?.map(|record| (*file, record))));
    found.filter_map(Result::transpose).collect()
}
