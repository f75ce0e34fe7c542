//! What a fetch needs from the rest of the node.

use std::future::Future;

use bytes::Bytes;
use libp2p::PeerId;
use quarta_protocols::{
    content::Manifest,
    ids::ContentId,
    messages::index::{Fault, Source},
};
use tokio::sync::mpsc;

use crate::download::chunk_set::ChunkSet;

/// Which transport carried a run, as shown to people: `tcp`, `quic`, `relay`.
pub type TransportLabel = &'static str;

/// Who has the content.
pub trait Sources: Send + Sync + 'static {
    /// The sources known now, best first, without those in `except`; none where nobody is known or can be asked. At
    /// most [`quarta_protocols::limits::SOURCES_MAX`] of each.
    fn locate(&self, except: Vec<PeerId>) -> impl Future<Output = Vec<Source>> + Send;
}

/// Why a run did not bring all its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunError {
    /// The source has no upload slot free: no fault, ask again later.
    Busy,
    /// The source is of no use any more.
    Fault(Fault),
}

/// The holders, over the network. A future that is dropped ends what it does, on the wire too.
pub trait Peers: Send + Sync + 'static {
    /// Makes sure that there is a connection.
    fn connect(&self, source: &Source) -> impl Future<Output = Result<(), Fault>> + Send;

    /// The bytes that the peer gives for the manifest, unverified.
    fn manifest(&self, peer: PeerId, content: ContentId)
    -> impl Future<Output = Result<Bytes, Fault>> + Send;

    /// The bitmap of the chunks that the peer offers, unverified.
    fn availability(
        &self,
        peer: PeerId,
        content: ContentId,
    ) -> impl Future<Output = Result<Bytes, Fault>> + Send;

    /// Asks for consecutive sealed chunks and passes each on to `sink`, unverified and in order. Ends when the peer has
    /// said that it is done; a sink whose receiver is gone ends it too. More than `chunk_max_bytes` at once is not taken
    /// in, so that memory is bounded by what was asked for and not by what is sent.
    fn run(
        &self,
        peer: PeerId,
        content: ContentId,
        first: u32,
        count: u32,
        chunk_max_bytes: usize,
        sink: mpsc::Sender<Bytes>,
    ) -> impl Future<Output = Result<TransportLabel, RunError>> + Send;
}

/// What became of a chunk that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is the manifest's, opened and at its place in the file.
    Verified,
    /// It is not the manifest's: whoever sent it lies or is broken.
    Refused,
}

/// Why the last step failed.
#[derive(Debug, thiserror::Error)]
pub enum FinishError<E: std::error::Error> {
    /// The file's SHA-256 is not the record's.
    #[error("wrong checksum")]
    WrongChecksum,
    /// The store failed.
    #[error(transparent)]
    Store(E),
}

/// Where chunks go. Every method blocks, and is called on threads that may: [`Self::write`] on several at once, the
/// others alone.
pub trait Sink: Send + Sync + 'static {
    /// Why the store fails.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes room for the file and says which chunks are there from an earlier attempt, verified.
    ///
    /// # Errors
    /// Where there is no room, or no way to write.
    fn begin(&self, manifest: &Manifest) -> Result<ChunkSet, Self::Error>;

    /// Checks a sealed chunk against the manifest, opens it and writes it to its place. Never called for a chunk that
    /// was verified, nor for one chunk twice at once.
    ///
    /// # Errors
    /// Where the fault is ours; a wrong chunk is [`Written::Refused`].
    fn write(&self, index: u32, sealed: Bytes) -> Result<Written, Self::Error>;

    /// Checks the whole file's SHA-256 and puts it in its place. Called once all chunks are verified.
    ///
    /// # Errors
    /// [`FinishError`].
    fn finish(&self) -> Result<(), FinishError<Self::Error>>;
}
