//! Quarta's super-peer: the index of who holds what, the health of every member, and the choice of sources.
//!
//! The decisions are pure: they take the time and randomness as arguments and touch no socket, file or clock.

pub mod balancing;
pub mod health;
pub mod index;
