//! The running node: one event loop over the network, and the pure parts it drives.
//!
//! ```text
//!  network events ─┐            ┌▶ liaison with each super-peer ─▶ connect, register   (tasks)
//!  timer ──────────┼▶ loop ─────┼▶ inventory ─▶ answers to polls
//!  stop ───────────┘            ├▶ uploads: chunks of library and vault to other nodes  (tasks)
//!                               └▶ keeping: replicas that super-peers assign ─▶ vault   (tasks)
//!  HTTP API ─▶ adding, fetching, listing ─▶ library, database, super-peers              (tasks)
//!  following: a super-peer's feed ─▶ database                                            (task)
//! ```
//!
//! The loop never hashes, seals, reads a disk or waits for a peer. What is slow runs on tokio's blocking threads, and
//! what waits runs in tasks whose number is bounded: by upload slots, by the network layer's limits per peer, by
//! `fetching::FETCHES_MAX`.

pub(crate) mod adding;
mod arriving;
mod catching_up;
mod condition;
pub(crate) mod copies;
pub(crate) mod events;
pub(crate) mod fetching;
mod following;
pub(crate) mod handing_over;
mod hiding;
mod holding;
pub(crate) mod keeping;
pub(crate) mod keyring;
pub(crate) mod limits;
pub(crate) mod listing;
pub(crate) mod membership;
pub(crate) mod parting;
pub(crate) mod reading;
pub(crate) mod receiving;
pub(crate) mod removing;
mod resealing;
pub(crate) mod restricting;
mod scrubbing;
mod superpeers;
mod taking_over;
mod tending;
pub(crate) mod trash;
pub(crate) mod unjoined;
pub(crate) mod updating;
mod upkeep;
mod uploads;
mod vault_scrubbing;
pub(crate) mod verifying;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use libp2p::{Multiaddr, PeerId};
use quarta_daemon::{
    cli::Failure,
    data_dir::{DataDir, DataDirError, Role as DataRole},
    http::{Config as HttpConfig, Limits as HttpLimits, Listener},
    identity::Identity,
    log::LogArgs,
    observer::Recorder,
    open_files::OpenFiles,
    reach::{Reach, http_address},
    settings, shutdown, timer,
};
use quarta_metrics::{
    node::Flow,
    registry::{Registry, Service},
};
use quarta_protocols::{
    credentials::Role,
    endings::Ended,
    ids::FileId,
    lately::Lately,
    messages::{
        admission,
        changes::Cursor,
        index::ListedMember,
        inventory::{Item, Key},
        poll::{self, Load},
    },
    network::{AddressPolicy, Event, Inbound, Network},
    records::Record,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, model::NodeEvent},
    database::{Database, LibraryCopy},
    inventory::{Holdings, Inventory},
    liaison::Input,
    library::{Defect, Library},
    settings::Settings,
    vault::{Found, Vault},
};

/// Records of one generation that are remembered as verified: ten of the longest pages of a listing, about 2 MiB.
const RECORDS_LATELY: usize = 2048;
/// Copies read from the database at a time.
const COPIES_AT_A_TIME: u32 = 1000;

/// What the command line decides over the settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// Where the HTTP API is served.
    pub http: Option<SocketAddr>,
    /// What all uploads together may send, in bytes a second.
    pub upload_limit_bytes_per_second: Option<u64>,
    /// Whether transfers on the local network are limited too.
    pub limit_lan: bool,
    /// What the vault may take, in bytes.
    pub vault_quota_bytes: Option<u64>,
    /// Whether a node that has not joined serves its API all the same, to be told of an invite there.
    pub await_invite: bool,
}

/// The process's metrics.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) node: quarta_metrics::Node,
}

/// What every part of the service reaches.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) network: Network,
    pub(crate) database: Arc<Database>,
    pub(crate) library: Arc<Library>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    pub(crate) superpeers: superpeers::Superpeers,
    pub(crate) own: membership::Own,
    pub(crate) fetches: fetching::Fetches,
    pub(crate) uploads: uploads::Uploads,
    pub(crate) limits: limits::Limits,
    pub(crate) arriving: arriving::Arriving,
    pub(crate) keeping: keeping::Keeping,
    pub(crate) condition: condition::Condition,
    pub(crate) defects: copies::Defects,
    pub(crate) verifications: verifying::Verifications,
    pub(crate) events: events::Events,
    pub(crate) reads: reading::Reads,
    pub(crate) keyring: keyring::Keyring,
    pub(crate) catching_up: catching_up::CatchingUp,
    pub(crate) tending: tending::Tending,
    /// Records of listings, which are asked for again and again.
    verified: Lately<Record>,
    pub(crate) receipts: receiving::Receipts,
    handovers: handing_over::Handovers,
    pub(crate) upkeep: upkeep::Upkeep,
    /// Held while an own record is changed: see [`Shared::changes_of_own`].
    own_changes: Mutex<()>,
    reach: Reach,
    policy: AddressPolicy,
    inventory: Mutex<Inventory>,
    /// Where this node is reached.
    addresses: Mutex<Vec<Multiaddr>>,
    rescheduled: Notify,
    dir: DataDir,
}

/// Runs the node of a data folder until it is told to stop.
///
/// # Errors
/// A [`Failure`] with cause and next step where it cannot start.
pub async fn run(path: &Path, overrides: Overrides, log: &LogArgs) -> Result<(), Failure> {
    let dir = match DataDir::open(path, DataRole::Node) {
        Err(DataDirError::Missing { .. }) if overrides.await_invite => None,
        opened => Some(opened?),
    };
    log.init()?;
    let stop = shutdown::on_signals()
        .map_err(|e| Failure::new("cannot start", e.to_string(), "check the limits on open files"))?;
    let dir = if let Some(dir) = dir {
        dir
    } else {
        let http = overrides.http.or(http_address(crate::settings::DEFAULT_HTTP)?);
        let http = http.ok_or_else(|| {
            Failure::new("cannot wait for an invite", "no address is given", "name one with --http")
        })?;
        if !unjoined::wait_for_invite(path, http, &stop).await? {
            return Ok(());
        }
        DataDir::open(path, DataRole::Node)?
    };
    let lock = dir.lock()?;
    let open_files = OpenFiles::raise();
    let mut settings: Settings = settings::load(dir.folder())?;
    if overrides.upload_limit_bytes_per_second.is_some() {
        settings.upload_limit_bytes_per_second = overrides.upload_limit_bytes_per_second;
    }
    settings.limit_lan |= overrides.limit_lan;
    settings.limits().check().map_err(|error| {
        Failure::new(
            "cannot use the limits of the settings",
            error.to_string(),
            "correct settings.toml and start again",
        )
    })?;
    if overrides.vault_quota_bytes.is_some() {
        settings.vault_quota_bytes = overrides.vault_quota_bytes;
    }
    let identity = Identity::load(&dir).map_err(|e| Failure::told(&e))?;
    let tcp = match overrides.http {
        Some(address) => Some(address),
        None => http_address(&settings.http)?,
    };
    let names = settings.http_names.clone();
    let limits = HttpLimits::default();
    let limits = HttpLimits { connections: open_files.http_connections(limits.connections), ..limits };
    let config = HttpConfig { tcp, names, open_metrics: settings.open_metrics, limits };
    let listener = Listener::bind(&dir, &lock, config).await?;

    let bug = |e: quarta_metrics::registry::RegisterError| {
        Failure::new("cannot set up the metrics", e.to_string(), "please report this as a bug")
    };
    let metrics = Metrics::new().map_err(bug)?;
    let recorder = Recorder(quarta_metrics::Network::register(&metrics.registry).map_err(bug)?);
    let stored = {
        let dir = dir.clone();
        let identity = identity.clone();
        tokio::task::spawn_blocking(move || Stored::open(&dir, &identity))
            .await
            .map_err(|e| Failure::new("cannot open the data folder", e.to_string(), "start again"))??
    };
    let reach = settings.reach();
    let (network, events) = reach.start(&identity, Role::Node, open_files, recorder)?;
    let known = quarta_daemon::identity::load_superpeers(dir.folder()).map_err(|e| Failure::told(&e))?;
    let own_files = stored.own_files;
    // Before anybody can connect.
    for (peer, ended) in stored.ended {
        network.end(peer, ended).await;
    }
    let own = membership::Own::new(&identity, dir.folder())?;
    network.sign_off(own.is_signed_off()).await;
    let shared = Arc::new(Shared {
        superpeers: superpeers::Superpeers::new(
            identity.keys.peer(),
            known,
            &stored.members,
            stored.inventory.position(),
            own_files,
        ),
        own,
        fetches: fetching::Fetches::default(),
        uploads: uploads::Uploads::new(&settings),
        limits: limits::Limits::new(settings.limits()),
        arriving: arriving::Arriving::default(),
        keeping: keeping::Keeping::new(stored.vault, &stored.replicas, &settings),
        condition: condition::Condition::new(open_files),
        defects: copies::Defects::of(stored.defects),
        verifications: verifying::Verifications::default(),
        events: events::Events::new(rand::random()),
        reads: reading::Reads::default(),
        keyring: keyring::Keyring::default(),
        catching_up: catching_up::CatchingUp::new(),
        tending: tending::Tending::default(),
        verified: Lately::new(RECORDS_LATELY),
        receipts: receiving::Receipts::default(),
        handovers: handing_over::Handovers::default(),
        upkeep: upkeep::Upkeep::default(),
        own_changes: Mutex::default(),
        identity,
        network,
        database: Arc::new(stored.database),
        library: Arc::new(stored.library),
        metrics,
        stop: stop.clone(),
        policy: reach.policy(),
        reach,
        inventory: Mutex::new(stored.inventory),
        addresses: Mutex::new(Vec::new()),
        rescheduled: Notify::new(),
        settings,
        dir,
    });
    tracing::info!(
        name = %shared.identity.membership.name,
        peer = %shared.identity.keys.peer(),
        http = ?listener.tcp_address(),
        "the node runs"
    );
    shutdown::notify_ready();
    // Before anybody can ask: what was under way is.
    fetching::go_on(shared.clone()).await;
    handing_over::go_on(shared.clone()).await;
    tokio::spawn(following::follow(shared.clone(), stored.cursors));
    tokio::spawn(tending::tend(shared.clone()));
    tokio::spawn(fetching::expire_failed(shared.clone()));
    tokio::spawn(keeping::keep(shared.clone()));
    tokio::spawn(keeping::settle(shared.clone()));
    tokio::spawn(vault_scrubbing::scrub(shared.clone()));
    tokio::spawn(upkeep::keep_up(shared.clone()));
    tokio::spawn(trash::expire(shared.clone()));
    tokio::spawn(scrubbing::look(shared.clone()));
    tokio::spawn(scrubbing::scrub(shared.clone()));
    tokio::spawn(shared.clone().keep_renewed());
    let serving = tokio::spawn(listener.serve(api::router(shared.clone()), stop.clone()));
    events_until_stopped(&shared, events).await;
    shutdown::notify_stopping();
    shared.fetches.stopped().await;
    shared.keeping.stopped().await;
    shared.network.shutdown().await;
    let _ = serving.await;
    shared.unlist_arriving();
    let position = shared.inventory().position();
    let database = shared.database.clone();
    let ended = tokio::task::spawn_blocking(move || database.end_run(position)).await;
    if !matches!(ended, Ok(Ok(()))) {
        tracing::warn!("the list's position could not be stored; the next start sends the whole list");
    }
    tracing::info!("the node has stopped");
    Ok(())
}

/// What lies in the data folder, opened.
struct Stored {
    database: Database,
    library: Library,
    vault: Vault,
    /// What lies in the vault.
    replicas: Vec<Found>,
    inventory: Inventory,
    /// Own files, to be published to super-peers that may have missed them.
    own_files: Vec<FileId>,
    /// Copies that are not as they were.
    defects: HashMap<FileId, copies::Defective>,
    /// Members as they were when the last run ended.
    members: Vec<ListedMember>,
    /// Those whose membership has ended.
    ended: Vec<(PeerId, Ended)>,
    /// How far super-peers were followed.
    cursors: HashMap<PeerId, Cursor>,
}

impl Stored {
    fn open(dir: &DataDir, identity: &Identity) -> Result<Self, Failure> {
        let next = "check the disk; restore the data folder from a backup if it is damaged";
        let failed =
            |what: &'static str| move |e: &dyn std::error::Error| Failure::new(what, e.to_string(), next);
        let library = Library::open(dir.path()).map_err(|e| failed("cannot open the library")(&e))?;
        let (vault, replicas) = Vault::open(dir.path()).map_err(|e| failed("cannot open the vault")(&e))?;
        let database = Database::open(&dir.path().join(crate::database::FILE_NAME))
            .map_err(|e| failed("cannot open the database")(&e))?;
        let unreadable = |e: crate::database::DatabaseError| failed("cannot read the database")(&e);
        let kept = fetching::kept_data(&database).map_err(unreadable)?;
        library.sweep_partials(&kept).map_err(|e| failed("cannot tidy up the partial files")(&e))?;
        trash::settle_plans(&database, &library).map_err(|e| failed("cannot tidy up the trash")(&e))?;
        let position = database.begin_run().map_err(unreadable)?;
        let whole = replicas.iter().filter(|replica| replica.whole);
        let mut items: Vec<Item> =
            whole.map(|found| keeping::item_of(found.content, found.size_bytes)).collect();
        let own = identity.keys.peer();
        let own_files =
            database.records_of_owner(&own).map_err(unreadable)?.into_iter().map(|(file, _)| file);
        let own_files = own_files.collect();
        let withheld = upkeep::withheld(&database, &identity.trust, &own).map_err(unreadable)?;
        let mut defects = HashMap::new();
        let mut changed = false;
        let mut after = None;
        loop {
            let copies = database.copies(after.as_ref(), COPIES_AT_A_TIME).map_err(unreadable)?;
            let Some(last) = copies.last() else { break };
            after = Some(last.file);
            for copy in &copies {
                if withheld.contains(&copy.file) {
                    changed = true;
                    continue;
                }
                let Some(found) = copies::first_look(&library, copy) else {
                    items.push(item_of(copy));
                    continue;
                };
                tracing::warn!(file = %copy.name, path = %found.path.display(), "a file of the library is {}, and is \
                    offered to nobody; put the right file there and run `quarta verify`", found.defect.as_str());
                // What was doubted before was withdrawn before, so the numbering goes on.
                if !copy.stamp.is_doubted() {
                    changed = true;
                    if found.defect == Defect::Changed {
                        database.set_stamp(copy, copy.stamp.doubted()).map_err(unreadable)?;
                    }
                }
                defects.insert(copy.file, found);
            }
        }
        // What changed while the node was down has no place in the numbering of before.
        let inventory = if let Some(position) = position.filter(|_| !changed) {
            Inventory::resume(position, items)
        } else {
            let mut inventory = Inventory::new(rand::random());
            for item in items {
                inventory.upsert(item);
            }
            inventory
        };
        let members = database.members().map_err(unreadable)?.into_iter().map(|known| known.listed).collect();
        let ended = database.ended().map_err(unreadable)?;
        let cursors = database.cursors().map_err(unreadable)?;
        Ok(Self {
            database,
            library,
            vault,
            replicas,
            inventory,
            own_files,
            defects,
            members,
            ended,
            cursors,
        })
    }
}

/// How a copy stands in the list.
pub(crate) fn item_of(copy: &LibraryCopy) -> Item {
    Item::Library {
        file: copy.file,
        name: copy.name.clone(),
        size_bytes: copy.stamp.size_bytes,
        sha256: copy.sha256,
        content: copy.content,
        completeness: copy.completeness,
    }
}

/// Milliseconds since 1970, by this machine's clock; 0 before.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn events_until_stopped(shared: &Arc<Shared>, mut events: mpsc::Receiver<Event>) {
    shared.superpeers.feed_all(shared, Input::Tick);
    loop {
        let wakeup = shared.superpeers.next_wakeup();
        tokio::select! {
            () = shared.stop.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => on_event(shared, event),
                None => return,
            },
            () = timer::until(wakeup) => shared.superpeers.feed_all(shared, Input::Tick),
            () = shared.rescheduled.notified() => {}
        }
    }
}

fn on_event(shared: &Arc<Shared>, event: Event) {
    match event {
        Event::Listening(address) => {
            tracing::info!(%address, "listening for members");
            let shared = shared.clone();
            tokio::spawn(async move { shared.learn_addresses().await });
        }
        Event::Admitted { admitted, .. } => {
            shared.hear_clock(admitted.peer, admitted.presented.clock);
            shared.limits.connected(admitted.peer, &admitted.remote);
            if admitted.membership().role == Role::Superpeer {
                shared.superpeers.connected(shared, &admitted);
                shared.fetches.superpeer_connected();
                shared.announce_presence(admitted.peer);
            }
        }
        Event::Departed { peer } => {
            shared.forget_clock(&peer);
            shared.limits.departed(&peer);
            shared.superpeers.departed(shared, peer);
        }
        Event::Refused { peer, refusal, by_us, clock } => {
            tracing::warn!(%peer, reason = %refusal, by_us, "a connection was refused");
            shared.hear_clock(peer, clock);
            if !by_us {
                shared.superpeers.refused(peer, refusal);
                shared.not_accepted(refusal);
            }
        }
        // Two pings in a row: better to try another connection than to wait for this one to time out.
        Event::PingMissed { peer, .. } => shared.superpeers.reconnect(shared, peer),
        Event::Request(Inbound::Poll(asked)) => {
            let interval = Duration::from_millis(asked.request.interval_ms);
            let page = shared.inventory().page(asked.request.since, asked.request.after);
            let (load, addresses) = (shared.load(), shared.addresses());
            asked.responder.respond(poll::Response { page, load, addresses });
            shared.superpeers.feed(shared, asked.peer, Input::Polled(interval));
        }
        Event::Request(Inbound::Chunk(asked)) => uploads::serve(shared, asked),
        Event::Request(Inbound::Vault(asked)) => keeping::answer(shared, asked),
        Event::Request(Inbound::Handover(asked)) => taking_over::answer(shared, asked),
        Event::Request(Inbound::Admission(asked)) => {
            asked.responder.respond(match asked.request {
                admission::Request::Discover => admission::Response::Superpeers(shared.superpeers.known()),
                admission::Request::Redeem { .. }
                | admission::Request::Renew { .. }
                | admission::Request::Leave(_) => {
                    admission::Response::Refused(admission::Refusal::NotASuperpeer)
                }
            });
        }
        // Round trips are of no use here, and a node keeps no index: unanswered, the peer notices at once.
        Event::Ping { .. } | Event::Request(Inbound::Index(_) | Inbound::Changes(_) | Inbound::Sync(_)) => {}
    }
}

impl Metrics {
    fn new() -> Result<Self, quarta_metrics::registry::RegisterError> {
        let registry = Registry::new(Service::Node, env!("CARGO_PKG_VERSION"))?;
        let node = quarta_metrics::Node::register(&registry)?;
        Ok(Self { registry, node })
    }
}

impl Shared {
    /// The node's list, for as short as it takes to read or change it; never across an await.
    pub(crate) fn inventory(&self) -> MutexGuard<'_, Inventory> {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a copy into the list, and tells the super-peers.
    pub(crate) fn offer(self: &Arc<Self>, copy: &LibraryCopy) {
        let changed = {
            let mut inventory = self.inventory();
            inventory.upsert(item_of(copy)).then(|| inventory.position())
        };
        if let Some(position) = changed {
            self.superpeers.feed_all(self, Input::Changed(position));
            self.events.publish(NodeEvent::FileAdded {
                file: copy.file.to_string(),
                name: copy.name.to_string(),
                owner: copy.owner_name.to_string(),
            });
        }
    }

    /// Takes a file out of the list: its copy is no source any more.
    pub(crate) fn withdraw(self: &Arc<Self>, file: FileId) {
        let changed = {
            let mut inventory = self.inventory();
            inventory.remove(Key::Library(file)).then(|| inventory.position())
        };
        if let Some(position) = changed {
            self.superpeers.feed_all(self, Input::Changed(position));
            self.events.publish(NodeEvent::FileWithdrawn { file: file.to_string() });
        }
    }

    /// How busy this node is.
    pub(crate) fn load(&self) -> Load {
        Load {
            active_uploads: self.uploads.active(),
            upload_slots: self.limits.uploads_fed(self.uploads.slots()),
            active_downloads: self.fetches.active(),
            upload_capacity_bytes_per_second: self.limits.rates().upload_bytes_per_second,
            upload_rate_bytes_per_second: self.uploads.rate(Instant::now()),
            free_bytes: self.free_bytes(),
            stored_bytes: self.stored_bytes(),
            served_bytes: self.uploads.served_bytes(),
        }
    }

    /// Files and bytes of the library that are held whole.
    pub(crate) fn holdings(&self) -> Holdings {
        self.inventory().holdings()
    }

    /// Bytes in the library and in the vault.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.holdings().bytes.saturating_add(self.keeping.totals().whole_bytes)
    }

    /// Space left on the disk that holds the data folder, in bytes; 0 where it cannot be told.
    pub(crate) fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(self.dir.path()).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Where this node is reached.
    pub(crate) fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn learn_addresses(&self) {
        let own = self.reach.advertised(&self.network).await;
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = own;
    }

    /// Brings the gauges up to date, before they are read.
    pub(crate) fn refresh_metrics(&self) {
        let held = self.holdings();
        let metrics = &self.metrics.node;
        metrics.library_files.set(held.files);
        metrics.library_bytes.set(held.bytes);
        let limits = self.limits.rates();
        for (flow, limit) in [
            (Flow::Upload, limits.upload_bytes_per_second),
            (Flow::Download, limits.download_bytes_per_second),
        ] {
            metrics.rate_limit.set(flow, limit.unwrap_or(0));
        }
        let vault = self.keeping.totals();
        metrics.vault_replicas.set(vault.whole);
        metrics.vault_bytes.set(vault.whole_bytes);
        metrics.vault_wanted.set(vault.wanted);
        self.refresh_defects();
        metrics.superpeers_connected.set(self.superpeers.connected_peers().len());
        metrics.inventory_revision.set(self.inventory().position().revision);
    }
}
