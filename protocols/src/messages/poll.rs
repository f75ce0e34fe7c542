//! *poll*: a super-peer asks a node what it holds and how busy it is.

use std::time::Duration;

use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use super::inventory::{Key, Page, Position};
use crate::{
    cbor,
    limits::{ADDRESSES_MAX, PAGE_MESSAGE_BYTES, PAGE_TIMEOUT, SMALL_MESSAGE_BYTES},
    rpc::Protocol,
};

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Poll;

impl Protocol for Poll {
    const NAME: &'static str = "poll";
    const MAX_REQUEST_BYTES: usize = SMALL_MESSAGE_BYTES;
    const MAX_RESPONSE_BYTES: usize = PAGE_MESSAGE_BYTES;
    // The super-peer's own deadline for suspecting a node is far shorter; this bounds the stream.
    const TIMEOUT: Duration = PAGE_TIMEOUT;
    type Request = Request;
    type Response = Response;
}

/// What the super-peer knows already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The position it has; none asks for the full list.
    pub since: Option<Position>,
    /// Continue a full list after this key.
    pub after: Option<Key>,
    /// How often this super-peer polls, in milliseconds: a node that hears nothing for longer redials.
    pub interval_ms: u64,
}

/// The list and the load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Response {
    /// What changed, or a page of everything where the position is unknown.
    pub page: Page,
    /// How busy the node is.
    pub load: Load,
    /// Where it can be reached.
    #[serde(deserialize_with = "cbor::at_most::<ADDRESSES_MAX, _, _>")]
    pub addresses: Vec<Multiaddr>,
}

/// How busy a node is and how much it could do. Its own word, used for ranking only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Uploads in progress.
    pub active_uploads: u32,
    /// Uploads it serves at once.
    pub upload_slots: u32,
    /// Downloads in progress.
    pub active_downloads: u32,
    /// What it can send, in bytes a second: its limit, or what it was seen to reach; none where unknown.
    pub upload_capacity_bytes_per_second: Option<u64>,
    /// What it sends now, in bytes a second.
    pub upload_rate_bytes_per_second: u64,
    /// Space left on its disk, in bytes.
    pub free_bytes: u64,
    /// Bytes in library and vault.
    pub stored_bytes: u64,
    /// Bytes sent to others since its start.
    pub served_bytes: u64,
}
