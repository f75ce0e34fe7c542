//! Keeping replicas: what super-peers assign is fetched, kept, served and reported by this node itself.
//!
//! The ledger ([`crate::vault::ledger`]) decides, the transfer engine ([`crate::download`]) fetches, the vault
//! ([`crate::vault`]) stores. What stands in the node's list is what lies on the disk, verified: a replica is listed when it has
//! its final name, and taken off the list before it is touched. The list is the only answer that super-peers get about
//! how an assignment went, so assignments need not be remembered: a planner that misses something tells again.
//!
//! **After a start the vault is silent for a moment.** What was withdrawn while this node was off must be served to nobody,
//! and only super-peers know what that is. So others are let wait until a super-peer has this node's list and had the time to
//! say what is to go ([`SETTLES_WITHIN`]); where no super-peer is there, not for ever ([`SILENT_AT_MOST`]).
//!
//! **A person's fetch goes first.** A run for the vault begins only once what was fetched before is paid for at the rate of
//! the settings. While people fetch, here or from here, chunks come one by one and are a tenth of what people move, at most
//! ([`crate::throttle::courtesy`]). Runs that are under way when a person's fetch begins are broken off; what had arrived
//! of them stays. Holders are told that it is for a replica, and let their people go first too.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;
use quarta_daemon::observer::carrier;
use quarta_metrics::{network::Transport as Carrier, node::FetchOutcome};
use quarta_protocols::{
    content::Manifest,
    ids::ContentId,
    messages::{
        chunk::Purpose,
        index::{Fault, Source},
        inventory::{Completeness, Item, Key},
        vault::{Assignment, DropReason, Outcome, Request, Response, Vault as Lane},
    },
    network::{Asked, Transport},
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Shared,
    fetching::{Holders, Locating, report},
    uploads,
};
use crate::{
    database::DatabaseError,
    download::{
        chunk_set::ChunkSet,
        fetch::{
            FetchError, Job as Fetch, fetch,
            ports::{FinishError, Peers, RunError, Sink, TransportLabel, Written},
            report::FetchProgress,
        },
    },
    liaison::Input,
    serving::Chunks,
    settings::Settings,
    throttle::Bucket,
    vault::{
        Filling, Found, Vault, VaultError,
        ledger::{Bounds, Job, Ledger, Next, Ticket, Totals},
    },
};

/// How long a run waits for its turn before the source is told to be left alone for a while: far less than silence that
/// would be held against the source.
const PATIENCE: Duration = Duration::from_millis(500);
/// How soon a run makes way for a person's fetch.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a confirmation may take; what has not been looked at by then is not confirmed. The question is given up
/// soon after ([`quarta_protocols::limits::QUICK_TIMEOUT`]).
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);
/// How long a super-peer that has just heard this node's list has to say what is to go: it answers a list at once, and
/// this is many round trips.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// How long after a start the vault stays silent where no super-peer hears of it: files are to be had without
/// super-peers too.
const SILENT_AT_MOST: Duration = Duration::from_secs(30);
/// How long a stopping node waits for its replicas in the making.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The vault and what is being done for it.
pub(crate) struct Keeping {
    vault: Arc<Vault>,
    ledger: Mutex<Ledger>,
    /// What is being fetched.
    running: Mutex<HashMap<ContentId, (Ticket, CancellationToken)>>,
    /// There may be something to fetch.
    news: Notify,
    tasks: TaskTracker,
    budget: Mutex<Bucket>,
    /// A super-peer has this node's list.
    heard: Notify,
    /// Whether super-peers have had the time to say what is to go.
    settled: AtomicBool,
}

impl Keeping {
    pub(super) fn new(vault: Vault, found: &[Found], settings: &Settings) -> Self {
        let bounds =
            Bounds { quota_bytes: settings.vault_quota_bytes, reserve_bytes: settings.vault_reserve_bytes };
        Self {
            vault: Arc::new(vault),
            ledger: Mutex::new(Ledger::new(bounds, found)),
            running: Mutex::default(),
            news: Notify::new(),
            tasks: TaskTracker::new(),
            budget: Mutex::new(Bucket::new(Instant::now(), settings.vault_fetch_bytes_per_second)),
            heard: Notify::new(),
            // What is assigned from now on was not withdrawn before.
            settled: AtomicBool::new(found.is_empty()),
        }
    }

    /// The ledger, for as short as it takes to read or change it; never across an await. Where the inventory changes
    /// with it, this is held meanwhile, so that the list says what the ledger says.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replicas on the disk.
    pub(super) const fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// What there is.
    pub(crate) fn totals(&self) -> Totals {
        self.ledger().totals()
    }

    /// How much it may take.
    pub(crate) fn bounds(&self) -> Bounds {
        self.ledger().bounds()
    }

    /// Whether there is a whole replica of a content.
    pub(super) fn has(&self, content: &ContentId) -> bool {
        self.ledger().is_whole(content)
    }

    /// A super-peer has this node's present list.
    pub(super) fn is_heard(&self) {
        self.heard.notify_one();
    }

    /// Whether replicas are served to others.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<ContentId, (Ticket, CancellationToken)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn budget(&self) -> MutexGuard<'_, Bucket> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, not for ever, until nothing is fetched for the vault any more. For the stop, after it was told.
    pub(super) async fn stopped(&self) {
        self.tasks.close();
        // What is not finished is found by the next start.
        let _ = tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await;
    }
}

/// How a whole replica stands in the node's list.
pub(super) const fn item_of(content: ContentId, size_bytes: u64) -> Item {
    Item::Vault { content, size_bytes, completeness: Completeness::Complete }
}

/// Answers a super-peer, in a task of its own.
pub(super) fn answer(shared: &Arc<Shared>, asked: Asked<Lane>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let blocking = shared.clone();
        let answering = tokio::task::spawn_blocking(move || match asked.request {
            Request::Assign(assignments) => match assign(&blocking, &assignments) {
                Ok(outcomes) => Response::Assigned(outcomes),
                Err(error) => {
                    tracing::error!(%error, "assignments for the vault could not be taken");
                    Response::Unavailable
                }
            },
            Request::Confirm(contents) => Response::Confirmed(confirm(&blocking, &contents)),
        });
        if let Ok(response) = answering.await {
            asked.responder.respond(response);
        }
        shared.keeping.news.notify_one();
    });
}

/// Takes assignments on. Blocks on the disk.
fn assign(shared: &Arc<Shared>, assignments: &[Assignment]) -> Result<Vec<Outcome>, DatabaseError> {
    let keeping = &shared.keeping;
    let outcome = |assignment: &Assignment| match *assignment {
        // What lies in the library counts already, and a sealed copy beside it would keep nothing safer.
        Assignment::Keep { content, .. } if !keeping.has(&content) && is_in_library(shared, &content)? => {
            Ok(Outcome::Accepted)
        }
        Assignment::Keep { content, size_bytes } => {
            let free_bytes = keeping.vault.free_bytes();
            Ok(keeping.ledger().keep(content, size_bytes, free_bytes))
        }
        Assignment::Drop { content, reason } => Ok(drop_replica(shared, &content, reason)),
    };
    assignments.iter().map(outcome).collect()
}

/// Whether the library has the content and offers it.
fn is_in_library(shared: &Shared, content: &ContentId) -> Result<bool, DatabaseError> {
    let copy = shared.database.copy_of_content(content)?;
    let listed = |file| shared.inventory().get(&Key::Library(file)).map(Item::completeness);
    Ok(copy.is_some_and(|copy| listed(copy.file) == Some(Completeness::Complete)))
}

/// Keeps a content no longer: it is served to nobody from now on, and gone from the disk when this returns. What is only
/// one copy too many stays while a super-peer counts on it. Blocks on the disk.
fn drop_replica(shared: &Arc<Shared>, content: &ContentId, reason: DropReason) -> Outcome {
    let keeping = &shared.keeping;
    let (dropped, position) = {
        let mut ledger = keeping.ledger();
        if reason == DropReason::Excess && ledger.is_confirmed(content, Instant::now()) {
            return Outcome::Busy;
        }
        (ledger.drop_content(content), shared.unlist_replica(content))
    };
    shared.uploads.forget(content);
    if let Some((_, cancel)) = keeping.running().remove(content) {
        cancel.cancel();
    }
    if let Some(position) = position {
        shared.superpeers.feed_all(shared, Input::Changed(position));
    }
    if !dropped {
        return Outcome::Accepted;
    }
    tracing::debug!(%content, ?reason, "a replica is dropped");
    if let Err(error) = keeping.vault.remove(content) {
        tracing::warn!(%content, %error, "a replica that is kept no longer could not be removed; it is served to nobody");
    }
    Outcome::Accepted
}

/// Which of these this node holds, whole, on its disk: each is opened anew, and one of its chunks, drawn at random, is
/// read and compared with the manifest. What is confirmed is counted on for a while, from before it is looked at, so that
/// it cannot go in between. Blocks on the disk.
fn confirm(shared: &Arc<Shared>, contents: &[ContentId]) -> Vec<bool> {
    let (keeping, until) = (&shared.keeping, Instant::now() + CONFIRM_WITHIN);
    let holds = |content: &ContentId| {
        keeping.ledger().confirm(content, Instant::now());
        let Ok(held) = uploads::open(shared, content) else { return false };
        let chunk = rand::random::<u32>() % held.geometry().chunks().max(1);
        match held.read_from_disk(chunk) {
            Ok(_) => true,
            Err(abort) => {
                held.found_defective(shared, content, abort);
                false
            }
        }
    };
    contents.iter().map(|content| Instant::now() < until && holds(content)).collect()
}

/// Ends the silence after a start.
pub(super) async fn settle(shared: Arc<Shared>) {
    let heard = async {
        shared.keeping.heard.notified().await;
        tokio::time::sleep(SETTLES_WITHIN).await;
    };
    // Whether it was heard or not, this is the end of it.
    let _ = tokio::time::timeout(SILENT_AT_MOST, heard).await;
    shared.keeping.settled.store(true, Ordering::Release);
}

/// Fetches what is wanted, until the node stops.
pub(super) async fn keep(shared: Arc<Shared>) {
    let keeping = &shared.keeping;
    while !shared.stop.is_cancelled() {
        let job = keeping.ledger().begin_next(Instant::now());
        if let Some(job) = job {
            let cancel = shared.stop.child_token();
            keeping.running().insert(job.content, (job.ticket, cancel.clone()));
            keeping.tasks.spawn(fill(shared.clone(), job, cancel));
            continue;
        }
        let due = keeping.ledger().next_due();
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = keeping.news.notified() => {}
            () = quarta_daemon::timer::until(due) => {}
        }
    }
}

/// An attempt under way. However it ends, by a panic too, its place is free when this is dropped.
struct Attempt {
    shared: Arc<Shared>,
    job: Job,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let keeping = &self.shared.keeping;
        // One that has told its end is under way no more, and this says nothing.
        let _ = keeping.ledger().failed(&self.job, Instant::now(), false);
        let mut running = keeping.running();
        if running.get(&self.job.content).is_some_and(|(ticket, _)| *ticket == self.job.ticket) {
            running.remove(&self.job.content);
        }
        drop(running);
        keeping.news.notify_one();
    }
}

/// One attempt at one replica.
async fn fill(shared: Arc<Shared>, job: Job, cancel: CancellationToken) {
    let _attempt = Attempt { shared: shared.clone(), job };
    let keeping = &shared.keeping;
    let sink =
        Arc::new(Store { shared: shared.clone(), job, cancel: cancel.clone(), filling: Mutex::default() });
    let carried = Arc::new(Mutex::new(HashMap::new()));
    let holders = Holders { shared: shared.clone(), purpose: Purpose::Replica, carried: carried.clone() };
    let peers = Arc::new(Polite(holders));
    let Job { content, size_bytes, .. } = job;
    let sources = Arc::new(Locating { shared: shared.clone(), owner: None, content, size_bytes });
    let vault = keeping.vault.clone();
    let known = tokio::task::spawn_blocking(move || vault.manifest(&content)).await;
    let manifest = known.ok().flatten().map(|manifest| Bytes::from(manifest.to_bytes()));
    let (progress, watched) = watch::channel(FetchProgress::default());
    let wanted = Fetch { content, size_bytes, manifest };
    let outcome = fetch(wanted, sources, peers, sink, progress, cancel.clone()).await;
    count(&shared, &watched.borrow(), &carried);
    let telling = shared.clone();
    tokio::spawn(async move { report(&telling, content, outcome.sources).await });
    match outcome.result {
        Ok(()) => shared.list_replica(&job),
        Err(error) => failed(&shared, &job, &error).await,
    }
}

async fn failed(shared: &Arc<Shared>, job: &Job, error: &FetchError<VaultError>) {
    if shared.stop.is_cancelled() {
        return;
    }
    // The planner's word and the content disagree, or there is no room: trying again would not help.
    let for_good = matches!(error, FetchError::WrongRecord | FetchError::Store(VaultError::DiskFull { .. }));
    let next = shared.keeping.ledger().failed(job, Instant::now(), for_good);
    let outcomes = &shared.metrics.node.vault_fetches;
    match next {
        Next::Again => tracing::debug!(content = %job.content, %error, "a replica could not be fetched yet"),
        Next::Nothing => outcomes.inc(FetchOutcome::Cancelled),
        Next::GivenUp => {
            outcomes.inc(FetchOutcome::Failed);
            tracing::info!(content = %job.content, %error, "a replica could not be fetched, and is given up until a super-peer \
                asks for it again");
            let (vault, content) = (shared.keeping.vault.clone(), job.content);
            let removed = tokio::task::spawn_blocking(move || vault.remove(&content)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "what had arrived of a replica could not be removed");
            }
        }
    }
}

/// Counts what an attempt brought.
fn count(shared: &Shared, last: &FetchProgress, carried: &Mutex<HashMap<PeerId, Transport>>) {
    let metrics = &shared.metrics.node;
    metrics.vault_fetched_bytes.add(last.bytes_done.saturating_sub(last.bytes_resumed));
    let carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
    for row in last.sources.iter().filter(|row| row.bytes > 0) {
        let transport = carried.get(&row.peer).map_or(Carrier::Tcp, |transport| carrier(*transport));
        metrics.fetched_bytes.add(row.name.as_str(), transport, row.bytes);
    }
}

impl Shared {
    /// A job has brought a whole replica: it is in the list from now on.
    fn list_replica(self: &Arc<Self>, job: &Job) {
        let changed = {
            let mut ledger = self.keeping.ledger();
            let mut inventory = self.inventory();
            let listed = ledger.filled(job) && inventory.upsert(item_of(job.content, job.size_bytes));
            listed.then(|| inventory.position())
        };
        if let Some(position) = changed {
            self.metrics.node.vault_fetches.inc(FetchOutcome::Completed);
            self.superpeers.feed_all(self, Input::Changed(position));
        }
    }

    /// Takes a replica out of the list; gives the list's position where that changed it. The caller holds the ledger
    /// and tells the super-peers.
    fn unlist_replica(&self, content: &ContentId) -> Option<quarta_protocols::messages::inventory::Position> {
        let mut inventory = self.inventory();
        inventory.remove(Key::Vault(*content)).then(|| inventory.position())
    }

    /// A whole replica turns out to be damaged or gone: it is no source any more, and is repaired from others. Blocks on
    /// the disk.
    pub(super) fn replica_damaged(self: &Arc<Self>, content: &ContentId) {
        // First on the disk, so that the repair begins with the chunks that are sound.
        if let Err(error) = self.keeping.vault.demote(content)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%content, %error, "a damaged replica could not be renamed");
        }
        let (damaged, position) = {
            let mut ledger = self.keeping.ledger();
            let damaged = ledger.damaged(content);
            (damaged, damaged.then(|| self.unlist_replica(content)).flatten())
        };
        self.uploads.forget(content);
        if damaged {
            self.metrics.node.vault_damaged.inc();
            tracing::warn!(%content, folder = %self.keeping.vault.path().display(), "a replica in the vault is damaged: it is \
                served to nobody until it is repaired from other branches; check the disk");
        }
        if let Some(position) = position {
            self.superpeers.feed_all(self, Input::Changed(position));
        }
        self.keeping.news.notify_one();
    }
}

/// Holders, asked for no more than the vault's share of the line.
struct Polite(Holders);

impl Polite {
    fn keeping(&self) -> &Keeping {
        &self.0.shared.keeping
    }

    /// Charges what is to be fetched, once what was charged before is paid for; busy where that takes long.
    async fn charge(&self, bytes: usize) -> Result<(), RunError> {
        let owed = self.keeping().budget().owed(Instant::now());
        if owed > PATIENCE {
            return Err(RunError::Busy);
        }
        tokio::time::sleep(owed).await;
        // What is owed now shows at the next run.
        self.keeping().budget().take(Instant::now(), bytes);
        Ok(())
    }

    /// Returns once people fetch.
    async fn people_come(&self) {
        while !self.0.shared.people_are_active() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Peers for Polite {
    async fn connect(&self, source: &Source) -> Result<(), Fault> {
        self.0.connect(source).await
    }

    async fn manifest(&self, peer: PeerId, content: ContentId) -> Result<Bytes, Fault> {
        self.0.manifest(peer, content).await
    }

    async fn availability(&self, peer: PeerId, content: ContentId) -> Result<Bytes, Fault> {
        self.0.availability(peer, content).await
    }

    async fn run(
        &self,
        peer: PeerId,
        content: ContentId,
        first: u32,
        count: u32,
        chunk_max_bytes: usize,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<TransportLabel, RunError> {
        if self.0.shared.people_are_active() {
            let mut carried = Err(RunError::Busy);
            for index in first..first.saturating_add(count) {
                if !self.0.shared.may_replicate(chunk_max_bytes).await {
                    return Err(RunError::Busy);
                }
                self.charge(chunk_max_bytes).await?;
                carried = self.0.run(peer, content, index, 1, chunk_max_bytes, sink.clone()).await;
                carried?;
            }
            return carried;
        }
        self.charge(chunk_max_bytes.saturating_mul(count as usize)).await?;
        let run = self.0.run(peer, content, first, count, chunk_max_bytes, sink);
        tokio::select! {
            biased;
            ended = run => ended,
            () = self.people_come() => Err(RunError::Busy),
        }
    }
}

/// Puts sealed chunks into the vault, as they are.
struct Store {
    shared: Arc<Shared>,
    job: Job,
    cancel: CancellationToken,
    filling: Mutex<Option<Arc<Filling>>>,
}

impl Store {
    fn is_wanted(&self) -> bool {
        !self.cancel.is_cancelled() && self.shared.keeping.ledger().is_wanted(&self.job)
    }

    fn filling(&self) -> Result<Arc<Filling>, VaultError> {
        let filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        filling.clone().ok_or(VaultError::Unwanted)
    }
}

impl Sink for Store {
    type Error = VaultError;

    fn begin(&self, manifest: &Manifest) -> Result<ChunkSet, VaultError> {
        let filling = Filling::begin(&self.shared.keeping.vault, manifest.clone(), || self.is_wanted())?;
        let verified = filling.verified();
        *self.filling.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(filling));
        Ok(verified)
    }

    fn write(&self, index: u32, sealed: Bytes) -> Result<Written, VaultError> {
        let metrics = &self.shared.metrics.node;
        if self.filling()?.write(index, &sealed)? {
            metrics.chunks_verified.inc();
            Ok(Written::Verified)
        } else {
            metrics.chunks_refused.inc(quarta_metrics::node::ChunkRefusal::WrongHash);
            Ok(Written::Refused)
        }
    }

    fn finish(&self) -> Result<(), FinishError<VaultError>> {
        let filling = self.filling().map_err(FinishError::Store)?;
        filling.finish(|| self.is_wanted()).map_err(FinishError::Store)
    }
}
