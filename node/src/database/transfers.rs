//! The history of transfers.

use libp2p::PeerId;
use quarta_protocols::{
    ids::{FileId, Sha256},
    names::{FileName, MemberName},
};
use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::{Database, DatabaseError, integer, unsigned};

/// Transfers remembered; the oldest go first. A busy branch makes a few hundred a day.
pub const TRANSFERS_KEPT: u32 = 10_000;

/// Names one transfer of this node, counting up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransferId(pub i64);

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To this node.
    Download,
    /// From this node.
    Upload,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Under way.
    Running,
    /// All of it arrived and was verified.
    Done,
    /// It was given up.
    Failed,
    /// Its user or the other side cancelled it.
    Cancelled,
    /// The daemon ended meanwhile.
    Interrupted,
}

/// What one other member contributed to a transfer, or received by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The other member.
    pub peer: PeerId,
    /// Its name, where known.
    pub name: Option<MemberName>,
    /// What carried the bytes, e.g. `tcp` or `quic`.
    pub transport: Option<String>,
    /// Verified plaintext bytes.
    pub bytes: u64,
    /// For how long bytes were under way, in milliseconds.
    pub busy_ms: u64,
    /// Why it was given up as a source, if it was.
    #[serde(default)]
    pub dropped: Option<String>,
}

/// One transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The file.
    pub file: FileId,
    /// The file's name then.
    pub name: FileName,
    /// Which way.
    pub direction: Direction,
    /// How far.
    pub state: TransferState,
    /// Why it failed.
    pub problem: Option<String>,
    /// The file's size, in bytes.
    pub size_bytes: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// The whole file's verified checksum, once a download is done.
    pub sha256: Option<Sha256>,
    /// From whom, or to whom.
    pub shares: Vec<Share>,
}

const COLUMNS: &str =
    "id, file, name, direction, state, problem, size_bytes, bytes, started_ms, ended_ms, sha256, shares";

impl Database {
    /// Notes a transfer that begins, and forgets the oldest beyond [`TRANSFERS_KEPT`].
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn begin_transfer(&self, transfer: &Transfer) -> Result<TransferId, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let sql =
            "INSERT INTO transfers (file, name, direction, state, problem, size_bytes, bytes, started_ms,
            ended_ms, sha256, shares) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        transaction.execute(
            sql,
            rusqlite::params![
                &transfer.file.as_bytes()[..],
                transfer.name.as_str(),
                word(&transfer.direction),
                word(&transfer.state),
                transfer.problem,
                integer(transfer.size_bytes),
                integer(transfer.bytes),
                integer(transfer.started_ms),
                transfer.ended_ms.map(integer),
                transfer.sha256.as_ref().map(|sum| &sum.as_bytes()[..]),
                json(&transfer.shares),
            ],
        )?;
        let id = transaction.last_insert_rowid();
        transaction.execute("DELETE FROM transfers WHERE id <= ?1 - ?2", (id, TRANSFERS_KEPT))?;
        transaction.commit()?;
        Ok(TransferId(id))
    }

    /// Notes how a transfer stands: its state, problem, bytes, end, checksum and shares.
    ///
    /// # Errors
    /// [`DatabaseError`]; a transfer that is forgotten already is none.
    pub fn update_transfer(&self, id: TransferId, transfer: &Transfer) -> Result<(), DatabaseError> {
        let sql = "UPDATE transfers SET state = ?2, problem = ?3, bytes = ?4, ended_ms = ?5, sha256 = ?6,
            shares = ?7 WHERE id = ?1";
        self.connection().execute(
            sql,
            rusqlite::params![
                id.0,
                word(&transfer.state),
                transfer.problem,
                integer(transfer.bytes),
                transfer.ended_ms.map(integer),
                transfer.sha256.as_ref().map(|sum| &sum.as_bytes()[..]),
                json(&transfer.shares),
            ],
        )?;
        Ok(())
    }

    /// Marks what was running when the last run ended. For the start, before any transfer.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn interrupt_transfers(&self, now_ms: u64) -> Result<usize, DatabaseError> {
        let sql = "UPDATE transfers SET state = ?1, ended_ms = ?2 WHERE state = ?3";
        let states = (word(&TransferState::Interrupted), integer(now_ms), word(&TransferState::Running));
        Ok(self.connection().execute(sql, states)?)
    }

    /// One transfer.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn transfer(&self, id: TransferId) -> Result<Option<Transfer>, DatabaseError> {
        let sql = format!("SELECT {COLUMNS} FROM transfers WHERE id = ?1");
        let raw = self.connection().query_row(&sql, [id.0], raw).optional()?;
        Ok(raw.map(read).transpose()?.map(|(_, transfer)| transfer))
    }

    /// The newest `limit` transfers before `before`, newest first.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn transfers(
        &self,
        before: Option<TransferId>,
        limit: u32,
    ) -> Result<Vec<(TransferId, Transfer)>, DatabaseError> {
        let connection = self.connection();
        let sql = format!("SELECT {COLUMNS} FROM transfers WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        let mut rows = connection.prepare(&sql)?;
        let before = before.map_or(i64::MAX, |id| id.0);
        rows.query_map((before, limit), raw)?.map(|row| read(row?)).collect()
    }
}

struct Raw {
    id: i64,
    file: [u8; 32],
    name: String,
    direction: String,
    state: String,
    problem: Option<String>,
    size_bytes: i64,
    bytes: i64,
    started_ms: i64,
    ended_ms: Option<i64>,
    sha256: Option<[u8; 32]>,
    shares: String,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        id: row.get(0)?,
        file: row.get(1)?,
        name: row.get(2)?,
        direction: row.get(3)?,
        state: row.get(4)?,
        problem: row.get(5)?,
        size_bytes: row.get(6)?,
        bytes: row.get(7)?,
        started_ms: row.get(8)?,
        ended_ms: row.get(9)?,
        sha256: row.get(10)?,
        shares: row.get(11)?,
    })
}

fn read(raw: Raw) -> Result<(TransferId, Transfer), DatabaseError> {
    let damaged = DatabaseError::Damaged;
    let transfer = Transfer {
        file: FileId::from_bytes(raw.file),
        name: FileName::new(&raw.name).map_err(|_| damaged("a transfer's name"))?,
        direction: of_word(raw.direction).ok_or(damaged("a transfer's direction"))?,
        state: of_word(raw.state).ok_or(damaged("a transfer's state"))?,
        problem: raw.problem,
        size_bytes: unsigned(raw.size_bytes, "a transfer's size")?,
        bytes: unsigned(raw.bytes, "a transfer's bytes")?,
        started_ms: unsigned(raw.started_ms, "a transfer's start")?,
        ended_ms: raw.ended_ms.map(|ms| unsigned(ms, "a transfer's end")).transpose()?,
        sha256: raw.sha256.map(Sha256::from_bytes),
        shares: serde_json::from_str(&raw.shares).map_err(|_| damaged("a transfer's sources"))?,
    };
    Ok((TransferId(raw.id), transfer))
}

/// The word that serde has for a variant without fields.
fn word<T: Serialize>(value: &T) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}

fn of_word<T: for<'a> Deserialize<'a>>(word: String) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word)).ok()
}

fn json(shares: &[Share]) -> Option<String> {
    serde_json::to_string(shares).ok()
}
