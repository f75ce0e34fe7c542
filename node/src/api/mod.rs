//! The node's HTTP API: how it is, the network's files, adding and fetching, members and transfers.

pub mod model;
mod routes;
mod transfer;

pub(crate) use routes::router;
