//! What was replaced or deleted, and is kept for a while: the trash's list. The files are the library's.
//!
//! A file gets here in two steps around its move, so that a crash in between is found and made good: it is *planned*, it
//! moves, and what follows from the move is noted in the step that ends the plan.

use quarta_protocols::{
    ids::{FileId, Sha256},
    names::{FileName, MemberName},
};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::{Database, DatabaseError, copies, integer, unsigned};
use crate::library::LibraryPath;

/// Numbers what is in the trash; a number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrashId(pub i64);

/// Why a file is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrashReason {
    /// Its owner updated it.
    Replaced,
    /// Its owner deleted it.
    Deleted,
    /// Its bytes were not those that were shared any more, and a sound copy took its place.
    Damaged,
}

impl TrashReason {
    /// A word for tables and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Deleted => "deleted",
            Self::Damaged => "damaged",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Replaced, Self::Deleted, Self::Damaged].into_iter().find(|reason| reason.as_str() == text)
    }
}

/// A file in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// Which file it was.
    pub file: FileId,
    /// The owner's name.
    pub owner_name: MemberName,
    /// The file's name at its owner's.
    pub name: FileName,
    /// Whether it was this branch's own.
    pub own: bool,
    /// Where it lay in the library.
    pub path: LibraryPath,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its SHA-256, where known.
    pub sha256: Option<Sha256>,
    /// Which revision of the file it was a copy of.
    pub revision: u64,
    /// Why it is here.
    pub reason: TrashReason,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

const COLUMNS: &str = "id, file, owner_name, name, own, path, size_bytes, sha256, revision, reason, since_ms";

impl Database {
    /// Notes that a file is about to be moved to the trash, and gives it its number there.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn plan_trash(&self, trashed: &Trashed) -> Result<TrashId, DatabaseError> {
        let connection = self.connection();
        let sql = "INSERT INTO trash (file, owner_name, name, own, path, size_bytes, sha256, revision, reason, since_ms,
                planned) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1)";
        connection.prepare_cached(sql)?.execute(rusqlite::params![
            &trashed.file.as_bytes()[..],
            trashed.owner_name.as_str(),
            trashed.name.as_str(),
            trashed.own,
            trashed.path.as_str(),
            integer(trashed.size_bytes),
            trashed.sha256.as_ref().map(|sum| &sum.as_bytes()[..]),
            integer(trashed.revision),
            trashed.reason.as_str(),
            integer(trashed.since_ms),
        ])?;
        Ok(TrashId(connection.last_insert_rowid()))
    }

    /// The file is in the trash and no copy of the library any more, in one step.
    ///
    /// # Errors
    /// [`DatabaseError`]; then neither is noted.
    pub fn trash_copy(&self, id: TrashId, file: &FileId) -> Result<(), DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        end_plan(&transaction, id)?;
        let removed = copies::take(&transaction, file)?;
        copies::sweep(&transaction, removed)?;
        Ok(transaction.commit()?)
    }

    /// The plans that were not ended: the node was, in the middle.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn planned_trash(&self) -> Result<Vec<(TrashId, Trashed)>, DatabaseError> {
        self.select_trash("planned ORDER BY id", [])
    }

    /// Ends a plan whose file is in the trash.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn keep_trash(&self, id: TrashId) -> Result<(), DatabaseError> {
        self.connection().prepare_cached("UPDATE trash SET planned = 0 WHERE id = ?1")?.execute([id.0])?;
        Ok(())
    }

    /// Takes a file off the list; `false` where it was not on it.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn forget_trash(&self, id: TrashId) -> Result<bool, DatabaseError> {
        Ok(self.connection().prepare_cached("DELETE FROM trash WHERE id = ?1")?.execute([id.0])? > 0)
    }

    /// What is in the trash, the latest first, only what came before `before`, at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn trash(
        &self,
        before: Option<TrashId>,
        limit: u32,
    ) -> Result<Vec<(TrashId, Trashed)>, DatabaseError> {
        let before = before.map_or(i64::MAX, |id| id.0);
        self.select_trash("NOT planned AND id < ?1 ORDER BY id DESC LIMIT ?2", (before, limit))
    }

    /// One of them.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn trashed(&self, id: TrashId) -> Result<Option<Trashed>, DatabaseError> {
        Ok(self.select_trash("NOT planned AND id = ?1", [id.0])?.pop().map(|(_, trashed)| trashed))
    }

    /// What the trash has of a file.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn trash_of(&self, file: &FileId) -> Result<Vec<TrashId>, DatabaseError> {
        let found = self.select_trash("NOT planned AND file = ?1", [&file.as_bytes()[..]])?;
        Ok(found.into_iter().map(|(id, _)| id).collect())
    }

    /// What has been in the trash since before a moment, in milliseconds since 1970, at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn trash_before(&self, moment_ms: u64, limit: u32) -> Result<Vec<TrashId>, DatabaseError> {
        let found = self.select_trash(
            "NOT planned AND since_ms < ?1 ORDER BY id LIMIT ?2",
            (integer(moment_ms), limit),
        )?;
        Ok(found.into_iter().map(|(id, _)| id).collect())
    }

    /// How many files are in the trash, and their bytes.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn trash_size(&self) -> Result<(u64, u64), DatabaseError> {
        let sql = "SELECT count(*), coalesce(sum(size_bytes), 0) FROM trash WHERE NOT planned";
        let (files, bytes): (i64, i64) = self
            .connection()
            .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
            .unwrap_or_default();
        Ok((unsigned(files, "the trash")?, unsigned(bytes, "the trash")?))
    }

    fn select_trash(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<(TrashId, Trashed)>, DatabaseError> {
        let connection = self.connection();
        let mut rows =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM trash WHERE {condition}"))?;
        let mut rows = rows.query(values)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

pub(super) fn end_plan(transaction: &Transaction<'_>, id: TrashId) -> rusqlite::Result<()> {
    transaction.prepare_cached("UPDATE trash SET planned = 0 WHERE id = ?1")?.execute([id.0]).map(drop)
}

fn read(row: &Row<'_>) -> Result<(TrashId, Trashed), DatabaseError> {
    let damaged = || DatabaseError::Damaged("the trash's list");
    let (owner_name, name, path, reason): (String, String, String, String) =
        (row.get(2)?, row.get(3)?, row.get(5)?, row.get(9)?);
    let trashed = Trashed {
        file: FileId::from_bytes(row.get(1)?),
        owner_name: MemberName::new(&owner_name).map_err(|_| damaged())?,
        name: FileName::new(&name).map_err(|_| damaged())?,
        own: row.get(4)?,
        path: LibraryPath::parse(&path).ok_or_else(damaged)?,
        size_bytes: unsigned(row.get(6)?, "the trash's list")?,
        sha256: row.get::<_, Option<[u8; 32]>>(7)?.map(Sha256::from_bytes),
        revision: unsigned(row.get(8)?, "the trash's list")?,
        reason: TrashReason::parse(&reason).ok_or_else(damaged)?,
        since_ms: unsigned(row.get(10)?, "the trash's list")?,
    };
    Ok((TrashId(row.get(0)?), trashed))
}
