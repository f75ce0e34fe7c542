//! Placeholder.

pub mod admission;
pub mod catalog;
