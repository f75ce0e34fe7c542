//! What every Quarta process has on its machine.
//!
//! The node's daemon, the super-peer's daemon and the command-line clients of both share one set of habits,
//! so that whoever knows one knows the others: where data lies and who may read it, how a process logs, how
//! its local API is guarded, how a command talks to it, prints, fails and exits. Nothing in here knows what a
//! file record or a peer is; network ids and names pass through as text.
//!
//! In reading order:
//!
//! - [`escape`]: text of others, made safe for a terminal or a log;
//! - [`cause`]: what the system refused, in plain words;
//! - [`data_dir`]: the private folder that holds everything a member is, its lock and its key files;
//! - [`identity`]: its keys, credential and super-peers in that folder;
//! - [`joining`]: how an invite becomes a membership;
//! - [`renewal`]: when it renews its credential;
//! - [`renewing`]: whom it asks, and what it believes of the answer;
//! - [`reach`]: where it listens, and what it tells others of that;
//! - [`settings`]: `settings.toml` in that folder;
//! - [`log`]: what a process says on stderr;
//! - [`open_files`]: how many files and connections it may have open;
//! - [`disk`]: whether its data folder can be written;
//! - [`clocks`]: whether its clock is right;
//! - [`timer`]: when something is due again, if it is;
//! - [`shutdown`]: signals, and what systemd is told;
//! - [`observer`]: what the network layer sees, as metrics;
//! - [`http`]: the local API's listener, on a Unix socket and a TCP address;
//! - [`client`]: a command's side of that API;
//! - [`cli`]: arguments, output, failures and exit codes that all commands share.

pub mod cause;
pub mod cli;
pub mod client;
pub mod clocks;
pub mod data_dir;
pub mod disk;
pub mod escape;
pub mod http;
pub mod identity;
pub mod joining;
pub mod log;
pub mod observer;
pub mod open_files;
pub mod reach;
pub mod renewal;
pub mod renewing;
pub mod settings;
pub mod shutdown;
pub mod timer;

pub use data_dir::{DataDir, Lock, Marker, Role};
