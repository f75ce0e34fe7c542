//! The network layer over real sockets on this machine: who is let in, and what travels.

mod bodies;
mod calls;
mod gate;
mod reconnecting;
mod world;
