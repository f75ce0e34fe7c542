//! How two super-peers find what one of them has and the other lacks, and exchange just that.
//!
//! What it guarantees, for two catalogs that nobody writes to meanwhile:
//!
//! - **Both end with the union**, from whichever two sets of entries they begin, and again after any interruption: a
//!   session keeps nothing that the next one needs.
//! - **The wire carries what differs**, plus some 100 bytes for each differing entry and 3 KiB: not the catalog.
//! - **It ends**, also against a super-peer that lies: every answer must move on within what was asked.
//!
//! Every entry has a [`Position`](quarta_protocols::messages::sync::Position) that follows from a hash of its kind and
//! id. A [`Trie`] keeps what all entries below each prefix of positions come to. The [`Session`] of the super-peer that
//! begins walks down where the sums differ, 4096 prefixes in a request, lists the items of the leaves that differ, and
//! then fetches and pushes the entries behind them. A catalog that has most of its entries to come reads the other's
//! pages instead, and so does one whose root differs where no branch does.
//!
//! Everything here is pure. [`Session`] and [`Trie`] decide for the side that begins, [`answer`] for the other one,
//! [`Agenda`] when to begin, [`Turns`] whom to answer, and [`Agreement`] whether members may be admitted.
//! `service/federation.rs` is the shell that asks, reads and writes.
//!
//! Sums are XORs, so that they are kept in constant time and do not depend on order. A member that spends the effort can
//! craft versions of its own files whose sums cancel each other out; while they do, super-peers differ in these files.

pub mod agenda;
pub mod agreement;
pub mod answer;
#[cfg(test)]
mod catalogs;
pub mod session;
mod trie;
pub mod turns;

pub use agenda::Agenda;
pub use agreement::Agreement;
pub use session::Session;
pub use trie::Trie;
pub use turns::Turns;
