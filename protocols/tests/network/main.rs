//! The network layer over real sockets on this machine: who is let in, and what travels.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod attacker;
mod bodies;
mod calls;
mod gate;
mod matrix;
mod reconnecting;
mod world;
