//! The audit trail: who did what when, as the super-peer that accepted it says.
//!
//! Each accepted change of the catalog leaves one event beside it, under the stamp of the super-peer that accepted it.
//! Events are never changed nor superseded, so the trail is a set that only grows: once super-peers have converged, it
//! is the same on all of them, also for revisions that were superseded before they got around.
//!
//! An event is no statement by its actor: that is the record or notice it tells of. Nothing is decided by events.

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use crate::{
    clock::HybridTime,
    ids::{ID_BYTES, RecordHash},
    names::FILE_NAME_MAX_BYTES,
};
use serde_bytes::ByteArray;

/// The largest encoded event, in bytes.
pub const EVENT_MAX_BYTES: usize = FILE_NAME_MAX_BYTES + 1024;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A member was admitted.
    Joined,
    /// A member got a new credential.
    Renewed,
    /// A file was added.
    Added,
    /// A file's content or name changed.
    Updated,
    /// Who may see a file changed.
    Restricted,
    /// A file has another owner.
    HandedOver,
    /// A file was deleted.
    Deleted,
    /// A member left for good.
    Left,
    /// A member was revoked.
    Revoked,
}

impl Action {
    /// The word in logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Renewed => "renewed",
            Self::Added => "added",
            Self::Updated => "updated",
            Self::Restricted => "restricted",
            Self::HandedOver => "handed_over",
            Self::Deleted => "deleted",
            Self::Left => "left",
            Self::Revoked => "revoked",
        }
    }
}

/// One event. It travels as the payload of a catalog entry whose stamp, by [`Self::superpeer`] at [`Self::time`], is its
/// signature.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// Who accepted the change.
    pub superpeer: PeerId,
    /// When.
    pub time: HybridTime,
    /// What was done.
    pub action: Action,
    /// Who did it: the file's owner, the member that joined or left, the super-peer that revoked; none for the root.
    pub actor: Option<PeerId>,
    /// The id of the catalog entry that changed.
    pub subject: ByteArray<ID_BYTES>,
    /// The exact payload that was accepted.
    pub payload: RecordHash,
    /// The file's or member's name at the time; empty where it is sealed. At most [`FILE_NAME_MAX_BYTES`].
    pub name: String,
    /// The file's revision; 0 for members.
    pub revision: u64,
}

impl Event {
    /// The id of the event's entry: the hash of its encoded form.
    pub fn id_of(encoded: &[u8]) -> [u8; ID_BYTES] {
        blake3::derive_key("quarta 2026 audit event v1", encoded)
    }
}
