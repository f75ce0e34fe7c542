//! From a data folder to a running super-peer, and back to rest.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use libp2p::identity::Keypair;
use quarta_daemon::{
    cli::Failure,
    data_dir::{DataDir, Role as DataRole},
    http::{Config as HttpConfig, Limits as HttpLimits, Listener},
    identity::{self, Identity, IdentityError},
    log::LogArgs,
    observer::Recorder,
    open_files::OpenFiles,
    reach::{enrolment, http_address},
    renewing::Keeper,
    settings, shutdown,
};
use quarta_metrics::registry::{RegisterError, Registry, Service};
use quarta_protocols::credentials::Role;
use tokio::sync::Notify;

use super::{
    Metrics, Shared, events_until_stopped,
    federation::Federation,
    following::{self, Following},
    joining, observing, replicating,
    state::State,
    wall_ms,
};
use crate::{
    admission::Authority,
    api,
    catalog::{Catalog, EnrolError},
    feed::Source,
    reconciliation::Agreement,
    settings::Settings,
    setup::ROOT_KEY_FILE,
    store::Store,
};
/// The catalog's file in the data folder.
const CATALOG_FILE: &str = "catalog.db";

/// What the command line decides over the settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// How often nodes are polled.
    pub poll_interval: Option<Duration>,
    /// Where the HTTP API is served.
    pub http: Option<SocketAddr>,
    /// How long a node may be away before its copies are made anew.
    pub repair_after: Option<Duration>,
    /// How many copies of a file there are at most; 1 for no replicas.
    pub max_copies: Option<u32>,
}

/// Runs the super-peer of a data folder until it is told to stop.
///
/// # Errors
/// A [`Failure`] with cause and next step where it cannot start.
pub async fn run(path: &Path, overrides: Overrides, log: &LogArgs) -> Result<(), Failure> {
    let dir = DataDir::open(path, DataRole::Superpeer)?;
    let lock = dir.lock()?;
    log.init()?;
    let open_files = OpenFiles::raise();
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
    let node_lifetime = settings.node_lifetime()?;
    let mut keeping = settings.replication.config()?;
    keeping.grace = overrides.repair_after.unwrap_or(keeping.grace);
    keeping.copies = overrides.max_copies.map_or(keeping.copies, |most| keeping.copies.at_most(most));
    let http = match overrides.http {
        Some(address) => Some(address),
        None => http_address(&settings.http)?,
    };
    let limits = HttpLimits::default();
    let config = HttpConfig {
        tcp: http,
        names: settings.http_names.clone(),
        open_metrics: settings.open_metrics,
        limits: HttpLimits { connections: open_files.http_connections(limits.connections), ..limits },
    };
    let listener = Listener::bind(&dir, &lock, config).await?;
    let stop = shutdown::on_signals()
        .map_err(|e| Failure::new("cannot start", e.to_string(), "check the limits on open files"))?;

    let bug = |e: RegisterError| {
        Failure::new("cannot set up the metrics", e.to_string(), "please report this as a bug")
    };
    let metrics = Metrics::new().map_err(bug)?;
    let run = rand::random();
    let (store, source) = open_store(&dir, &identity, run).await?;
    let recorder = Recorder(quarta_metrics::Network::register(&metrics.registry).map_err(bug)?);
    let reach = settings.reach();
    let (network, events) = reach.start(&identity, Role::Superpeer, open_files, recorder)?;
    let root = load_root(&dir)?;
    let authority = Authority::new(identity.keys.identity.clone(), identity.credential.clone(), root)
        .for_nodes_that_live(node_lifetime);
    let federation = federation(&store).await?;
    let following = Following::new(source, store.sequence());
    let replication = replicating::Replication::new(identity.keys.peer(), keeping, store.sequence());
    let (observer, observations) = observing::Observer::new();
    let shared = Arc::new(Shared {
        door: joining::Door::new(authority, Instant::now()),
        keeper: Keeper::new(&identity),
        network,
        store,
        metrics,
        stop: stop.clone(),
        policy: reach.policy(),
        reach,
        state: Mutex::new(State::new(interval, Instant::now())),
        observer,
        links: Mutex::new(HashMap::new()),
        federation,
        following,
        replication,
        rescheduled: Notify::new(),
        identity,
        open_files,
        clocks: Mutex::default(),
        dir,
    });
    shared.remember_members().await?;
    tokio::spawn(following::run(shared.clone()));
    tokio::spawn(replicating::run(shared.clone()));
    let observing = observing::start(shared.clone(), observations);
    tracing::info!(
        name = %shared.identity.membership.name,
        peer = %shared.identity.keys.peer(),
        http = ?listener.tcp_address(),
        "the super-peer runs"
    );
    shutdown::notify_ready();
    tokio::spawn(shared.clone().keep_renewed());
    let serving = tokio::spawn(listener.serve(api::router(shared.clone()), stop.clone()));
    events_until_stopped(&shared, events).await;
    shutdown::notify_stopping();
    shared.network.shutdown().await;
    let _ = serving.await;
    let _ = observing.await;
    tracing::info!("the super-peer has stopped");
    Ok(())
}

/// Opens the catalog for a run of the process, and gives what its feed is called by.
async fn open_store(dir: &DataDir, identity: &Identity, run: u64) -> Result<(Store, Source), Failure> {
    let what = "cannot open the catalog";
    let next = "check the disk; restore the data folder from a backup if the file is damaged";
    let path = dir.path().join(CATALOG_FILE);
    let (trust, key) = (identity.trust.clone(), identity.keys.identity.clone());
    let own = enrolment(identity);
    let opened = tokio::task::spawn_blocking(move || {
        let mut catalog = Catalog::open(&path, trust, key)?;
        catalog.begin_run(run)?;
        catalog.meet(own, wall_ms())?;
        Ok(catalog)
    })
    .await
    .map_err(|e| Failure::new(what, e.to_string(), next))?;
    let catalog = opened.map_err(|error: EnrolError| match error {
        EnrolError::Ended(standing) => Failure::new(
            "cannot start",
            format!("this super-peer's membership has ended ({standing})"),
            "ask for a new invite, and join with a new data folder",
        ),
        error => Failure::new(what, error.to_string(), next),
    })?;
    let source = Source { store: catalog.store(), run };
    let store = Store::start(catalog).map_err(|e| Failure::new(what, e.to_string(), next))?;
    Ok((store, source))
}

/// What is known of the agreement with other super-peers before the first comparison.
async fn federation(store: &Store) -> Result<Federation, Failure> {
    let failed = |e: String| Failure::new("cannot read the catalog", e, "check the disk and start again");
    let last = store.write(|catalog| catalog.last_comparison()).await.map_err(|e| failed(e.to_string()))?;
    Ok(Federation::started(Agreement::started(last.map_err(|e| failed(e.to_string()))?)))
}

/// The root key, where it lies on this machine.
fn load_root(dir: &DataDir) -> Result<Option<Keypair>, Failure> {
    match identity::load_key(dir.folder(), ROOT_KEY_FILE) {
        Ok(root) => Ok(Some(root)),
        Err(IdentityError::Folder(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(Failure::told(&error)),
    }
}

impl Metrics {
    fn new() -> Result<Self, RegisterError> {
        let registry = Registry::new(Service::SuperPeer, env!("CARGO_PKG_VERSION"))?;
        let superpeer = quarta_metrics::SuperPeer::register(&registry)?;
        Ok(Self { registry, superpeer })
    }
}
