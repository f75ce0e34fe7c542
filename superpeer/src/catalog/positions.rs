//! Entries by their position, for reconciling with another super-peer.

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    limits::{PAGE_FILL_BYTES, SYNC_PAGE_ENTRIES},
    messages::sync::{Entry, Item, Kind, Position},
};
use rusqlite::{Row, Transaction, params};
use serde_bytes::{ByteArray, ByteBuf};

use super::{CatalogError, Reader, pages::ENTRY_FRAME_BYTES, standing::STANDING};
use crate::reconciliation::answer::{Items, Stretch};

/// The column's value for a position: its 48 bits.
pub(super) fn column(position: Position) -> i64 {
    i64::try_from(u64::from(position)).unwrap_or(i64::MAX)
}

/// Gives a position to entries that were written before there were positions.
pub(super) fn fill(tx: &Transaction<'_>) -> Result<(), CatalogError> {
    let mut entries = tx.prepare("SELECT row, kind, id FROM entries WHERE position IS NULL")?;
    let mut update = tx.prepare("UPDATE entries SET position = ?2 WHERE row = ?1")?;
    let mut rows = entries.query([])?;
    while let Some(row) = rows.next()? {
        let position = Position::of(Kind(row.get(1)?), &row.get(2)?);
        update.execute(params![row.get::<_, i64>(0)?, column(position)])?;
    }
    Ok(())
}

impl Reader {
    /// Whether there is another super-peer than this one: in the catalog, or among `told` and not known to be gone.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn knows_other_superpeer(&self, own: &PeerId, told: &[PeerId]) -> Result<bool, CatalogError> {
        let mut listed = self.conn.prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM members WHERE superpeer AND peer <> ?1 AND {STANDING} = 0)"
        ))?;
        if listed.query_row([own.to_bytes()], |row| row.get(0))? {
            return Ok(true);
        }
        let mut unlisted = self.conn.prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM members WHERE peer = ?1)
                AND NOT EXISTS (SELECT 1 FROM departures WHERE peer = ?1)
                AND NOT EXISTS (SELECT 1 FROM revocations WHERE peer = ?1 AND by_root)",
        )?;
        for peer in told.iter().filter(|peer| *peer != own) {
            if unlisted.query_row([peer.to_bytes()], |row| row.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is in a stretch of positions, in order: `limit` items, or more where several share the last one's position.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn items(&self, stretch: &Stretch, limit: usize) -> Result<Items, CatalogError> {
        let mut query = self.conn.prepare_cached(
            "SELECT position, kind, id, payload FROM entries WHERE position BETWEEN ?1 AND ?2 ORDER BY position",
        )?;
        let mut found = Items::default();
        for (from, to) in stretch.ranges() {
            let mut rows = query.query(params![column(from), column(to)])?;
            while let Some(row) = rows.next()? {
                let position = position(row)?;
                let last = found.items.last().map(|item: &Item| item.position);
                if found.items.len() >= limit && last != Some(position) {
                    found.unread = Some(position);
                    found.items.sort_unstable();
                    return Ok(found);
                }
                let payload = row.get_ref(3)?.as_blob().map_err(CatalogError::damaged)?;
                let item = Item::of(Kind(row.get(1)?), &row.get(2)?, payload);
                found.items.push(Item { position, ..item });
            }
        }
        // By tag where several share a position.
        found.items.sort_unstable();
        Ok(found)
    }

    /// What stands at these positions, as much as fits one message, and how many of them that answers: at least one.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn entries_at(&self, positions: &[Position]) -> Result<(Vec<Entry>, u32), CatalogError> {
        let mut query = self
            .conn
            .prepare_cached("SELECT position, kind, id, payload, stamp FROM entries WHERE position = ?1")?;
        let (mut entries, mut bytes, mut answered) = (Vec::new(), 0, 0);
        for position in positions {
            if entries.len() >= SYNC_PAGE_ENTRIES || bytes >= PAGE_FILL_BYTES {
                break;
            }
            let mut rows = query.query([column(*position)])?;
            while let Some(row) = rows.next()? {
                let stamp: Vec<u8> = row.get(4)?;
                let payload = ByteBuf::from(row.get::<_, Vec<u8>>(3)?);
                bytes += payload.len() + ENTRY_FRAME_BYTES;
                entries.push(Entry {
                    kind: Kind(row.get(1)?),
                    id: ByteArray::new(row.get(2)?),
                    payload,
                    stamp: cbor::from_slice(&stamp).map_err(CatalogError::damaged)?,
                });
            }
            answered += 1;
        }
        // Only where somebody made hundreds of things share one position; the others come with their other versions.
        entries.truncate(SYNC_PAGE_ENTRIES);
        Ok((entries, answered))
    }
}

fn position(row: &Row<'_>) -> Result<Position, CatalogError> {
    let number = u64::try_from(row.get::<_, i64>(0)?).map_err(CatalogError::damaged)?;
    Position::try_from(number).map_err(CatalogError::damaged)
}

#[cfg(test)]
mod tests {
    use crate::catalog::{fixtures, schema};

    #[test]
    fn entries_from_before_there_were_positions_get_the_same_as_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = fixtures::catalog(dir.path(), 101);
        let positions = |conn: &rusqlite::Connection| -> Vec<Option<i64>> {
            let mut query = conn.prepare("SELECT position FROM entries ORDER BY row").unwrap();
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let before = positions(&catalog.conn);
        assert!(before.len() >= 6 && before.iter().all(Option::is_some));
        catalog.conn.execute("UPDATE entries SET position = NULL", []).unwrap();
        let tx = catalog.conn.transaction().unwrap();
        super::fill(&tx).unwrap();
        tx.commit().unwrap();
        assert_eq!(positions(&catalog.conn), before);
    }

    #[test]
    fn the_moment_of_the_last_comparison_outlasts_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::open(&dir.path().join("catalog.db"), &fixtures::trust()).unwrap();
        assert_eq!(schema::last_comparison(&conn).unwrap(), None);
        schema::keep_comparison(&conn, 7).unwrap();
        schema::keep_comparison(&conn, 9).unwrap();
        drop(conn);
        let conn = schema::open(&dir.path().join("catalog.db"), &fixtures::trust()).unwrap();
        assert_eq!(schema::last_comparison(&conn).unwrap(), Some(9));
    }
}
