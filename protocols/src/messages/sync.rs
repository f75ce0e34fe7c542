//! *sync*: super-peers push catalog entries to each other, and fetch what they missed.
//!
//! An entry's payload is kept as the bytes it came in, under a kind number: a super-peer that does not know a kind, or
//! a newer version of one, still stores and forwards it.
//!
//! What was missed is found without reading the whole catalog: every entry has a [`Position`], positions form a tree of
//! [`BRANCHES`] branches over [`LEVELS`] levels, and super-peers compare what its branches come to, from the root down
//! to the leaves that differ. Then they tell each other the items of these leaves, and exchange the entries behind those
//! that only one of them has.

mod positions;

pub use positions::{
    BRANCHES, Fixed, ITEM_BYTES, Item, LEAVES, LEVELS, POSITION_BYTES, Packed, Position, SUM_BYTES, item_hash,
};

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    cbor,
    clock::HybridTime,
    ids::{ID_BYTES, RecordHash},
    limits::{ADDRESSES_MAX, PAGE_MESSAGE_BYTES, PAGE_TIMEOUT, SYNC_PAGE_ENTRIES},
    rpc::Protocol,
    signing::{Signed, Statement},
};

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Sync;

impl Protocol for Sync {
    const NAME: &'static str = "sync";
    const MAX_REQUEST_BYTES: usize = PAGE_MESSAGE_BYTES;
    const MAX_RESPONSE_BYTES: usize = PAGE_MESSAGE_BYTES;
    const TIMEOUT: Duration = PAGE_TIMEOUT;
    type Request = Request;
    type Response = Response;
}

/// What kind of catalog entry a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(pub u16);

impl Kind {
    /// A file record: [`crate::records::SignedRecord`], under its file id.
    pub const FILE: Self = Self(1);
    /// A member: [`crate::members::Enrolment`], under the hash of its peer id.
    pub const MEMBER: Self = Self(2);
    /// A departure: [`Signed`]`<`[`crate::endings::Departure`]`>`, under the id of the member's own entry.
    pub const DEPARTURE: Self = Self(3);
    /// A revocation: [`crate::endings::RevocationNotice`], under the id of the member's own entry.
    pub const REVOCATION: Self = Self(4);
    /// An event of the audit trail: [`crate::audit::Event`], under the hash of its encoded form.
    pub const EVENT: Self = Self(5);
    /// An audience: [`Signed`]`<`[`crate::audiences::Audience`]`>`, under its id. Shown to its owner only.
    pub const AUDIENCE: Self = Self(6);
    /// One member's keys of an audience: [`Signed`]`<`[`crate::audiences::Wrap`]`>`, under [`crate::audiences::Wrap::id_of`].
    /// Shown to that member and to the owner.
    pub const WRAP: Self = Self(7);
}

/// What the accepting super-peer saw and when. It orders the audit trail and never decides a merge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Who accepted the entry first.
    pub superpeer: PeerId,
    /// Which payload.
    pub payload: RecordHash,
    /// When.
    pub time: HybridTime,
}

impl Statement for Stamp {
    const DOMAIN: &'static str = "quarta/stamp/1";
    const MAX_BYTES: usize = 512;
}

/// A catalog entry as it travels; nothing in it is verified. Prints without its payload, which may hold a file's key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What the payload is.
    pub kind: Kind,
    /// What it is about: entries of one kind and id supersede each other.
    pub id: ByteArray<ID_BYTES>,
    /// The encoded entry.
    pub payload: ByteBuf,
    /// Who accepted it when.
    pub stamp: Signed<Stamp>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("kind", &self.kind)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// Where a listing of the catalog continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The last kind sent.
    pub kind: Kind,
    /// The last id sent.
    pub id: ByteArray<ID_BYTES>,
}

/// How many entries there are and the XOR of their payload hashes: equal for equal catalogs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest {
    /// Entries.
    pub count: u64,
    /// XOR of the hash of every entry's kind, id and payload.
    pub hash: ByteArray<ID_BYTES>,
}

impl Digest {
    /// Accounts for an entry that came or, called again, went.
    pub fn toggle(&mut self, kind: Kind, id: &[u8; ID_BYTES], payload: &[u8], came: bool) {
        self.toggle_hash(&item_hash(kind, id, payload), came);
    }

    /// As [`Self::toggle`], of an entry whose [`item_hash`] is known.
    pub fn toggle_hash(&mut self, hash: &[u8; ID_BYTES], came: bool) {
        self.count = if came { self.count + 1 } else { self.count.saturating_sub(1) };
        for (byte, other) in self.hash.iter_mut().zip(hash) {
            *byte ^= other;
        }
    }
}

/// What one super-peer tells or asks another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Take these.
    Push(#[serde(deserialize_with = "cbor::at_most::<SYNC_PAGE_ENTRIES, _, _>")] Vec<Entry>),
    /// Here I am reached; what does your catalog come to?
    Digest {
        /// The asking super-peer's addresses: how super-peers learn where the others are.
        #[serde(deserialize_with = "cbor::at_most::<ADDRESSES_MAX, _, _>")]
        addresses: Vec<Multiaddr>,
    },
    /// Send me your catalog, after this place.
    Page {
        /// None for the beginning.
        after: Option<Place>,
    },
    /// My catalog comes to this; what does yours? Answered with [`Response::Digest`]. Equal ones tell both that they
    /// miss nothing of each other.
    Compare {
        /// What the asking super-peer's catalog comes to.
        digest: Digest,
        /// The asking super-peer's addresses.
        #[serde(deserialize_with = "cbor::at_most::<ADDRESSES_MAX, _, _>")]
        addresses: Vec<Multiaddr>,
    },
    /// What do the branches of your tree below these prefixes come to?
    Branches {
        /// How many hexadecimal digits each prefix has: 0 for the root's branches, at most [`LEVELS`] - 1.
        level: u8,
        /// The prefixes, each the number that its digits are: at most [`crate::limits::SYNC_BRANCHES_MAX`].
        prefixes: Packed<u16>,
    },
    /// I have these entries in these leaves; which have you, and which do you lack?
    Leaves {
        /// The leaves, ascending.
        leaves: Packed<u16>,
        /// From which place in the first of them on.
        from: u32,
        /// Up to which place in the last of them, inclusive.
        to: u32,
        /// All that the asking super-peer has there, ascending: at most [`crate::limits::SYNC_ITEMS_MAX`] and those that share the
        /// last one's position.
        items: Packed<Item>,
    },
    /// Send me the entries at these positions.
    Entries(
        /// At most [`SYNC_PAGE_ENTRIES`].
        Packed<Position>,
    ),
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To *push*: how many were new, known or superseded, and invalid.
    Taken {
        /// Stored.
        stored: u32,
        /// Not needed.
        known: u32,
        /// Refused.
        invalid: u32,
    },
    /// To *digest*.
    Digest(Digest),
    /// To *page*, in order of kind and id.
    Page {
        /// The entries.
        #[serde(deserialize_with = "cbor::at_most::<SYNC_PAGE_ENTRIES, _, _>")]
        entries: Vec<Entry>,
        /// Where the next page begins; none after the last.
        next: Option<Place>,
    },
    /// The database failed.
    Unavailable,
    /// To *branches*: what the [`BRANCHES`] branches of each prefix come to, prefix by prefix.
    Branches(Packed<u64>),
    /// To *leaves*.
    Leaves {
        /// Where this super-peer has an entry that is not among the asking one's items, ascending: at most
        /// [`crate::limits::SYNC_ITEMS_MAX`].
        offered: Packed<Position>,
        /// A bit for each of the asking one's items, the first in the highest bit: set where this super-peer lacks it
        /// and offers nothing at its position.
        #[serde(with = "serde_bytes")]
        wanted: Vec<u8>,
        /// Where `offered` is full: the position from which on nothing was compared.
        until: Option<Position>,
    },
    /// To *entries*: what stands at those positions.
    Entries {
        /// The entries, fewer than asked for where an entry is there no more or the answer is full.
        #[serde(deserialize_with = "cbor::at_most::<SYNC_PAGE_ENTRIES, _, _>")]
        entries: Vec<Entry>,
        /// How many of the positions this answers, from the first on; at least one.
        answered: u32,
    },
    /// Not now: this super-peer is comparing with another one. To be asked again in a moment.
    Busy,
}
