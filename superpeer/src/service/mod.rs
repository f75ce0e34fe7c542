//! The running super-peer: one event loop over the network, and the pure parts it drives.
//!
//! ```text
//!  network events ─┐                        ┌▶ health ─▶ poll, dial, close   (tasks)
//!  timer ──────────┼▶ loop ─▶ State (lock) ─┼▶ index      lists of all nodes
//!  stop ───────────┘                        └▶ balancing  who is offered, with which weight
//!                  └─▶ tasks ─▶ Store ─▶ SQLite: catalog, invites
//!                  └─▶ federation ─▶ other super-peers
//! ```
//!
//! The loop itself never waits for a peer or a disk: it takes the state's lock for microseconds and starts tasks for
//! everything else. Members' health and lists are soft state, rebuilt from the members within seconds of a start;
//! records, members and invites are durable before they are acknowledged.

mod federation;
mod joining;
mod polling;
mod requests;
mod state;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use quarta_daemon::{
    cli::Failure,
    data_dir::{DataDir, Role as DataRole},
    http::{Config as HttpConfig, Listener},
    identity::{self, Identity, IdentityError},
    joining::address_policy,
    log::LogArgs,
    observer::Recorder,
    settings, shutdown,
};
use quarta_metrics::{
    registry::{Registry, Service},
    superpeer::{
        MemberState as StateLabel, Query, QueryOutcome, RemovalCause as CauseLabel, Role as RoleLabel,
    },
};
use quarta_protocols::{
    credentials::{Membership, Role, UnixSeconds},
    ids::ContentId,
    members::Enrolment,
    messages::{
        admission::PeerAddresses,
        index::{Cursor, ListedFile, ListedMember, MemberState, Refusal, Response, Source, SourceOutcome},
        inventory::Page,
        poll::Load,
        sync::Entry,
    },
    network::{AddressPolicy, Admitted, Config, Event, Inbound, Network},
    records::{Body, State as RecordState},
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Authority,
    api, balancing,
    catalog::{self, Catalog, Taken},
    health::{Effect, Input, RemovalCause},
    index::Outcome,
    settings::Settings,
    setup::ROOT_KEY_FILE,
    store::Store,
};
use state::State;

/// The catalog's file in the data folder.
const CATALOG_FILE: &str = "catalog.db";

/// What the command line decides over the settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// How often nodes are polled.
    pub poll_interval: Option<Duration>,
    /// Where the HTTP API is served.
    pub http: Option<SocketAddr>,
}

/// The process's metrics.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) superpeer: quarta_metrics::SuperPeer,
}

/// What every part of the service reaches.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) door: joining::Door,
    pub(crate) settings: Settings,
    pub(crate) network: Network,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    policy: AddressPolicy,
    state: Mutex<State>,
    links: Mutex<HashMap<PeerId, federation::Link>>,
    /// Tells the loop that a timer may be due earlier than it thinks.
    rescheduled: Notify,
    dir: DataDir,
}

/// Runs the super-peer of a data folder until it is told to stop.
///
/// # Errors
/// A [`Failure`] with cause and next step where it cannot start.
pub async fn run(path: &Path, overrides: Overrides, log: &LogArgs) -> Result<(), Failure> {
    let dir = DataDir::open(path, DataRole::Superpeer)?;
    let lock = dir.lock()?;
    log.init()?;
    let settings: Settings = settings::load(dir.folder())?;
    let identity = Identity::load(&dir).map_err(|e| Failure::told(&e))?;
    let interval = overrides.poll_interval.unwrap_or(settings.poll_interval());
    let interval = crate::health::PollInterval::new(interval).map_err(|e| {
        Failure::new(
            "cannot poll at the configured interval",
            e.to_string(),
            "correct poll_interval_ms in settings.toml",
        )
    })?;
    let http = http_address(&settings, overrides.http)?;
    let config = HttpConfig {
        tcp: http,
        names: settings.http_names.clone(),
        open_metrics: settings.open_metrics,
        ..HttpConfig::default()
    };
    let listener = Listener::bind(&dir, &lock, config).await?;
    let stop = shutdown::on_signals()
        .map_err(|e| Failure::new("cannot start", e.to_string(), "check the limits on open files"))?;

    let metrics = Metrics::new().map_err(|e| {
        Failure::new("cannot set up the metrics", e.to_string(), "please report this as a bug")
    })?;
    let store = open_store(&dir, &identity).await?;
    let policy = address_policy(&settings.listen);
    let (network, events) = start_network(&identity, &settings, policy, &metrics)?;
    let root = load_root(&dir)?;
    let authority = Authority::new(identity.keys.identity.clone(), identity.credential.clone(), root);
    let shared = Arc::new(Shared {
        door: joining::Door::new(authority, Instant::now()),
        network,
        store,
        metrics,
        stop: stop.clone(),
        policy,
        state: Mutex::new(State::new(interval, Instant::now())),
        links: Mutex::new(HashMap::new()),
        rescheduled: Notify::new(),
        identity,
        settings,
        dir,
    });
    shared.remember_members().await?;
    tracing::info!(
        name = %shared.identity.membership.name,
        peer = %shared.identity.keys.peer(),
        http = ?listener.tcp_address(),
        "the super-peer runs"
    );
    shutdown::notify_ready();
    let serving = tokio::spawn(listener.serve(api::router(shared.clone()), stop.clone()));
    events_until_stopped(&shared, events).await;
    shutdown::notify_stopping();
    shared.network.shutdown().await;
    let _ = serving.await;
    tracing::info!("the super-peer has stopped");
    Ok(())
}

fn http_address(settings: &Settings, given: Option<SocketAddr>) -> Result<Option<SocketAddr>, Failure> {
    match given {
        Some(address) => Ok(Some(address)),
        None => settings.http_address().map_err(|text| {
            Failure::new(
                "cannot use the settings",
                format!("{text:?} is not an address with a port"),
                "correct http in settings.toml, e.g. 127.0.0.1:7490",
            )
        }),
    }
}

async fn open_store(dir: &DataDir, identity: &Identity) -> Result<Store, Failure> {
    let what = "cannot open the catalog";
    let next = "check the disk; restore the data folder from a backup if the file is damaged";
    let path = dir.path().join(CATALOG_FILE);
    let (trust, key) = (identity.trust.clone(), identity.keys.identity.clone());
    let catalog = tokio::task::spawn_blocking(move || Catalog::open(&path, trust, key))
        .await
        .map_err(|e| Failure::new(what, e.to_string(), next))?
        .map_err(|e| Failure::new(what, e.to_string(), next))?;
    let store = Store::start(catalog).map_err(|e| Failure::new(what, e.to_string(), next))?;
    let own = own_enrolment(identity);
    store
        .write(move |catalog| catalog.meet(own, wall_ms()))
        .await
        .map_err(|e| Failure::new(what, e.to_string(), next))?
        .map_err(|e| Failure::new(what, e.to_string(), next))?;
    Ok(store)
}

/// The root key, where it lies on this machine.
fn load_root(dir: &DataDir) -> Result<Option<Keypair>, Failure> {
    match identity::load_key(dir.folder(), ROOT_KEY_FILE) {
        Ok(root) => Ok(Some(root)),
        Err(IdentityError::Folder(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(Failure::told(&error)),
    }
}

fn own_enrolment(identity: &Identity) -> Enrolment {
    Enrolment {
        peer: identity.keys.peer(),
        credential: identity.credential.clone(),
        sealing_key: identity.sealing_statement(),
    }
}

fn start_network(
    identity: &Identity,
    settings: &Settings,
    policy: AddressPolicy,
    metrics: &Metrics,
) -> Result<(Network, mpsc::Receiver<Event>), Failure> {
    let recorder = quarta_metrics::Network::register(&metrics.registry).map_err(|e| {
        Failure::new("cannot set up the metrics", e.to_string(), "please report this as a bug")
    })?;
    let config = Config {
        enrolment: Some(own_enrolment(identity)),
        listen: settings.listen.clone(),
        external: settings.external.clone(),
        addresses: policy,
        observer: Box::new(Recorder(recorder)),
        ..Config::new(
            identity.keys.identity.clone(),
            identity.trust.clone(),
            Role::Superpeer,
            env!("CARGO_PKG_VERSION"),
        )
    };
    Network::start(config).map_err(|e| {
        Failure::new(
            "cannot listen for members",
            e.to_string(),
            "stop the program that has the port, or change listen in settings.toml",
        )
    })
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
        let timer = async {
            match wakeup {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => on_event(shared, event),
                None => return,
            },
            () = timer => shared.feed(Input::Tick),
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
            });
        }
        Event::Admitted { admitted, first } => shared.admitted(&admitted, first),
        Event::Departed { peer } => shared.feed(Input::ConnectionClosed(peer)),
        Event::Refused { peer, refusal, by_us } => {
            tracing::info!(%peer, reason = %refusal, by_us, "a peer was refused");
        }
        Event::Ping { peer, round_trip } => shared.state().round_trip(peer, round_trip),
        Event::PingMissed { peer, .. } => shared.feed(Input::PingMissed(peer)),
        Event::Request(inbound) => match inbound {
            Inbound::Index(asked) => requests::index(shared, asked),
            Inbound::Sync(asked) => requests::sync(shared, asked),
            Inbound::Admission(asked) => requests::admission(shared, asked),
            // A super-peer holds no files and is polled by nobody; unanswered, the peer notices at once.
            Inbound::Poll(_) | Inbound::Chunk(_) => {}
        },
    }
}

impl Metrics {
    fn new() -> Result<Self, quarta_metrics::registry::RegisterError> {
        let registry = Registry::new(Service::SuperPeer, env!("CARGO_PKG_VERSION"))?;
        let superpeer = quarta_metrics::SuperPeer::register(&registry)?;
        Ok(Self { registry, superpeer })
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
        for effect in effects {
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
                tracing::info!(member = name(&peer), "a member does not answer and is offered no more")
            }
            Effect::Cleared(peer) => tracing::info!(member = name(&peer), "a member answers again"),
            Effect::Removed(peer, cause) => {
                tracing::warn!(member = name(&peer), ?cause, "a member is removed from the available list");
                self.metrics.superpeer.removals.inc(match cause {
                    RemovalCause::ConnectionClosed => CauseLabel::ConnectionClosed,
                    RemovalCause::PollsMissed => CauseLabel::PollsMissed,
                });
            }
            Effect::Returned(peer) => {
                tracing::info!(member = name(&peer), "a member is back on the available list");
                self.metrics.superpeer.returns.inc();
            }
        }
    }

    fn dial(self: &Arc<Self>, peer: PeerId) {
        let addresses = {
            let mut state = self.state();
            let addresses = state.addresses_of(&peer);
            if addresses.is_empty() || !state.dialling.insert(peer) {
                return;
            }
            addresses
        };
        let shared = self.clone();
        tokio::spawn(async move {
            if let Err(error) = shared.network.connect(peer, addresses).await {
                tracing::debug!(%peer, %error, "a member could not be dialled");
            }
            shared.state().dialling.remove(&peer);
        });
    }

    /// A member is connected, or showed a new credential.
    fn admitted(self: &Arc<Self>, admitted: &Admitted, first: bool) {
        let membership = admitted.membership().clone();
        let peer = membership.peer;
        {
            let mut state = self.state();
            state.meet(&membership, admitted.presented.version.as_str().to_owned());
            if !admitted.inbound {
                state.reached_at(&peer, &admitted.remote);
            }
        }
        let enrolment = admitted.presented.enrolled.enrolment().clone();
        let shared = self.clone();
        tokio::spawn(async move {
            match shared.store.write(move |catalog| catalog.meet(enrolment, wall_ms())).await {
                Ok(Ok(Some(entry))) => shared.push(&entry),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::error!(%error, "a member could not be noted"),
                Err(error) => tracing::error!(%error, "a member could not be noted"),
            }
        });
        if first {
            self.feed(Input::Connected(peer, membership.role));
        }
        if membership.role == Role::Superpeer {
            self.link(peer).compare();
        }
    }

    /// The queue towards another super-peer, started where there is none yet.
    fn link(self: &Arc<Self>, peer: PeerId) -> federation::Link {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.entry(peer).or_insert_with(|| federation::start(self.clone(), peer)).clone()
    }

    /// Tells all other super-peers of a new entry.
    pub(crate) fn push(&self, entry: &Entry) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        for link in links.values() {
            link.push(entry);
        }
    }

    /// Takes over entries of another super-peer's catalog.
    async fn take_entries(self: &Arc<Self>, from: Membership, entries: Vec<Entry>) -> Result<Taken, String> {
        let taken = self
            .store
            .write(move |catalog| catalog.take(&from, entries, wall_ms()))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        for applied in &taken.applied {
            if let catalog::Applied::Member(membership) = applied {
                self.state().meet(membership, String::new());
                self.feed(Input::Known(membership.peer, membership.role));
            }
        }
        Ok(taken)
    }

    /// Makes the members of the catalog known, so that lists and dials begin with them.
    async fn remember_members(self: &Arc<Self>) -> Result<(), Failure> {
        let failed = |e: String| Failure::new("cannot read the catalog", e, "check the disk and start again");
        let own = self.identity.keys.peer();
        for known in identity::load_superpeers(self.dir.folder()).map_err(|e| failed(e.to_string()))? {
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
                self.feed(Input::Known(member.peer, member.role));
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Where this super-peer is reached.
    pub(crate) async fn advertised(&self) -> Vec<Multiaddr> {
        let own = self.identity.keys.peer();
        let listen = self.network.listen_addresses().await;
        let all: Vec<Multiaddr> = self.settings.external.iter().cloned().chain(listen).collect();
        let chosen = self.policy.select(&own, all.clone());
        // A machine without a network still serves a cluster on itself.
        if chosen.is_empty() { AddressPolicy::ONE_MACHINE.select(&own, all) } else { chosen }
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
    fn hear_addresses(self: &Arc<Self>, peer: PeerId, addresses: Vec<Multiaddr>) {
        let addresses = self.policy.select(&peer, addresses);
        let known = {
            let mut state = self.state();
            if addresses.is_empty() || !state.hear_addresses(peer, addresses) {
                return;
            }
            state.other_superpeers()
        };
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = identity::save_superpeers(shared.dir.folder(), &known) {
                tracing::error!(%error, "the known super-peers could not be stored");
            }
        });
    }

    async fn superpeer_membership(&self, peer: &PeerId) -> Option<Membership> {
        let connections = self.network.connections(Some(*peer)).await;
        connections
            .first()
            .map(|admitted| admitted.membership().clone())
            .filter(|m| m.role == Role::Superpeer)
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
        self.state().take_page(Instant::now(), peer, page, load, addresses, &self.metrics.superpeer)
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
            };
        }
        self.state().describe(member, Instant::now(), UnixSeconds::now())
    }

    /// Brings the gauges up to date, before they are read.
    pub(crate) async fn refresh_metrics(&self) {
        let kinds = self.store.write(|catalog| {
            use quarta_protocols::messages::sync::Kind;
            (catalog.count(Kind::FILE), catalog.count(Kind::MEMBER))
        });
        let metrics = &self.metrics.superpeer;
        if let Ok((files, members)) = kinds.await {
            metrics.catalog_records.set(quarta_metrics::superpeer::RecordKind::File, files);
            metrics.catalog_records.set(quarta_metrics::superpeer::RecordKind::Member, members);
        }
        let now = Instant::now();
        let mut state = self.state();
        let stats = state.index.stats();
        metrics.index_entries.set(stats.entries);
        metrics.index_files.set(stats.files);
        metrics.index_contents.set(stats.contents);
        for (role, label) in [(Role::Node, RoleLabel::Node), (Role::Superpeer, RoleLabel::SuperPeer)] {
            for (how, state_label) in [
                (MemberState::Online, StateLabel::Online),
                (MemberState::Suspect, StateLabel::Suspect),
                (MemberState::Offline, StateLabel::Offline),
            ] {
                let count = state.health.iter().filter(|seen| seen.role == role && seen.state == how).count();
                metrics.members.set((label, state_label), count);
            }
        }
        let leased = state.leased(now);
        metrics.leased_bytes.replace(leased.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
        metrics.fairness_of(&state.served_by_available(now));
    }
}
