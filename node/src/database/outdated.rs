//! Copies that are not of the record that is known of their file now.
//!
//! They are listed in a table that every change of a record or a copy keeps right, in the same transaction: so whatever
//! way a record came, by the feed, a listing or a fetch, and whenever the node ends, what is to be done about a copy is
//! found again.

use quarta_protocols::{cbor, ids::FileId, records::SignedRecord};
use rusqlite::{OptionalExtension, Transaction};

use super::{Database, DatabaseError, LibraryCopy};

/// A copy that is to be brought up to what holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outdated {
    /// The copy, with the record that it belongs to.
    pub copy: LibraryCopy,
    /// The record that holds now, to be verified by whoever acts on it; none where the file was hidden from this node.
    pub now: Option<SignedRecord>,
}

impl Database {
    /// The outdated copies of files after `after`, in the order of their ids, at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn outdated(&self, after: Option<&FileId>, limit: u32) -> Result<Vec<Outdated>, DatabaseError> {
        let after = after.map_or(&[][..], |file| &file.as_bytes()[..]);
        let files: Vec<[u8; 32]> = {
            let connection = self.connection();
            let sql = "SELECT file FROM outdated WHERE file > ?1 ORDER BY file LIMIT ?2";
            let mut rows = connection.prepare_cached(sql)?;
            rows.query_map((after, limit), |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        let files = files.into_iter().map(FileId::from_bytes);
        files.filter_map(|file| self.outdated_copy(&file).transpose()).collect()
    }

    /// The copy of a file if it is outdated.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn outdated_copy(&self, file: &FileId) -> Result<Option<Outdated>, DatabaseError> {
        let (bytes, sql) = (&file.as_bytes()[..], "SELECT 1 FROM outdated WHERE file = ?1");
        let found: Option<i64> =
            self.connection().prepare_cached(sql)?.query_row([bytes], |row| row.get(0)).optional()?;
        if found.is_none() {
            return Ok(None);
        }
        let now = self.record(file)?;
        Ok(self.copy(file)?.map(|copy| Outdated { copy, now }))
    }
}

/// A record of a file, or none, is known from now on.
pub(super) fn record_changed(transaction: &Transaction<'_>, file: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO outdated (file) SELECT file FROM copies WHERE file = ?1";
    transaction.prepare_cached(sql)?.execute([file])?;
    settle(transaction, file)
}

/// There is a copy of a file from now on, or another one.
pub(super) fn copy_changed(
    transaction: &Transaction<'_>,
    file: &[u8],
    record: &SignedRecord,
) -> rusqlite::Result<()> {
    // Also one of a file that was hidden while the copy was made.
    let sql = "INSERT OR IGNORE INTO outdated (file)
        SELECT file FROM records WHERE file = ?1 AND record <> ?2 UNION SELECT file FROM hidden WHERE file = ?1";
    transaction.prepare_cached(sql)?.execute((file, cbor::to_vec(record)))?;
    settle(transaction, file)
}

/// Takes a copy off that is of the record known.
fn settle(transaction: &Transaction<'_>, file: &[u8]) -> rusqlite::Result<()> {
    let sql = "DELETE FROM outdated WHERE file = ?1 AND EXISTS
        (SELECT 1 FROM copies JOIN records USING (file) WHERE file = ?1 AND copies.record = records.record)";
    transaction.prepare_cached(sql)?.execute([file]).map(drop)
}

/// There is no copy of a file any more.
pub(super) fn copy_gone(transaction: &Transaction<'_>, file: &[u8]) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM outdated WHERE file = ?1")?.execute([file]).map(drop)
}
