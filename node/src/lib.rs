//! Quarta's node: a branch's daemon and command line.

pub mod api;
