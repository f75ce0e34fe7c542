//! What a run did and found, kept so that somebody who was not there can judge it.
//!
//! A [`Record`] is plain data: the same figures that `record.json` holds stand in both of its pages, [`markdown`] for a
//! repository and [`html`] for a browser. [`folder`] keeps them, with every member's metrics and log.
//!
//! Nothing in it is secret or tells about the machine's user: no token, key or invite, and paths of the run and of the
//! shared folder are replaced in logs ([`scrub`]). Everything in it is bounded, however long a run was.

pub mod folder;
pub mod html;
pub mod journal;
pub mod kept_log;
pub mod load;
pub mod machine;
pub mod markdown;
pub mod samples;
pub mod scrub;

pub use journal::{CheckFailed, Journal};

use serde::{Deserialize, Serialize};

/// The version of `record.json`'s shape.
pub const FORMAT: u32 = 2;
/// Most moments of a timeline, so that a network that ran for weeks leaves a record that can be read.
pub const MOMENTS_MAX: usize = 2_000;
/// Most changes of members' states, likewise.
pub const SIGHTINGS_MAX: usize = 2_000;
/// Most fetches, likewise; the latest are kept.
pub const TRANSFERS_MAX: usize = 2_000;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Which command of `quarta-testnet` ran.
    pub command: Command,
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
    /// When whose process ran.
    pub lives: Vec<Life>,
    /// How members stood at a super-peer: every change.
    pub sightings: Vec<Sighting>,
    /// Who was there at some moments.
    pub member_lists: Vec<MemberList>,
    /// Who fetched what from whom.
    pub transfers: Vec<TransferRow>,
    /// How the work was spread.
    pub load: load::Distribution,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What members used and moved over time.
    pub samples: samples::Samples,
    /// Families of metrics that changed between the two snapshots, by member.
    pub metrics: Vec<MetricChange>,
    /// How long nodes took to answer super-peers' polls.
    pub polls: Vec<Polls>,
}

/// A command of `quarta-testnet` that leaves a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The main job, checked.
    Demo,
    /// A network to try things on.
    Up,
}

impl Command {
    /// The command's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Up => "up",
        }
    }
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
    /// A person stopped it before its end.
    Interrupted,
    /// It went on until a person ended it, which is its only end.
    Ended,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Super-peers.
    pub superpeers: usize,
    /// Nodes.
    pub nodes: usize,
    /// `samples`, `folder` where a person's own files were shared, or `nothing` where that was left to people.
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
    /// The original's SHA-256: computed by the demo itself, or as the owner's node tells it.
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

/// A run of a member's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// The member's name.
    pub member: String,
    /// `superpeer` or `node`.
    pub role: String,
    /// When it was started, in seconds since the run's start.
    pub from_seconds: f64,
    /// When it ended; none where it outlived the record.
    pub to_seconds: Option<f64>,
    /// How it ended: `in order`, `signal 9` or `exit code 1`.
    pub end: Option<String>,
}

/// A change in how a member stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// When it was seen, in seconds since the start.
    pub at_seconds: f64,
    /// The member.
    pub member: String,
    /// How it stands now: `online`, `suspect` or `offline`.
    pub state: String,
    /// The super-peer that says so.
    pub seen_by: String,
}

/// What a family of metrics came to at one member: the sum over its labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricChange {
    /// The member.
    pub member: String,
    /// The family.
    pub family: String,
    /// In the first snapshot; none where the member or the family was not there.
    pub before: Option<f64>,
    /// In the last.
    pub after: Option<f64>,
}

/// What a super-peer's polls took since its process started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Polls {
    /// The super-peer.
    pub superpeer: String,
    /// Polls that were answered.
    pub answered: u64,
    /// Polls that were not.
    pub missed: u64,
    /// The mean time to an answer, in seconds; none without an answer.
    pub mean_seconds: Option<f64>,
    /// How many took no longer than so many seconds, and longer than the bucket before; a last one without a bound.
    pub buckets: Vec<Bucket>,
}

/// A part of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its upper bound, in seconds; none for what is above all bounds.
    pub up_to_seconds: Option<f64>,
    /// How many fell into it.
    pub count: u64,
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

impl From<quarta_superpeer::api::model::Member> for MemberRow {
    fn from(member: quarta_superpeer::api::model::Member) -> Self {
        let quarta_superpeer::api::model::Member { name, role, state, files, stored_bytes, .. } = member;
        Self { name, role, state, files, stored_bytes }
    }
}

/// A fetch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferRow {
    /// The file's name.
    pub file: String,
    /// Who fetched it.
    pub to: String,
    /// When it began, in seconds since the run's start.
    pub at_seconds: f64,
    /// How it stands: `completed`, or why it is not.
    pub state: String,
    /// Its length.
    pub size_bytes: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// The rate, in bytes a second.
    pub bytes_per_second: f64,
    /// The SHA-256 of what arrived, computed by the node.
    pub sha256: String,
    /// Whether what arrived is the same as the original, byte by byte and by SHA-256; none where nobody compared them.
    pub identical: Option<bool>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// When, in seconds since the start.
    pub at_seconds: f64,
    /// What had to hold.
    pub what: String,
    /// Whether it did.
    pub passed: bool,
    /// What was found.
    pub found: String,
}
