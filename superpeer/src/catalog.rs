//! The catalog: every file record, every member and how its membership ended, and who did what when; durable and signed.
//!
//! What it guarantees:
//!
//! - **Nothing unverified is stored.** Records, enrolments and stamps are checked on their way in, whoever brings them.
//! - **Acknowledged means on the disk.** A call returns after its commit. A call that fails leaves nothing behind, neither
//!   in the database nor in [`Catalog::digest`].
//! - **All catalogs converge.** Of two entries about one thing the same one stays everywhere, in whatever order and how
//!   often they arrive, so that equal sets of entries give equal digests.
//! - **An ended membership stays ended.** A departure or revocation is never superseded by anything of the member's own.
//!   Nothing more is accepted from such a member here; what another super-peer accepted before it knew still arrives.
//! - **Every accepted change is told** by an event of the audit trail, written with it and as durable.
//! - **Who may not see a file finds nothing of it**, in searches, in references and in what is followed.
//! - **What this version does not know it still passes on**, byte for byte and bounded.
//!
//! One [`Catalog`] writes, on a thread of its own; any number of [`Reader`]s search beside it and never wait for it. A
//! batch is one transaction, so that five hundred records cost one sync of the disk. All content stands in the table
//! `entries`; the other tables derive from it within the same transaction, and are what searches read.
//!
//! The [`Stamp`](quarta_protocols::messages::sync::Stamp) beside each entry says which super-peer accepted it first, and
//! when. It is for people who ask what happened, and is not part of the digest.
//!
//! Read on in `accepting` (what this super-peer accepts first) and `taking` (what others bring), both over `write`;
//! `sharing` accepts who may read what.
//! `payload` says what is valid and which of two entries stays, `standing` what endings make of a member, `sight` who may
//! see what.

mod accepting;
mod changes;
#[cfg(test)]
mod ending_tests;
mod error;
mod finding;
#[cfg(test)]
pub(crate) mod fixtures;
mod fold;
mod log;
#[cfg(test)]
mod log_tests;
mod members;
mod pages;
mod payload;
mod positions;
mod projection;
mod reader;
mod schema;
mod search;
mod sharing;
mod sight;
#[cfg(test)]
mod sight_tests;
mod standing;
mod taking;
#[cfg(test)]
mod tests;
mod trail;
mod verifying;
mod write;

use std::path::{Path, PathBuf};

use libp2p::identity::Keypair;
use quarta_protocols::{
    clock::{HybridClock, HybridTime},
    credentials::{Trust, UnixSeconds},
    messages::sync::{Digest, Kind},
};
use rusqlite::Connection;

pub(crate) use self::accepting::{check_name, store_member};
use self::write::Totals;
pub(crate) use self::write::Write;
pub use self::{
    accepting::{EndError, Ended, EnrolError, Published, TakenBack},
    changes::{Change, ChangePage},
    error::CatalogError,
    log::{LogPlace, Logged, OBSERVATIONS_MAX, Observation, Observed, ObservedPlace},
    members::{Member, MemberPage, PEER_PREFIX_MIN_CHARS},
    reader::{FilePage, ID_PREFIX_MIN_DIGITS, MATCHES_MAX, Reader, StoredFile},
    sharing::{AUDIENCES_PER_MEMBER_MAX, WRAPS_PER_MEMBER_MAX},
    sight::{Shown, Sight, Viewer},
    standing::Standing,
    taking::{Applied, Taken},
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
    store: [u8; 16],
    run: Option<u64>,
}

impl Catalog {
    /// Opens the catalog of this network, creating it where there is none. The folder must exist.
    ///
    /// Reads it through once, to know its digest and that every entry can be read: about two seconds for a million files.
    ///
    /// # Errors
    /// [`CatalogError`]; a file that is newer, damaged or somebody else's is left as it is.
    pub fn open(path: &Path, trust: Trust, own: Keypair) -> Result<Self, CatalogError> {
        let conn = schema::open(path, &trust)?;
        let clock = HybridClock::after(schema::latest_moment(&conn)?);
        let totals = Totals::of(&conn)?;
        let store = schema::store_id(&conn)?;
        Ok(Self { conn, path: path.to_owned(), trust, own, clock, totals, store, run: None })
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
