//! The transfers of this node: those that go on, and the history of the others.

use libp2p::PeerId;
use quarta_protocols::{
    ids::{ContentId, FileId, Sha256},
    names::{FileName, MemberName},
};
use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::{Database, DatabaseError, id_range, integer, unsigned};
use crate::library::PartialName;

/// Ended transfers remembered, about; the oldest go first. A busy branch makes a few hundred a day.
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
    /// Under way, or to go on as soon as the daemon runs.
    Running,
    /// No source is available; it goes on by itself.
    Waiting,
    /// Its user stopped it for a while.
    Paused,
    /// All of it arrived and was verified.
    Done,
    /// It was given up.
    Failed,
    /// Its user or the other side cancelled it.
    Cancelled,
    /// The daemon ended meanwhile. Only of versions whose transfers did not go on.
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
    /// From whom, or to whom, since it last began or went on.
    pub shares: Vec<Share>,
    /// The owner's name then; none for transfers of old versions.
    pub owner: Option<MemberName>,
    /// Of which content there may be partial data.
    pub content: Option<ContentId>,
    /// Bytes that were here when it last began or went on.
    pub resumed_bytes: u64,
}

impl Transfer {
    /// Under which name its partial data lies, if there may be any.
    pub fn partial(&self) -> Option<PartialName> {
        self.content.map(|content| PartialName { file: self.file, content })
    }
}

const COLUMNS: &str = "id, file, name, direction, state, problem, size_bytes, bytes, started_ms, ended_ms, sha256, shares, \
    owner, content, resumed";

impl Database {
    /// Notes a transfer that begins, and forgets those beyond the latest [`TRANSFERS_KEPT`] that have ended and left
    /// nothing.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn begin_transfer(&self, transfer: &Transfer) -> Result<TransferId, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let sql =
            "INSERT INTO transfers (file, name, direction, state, problem, size_bytes, bytes, started_ms,
            ended_ms, sha256, shares, owner, content, resumed)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        transaction.prepare_cached(sql)?.execute(rusqlite::params![
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
            transfer.owner.as_ref().map(MemberName::as_str),
            transfer.content.as_ref().map(|content| &content.as_bytes()[..]),
            integer(transfer.resumed_bytes),
        ])?;
        let id = transaction.last_insert_rowid();
        let old =
            "DELETE FROM transfers WHERE id <= ?1 - ?2 AND content IS NULL AND state NOT IN (?3, ?4, ?5)";
        let open = [TransferState::Running, TransferState::Waiting, TransferState::Paused].map(|s| word(&s));
        transaction.prepare_cached(old)?.execute(rusqlite::params![
            id,
            TRANSFERS_KEPT,
            open[0],
            open[1],
            open[2]
        ])?;
        transaction.commit()?;
        Ok(TransferId(id))
    }

    /// Notes how a transfer stands: everything but its file, direction and start.
    ///
    /// # Errors
    /// [`DatabaseError`]; a transfer that is forgotten already is none.
    pub fn update_transfer(&self, id: TransferId, transfer: &Transfer) -> Result<(), DatabaseError> {
        let sql = "UPDATE transfers SET state = ?2, problem = ?3, bytes = ?4, ended_ms = ?5, sha256 = ?6,
            shares = ?7, name = ?8, size_bytes = ?9, owner = ?10, content = ?11, resumed = ?12 WHERE id = ?1";
        self.connection().prepare_cached(sql)?.execute(rusqlite::params![
            id.0,
            word(&transfer.state),
            transfer.problem,
            integer(transfer.bytes),
            transfer.ended_ms.map(integer),
            transfer.sha256.as_ref().map(|sum| &sum.as_bytes()[..]),
            json(&transfer.shares),
            transfer.name.as_str(),
            integer(transfer.size_bytes),
            transfer.owner.as_ref().map(MemberName::as_str),
            transfer.content.as_ref().map(|content| &content.as_bytes()[..]),
            integer(transfer.resumed_bytes),
        ])?;
        Ok(())
    }

    /// The downloads that were running or waiting when the last run ended, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn unfinished_downloads(&self, limit: u32) -> Result<Vec<(TransferId, Transfer)>, DatabaseError> {
        self.select_transfers(
            "direction = ?1 AND state IN (?2, ?3) ORDER BY id LIMIT ?4",
            rusqlite::params![
                word(&Direction::Download),
                word(&TransferState::Running),
                word(&TransferState::Waiting),
                limit
            ],
        )
    }

    /// The latest transfer of a file that may have left partial data.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn transfer_with_data(&self, file: &FileId) -> Result<Option<(TransferId, Transfer)>, DatabaseError> {
        let condition = "file = ?1 AND content IS NOT NULL ORDER BY id DESC LIMIT 1";
        Ok(self.select_transfers(condition, [&file.as_bytes()[..]])?.pop())
    }

    /// All partial data that a transfer may go on with.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn partial_names(&self) -> Result<Vec<PartialName>, DatabaseError> {
        let connection = self.connection();
        let mut rows =
            connection.prepare("SELECT DISTINCT file, content FROM transfers WHERE content IS NOT NULL")?;
        Ok(rows.query_map([], partial_name)?.collect::<Result<_, _>>()?)
    }

    /// Gives up the partial data of transfers that failed before `before_ms`, and says which that is.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn expire_partials(&self, before_ms: u64) -> Result<Vec<PartialName>, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let expired = "WHERE content IS NOT NULL AND state = ?1 AND ended_ms < ?2";
        let values = || (word(&TransferState::Failed), integer(before_ms));
        let names = transaction
            .prepare(&format!("SELECT file, content FROM transfers {expired}"))?
            .query_map(values(), partial_name)?
            .collect::<Result<_, _>>()?;
        transaction
            .prepare_cached(&format!("UPDATE transfers SET content = NULL {expired}"))?
            .execute(values())?;
        transaction.commit()?;
        Ok(names)
    }

    /// The latest transfers of each file whose name is `reference`, or whose id begins with it, at most `limit` files;
    /// with `owner`, only of files that were of a member of that name.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn transfers_of(
        &self,
        owner: Option<&str>,
        reference: &str,
        limit: u32,
    ) -> Result<Vec<(TransferId, Transfer)>, DatabaseError> {
        let named = "id IN (SELECT max(id) FROM transfers WHERE name = ?1 AND (?2 IS NULL OR owner = ?2)
            GROUP BY file) ORDER BY id DESC LIMIT ?3";
        let found = self.select_transfers(named, rusqlite::params![reference, owner, limit])?;
        let Some((first, last)) = id_range(reference).filter(|_| found.is_empty() && owner.is_none()) else {
            return Ok(found);
        };
        let by_id = "id IN (SELECT max(id) FROM transfers WHERE file BETWEEN ?1 AND ?2 GROUP BY file)
            ORDER BY id DESC LIMIT ?3";
        self.select_transfers(by_id, (&first[..], &last[..], limit))
    }

    /// One transfer.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn transfer(&self, id: TransferId) -> Result<Option<Transfer>, DatabaseError> {
        let sql = format!("SELECT {COLUMNS} FROM transfers WHERE id = ?1");
        let raw = self.connection().prepare_cached(&sql)?.query_row([id.0], raw).optional()?;
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
        let before = before.map_or(i64::MAX, |id| id.0);
        self.select_transfers("id < ?1 ORDER BY id DESC LIMIT ?2", (before, limit))
    }

    /// Forgets all transfers of a file; how many that were.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn forget_transfers(&self, file: &FileId) -> Result<usize, DatabaseError> {
        let sql = "DELETE FROM transfers WHERE file = ?1";
        Ok(self.connection().prepare_cached(sql)?.execute([&file.as_bytes()[..]])?)
    }

    fn select_transfers(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<(TransferId, Transfer)>, DatabaseError> {
        let connection = self.connection();
        let mut rows =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM transfers WHERE {condition}"))?;
        rows.query_map(values, raw)?.map(|row| read(row?)).collect()
    }
}

fn partial_name(row: &Row<'_>) -> rusqlite::Result<PartialName> {
    Ok(PartialName { file: FileId::from_bytes(row.get(0)?), content: ContentId::from_bytes(row.get(1)?) })
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
    owner: Option<String>,
    content: Option<[u8; 32]>,
    resumed: i64,
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
        owner: row.get(12)?,
        content: row.get(13)?,
        resumed: row.get(14)?,
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
        owner: raw
            .owner
            .map(|name| MemberName::new(&name).map_err(|_| damaged("a transfer's owner")))
            .transpose()?,
        content: raw.content.map(ContentId::from_bytes),
        resumed_bytes: unsigned(raw.resumed, "a transfer's resumed bytes")?,
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
