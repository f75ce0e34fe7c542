//! The catalog: every file record and every member, durable and signed.
//!
//! What it guarantees:
//!
//! - **Nothing unverified is stored.** Records, enrolments and stamps are checked on their way in, whoever brings them.
//! - **Acknowledged means on the disk.** A call returns after its commit. A call that fails leaves nothing behind, neither
//!   in the database nor in [`Catalog::digest`].
//! - **All catalogs converge.** Of two entries about one thing the same one stays everywhere, in whatever order and how
//!   often they arrive, so that equal sets of entries give equal digests.
//! - **What this version does not know it still passes on**, byte for byte and bounded.
//!
//! One [`Catalog`] writes, on a thread of its own; any number of [`Reader`]s search beside it and never wait for it. A
//! batch is one transaction, so that five hundred records cost one sync of the disk. All content stands in the table
//! `entries`; the other tables derive from it within the same transaction, and are what searches read.
//!
//! The [`Stamp`](quarta_protocols::messages::sync::Stamp) beside each entry says which super-peer accepted it first, and
//! when. It is for people who ask what happened, and is not part of the digest.

mod error;
#[cfg(test)]
pub(crate) mod fixtures;
mod fold;
mod pages;
mod payload;
mod positions;
mod reader;
mod schema;
mod search;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};

use libp2p::{PeerId, identity::Keypair};
use quarta_protocols::{
    cbor,
    clock::{HybridClock, HybridTime},
    credentials::{Membership, Role, Trust, UnixSeconds},
    ids::{ContentId, FileId},
    limits::FILES_PER_MEMBER_MAX,
    members::{Enrolled, Enrolment, EnrolmentError},
    messages::{
        index::Publication,
        sync::{Digest, Entry, Kind, Place},
    },
    records::{Record, SignedRecord},
};
use rusqlite::Connection;
use serde_bytes::ByteArray;

pub use self::{
    error::CatalogError,
    reader::{FilePage, ID_PREFIX_MIN_DIGITS, MATCHES_MAX, Member, MemberPage, Reader, StoredFile},
};
use self::{
    payload::{Key, Payload, Verified, verify_stamp},
    write::{Merged, Totals, Write},
};
use crate::reconciliation::Trie;

/// The writing side of the catalog. There must be one only per database; the data folder's lock sees to that.
pub struct Catalog {
    conn: Connection,
    path: PathBuf,
    trust: Trust,
    own: Keypair,
    clock: HybridClock,
    totals: Totals,
}

/// What became of a published record.
#[derive(Debug, Clone)]
pub struct Published {
    /// The answer for the publisher.
    pub outcome: Publication,
    /// What the other super-peers are to be told, where the record is new.
    pub entry: Option<Entry>,
}

/// What became of another super-peer's entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Stored.
    pub stored: u32,
    /// Not needed: the same or a superseding one is here.
    pub known: u32,
    /// Refused: not valid by themselves, or too many of an unknown kind.
    pub invalid: u32,
    /// Not taken yet: stamped by a super-peer that this catalog does not know. They come again with the next
    /// reconciliation, which sends members first.
    pub deferred: u32,
    /// Of those that were not needed: where something else stands here that takes precedence, and the other super-peer
    /// has to be told.
    pub superseded: Vec<Place>,
    /// What changed here, in order.
    pub applied: Vec<Applied>,
}

/// A change of the catalog that came from another super-peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// A file is new or another than before.
    File {
        /// The file.
        file: FileId,
        /// Its present owner.
        owner: PeerId,
        /// Its present content; none where it is deleted.
        content: Option<ContentId>,
    },
    /// A member is new or has a newer credential.
    Member(Membership),
    /// Something of a kind that this version does not know.
    Unknown(Kind),
}

/// Why a member is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The enrolment does not verify.
    #[error(transparent)]
    Invalid(#[from] EnrolmentError),
    /// The name belongs to another member.
    #[error("the name belongs to another member; choose another")]
    NameTaken,
    /// It could not be stored.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Catalog {
    /// Opens the catalog of this network, creating it where there is none. The folder must exist.
    ///
    /// Reads it through once, to know its digest and that every entry can be read: about two seconds for a million files.
    ///
    /// # Errors
    /// [`CatalogError`]; a file that is newer, damaged or somebody else's is left as it is.
    pub fn open(path: &Path, trust: Trust, own: Keypair) -> Result<Self, CatalogError> {
        let conn = schema::open(path, &trust.network)?;
        let clock = HybridClock::after(schema::latest_moment(&conn)?);
        let totals = Totals::of(&conn)?;
        Ok(Self { conn, path: path.to_owned(), trust, own, clock, totals })
    }

    /// A connection for searching, to be used on another thread.
    ///
    /// # Errors
    /// [`CatalogError`] where the database cannot be opened once more.
    pub fn reader(&self) -> Result<Reader, CatalogError> {
        schema::open_reader(&self.path).map(Reader::over)
    }

    /// What the network's members are verified against.
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What the catalog comes to: equal for equal catalogs.
    pub const fn digest(&self) -> Digest {
        self.totals.digest
    }

    /// What the entries below each prefix of positions come to, at the moment of [`Self::digest`].
    pub fn trie(&self) -> Trie {
        self.totals.trie.clone()
    }

    /// Keeps when this catalog was last compared with another super-peer's.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn keep_comparison(&mut self, at: UnixSeconds) -> Result<(), CatalogError> {
        schema::keep_comparison(&self.conn, at.0)
    }

    /// When that was, by this machine's clock then; none where it never was.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn last_comparison(&self) -> Result<Option<UnixSeconds>, CatalogError> {
        Ok(schema::last_comparison(&self.conn)?.map(UnixSeconds))
    }

    /// How many entries of a kind there are; of files, deleted ones included.
    pub fn count(&self, kind: Kind) -> u64 {
        self.totals.kinds.get(&kind).copied().unwrap_or(0)
    }

    /// Stores records as the member that owns them; one outcome for each, in order, all durable on return.
    ///
    /// `publisher` is the verified credential of the connection that the records came over. It must be in the catalog:
    /// [`Self::meet`] it when it presents itself.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails: then none of the records is stored.
    pub fn publish(
        &mut self,
        publisher: &Membership,
        records: Vec<SignedRecord>,
        wall_ms: u64,
    ) -> Result<Vec<Published>, CatalogError> {
        let mut clock = self.clock;
        let mut write = Write::begin(&mut self.conn, &self.totals)?;
        let known = write.role_of(&publisher.peer)?.is_some();
        let mut outcomes = Vec::with_capacity(records.len());
        for record in records {
            let bytes = cbor::to_vec(&record);
            let checked = match check_publication(&write, publisher, known, record, &bytes, &self.trust)? {
                Ok(record) => record,
                Err(outcome) => {
                    outcomes.push(Published { outcome, entry: None });
                    continue;
                }
            };
            let context = Context { trust: &self.trust, own: &self.own, now: clock.tick(wall_ms) };
            let new = Verified::stamped(Key::of_file(&checked), Payload::File(checked), bytes, &context);
            outcomes.push(match write.merge(&new, &self.trust)? {
                Merged::Stored => Published { outcome: Publication::Stored, entry: Some(new.to_entry()) },
                Merged::Known => Published { outcome: Publication::Known, entry: None },
                Merged::Superseded => Published { outcome: Publication::Superseded, entry: None },
                Merged::NoRoom => Published { outcome: Publication::TooMany, entry: None },
            });
        }
        self.totals = write.commit(clock.tick(wall_ms))?;
        self.clock = clock;
        Ok(outcomes)
    }

    /// Takes entries that another super-peer pushed or paged; what is stored is durable on return.
    ///
    /// `from` is the verified credential of the connection that they came over. Duplicates and any order are harmless.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails: then none of the entries is stored.
    pub fn take(
        &mut self,
        from: &Membership,
        mut entries: Vec<Entry>,
        wall_ms: u64,
    ) -> Result<Taken, CatalogError> {
        let mut taken = Taken::default();
        if from.role != Role::Superpeer {
            taken.invalid = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            return Ok(taken);
        }
        // Members first: the others may be stamped by one of them.
        entries.sort_by_key(|entry| entry.kind != Kind::MEMBER);
        let mut clock = self.clock;
        let mut write = Write::begin(&mut self.conn, &self.totals)?;
        for entry in entries {
            let key = Key { kind: entry.kind, id: *entry.id };
            let decided_by_payload = matches!(key.kind, Kind::FILE | Kind::MEMBER);
            if decided_by_payload && write.bytes(&key)?.is_some_and(|stored| stored == *entry.payload) {
                taken.known += 1;
                continue;
            }
            let verified = verify_stamp(&entry, &self.trust).and_then(|stamp| {
                let payload = Payload::verify(&key, &entry.payload, &self.trust).ok()?;
                Some((stamp, payload))
            });
            let Some((stamp, payload)) = verified else {
                taken.invalid += 1;
                continue;
            };
            let vouched = stamp.superpeer == from.peer
                || stamp.superpeer == self.own.public().to_peer_id()
                || vouches_for_itself(&payload, &stamp.superpeer)
                || write.role_of(&stamp.superpeer)? == Some(Role::Superpeer);
            if !vouched {
                taken.deferred += 1;
                continue;
            }
            let bytes = entry.payload.into_vec();
            let new = Verified { key, payload, bytes, stamp: entry.stamp, time: stamp.time };
            match write.merge(&new, &self.trust)? {
                Merged::Stored => {
                    taken.stored += 1;
                    clock.observe(stamp.time, wall_ms);
                    taken.applied.push(Applied::of(&new));
                }
                Merged::Known => taken.known += 1,
                Merged::Superseded => {
                    taken.known += 1;
                    taken.superseded.push(Place { kind: new.key.kind, id: ByteArray::new(new.key.id) });
                }
                Merged::NoRoom => taken.invalid += 1,
            }
        }
        // The tick is later than all that was observed, and makes that outlast a restart.
        self.totals = write.commit(clock.tick(wall_ms))?;
        self.clock = clock;
        Ok(taken)
    }

    /// Admits a member under a name that no other member has. The same enrolment again changes nothing.
    ///
    /// Gives what the other super-peers are to be told: the entry that stands in the catalog now.
    ///
    /// # Errors
    /// [`EnrolError`]; then nothing is stored.
    pub fn enrol(&mut self, enrolment: Enrolment, wall_ms: u64) -> Result<Entry, EnrolError> {
        let enrolled = enrolment.verify(&self.trust)?;
        self.transact(wall_ms, |write, context| {
            if write.is_taken(&enrolled.membership.name, &enrolled.membership.peer)? {
                return Err(EnrolError::NameTaken);
            }
            Ok(store_member(write, enrolled, context)?.0)
        })
    }

    /// Takes note of a member that another super-peer admitted and that presents itself here, before that super-peer's
    /// push has arrived, or with a renewed credential. `None` where the catalog knew as much.
    ///
    /// # Errors
    /// [`EnrolError`], never for the name: whoever holds a valid credential is a member.
    pub fn meet(&mut self, enrolment: Enrolment, wall_ms: u64) -> Result<Option<Entry>, EnrolError> {
        let enrolled = enrolment.verify(&self.trust)?;
        self.transact(wall_ms, |write, context| {
            let (entry, merged) = store_member(write, enrolled, context)?;
            Ok((merged == Merged::Stored).then_some(entry))
        })
    }

    /// Runs one transaction: what `work` did lasts if and only if it returns `Ok`.
    pub(crate) fn transact<T, E: From<CatalogError>>(
        &mut self,
        wall_ms: u64,
        work: impl FnOnce(&mut Write<'_>, &Context<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut clock = self.clock;
        let now = clock.tick(wall_ms);
        let mut write = Write::begin(&mut self.conn, &self.totals)?;
        let done = work(&mut write, &Context { trust: &self.trust, own: &self.own, now })?;
        self.totals = write.commit(now)?;
        self.clock = clock;
        Ok(done)
    }

    /// Writes a page as it is, to find out whether the disk takes it.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn probe(&self) -> Result<(), CatalogError> {
        schema::probe(&self.conn)
    }

    /// The connection, for reading tables that are not the catalog's own.
    pub(crate) const fn connection(&self) -> &Connection {
        &self.conn
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a transaction stamps with.
pub(crate) struct Context<'a> {
    pub(crate) trust: &'a Trust,
    pub(crate) own: &'a Keypair,
    pub(crate) now: HybridTime,
}

impl Applied {
    fn of(new: &Verified) -> Self {
        match &new.payload {
            Payload::File(record) => Self::File {
                file: record.file(),
                owner: record.owner(),
                content: record.entry().map(|entry| entry.content),
            },
            Payload::Member(enrolled) => Self::Member(enrolled.membership.clone()),
            Payload::Unknown => Self::Unknown(new.key.kind),
        }
    }
}

/// Decides whether a member may store this record, before it is merged.
fn check_publication(
    write: &Write<'_>,
    publisher: &Membership,
    known: bool,
    record: SignedRecord,
    bytes: &[u8],
    trust: &Trust,
) -> Result<Result<Box<Record>, Publication>, CatalogError> {
    let invalid = |why: String| Ok(Err(Publication::Invalid(why)));
    let record = match Record::verify(record, trust) {
        Ok(record) => Box::new(record),
        Err(error) => return invalid(error.to_string()),
    };
    if record.owner() != publisher.peer {
        return invalid("only a file's owner may change it".to_owned());
    }
    if !known {
        return invalid("this super-peer does not know the owner as a member".to_owned());
    }
    let key = Key::of_file(&record);
    let stored = write.bytes(&key)?;
    if stored.as_deref() == Some(bytes) {
        return Ok(Err(Publication::Known));
    }
    // A change to a file that is there is always possible: a full member must be able to delete.
    if stored.is_none() && write.owned_by(&publisher.peer)? >= FILES_PER_MEMBER_MAX {
        return Ok(Err(Publication::TooMany));
    }
    Ok(Ok(record))
}

/// Merges a member's entry, and gives what stands in the catalog afterwards.
pub(crate) fn store_member(
    write: &mut Write<'_>,
    enrolled: Enrolled,
    context: &Context<'_>,
) -> Result<(Entry, Merged), CatalogError> {
    let (key, bytes) = (Key::of_member(&enrolled), cbor::to_vec(enrolled.enrolment()));
    let payload = Payload::Member(Box::new(enrolled));
    let new = Verified::stamped(key, payload, bytes, context);
    let merged = write.merge(&new, context.trust)?;
    let standing = match merged {
        Merged::Stored => None,
        _ => write.stored(&key, context.trust)?,
    };
    Ok((standing.map_or(new, |(_, stored)| stored).to_entry(), merged))
}

/// A super-peer's own enrolment is stamped by itself before anybody knows it; the root's signature in it is enough.
fn vouches_for_itself(payload: &Payload, superpeer: &PeerId) -> bool {
    match payload {
        Payload::Member(enrolled) => {
            enrolled.membership.peer == *superpeer && enrolled.membership.role == Role::Superpeer
        }
        _ => false,
    }
}
