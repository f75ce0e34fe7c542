//! The node's own database: `DATA/node.db`.
//!
//! It remembers what this node holds ([`LibraryCopy`]), every record it has verified ([`KnownFile`]), so that files are listed
//! with every super-peer down, which files are hidden from it, all members with how they are or how their membership ended, how far each super-peer was
//! followed, who was a source of what, its transfers, which copies are to follow a newer record, what is in the trash, and
//! how its last run ended. What a method has
//! acknowledged survives a power loss: `SQLite` with a write-ahead log and `synchronous=FULL`.
//!
//! Typed methods only; no SQL outside this module. All block on the disk and share one connection, so they take turns:
//! each is a handful of row accesses, and lists come in pages.

mod audiences;
mod copies;
mod endings;
mod handovers;
mod hidden;
mod members;
mod migration;
mod mirror;
mod outdated;
mod records;
mod runs;
mod scrub;
mod sources;
mod transfers;
mod trash;

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use self::migration::{FORMAT, SCHEMA_4, SCHEMA_5};
pub use self::{
    audiences::OwnAudience,
    copies::{LibraryCopy, Provenance},
    endings::Endings,
    handovers::Handover,
    members::KnownMember,
    mirror::{Page, Taken},
    outdated::Outdated,
    records::{KnownFile, Listing},
    sources::{SOURCES_KEPT, SOURCES_OF_A_CONTENT},
    transfers::{Direction, Share, TRANSFERS_KEPT, Transfer, TransferId, TransferState},
    trash::{TrashId, TrashReason, Trashed},
};

/// The file's name in the data folder.
pub const FILE_NAME: &str = "node.db";
/// Marks the file as a node's: `QNOD`. A super-peer's has another.
const APPLICATION_ID: i32 = 0x514e_4f44;
/// How long to wait for somebody who looks at the file with another program.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements kept: as many as there are, so that none is parsed anew for each page of the feed.
const STATEMENTS_KEPT: usize = 128;

/// The tables of format 3; [`migration::SCHEMA_4`] and [`migration::SCHEMA_5`] add those of later formats.
const SCHEMA: &str = include_str!("database/schema.sql");

/// Why the database does not answer.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file cannot be created or opened.
    #[error("cannot open the database {}: {cause}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is of something else.
    #[error("{} is not a Quarta node's database; is this another program's data folder?", .0.display())]
    Foreign(PathBuf),
    /// The file is of another version of Quarta.
    #[error(
        "the database {} has format {found}, this version reads formats up to {FORMAT}; use the version that wrote it",
        path.display()
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: i32,
    },
    /// A row does not say what it should: the file was damaged or edited.
    #[error("the database is damaged: {0} is not readable; restore it from a backup")]
    Damaged(&'static str),
    /// `SQLite` fails.
    #[error("the database failed: {}", words(.0))]
    Sqlite(#[from] rusqlite::Error),
}

/// The open database. Share it between threads.
#[derive(Debug)]
pub struct Database {
    connection: Mutex<Connection>,
    /// How often all feeds were begun anew: see [`Page::reading`].
    readings: AtomicU64,
}

impl Database {
    /// Opens a node's database, creating it (readable by its user only) where it is missing.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        // Made here, since SQLite would make it readable by everybody; its side files take over the mode.
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|cause| DatabaseError::Open { path: path.to_owned(), cause })?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let number = |connection: &Connection, pragma| {
            connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0))
        };
        let foreign = |error| match error {
            rusqlite::Error::SqliteFailure(cause, _) if cause.code == rusqlite::ErrorCode::NotADatabase => {
                DatabaseError::Foreign(path.to_owned())
            }
            other => other.into(),
        };
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(foreign)?;
        let (application, format) =
            (number(&connection, "application_id")?, number(&connection, "user_version")?);
        match (application, format) {
            (0, 0) if tables == 0 => {}
            (APPLICATION_ID, known) if migration::is_known(known) => {}
            (APPLICATION_ID, found) => return Err(DatabaseError::Format { path: path.to_owned(), found }),
            _ => return Err(DatabaseError::Foreign(path.to_owned())),
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // Else a statement with a bound value is planned anew for each value.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        if tables == 0 {
            let transaction = connection.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.execute_batch(SCHEMA_4)?;
            transaction.execute_batch(SCHEMA_5)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", FORMAT)?;
            transaction.commit()?;
        } else {
            migration::migrate(&mut connection, format)?;
        }
        Ok(Self { connection: Mutex::new(connection), readings: AtomicU64::new(0) })
    }

    /// Writes a page as it is, to find out whether the disk takes it.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn probe(&self) -> Result<(), DatabaseError> {
        Ok(self.connection().pragma_update(None, "user_version", FORMAT)?)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic interrupted was rolled back when it was dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `SQLite`'s errors that people meet, in plain words.
fn words(error: &rusqlite::Error) -> String {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseCorrupt, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(DiskFull) => "the disk is full".to_owned(),
        Some(ReadOnly) => "the disk or the file is read-only".to_owned(),
        Some(SystemIoFailure) => "the disk reports an error".to_owned(),
        Some(CannotOpen | PermissionDenied) => "its file cannot be opened".to_owned(),
        Some(DatabaseCorrupt) => "its file is damaged".to_owned(),
        _ => error.to_string(),
    }
}

/// The columns' integers are signed; sizes and counters stay far below the difference.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The other way; a negative number can only be damage.
fn unsigned(value: i64, what: &'static str) -> Result<u64, DatabaseError> {
    u64::try_from(value).map_err(|_| DatabaseError::Damaged(what))
}

fn peer(bytes: &[u8], what: &'static str) -> Result<libp2p::PeerId, DatabaseError> {
    libp2p::PeerId::from_bytes(bytes).map_err(|_| DatabaseError::Damaged(what))
}

/// The first and the last id that begin with the hexadecimal digits given; none where they are not such digits.
fn id_range(prefix: &str) -> Option<([u8; 32], [u8; 32])> {
    let digits = !prefix.is_empty() && prefix.len() <= 64 && prefix.bytes().all(|b| b.is_ascii_hexdigit());
    let padded = |fill: &str| {
        let text = format!("{}{}", prefix.to_ascii_lowercase(), fill.repeat(64 - prefix.len()));
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
    };
    digits.then(|| Some((padded("0")?, padded("f")?))).flatten()
}

#[cfg(test)]
mod tests;
