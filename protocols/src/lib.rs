//! What Quarta's peers say to each other, and how they know it is true.
//!
//! Read it in this order:
//!
//! 1. [`ids`], [`names`]: the newtypes that everything else is made of.
//! 2. [`cbor`], [`signing`], [`lately`], [`clock`]: how statements are encoded, signed, remembered and ordered.
//! 3. [`credentials`], [`keys`], [`invites`], [`members`], [`endings`]: who is a member, and who is none any more.
//! 4. [`content`], [`records`], [`audiences`]: what a file is and who may read it; [`audit`]: what was done to it and to members.
//! 5. [`limits`], [`rpc`], [`messages`]: what is said over the wire, and how much of it.
//! 6. [`network`]: who is connected, who is let in, and how messages and bodies travel.
//!
//! Nothing here touches a disk or decides what a service does.

pub mod audiences;
pub mod audit;
pub mod cbor;
pub mod clock;
pub mod content;
pub mod credentials;
pub mod endings;
pub mod ids;
pub mod invites;
pub mod keys;
pub mod lately;
pub mod limits;
pub mod members;
pub mod messages;
pub mod names;
pub mod network;
pub mod records;
pub mod rpc;
pub mod signing;
