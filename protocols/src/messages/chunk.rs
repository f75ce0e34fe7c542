//! *chunk*: manifests, availability and sealed chunks, between nodes.
//!
//! The head of a response is CBOR; bodies follow as raw frames (see [`crate::network`]): for a manifest its encoded
//! bytes in one frame, for a run one frame for each chunk, in order.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::ContentId;

/// The protocol's part of its libp2p name.
pub const NAME: &str = "chunk";
/// Counts incompatible changes.
pub const VERSION: u32 = 1;
/// The largest request.
pub const MAX_REQUEST_BYTES: usize = 1024;
/// The largest head: an availability bitmap of the largest content, and room around it.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What a node asks of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The content's manifest.
    Manifest {
        /// Of which content.
        content: ContentId,
    },
    /// Which chunks the holder can serve.
    Availability {
        /// Of which content.
        content: ContentId,
    },
    /// Consecutive sealed chunks.
    Run {
        /// Of which content.
        content: ContentId,
        /// The first chunk.
        first: u32,
        /// How many, from 1 to [`crate::limits::RUN_MAX_CHUNKS`].
        count: u32,
        /// What for; people's where it is not said.
        #[serde(default, skip_serializing_if = "Purpose::is_person")]
        purpose: Purpose,
    },
}

/// What chunks are fetched for. The asker's own word: members gain nothing by hiding that nobody waits for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Somebody waits for the file.
    #[default]
    Person,
    /// A copy that keeps the file safe: it can wait.
    Replica,
}

impl Purpose {
    /// Whether somebody waits.
    pub const fn is_person(&self) -> bool {
        matches!(self, Self::Person)
    }
}

impl Request {
    /// Which content is asked for.
    pub const fn content(&self) -> ContentId {
        match self {
            Self::Manifest { content } | Self::Availability { content } | Self::Run { content, .. } => {
                *content
            }
        }
    }
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// The manifest follows in one frame.
    Manifest,
    /// The chunks follow, a frame each.
    Run,
    /// One bit for each chunk, the first chunk in the highest bit of the first byte.
    Availability(ByteBuf),
    /// Nothing follows.
    Refused(Refusal),
}

/// Why a holder does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It does not hold this, or not any more.
    #[error("it does not hold this content")]
    NotHeld,
    /// It holds the content, not these chunks.
    #[error("it does not hold these chunks")]
    NoSuchChunk,
    /// All upload slots are taken.
    #[error("it is busy")]
    Busy,
}

/// Why a holder broke off a body it had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Abort {
    /// The file on its disk is no longer what the manifest says.
    #[error("its copy has changed on disk")]
    Changed,
    /// Its disk could not be read.
    #[error("its copy could not be read")]
    Unreadable,
    /// It is shutting down.
    #[error("it is shutting down")]
    Stopping,
    /// Nothing is wrong: people need its line, and this was for a replica.
    #[error("it makes way for people")]
    MakesWay,
}

impl Abort {
    /// The byte that travels.
    pub const fn code(self) -> u8 {
        match self {
            Self::Changed => 1,
            Self::Unreadable => 2,
            Self::Stopping => 3,
            Self::MakesWay => 4,
        }
    }

    /// The reason of a byte received; an unknown one counts as unreadable.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Changed,
            3 => Self::Stopping,
            4 => Self::MakesWay,
            _ => Self::Unreadable,
        }
    }
}
