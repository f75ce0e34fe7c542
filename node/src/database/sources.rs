//! Who was a source of a content lately: whom to ask for it when no super-peer can be asked.

use std::time::Duration;

use libp2p::PeerId;
use quarta_protocols::ids::ContentId;

use super::{Database, DatabaseError, integer, peer};

/// Sources that are given of one content, the latest first: a fetch rarely gains from more.
pub const SOURCES_OF_A_CONTENT: u32 = 32;
/// Sources that are kept in all, some ten megabytes: the latest of those that were fetched and asked for.
pub const SOURCES_KEPT: i64 = 100_000;
/// How long a source that is known is not noted again: a running fetch asks for sources every few seconds.
const NOTED_AGAIN_AFTER: Duration = Duration::from_hours(1);

impl Database {
    /// Notes that these are sources of a content.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn remember_sources(
        &self,
        content: &ContentId,
        peers: &[PeerId],
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        let lately = now_ms.saturating_sub(u64::try_from(NOTED_AGAIN_AFTER.as_millis()).unwrap_or(u64::MAX));
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let content = &content.as_bytes()[..];
        let mut noted = 0;
        for source in peers {
            // A new row each time, so that the ids are in the order of time.
            let sql = "INSERT OR REPLACE INTO sources (content, peer, seen_ms) SELECT ?1, ?2, ?3
                WHERE NOT EXISTS (SELECT 1 FROM sources WHERE content = ?1 AND peer = ?2 AND seen_ms > ?4)";
            let values = rusqlite::params![content, source.to_bytes(), integer(now_ms), integer(lately)];
            noted += transaction.prepare_cached(sql)?.execute(values)?;
        }
        // What is known already costs no write.
        if noted > 0 {
            let sql = "DELETE FROM sources WHERE id <= (SELECT max(id) FROM sources) - ?1";
            transaction.prepare_cached(sql)?.execute([SOURCES_KEPT])?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// The latest sources of a content, at most [`SOURCES_OF_A_CONTENT`].
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn sources(&self, content: &ContentId) -> Result<Vec<PeerId>, DatabaseError> {
        let connection = self.connection();
        let sql = "SELECT peer FROM sources WHERE content = ?1 ORDER BY id DESC LIMIT ?2";
        let mut rows = connection.prepare_cached(sql)?;
        rows.query_map(rusqlite::params![&content.as_bytes()[..], SOURCES_OF_A_CONTENT], |row| {
            row.get::<_, Vec<u8>>(0)
        })?
        .map(|bytes| peer(&bytes?, "a source"))
        .collect()
    }
}
