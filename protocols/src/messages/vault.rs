//! *vault*: what a super-peer asks of the nodes that keep sealed replicas.
//!
//! A super-peer plans where replicas belong and tells each node its part; the node fetches, keeps and drops by itself,
//! and its inventory shows what became of it. So an assignment may be lost or come twice: the planner compares what it
//! wants with what inventories say and tells again. A node learns contents and sizes and never records, names or keys.
//!
//! Who asks is a super-peer of this network, by the credential of its connection; an assignment is heard from nobody else
//! and passed on to nobody, so it needs no signature of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    cbor,
    ids::ContentId,
    limits::{QUICK_TIMEOUT, SMALL_MESSAGE_BYTES},
    rpc::Protocol,
};

/// For how long a node that has confirmed a content drops it on nobody's request as one copy too many: it answers
/// [`Outcome::Busy`]. Two super-peers that do not see each other may each drop a copy because the other copies are there;
/// this keeps them from dropping those that the other one counts on.
pub const CONFIRMED_FOR: Duration = Duration::from_mins(1);
/// Contents that one request names.
pub const ASSIGNMENTS_MAX: usize = 512;

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Vault;

impl Protocol for Vault {
    const NAME: &'static str = "vault";
    const MAX_REQUEST_BYTES: usize = 8 * SMALL_MESSAGE_BYTES;
    const MAX_RESPONSE_BYTES: usize = SMALL_MESSAGE_BYTES;
    const TIMEOUT: Duration = QUICK_TIMEOUT;
    type Request = Request;
    type Response = Response;
}

/// What a super-peer asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Keep these, and drop those.
    Assign(#[serde(deserialize_with = "cbor::at_most::<ASSIGNMENTS_MAX, _, _>")] Vec<Assignment>),
    /// Do you hold all of these, on your disk, now? Asked before an excess copy elsewhere is dropped. Whoever says yes
    /// keeps it for [`CONFIRMED_FOR`].
    Confirm(#[serde(deserialize_with = "cbor::at_most::<ASSIGNMENTS_MAX, _, _>")] Vec<ContentId>),
}

/// One content that a node is to keep or drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignment {
    /// Fetch it, keep it, serve it.
    Keep {
        /// The content.
        content: ContentId,
        /// The plaintext's size, in bytes.
        size_bytes: u64,
    },
    /// Keep it no longer. A copy in the library is not concerned.
    Drop {
        /// The content.
        content: ContentId,
        /// Why.
        reason: DropReason,
    },
}

impl Assignment {
    /// Which content.
    pub const fn content(&self) -> ContentId {
        match self {
            Self::Keep { content, .. } | Self::Drop { content, .. } => *content,
        }
    }
}

/// Why a content is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Others keep enough of it, and have confirmed that.
    Excess,
    /// Its file has another content now, of which there are enough copies, or is deleted.
    Replaced,
    /// Its file was restricted: it is served to nobody from now on.
    Withdrawn,
}

/// The node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To *assign*: one outcome for each, in order.
    Assigned(#[serde(deserialize_with = "cbor::at_most::<ASSIGNMENTS_MAX, _, _>")] Vec<Outcome>),
    /// To *confirm*: one for each, in order; only whole and verified copies count.
    Confirmed(#[serde(deserialize_with = "cbor::at_most::<ASSIGNMENTS_MAX, _, _>")] Vec<bool>),
    /// The node could not read its database.
    Unavailable,
}

/// What a node does with an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It does it, or has done it.
    Accepted,
    /// The vault would grow over its quota, or the disk over its reserve.
    NoRoom,
    /// Not now, ask again later: too many fetches for the vault wait already, or what is to be dropped as one copy too
    /// many was confirmed a moment ago.
    Busy,
}
