//! What a Quarta service tells about itself: the metric families of nodes and super-peers and the text that
//! Prometheus scrapes.
//!
//! Every family of the network is declared here and nowhere else, so the names, units and labels that
//! dashboards and alerts rely on have one place and one test. The services hold the family structs
//! ([`Network`], [`SuperPeer`], [`Node`]), which are cheap to clone, and call typed methods on them; a label
//! value is an enum variant or the name of a member, never a file name, an id or a hash. That keeps secrets out
//! of the exposition and the number of series bounded whatever peers send.
//!
//! Modules in reading order:
//!
//! - [`registry`]: the registry of one process and its exposition.
//! - [`family`]: counters, gauges and histograms whose labels are typed.
//! - [`members`]: families labelled with member names, bounded in number.
//! - [`network`]: what both services tell about connections and requests.
//! - [`superpeer`]: index, health and load balancing; [`replication`]: copies of files.
//! - [`node`]: library and transfers.
//! - [`fairness`]: Jain's index.
//!
//! ```
//! use quarta_metrics::{Registry, Service, SuperPeer, superpeer::PollOutcome};
//!
//! let registry = Registry::new(Service::SuperPeer, "0.1.0")?;
//! let metrics = SuperPeer::register(&registry)?;
//! metrics.polls.inc(PollOutcome::Missed);
//! assert!(registry.encode().contains("quarta_superpeer_polls_total{outcome=\"missed\"} 1"));
//! # Ok::<(), quarta_metrics::RegisterError>(())
//! ```

pub mod fairness;
pub mod family;
pub mod members;
pub mod network;
pub mod node;
pub mod registry;
pub mod replication;
pub mod superpeer;

pub use network::Network;
pub use node::Node;
pub use registry::{CONTENT_TYPE, RegisterError, Registry, Service};
pub use superpeer::SuperPeer;
