//! One transaction on the catalog: entries are merged into the tables, or nothing is.

use std::{cmp::Ordering, collections::BTreeMap};

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    clock::HybridTime,
    credentials::{Role, Trust},
    ids::ID_BYTES,
    members::Enrolled,
    messages::sync::{Digest, Item, Kind, Position, Stamp, item_hash},
    names::MemberName,
    records::Record,
    signing::Signed,
};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    CatalogError,
    fold::fold,
    payload::{Key, Payload, Verified},
    positions, schema,
};
use crate::reconciliation::Trie;

/// Kinds of entries that this version does not know: more than versions of one network ever differ by.
const UNKNOWN_KINDS_MAX: usize = 16;
/// Entries of one unknown kind: bounds what a super-peer gone bad can make others store.
pub(super) const UNKNOWN_ENTRIES_MAX: u64 = 100_000;

/// What the catalog comes to; replaced as a whole when a transaction commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) digest: Digest,
    pub(super) trie: Trie,
    pub(super) kinds: BTreeMap<Kind, u64>,
}

impl Totals {
    /// Counts everything anew.
    pub(super) fn of(conn: &Connection) -> Result<Self, CatalogError> {
        let mut totals = Self::default();
        let mut entries = conn.prepare("SELECT kind, id, payload FROM entries")?;
        let mut rows = entries.query([])?;
        while let Some(row) = rows.next()? {
            let payload = row.get_ref(2)?.as_blob().map_err(CatalogError::damaged)?;
            totals.toggle(Kind(row.get(0)?), &row.get(1)?, payload, true);
            *totals.kinds.entry(Kind(row.get(0)?)).or_default() += 1;
        }
        Ok(totals)
    }

    /// Accounts for an entry that came or went.
    fn toggle(&mut self, kind: Kind, id: &[u8; ID_BYTES], payload: &[u8], came: bool) {
        let hash = item_hash(kind, id, payload);
        self.digest.toggle_hash(&hash, came);
        self.trie.toggle(Item { position: Position::of(kind, id), tag: Item::tag(&hash) }, came);
    }

    pub(super) fn has_room_for(&self, kind: Kind) -> bool {
        let known = |kind: &Kind| matches!(*kind, Kind::FILE | Kind::MEMBER);
        match self.kinds.get(&kind) {
            Some(entries) => known(&kind) || *entries < UNKNOWN_ENTRIES_MAX,
            None => known(&kind) || self.kinds.keys().filter(|k| !known(k)).count() < UNKNOWN_KINDS_MAX,
        }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// It stands in the catalog now.
    Stored,
    /// The very same was there.
    Known,
    /// What is there takes precedence.
    Superseded,
    /// There are as many of its unknown kind as may be.
    NoRoom,
}

/// A transaction under way. Dropped without [`Self::commit`], it leaves nothing.
pub(crate) struct Write<'c> {
    tx: Transaction<'c>,
    totals: Totals,
    changed: bool,
}

impl<'c> Write<'c> {
    pub(super) fn begin(conn: &'c mut Connection, totals: &Totals) -> Result<Self, CatalogError> {
        // Immediate: a write that must wait for a lock waits here, where nothing has been read yet.
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Self { tx, totals: totals.clone(), changed: false })
    }

    /// The transaction, for tables that are not the catalog's own.
    pub(crate) const fn tx(&self) -> &Transaction<'c> {
        &self.tx
    }

    /// Makes it last. No moment up to `latest` will be given out again. Where nothing changed, as when a member returns
    /// with what is known, the disk is not touched.
    pub(super) fn commit(self, latest: HybridTime) -> Result<Totals, CatalogError> {
        if self.changed {
            schema::keep_moment(&self.tx, latest)?;
        }
        self.tx.commit()?;
        Ok(self.totals)
    }

    /// The bytes that stand under a key.
    pub(super) fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, CatalogError> {
        let mut query = self.tx.prepare_cached("SELECT payload FROM entries WHERE kind = ?1 AND id = ?2")?;
        Ok(query.query_row(params![key.kind.0, key.id], |row| row.get(0)).optional()?)
    }

    /// The entry that stands under a key, and its row.
    pub(super) fn stored(&self, key: &Key, trust: &Trust) -> Result<Option<(i64, Verified)>, CatalogError> {
        let mut query =
            self.tx.prepare_cached("SELECT row, payload, stamp FROM entries WHERE kind = ?1 AND id = ?2")?;
        let found: Option<(i64, Vec<u8>, Vec<u8>)> = query
            .query_row(params![key.kind.0, key.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((row, bytes, stamp)) = found else { return Ok(None) };
        // It was verified before it was stored; that it verifies no more means that the file was changed.
        let payload = Payload::verify(key, &bytes, trust).map_err(CatalogError::Damaged)?;
        let stamp: Signed<Stamp> = cbor::from_slice(&stamp).map_err(CatalogError::damaged)?;
        let time = stamp.peek().map_err(CatalogError::damaged)?.time;
        Ok(Some((row, Verified { key: *key, payload, bytes, stamp, time })))
    }

    /// Puts a verified entry in its place, unless what stands there takes precedence.
    pub(super) fn merge(&mut self, new: &Verified, trust: &Trust) -> Result<Merged, CatalogError> {
        let stored = self.stored(&new.key, trust)?;
        let Some((row, old)) = stored else {
            if !self.totals.has_room_for(new.key.kind) {
                return Ok(Merged::NoRoom);
            }
            let row = self.insert(new)?;
            self.project(row, None, new)?;
            *self.totals.kinds.entry(new.key.kind).or_default() += 1;
            self.totals.toggle(new.key.kind, &new.key.id, &new.bytes, true);
            return Ok(Merged::Stored);
        };
        let same = old.bytes == new.bytes;
        match new.precedence(&old) {
            // Only an unknown kind's: its later stamp must stay, or the order of arrival would count.
            Ordering::Greater if same => {
                self.update(row, new)?;
                Ok(Merged::Known)
            }
            Ordering::Greater => {
                self.update(row, new)?;
                self.project(row, Some(&old), new)?;
                self.totals.toggle(old.key.kind, &old.key.id, &old.bytes, false);
                self.totals.toggle(new.key.kind, &new.key.id, &new.bytes, true);
                Ok(Merged::Stored)
            }
            _ if same => Ok(Merged::Known),
            _ => Ok(Merged::Superseded),
        }
    }

    fn insert(&mut self, new: &Verified) -> Result<i64, CatalogError> {
        self.changed = true;
        let position = positions::column(Position::of(new.key.kind, &new.key.id));
        self.tx
            .prepare_cached(
                "INSERT INTO entries (kind, id, payload, stamp, position) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![new.key.kind.0, new.key.id, new.bytes, cbor::to_vec(&new.stamp), position])?;
        Ok(self.tx.last_insert_rowid())
    }

    fn update(&mut self, row: i64, new: &Verified) -> Result<(), CatalogError> {
        self.changed = true;
        self.tx
            .prepare_cached("UPDATE entries SET payload = ?2, stamp = ?3 WHERE row = ?1")?
            .execute(params![row, new.bytes, cbor::to_vec(&new.stamp)])?;
        Ok(())
    }

    /// Brings the tables that derive from an entry up to date.
    fn project(&self, row: i64, old: Option<&Verified>, new: &Verified) -> Result<(), CatalogError> {
        match &new.payload {
            Payload::File(record) => {
                let old = old.and_then(|old| match &old.payload {
                    Payload::File(record) => Some(record.as_ref()),
                    _ => None,
                });
                self.count_owner(old, record)?;
                self.list_file(row, old, record)
            }
            Payload::Member(enrolled) => self.list_member(row, enrolled),
            Payload::Unknown => Ok(()),
        }
    }

    fn count_owner(&self, old: Option<&Record>, new: &Record) -> Result<(), CatalogError> {
        let (before, now) = (old.map(Record::owner), new.owner());
        if before == Some(now) {
            return Ok(());
        }
        if let Some(before) = before {
            self.tx
                .prepare_cached("UPDATE owners SET files = files - 1 WHERE peer = ?1")?
                .execute([before.to_bytes()])?;
        }
        self.tx
            .prepare_cached(
                "INSERT INTO owners VALUES (?1, 1) ON CONFLICT (peer) DO UPDATE SET files = files + 1",
            )?
            .execute([now.to_bytes()])?;
        Ok(())
    }

    fn list_file(&self, row: i64, old: Option<&Record>, new: &Record) -> Result<(), CatalogError> {
        let folded = |record: &Record| record.entry().map(|entry| fold(entry.name.as_str()));
        let (before, now) = (old.and_then(folded), folded(new));
        if before != now {
            if before.is_some() {
                self.tx.prepare_cached("DELETE FROM file_names WHERE rowid = ?1")?.execute([row])?;
            }
            if let Some(now) = &now {
                self.tx
                    .prepare_cached("INSERT INTO file_names (rowid, folded) VALUES (?1, ?2)")?
                    .execute(params![row, now])?;
            }
        }
        let Some(entry) = new.entry() else {
            self.tx.prepare_cached("DELETE FROM files WHERE row = ?1")?.execute([row])?;
            return Ok(());
        };
        self.tx.prepare_cached("INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
            params![
                row,
                new.file().as_bytes(),
                new.owner().to_bytes(),
                entry.name.as_str(),
                now,
                entry.content.as_bytes(),
            ],
        )?;
        Ok(())
    }

    fn list_member(&self, row: i64, enrolled: &Enrolled) -> Result<(), CatalogError> {
        let member = &enrolled.membership;
        let seconds = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
        self.tx.prepare_cached("INSERT OR REPLACE INTO members VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
            params![
                row,
                member.peer.to_bytes(),
                member.name.as_str(),
                member.role == Role::Superpeer,
                seconds(member.issued.0),
                seconds(member.expires.0),
            ],
        )?;
        Ok(())
    }

    /// How many file entries a member owns, deleted ones included.
    pub(super) fn owned_by(&self, peer: &PeerId) -> Result<u64, CatalogError> {
        let mut query = self.tx.prepare_cached("SELECT files FROM owners WHERE peer = ?1")?;
        let files: Option<i64> = query.query_row([peer.to_bytes()], |row| row.get(0)).optional()?;
        Ok(files.map_or(0, |files| u64::try_from(files).unwrap_or(0)))
    }

    /// A member's role, if it is one.
    pub(super) fn role_of(&self, peer: &PeerId) -> Result<Option<Role>, CatalogError> {
        let mut query = self.tx.prepare_cached("SELECT superpeer FROM members WHERE peer = ?1")?;
        let superpeer: Option<bool> = query.query_row([peer.to_bytes()], |row| row.get(0)).optional()?;
        Ok(superpeer.map(|superpeer| if superpeer { Role::Superpeer } else { Role::Node }))
    }

    /// Whether a name belongs to another member than this peer.
    pub(crate) fn is_taken(&self, name: &MemberName, by_other_than: &PeerId) -> Result<bool, CatalogError> {
        let mut query =
            self.tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM members WHERE name = ?1 AND peer <> ?2)")?;
        Ok(query.query_row(params![name.as_str(), by_other_than.to_bytes()], |row| row.get(0))?)
    }
}
