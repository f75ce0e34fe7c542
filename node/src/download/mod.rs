//! Fetching a content from several holders at once.
//!
//! - [`chunk_set`]: sets of chunks, and the bitmap in which holders offer theirs.
//! - [`schedule`]: which chunks to ask from whom, and whom to drop. Pure.
//! - [`fetch`]: the shell that carries one fetch through: connects, asks, verifies, writes, reports.

pub mod chunk_set;
pub mod fetch;
mod rate;
pub mod schedule;
