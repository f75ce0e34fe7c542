//! The super-peer's HTTP API: how it is, its members, the catalog, what a member holds, and invites.

pub mod model;
mod routes;

pub(crate) use routes::router;
