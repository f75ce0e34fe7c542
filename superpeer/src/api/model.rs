//! What the super-peer's HTTP API says, as types: the same that its commands print with `--json`.

pub use quarta_daemon::http::{Member, MemberPage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::replication::Bill;

/// `GET /api/v1/status`: how this super-peer is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
    /// The network's id.
    pub network: String,
    /// This software's version.
    pub version: String,
    /// Whether everything is as it should be.
    pub healthy: bool,
    /// In words, what is not as it should be or wants attention.
    pub problems: Vec<String>,
    /// Whether the network's root key lies on this machine.
    pub holds_root_key: bool,
    /// Nodes that answer.
    pub nodes_online: u64,
    /// Nodes that are members.
    pub nodes: u64,
    /// Other super-peers connected.
    pub superpeers_connected: u64,
    /// Other super-peers known.
    pub superpeers: u64,
    /// Files in the catalog that are not deleted.
    pub files: u64,
    /// The network's storage bill.
    pub replication: Replication,
    /// Entries in the catalog: files, deleted ones included, members, and all else that super-peers share.
    pub catalog_entries: u64,
    /// What they come to, in hexadecimal: the same on all super-peers once they agree.
    pub catalog_digest: String,
    /// Entries in the nodes' lists.
    pub index_entries: u64,
    /// How often nodes are polled, in milliseconds.
    pub poll_interval_ms: u64,
    /// Where it listens for members.
    pub listen: Vec<String>,
    /// When the credential ends, in seconds since 1970 UTC.
    pub credential_expires: u64,
    /// The daemon's process id.
    pub pid: u32,
}

/// How many copies of files there are, and what they take: the network's storage bill.
///
/// Copies that count are whole, in a library or a vault, on nodes that answer or have been away for less than the grace
/// period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replication {
    /// How many copies of each file there should be, its owner's and its readers' included.
    pub target: u32,
    /// How many there are before any file gets more.
    pub floor: u32,
    /// Files with fewer copies than the target, those below the floor included.
    pub below_target: u64,
    /// Files with fewer copies than the floor, those without any included.
    pub below_floor: u64,
    /// Files of which no copy counts: every node that holds one is gone.
    pub without_copy: u64,
    /// Files whose copies have not been counted yet since the start.
    pub unseen: u64,
    /// The files' sizes together, in bytes.
    pub plain_bytes: u64,
    /// What all copies take, in bytes.
    pub stored_bytes: u64,
    /// What they would take if every file had exactly its target, in bytes.
    pub wanted_bytes: u64,
    /// Copies that nodes were told to make by this super-peer and have not made yet.
    pub under_way: u64,
    /// Files with more copies than the target of which this super-peer has one dropped.
    pub in_excess: u64,
    /// Why repairs wait, if they do: `starting` until all lists have come after a start, `outage` while over a third of
    /// the nodes vanished together.
    #[schema(example = "outage")]
    pub held: Option<String>,
}

impl From<Bill> for Replication {
    fn from(bill: Bill) -> Self {
        Self {
            target: bill.target,
            floor: bill.floor,
            below_target: bill.below_target,
            below_floor: bill.below_floor,
            without_copy: bill.without_copy,
            unseen: bill.unseen,
            plain_bytes: bill.plain_bytes,
            stored_bytes: bill.stored_bytes,
            wanted_bytes: bill.wanted_bytes,
            under_way: bill.under_way,
            in_excess: bill.in_excess,
            held: bill.hold.map(|hold| hold.as_str().to_owned()),
        }
    }
}

/// `GET /api/v1/files?query=&cursor=`: a page of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilePage {
    /// The files, in name order.
    pub files: Vec<File>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
}

/// A file of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct File {
    /// Its id.
    pub id: String,
    /// Its name at its owner's.
    pub name: String,
    /// The owner's name.
    pub owner: String,
    /// Whether the owner has left or was revoked without handing the file over: it can be assigned.
    #[serde(default)]
    pub orphaned: bool,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its SHA-256; none for a restricted file.
    pub sha256: Option<String>,
    /// Whether not every member may see it.
    #[serde(default)]
    pub restricted: bool,
    /// Available members that hold all of it.
    pub holders: Vec<String>,
}

/// `GET /api/v1/files/{file}/owner`: who owns a file, and what a link to its next owner has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ownership {
    /// The file's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The owner's name.
    pub owner: String,
    /// Its peer id.
    pub owner_id: String,
    /// Whether it has left or was revoked.
    pub orphaned: bool,
    /// How often the file was handed over.
    pub links: u32,
    /// The hash of the last link, in hexadecimal digits; none where there is none.
    pub last_link: Option<String>,
}

/// `POST /api/v1/files/{file}/owner`: assign a file whose owner is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignRequest {
    /// The next owner's name, its peer id, or the beginning of that.
    #[schema(example = "filial-recife")]
    pub member: String,
    /// The link, signed by the root, as hexadecimal digits of its encoded form; none to have it signed with the root key
    /// of this machine.
    #[serde(default)]
    pub signed: Option<String>,
}

/// A file that was assigned, or is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Assigned {
    /// The file's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The new or next owner's name.
    pub owner: String,
    /// Whether the file is the new owner's; else that one fetches it first, and takes it over by itself.
    pub taken: bool,
    /// What it has of the file, in verified bytes.
    pub have_bytes: u64,
}

/// `GET /api/v1/members/{member}/files?cursor=`: the list a node was polled for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldPage {
    /// The entries.
    pub entries: Vec<Held>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
}

/// An entry of a node's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// `library` or `vault`.
    pub kind: String,
    /// The file's name; none in the vault.
    pub name: Option<String>,
    /// The file's id; none in the vault.
    pub id: Option<String>,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its SHA-256; none in the vault and for restricted files.
    pub sha256: Option<String>,
    /// The content held.
    pub content: String,
    /// Whether all of it is there.
    pub complete: bool,
}

/// `POST /api/v1/invites`: what to issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// `node` or `superpeer`.
    #[schema(pattern = "^(node|superpeer)$", example = "node")]
    pub role: String,
    /// How many machines may join with it.
    #[schema(minimum = 1, maximum = 1000, example = 5)]
    pub uses: u32,
    /// For how long, in seconds; at most 30 days.
    #[schema(minimum = 1, maximum = 2_592_000, example = 86400)]
    pub expires_in_seconds: u64,
    /// The name of a member that has left or was revoked, which the one machine that joins gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// An invite as issued. It admits whoever holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invite {
    /// The pasteable string.
    pub invite: String,
    /// `node` or `superpeer`.
    pub role: String,
    /// How many machines may join with it.
    pub uses: u32,
    /// When it ends, in seconds since 1970 UTC.
    pub expires: u64,
    /// Whether the machine has to wait until the holder of the root key approves it.
    #[serde(default)]
    pub awaits_approval: bool,
}

/// `GET /api/v1/invites`: a page of the invites that this super-peer issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvitePage {
    /// The invites, newest first.
    pub invites: Vec<IssuedInvite>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
}

/// An invite as its issuer remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuedInvite {
    /// Names the invite; admits nobody.
    pub id: String,
    /// `node` or `superpeer`.
    pub role: String,
    /// `open`, `used` or `expired`.
    #[schema(example = "open")]
    pub state: String,
    /// How many machines may join with it in all.
    pub uses: u32,
    /// How many still.
    pub uses_left: u32,
    /// When it was issued, in seconds since 1970 UTC.
    pub created: u64,
    /// When it ends, in seconds since 1970 UTC.
    pub expires: u64,
    /// The departed member whose name it gives.
    pub replaces: Option<String>,
}

/// `POST /api/v1/members/{member}/revocation`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationRequest {
    /// A notice that the root signed elsewhere, as hexadecimal CBOR. Without it this super-peer signs with what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
}

/// `GET /api/v1/candidates`: who waits for the holder of the root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CandidateList {
    /// All of them.
    pub candidates: Vec<Candidate>,
}

/// A super-peer that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// How it will be called, or is.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
    /// `admission` or `renewal`.
    #[schema(example = "admission")]
    pub wants: String,
    /// When it last showed its invite, in seconds since 1970 UTC.
    pub asked: Option<u64>,
    /// When its present credential ends, in seconds since 1970 UTC.
    pub expires: Option<u64>,
}

/// `POST /api/v1/candidates/{name}/approval`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// A credential that the root signed elsewhere, as hexadecimal CBOR. Without it the root key of this machine signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
}

/// A super-peer that was approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Approved {
    /// Its name.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
    /// When its credential ends, in seconds since 1970 UTC.
    pub expires: u64,
}

/// `GET /api/v1/log`: a page of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// The entries, newest first.
    pub entries: Vec<LogEntry>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
}

/// Something that was done or seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// `signed`: all super-peers agree on it; or `observed`: this one saw it.
    #[schema(example = "signed")]
    pub kind: String,
    /// When, by the clock of the super-peer that accepted or saw it, in milliseconds since 1970 UTC.
    pub time_ms: u64,
    /// The super-peer that accepted or saw it.
    #[schema(example = "sp1")]
    pub by: String,
    /// What: `joined`, `renewed`, `added`, `updated`, `restricted`, `handed_over`, `deleted`, `left`, `revoked`; `removed`,
    /// `returned`, `refused`.
    #[schema(example = "added")]
    pub action: String,
    /// Who did it; `root` for the holder of the root key.
    #[schema(example = "filial-recife")]
    pub actor: String,
    /// The same as a peer id; none for the root.
    pub actor_id: Option<String>,
    /// The file's or member's name at the time; empty where it is not known.
    #[schema(example = "planilha.csv")]
    pub subject: String,
    /// The file's id, or the member's id in the catalog.
    pub subject_id: Option<String>,
    /// The file's revision.
    pub revision: Option<u64>,
    /// Why, in words.
    pub detail: Option<String>,
}
