//! What the transfer engine needs of holders and the disk: chunks, and a place for them. Sources are [`super::locating`]'s.
//!
//! One of the holders may be this node itself: what lies sealed in its own vault need not be fetched from others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use libp2p::PeerId;
use quarta_metrics::node::ChunkRefusal;
use quarta_protocols::{
    content::{MANIFEST_MAX_BYTES, Manifest},
    ids::ContentId,
    messages::{
        chunk::{Abort, Head, Purpose, Refusal, Request as ChunkRequest},
        index::{Fault, Source},
    },
    network::{BodyError, CallError, ConnectError, Incoming, Transport},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Wanted;
use crate::service::{
    Shared,
    arriving::Offer,
    uploads::{self, Held},
};
use crate::{
    database::{LibraryCopy, TrashId},
    download::{
        chunk_set::ChunkSet,
        fetch::ports::{FinishError, Peers, RunError, Sink, TransportLabel, Written},
    },
    landing::{Landed, Landing, LandingError},
    serving::Chunks,
};

/// Reaches holders over the network, and the own vault.
pub(in crate::service) struct Holders {
    pub(in crate::service) shared: Arc<Shared>,
    /// What chunks are fetched for.
    pub(in crate::service) purpose: Purpose,
    /// What carried the latest run of each.
    pub(in crate::service) carried: Arc<Mutex<HashMap<PeerId, Transport>>>,
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

/// What carries the bytes of the own vault, as shown to people.
const LOCAL: TransportLabel = "local";

impl Holders {
    /// The own vault's replica, where that is the holder that is asked.
    async fn own(&self, peer: PeerId, content: ContentId) -> Option<Result<Arc<Held>, Fault>> {
        if peer != self.shared.identity.keys.peer() {
            return None;
        }
        Some(uploads::find(&self.shared, content).await.map_err(|_| Fault::NotHeld))
    }

    /// Hands consecutive chunks of an own replica on.
    async fn own_run(
        &self,
        held: Arc<Held>,
        (content, first, count): (ContentId, u32, u32),
        sink: mpsc::Sender<Bytes>,
    ) -> Result<TransportLabel, RunError> {
        for index in first..first.saturating_add(count) {
            let (shared, held) = (self.shared.clone(), held.clone());
            let reading = tokio::task::spawn_blocking(move || {
                held.read(index).inspect_err(|abort| held.found_defective(&shared, &content, *abort))
            });
            // A replica that turns out to be damaged is no source until it is repaired, from others.
            let Ok(Ok(chunk)) = reading.await else { return Err(RunError::Fault(Fault::NotHeld)) };
            if sink.send(chunk).await.is_err() {
                break;
            }
        }
        Ok(LOCAL)
    }
}

/// A small question's answer has no "later": busy counts as broken off.
pub(super) const fn fault_of(error: RunError) -> Fault {
    match error {
        RunError::Busy => Fault::BrokeOff,
        RunError::Fault(fault) => fault,
    }
}

/// What a body that did not arrive whole says of its sender.
const fn broken_run(error: &BodyError) -> RunError {
    match error {
        BodyError::Aborted(Abort::MakesWay) => RunError::Busy,
        error => RunError::Fault(broken_body(error)),
    }
}

const fn broken_body(error: &BodyError) -> Fault {
    match error {
        BodyError::FrameTooLarge { .. } => Fault::WrongBytes,
        BodyError::Stalled => Fault::Stalled,
        BodyError::Aborted(_) | BodyError::Broken(_) => Fault::BrokeOff,
    }
}

impl Peers for Holders {
    async fn connect(&self, source: &Source) -> Result<(), Fault> {
        if source.peer == self.shared.identity.keys.peer() {
            return Ok(());
        }
        let addresses = self.shared.policy.select(&source.peer, source.addresses.clone());
        match self.shared.network.connect(source.peer, addresses).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::info!(holder = %source.name, %error, "a holder could not be reached");
                // Reasons of our own say nothing about the holder.
                if !matches!(error, ConnectError::Busy | ConnectError::Shutdown | ConnectError::NotAMember) {
                    self.shared.report_unreachable(source.peer);
                }
                Err(Fault::Unreachable)
            }
        }
    }

    async fn manifest(&self, peer: PeerId, content: ContentId) -> Result<Bytes, Fault> {
        if let Some(own) = self.own(peer, content).await {
            return own.map(|held| Bytes::from(held.manifest().to_bytes()));
        }
        let request = ChunkRequest::Manifest { content };
        let mut incoming = self.ask(peer, request, MANIFEST_MAX_BYTES).await.map_err(fault_of)?;
        if incoming.head != Head::Manifest {
            return Err(Fault::WrongBytes);
        }
        incoming.body.next().await.map_err(|error| broken_body(&error))?.ok_or(Fault::WrongBytes)
    }

    async fn availability(&self, peer: PeerId, content: ContentId) -> Result<Bytes, Fault> {
        if let Some(own) = self.own(peer, content).await {
            return own.map(|held| Bytes::from(ChunkSet::all(held.geometry().chunks()).to_wire()));
        }
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
        chunk_max_bytes: usize,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<TransportLabel, RunError> {
        if let Some(own) = self.own(peer, content).await {
            return self.own_run(own.map_err(RunError::Fault)?, (content, first, count), sink).await;
        }
        let (limits, purpose) = (&self.shared.limits, self.purpose);
        let _downloading = limits.begin_download(&peer).ok_or(RunError::Busy)?;
        let request = ChunkRequest::Run { content, first, count, purpose };
        let mut incoming = self.ask(peer, request, chunk_max_bytes).await?;
        if incoming.head != Head::Run {
            return Err(RunError::Fault(Fault::WrongBytes));
        }
        let transport = incoming.transport;
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, transport);
        loop {
            match incoming.body.next().await {
                Ok(Some(chunk)) => {
                    limits.moved(purpose, chunk.len());
                    limits.receive(peer, chunk.len()).await;
                    if sink.send(chunk).await.is_err() {
                        return Ok(label(transport));
                    }
                }
                Ok(None) => return Ok(label(transport)),
                Err(error) => {
                    tracing::info!(%peer, %error, "a holder broke off");
                    return Err(broken_run(&error));
                }
            }
        }
    }
}

pub(super) const fn label(transport: Transport) -> TransportLabel {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Quic => "quic",
        Transport::Relay => "relay",
    }
}

/// Puts chunks on the disk.
pub(super) struct Disk {
    shared: Arc<Shared>,
    wanted: Wanted,
    cancel: CancellationToken,
    stage: Mutex<Stage>,
    /// Lets others have what has arrived, for as long as this lives.
    offer: Mutex<Option<Offer>>,
}

/// How far the file has got on the disk.
#[derive(Default)]
enum Stage {
    #[default]
    Nothing,
    Landing(Arc<Landing>),
    Landed(Box<Arrived>),
}

/// A file that lies in the library and is not noted there yet.
pub(super) struct Arrived {
    /// Its partial data, to be settled once it is noted.
    pub(super) landing: Landing,
    pub(super) landed: Landed,
    /// What lay in its place before, in the trash now.
    pub(super) aside: Option<(TrashId, LibraryCopy)>,
}

impl Disk {
    pub(super) fn new(shared: Arc<Shared>, wanted: Wanted, cancel: CancellationToken) -> Self {
        Self { shared, wanted, cancel, stage: Mutex::default(), offer: Mutex::default() }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that lies in the library now, to be noted.
    pub(super) fn landed(&self) -> Option<Arrived> {
        match std::mem::take(&mut *self.stage()) {
            Stage::Landed(arrived) => Some(*arrived),
            Stage::Nothing | Stage::Landing(_) => None,
        }
    }
}

impl Sink for Disk {
    type Error = LandingError;

    fn begin(&self, manifest: &Manifest) -> Result<ChunkSet, LandingError> {
        let wanted = &self.wanted;
        let landing = Landing::begin(
            &self.shared.library,
            wanted.partial(),
            manifest.clone(),
            &wanted.key,
            wanted.sha256,
            || !self.cancel.is_cancelled(),
        )?;
        let verified = landing.verified();
        // Where it cannot be opened once more, it is fetched all the same.
        if let Ok(serving) = landing.serving(&wanted.key) {
            let (shared, ended) = (&self.shared, self.cancel.clone());
            let offer = Offer::begin(shared, wanted.file, wanted.content, serving, ended);
            *self.offer.lock().unwrap_or_else(PoisonError::into_inner) = offer;
        }
        *self.stage() = Stage::Landing(Arc::new(landing));
        Ok(verified)
    }

    fn write(&self, index: u32, sealed: Bytes) -> Result<Written, LandingError> {
        let landing = match &*self.stage() {
            Stage::Landing(landing) => Arc::clone(landing),
            Stage::Nothing | Stage::Landed(..) => return Err(LandingError::NoSuchChunk(index)),
        };
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
        // Nobody writes any more once all chunks are verified, so this is the last reference.
        let landing = match std::mem::take(&mut *self.stage()) {
            Stage::Landing(landing) => Arc::into_inner(landing),
            Stage::Nothing | Stage::Landed(..) => None,
        };
        let Some(mut landing) = landing else {
            return Err(FinishError::Store(LandingError::Incomplete(0)));
        };
        let (shared, wanted) = (&self.shared, &self.wanted);
        // Before anything is moved: what does not fit its record takes no other file's place.
        match landing.check() {
            Err(LandingError::OtherChecksum { .. }) => return Err(FinishError::WrongChecksum),
            Err(error) => return Err(FinishError::Store(error)),
            Ok(()) => {}
        }
        let aside = shared.make_way(&wanted.file, &wanted.content);
        match landing.finish(&shared.library, &wanted.owner_name, &wanted.name) {
            Ok(landed) => {
                *self.stage() = Stage::Landed(Box::new(Arrived { landing, landed, aside }));
                Ok(())
            }
            Err(error) => {
                if let Some((id, before)) = aside {
                    shared.put_back(Some(id), &before);
                }
                Err(FinishError::Store(error))
            }
        }
    }
}
