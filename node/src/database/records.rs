//! Every record this node has verified: what it can list and open without a super-peer.
//!
//! Records go in verified and come out as they travel, to be verified again by whoever acts on them: a file on a disk
//! is no proof. Listings show the columns beside them, which were taken from the verified record.

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    credentials::Trust,
    ids::{FileId, Sha256},
    names::{FileName, fold},
    records::{Access, Record, SignedRecord},
};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::{Database, DatabaseError, handovers, hidden, id_range, integer, outdated, peer, unsigned};

/// What is listed of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFile {
    /// The file.
    pub file: FileId,
    /// Who owns it.
    pub owner: PeerId,
    /// The revision seen last.
    pub revision: u64,
    /// Its name at its owner's.
    pub name: FileName,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Whether somebody may not see it.
    pub restricted: bool,
    /// Its checksum; none for a restricted file.
    pub sha256: Option<Sha256>,
    /// When this revision came, in milliseconds since 1970.
    pub seen_ms: u64,
}

/// Which files to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Only names that contain this, whatever the case.
    pub query: Option<String>,
    /// Only this owner's.
    pub owner: Option<PeerId>,
    /// Only after this file of an earlier page.
    pub after: Option<(FileName, FileId)>,
}

const COLUMNS: &str = "file, owner, revision, name, size_bytes, restricted, sha256, seen_ms";

impl Database {
    /// Keeps a record if it supersedes the one that is here; `false` where it does not.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn remember_record(
        &self,
        record: &Record,
        trust: &Trust,
        now_ms: u64,
    ) -> Result<bool, DatabaseError> {
        Ok(self.remember_records([record], trust, now_ms)?.len() == 1)
    }

    /// Keeps those of the records that supersede what is here, in one step; says of which files.
    ///
    /// # Errors
    /// [`DatabaseError`]; then none is kept.
    pub fn remember_records<'a>(
        &self,
        records: impl IntoIterator<Item = &'a Record>,
        trust: &Trust,
        now_ms: u64,
    ) -> Result<Vec<FileId>, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let mut kept = Vec::new();
        for record in records {
            if remember(&transaction, record, trust, now_ms)? {
                kept.push(record.file());
            }
        }
        // What was known already, as most of a listing is, costs no write.
        if !kept.is_empty() {
            transaction.commit()?;
        }
        Ok(kept)
    }

    /// The latest record known of a file, deletions included.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn record(&self, file: &FileId) -> Result<Option<SignedRecord>, DatabaseError> {
        let sql = "SELECT record FROM records WHERE file = ?1";
        let bytes: Option<Vec<u8>> = self
            .connection()
            .prepare_cached(sql)?
            .query_row([&file.as_bytes()[..]], |row| row.get(0))
            .optional()?;
        bytes.as_deref().map(read_record).transpose()
    }

    /// The latest record of a file, if this is its owner.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn record_of_owner(
        &self,
        owner: &PeerId,
        file: &FileId,
    ) -> Result<Option<SignedRecord>, DatabaseError> {
        let sql = "SELECT record FROM records WHERE file = ?1 AND owner = ?2";
        let bytes: Option<Vec<u8>> = self
            .connection()
            .query_row(sql, rusqlite::params![&file.as_bytes()[..], owner.to_bytes()], |row| row.get(0))
            .optional()?;
        bytes.as_deref().map(read_record).transpose()
    }

    /// The latest records of all files of an owner, deletions included.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn records_of_owner(&self, owner: &PeerId) -> Result<Vec<(FileId, SignedRecord)>, DatabaseError> {
        let connection = self.connection();
        let mut rows = connection.prepare_cached("SELECT file, record FROM records WHERE owner = ?1")?;
        let rows = rows.query_map([owner.to_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (file, bytes): ([u8; 32], Vec<u8>) = row?;
            Ok((FileId::from_bytes(file), read_record(&bytes)?))
        })
        .collect()
    }

    /// Existing files in the order of their names, at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn list_files(&self, listing: &Listing, limit: u32) -> Result<Vec<KnownFile>, DatabaseError> {
        let pattern = listing.query.as_deref().map(|query| {
            let literal = fold(query).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            format!("%{literal}%")
        });
        let after = listing.after.as_ref();
        self.select(
            "(?1 IS NULL OR folded LIKE ?1 ESCAPE '\\') AND (?2 IS NULL OR owner = ?2)
                AND (?3 IS NULL OR (folded, file) > (?3, ?4)) ORDER BY folded, file LIMIT ?5",
            rusqlite::params![
                pattern,
                listing.owner.map(PeerId::to_bytes),
                after.map(|(name, _)| name.folded()),
                after.map(|(_, file)| &file.as_bytes()[..]),
                limit,
            ],
        )
    }

    /// Existing files of exactly this name, of all owners or of one, at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn files_named(
        &self,
        name: &FileName,
        owner: Option<&PeerId>,
        limit: u32,
    ) -> Result<Vec<KnownFile>, DatabaseError> {
        self.select(
            "folded = ?1 AND name = ?2 AND (?3 IS NULL OR owner = ?3) ORDER BY file LIMIT ?4",
            rusqlite::params![name.folded(), name.as_str(), owner.map(|peer| peer.to_bytes()), limit],
        )
    }

    /// Existing files whose id begins with these hexadecimal digits, at most `limit`; none for other text.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn files_by_prefix(&self, prefix: &str, limit: u32) -> Result<Vec<KnownFile>, DatabaseError> {
        let Some((first, last)) = id_range(prefix) else { return Ok(Vec::new()) };
        self.select("file BETWEEN ?1 AND ?2 ORDER BY file LIMIT ?3", (&first[..], &last[..], limit))
    }

    fn select(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<KnownFile>, DatabaseError> {
        let connection = self.connection();
        let sql = format!("SELECT {COLUMNS} FROM records WHERE folded IS NOT NULL AND {condition}");
        let mut rows = connection.prepare_cached(&sql)?;
        rows.query_map(values, raw)?.map(|row| read(row?)).collect()
    }
}

/// A record as it travels, from its stored bytes.
fn read_record(bytes: &[u8]) -> Result<SignedRecord, DatabaseError> {
    cbor::from_slice(bytes).map_err(|_| DatabaseError::Damaged("a record"))
}

/// Forgets a file as if it had never been known: it was hidden from this node. How many records that were.
pub(super) fn forget(transaction: &Transaction<'_>, file: &FileId) -> rusqlite::Result<usize> {
    let file = &file.as_bytes()[..];
    let forgotten = transaction.prepare_cached("DELETE FROM records WHERE file = ?1")?.execute([file])?;
    if forgotten > 0 {
        outdated::record_changed(transaction, file)?;
    }
    Ok(forgotten)
}

/// The record of a file that is here, verified.
pub(super) fn known(
    transaction: &Transaction<'_>,
    file: &FileId,
    trust: &Trust,
) -> rusqlite::Result<Option<Record>> {
    let stored: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT record FROM records WHERE file = ?1")?
        .query_row([&file.as_bytes()[..]], |row| row.get(0))
        .optional()?;
    Ok(stored.and_then(|bytes| genuine(&bytes, trust)))
}

/// A stored record, unless it does not verify any more: then it is worth nothing.
fn genuine(bytes: &[u8], trust: &Trust) -> Option<Record> {
    Record::verify(cbor::from_slice(bytes).ok()?, trust).ok()
}

/// Keeps a record unless one that is here, or what is known to be hidden of the file, counts as much; whether it was kept.
pub(super) fn remember(
    transaction: &Transaction<'_>,
    record: &Record,
    trust: &Trust,
    now_ms: u64,
) -> Result<bool, DatabaseError> {
    let file = record.file();
    let file = &file.as_bytes()[..];
    let bytes = cbor::to_vec(record.signed());
    let stored: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT record FROM records WHERE file = ?1")?
        .query_row([file], |row| row.get(0))
        .optional()?;
    if stored.as_ref() == Some(&bytes) {
        return Ok(false);
    }
    let current = stored.and_then(|bytes| genuine(&bytes, trust));
    if current.is_some_and(|current| !record.supersedes(&current)) {
        return Ok(false);
    }
    if hidden::hides(transaction, &record.file(), &record.precedence())? {
        return Ok(false);
    }
    let entry = record.entry();
    let sha256 = entry.and_then(|entry| match &entry.access {
        Access::Open { sha256, .. } => Some(&sha256.as_bytes()[..]),
        Access::Restricted { .. } => None,
    });
    let sql =
        "INSERT OR REPLACE INTO records (file, owner, revision, name, folded, size_bytes, restricted, sha256,
            record, seen_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    transaction.prepare_cached(sql)?.execute(rusqlite::params![
        file,
        record.owner().to_bytes(),
        integer(record.body().revision),
        entry.map(|entry| entry.name.as_str()),
        entry.map(|entry| entry.name.folded()),
        entry.map(|entry| integer(entry.size_bytes)),
        entry.map(|entry| matches!(entry.access, Access::Restricted { .. })),
        sha256,
        bytes,
        integer(now_ms),
    ])?;
    hidden::show(transaction, &record.file())?;
    handovers::follow_owner(transaction, &record.file(), &record.owner())?;
    outdated::record_changed(transaction, file)?;
    Ok(true)
}

type Raw = ([u8; 32], Vec<u8>, i64, String, i64, bool, Option<[u8; 32]>, i64);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
        row.get(7)?,
    ))
}

fn read(
    (file, owner, revision, name, size, restricted, sha256, seen): Raw,
) -> Result<KnownFile, DatabaseError> {
    Ok(KnownFile {
        file: FileId::from_bytes(file),
        owner: peer(&owner, "a record's owner")?,
        revision: unsigned(revision, "a record's revision")?,
        name: FileName::new(&name).map_err(|_| DatabaseError::Damaged("a record's name"))?,
        size_bytes: unsigned(size, "a record's size")?,
        restricted,
        sha256: sha256.map(Sha256::from_bytes),
        seen_ms: unsigned(seen, "a record's time")?,
    })
}
