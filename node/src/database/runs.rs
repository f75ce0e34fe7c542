//! How runs begin and end: whether the inventory's numbering can be continued.

use quarta_protocols::messages::inventory::Position;
use rusqlite::OptionalExtension;

use super::{Database, DatabaseError, integer, unsigned};

impl Database {
    /// Begins a run. Gives where the inventory had got to if the run before ended cleanly; otherwise the caller must
    /// number from a fresh epoch. Should this run not end cleanly, the next will find nothing.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn begin_run(&self) -> Result<Option<Position>, DatabaseError> {
        let sql = "DELETE FROM clean_end RETURNING epoch, revision";
        let row = self
            .connection()
            .query_row(sql, [], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        row.map(|(epoch, revision)| {
            let epoch = epoch.try_into().map_err(|_| DatabaseError::Damaged("the inventory's epoch"))?;
            let revision = unsigned(revision, "the inventory's revision")?;
            Ok(Position { epoch: u64::from_be_bytes(epoch), revision })
        })
        .transpose()
    }

    /// Ends a run cleanly, with the inventory at `position`. Nothing may change the inventory after this.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn end_run(&self, position: Position) -> Result<(), DatabaseError> {
        let sql = "INSERT OR REPLACE INTO clean_end (only, epoch, revision) VALUES (1, ?1, ?2)";
        let epoch = position.epoch.to_be_bytes();
        self.connection().prepare_cached(sql)?.execute((&epoch[..], integer(position.revision)))?;
        Ok(())
    }
}
