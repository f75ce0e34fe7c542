//! Hand-overs under way, on both sides, and what becomes of copies when a file has another owner.
//!
//! An offer is here before it is first sent, and on the other side before it is first answered, so that either goes on with
//! it after a restart. Who owns a file is in its record alone: whenever one with another owner is kept, the copy of the file
//! follows in the same transaction ([`follow_owner`]), whichever way the record came.

use libp2p::PeerId;
use quarta_protocols::{cbor, credentials::Trust, ids::FileId, messages::handover::Request, records::Record};
use rusqlite::{OptionalExtension, Transaction};

use super::{Database, DatabaseError, LibraryCopy, integer, outdated, peer, records};

/// A hand-over under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// Whether this node is the next owner; else it is the owner so far.
    pub taking: bool,
    /// The offer.
    pub offer: Request,
}

impl Database {
    /// Keeps a hand-over, in the place of what was kept of the file.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn put_handover(&self, file: &FileId, handover: &Handover, now_ms: u64) -> Result<(), DatabaseError> {
        let sql = "INSERT OR REPLACE INTO handovers (file, taking, offer, since_ms) VALUES (?1, ?2, ?3, ?4)";
        let offer = cbor::to_vec(&handover.offer);
        let values = rusqlite::params![&file.as_bytes()[..], handover.taking, offer, integer(now_ms)];
        self.connection().prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    /// The hand-over of a file, if one is under way.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn handover(&self, file: &FileId) -> Result<Option<Handover>, DatabaseError> {
        let sql = "SELECT taking, offer FROM handovers WHERE file = ?1";
        let row: Option<(bool, Vec<u8>)> = self
            .connection()
            .query_row(sql, [&file.as_bytes()[..]], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        row.map(read).transpose()
    }

    /// All hand-overs under way, the oldest first: those of an own departure, and as many as this node takes at a time.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn handovers(&self) -> Result<Vec<(FileId, Handover)>, DatabaseError> {
        let connection = self.connection();
        let mut rows =
            connection.prepare("SELECT file, taking, offer FROM handovers ORDER BY since_ms, file")?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        rows.map(|row| {
            let (file, rest) = row?;
            Ok((FileId::from_bytes(file), read(rest)?))
        })
        .collect()
    }

    /// Forgets the hand-over of a file; whether there was one.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn drop_handover(&self, file: &FileId) -> Result<bool, DatabaseError> {
        Ok(self
            .connection()
            .prepare_cached("DELETE FROM handovers WHERE file = ?1")?
            .execute([&file.as_bytes()[..]])?
            > 0)
    }

    /// Keeps the record of a file that another one has taken over, and ends its hand-over, in one step.
    ///
    /// # Errors
    /// [`DatabaseError`]; then nothing has changed.
    pub fn handed_over(&self, record: &Record, trust: &Trust, now_ms: u64) -> Result<(), DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        records::remember(&transaction, record, trust, now_ms)?;
        end(&transaction, &record.file())?;
        Ok(transaction.commit()?)
    }

    /// Keeps the record by which this node has taken a file over; its copy is an own one from now on, as `copy` says. Ends
    /// the hand-over, in one step. `false`, and nothing has changed, where a record is known that supersedes this one, or
    /// the copy is not here any more.
    ///
    /// # Errors
    /// [`DatabaseError`], also where the name is another own file's; then nothing has changed.
    pub fn take_over(
        &self,
        copy: &LibraryCopy,
        record: &Record,
        trust: &Trust,
        now_ms: u64,
    ) -> Result<bool, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        if !records::remember(&transaction, record, trust, now_ms)? {
            return Ok(false);
        }
        let sql =
            "UPDATE copies SET fetched = 0, owner = ?2, owner_name = ?3, name = ?4, folded = ?5, record = ?6
            WHERE file = ?1 AND content = ?7 AND verified IS NULL";
        let changed = transaction.prepare_cached(sql)?.execute(rusqlite::params![
            &copy.file.as_bytes()[..],
            copy.owner.to_bytes(),
            copy.owner_name.as_str(),
            copy.name.as_str(),
            copy.name.folded(),
            cbor::to_vec(&copy.record),
            &copy.content.as_bytes()[..],
        ])?;
        if changed != 1 {
            return Ok(false);
        }
        outdated::copy_changed(&transaction, copy.file.as_bytes(), &copy.record)?;
        end(&transaction, &record.file())?;
        transaction.commit()?;
        Ok(true)
    }

    /// Existing files whose owner a member is, as its latest records say, in order of id after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn owned_by(
        &self,
        owner: &PeerId,
        after: Option<&FileId>,
        limit: u32,
    ) -> Result<Vec<FileId>, DatabaseError> {
        let connection = self.connection();
        let sql = "SELECT file FROM records WHERE owner = ?1 AND folded IS NOT NULL AND file > ?2
            ORDER BY file LIMIT ?3";
        let mut rows = connection.prepare_cached(sql)?;
        let after = after.map_or(&[][..], |file| &file.as_bytes()[..]);
        let rows = rows.query_map(rusqlite::params![owner.to_bytes(), after, limit], |row| row.get(0))?;
        rows.map(|file| Ok(FileId::from_bytes(file?))).collect()
    }
}

fn read((taking, offer): (bool, Vec<u8>)) -> Result<Handover, DatabaseError> {
    let offer = cbor::from_slice(&offer).map_err(|_| DatabaseError::Damaged("a hand-over"))?;
    Ok(Handover { taking, offer })
}

fn end(transaction: &Transaction<'_>, file: &FileId) -> rusqlite::Result<()> {
    let sql = "DELETE FROM handovers WHERE file = ?1";
    transaction.prepare_cached(sql)?.execute([&file.as_bytes()[..]]).map(drop)
}

/// A file has this owner: where that is another than the copy's, the copy is one of that owner's file from now on. An own
/// copy becomes one like any that was fetched, and never stands as an own one beside a record that says otherwise. It keeps
/// the record that opens it until it is brought up to the new one, as after any change of a record.
pub(super) fn follow_owner(
    transaction: &Transaction<'_>,
    file: &FileId,
    owner: &PeerId,
) -> Result<(), DatabaseError> {
    let sql = "SELECT owner FROM copies WHERE file = ?1";
    let before: Option<Vec<u8>> =
        transaction.prepare_cached(sql)?.query_row([&file.as_bytes()[..]], |row| row.get(0)).optional()?;
    let Some(before) = before else { return Ok(()) };
    if peer(&before, "a copy's owner")? == *owner {
        return Ok(());
    }
    let sql = "UPDATE copies SET fetched = 1, owner = ?2,
        owner_name = coalesce((SELECT name FROM members WHERE peer = ?2), owner_name) WHERE file = ?1";
    transaction.prepare_cached(sql)?.execute((&file.as_bytes()[..], owner.to_bytes()))?;
    Ok(())
}
