//! Fetching: a file of another branch becomes a copy in the library, verified to its last byte.
//!
//! The transfer engine ([`crate::download`]) decides; this module gives it the network, the super-peers and the disk.
//! Whoever asks for a file that is being fetched already joins that transfer, and a transfer goes on when whoever asked
//! for it goes away.
//!
//! **A transfer outlasts the daemon.** Its row in the database says how it is to go on, its partial data lies in
//! `DATA/partial` under the file's and the content's ids. At a start the transfers that were under way go on by
//! themselves ([`go_on`]); paused ones wait for their user. There is one transfer for a file at most, so nobody else
//! touches its data. A transfer's states:
//!
//! ```text
//!            ┌────────────────────────────────────────────┐
//!            ▼                                            │ a source can be connected
//!   get ▶ queued ──▶ active ──▶ completed     all lost ▶ waiting
//!            ▲         ├─────▶ failed         (keeps its data for FAILED_DATA_KEPT)
//!   resume ──┴─ paused ◀┤ pause              cancel ▶ cancelled, its data is gone
//! ```
//!
//! A file that is updated meanwhile is fetched anew from *queued*; one that is deleted fails: see [`superseding`].

pub(crate) mod control;
mod course;
mod locating;
mod ports;
mod restart;
mod shown;
mod superseding;
mod words;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use libp2p::PeerId;
use quarta_protocols::{
    audiences::AccessSecret,
    content::ContentKey,
    ids::{ContentId, FileId, Sha256},
    limits::SOURCES_MAX,
    messages::{
        index::{Request, SourceOutcome},
        inventory::Completeness,
    },
    names::{FileName, MemberName},
    records::Record,
};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio_util::task::TaskTracker;

use super::{Shared, events::Events, wall_ms};
use crate::{
    api::model::{self, TransferState},
    database::{LibraryCopy, Transfer, TransferId, TransferState as StoredState},
    library::PartialName,
};

use course::{Beginning, Control, Course};
pub(super) use locating::Locating;
pub(super) use ports::Holders;
pub(super) use restart::{expire_failed, go_on, kept_data};
use shown::{shown, stored};
pub(super) use superseding::{follow, record_changed};

/// Transfers under way at once. Those beyond [`FETCHES_AT_WORK`] wait for their turn.
pub(crate) const FETCHES_MAX: usize = 10_000;
/// Transfers that move bytes at once: each holds up to 64 MiB, and more of them would only share the same line.
pub(crate) const FETCHES_AT_WORK: usize = 4;
/// Transfers that look for sources at once, of all that wait: when a super-peer comes back, all of them want to.
const LOOKS_AT_ONCE: usize = 8;
/// How long a failed transfer keeps its partial data, which takes the whole file's space: long enough for somebody who
/// is back after a week.
pub(crate) const FAILED_DATA_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long a stopping node waits for its transfers to note how they stand; a file that is being put into its place may
/// take that long to reach the disk. The next start finds out by itself what was not noted.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// The transfers under way.
pub(crate) struct Fetches {
    running: Mutex<HashMap<FileId, Slot>>,
    /// Ended transfers that the database would not take, by number: it has them as under way still.
    unnoted: Mutex<HashMap<u64, model::Transfer>>,
    turns: Semaphore,
    looks: Semaphore,
    /// Held while a transfer begins or is changed from outside, so that there is one for a file.
    changing: tokio::sync::Mutex<()>,
    /// How many connections to super-peers there have been.
    superpeers: watch::Sender<u64>,
    tasks: TaskTracker,
}

/// One transfer under way.
#[derive(Clone)]
struct Slot {
    id: TransferId,
    content: ContentId,
    control: Arc<Control>,
    sender: watch::Sender<model::Transfer>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            unnoted: Mutex::default(),
            turns: Semaphore::new(FETCHES_AT_WORK),
            looks: Semaphore::new(LOOKS_AT_ONCE),
            changing: tokio::sync::Mutex::default(),
            superpeers: watch::Sender::new(0),
            tasks: TaskTracker::new(),
        }
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
    fn running(&self) -> MutexGuard<'_, HashMap<FileId, Slot>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, file: &FileId) -> Option<Slot> {
        self.running().get(file).cloned()
    }

    /// Takes a transfer off, unless another one of the file is in its place.
    fn remove(&self, file: &FileId, control: &Arc<Control>) {
        let mut running = self.running();
        if running.get(file).is_some_and(|slot| Arc::ptr_eq(&slot.control, control)) {
            running.remove(file);
        }
    }

    /// Puts a transfer on, in the place of another one of the file if there is one.
    fn put(
        &self,
        wanted: &Wanted,
        id: TransferId,
        control: Arc<Control>,
        sender: &watch::Sender<model::Transfer>,
    ) {
        let slot = Slot { id, content: wanted.content, control, sender: sender.clone() };
        self.running().insert(wanted.file, slot);
    }

    fn unnoted(&self) -> MutexGuard<'_, HashMap<u64, model::Transfer>> {
        self.unnoted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the end of a transfer for those who ask, for as long as the node runs.
    fn remember_unnoted(&self, ended: &model::Transfer) {
        let mut unnoted = self.unnoted();
        if unnoted.len() < FETCHES_MAX {
            unnoted.insert(ended.id, ended.clone());
        }
    }

    /// Waits for one of the [`FETCHES_AT_WORK`] turns.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so this only waits.
        self.turns.acquire().await.ok()
    }

    /// Waits for one of the [`LOOKS_AT_ONCE`] looks for sources.
    async fn look(&self) -> Option<SemaphorePermit<'_>> {
        self.looks.acquire().await.ok()
    }

    /// Changes whenever a super-peer connects.
    fn superpeer_connections(&self) -> watch::Receiver<u64> {
        self.superpeers.subscribe()
    }

    /// A super-peer has connected: sources may be found now.
    pub(super) fn superpeer_connected(&self) {
        self.superpeers.send_modify(|count| *count += 1);
    }

    /// Transfers that move bytes.
    pub(crate) fn active(&self) -> u32 {
        let free = self.turns.available_permits();
        u32::try_from(FETCHES_AT_WORK.saturating_sub(free)).unwrap_or(u32::MAX)
    }

    /// How the transfers stand of which more is known than is stored, by number.
    pub(crate) fn now(&self) -> HashMap<u64, model::Transfer> {
        let mut now = self.unnoted().clone();
        let running = self.running();
        now.extend(running.values().map(|slot| slot.sender.borrow().clone()).map(|now| (now.id, now)));
        now
    }

    /// Waits, not for ever, until the transfers have noted how they stand. For the stop, after it was told.
    pub(super) async fn stopped(&self) {
        self.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("not every transfer could note how it stands; the next start finds out");
        }
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
    /// May block on the disk, where the file is restricted.
    fn of(shared: &Shared, record: Record, owner_name: MemberName) -> Result<Self, BeginError> {
        let entry = record.entry().ok_or(BeginError::Deleted)?;
        let AccessSecret { key, sha256, .. } = shared.secret_of(&record).ok_or(BeginError::NotReadable)?;
        Ok(Self {
            file: record.file(),
            name: entry.name.clone(),
            owner: record.owner(),
            owner_name,
            size_bytes: entry.size_bytes,
            content: entry.content,
            manifest: entry.manifest.as_ref().map(|manifest| Bytes::copy_from_slice(manifest)),
            key,
            sha256,
            record,
        })
    }

    const fn partial(&self) -> PartialName {
        PartialName { file: self.file, content: self.content }
    }
}

/// Begins to fetch a file, goes on with an earlier attempt, or joins the transfer that is under way. What is watched
/// ends with the transfer's end.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    record: Record,
    owner_name: MemberName,
) -> Result<watch::Receiver<model::Transfer>, BeginError> {
    let opening = shared.clone();
    let wanted = in_blocking(move || Wanted::of(&opening, record, owner_name)).await?;
    let _changing = shared.fetches.changing.lock().await;
    if let Some(running) = shared.fetches.slot(&wanted.file) {
        return Ok(join(&running));
    }
    if let Some(transfer) = here_already(shared, &wanted).await? {
        return Ok(watch::channel(transfer).1);
    }
    let (blocking, file) = (shared.clone(), wanted.file);
    let earlier = in_database(move || blocking.database.transfer_with_data(&file)).await?;
    start(shared, wanted, earlier, Beginning::New).await
}

/// Whoever asks for a file that waits for sources wants it looked for now.
fn join(running: &Slot) -> watch::Receiver<model::Transfer> {
    let waited = running.sender.send_if_modified(|transfer| {
        let waits = transfer.state == TransferState::Waiting;
        if waits {
            transfer.state = TransferState::Queued;
        }
        waits
    });
    if waited {
        running.control.look_now();
    }
    running.sender.subscribe()
}

/// Starts a transfer, or an earlier one of the same file again. The caller holds `changing`, and no transfer of the file
/// is under way.
async fn start(
    shared: &Arc<Shared>,
    wanted: Wanted,
    earlier: Option<(TransferId, Transfer)>,
    first_beginning: Beginning,
) -> Result<watch::Receiver<model::Transfer>, BeginError> {
    if shared.fetches.running().len() >= FETCHES_MAX {
        return Err(BeginError::Busy);
    }
    let (blocking, row) = (shared.clone(), stored(&wanted, StoredState::Running));
    let (id, transfer, beginning) = in_database(move || {
        let database = &blocking.database;
        let Some((id, earlier)) = earlier else {
            let id = blocking.noted(database.begin_transfer(&row))?;
            return Ok((id, None, first_beginning));
        };
        if let Some(other) = earlier.partial().filter(|partial| Some(partial.content) != row.content) {
            // The file has another content now; nothing of the old one is of use.
            blocking.library.discard_partial(&other);
        }
        let same = earlier.content == row.content;
        let bytes = if same { earlier.bytes } else { 0 };
        let again = Transfer { started_ms: earlier.started_ms, bytes, ..row };
        blocking.noted(database.update_transfer(id, &again))?;
        Ok((id, Some(again), Beginning::Again))
    })
    .await?;
    let mut first = shown(&wanted, id, TransferState::Queued);
    if let Some(again) = transfer {
        (first.started_ms, first.done_bytes) = (again.started_ms, again.bytes);
    }
    Ok(spawn(shared, wanted, id, first, beginning))
}

fn spawn(
    shared: &Arc<Shared>,
    wanted: Wanted,
    id: TransferId,
    first: model::Transfer,
    beginning: Beginning,
) -> watch::Receiver<model::Transfer> {
    let control = Arc::new(Control::new(&shared.stop));
    shared.fetches.unnoted().remove(&first.id);
    let sender = watch::Sender::new(first);
    let receiver = sender.subscribe();
    shared.fetches.put(&wanted, id, control.clone(), &sender);
    Events::follow(shared, receiver.clone());
    let course = Course { shared: shared.clone(), wanted, id, control, sender };
    shared.fetches.tasks.spawn(course.run(beginning));
    receiver
}

/// Returns when no transfer of a file is under way.
pub(in crate::service) async fn ended(shared: &Arc<Shared>, file: &FileId) {
    loop {
        // The slot has a sender too, which must not be waited for.
        let watched = shared.fetches.slot(file).map(|slot| slot.sender.subscribe());
        let Some(mut watched) = watched else { return };
        while watched.changed().await.is_ok() {}
    }
}

/// Works on a thread that may block.
async fn in_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BeginError> + Send + 'static,
) -> Result<T, BeginError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| BeginError::Database(e.to_string()))?
}

/// Reads or writes on a thread that may block.
async fn in_database<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::database::DatabaseError> + Send + 'static,
) -> Result<T, BeginError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| BeginError::Database(e.to_string()))?
        .map_err(|e| BeginError::Database(e.to_string()))
}

/// A completed transfer of nothing, where the present content lies in the library.
async fn here_already(shared: &Arc<Shared>, wanted: &Wanted) -> Result<Option<model::Transfer>, BeginError> {
    let (blocking, wanted_here) = (shared.clone(), wanted.clone());
    let copy = in_database(move || {
        let copy = blocking.database.copy(&wanted_here.file)?;
        Ok(copy.filter(|copy| is_whole(&blocking, copy, &wanted_here)))
    })
    .await?;
    let Some(copy) = copy else { return Ok(None) };
    let now = wall_ms();
    Ok(Some(model::Transfer {
        done_bytes: wanted.size_bytes,
        started_ms: now,
        ended_ms: Some(now),
        path: Some(shared.library.path_of(&copy.place).display().to_string()),
        sha256: Some(wanted.sha256.to_string()),
        ..shown(wanted, TransferId(0), TransferState::Completed)
    }))
}

/// Whether a copy is all of the content that is wanted, and lies there as it was. Blocks on the disk.
fn is_whole(shared: &Arc<Shared>, copy: &LibraryCopy, wanted: &Wanted) -> bool {
    copy.content == wanted.content && copy.completeness == Completeness::Complete && shared.is_sound(copy)
}

/// Tells every connected super-peer what the sources did, since each chooses sources by itself.
pub(super) async fn report(shared: &Arc<Shared>, content: ContentId, outcomes: Vec<SourceOutcome>) {
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
