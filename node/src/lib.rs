//! Quarta's node: a branch's daemon and command line.
//!
//! Read it in this order. The pure parts decide (a moment and an input give a result); the rest is the shell around
//! them.
//!
//! 1. [`inventory`]: the node's list; [`liaison`]: keeping in touch with super-peers; [`asking`]: whom to ask
//!    first; [`following`]: which one's feed to read; [`freshness`]: whether what was read is enough to serve; [`whereabouts`]: who may hold a file when none answers; [`download`]: which chunks from
//!    whom; [`audiences`]: who may read a restricted file; [`upkeep`]: what becomes of a copy when its file's record
//!    changes; [`trash`]: what was replaced or deleted; [`handover`]: who gets a file, and
//!    what an offered one comes to; [`scrub`]: when the
//!    library is read through; [`health`]: what is wrong with this machine, in words.
//! 2. [`library`], [`sealing`], [`serving`], [`landing`], [`throttle`]: files on disk, sealed for others and opened from
//!    others; [`vault`]: sealed copies kept for others; [`database`]: what is known of them.
//! 3. [`service`]: the running node; [`api`]: its HTTP API.
//! 4. [`settings`], [`setup`], [`cli`]: from a command line to a data folder to a service.

pub mod api;
pub mod asking;
pub mod audiences;
pub mod cli;
pub mod database;
pub mod download;
pub mod following;
pub mod freshness;
pub mod handover;
pub mod health;
pub mod inventory;
pub mod landing;
pub mod liaison;
pub mod library;
pub mod scrub;
pub mod sealing;
pub mod service;
pub mod serving;
pub mod settings;
pub mod setup;
pub mod throttle;
pub mod trash;
pub mod upkeep;
pub mod vault;
pub mod whereabouts;
