//! Following the catalog: what changed after a number, and whether a number is this database's own.
//!
//! A follower remembers the run that told it a number, and the number. Both are needed: a database restored from a
//! backup gives numbers a second time, for other changes. It has lost the runs that came after the backup, and knows of
//! every run that it remembers up to which number its own past goes.

use quarta_protocols::{
    ids::{AudienceId, ID_BYTES},
    messages::sync::Kind,
};
use rusqlite::{OptionalExtension, params};

use super::{
    Catalog, CatalogError, Reader,
    reader::peer,
    sight::{Restriction, Rules, Sight},
};

/// Runs that are remembered: years of daily restarts. A follower from before begins anew, which costs it one reading.
const RUNS_KEPT: u32 = 10_000;

/// An entry as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The number of its last change.
    pub sequence: u64,
    /// What the payload is.
    pub kind: Kind,
    /// What it is about.
    pub id: [u8; ID_BYTES],
    /// The encoded entry, verified when it was stored.
    pub payload: Vec<u8>,
    /// Who may see it.
    pub sight: Sight,
}

/// Entries in the order of their last change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangePage {
    /// At most as many as were asked for.
    pub changes: Vec<Change>,
    /// Whether more follow.
    pub more: bool,
}

impl Catalog {
    /// The number of the latest change; 0 for an empty catalog.
    pub const fn sequence(&self) -> u64 {
        self.totals.sequence
    }

    /// What tells this database from every other, drawn when it was made.
    pub const fn store(&self) -> [u8; 16] {
        self.store
    }

    /// Notes that a run of the process begins, before it tells anybody a number. `run` is 64 fresh random bits.
    ///
    /// # Errors
    /// [`CatalogError`]; then no number may be told under this run.
    pub fn begin_run(&mut self, run: u64) -> Result<(), CatalogError> {
        let sequence = i64::try_from(self.totals.sequence).map_err(CatalogError::damaged)?;
        let tx = self.conn.transaction()?;
        tx.execute("INSERT INTO runs (run, sequence) VALUES (?1, ?2)", params![run.cast_signed(), sequence])?;
        tx.execute("DELETE FROM runs WHERE place <= (SELECT max(place) FROM runs) - ?1", [RUNS_KEPT])?;
        tx.commit()?;
        self.run = Some(run);
        Ok(())
    }

    /// The run that goes on; none before [`Self::begin_run`].
    pub const fn run(&self) -> Option<u64> {
        self.run
    }
}

impl Reader {
    /// Whether a follower that was told the number `reached` by this run can go on from there: the run is one of this
    /// database's, and so is all that it had done by then.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn knows_run(&self, run: u64, reached: u64) -> Result<bool, CatalogError> {
        let place: Option<i64> = self
            .conn
            .prepare_cached("SELECT place FROM runs WHERE run = ?1")?
            .query_row([run.cast_signed()], |row| row.get(0))
            .optional()?;
        let Some(place) = place else { return Ok(false) };
        // The run's numbers end where the next run began; the last run's where the catalog is now.
        let next: Option<i64> = self
            .conn
            .prepare_cached("SELECT sequence FROM runs WHERE place > ?1 ORDER BY place LIMIT 1")?
            .query_row([place], |row| row.get(0))
            .optional()?;
        let end = match next {
            Some(end) => end,
            None => {
                self.conn.query_row("SELECT ifnull(max(sequence), 0) FROM entries", [], |row| row.get(0))?
            }
        };
        Ok(u64::try_from(end).is_ok_and(|end| reached <= end))
    }

    /// What stands in the catalog and was last changed after a number, in that order; events of the audit trail are left
    /// out. A page ends at `limit_entries`, or with the entry that reaches `limit_bytes` of payloads.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn since(
        &self,
        sequence: u64,
        limit_entries: usize,
        limit_bytes: usize,
    ) -> Result<ChangePage, CatalogError> {
        let mut rows = self.conn.prepare_cached(SINCE)?;
        let mut rows = rows.query([i64::try_from(sequence).unwrap_or(i64::MAX)])?;
        let (mut page, mut bytes, mut rules) = (ChangePage::default(), 0, Rules::default());
        while let Some(row) = rows.next()? {
            if page.changes.len() >= limit_entries.max(1) || (bytes >= limit_bytes && bytes > 0) {
                page.more = true;
                break;
            }
            let payload: Vec<u8> = row.get(3)?;
            bytes += payload.len();
            let kind = Kind(row.get(1)?);
            let restriction = match row.get::<_, Option<[u8; ID_BYTES]>>(4)? {
                Some(audience) => Some(Restriction {
                    audience: AudienceId::from_bytes(audience),
                    owner: peer(row, 5)?,
                    always: row.get(6)?,
                }),
                None => None,
            };
            page.changes.push(Change {
                sequence: u64::try_from(row.get::<_, i64>(0)?).map_err(CatalogError::damaged)?,
                kind,
                id: row.get(2)?,
                sight: self.sight(kind, &payload, restriction, &mut rules)?,
                payload,
            });
        }
        Ok(page)
    }
}

/// In the words of the index that leaves events out, so that it can be used.
pub(super) const SINCE: &str = "SELECT sequence, kind, id, payload, r.audience, r.owner, r.always
    FROM entries INDEXED BY entries_followed LEFT JOIN restrictions AS r ON r.row = entries.row
    WHERE kind <> 5 AND sequence > ?1 ORDER BY sequence";
