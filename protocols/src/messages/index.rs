//! *index*: what a node asks of a super-peer.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::{
    inventory::{Page, Position},
    poll::Load,
};
use crate::{
    audiences::{Audience, Wrap},
    cbor,
    credentials::{Role, UnixSeconds},
    ids::{ContentId, FileId},
    limits::{
        ADDRESSES_MAX, MEMBER_PAGE_ENTRIES, PAGE_MESSAGE_BYTES, PAGE_TIMEOUT, RECORD_PAGE_ENTRIES,
        SOURCES_MAX,
    },
    names::{FileName, MemberName},
    records::SignedRecord,
    rpc::Protocol,
    signing::Signed,
};

/// Audiences in one page: of the largest size they fill half a message.
pub const AUDIENCES_PAGE_ENTRIES: usize = 8;
/// Outcomes of one publication.
const PUBLICATIONS_MAX: usize = AUDIENCES_PAGE_ENTRIES + RECORD_PAGE_ENTRIES;
/// Holders named for one file: more than a network needs to see that a file is safe.
pub const HOLDERS_MAX: usize = 512;

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Index;

impl Protocol for Index {
    const NAME: &'static str = "index";
    const MAX_REQUEST_BYTES: usize = PAGE_MESSAGE_BYTES;
    const MAX_RESPONSE_BYTES: usize = PAGE_MESSAGE_BYTES;
    const TIMEOUT: Duration = PAGE_TIMEOUT;
    type Request = Request;
    type Response = Response;
}

/// What a node asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Here is (a page of) my list, how busy I am, and where I am reached.
    Register {
        /// The list or what changed.
        page: Page,
        /// How busy the node is.
        load: Load,
        /// Where it is reached.
        #[serde(deserialize_with = "cbor::at_most::<ADDRESSES_MAX, _, _>")]
        addresses: Vec<Multiaddr>,
    },
    /// Store these records.
    Publish(#[serde(deserialize_with = "cbor::at_most::<RECORD_PAGE_ENTRIES, _, _>")] Vec<SignedRecord>),
    /// Store these audiences and wraps, which belong to this member. They are published before the records that name
    /// them, so that nobody sees a restricted file too early.
    PublishKeys {
        /// Audiences.
        #[serde(deserialize_with = "cbor::at_most::<AUDIENCES_PAGE_ENTRIES, _, _>")]
        audiences: Vec<Signed<Audience>>,
        /// Members' keys.
        #[serde(deserialize_with = "cbor::at_most::<RECORD_PAGE_ENTRIES, _, _>")]
        wraps: Vec<Signed<Wrap>>,
    },
    /// Who holds this file, and how many should?
    Holders {
        /// The file.
        file: FileId,
    },
    /// Which files are there?
    Search {
        /// Letters that occur in the name; all files where empty. At most [`crate::limits::QUERY_MAX_BYTES`].
        query: String,
        /// Files of this owner only.
        owner: Option<MemberName>,
        /// Continue after this place.
        after: Option<Cursor>,
        /// At most that many.
        limit: u32,
    },
    /// Which files does this text name: an id, the beginning of one, a full name, or `owner:name`?
    Resolve {
        /// What a person typed. At most [`crate::names::FILE_NAME_MAX_BYTES`] and a member name.
        reference: String,
    },
    /// Who are the members?
    Members {
        /// Continue after this name.
        after: Option<MemberName>,
    },
    /// From whom can I fetch this content?
    Locate {
        /// The content.
        content: ContentId,
        /// How much of it is wanted, in bytes: what the super-peer accounts to the sources it names.
        wanted_bytes: u64,
        /// Not these: already known, or found bad.
        #[serde(deserialize_with = "cbor::at_most::<SOURCES_MAX, _, _>")]
        except: Vec<PeerId>,
    },
    /// I sign off for now, or on again: everybody's list shows it at once.
    Presence {
        /// Whether I am there.
        online: bool,
    },
    /// I could not reach this member: poll it now rather than later.
    Unreachable {
        /// The member.
        peer: PeerId,
    },
    /// What the sources of a fetch did.
    Report {
        /// The content.
        content: ContentId,
        /// Each source's part.
        #[serde(deserialize_with = "cbor::at_most::<SOURCES_MAX, _, _>")]
        outcomes: Vec<SourceOutcome>,
    },
}

/// A super-peer's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To *register*.
    Registered(Registered),
    /// To *publish* and *publish keys*: one outcome for each record, or for each audience and then each wrap, in order.
    Published(#[serde(deserialize_with = "cbor::at_most::<PUBLICATIONS_MAX, _, _>")] Vec<Publication>),
    /// To *holders*; empty where the file is not known or not for this member.
    Holders {
        /// Those that hold at least some of the present content.
        #[serde(deserialize_with = "cbor::at_most::<HOLDERS_MAX, _, _>")]
        holders: Vec<Holder>,
        /// How many whole copies there should be, the owner's included.
        target: u32,
        /// How many there are at least before any file gets more.
        floor: u32,
    },
    /// To *search* and *resolve*.
    Files {
        /// The files, in name order for a search.
        #[serde(deserialize_with = "cbor::at_most::<RECORD_PAGE_ENTRIES, _, _>")]
        files: Vec<ListedFile>,
        /// Where the next page begins; none after the last.
        next: Option<Cursor>,
    },
    /// To *members*, in name order.
    Members {
        /// The members.
        #[serde(deserialize_with = "cbor::at_most::<MEMBER_PAGE_ENTRIES, _, _>")]
        members: Vec<ListedMember>,
        /// The name after which the next page begins; none after the last.
        next: Option<MemberName>,
    },
    /// To *locate*, best first.
    Sources(#[serde(deserialize_with = "cbor::at_most::<SOURCES_MAX, _, _>")] Vec<Source>),
    /// To *report*, *presence* and *unreachable*.
    Noted,
    /// The request could not be carried out.
    Refused(Refusal),
}

/// How a registration went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registered {
    /// The list stands at this position with this super-peer.
    At(Position),
    /// The page was taken; more of the full list must follow.
    Continue,
    /// The page does not continue what this super-peer has: send the full list.
    SendAll,
}

/// What became of a published record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Publication {
    /// Stored, durably.
    Stored,
    /// This very record was there already.
    Known,
    /// A record that supersedes it is there.
    Superseded,
    /// Not a valid record, or not one that this member may publish.
    Invalid(String),
    /// The owner has as many files as a member may have.
    TooMany,
}

/// A place in the list of files: name, then id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The last name shown.
    pub name: FileName,
    /// The last id shown.
    pub file: FileId,
}

/// A file as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// The record, to be verified by the reader.
    pub record: SignedRecord,
    /// The owner's name.
    pub owner: MemberName,
    /// Members that hold all of it and are available now.
    pub holders: u32,
}

/// How a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Answers; offered as a source.
    Online,
    /// Missed a poll or lost its connection a moment ago; not offered.
    Suspect,
    /// Does not answer, or has signed off; not on the available list.
    Offline,
    /// Has left for good.
    Left,
    /// Was expelled: nobody lets it in any more.
    Revoked,
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Online => "online",
            Self::Suspect => "suspect",
            Self::Offline => "offline",
            Self::Left => "left",
            Self::Revoked => "revoked",
        })
    }
}

/// A member as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMember {
    /// The member.
    pub peer: PeerId,
    /// Its name.
    pub name: MemberName,
    /// Node or super-peer.
    pub role: Role,
    /// How it is, as this super-peer sees it.
    pub state: MemberState,
    /// When it last answered; none where never since this super-peer started.
    pub last_seen: Option<UnixSeconds>,
    /// Its software's version; empty where unknown.
    pub version: String,
    /// Files in its library.
    pub files: u64,
    /// Bytes in its library and vault.
    pub stored_bytes: u64,
    /// Bytes left on its disk.
    pub free_bytes: u64,
    /// Where it can be reached.
    #[serde(deserialize_with = "cbor::at_most::<ADDRESSES_MAX, _, _>")]
    pub addresses: Vec<Multiaddr>,
    /// Whether this super-peer is connected with it through a relay only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relayed: bool,
}

/// A member that holds a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The member.
    pub peer: PeerId,
    /// Its name.
    pub name: MemberName,
    /// How it is.
    pub state: MemberState,
    /// Whether it keeps a sealed replica, rather than a file in its library.
    pub vault: bool,
    /// Whether it holds everything.
    pub complete: bool,
}

/// A source to fetch from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The holder.
    pub peer: PeerId,
    /// Its name.
    pub name: MemberName,
    /// Where it is reached.
    #[serde(deserialize_with = "cbor::at_most::<ADDRESSES_MAX, _, _>")]
    pub addresses: Vec<Multiaddr>,
    /// The share of the bytes it should carry, in thousandths; all shares together are about 1000.
    pub weight: u32,
    /// Whether it holds everything.
    pub complete: bool,
}

/// What one source did in a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceOutcome {
    /// The source.
    pub peer: PeerId,
    /// Verified plaintext bytes it carried.
    pub bytes: u64,
    /// For how long bytes were under way from it, in milliseconds.
    pub busy_ms: u64,
    /// Why it was dropped, if it was.
    pub fault: Option<Fault>,
}

/// Why a source was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Could not be reached.
    Unreachable,
    /// Sent bytes that are not the content's.
    WrongBytes,
    /// Sent nothing, or next to nothing, for too long.
    Stalled,
    /// Does not hold what it was listed for.
    NotHeld,
    /// Broke off.
    BrokeOff,
}

impl Fault {
    /// A word for metrics and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::WrongBytes => "wrong_bytes",
            Self::Stalled => "stalled",
            Self::NotHeld => "not_held",
            Self::BrokeOff => "broke_off",
        }
    }
}

/// Why a request is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The list cannot be true.
    #[error("the list is not possible")]
    ImpossibleList,
    /// A text above its length.
    #[error("the text is too long")]
    TooLong,
    /// The super-peer's database failed.
    #[error("the super-peer could not read or write its database")]
    Unavailable,
    /// Too many requests of this member are under way.
    #[error("too many requests at once")]
    Busy,
}
