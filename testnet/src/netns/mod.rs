//! Members on hosts of their own: network namespaces joined by a bridge, with cables that can be cut and
//! limited.
//!
//! **What is guaranteed.** Nothing outside of the namespaces is touched: no interface, route or firewall rule of the
//! machine, and no name in `/run/netns`. A namespace lives as long as the process that holds it open, which dies with
//! this program (`attached`), so nothing is left behind after a panic or a SIGKILL either, and any number of [`Lan`]s
//! exist side by side with the same addresses. A cut drops frames and leaves the carrier: both ends see silence, as when
//! a line far away breaks, and nobody's system reports an error.
//!
//! ```text
//!   a namespace of its own                     one for each host
//!  ┌─────────────────────────┐
//!  │ br0 ── p0 ──────────────┼── veth ── eth0 198.51.100.1
//!  │     ── p1 ──────────────┼── veth ── eth0 198.51.100.2
//!  │ nftables: pairs of ports between which │
//!  │ nothing passes          │
//!  └─────────────────────────┘
//! ```
//!
//! A member's HTTP address is its namespace's loopback, so from outside it is asked over the socket in its data folder,
//! which is a file and needs no network ([`crate::cluster::Member::client`]).

mod lan;
mod namespace;

pub use lan::{HOSTS_MAX, Lan};
pub use namespace::NetnsError;
