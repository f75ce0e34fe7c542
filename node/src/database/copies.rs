//! What this node holds in plaintext, with everything needed to serve it.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    content::Manifest,
    credentials::Trust,
    ids::{ContentId, FileId, Sha256},
    messages::inventory::Completeness,
    names::{FileName, MemberName},
    records::{Record, SignedRecord},
};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::{Database, DatabaseError, TrashId, id_range, integer, outdated, peer, trash, unsigned};
use crate::library::{LibraryPath, Place, Stamp};

/// Where a copy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// This node's user added it.
    Own,
    /// It was fetched from others.
    Fetched,
}

/// A plaintext copy of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryCopy {
    /// The file.
    pub file: FileId,
    /// Its owner when the copy was made.
    pub owner: PeerId,
    /// The owner's name.
    pub owner_name: MemberName,
    /// The file's name at its owner's.
    pub name: FileName,
    /// Where the copy comes from.
    pub provenance: Provenance,
    /// Where it lies.
    pub place: Place,
    /// Size and modification time as they were when it was last known to be sound.
    pub stamp: Stamp,
    /// The plaintext's SHA-256, unless the file is restricted.
    pub sha256: Option<Sha256>,
    /// The content that it can serve.
    pub content: ContentId,
    /// How much of it is here.
    pub completeness: Completeness,
    /// The record that the copy belongs to; the content's key is in it. To be verified by whoever acts on it.
    pub record: SignedRecord,
}

const COLUMNS: &str = "file, owner, owner_name, name, fetched, in_place, path, size_bytes, mtime_ns, sha256, content, \
    verified, record";

impl Database {
    /// Notes a copy with its content's manifest; replaces what was noted of the file, in one step.
    ///
    /// # Errors
    /// [`DatabaseError`]; among them a second own file whose name differs by case at most.
    pub fn put_copy(&self, copy: &LibraryCopy, manifest: &Manifest) -> Result<(), DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        put(&transaction, copy, manifest)?;
        transaction.commit()?;
        Ok(())
    }

    /// As [`Database::put_copy`] and [`Database::remember_record`] of the copy's record, in one step: one wait for the
    /// disk, and never one without the other.
    ///
    /// # Errors
    /// [`DatabaseError`]; then neither is noted.
    pub fn keep_copy(
        &self,
        copy: &LibraryCopy,
        manifest: &Manifest,
        record: &Record,
        trust: &Trust,
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        self.replace_copy(None, copy, manifest, record, trust, now_ms)
    }

    /// As [`Database::keep_copy`], where the file that lay in the copy's place is in the trash now.
    ///
    /// # Errors
    /// [`DatabaseError`]; then nothing is noted.
    pub fn replace_copy(
        &self,
        replaced: Option<TrashId>,
        copy: &LibraryCopy,
        manifest: &Manifest,
        record: &Record,
        trust: &Trust,
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        super::records::remember(&transaction, record, trust, now_ms)?;
        put(&transaction, copy, manifest)?;
        if let Some(replaced) = replaced {
            trash::end_plan(&transaction, replaced)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Notes the stamp of a copy that was looked at, unless it lies elsewhere by now; whether it was noted.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn set_stamp(&self, copy: &LibraryCopy, stamp: Stamp) -> Result<bool, DatabaseError> {
        let (in_place, path) = columns_of(&copy.place);
        let sql = "UPDATE copies SET size_bytes = ?1, mtime_ns = ?2
            WHERE file = ?3 AND content = ?4 AND in_place = ?5 AND path = ?6";
        let changed = self.connection().prepare_cached(sql)?.execute(rusqlite::params![
            integer(stamp.size_bytes),
            stamp.mtime_ns,
            &copy.file.as_bytes()[..],
            &copy.content.as_bytes()[..],
            in_place,
            path,
        ])?;
        Ok(changed > 0)
    }

    /// Forgets a copy; `false` where there was none. Its file is for the library to remove.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn remove_copy(&self, file: &FileId) -> Result<bool, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let removed = take(&transaction, file)?;
        sweep(&transaction, removed)?;
        transaction.commit()?;
        Ok(removed.is_some())
    }

    /// The copy of a file.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn copy(&self, file: &FileId) -> Result<Option<LibraryCopy>, DatabaseError> {
        self.one_copy("file = ?1", &file.as_bytes()[..])
    }

    /// A copy that can serve a content: a complete one where there are several.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn copy_of_content(&self, content: &ContentId) -> Result<Option<LibraryCopy>, DatabaseError> {
        self.one_copy(
            "content = ?1 ORDER BY verified IS NOT NULL, verified DESC LIMIT 1",
            &content.as_bytes()[..],
        )
    }

    /// The own file that has this name, or one that differs from it by case at most.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn own_named(&self, name: &FileName) -> Result<Option<LibraryCopy>, DatabaseError> {
        self.one_copy("folded = ?1 AND NOT fetched", name.folded())
    }

    /// The copies of files after `after`, in the order of their ids, at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn copies(&self, after: Option<&FileId>, limit: u32) -> Result<Vec<LibraryCopy>, DatabaseError> {
        let after = after.map_or(&[][..], |file| &file.as_bytes()[..]);
        self.select_copies("file > ?1 ORDER BY file LIMIT ?2", (after, limit))
    }

    /// The copies of files whose id begins with these hexadecimal digits, at most `limit`; none for other text.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn copies_by_prefix(&self, prefix: &str, limit: u32) -> Result<Vec<LibraryCopy>, DatabaseError> {
        let Some((first, last)) = id_range(prefix) else { return Ok(Vec::new()) };
        self.select_copies("file BETWEEN ?1 AND ?2 ORDER BY file LIMIT ?3", (&first[..], &last[..], limit))
    }

    /// The manifest of a content that a copy has.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] where it is not the content's any more.
    pub fn manifest(&self, content: &ContentId) -> Result<Option<Manifest>, DatabaseError> {
        let sql = "SELECT bytes FROM manifests WHERE content = ?1";
        let bytes: Option<Vec<u8>> = self
            .connection()
            .prepare_cached(sql)?
            .query_row([&content.as_bytes()[..]], |row| row.get(0))
            .optional()?;
        let read = |bytes: Vec<u8>| {
            Manifest::verify(&bytes, content).map_err(|_| DatabaseError::Damaged("a manifest"))
        };
        bytes.map(read).transpose()
    }

    fn one_copy(
        &self,
        condition: &str,
        value: impl rusqlite::ToSql,
    ) -> Result<Option<LibraryCopy>, DatabaseError> {
        Ok(self.select_copies(condition, [value])?.pop())
    }

    fn select_copies(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<LibraryCopy>, DatabaseError> {
        let connection = self.connection();
        let mut rows =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM copies WHERE {condition}"))?;
        rows.query_map(values, raw)?.map(|row| read(row?)).collect()
    }
}

fn columns_of(place: &Place) -> (bool, &[u8]) {
    match place {
        Place::Library(path) => (false, path.as_str().as_bytes()),
        Place::InPlace(path) => (true, path.as_os_str().as_bytes()),
    }
}

fn put(transaction: &Transaction<'_>, copy: &LibraryCopy, manifest: &Manifest) -> rusqlite::Result<()> {
    let (in_place, path) = columns_of(&copy.place);
    let verified = match copy.completeness {
        Completeness::Complete => None,
        Completeness::Partial(chunks) => Some(chunks),
    };
    let content = &copy.content.as_bytes()[..];
    transaction
        .prepare_cached("INSERT OR IGNORE INTO manifests (content, bytes) VALUES (?1, ?2)")?
        .execute((content, manifest.to_bytes()))?;
    // No "OR REPLACE": that would also remove another own file with a twin's name.
    let before = take(transaction, &copy.file)?;
    let sql = "INSERT INTO copies (file, owner, owner_name, name, folded, fetched, in_place, path, size_bytes, mtime_ns,
            sha256, content, verified, record)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    transaction.prepare_cached(sql)?.execute(rusqlite::params![
        &copy.file.as_bytes()[..],
        copy.owner.to_bytes(),
        copy.owner_name.as_str(),
        copy.name.as_str(),
        copy.name.folded(),
        copy.provenance == Provenance::Fetched,
        in_place,
        path,
        integer(copy.stamp.size_bytes),
        copy.stamp.mtime_ns,
        copy.sha256.as_ref().map(|sum| &sum.as_bytes()[..]),
        content,
        verified,
        cbor::to_vec(&copy.record),
    ])?;
    outdated::copy_changed(transaction, &copy.file.as_bytes()[..], &copy.record)?;
    sweep(transaction, before)
}

/// Removes a copy and says which content it had.
pub(super) fn take(transaction: &Transaction<'_>, file: &FileId) -> rusqlite::Result<Option<[u8; 32]>> {
    let sql = "DELETE FROM copies WHERE file = ?1 RETURNING content";
    let content =
        transaction.prepare_cached(sql)?.query_row([&file.as_bytes()[..]], |row| row.get(0)).optional()?;
    outdated::copy_gone(transaction, &file.as_bytes()[..])?;
    Ok(content)
}

/// Removes the manifest of a content that a copy had, if no other needs it.
pub(super) fn sweep(transaction: &Transaction<'_>, content: Option<[u8; 32]>) -> rusqlite::Result<()> {
    let Some(content) = content else { return Ok(()) };
    let sql = "DELETE FROM manifests WHERE content = ?1 AND content NOT IN (SELECT content FROM copies)";
    transaction.prepare_cached(sql)?.execute([&content[..]]).map(drop)
}

struct Raw {
    file: [u8; 32],
    owner: Vec<u8>,
    owner_name: String,
    name: String,
    fetched: bool,
    in_place: bool,
    path: Vec<u8>,
    size_bytes: i64,
    mtime_ns: i64,
    sha256: Option<[u8; 32]>,
    content: [u8; 32],
    verified: Option<u32>,
    record: Vec<u8>,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        file: row.get(0)?,
        owner: row.get(1)?,
        owner_name: row.get(2)?,
        name: row.get(3)?,
        fetched: row.get(4)?,
        in_place: row.get(5)?,
        path: row.get(6)?,
        size_bytes: row.get(7)?,
        mtime_ns: row.get(8)?,
        sha256: row.get(9)?,
        content: row.get(10)?,
        verified: row.get(11)?,
        record: row.get(12)?,
    })
}

fn read(raw: Raw) -> Result<LibraryCopy, DatabaseError> {
    let damaged = DatabaseError::Damaged;
    let place = if raw.in_place {
        Place::InPlace(OsString::from_vec(raw.path).into())
    } else {
        let path = String::from_utf8(raw.path).ok().and_then(|path| LibraryPath::parse(&path));
        Place::Library(path.ok_or(damaged("a copy's path"))?)
    };
    Ok(LibraryCopy {
        file: FileId::from_bytes(raw.file),
        owner: peer(&raw.owner, "a copy's owner")?,
        owner_name: MemberName::new(&raw.owner_name).map_err(|_| damaged("a copy's owner"))?,
        name: FileName::new(&raw.name).map_err(|_| damaged("a copy's name"))?,
        provenance: if raw.fetched { Provenance::Fetched } else { Provenance::Own },
        place,
        stamp: Stamp { size_bytes: unsigned(raw.size_bytes, "a copy's size")?, mtime_ns: raw.mtime_ns },
        sha256: raw.sha256.map(Sha256::from_bytes),
        content: ContentId::from_bytes(raw.content),
        completeness: raw.verified.map_or(Completeness::Complete, Completeness::Partial),
        record: cbor::from_slice(&raw.record).map_err(|_| damaged("a copy's record"))?,
    })
}
