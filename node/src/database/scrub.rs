//! How far the library has been read through.

use quarta_protocols::ids::FileId;
use rusqlite::OptionalExtension;

use super::{Database, DatabaseError, integer, unsigned};
use crate::scrub::Round;

impl Database {
    /// The last round of reading; none before the first.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn library_scrub(&self) -> Result<Option<Round>, DatabaseError> {
        type Row = (Option<[u8; 32]>, i64, Option<i64>);
        let sql = "SELECT after, began_ms, ended_ms FROM library_scrub";
        let row: Option<Row> = self
            .connection()
            .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        row.map(|(after, began, ended)| {
            Ok(Round {
                after: after.map(FileId::from_bytes),
                began_ms: unsigned(began, "how far the library was read")?,
                ended_ms: ended.map(|ended| unsigned(ended, "how far the library was read")).transpose()?,
            })
        })
        .transpose()
    }

    /// Notes how far the reading is.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn set_library_scrub(&self, round: &Round) -> Result<(), DatabaseError> {
        let sql =
            "INSERT OR REPLACE INTO library_scrub (only, after, began_ms, ended_ms) VALUES (1, ?1, ?2, ?3)";
        let after = round.after.as_ref().map(|file| &file.as_bytes()[..]);
        self.connection().prepare_cached(sql)?.execute((
            after,
            integer(round.began_ms),
            round.ended_ms.map(integer),
        ))?;
        Ok(())
    }
}
