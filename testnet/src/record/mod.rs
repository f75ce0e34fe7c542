//! What a run did and found, kept so that somebody who was not there can judge it.
//!
//! A [`Record`] is plain data; [`page`] makes it readable, [`folder`] keeps both, with every member's metrics and log.
//! Nothing in it is secret or tells about the machine's user: no token or key, and paths of the run and of the shared
//! folder are replaced in logs.

pub mod folder;
pub mod journal;
pub mod load;
pub mod machine;
pub mod page;

pub use journal::{CheckFailed, Journal};

use serde::{Deserialize, Serialize};

/// The version of `record.json`'s shape.
pub const FORMAT: u32 = 1;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of Quarta that ran.
    pub version: String,
    /// When it began: RFC 3339, UTC.
    pub started: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// What was asked for.
    pub parameters: Parameters,
    /// What it ran on.
    pub machine: machine::Machine,
    /// What was shared.
    pub files: Vec<SharedFile>,
    /// What happened when.
    pub timeline: Vec<Moment>,
    /// Who was there at some moments.
    pub member_lists: Vec<MemberList>,
    /// Who fetched what from whom.
    pub transfers: Vec<TransferRow>,
    /// How the work was spread.
    pub load: load::Distribution,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was checked and held.
    Passed,
    /// Something did not hold or could not be done.
    Failed {
        /// What.
        why: String,
    },
    /// A person stopped it.
    Interrupted,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Super-peers.
    pub superpeers: usize,
    /// Nodes.
    pub nodes: usize,
    /// `samples`, or `folder` where a person's own files were shared.
    pub shared: String,
    /// The size of the bulk file, in bytes; none where none was made.
    pub big_size_bytes: Option<u64>,
    /// How often super-peers polled, in milliseconds.
    pub poll_interval_ms: u64,
    /// Disk space that was required before the start, in bytes.
    pub disk_bytes: u64,
}

/// A file that was shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFile {
    /// Its name.
    pub name: String,
    /// Who shared it.
    pub owner: String,
    /// Its length.
    pub size_bytes: u64,
    /// The original's SHA-256, computed by the demo itself.
    pub sha256: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the start.
    pub at_seconds: f64,
    /// What.
    pub what: String,
}

/// Who was there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberList {
    /// Seconds since the start.
    pub at_seconds: f64,
    /// Which moment.
    pub when: String,
    /// Whose list it is.
    pub seen_by: String,
    /// The members.
    pub members: Vec<MemberRow>,
}

/// A member in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Its name.
    pub name: String,
    /// `superpeer` or `node`.
    pub role: String,
    /// `online`, `suspect` or `offline`.
    pub state: String,
    /// Files in its library.
    pub files: u64,
    /// Bytes that it stores.
    pub stored_bytes: u64,
}

/// A fetch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferRow {
    /// The file's name.
    pub file: String,
    /// Who fetched it.
    pub to: String,
    /// Its length.
    pub size_bytes: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// The rate, in bytes a second.
    pub bytes_per_second: f64,
    /// The SHA-256 of what arrived, computed by the node.
    pub sha256: String,
    /// Whether what arrived was compared with the original, byte by byte and by SHA-256, and is the same.
    pub identical: bool,
    /// Who sent what.
    pub sources: Vec<SourceRow>,
}

/// A source's part in a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// The holder.
    pub name: String,
    /// `tcp`, `quic` or `relay`; none where nothing came.
    pub transport: Option<String>,
    /// Verified bytes.
    pub bytes: u64,
    /// Why it was dropped, if it was.
    pub fault: Option<String>,
}

/// Something that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What had to hold.
    pub what: String,
    /// Whether it did.
    pub passed: bool,
    /// What was found.
    pub found: String,
}
