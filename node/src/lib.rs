//! A branch's node: its files, and what it does with those of others.
//!
//! Where the bytes live, in reading order:
//!
//! 1. [`library`]: the plaintext folder, into which nothing gets but whole files, and nothing outside of it.
//! 2. [`database`]: what this node remembers.
//! 3. [`sealing`]: from a user's file to a content.
//! 4. [`serving`], [`throttle`]: chunks for others.
//! 5. [`landing`]: chunks from others.

pub mod database;
pub mod landing;
pub mod library;
pub mod sealing;
pub mod serving;
pub mod throttle;
