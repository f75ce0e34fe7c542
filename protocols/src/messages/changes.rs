//! *changes*: how a member's own database follows a super-peer's.
//!
//! A member asks for what came after its cursor; the super-peer answers with a page, at once where there is something
//! and otherwise as soon as there is, or with an empty page when [`Request::Follow`]'s wait is over. So news travel
//! within a round trip, one question is under way at a time, and a lost connection costs nothing but the question.
//!
//! Two kinds of news come in one page. The catalog's entries are durable and numbered by the super-peer's store; the
//! members' condition is soft state and numbered by the run of its process. The [`Cursor`] names both, so that each
//! super-peer knows what a member has of *its* numbering, and one that was restored from a backup notices that the
//! cursor comes from a future that it has lost.
//!
//! A member changes super-peers at any moment, and these hear of things at different times. So what one says must fit
//! together with what another says, in whatever order a member hears of it: of two records the one that supersedes stays,
//! and [`Change::Forget`] says for how far the file had come it holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::{index::ListedMember, sync::Kind};
use crate::{
    cbor,
    endings::{Departure, RevocationNotice},
    ids::ID_BYTES,
    limits::{MEMBER_PAGE_ENTRIES, PAGE_MESSAGE_BYTES, RECORD_PAGE_ENTRIES, SMALL_MESSAGE_BYTES},
    records::{LINKS_MAX, Link, Precedence},
    rpc::Protocol,
    signing::Signed,
};

/// Longest that a super-peer keeps a question open while it has nothing to tell.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// Departures and revocations that one [`Request::Return`] carries: they fit [`SMALL_MESSAGE_BYTES`] only one by one.
pub const RETURNED_MAX: usize = 64;

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Changes;

impl Protocol for Changes {
    const NAME: &'static str = "changes";
    const MAX_REQUEST_BYTES: usize = 16 * SMALL_MESSAGE_BYTES;
    const MAX_RESPONSE_BYTES: usize = PAGE_MESSAGE_BYTES;
    // The longest wait, and time to write and carry a full page.
    const TIMEOUT: Duration = Duration::from_secs(30);

    type Request = Request;
    type Response = Response;
}

/// How far a member has followed one super-peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The super-peer's database: 128 random bits, drawn when it was made.
    pub store: ByteArray<16>,
    /// The run of its process that gave this cursor: 64 random bits, drawn at each start.
    pub run: u64,
    /// The last number of the catalog's entries seen.
    pub sequence: u64,
    /// The last number of the members' condition seen, within the run.
    pub condition: u64,
}

/// What a member asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What came after this?
    Follow {
        /// Where the last page ended; none for everything.
        since: Option<Cursor>,
        /// How long to wait for news where there are none, in milliseconds; at most [`WAIT_MAX`].
        wait_ms: u64,
    },
    /// You may have lost these: endings of memberships that I know of. Sent after [`Response::Page::restart`].
    Return {
        /// Departures.
        #[serde(deserialize_with = "cbor::at_most::<RETURNED_MAX, _, _>")]
        departures: Vec<Signed<Departure>>,
        /// Revocations.
        #[serde(deserialize_with = "cbor::at_most::<RETURNED_MAX, _, _>")]
        revocations: Vec<RevocationNotice>,
    },
}

/// One change of the catalog.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// This stands in the catalog now. Verified by the member itself, by the rules of its kind.
    Put {
        /// What the payload is.
        kind: Kind,
        /// What it is about.
        id: ByteArray<ID_BYTES>,
        /// The encoded entry.
        payload: ByteBuf,
    },
    /// Forget what you know under this id: it is hidden from you.
    Forget {
        /// Of which kind.
        kind: Kind,
        /// What it was about.
        id: ByteArray<ID_BYTES>,
        /// How far the file has come: records up to here are hidden, by whoever they are shown later, and one above is
        /// not. A super-peer of an earlier version does not say so; then it holds for what the member has now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<Precedence>,
        /// The hand-overs by which the member itself, or the root in its place, gave the file away. An owner takes
        /// nobody's word for it that its file is another's.
        #[serde(
            default,
            skip_serializing_if = "Vec::is_empty",
            deserialize_with = "cbor::at_most::<LINKS_MAX, _, _>"
        )]
        handed_over: Vec<Signed<Link>>,
    },
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Put { kind, payload, .. } => f
                .debug_struct("Put")
                .field("kind", kind)
                .field("payload_bytes", &payload.len())
                .finish_non_exhaustive(),
            Self::Forget { kind, .. } => f.debug_struct("Forget").field("kind", kind).finish_non_exhaustive(),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To *follow*.
    Page {
        /// Where this page ends.
        cursor: Cursor,
        /// Whether the member's cursor is not one of this super-peer's: the feed begins anew. What the member has stays
        /// good, since everything in it is verifiable; only its position is lost.
        restart: bool,
        /// Changes of the catalog, in the order in which they were accepted.
        #[serde(deserialize_with = "cbor::at_most::<RECORD_PAGE_ENTRIES, _, _>")]
        changes: Vec<Change>,
        /// Members whose condition changed.
        #[serde(deserialize_with = "cbor::at_most::<MEMBER_PAGE_ENTRIES, _, _>")]
        members: Vec<ListedMember>,
        /// Whether more is there already: ask on at once.
        more: bool,
    },
    /// To *return*.
    Noted,
    /// The super-peer could not read its database, or follows too many already: ask another.
    Unavailable,
}
