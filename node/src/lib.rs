//! A branch's node.

pub mod download;
pub mod inventory;
