//! The node's HTTP API: how it is, the network's files, adding, fetching and verifying,
//! members and transfers.

pub mod model;
mod routes;
mod verifying;

pub(crate) use routes::router;
