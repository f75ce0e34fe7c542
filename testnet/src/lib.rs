//! Local Quarta clusters on one machine: what the demo, the scenarios and the end-to-end tests run on.
//!
//! In reading order:
//!
//! - [`process`], `attached`, [`wait`]: processes that cannot be lost, and waiting for them without sleeping;
//! - [`cluster`]: a network of such processes; [`api`]: asking its members;
//! - [`netns`]: hosts of their own for them, and cuts between these;
//! - [`watch`]: seeing a member leave the lists and come back;
//! - [`exposition`], [`snapshot`], [`sampling`]: what they tell Prometheus, at a moment and over time;
//! - [`samples`], [`original`]: the files that are shared, and comparing what arrived with them;
//! - [`stranger`]: somebody who is no member and knocks; [`guest`]: a member without a daemon; [`liar`]: one that serves
//!   what it should not; [`planner`]: a super-peer that says what to keep;
//! - [`hostile_names`]: names that have broken other systems;
//! - [`simulation`]: a whole network in one thread, under faults, by the thousand;
//! - [`mod@bench`]: figures that are claimed, measured;
//! - [`record`]: what a run did and found, kept in a folder;
//! - [`up`], [`demo`], [`cli`]: the commands of `quarta-testnet`.

pub mod api;
mod attached;
pub mod bench;
pub mod cli;
pub mod cluster;
pub mod demo;
pub mod exposition;
pub mod guest;
pub mod hostile_names;
pub mod liar;
pub mod netns;
pub mod original;
pub mod planner;
pub mod process;
pub mod record;
pub mod samples;
pub mod sampling;
pub mod simulation;
pub mod snapshot;
pub mod stranger;
pub mod up;
pub mod wait;
pub mod watch;
