//! What the node's HTTP API says, as types: the same that its commands print with `--json`.

pub use crate::library::Defect;
pub use crate::throttle::timetable::{Period, Plan, Rates};
pub use quarta_daemon::http::Member;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /api/v1/status`: how this node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The branch's name.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
    /// The network's id.
    pub network: String,
    /// This software's version.
    pub version: String,
    /// Whether everything is as it should be.
    pub healthy: bool,
    /// What is not as it should be, the most fundamental first, each in words as "why; what to do".
    pub problems: Vec<String>,
    /// Super-peers this node knows.
    pub superpeers: Vec<SuperpeerStatus>,
    /// Files in the library.
    pub files: u64,
    /// Bytes in library and vault.
    pub stored_bytes: u64,
    /// What this node keeps for others, sealed.
    #[serde(default)]
    pub vault: VaultStatus,
    /// Bytes left on the disk that holds the data folder.
    pub free_bytes: u64,
    /// Transfers under way to others.
    pub active_uploads: u32,
    /// Transfers under way to here.
    pub active_downloads: u32,
    /// Sealed bytes sent to others since the start.
    pub served_bytes: u64,
    /// Where this node listens for members.
    pub listen: Vec<String>,
    /// When the credential ends, in seconds since 1970 UTC. It is renewed long before.
    pub credential_expires: u64,
    /// Whether this branch has signed off, and stays away from the network until it is told to connect.
    #[serde(default)]
    pub signed_off: bool,
    /// The daemon's process id.
    pub pid: u32,
}

/// The vault: sealed replicas that this node keeps for others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VaultStatus {
    /// Whole replicas.
    pub replicas: u64,
    /// Their bytes on the disk.
    pub bytes: u64,
    /// Replicas that are being fetched or repaired, or wait for that.
    pub wanted: u64,
    /// What the vault may take, in bytes; none for as much as the disk has.
    pub quota_bytes: Option<u64>,
}

/// `GET /api/v1/limits`, `PUT /api/v1/limits`: what transfers may take of the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// What is set.
    pub set: Plan,
    /// What of it holds now.
    pub now: Rates,
}

/// `POST /api/v1/connect`, `POST /api/v1/disconnect`: how this branch stands to the network now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Presence {
    /// The branch's name.
    pub name: String,
    /// Whether it has signed off.
    pub signed_off: bool,
}

/// `POST /api/v1/unregister`: leave the network for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnregisterRequest {
    /// The branch's own name: a confirmation that this branch is meant.
    #[serde(default)]
    #[schema(example = "filial-saindo")]
    pub name: String,
    /// Whether to leave also where nobody takes some of its files over, which have no owner any more then.
    #[serde(default)]
    pub abandon: bool,
}

/// A branch that has left for good. Its daemon stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unregistered {
    /// The name it had.
    pub name: String,
    /// How many files have no owner any more.
    pub abandoned_files: u64,
    /// Who owns the others now, in name order.
    #[serde(default)]
    pub new_owners: Vec<NewOwner>,
}

/// A branch that files were handed over to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewOwner {
    /// Its name.
    pub name: String,
    /// How many.
    pub files: u64,
}

/// `POST /api/v1/files/{file}/owner`: give a file to another branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveRequest {
    /// The next owner's name or peer id.
    #[schema(example = "filial-recife")]
    pub member: String,
}

/// How far a hand-over is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GivenState {
    /// The file belongs to its new owner.
    HandedOver,
    /// The next owner is asked, or fetches the file first. It goes on by itself, also after a restart.
    Offered,
}

/// A file that was given away, or is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Given {
    /// The file's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The new or next owner's name.
    pub owner: String,
    /// How far it is.
    pub state: GivenState,
    /// The file's size, in bytes.
    pub size_bytes: u64,
    /// What the next owner has of it, in verified bytes.
    pub have_bytes: u64,
    /// Whether the next owner was reached when it was asked last.
    pub reachable: bool,
}

/// One super-peer, as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SuperpeerStatus {
    /// Its name; its peer id where it has not been heard yet.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
    /// Whether it is connected and has verified this node.
    pub connected: bool,
    /// Whether it has this node's present list.
    pub registered: bool,
}

/// `GET /api/v1/members`: a page of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberPage {
    /// The members, in name order.
    pub members: Vec<Member>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
    /// Whether no super-peer answered and this is what the node last heard.
    #[serde(default)]
    pub stale: bool,
}

/// `GET /api/v1/files`: a page of files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FilePage {
    /// The files, in name order.
    pub files: Vec<File>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
    /// Whether no super-peer answered and this is what the node last heard.
    pub stale: bool,
}

/// A file as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct File {
    /// Its id.
    pub id: String,
    /// Its name at its owner's.
    pub name: String,
    /// The owner's name.
    pub owner: String,
    /// The owner's peer id.
    pub owner_id: String,
    /// Whether the owner has left or was revoked without handing the file over. It can be fetched as any; who changes or
    /// deletes it next is whom the root's holder assigns it to.
    #[serde(default)]
    pub orphaned: bool,
    /// The branch that this own file is being handed over to, if it is: nothing else can be changed of it meanwhile.
    #[serde(default)]
    pub offered_to: Option<String>,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its SHA-256, as `sha256sum` prints it; none where this node may not read it.
    pub sha256: Option<String>,
    /// Its media type, where known.
    pub media_type: Option<String>,
    /// Whether its owner hides it from somebody.
    #[serde(default)]
    pub restricted: bool,
    /// The content that holders have now.
    pub content: String,
    /// Counts the owner's changes, from 1.
    pub revision: u64,
    /// Available members that hold all of it; none where no super-peer answered.
    pub holders: Option<u32>,
    /// Where it lies on this machine, if it does.
    pub path: Option<String>,
    /// What is wrong with the copy on this machine, if anything is known to be: it is offered to nobody then.
    #[serde(default)]
    pub defect: Option<Defect>,
}

/// Who may not see a file of this branch, or who alone may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blacklist {
    /// The file's id.
    pub file: String,
    /// Its name.
    pub name: String,
    /// Counts the changes of the file, from 1.
    pub revision: u64,
    /// Whether the members are those that alone may see it, rather than those that may not.
    pub only: bool,
    /// The members, in name order.
    pub members: Vec<Listed>,
    /// Whether a super-peer has taken note of the file as it is; otherwise the list takes effect as soon as one does.
    pub announced: bool,
}

/// A member on a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listed {
    /// Its name; its peer id where that is not known any more.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
}

/// `GET /api/v1/files/blacklist`: a page of the restricted files of this branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlacklistPage {
    /// The lists, in the order of the files' ids.
    pub blacklists: Vec<Blacklist>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
}

/// `POST /api/v1/files/blacklist`: hide a file from further members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HideRequest {
    /// The file: an id, the beginning of one, a full name, or `owner:name`.
    #[schema(example = "fotos/praia.jpg")]
    pub file: String,
    /// Names or peer ids of nodes.
    #[schema(min_items = 1, max_items = 1024, example = json!(["filial-recife"]))]
    pub members: Vec<String>,
}

/// `PUT /api/v1/files/blacklist/{fileId}`: the whole list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlacklistRequest {
    /// Names or peer ids of nodes.
    #[schema(max_items = 1024, example = json!(["filial-recife"]))]
    pub members: Vec<String>,
    /// Whether these alone may see it, rather than all others.
    #[serde(default)]
    pub only: bool,
}

/// `GET /api/v1/files/{file}/holders`: who holds a file, and whether there are enough copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replication {
    /// Whole copies with members that answer, the owner's included.
    pub copies: u32,
    /// How many there should be.
    pub target: u32,
    /// How many there are at least before any file gets more.
    pub floor: u32,
    /// Whether there are as many as there should be.
    pub at_target: bool,
    /// Who holds at least some of it, in name order.
    pub holders: Vec<FileHolder>,
}

/// A member that holds a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileHolder {
    /// Its name.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
    /// How it is, as in the list of members.
    pub state: String,
    /// How it holds the file.
    pub keeps: Keeps,
    /// Whether it holds everything.
    pub complete: bool,
}

/// How a member holds a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keeps {
    /// As a file in its library.
    Library,
    /// Sealed, for others.
    Vault,
}

/// `POST /api/v1/files`: what was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "there is one for each upload, and it is written at once")]
pub enum Uploaded {
    /// The file that was the body.
    One(File),
    /// The files of a form.
    Several {
        /// In the form's order.
        files: Vec<File>,
    },
}

/// `DELETE /api/v1/files/{file}`: a file that is deleted, everywhere and for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// Its id, which is never used again.
    pub id: String,
    /// The name it had.
    pub name: String,
    /// The revision that deletes it.
    pub revision: u64,
    /// Whether a super-peer has taken note; otherwise one is told as soon as it answers.
    pub announced: bool,
}

/// `GET /api/v1/trash`: a page of the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrashPage {
    /// What is in it, the latest first.
    pub entries: Vec<TrashEntry>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
}

/// A file in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrashEntry {
    /// Its number in the trash, which is never used again.
    pub number: i64,
    /// The id of the file that it is an old version of.
    pub id: String,
    /// The file's name at its owner's.
    pub name: String,
    /// The owner's name.
    pub owner: String,
    /// Whether it was this branch's own.
    pub own: bool,
    /// Where it lay, below the library folder.
    pub path: String,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its SHA-256, where known.
    pub sha256: Option<String>,
    /// Which revision of the file it is.
    pub revision: u64,
    /// Why it is here: `replaced` by its owner's update, `deleted` by its owner, `damaged` by the disk.
    pub reason: String,
    /// Since when, in milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// Until when it is kept, likewise.
    pub until_ms: u64,
}

/// `POST /api/v1/trash/{number}/restore`: a file that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restored {
    /// The entry as it was.
    pub entry: TrashEntry,
    /// Where its file lies now. It is shared with nobody.
    pub path: String,
}

/// `DELETE /api/v1/trash`: what was removed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Emptied {
    /// How many files.
    pub files: u64,
}

/// `GET /api/v1/events`: what happened. The variant's name is the event's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum NodeEvent {
    /// A transfer's state has changed, or its progress.
    Transfer(Box<Transfer>),
    /// A file is in the library and offered to others: an own one, or one that was fetched.
    FileAdded {
        /// Its id.
        file: String,
        /// Its name at its owner's.
        name: String,
        /// The owner's name.
        owner: String,
    },
    /// A file's copy here is offered to nobody any more: it has changed on the disk, or is gone.
    FileWithdrawn {
        /// Its id.
        file: String,
    },
    /// Files in the network are new, changed or deleted: listings that are shown are to be read again.
    FilesChanged {
        /// How many.
        files: usize,
    },
    /// A member has come, gone, or left for good.
    MemberChanged {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
        /// How it is now, as in the list of members.
        state: String,
    },
    /// A super-peer has let this node in.
    SuperpeerConnected {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
    },
    /// A super-peer is not connected any more.
    SuperpeerLost {
        /// Its name.
        name: String,
        /// Its peer id.
        peer_id: String,
    },
}

impl NodeEvent {
    /// Whether it tells of this file.
    pub fn names(&self, id: &str) -> bool {
        match self {
            Self::Transfer(transfer) => transfer.file == id,
            Self::FileAdded { file, .. } | Self::FileWithdrawn { file } => file == id,
            Self::FilesChanged { .. }
            | Self::MemberChanged { .. }
            | Self::SuperpeerConnected { .. }
            | Self::SuperpeerLost { .. } => false,
        }
    }

    /// The name of the kind of event, as `event:` has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Transfer(_) => "transfer",
            Self::FileAdded { .. } => "file_added",
            Self::FileWithdrawn { .. } => "file_withdrawn",
            Self::FilesChanged { .. } => "files_changed",
            Self::MemberChanged { .. } => "member_changed",
            Self::SuperpeerConnected { .. } => "superpeer_connected",
            Self::SuperpeerLost { .. } => "superpeer_lost",
        }
    }
}

/// `POST /api/v1/local/add`: add files that lie on this machine. Only over the local socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// Absolute paths of files and folders.
    #[schema(min_items = 1, max_items = 10_000, example = json!(["/home/ana/plan.csv"]))]
    pub paths: Vec<String>,
    /// The name to give; only with one path. A folder's files get it as their folder.
    pub name: Option<String>,
    /// Share where it lies instead of copying.
    #[serde(default)]
    pub in_place: bool,
    /// Names of members that are not to see them.
    #[serde(default)]
    #[schema(max_items = 1024)]
    pub hide_from: Vec<String>,
    /// Names of the only members that are to see them. Not together with `hide_from`.
    #[serde(default)]
    #[schema(max_items = 1024)]
    pub only: Option<Vec<String>>,
}

/// A line of the answer to an add.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AddEvent {
    /// Bytes of the present file sealed so far.
    Progress {
        /// The source path.
        path: String,
        /// Bytes done.
        done_bytes: u64,
        /// Bytes in all.
        size_bytes: u64,
    },
    /// A file is shared.
    Added {
        /// The source path.
        path: String,
        /// The file.
        file: File,
    },
    /// A file is not shared.
    Failed {
        /// The source path.
        path: String,
        /// Why.
        why: String,
        /// What to do next.
        next_step: String,
    },
}

/// `POST /api/v1/verify`: which copies on this machine to check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Files as in `GET /api/v1/files/{file}`: all copies where empty.
    #[serde(default)]
    pub files: Vec<String>,
}

/// A line of the answer to a verification; the last is `Summary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VerifyEvent {
    /// How far it is, at most ten times a second.
    Progress {
        /// The file being read.
        name: String,
        /// Bytes checked, of all files.
        done_bytes: u64,
        /// Bytes to check in all.
        size_bytes: u64,
    },
    /// A copy was checked.
    Checked(Checked),
    /// All were.
    Summary {
        /// Copies that are what they should be.
        sound: u64,
        /// Copies that are not.
        defective: u64,
    },
    /// It could not go on.
    Failed {
        /// Why.
        why: String,
        /// What to do next.
        next_step: String,
    },
}

/// What the check of one copy found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checked {
    /// The file's id.
    pub id: String,
    /// Its name at its owner's.
    pub name: String,
    /// The owner's name.
    pub owner: String,
    /// Where the copy lies.
    pub path: String,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// What is wrong with it; none where it is what it should be.
    pub defect: Option<Defect>,
    /// In words, why it is not sound; empty where it is.
    pub why: String,
    /// What to do next; empty where it is sound.
    pub next_step: String,
}

/// `POST /api/v1/files/{file}/fetch`: a line of the answer; the last is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FetchEvent {
    /// How far it is.
    Progress(Transfer),
    /// The file is here, complete and verified.
    Done(Transfer),
    /// It is not.
    Failed {
        /// How far it came.
        transfer: Transfer,
        /// Why.
        why: String,
        /// What to do next.
        next_step: String,
    },
}

/// `GET /api/v1/transfers`: a page of transfers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TransferPage {
    /// The transfers, the latest first.
    pub transfers: Vec<Transfer>,
    /// Continue with `cursor=` this; none after the last page.
    pub next: Option<String>,
}

/// How a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Waits for its turn; four move bytes at a time.
    Queued,
    /// Under way.
    Active,
    /// No branch that holds the file is available; it goes on by itself once one is.
    Waiting,
    /// Stopped by a person until it is resumed.
    Paused,
    /// Complete and verified.
    Completed,
    /// Ended without the file. What has arrived is kept for a while, for the next attempt.
    Failed,
    /// Stopped by a person for good.
    Cancelled,
}

impl TransferState {
    /// Whether it goes on without anybody's doing, so that more is to be heard of it soon.
    pub const fn is_going_on(self) -> bool {
        matches!(self, Self::Queued | Self::Active)
    }
}

/// A fetch, under way or ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    /// Counts this node's transfers.
    pub id: u64,
    /// The file's id.
    pub file: String,
    /// Its name at its owner's.
    pub name: String,
    /// The owner's name.
    pub owner: String,
    /// How it stands.
    pub state: TransferState,
    /// Bytes in all.
    pub size_bytes: u64,
    /// Verified bytes here.
    pub done_bytes: u64,
    /// Those of them that were here already when it last began or went on.
    #[serde(default)]
    pub resumed_bytes: u64,
    /// The rate since then, in bytes a second.
    pub bytes_per_second: f64,
    /// When it began, in milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// When it ended, likewise.
    pub ended_ms: Option<u64>,
    /// Where the file is, once complete.
    pub path: Option<String>,
    /// The SHA-256 computed over the whole file, once complete.
    pub sha256: Option<String>,
    /// Which revision of the file it brings; none where that is not remembered any more.
    #[serde(default)]
    pub revision: Option<u64>,
    /// What has happened to it that is worth telling, e.g. that the file was updated while it was fetched.
    #[serde(default)]
    pub notice: Option<String>,
    /// Why it failed, or waits.
    pub error: Option<String>,
    /// What to do next, while the failure is fresh.
    pub next_step: Option<String>,
    /// Who sent what since it last began or went on.
    pub sources: Vec<TransferSource>,
}

/// One source's part in a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferSource {
    /// The holder's name.
    pub name: String,
    /// Its peer id.
    pub peer_id: String,
    /// `tcp`, `quic` or `relay`; none where nothing came.
    pub transport: Option<String>,
    /// Verified bytes from it.
    pub bytes: u64,
    /// For how long it was asked, in milliseconds.
    pub busy_ms: u64,
    /// Why it was dropped, if it was: `unreachable`, `wrong_bytes`, `stalled`, `not_held`, `broke_off`.
    pub fault: Option<String>,
}
