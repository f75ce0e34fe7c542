//! Quarta's super-peer: index, health and balancing of the network.
//!
//! Read it in this order. The first three decide and are pure (a moment and an input give a result); the rest is the
//! shell around them.
//!
//! 1. [`index`]: what every node holds; [`health`]: who is there; [`balancing`]: who is offered as a source.
//! 2. [`reconciliation`]: how two super-peers come to agree; [`feed`]: what members are told of changes; [`placement`]
//!    and [`replication`]: where copies belong, and how they get there; as purely.
//! 3. [`catalog`]: records and members, durable; [`admission`]: how invites become members; [`store`]: both off the loop.
//! 4. [`service`]: the running super-peer; [`api`]: its HTTP API.
//! 5. [`settings`], [`setup`], [`root_key`], [`cli`]: from a command line to a data folder to a service.

pub mod admission;
pub mod api;
pub mod balancing;
pub mod catalog;
pub mod cli;
pub mod feed;
pub mod health;
pub mod index;
pub mod placement;
pub mod reconciliation;
pub mod replication;
pub mod root_key;
pub mod service;
pub mod settings;
pub mod setup;
pub mod store;
