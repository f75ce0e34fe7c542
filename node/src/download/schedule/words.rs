//! What a schedule is told, what it asks for, and what it shows.

use std::time::Duration;

use quarta_protocols::messages::index::Fault;

use crate::download::chunk_set::ChunkSet;

/// A source of one fetch. A peer that comes back after it was dropped is a new source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// One request for consecutive chunks; never used twice in a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A source is connected and can be asked.
    SourceAdded {
        /// A new id.
        source: SourceId,
        /// The share that *locate* gave it, in thousandths; 0 makes it a spare.
        weight: u32,
        /// What it offers.
        offers: ChunkSet,
    },
    /// A source offers other chunks than before.
    Offers {
        /// Which source.
        source: SourceId,
        /// What it offers now.
        offers: ChunkSet,
    },
    /// The next chunk of a run has arrived, unverified.
    Received {
        /// Which run.
        run: RunId,
    },
    /// A chunk handed out by [`Effect::Verify`] is right and written.
    Verified {
        /// Which chunk.
        index: u32,
    },
    /// A chunk handed out by [`Effect::Verify`] is not what the manifest says.
    Refused {
        /// Which chunk.
        index: u32,
    },
    /// The source says that the run is complete.
    RunEnded {
        /// Which run.
        run: RunId,
    },
    /// The source has no upload slot for the run now.
    Busy {
        /// Which run.
        run: RunId,
    },
    /// The source cannot be used any more.
    SourceFailed {
        /// Which source.
        source: SourceId,
        /// Why.
        fault: Fault,
    },
    /// Time has passed. To be given some times a second.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask a source for consecutive chunks.
    Request {
        /// Whom.
        source: SourceId,
        /// The run's id.
        run: RunId,
        /// The first chunk.
        first: u32,
        /// How many, from 1 to [`quarta_protocols::limits::RUN_MAX_CHUNKS`].
        count: u32,
    },
    /// End a run: nothing more is wanted of it, and inputs about it are ignored.
    Cancel {
        /// Which run.
        run: RunId,
    },
    /// Verify and write the chunk that has just been reported as received. Without this effect it is not needed.
    Verify {
        /// Who sent it.
        source: SourceId,
        /// Which chunk it is.
        index: u32,
    },
    /// A source is used no more. Its runs have been cancelled before.
    Drop {
        /// Whom.
        source: SourceId,
        /// Why.
        fault: Fault,
    },
    /// Look for more sources.
    WantSources,
    /// Every chunk is verified; inputs are ignored from now on.
    Done,
}

/// How far the fetch has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Verified chunks, those that were there before the fetch among them.
    pub chunks: u32,
    /// Their plaintext bytes.
    pub bytes: u64,
}

/// What one source has done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SourceProgress {
    /// Which source.
    pub source: SourceId,
    /// Verified plaintext bytes it carried.
    pub bytes: u64,
    /// For how long something was under way from it.
    pub busy: Duration,
    /// Its rate as measured lately, in bytes a second; 0 before its first chunk.
    pub rate_bytes_per_second: u64,
    /// How it is used.
    pub state: SourceState,
}

/// How a source is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// Asked for chunks, or ready to be.
    Active,
    /// Kept for when others fail.
    Spare,
    /// Used no more.
    Dropped(Fault),
}
