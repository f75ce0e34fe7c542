//! The whole catalog in pages, for a super-peer that missed something.

use quarta_protocols::{
    cbor,
    limits::{PAGE_FILL_BYTES, SYNC_PAGE_ENTRIES},
    messages::sync::{Entry, Kind, Place},
    signing::Signed,
};
use rusqlite::named_params;
use serde_bytes::{ByteArray, ByteBuf};

use super::{CatalogError, Reader};

/// What an entry of a page takes beside its payload: kind, id, stamp and their framing, in bytes.
pub(super) const ENTRY_FRAME_BYTES: usize = 512;

impl Reader {
    /// A page of the whole catalog for another super-peer, and where the next begins; none after the last.
    ///
    /// Members come first, since what follows is stamped by them; then everything in order of kind and id. A page holds at most
    /// [`SYNC_PAGE_ENTRIES`] entries and is full at [`PAGE_FILL_BYTES`].
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn page(&self, after: Option<&Place>) -> Result<(Vec<Entry>, Option<Place>), CatalogError> {
        let mut page = Page::default();
        if after.is_none_or(|place| place.kind == Kind::MEMBER) {
            let id = after.map_or(&[][..], |place| place.id.as_slice());
            self.fill(&mut page, "kind = :kind AND id > :id", Kind::MEMBER, id)?;
        }
        if page.next.is_none() {
            let (kind, id) = match after {
                Some(place) if place.kind != Kind::MEMBER => (place.kind, place.id.as_slice()),
                _ => (Kind(0), &[][..]),
            };
            self.fill(
                &mut page,
                &format!("(kind, id) > (:kind, :id) AND kind <> {}", Kind::MEMBER.0),
                kind,
                id,
            )?;
        }
        Ok((page.entries, page.next))
    }

    fn fill(&self, page: &mut Page, condition: &str, kind: Kind, id: &[u8]) -> Result<(), CatalogError> {
        let mut rows = self.conn.prepare_cached(&format!(
            "SELECT kind, id, payload, stamp FROM entries WHERE {condition} ORDER BY kind, id"
        ))?;
        let mut rows = rows.query(named_params! { ":kind": kind.0, ":id": id })?;
        while let Some(row) = rows.next()? {
            let stamp: Vec<u8> = row.get(3)?;
            let stamp: Signed<_> = cbor::from_slice(&stamp).map_err(CatalogError::damaged)?;
            let payload = ByteBuf::from(row.get::<_, Vec<u8>>(2)?);
            let entry = Entry { kind: Kind(row.get(0)?), id: ByteArray::new(row.get(1)?), payload, stamp };
            if !page.push(entry) {
                break;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Page {
    entries: Vec<Entry>,
    bytes: usize,
    next: Option<Place>,
}

impl Page {
    /// Adds an entry, unless the page is full: then the page knows where the next begins.
    fn push(&mut self, entry: Entry) -> bool {
        if self.entries.len() == SYNC_PAGE_ENTRIES || self.bytes >= PAGE_FILL_BYTES {
            self.next = self.entries.last().map(|last| Place { kind: last.kind, id: last.id });
            return false;
        }
        self.bytes += entry.payload.len() + ENTRY_FRAME_BYTES;
        self.entries.push(entry);
        true
    }
}
