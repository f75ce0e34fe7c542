//! What Quarta's peers say to each other.

pub mod cbor;
pub mod credentials;
pub mod ids;
pub mod names;
pub mod rpc;
pub mod signing;
