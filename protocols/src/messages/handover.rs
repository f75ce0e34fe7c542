//! *handover*: a file is offered to its next owner, who takes it over by signing its record.
//!
//! The owner so far (or the root, for a member that is gone) signs a [`Link`] to the new owner and asks until that one
//! has a verified copy of the file and gives back the record that it has signed. Before that the file belongs to whom it
//! belonged; from then on whoever sees the record sees the new owner. The new owner publishes its record by itself, so
//! either side may go away half-way: what was signed stays, and asking again goes on from there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    audiences::Rule,
    limits::{QUICK_TIMEOUT, SMALL_MESSAGE_BYTES},
    records::{Link, RECORD_MAX_BYTES, SignedRecord},
    rpc::Protocol,
    signing::Signed,
};

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Handover;

impl Protocol for Handover {
    const NAME: &'static str = "handover";
    const MAX_REQUEST_BYTES: usize = 2 * RECORD_MAX_BYTES + 8 * SMALL_MESSAGE_BYTES;
    const MAX_RESPONSE_BYTES: usize = RECORD_MAX_BYTES + SMALL_MESSAGE_BYTES;
    const TIMEOUT: Duration = QUICK_TIMEOUT;
    type Request = Request;
    type Response = Response;
}

/// "This file shall be yours."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The file's record as it stands.
    pub record: SignedRecord,
    /// The hand-over, signed by the owner so far or by the root.
    pub link: Signed<Link>,
    /// Who may read a restricted file, so that the new owner hides it from the same members; none for an open one.
    pub rule: Option<Rule>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Taken over: the record with the link, signed by the new owner.
    Taken(SignedRecord),
    /// It is fetching the file first; ask again.
    Fetching {
        /// Bytes that it has, verified.
        have_bytes: u64,
    },
    /// It does not take the file.
    Refused(Refusal),
}

/// Why a file is not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The link or the record is not genuine, or they do not belong together.
    #[error("the offer is not valid")]
    Invalid,
    /// It knows a later record of the file.
    #[error("the file has changed meanwhile")]
    Outdated,
    /// It may not read the file.
    #[error("that branch may not read the file")]
    MayNotRead,
    /// It is leaving the network itself.
    #[error("that branch is leaving the network itself")]
    Leaving,
    /// Its disk has no room for the file.
    #[error("that branch has no room for the file")]
    NoRoom,
    /// Somebody there has stopped fetching it.
    #[error("somebody at that branch has stopped fetching it")]
    Declined,
    /// It takes over too many files already: ask again later.
    #[error("that branch is taking over too many files at once")]
    Busy,
    /// It could not read or write its database.
    #[error("that branch could not read or write its database")]
    Unavailable,
}
