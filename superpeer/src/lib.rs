//! Quarta's super-peer: index, health and balancing of the network.

pub mod api;
