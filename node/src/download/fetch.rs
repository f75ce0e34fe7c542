//! One fetch from beginning to end: finds sources, connects, gets the manifest, follows the [`Schedule`](super::schedule::Schedule), verifies and
//! writes, and says what each source did.
//!
//! The loop only decides and passes on. Everything that takes time happens in tasks of its own, and each answers with
//! one event: connecting, runs, looking for sources on the runtime; verifying, opening, writing and the last checksum
//! on blocking threads, [`VERIFIERS`] at a time. What waits for verification is bounded by the schedule
//! ([`super::schedule::IN_FLIGHT_MAX_BYTES`]), so a slow disk slows the sources down instead of filling memory.
//!
//! Network and store stand behind the traits of [`ports`], so the tests here drive real fetches with sources that lie,
//! stall, die and come late.
//!
//! Dropping the future of [`fetch`] ends everything it began, but for chunks that are being written at that moment.

mod candidates;
mod driver;
mod events;
pub mod ports;
pub mod report;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::PeerId;
use quarta_protocols::{
    ids::ContentId,
    messages::index::{Fault, SourceOutcome},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    driver::Driver,
    ports::{FinishError, Peers, Sink, Sources},
    report::FetchProgress,
};

/// Chunks verified and written at once: enough to keep a disk busy while another is hashed, few enough to leave a small
/// machine to its user.
pub const VERIFIERS: usize = 3;
/// How often the schedule's clock ticks and progress is published.
pub const TICK: Duration = Duration::from_millis(100);
/// How long a fetch without any living source looks for one before it ends.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// The longest pause between two searches for sources; the first is [`LOCATE_AGAIN_MIN`], and each doubles.
pub const LOCATE_AGAIN_MAX: Duration = Duration::from_secs(15);
/// The first pause between two searches for sources.
pub const LOCATE_AGAIN_MIN: Duration = Duration::from_millis(500);
/// How long connecting to a source may take, and any small question to it.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a manifest may take, which is up to 2 MiB.
pub const MANIFEST_WITHIN: Duration = Duration::from_mins(1);
/// When the manifest has not come by then, a second source is asked for it too.
pub const MANIFEST_HEDGE_AFTER: Duration = Duration::from_secs(2);
/// How long a peer that broke off or could not be reached is left alone before it may be a source again; twice as long
/// each further time, so that a fetch whose sources only come back to fail ends by [`GIVE_UP_AFTER`].
pub const RETRY_AFTER: Duration = Duration::from_secs(2);
/// The longest that a peer is left alone.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// Sources that one fetch tries, over all its searches: bounds its tables.
pub const SOURCES_TRIED_MAX: u32 = 256;
/// How often a partial source is asked what it has by now, while each answer brings something: what is new with one
/// receiver is soon asked of it and not of the first holder again. A question and its answer are some hundred bytes.
pub const OFFERS_EVERY: Duration = Duration::from_millis(200);
/// How often at least, where nothing comes; the pause doubles up to this.
pub const OFFERS_EVERY_MAX: Duration = Duration::from_secs(3);

/// What to fetch.
#[derive(Debug, Clone)]
pub struct Job {
    /// The content.
    pub content: ContentId,
    /// The plaintext's size as the record says, in bytes.
    pub size_bytes: u64,
    /// The manifest, where it stands in the record or is in the store already.
    pub manifest: Option<Bytes>,
}

/// Why a fetch ended without the file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError<E: std::error::Error> {
    /// Nobody who holds the content is known to be available.
    #[error("no branch that holds the file is available")]
    NoSources,
    /// All sources failed and no other one was found in [`GIVE_UP_AFTER`].
    #[error("every source failed ({}) and no other one was found", describe(.faults))]
    SourcesExhausted {
        /// How each failed that was tried last.
        faults: Vec<(PeerId, Fault)>,
    },
    /// The manifest that the record gives, or that its content id names, is of another file.
    #[error("the record names a content that is not the file it describes")]
    WrongRecord,
    /// The local store failed: the disk is full, unreadable, or the content's key is wrong.
    #[error("could not store the file: {0}")]
    Store(#[source] E),
    /// The whole does not have the checksum of the record, although each chunk was right.
    #[error("the file does not have the checksum that its owner published")]
    WrongChecksum,
    /// It was cancelled. What has been verified is in the store.
    #[error("the fetch was cancelled")]
    Cancelled,
}

fn describe(faults: &[(PeerId, Fault)]) -> String {
    let mut words: Vec<&str> = faults.iter().map(|(_, fault)| fault.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}

/// How a fetch ended, and what each source did in it.
#[derive(Debug)]
pub struct Outcome<E: std::error::Error> {
    /// Success, or why not.
    pub result: Result<(), FetchError<E>>,
    /// To be reported to a super-peer: one for each peer that was tried.
    pub sources: Vec<SourceOutcome>,
}

/// Fetches one content into a sink. `progress` is updated every [`TICK`] and at the end. Once all chunks are verified
/// the last step is not cancelled any more: a file that is being put into its place gets there, and is told.
pub async fn fetch<S: Sources, P: Peers, K: Sink>(
    job: Job,
    sources: Arc<S>,
    peers: Arc<P>,
    sink: Arc<K>,
    progress: watch::Sender<FetchProgress>,
    cancel: CancellationToken,
) -> Outcome<K::Error> {
    let mut driver = Driver::new(job, sources, peers, Arc::clone(&sink), progress);
    let mut result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(FetchError::Cancelled),
        result = driver.run() => result,
    };
    // From here on the network is not needed: sources should not wait for our checksum.
    let sources = driver.close();
    if result.is_ok() {
        driver.checking();
        result = driver::blocking(move || sink.finish()).await.map_err(|error| match error {
            FinishError::WrongChecksum => FetchError::WrongChecksum,
            FinishError::Store(error) => FetchError::Store(error),
        });
    }
    Outcome { result, sources }
}
