//! `quarta-testnet bench`: figures that are claimed, measured on real processes.
//!
//! Each benchmark starts what it needs, measures, prints medians and the like beside what is to be reached, and ends
//! with exit code 0 only where that was reached.

mod latencies;
pub mod reconcile;
mod records;
pub mod search;
pub(crate) mod writer;

pub use latencies::Latencies;
