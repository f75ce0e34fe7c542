//! The running super-peer: one event loop over the network, and the pure parts it drives.
//!
//! ```text
//!  network events ─┐                        ┌▶ health ─▶ poll, dial, close   (tasks)
//!  timer ──────────┼▶ loop ─▶ State (lock) ─┼▶ index      lists of all nodes
//!  stop ───────────┘                        └▶ balancing  who is offered, with which weight
//!                  └─▶ tasks ─▶ Store ─▶ SQLite: catalog, invites
//!                  └─▶ federation ─▶ other super-peers
//!                  └─▶ following ─▶ members that follow the feed
//!  catalog, lists ───▶ replicating ─▶ nodes that keep replicas
//! ```
//!
//! The loop itself never waits for a peer or a disk: it takes the state's lock for microseconds and starts tasks for
//! everything else. Members' health and lists are soft state, rebuilt from the members within seconds of a start;
//! records, members and invites are durable before they are acknowledged.

mod condition;
mod dialling;
mod federation;
mod following;
mod gauges;
mod holding;
mod joining;
mod membership;
mod observing;
mod polling;
mod renewing;
mod replicating;
mod requests;
mod start;
mod state;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use libp2p::{Multiaddr, PeerId};
use quarta_daemon::{
    clocks::Clocks, data_dir::DataDir, identity::Identity, open_files::OpenFiles, reach::Reach,
    renewing::Keeper, timer,
};
use quarta_metrics::{
    registry::Registry,
    superpeer::{Query, QueryOutcome, RemovalCause as CauseLabel},
};
use quarta_protocols::{
    credentials::{Membership, Role},
    ids::ContentId,
    messages::{
        index::{Cursor, ListedFile, Refusal, Response, Source, SourceOutcome},
        inventory::Page,
        poll::Load,
        sync::Entry,
    },
    network::{AddressPolicy, Event, Inbound, Network},
    records::{Body, State as RecordState},
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    balancing,
    catalog::Observed,
    health::{Effect, Input, RemovalCause},
    index::Outcome,
    store::Store,
};
pub use start::{Overrides, run};
use state::State;

/// The process's metrics.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) superpeer: quarta_metrics::SuperPeer,
}

/// What every part of the service reaches.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    open_files: OpenFiles,
    clocks: Mutex<Clocks>,
    pub(crate) door: joining::Door,
    pub(crate) keeper: Keeper,
    pub(crate) network: Network,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    reach: Reach,
    policy: AddressPolicy,
    state: Mutex<State>,
    observer: observing::Observer,
    links: Mutex<HashMap<PeerId, federation::Link>>,
    federation: federation::Federation,
    pub(crate) following: following::Following,
    pub(crate) replication: replicating::Replication,
    /// Tells the loop that a timer may be due earlier than it thinks.
    rescheduled: Notify,
    dir: DataDir,
}

/// Milliseconds since 1970, by this machine's clock; 0 before.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The content that a record names, unless its file is deleted.
pub(crate) const fn content_of(body: &Body) -> Option<ContentId> {
    match &body.state {
        RecordState::Present(entry) => Some(entry.content),
        RecordState::Deleted => None,
    }
}

/// Where a listing continues after a file.
pub(crate) fn place_of(file: &ListedFile) -> Option<Cursor> {
    let body = file.record.peek().ok()?;
    match body.state {
        RecordState::Present(entry) => Some(Cursor { name: entry.name, file: body.file }),
        RecordState::Deleted => None,
    }
}

async fn events_until_stopped(shared: &Arc<Shared>, mut events: mpsc::Receiver<Event>) {
    loop {
        let wakeup = shared.state().health.next_wakeup();
        tokio::select! {
            () = shared.stop.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => on_event(shared, event),
                None => return,
            },
            () = timer::until(wakeup) => shared.feed(Input::Tick),
            () = shared.rescheduled.notified() => {}
        }
    }
}

fn on_event(shared: &Arc<Shared>, event: Event) {
    match event {
        Event::Listening(address) => {
            tracing::info!(%address, "listening for members");
            let shared = shared.clone();
            tokio::spawn(async move {
                let own = shared.advertised().await;
                shared.state().own_addresses = own;
                shared.following.touch(shared.identity.keys.peer());
            });
        }
        Event::Admitted { admitted, first } => {
            shared.hear_clock(admitted.peer, admitted.presented.clock);
            shared.admitted(&admitted, first);
        }
        Event::Departed { peer } => {
            shared.clocks().forget(&peer);
            shared.feed(Input::ConnectionClosed(peer));
        }
        Event::Refused { peer, refusal, by_us, clock } => {
            tracing::info!(%peer, reason = %refusal, by_us, "a peer was refused");
            if by_us {
                shared.observe(Observed::Refused, peer, refusal.to_string());
            } else {
                shared.not_accepted(refusal);
            }
            shared.hear_clock(peer, clock);
        }
        Event::Ping { peer, round_trip } => shared.state().round_trip(peer, round_trip),
        Event::PingMissed { peer, .. } => shared.feed(Input::PingMissed(peer)),
        Event::Request(inbound) => match inbound {
            Inbound::Index(asked) => requests::index(shared, asked),
            Inbound::Sync(asked) => federation::answer(shared, asked),
            Inbound::Admission(asked) => requests::admission(shared, asked),
            Inbound::Changes(asked) => following::answer(shared, asked),
            // A super-peer holds no files and is polled by nobody; unanswered, the peer notices at once.
            Inbound::Poll(_) | Inbound::Chunk(_) | Inbound::Vault(_) | Inbound::Handover(_) => {}
        },
    }
}

impl Shared {
    /// The state, for as short as it takes to read or change it; never across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often nodes are polled.
    pub(crate) fn poll_interval(&self) -> Duration {
        self.state().interval.get()
    }

    /// Takes in what happened to a member and does what follows from it.
    pub(crate) fn feed(self: &Arc<Self>, input: Input) {
        let effects = self.state().health.handle(Instant::now(), input);
        if let Some(peer) = following::told_of(&input) {
            self.following.touch(peer);
        }
        for effect in effects {
            self.following.touch(following::about(&effect));
            self.perform(effect);
        }
        self.rescheduled.notify_one();
    }

    fn perform(self: &Arc<Self>, effect: Effect) {
        let name = |peer: &PeerId| self.state().name_of(peer);
        match effect {
            Effect::Poll(peer) => polling::start(self.clone(), peer),
            Effect::Dial(peer) => self.dial(peer),
            Effect::Close(peer) => {
                let network = self.network.clone();
                tokio::spawn(async move { network.disconnect(peer).await });
            }
            Effect::Arrived(peer) => tracing::info!(member = name(&peer), "a member is available"),
            Effect::Suspected(peer) => {
                tracing::info!(member = name(&peer), "a member does not answer and is offered no more");
            }
            Effect::Cleared(peer) => tracing::info!(member = name(&peer), "a member answers again"),
            Effect::Removed(peer, cause) => {
                tracing::warn!(member = name(&peer), ?cause, "a member is removed from the available list");
                let (label, why) = match cause {
                    RemovalCause::ConnectionClosed => {
                        (CauseLabel::ConnectionClosed, "its connection closed and it did not come back")
                    }
                    RemovalCause::PollsMissed => {
                        (CauseLabel::PollsMissed, "it did not answer two polls in a row")
                    }
                };
                self.metrics.superpeer.removals.inc(label);
                self.observe(Observed::Removed, peer, why.to_owned());
            }
            Effect::SignedOff(peer) => tracing::info!(member = name(&peer), "a member has signed off"),
            Effect::Returned(peer) => {
                tracing::info!(member = name(&peer), "a member is back on the available list");
                self.metrics.superpeer.returns.inc();
                self.observe(Observed::Returned, peer, "it answers again".to_owned());
            }
        }
    }

    /// The queue towards another super-peer, started where there is none yet.
    fn link(self: &Arc<Self>, peer: PeerId) -> federation::Link {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.entry(peer).or_insert_with(|| federation::start(self, peer)).clone()
    }

    /// Tells all other super-peers of new entries, in their order.
    pub(crate) fn push(&self, entries: &[Entry]) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            links.values().for_each(|link| link.push(entry));
        }
    }

    /// Takes in a page of a node's list that the node sent by itself.
    fn register(
        self: &Arc<Self>,
        membership: &Membership,
        page: Page,
        load: Load,
        addresses: Vec<Multiaddr>,
    ) -> Response {
        let peer = membership.peer;
        if membership.role != Role::Node {
            return Response::Refused(Refusal::ImpossibleList);
        }
        let outcome = self.take_page(peer, page, load, addresses);
        self.feed(Input::Registered(peer));
        outcome.registered().map_or(Response::Refused(Refusal::ImpossibleList), Response::Registered)
    }

    fn take_page(&self, peer: PeerId, page: Page, load: Load, addresses: Vec<Multiaddr>) -> Outcome {
        let addresses = self.policy.select(&peer, addresses);
        self.replication.note(&page);
        let outcome =
            self.state().take_page(Instant::now(), peer, page, load, addresses, &self.metrics.superpeer);
        self.following.touch(peer);
        outcome
    }

    fn locate(&self, request: &balancing::Request<'_>) -> Vec<Source> {
        let sources = self.state().locate(Instant::now(), request, rand::random());
        for source in &sources {
            self.metrics.superpeer.sources_offered.inc(source.name.as_str());
        }
        sources
    }

    fn report(&self, reporter: &Membership, content: ContentId, outcomes: &[SourceOutcome]) {
        let mut state = self.state();
        state.report(Instant::now(), reporter.peer, content, outcomes);
        for outcome in outcomes {
            let Some(name) = state.known_name(&outcome.peer) else { continue };
            self.metrics.superpeer.served_bytes.add(name.as_str(), outcome.bytes);
            if let Some(fault) = outcome.fault {
                self.metrics.superpeer.bad_sources_reported.inc(name.as_str());
                tracing::info!(source = %name, reporter = %reporter.name, fault = fault.as_str(), "a source was reported");
            }
        }
    }

    fn queried(&self, query: Query, started: Instant, found: usize) {
        let outcome = if found == 0 { QueryOutcome::Empty } else { QueryOutcome::Found };
        self.metrics.superpeer.queries.inc((query, outcome));
        self.metrics.superpeer.query_duration.observe(query, started.elapsed());
    }

    /// Available members that hold all of a content.
    fn available_holders(&self, content: &ContentId) -> u32 {
        u32::try_from(self.state().available_holders(content).count()).unwrap_or(u32::MAX)
    }
}
