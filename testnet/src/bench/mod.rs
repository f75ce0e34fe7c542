//! `quarta-testnet bench`: figures that are claimed, measured on real processes.
//!
//! Each benchmark starts what it needs, measures, prints medians and the like beside what is to be reached, and ends
//! with exit code 0 only where that was reached. `docs/performance.md` tells the figures of one machine.
//!
//! In reading order: `cli` names the benchmarks; [`figures`], `stage`, `web` are what those of transfers share:
//! medians, members on hosts of their own, and curl from nginx to compare with.

pub mod add;
pub(crate) mod cli;
pub mod crowd;
pub mod figures;
pub mod idle;
pub mod index;
mod latencies;
pub mod limits;
pub mod many_files;
pub mod many_to_one;
pub mod one_to_one;
pub mod reconcile;
mod records;
pub mod search;
mod stage;
mod web;
pub(crate) mod writer;

pub use latencies::Latencies;

use quarta_daemon::cli::Failure;
use std::fmt::Display;

/// Errors whose texts are made as "what: why; next step", on their way to a command's end.
trait OrFailure<T> {
    fn or_failure(self) -> Result<T, Failure>;
}

impl<T, E: Display> OrFailure<T> for Result<T, E> {
    fn or_failure(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::told(&error))
    }
}
