//! Every cap on what peers may send each other, in one place.
//!
//! A cap bounds what one message can make its receiver allocate, and with the stream limits of [`crate::network`] what
//! one peer can. Sizes are of encoded CBOR, in bytes. A sender keeps to these caps by paging.

use std::time::Duration;

/// A message with a few fields.
pub const SMALL_MESSAGE_BYTES: usize = 8 * 1024;
/// A page of records, inventory entries or members.
pub const PAGE_MESSAGE_BYTES: usize = 1024 * 1024;
/// What a sender fills a page up to: leaves room for the message around it and one more entry of the largest size.
pub const PAGE_FILL_BYTES: usize = PAGE_MESSAGE_BYTES - 128 * 1024;

/// Inventory entries in one page: with the longest names it stays within [`PAGE_MESSAGE_BYTES`] by [`PAGE_FILL_BYTES`].
pub const INVENTORY_PAGE_ENTRIES: usize = 4096;
/// Records in one page.
pub const RECORD_PAGE_ENTRIES: usize = 512;
/// Catalog entries in one page between super-peers.
pub const SYNC_PAGE_ENTRIES: usize = 512;
/// Prefixes whose branches one super-peer asks another for at once: the answer takes half a message.
pub const SYNC_BRANCHES_MAX: usize = 4096;
/// Items or positions that super-peers name at once, before they exchange what is behind those that differ: some 100 KB.
pub const SYNC_ITEMS_MAX: usize = 8192;
/// Members in one page.
pub const MEMBER_PAGE_ENTRIES: usize = 512;
/// Sources that one *locate* names: a fetch rarely gains from more at once.
pub const SOURCES_MAX: usize = 32;
/// Addresses of one member: more than a machine with several interfaces and two transports has.
pub const ADDRESSES_MAX: usize = 16;
/// Super-peers named to a joiner.
pub const SUPERPEERS_MAX: usize = 32;
/// Longest search text, in bytes.
pub const QUERY_MAX_BYTES: usize = 256;
/// Longest software version, in bytes.
pub const VERSION_MAX_BYTES: usize = 32;
/// Chunks that one run may name: at the usual chunk size 64 MiB, so that a slow reader's request ends in finite time.
pub const RUN_MAX_CHUNKS: u32 = 256;

/// Files that one member may own: bounds what one flooding member can store on super-peers.
pub const FILES_PER_MEMBER_MAX: u64 = 2_000_000;
/// Inventory entries of one member.
pub const INVENTORY_ENTRIES_MAX: usize = 4_000_000;

/// An exchange that the other side answers from memory.
pub const QUICK_TIMEOUT: Duration = Duration::from_secs(5);
/// An exchange that the other side answers from its database, or with a full page over a slow link.
pub const PAGE_TIMEOUT: Duration = Duration::from_secs(20);
