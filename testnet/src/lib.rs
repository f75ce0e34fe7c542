//! Local Quarta clusters on one machine: what the demo, the scenarios and the end-to-end tests run on.

pub mod samples;
