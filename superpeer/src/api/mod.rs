//! The HTTP API.

pub mod model;
