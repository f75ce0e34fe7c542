//! Fetching: a file of another branch becomes a copy in the library, verified to its last byte.
//!
//! The transfer engine ([`crate::download`]) decides; this module gives it the network, the super-peers and the disk.
//! Whoever asks for a file that is being fetched already joins that transfer, and a transfer goes on when whoever asked
//! for it goes away.

mod ports;
mod shown;

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
use quarta_metrics::node::Flow;
use quarta_protocols::{
    content::ContentKey,
    ids::{ContentId, FileId, Sha256},
    limits::SOURCES_MAX,
    messages::{
        index::{Request, SourceOutcome},
        inventory::Completeness,
    },
    names::{FileName, MemberName},
    records::{Access, Record},
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{Shared, events::Events, wall_ms};
use crate::{
    api::model::{self, TransferState},
    database::{LibraryCopy, Provenance, TransferId, TransferState as StoredState},
    download::fetch::{FetchError, Job, fetch, report::FetchProgress},
    landing::LandingError,
};

use ports::{Disk, Holders, Locating};
use shown::{merge_outcomes, rate, record_metrics, show_progress, shown, store_end, stored};

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
    let blocking = shared.clone();
    let id = tokio::task::spawn_blocking(move || blocking.noted(blocking.database.begin_transfer(&row)))
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
    Events::follow(shared, receiver.clone());
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
    let (blocking, file, content) = (shared.clone(), wanted.file, wanted.content);
    let copy = tokio::task::spawn_blocking(move || {
        let copy = blocking.database.copy(&file)?;
        let whole =
            |copy: &LibraryCopy| copy.content == content && copy.completeness == Completeness::Complete;
        Ok::<_, crate::database::DatabaseError>(copy.filter(whole).filter(|copy| blocking.is_sound(copy)))
    })
    .await
    .map_err(|e| BeginError::Database(e.to_string()))?
    .map_err(|e| BeginError::Database(e.to_string()))?;
    let Some(copy) = copy else { return Ok(None) };
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
        Ok(()) => complete(shared, wanted, &sink)
            .await
            .map_err(|why| (why, "check the disk and run the command again")),
        Err(error) => Err(explain(&error)),
    };
    let cancelled = result.is_err() && shared.stop.is_cancelled();
    sender.send_modify(|transfer| {
        let carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
        merge_outcomes(transfer, &outcome.sources, &carried);
        transfer.ended_ms = Some(wall_ms());
        match &result {
            Ok(path) => {
                transfer.state = TransferState::Completed;
                transfer.done_bytes = wanted.size_bytes;
                transfer.path = Some(path.clone());
                transfer.sha256 = Some(wanted.sha256.to_string());
            }
            Err((why, next_step)) => {
                transfer.state = if cancelled { TransferState::Cancelled } else { TransferState::Failed };
                transfer.error = Some(why.clone());
                transfer.next_step = Some((*next_step).to_owned());
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
    let copy = LibraryCopy {
        file: wanted.file,
        owner: wanted.owner,
        owner_name: wanted.owner_name.clone(),
        name: wanted.name.clone(),
        // An owner that fetches its own file back is its owner still.
        provenance: if wanted.owner == shared.identity.keys.peer() {
            Provenance::Own
        } else {
            Provenance::Fetched
        },
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
        let trust = &blocking.identity.trust;
        blocking.noted(blocking.database.keep_copy(&noted, &manifest, &record, trust, wall_ms()))
    })
    .await
    .map_err(|e| e.to_string())?
    .map_err(|e| e.to_string())?;
    let path = shared.library.path_of(&copy.place);
    if let Some(before) = shared.defects.replaced(&wanted.file)
        && before.path != path
    {
        tracing::info!(file = %wanted.name, kept = %before.path.display(), fresh = %path.display(), "the copy that is {} \
            was left where it is, beside a fresh one", before.defect.as_str());
    }
    // A content that was open is that of the file before.
    shared.uploads.forget(&wanted.content);
    shared.offer(&copy);
    Ok(path.display().to_string())
}

/// Why a fetch failed, and what to do next, for people.
fn explain(error: &FetchError<LandingError>) -> (String, &'static str) {
    let again = "run the command again";
    let ask_owner = "ask the owner to add the file anew";
    match error {
        FetchError::NoSources => (
            error.to_string(),
            "wait until a branch that holds it is back; `quarta members` shows who is there",
        ),
        FetchError::SourcesExhausted { .. } | FetchError::Cancelled => (error.to_string(), again),
        FetchError::WrongRecord | FetchError::WrongChecksum => (error.to_string(), ask_owner),
        FetchError::Store(LandingError::WrongKey | LandingError::OtherChecksum { .. }) => {
            ("the file is not what its record says".to_owned(), ask_owner)
        }
        FetchError::Store(LandingError::Library(cause)) => {
            // The library's errors end with their own advice.
            let text = cause.to_string();
            (
                text.rsplit_once("; ").map_or(text.clone(), |(why, _)| why.to_owned()),
                "make room or check the disk, and run the command again",
            )
        }
        FetchError::Store(cause) => (cause.to_string(), again),
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
