//! Serving chunks to other nodes: bounded by slots, limited in rate, and never a byte that differs from its manifest.
//!
//! From the library a file is sealed afresh, from the vault stored chunks are sent as they are. Any verified member may
//! fetch any current content, since what is served is sealed; the key stands in the record, or is sealed there for those
//! who may read the file.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use quarta_daemon::cause;
use quarta_metrics::node::Flow;
use quarta_protocols::{
    content::{Geometry, Manifest},
    ids::{ContentId, FileId},
    limits::RUN_MAX_CHUNKS,
    messages::{
        chunk::{Abort, Head, Refusal, Request},
        inventory::Key,
    },
    network::ChunkAsked,
    records::Record,
};
use serde_bytes::ByteBuf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Shared, arriving::Arrival};
use crate::{
    download::chunk_set::ChunkSet,
    library::Defect,
    serving::{Chunks, RunEnd, Serving, Unservable, stream_run},
    settings::Settings,
    throttle::Throttle,
    vault::Replica,
};

/// Contents kept open: more than are fetched from one node at once, far below the limit of open files.
const OPEN_MAX: usize = 64;
/// Small questions answered at once: what a holder has is asked by many others some times a second, and takes no slot.
const QUESTIONS_MAX: usize = 64;
/// How long a content stays open before its file is opened anew: so soon is noticed that another file was put in its
/// place, which the open one does not show.
const OPEN_FOR: Duration = Duration::from_secs(5);
/// Chunks between the disk and the network: one that is being sent and one that waits.
const AHEAD: usize = 1;
/// Over how long the shown rate is a mean.
const RATE_OVER: Duration = Duration::from_secs(5);

/// What this node sends.
pub(crate) struct Uploads {
    slots: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    slots_all: u32,
    throttle: Option<Arc<Throttle>>,
    served_bytes: AtomicU64,
    open: Mutex<Open>,
    rate: Mutex<VecDeque<(Instant, u64)>>,
}

/// Contents opened lately, the latest last.
#[derive(Default)]
struct Open {
    order: VecDeque<ContentId>,
    servings: HashMap<ContentId, (Arc<Held>, Instant)>,
}

/// A content that this node holds, open.
pub(super) enum Held {
    /// A plaintext file of the library.
    Library(FileId, Serving),
    /// A sealed replica.
    Vault(Replica),
    /// A file that is being fetched.
    Arriving(Arc<Arrival>),
}

impl Held {
    pub(super) fn manifest(&self) -> &Manifest {
        match self {
            Self::Library(_, serving) => serving.manifest(),
            Self::Arriving(arrival) => arrival.serving.manifest(),
            Self::Vault(replica) => replica.manifest(),
        }
    }

    /// As [`Chunks::read`], from the disk itself where the system can do that.
    pub(super) fn read_from_disk(&self, index: u32) -> Result<Bytes, Abort> {
        match self {
            Self::Library(_, serving) => serving.read(index),
            Self::Arriving(arrival) => arrival.serving.read(index),
            Self::Vault(replica) => replica.read_from_disk(index),
        }
    }

    /// Whether it is still to be had here.
    fn is_offered(&self, shared: &Shared, content: &ContentId) -> bool {
        match self {
            Self::Library(file, _) => {
                let inventory = shared.inventory();
                inventory.get(&Key::Library(*file)).is_some_and(|item| item.content() == *content)
            }
            Self::Vault(_) => shared.keeping.has(content),
            Self::Arriving(arrival) => arrival.is_offered(shared, content),
        }
    }

    /// Reading it was broken off: where that is the copy's fault, it stops being a source. Blocks on the disk.
    pub(super) fn found_defective(&self, shared: &Arc<Shared>, content: &ContentId, abort: Abort) {
        let Some(defect) = Defect::of_abort(abort) else { return };
        shared.uploads.forget(content);
        match self {
            Self::Library(file, _) => {
                if defect == Defect::Changed {
                    shared.metrics.node.seal_mismatches.inc();
                }
                shared.lost_now(file, defect);
            }
            Self::Vault(_) => shared.replica_damaged(content),
            // Its fetch finds out by itself, and what it puts into the library is verified again.
            Self::Arriving(arrival) => arrival.give_up(shared, content),
        }
    }
}

impl Chunks for Held {
    fn geometry(&self) -> Geometry {
        match self {
            Self::Library(_, serving) => serving.geometry(),
            Self::Vault(replica) => replica.geometry(),
            Self::Arriving(arrival) => arrival.serving.geometry(),
        }
    }

    fn offers(&self) -> ChunkSet {
        match self {
            Self::Library(_, serving) => serving.offers(),
            Self::Vault(replica) => replica.offers(),
            Self::Arriving(arrival) => arrival.serving.offers(),
        }
    }

    fn read(&self, index: u32) -> Result<Bytes, Abort> {
        match self {
            Self::Library(_, serving) => serving.read(index),
            Self::Vault(replica) => replica.read(index),
            Self::Arriving(arrival) => arrival.serving.read(index),
        }
    }
}

impl Uploads {
    pub(super) fn new(settings: &Settings) -> Self {
        let slots = settings.upload_slots.max(1);
        Self {
            slots: Arc::new(Semaphore::new(slots as usize)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            slots_all: slots,
            throttle: settings.upload_limit_bytes_per_second.map(|rate| Arc::new(Throttle::new(rate))),
            served_bytes: AtomicU64::new(0),
            open: Mutex::new(Open::default()),
            rate: Mutex::new(VecDeque::new()),
        }
    }

    /// Uploads in progress.
    pub(crate) fn active(&self) -> u32 {
        self.slots_all.saturating_sub(u32::try_from(self.slots.available_permits()).unwrap_or(u32::MAX))
    }

    /// Sealed bytes sent since the start.
    pub(crate) fn served_bytes(&self) -> u64 {
        self.served_bytes.load(Ordering::Relaxed)
    }

    /// Sealed bytes a second, over the last [`RATE_OVER`] or since this was last asked, whichever is longer.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        let served = self.served_bytes();
        let mut samples = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        while samples.len() > 1 && samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER)
        {
            samples.pop_front();
        }
        let rate = samples.front().map_or(0, |(at, before)| {
            let millis = u64::try_from(now.duration_since(*at).as_millis()).unwrap_or(u64::MAX).max(1);
            (served - before).saturating_mul(1000) / millis
        });
        // Polls and registrations come seldom; this keeps the queue short even if they do not.
        if samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= RATE_OVER / 10) {
            samples.push_back((now, served));
        }
        rate
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a content, so that it is served no more without being opened anew.
    pub(super) fn forget(&self, content: &ContentId) {
        let mut open = self.open();
        open.servings.remove(content);
        open.order.retain(|other| other != content);
    }
}

/// Answers a node's request for chunks, in a task that holds an upload slot where it is for chunks themselves.
pub(super) fn serve(shared: &Arc<Shared>, asked: ChunkAsked) {
    let places = match asked.request {
        Request::Availability { .. } => &shared.uploads.questions,
        Request::Manifest { .. } | Request::Run { .. } => &shared.uploads.slots,
    };
    let Ok(slot) = places.clone().try_acquire_owned() else {
        asked.responder.respond(Head::Refused(Refusal::Busy));
        return;
    };
    let shared = shared.clone();
    tokio::spawn(async move { answer(&shared, asked, slot).await });
}

async fn answer(shared: &Arc<Shared>, asked: ChunkAsked, _slot: OwnedSemaphorePermit) {
    let content = asked.request.content();
    if !shared.catching_up.may_serve().await {
        asked.responder.respond(Head::Refused(Refusal::Busy));
        return;
    }
    let held = match find(shared, content).await {
        Ok(found) => found,
        Err(refusal) => {
            asked.responder.respond(Head::Refused(refusal));
            return;
        }
    };
    // What was withdrawn while this node was off may lie here still.
    if matches!(*held, Held::Vault(_)) && !shared.keeping.is_settled() {
        asked.responder.respond(Head::Refused(Refusal::Busy));
        return;
    }
    match asked.request {
        Request::Manifest { .. } => {
            let body = asked.responder.stream(Head::Manifest);
            // Where the peer is gone there is nobody to tell.
            if body.send(Bytes::from(held.manifest().to_bytes())).await.is_ok() {
                let _ = body.finish().await;
            }
        }
        Request::Availability { .. } => {
            asked.responder.respond(Head::Availability(ByteBuf::from(held.offers().to_wire())));
        }
        Request::Run { first, count, .. } => {
            let end = first.checked_add(count).filter(|end| *end <= held.geometry().chunks());
            let offers = held.offers();
            let here = |end| (first..end).all(|index| offers.contains(index));
            if !(1..=RUN_MAX_CHUNKS).contains(&count) || !end.is_some_and(here) {
                asked.responder.respond(Head::Refused(Refusal::NoSuchChunk));
                return;
            }
            let body = asked.responder.stream(Head::Run);
            run(shared, content, held, (first, count), body, asked.membership.name.as_str()).await;
        }
    }
}

async fn run(
    shared: &Arc<Shared>,
    content: ContentId,
    held: Arc<Held>,
    (first, count): (u32, u32),
    body: quarta_protocols::network::BodySender,
    receiver: &str,
) {
    let started = Instant::now();
    let metrics = &shared.metrics.node;
    let _active = metrics.active_transfers.hold(Flow::Upload);
    let (chunks, mut ready) = mpsc::channel::<Result<Bytes, Abort>>(AHEAD);
    let limit = shared.uploads.throttle.clone();
    let reading = stream_run(held.clone(), first, count, chunks, limit);
    let mut sent = 0u64;
    let sending = async {
        while let Some(chunk) = ready.recv().await {
            match chunk {
                // What is withdrawn or dropped meanwhile is sent no further.
                Ok(_) if !held.is_offered(shared, &content) => {
                    ready.close();
                    let _ = body.abort(Abort::Stopping).await;
                    return;
                }
                Ok(chunk) => {
                    let bytes = chunk.len() as u64;
                    if body.send(chunk).await.is_err() {
                        // The receiver is gone. Without this the reading would wait for room for ever, with its slot.
                        ready.close();
                        return;
                    }
                    sent += bytes;
                    shared.uploads.served_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(abort) => {
                    let _ = body.abort(abort).await;
                    return;
                }
            }
        }
        let _ = body.finish().await;
    };
    let (report, ()) = tokio::join!(reading, sending);
    metrics.served_bytes.add(receiver, sent);
    metrics.transfer_ended(Flow::Upload, sent, started.elapsed());
    let RunEnd::Aborted(abort) = report.end else { return };
    let shared = shared.clone();
    // A blocking task is only cancelled when the runtime ends.
    let _ = tokio::task::spawn_blocking(move || held.found_defective(&shared, &content, abort)).await;
}

/// Opens a content, or finds it open.
pub(super) async fn find(shared: &Arc<Shared>, content: ContentId) -> Result<Arc<Held>, Refusal> {
    if let Some((held, opened)) = shared.uploads.open().servings.get(&content)
        && opened.elapsed() < OPEN_FOR
    {
        return Ok(held.clone());
    }
    let blocking = shared.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let arrival =
            blocking.arriving.get(&content).filter(|arrival| arrival.is_current(&blocking, &content));
        arrival.map_or_else(|| open(&blocking, &content), |arrival| Ok(Held::Arriving(arrival)))
    });
    let held = Arc::new(opened.await.unwrap_or(Err(Refusal::Busy))?);
    // Not kept open: it may be whole or withdrawn in a moment.
    if matches!(*held, Held::Arriving(_)) {
        return Ok(held);
    }
    let mut open = shared.uploads.open();
    if open.order.len() >= OPEN_MAX
        && let Some(oldest) = open.order.pop_front()
    {
        open.servings.remove(&oldest);
    }
    if open.servings.insert(content, (held.clone(), Instant::now())).is_none() {
        open.order.push_back(content);
    }
    Ok(held)
}

/// Opens a content anew: from the library, else from the vault. Blocks on the disk.
pub(super) fn open(shared: &Arc<Shared>, content: &ContentId) -> Result<Held, Refusal> {
    match open_in_library(shared, content) {
        Ok((file, serving)) => Ok(Held::Library(file, serving)),
        Err(refusal) if !shared.keeping.has(content) => Err(refusal),
        Err(_) => open_in_vault(shared, content).map(Held::Vault),
    }
}

fn open_in_vault(shared: &Arc<Shared>, content: &ContentId) -> Result<Replica, Refusal> {
    shared.keeping.vault().replica(content).map_err(|error| {
        if cause::too_many_open(&error) {
            tracing::warn!(%content, %error, "a replica cannot be served now");
            return Refusal::Busy;
        }
        shared.replica_damaged(content);
        Refusal::NotHeld
    })
}

fn open_in_library(shared: &Arc<Shared>, content: &ContentId) -> Result<(FileId, Serving), Refusal> {
    let found = shared.database.copy_of_content(content).and_then(|copy| {
        let manifest = shared.database.manifest(content)?;
        Ok(copy.zip(manifest))
    });
    let found = found.map_err(|error| {
        tracing::error!(%error, "the database could not be read");
        Refusal::Busy
    })?;
    let (copy, manifest) = found.ok_or(Refusal::NotHeld)?;
    // What has been withdrawn, or is here in part only, is not served.
    if shared.inventory().get(&Key::Library(copy.file)).is_none() {
        return Err(Refusal::NotHeld);
    }
    // What was restricted or deleted is served no more from the moment on in which this node knows of it.
    let outdated = shared.database.outdated_copy(&copy.file).map_err(|error| {
        tracing::error!(%error, "the database could not be read");
        Refusal::Busy
    })?;
    let fate = outdated.and_then(|outdated| shared.fate_of(&outdated));
    if fate.is_some_and(|(fate, _)| !fate.is_served()) {
        return Err(Refusal::NotHeld);
    }
    let record = Record::verify(copy.record.clone(), &shared.identity.trust).map_err(|_| Refusal::NotHeld)?;
    let secret = shared.secret_of(&record).ok_or(Refusal::NotHeld)?;
    Serving::open(&shared.library, &copy.place, secret.key.cipher(), manifest)
        .map(|serving| (copy.file, serving))
        .map_err(|unservable| match unservable {
            Unservable::Defective(defect) => {
                shared.lost(&copy, defect);
                Refusal::NotHeld
            }
            Unservable::NotNow(_) => {
                tracing::warn!(file = %copy.name, reason = %unservable, "a file of the library cannot be served now");
                Refusal::Busy
            }
        })
}
