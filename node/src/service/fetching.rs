//! Fetching: a file of another branch becomes a copy in the library, verified to its last byte.
//!
//! The transfer engine ([`crate::download`]) decides; this module gives it the network, the super-peers and the disk.
//! Whoever asks for a file that is being fetched already joins that transfer, and a transfer goes on when whoever asked
//! for it goes away.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;
use quarta_daemon::observer::carrier;
use quarta_metrics::{
    network::Transport as Carrier,
    node::{ChunkRefusal, FetchOutcome, Flow, SourceDropped},
};
use quarta_protocols::{
    content::{ContentKey, MANIFEST_MAX_BYTES, Manifest, SEALED_CHUNK_MAX_BYTES},
    ids::{ContentId, FileId, Sha256},
    limits::SOURCES_MAX,
    messages::{
        chunk::{Head, Refusal, Request as ChunkRequest},
        index::{Fault, Request, Response, Source, SourceOutcome},
        inventory::Completeness,
    },
    names::{FileName, MemberName},
    network::{CallError, Incoming, Transport},
    records::{Access, Record},
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Shared, wall_ms};
use crate::{
    api::model::{self, TransferState},
    database::{
        Copy, Direction, Share, Source as CopySource, Transfer, TransferId, TransferState as StoredState,
    },
    download::{
        chunk_set::ChunkSet,
        fetch::{
            FetchError, Job, fetch,
            ports::{FinishError, Peers, RunError, Sink, Sources, TransportLabel, Written},
            report::{FetchProgress, RowState},
        },
    },
    landing::{Landed, Landing, LandingError},
};

/// Transfers under way at once. Those beyond [`FETCHES_AT_WORK`] wait for their turn.
pub(crate) const FETCHES_MAX: usize = 10_000;
/// Transfers that move bytes at once: each holds up to 64 MiB, and more of them would only share the same line.
pub(crate) const FETCHES_AT_WORK: usize = 4;
/// How often the state of a running transfer is passed on.
const PASS_ON_EVERY: Duration = Duration::from_millis(100);

/// The transfers under way.
pub(crate) struct Fetches {
    running: Mutex<HashMap<FileId, watch::Receiver<model::Transfer>>>,
    active: AtomicU32,
    turns: Semaphore,
}

impl Default for Fetches {
    fn default() -> Self {
        let turns = Semaphore::new(FETCHES_AT_WORK);
        Self { running: Mutex::default(), active: AtomicU32::new(0), turns }
    }
}

/// Why a fetch does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BeginError {
    /// The record does not let this node read the file.
    #[error("this branch may not read the file")]
    NotReadable,
    /// The file is deleted.
    #[error("its owner has deleted the file")]
    Deleted,
    /// As many as can be are under way.
    #[error("{FETCHES_MAX} transfers are under way already")]
    Busy,
    /// The database failed.
    #[error("the database could not be read or written: {0}")]
    Database(String),
}

impl Fetches {
    fn running(&self) -> MutexGuard<'_, HashMap<FileId, watch::Receiver<model::Transfer>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Transfers under way.
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// How the running transfers stand, by number.
    pub(crate) fn now(&self) -> HashMap<u64, model::Transfer> {
        self.running()
            .values()
            .map(|watch| watch.borrow().clone())
            .map(|transfer| (transfer.id, transfer))
            .collect()
    }
}

/// What a file's record says that fetching needs.
#[derive(Clone)]
struct Wanted {
    record: Record,
    file: FileId,
    name: FileName,
    owner: PeerId,
    owner_name: MemberName,
    size_bytes: u64,
    content: ContentId,
    manifest: Option<Bytes>,
    key: ContentKey,
    sha256: Sha256,
}

impl Wanted {
    fn of(record: Record, owner_name: MemberName) -> Result<Self, BeginError> {
        let entry = record.entry().ok_or(BeginError::Deleted)?;
        let Access::Open { key, sha256, .. } = &entry.access else { return Err(BeginError::NotReadable) };
        Ok(Self {
            file: record.file(),
            name: entry.name.clone(),
            owner: record.owner(),
            owner_name,
            size_bytes: entry.size_bytes,
            content: entry.content,
            manifest: entry.manifest.as_ref().map(|manifest| Bytes::copy_from_slice(manifest)),
            key: key.clone(),
            sha256: *sha256,
            record,
        })
    }
}

/// Begins to fetch a file, or joins the transfer that does. What is watched ends with the transfer's end.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    record: Record,
    owner_name: MemberName,
) -> Result<watch::Receiver<model::Transfer>, BeginError> {
    let wanted = Wanted::of(record, owner_name)?;
    if let Some(transfer) = here_already(shared, &wanted).await? {
        return Ok(watch::channel(transfer).1);
    }
    if let Some(running) = shared.fetches.running().get(&wanted.file) {
        return Ok(running.clone());
    }
    let row = stored(&wanted, StoredState::Running);
    let database = shared.database.clone();
    let id = tokio::task::spawn_blocking(move || database.begin_transfer(&row))
        .await
        .map_err(|e| BeginError::Database(e.to_string()))?
        .map_err(|e| BeginError::Database(e.to_string()))?;
    let (sender, receiver) = watch::channel(shown(&wanted, id, TransferState::Active));
    {
        let mut running = shared.fetches.running();
        if let Some(running) = running.get(&wanted.file) {
            return Ok(running.clone());
        }
        if running.len() >= FETCHES_MAX {
            return Err(BeginError::Busy);
        }
        running.insert(wanted.file, receiver.clone());
    }
    let shared = shared.clone();
    tokio::spawn(async move {
        // Never closed, so this only waits.
        let _turn = shared.fetches.turns.acquire().await;
        shared.fetches.active.fetch_add(1, Ordering::Relaxed);
        run(&shared, &wanted, id, &sender).await;
        shared.fetches.running().remove(&wanted.file);
        shared.fetches.active.fetch_sub(1, Ordering::Relaxed);
    });
    Ok(receiver)
}

/// A completed transfer of nothing, where the present content lies in the library.
async fn here_already(shared: &Arc<Shared>, wanted: &Wanted) -> Result<Option<model::Transfer>, BeginError> {
    let (database, file) = (shared.database.clone(), wanted.file);
    let copy = tokio::task::spawn_blocking(move || database.copy(&file))
        .await
        .map_err(|e| BeginError::Database(e.to_string()))?
        .map_err(|e| BeginError::Database(e.to_string()))?;
    let whole = |copy: &Copy| copy.content == wanted.content && copy.completeness == Completeness::Complete;
    let Some(copy) = copy.filter(whole).filter(|copy| super::is_unchanged(&shared.library, copy)) else {
        return Ok(None);
    };
    let now = wall_ms();
    Ok(Some(model::Transfer {
        state: TransferState::Completed,
        done_bytes: wanted.size_bytes,
        started_ms: now,
        ended_ms: Some(now),
        path: Some(shared.library.path_of(&copy.place).display().to_string()),
        sha256: Some(wanted.sha256.to_string()),
        ..shown(wanted, TransferId(0), TransferState::Completed)
    }))
}

async fn run(shared: &Arc<Shared>, wanted: &Wanted, id: TransferId, sender: &watch::Sender<model::Transfer>) {
    let started = Instant::now();
    let _active = shared.metrics.node.active_transfers.hold(Flow::Download);
    let (progress, mut watched) = watch::channel(FetchProgress::default());
    let sink = Arc::new(Disk {
        shared: shared.clone(),
        wanted: wanted.clone(),
        landing: OnceLock::new(),
        landed: Mutex::new(None),
    });
    let carried = Arc::new(Mutex::new(HashMap::new()));
    let job =
        Job { content: wanted.content, size_bytes: wanted.size_bytes, manifest: wanted.manifest.clone() };
    let sources =
        Arc::new(Locating { shared: shared.clone(), content: wanted.content, size_bytes: wanted.size_bytes });
    let peers = Arc::new(Holders { shared: shared.clone(), carried: carried.clone() });
    let cancel: CancellationToken = shared.stop.child_token();
    let fetching = fetch(job, sources, peers, sink.clone(), progress, cancel);
    tokio::pin!(fetching);
    let mut pass_on = tokio::time::interval(PASS_ON_EVERY);
    let outcome = loop {
        tokio::select! {
            outcome = &mut fetching => break outcome,
            _ = pass_on.tick() => {
                let now = watched.borrow_and_update().clone();
                sender.send_modify(|transfer| show_progress(transfer, &now, started));
            }
        }
    };
    let last = watched.borrow_and_update().clone();
    sender.send_modify(|transfer| show_progress(transfer, &last, started));
    let result = match outcome.result {
        Ok(()) => complete(shared, wanted, &sink).await,
        Err(error) => Err(error_text(&error)),
    };
    let cancelled = result.is_err() && shared.stop.is_cancelled();
    sender.send_modify(|transfer| {
        merge_outcomes(transfer, &outcome.sources);
        transfer.ended_ms = Some(wall_ms());
        match &result {
            Ok(path) => {
                transfer.state = TransferState::Completed;
                transfer.done_bytes = wanted.size_bytes;
                transfer.path = Some(path.clone());
                transfer.sha256 = Some(wanted.sha256.to_string());
            }
            Err(why) => {
                transfer.state = if cancelled { TransferState::Cancelled } else { TransferState::Failed };
                transfer.error = Some(why.clone());
            }
        }
        transfer.bytes_per_second = rate(transfer.done_bytes, started.elapsed());
    });
    let ended = sender.borrow().clone();
    record_metrics(shared, &ended, &outcome.sources, &carried, started.elapsed());
    store_end(shared, wanted, id, &ended).await;
    report(shared, wanted.content, outcome.sources).await;
}

/// Notes the fetched file and offers it to others.
async fn complete(shared: &Arc<Shared>, wanted: &Wanted, sink: &Arc<Disk>) -> Result<String, String> {
    let landed = sink.landed.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((landed, manifest)) = landed else {
        return Err("the file was not put into the library".to_owned());
    };
    let copy = Copy {
        file: wanted.file,
        owner: wanted.owner,
        owner_name: wanted.owner_name.clone(),
        name: wanted.name.clone(),
        source: CopySource::Fetched,
        place: crate::library::Place::Library(landed.path),
        stamp: landed.stamp,
        sha256: Some(wanted.sha256),
        content: wanted.content,
        completeness: Completeness::Complete,
        record: wanted.record.signed().clone(),
    };
    let (blocking, noted) = (shared.clone(), copy.clone());
    let record = wanted.record.clone();
    tokio::task::spawn_blocking(move || {
        blocking.database.remember_record(&record, &blocking.identity.trust, wall_ms())?;
        blocking.database.put_copy(&noted, &manifest)
    })
    .await
    .map_err(|e| e.to_string())?
    .map_err(|e| e.to_string())?;
    shared.offer(&copy);
    Ok(shared.library.path_of(&copy.place).display().to_string())
}

fn error_text(error: &FetchError<LandingError>) -> String {
    match error {
        // It says itself what could not be done.
        FetchError::Store(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

/// What to do after a failure that says this.
pub(crate) fn next_step(error: &str) -> &'static str {
    if error.contains("no branch that holds") {
        "wait until a branch that holds it is back; `quarta members` shows who is"
    } else if error.contains("disk") {
        "make room and run the command again"
    } else if error.contains("owner must update") || error.contains("checksum") {
        "ask the owner to add the file anew"
    } else {
        "run the command again"
    }
}

fn rate(bytes: u64, took: Duration) -> f64 {
    let seconds = took.as_secs_f64();
    if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 }
}

fn shown(wanted: &Wanted, id: TransferId, state: TransferState) -> model::Transfer {
    model::Transfer {
        id: u64::try_from(id.0).unwrap_or(0),
        file: wanted.file.to_string(),
        name: wanted.name.to_string(),
        owner: wanted.owner_name.to_string(),
        state,
        size_bytes: wanted.size_bytes,
        done_bytes: 0,
        bytes_per_second: 0.0,
        started_ms: wall_ms(),
        ended_ms: None,
        path: None,
        sha256: None,
        error: None,
        sources: Vec::new(),
    }
}

fn show_progress(transfer: &mut model::Transfer, now: &FetchProgress, started: Instant) {
    transfer.done_bytes = now.bytes_done;
    transfer.bytes_per_second = rate(now.bytes_done, started.elapsed());
    transfer.sources = now
        .sources
        .iter()
        .map(|row| model::TransferSource {
            name: row.name.to_string(),
            peer_id: row.peer.to_string(),
            transport: row.transport.map(str::to_owned),
            bytes: row.bytes,
            busy_ms: 0,
            fault: match row.state {
                RowState::Dropped(fault) => Some(fault.as_str().to_owned()),
                RowState::Connecting | RowState::Active | RowState::Spare => None,
            },
        })
        .collect();
}

fn merge_outcomes(transfer: &mut model::Transfer, outcomes: &[SourceOutcome]) {
    for source in &mut transfer.sources {
        if let Some(outcome) = outcomes.iter().find(|outcome| outcome.peer.to_string() == source.peer_id) {
            source.bytes = outcome.bytes;
            source.busy_ms = outcome.busy_ms;
            source.fault = outcome.fault.map(|fault| fault.as_str().to_owned());
        }
    }
}

fn stored(wanted: &Wanted, state: StoredState) -> Transfer {
    Transfer {
        file: wanted.file,
        name: wanted.name.clone(),
        direction: Direction::Download,
        state,
        problem: None,
        size_bytes: wanted.size_bytes,
        bytes: 0,
        started_ms: wall_ms(),
        ended_ms: None,
        sha256: None,
        shares: Vec::new(),
    }
}

async fn store_end(shared: &Shared, wanted: &Wanted, id: TransferId, ended: &model::Transfer) {
    let state = match ended.state {
        TransferState::Active => StoredState::Running,
        TransferState::Completed => StoredState::Done,
        TransferState::Failed => StoredState::Failed,
        TransferState::Cancelled => StoredState::Cancelled,
    };
    let share = |source: &model::TransferSource| {
        Some(Share {
            peer: source.peer_id.parse().ok()?,
            name: MemberName::new(&source.name).ok(),
            transport: source.transport.clone(),
            bytes: source.bytes,
            busy_ms: source.busy_ms,
            dropped: source.fault.clone(),
        })
    };
    let row = Transfer {
        problem: ended.error.clone(),
        bytes: ended.done_bytes,
        ended_ms: ended.ended_ms,
        sha256: (state == StoredState::Done).then_some(wanted.sha256),
        shares: ended.sources.iter().filter_map(share).collect(),
        ..stored(wanted, state)
    };
    let database = shared.database.clone();
    let written = tokio::task::spawn_blocking(move || database.update_transfer(id, &row)).await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::error!("the end of a transfer could not be noted");
    }
}

fn record_metrics(
    shared: &Shared,
    ended: &model::Transfer,
    outcomes: &[SourceOutcome],
    carried: &Mutex<HashMap<PeerId, Transport>>,
    took: Duration,
) {
    let metrics = &shared.metrics.node;
    metrics.fetches.inc(match ended.state {
        TransferState::Completed => FetchOutcome::Completed,
        TransferState::Cancelled => FetchOutcome::Cancelled,
        TransferState::Failed | TransferState::Active => FetchOutcome::Failed,
    });
    metrics.transfer_ended(Flow::Download, ended.done_bytes, took);
    let carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
    for outcome in outcomes {
        let peer = outcome.peer.to_string();
        let name =
            ended.sources.iter().find(|source| source.peer_id == peer).map(|source| source.name.as_str());
        if outcome.bytes > 0 {
            let transport = carried.get(&outcome.peer).map_or(Carrier::Tcp, |transport| carrier(*transport));
            metrics.fetched_bytes.add(name.unwrap_or("other"), transport, outcome.bytes);
        }
        if let Some(fault) = outcome.fault {
            metrics.sources_dropped.inc(match fault {
                Fault::Unreachable => SourceDropped::Unreachable,
                Fault::WrongBytes => SourceDropped::WrongBytes,
                Fault::Stalled => SourceDropped::Stalled,
                Fault::NotHeld => SourceDropped::NotHeld,
                Fault::BrokeOff => SourceDropped::BrokeOff,
            });
        }
    }
}

/// Tells every connected super-peer what the sources did, since each chooses sources by itself.
async fn report(shared: &Arc<Shared>, content: ContentId, outcomes: Vec<SourceOutcome>) {
    for page in outcomes.chunks(SOURCES_MAX) {
        for peer in shared.superpeers.connected_peers() {
            let request = Request::Report { content, outcomes: page.to_vec() };
            if let Err(error) =
                shared.network.call::<quarta_protocols::messages::index::Index>(peer, request).await
            {
                tracing::debug!(%peer, %error, "a report did not arrive");
            }
        }
    }
}

/// Finds sources at the super-peers.
struct Locating {
    shared: Arc<Shared>,
    content: ContentId,
    size_bytes: u64,
}

impl Sources for Locating {
    async fn locate(&self, except: Vec<PeerId>) -> Vec<Source> {
        let request = Request::Locate { content: self.content, wanted_bytes: self.size_bytes, except };
        match self.shared.superpeers.ask(&self.shared, request).await {
            Ok(Response::Sources(sources)) => sources,
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::info!(%error, "sources could not be located");
                Vec::new()
            }
        }
    }
}

/// Reaches holders over the network.
struct Holders {
    shared: Arc<Shared>,
    /// What carried the latest run of each.
    carried: Arc<Mutex<HashMap<PeerId, Transport>>>,
}

impl Holders {
    async fn ask(&self, peer: PeerId, request: ChunkRequest, frame_max: usize) -> Result<Incoming, RunError> {
        let incoming = self.shared.network.fetch(peer, request, frame_max).await.map_err(|error| {
            tracing::debug!(%peer, %error, "a holder did not answer");
            RunError::Fault(match error {
                CallError::NotConnected | CallError::Unsupported => Fault::Unreachable,
                CallError::Timeout => Fault::Stalled,
                CallError::TooLarge(_) | CallError::Malformed(_) => Fault::WrongBytes,
                CallError::Unanswered | CallError::Closed | CallError::Shutdown => Fault::BrokeOff,
            })
        })?;
        match &incoming.head {
            Head::Refused(Refusal::Busy) => Err(RunError::Busy),
            Head::Refused(Refusal::NotHeld | Refusal::NoSuchChunk) => Err(RunError::Fault(Fault::NotHeld)),
            Head::Manifest | Head::Run | Head::Availability(_) => Ok(incoming),
        }
    }
}

/// A small question's answer has no "later": busy counts as broken off.
const fn fault_of(error: RunError) -> Fault {
    match error {
        RunError::Busy => Fault::BrokeOff,
        RunError::Fault(fault) => fault,
    }
}

impl Peers for Holders {
    async fn connect(&self, source: &Source) -> Result<(), Fault> {
        let addresses = self.shared.policy.select(&source.peer, source.addresses.clone());
        match self.shared.network.connect(source.peer, addresses).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::info!(holder = %source.name, %error, "a holder could not be reached");
                Err(Fault::Unreachable)
            }
        }
    }

    async fn manifest(&self, peer: PeerId, content: ContentId) -> Result<Bytes, Fault> {
        let request = ChunkRequest::Manifest { content };
        let mut incoming = self.ask(peer, request, MANIFEST_MAX_BYTES).await.map_err(fault_of)?;
        if incoming.head != Head::Manifest {
            return Err(Fault::WrongBytes);
        }
        incoming.body.next().await.map_err(|_| Fault::BrokeOff)?.ok_or(Fault::WrongBytes)
    }

    async fn availability(&self, peer: PeerId, content: ContentId) -> Result<Bytes, Fault> {
        let incoming = self.ask(peer, ChunkRequest::Availability { content }, 0).await.map_err(fault_of)?;
        match incoming.head {
            Head::Availability(bitmap) => Ok(Bytes::from(bitmap.into_vec())),
            Head::Manifest | Head::Run | Head::Refused(_) => Err(Fault::WrongBytes),
        }
    }

    async fn run(
        &self,
        peer: PeerId,
        content: ContentId,
        first: u32,
        count: u32,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<TransportLabel, RunError> {
        let request = ChunkRequest::Run { content, first, count };
        let mut incoming = self.ask(peer, request, SEALED_CHUNK_MAX_BYTES).await?;
        if incoming.head != Head::Run {
            return Err(RunError::Fault(Fault::WrongBytes));
        }
        let transport = incoming.transport;
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, transport);
        loop {
            match incoming.body.next().await {
                Ok(Some(chunk)) => {
                    if sink.send(chunk).await.is_err() {
                        return Ok(label(transport));
                    }
                }
                Ok(None) => return Ok(label(transport)),
                Err(error) => {
                    tracing::info!(%peer, %error, "a holder broke off");
                    return Err(RunError::Fault(Fault::BrokeOff));
                }
            }
        }
    }
}

const fn label(transport: Transport) -> TransportLabel {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Quic => "quic",
        Transport::Relay => "relay",
    }
}

/// Puts chunks on the disk.
struct Disk {
    shared: Arc<Shared>,
    wanted: Wanted,
    landing: OnceLock<Mutex<Option<Arc<Landing>>>>,
    landed: Mutex<Option<(Landed, Manifest)>>,
}

impl Disk {
    fn landing(&self) -> Option<Arc<Landing>> {
        self.landing.get()?.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for Disk {
    type Error = LandingError;

    fn begin(&self, manifest: &Manifest) -> Result<ChunkSet, LandingError> {
        let landing =
            Landing::create(&self.shared.library, manifest.clone(), &self.wanted.key, self.wanted.sha256)?;
        let verified = landing.verified();
        let slot = self.landing.get_or_init(|| Mutex::new(None));
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(landing));
        Ok(verified)
    }

    fn write(&self, index: u32, sealed: Bytes) -> Result<Written, LandingError> {
        let Some(landing) = self.landing() else { return Err(LandingError::NoSuchChunk(index)) };
        match landing.write(index, Vec::from(sealed)) {
            Ok(_) => {
                self.shared.metrics.node.chunks_verified.inc();
                Ok(Written::Verified)
            }
            Err(LandingError::BadChunk(_)) => {
                self.shared.metrics.node.chunks_refused.inc(ChunkRefusal::WrongHash);
                Ok(Written::Refused)
            }
            Err(error) => Err(error),
        }
    }

    fn finish(&self) -> Result<(), FinishError<LandingError>> {
        let slot = self.landing.get().map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Nobody writes any more once all chunks are verified, so this is the last reference.
        let Some(landing) = slot.flatten().and_then(Arc::into_inner) else {
            return Err(FinishError::Store(LandingError::Incomplete(0)));
        };
        let manifest = landing.manifest().clone();
        let wanted = &self.wanted;
        match landing.finish(&self.shared.library, &wanted.owner_name, &wanted.name, &wanted.file) {
            Ok(landed) => {
                *self.landed.lock().unwrap_or_else(PoisonError::into_inner) = Some((landed, manifest));
                Ok(())
            }
            Err(LandingError::OtherChecksum { .. }) => Err(FinishError::WrongChecksum),
            Err(error) => Err(FinishError::Store(error)),
        }
    }
}
