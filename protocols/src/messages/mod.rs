//! The messages of every protocol, one module each, in the order in which a member meets them.
//!
//! A message is CBOR with named fields; a receiver ignores fields it does not know, so fields may be added with a
//! default. Sizes are capped in [`crate::limits`].

pub mod admission;
pub mod changes;
pub mod chunk;
pub mod handover;
pub mod index;
pub mod inventory;
pub mod poll;
pub mod sync;
pub mod vault;
