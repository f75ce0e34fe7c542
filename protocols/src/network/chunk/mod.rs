//! Chunk transfers: a small request, a small head, and a body of raw frames in constant memory.
//!
//! It is a libp2p request-response protocol whose codec streams. The request that goes in carries the local end of a
//! bounded channel (not serialised), and libp2p reads the response with the very codec that wrote the request, so the
//! body flows from the stream into that channel; on the serving side it flows out of one. Nowhere is more held than
//! [`BODY_FRAMES`] frames. Whoever drops its end of the channel ends the transfer, and the other side is told at once.
//!
//! ```text
//! request:  transfer id (16 bytes) ‖ length (u32 BE) ‖ CBOR of messages::chunk::Request
//!           transfer id ‖ 0                                 the rest of that transfer is not wanted
//! response: length (u32 BE) ‖ CBOR of messages::chunk::Head ‖ frame…
//! frame:    length (u32 BE, 1 to SEALED_CHUNK_MAX_BYTES) ‖ bytes
//!           0                                               the body is complete
//!           0xffffffff ‖ reason (1 byte, chunk::Abort)      the sender gives up
//! ```

mod cancelling;
mod codec;

use std::io;

use bytes::Bytes;
pub(super) use cancelling::Cancelled;
use cancelling::TransferId;
pub use codec::PROGRESS_TIMEOUT;
pub(super) use codec::{Codec, Opening, Outgoing, Request, Response};
use libp2p::PeerId;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::transport::Transport;
use crate::{
    credentials::Membership,
    messages::chunk::{Abort, Head, Request as Wanted},
};

/// Frames waiting in a body's channel: one that is being used and one that arrives meanwhile.
pub const BODY_FRAMES: usize = 2;

/// Why a body did not arrive whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The sender gave up and said why.
    #[error("the sender gave up: {0}")]
    Aborted(Abort),
    /// Nothing arrived for [`PROGRESS_TIMEOUT`].
    #[error("nothing arrived for {} s", PROGRESS_TIMEOUT.as_secs())]
    Stalled,
    /// A frame larger than was asked for.
    #[error("a frame of {size} bytes exceeds the limit of {limit} bytes")]
    FrameTooLarge {
        /// The announced size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stream or its connection ended early.
    #[error("the stream broke: {0}")]
    Broken(io::ErrorKind),
}

/// A response whose head has arrived and whose body is arriving. Dropping it cancels the transfer.
#[derive(Debug)]
pub struct Incoming {
    /// The head.
    pub head: Head,
    /// What carries it.
    pub transport: Transport,
    /// The frames.
    pub body: Body,
}

/// The frames of a response, in order.
#[derive(Debug)]
pub struct Body {
    frames: mpsc::Receiver<Result<Option<Bytes>, BodyError>>,
    end: Option<Result<(), BodyError>>,
}

impl Body {
    fn new(frames: mpsc::Receiver<Result<Option<Bytes>, BodyError>>) -> Self {
        Self { frames, end: None }
    }

    /// The next frame; none once the sender has said that the body is complete. Cancel-safe.
    ///
    /// # Errors
    /// [`BodyError`], again at each later call: what came before is then a part of the body and no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| None);
        }
        let frame =
            self.frames.recv().await.unwrap_or(Err(BodyError::Broken(io::ErrorKind::ConnectionAborted)));
        match &frame {
            Ok(Some(_)) => {}
            Ok(None) => self.end = Some(Ok(())),
            Err(error) => self.end = Some(Err(error.clone())),
        }
        frame
    }
}

/// The two ends of a fetch: what goes in with the request, and what comes out at once.
pub(super) fn fetch(
    request: Wanted,
    frame_max_bytes: usize,
) -> (Outgoing, oneshot::Receiver<(Head, Transport)>, Body) {
    let (head_sender, head) = oneshot::channel();
    let (frame_sender, frames) = mpsc::channel(BODY_FRAMES);
    (
        Outgoing {
            id: TransferId::random(),
            request,
            frame_max_bytes,
            head: head_sender,
            frames: frame_sender,
        },
        head,
        Body::new(frames),
    )
}

/// A chunk request of a member, waiting for its answer. Dropping it refuses it without a reason.
#[derive(Debug)]
pub struct ChunkAsked {
    /// Who asks.
    pub peer: PeerId,
    /// What its credential says.
    pub membership: Membership,
    /// What carries the answer.
    pub transport: Transport,
    /// What it wants.
    pub request: Wanted,
    /// Answers it.
    pub responder: ChunkResponder,
}

/// Answers one chunk request.
#[derive(Debug)]
pub struct ChunkResponder(oneshot::Sender<Reply>);

/// A head, and the body's other end where one follows.
#[derive(Debug)]
pub(super) struct Reply {
    head: Head,
    body: Option<mpsc::Receiver<Piece>>,
}

#[derive(Debug)]
enum Piece {
    Frame(Bytes),
    End,
    Abort(Abort),
}

/// The peer no longer wants the body, or its connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiver is gone")]
pub struct ReceiverGone;

impl ChunkResponder {
    /// The two ends of an answer. The permit counts the transfer against its peer's bound until its last byte is out.
    pub(super) fn new(permit: OwnedSemaphorePermit) -> (Self, Response) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), Response::owed(receiver, permit))
    }

    /// Answers with a head that nothing follows.
    pub fn respond(self, head: Head) {
        // A peer that is gone needs no answer.
        let _ = self.0.send(Reply { head, body: None });
    }

    /// Answers with a head and a body, which the caller then feeds.
    pub fn stream(self, head: Head) -> BodySender {
        let (sender, receiver) = mpsc::channel(BODY_FRAMES);
        // If the peer is gone, the first frame says so.
        let _ = self.0.send(Reply { head, body: Some(receiver) });
        BodySender(sender)
    }
}

/// Feeds a body. Dropping it without [`Self::finish`] tells the peer that the sender gave up.
#[derive(Debug)]
pub struct BodySender(mpsc::Sender<Piece>);

impl BodySender {
    /// Sends a frame of 1 to [`crate::content::SEALED_CHUNK_MAX_BYTES`] bytes; waits while the peer is slower.
    ///
    /// # Errors
    /// [`ReceiverGone`]: stop reading and sealing for it.
    pub async fn send(&self, frame: Bytes) -> Result<(), ReceiverGone> {
        self.0.send(Piece::Frame(frame)).await.map_err(|_| ReceiverGone)
    }

    /// Resolves when the peer no longer wants the body.
    pub async fn gone(&self) {
        self.0.closed().await;
    }

    /// Says that the body is complete.
    ///
    /// # Errors
    /// [`ReceiverGone`].
    pub async fn finish(self) -> Result<(), ReceiverGone> {
        self.0.send(Piece::End).await.map_err(|_| ReceiverGone)
    }

    /// Says that the rest will not come, and why.
    ///
    /// # Errors
    /// [`ReceiverGone`].
    pub async fn abort(self, reason: Abort) -> Result<(), ReceiverGone> {
        self.0.send(Piece::Abort(reason)).await.map_err(|_| ReceiverGone)
    }
}
