//! End-to-end tests: clusters of real processes, driven as their users and their enemies would.
//!
//! One program for all, so that it is linked once; the test runner starts it anew for each test.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(unreachable_pub, reason = "a test's module is of no other crate")]

mod support;

mod bad_input;
mod bad_sources;
mod balance;
mod catching_up;
mod commands;
mod failover;
mod feed;
mod footprint;
mod http_api;
mod life;
mod local_days;
mod membership;
mod names;
mod ownership;
mod partitions;
mod reconciling;
mod replication;
mod restricted;
mod resume;
mod secrets;
mod sharing;
mod silence;
mod strangers;
mod vault;
