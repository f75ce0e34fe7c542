//! What the transfer engine needs of holders and the disk: chunks, and a place for them. Sources are [`super::locating`]'s.

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
        chunk::{Head, Refusal, Request as ChunkRequest},
        index::{Fault, Source},
    },
    network::{BodyError, CallError, ConnectError, Incoming, Transport},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Wanted;
use crate::service::Shared;
use crate::{
    download::{
        chunk_set::ChunkSet,
        fetch::ports::{FinishError, Peers, RunError, Sink, TransportLabel, Written},
    },
    landing::{Landed, Landing, LandingError},
};

/// Reaches holders over the network.
pub(in crate::service) struct Holders {
    pub(in crate::service) shared: Arc<Shared>,
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

/// A small question's answer has no "later": busy counts as broken off.
pub(super) const fn fault_of(error: RunError) -> Fault {
    match error {
        RunError::Busy => Fault::BrokeOff,
        RunError::Fault(fault) => fault,
    }
}

/// What a body that did not arrive whole says of its sender.
const fn broken_body(error: &BodyError) -> Fault {
    match error {
        BodyError::FrameTooLarge { .. } => Fault::WrongBytes,
        BodyError::Stalled => Fault::Stalled,
        BodyError::Aborted(_) | BodyError::Broken(_) => Fault::BrokeOff,
    }
}

impl Peers for Holders {
    async fn connect(&self, source: &Source) -> Result<(), Fault> {
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
        let request = ChunkRequest::Manifest { content };
        let mut incoming = self.ask(peer, request, MANIFEST_MAX_BYTES).await.map_err(fault_of)?;
        if incoming.head != Head::Manifest {
            return Err(Fault::WrongBytes);
        }
        incoming.body.next().await.map_err(|error| broken_body(&error))?.ok_or(Fault::WrongBytes)
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
        chunk_max_bytes: usize,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<TransportLabel, RunError> {
        let request = ChunkRequest::Run { content, first, count };
        let mut incoming = self.ask(peer, request, chunk_max_bytes).await?;
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
                    return Err(RunError::Fault(broken_body(&error)));
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
}

/// How far the file has got on the disk.
#[derive(Default)]
enum Stage {
    #[default]
    Nothing,
    Landing(Arc<Landing>),
    Landed(Box<Landing>, Landed),
}

impl Disk {
    pub(super) fn new(shared: Arc<Shared>, wanted: Wanted, cancel: CancellationToken) -> Self {
        Self { shared, wanted, cancel, stage: Mutex::default() }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that lies in the library now, with its partial data, to be settled once it is noted.
    pub(super) fn landed(&self) -> Option<(Box<Landing>, Landed)> {
        match std::mem::take(&mut *self.stage()) {
            Stage::Landed(landing, landed) => Some((landing, landed)),
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
        let wanted = &self.wanted;
        match landing.finish(&self.shared.library, &wanted.owner_name, &wanted.name) {
            Ok(landed) => {
                *self.stage() = Stage::Landed(Box::new(landing), landed);
                Ok(())
            }
            Err(LandingError::OtherChecksum { .. }) => Err(FinishError::WrongChecksum),
            Err(error) => Err(FinishError::Store(error)),
        }
    }
}
