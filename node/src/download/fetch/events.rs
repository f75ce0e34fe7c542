//! What the tasks of a fetch tell its loop.

use bytes::Bytes;
use libp2p::PeerId;
use quarta_protocols::{
    ids::ContentId,
    messages::index::{Fault, Source},
};
use tokio::{
    sync::mpsc,
    time::{Duration, timeout},
};

use super::{
    ANSWER_WITHIN,
    ports::{Peers, RunError, TransportLabel, Written},
};
use crate::download::schedule::{RunId, SourceId};

/// Chunks of one run that wait for the loop: it never waits itself, so hardly any do.
const RUN_QUEUE: usize = 2;

#[derive(Debug)]
pub(super) enum Event<E> {
    Located(Vec<Source>),
    /// Connected; with the bitmap of what it offers where that is not all.
    Connected(SourceId, Result<Option<Bytes>, Fault>),
    Manifest(SourceId, Result<Bytes, Fault>),
    Offers(SourceId, Result<Bytes, Fault>),
    Chunk(RunId, Bytes),
    RunOver(RunId, Result<TransportLabel, RunError>),
    Written(u32, Result<Written, E>),
}

/// Connects, and asks a partial source what it has.
pub(super) async fn connect<P: Peers>(
    peers: &P,
    source: &Source,
    content: ContentId,
) -> Result<Option<Bytes>, Fault> {
    within(ANSWER_WITHIN, Fault::Unreachable, peers.connect(source)).await?;
    if source.complete {
        return Ok(None);
    }
    within(ANSWER_WITHIN, Fault::Stalled, peers.availability(source.peer, content)).await.map(Some)
}

/// The answer, or this fault where it takes too long.
pub(super) async fn within<T>(
    limit: Duration,
    late: Fault,
    answer: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout(limit, answer).await.unwrap_or(Err(late))
}

/// Which chunks a run is to bring, and from whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunOrder {
    pub(super) run: RunId,
    pub(super) peer: PeerId,
    pub(super) content: ContentId,
    pub(super) first: u32,
    pub(super) count: u32,
    /// Sealed, in bytes.
    pub(super) chunk_max_bytes: usize,
}

/// Carries a run out. Its end is told after its last chunk.
pub(super) async fn run<P: Peers, E>(peers: &P, order: RunOrder, events: mpsc::Sender<Event<E>>) {
    let RunOrder { run, peer, content, first, count, chunk_max_bytes } = order;
    let (sink, mut chunks) = mpsc::channel(RUN_QUEUE);
    let passing_on = async {
        let mut left = count;
        while let Some(chunk) = chunks.recv().await {
            if left == 0 {
                // Unasked chunks: closing the queue ends the run.
                chunks.close();
                return false;
            }
            left -= 1;
            if events.send(Event::Chunk(run, chunk)).await.is_err() {
                return true;
            }
        }
        true
    };
    let (result, as_asked) =
        tokio::join!(peers.run(peer, content, first, count, chunk_max_bytes, sink), passing_on);
    let result = if as_asked { result } else { Err(RunError::Fault(Fault::WrongBytes)) };
    // A loop that is gone needs no answer.
    let _ = events.send(Event::RunOver(run, result)).await;
}
