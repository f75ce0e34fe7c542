//! The reading side: searches, listings and pages for other super-peers, beside the writer.

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    ids::{ContentId, FileId, ID_BYTES},
    messages::{index::Cursor, sync::Kind},
    names::{FileName, MemberName},
    records::SignedRecord,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    CatalogError,
    fold::fold,
    sight::{Viewer, shown_to},
};

/// Files that a reference can stand for before it is simply too vague.
pub const MATCHES_MAX: usize = 10;
/// Hexadecimal digits that an id's beginning needs; shorter ones are taken for names only.
pub const ID_PREFIX_MIN_DIGITS: usize = 4;

/// A connection that reads the catalog. Each call sees the latest commit; none waits for the writer.
pub struct Reader {
    pub(super) conn: Connection,
}

/// A file as it stands in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its record, verified when it was stored.
    pub record: SignedRecord,
    /// Its id.
    pub file: FileId,
    /// Its name.
    pub name: FileName,
    /// Its present owner.
    pub owner: PeerId,
    /// The owner's name.
    pub owner_name: MemberName,
}

/// Files in name order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilePage {
    /// At most as many as were asked for.
    pub files: Vec<StoredFile>,
    /// Where the next page begins; none after the last.
    pub next: Option<Cursor>,
}

impl Reader {
    pub(super) const fn over(conn: Connection) -> Self {
        Self { conn }
    }

    /// The files that a person can mean by a text: a full id, the beginning of one (at least
    /// [`ID_PREFIX_MIN_DIGITS`]), a full name, or `owner:name`. At most [`MATCHES_MAX`], names first; more than one is
    /// for the person to tell apart. Deleted files are never meant, nor any that the viewer may not see.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn resolve(&self, viewer: Viewer, reference: &str) -> Result<Vec<StoredFile>, CatalogError> {
        let reference = reference.trim();
        if let Ok(file) = reference.parse::<FileId>() {
            return self.ids_between(viewer, file.as_bytes(), file.as_bytes());
        }
        // No file name contains a colon, so the two forms cannot be confused.
        let mut matches = match reference.split_once(':') {
            Some((owner, name)) => match MemberName::new(owner).ok().map(|owner| self.member_by_name(&owner))
            {
                Some(owner) => match owner? {
                    Some(owner) => self.named(viewer, name, Some(owner.peer))?,
                    None => Vec::new(),
                },
                None => Vec::new(),
            },
            None => self.named(viewer, reference, None)?,
        };
        if let Some((low, high)) = id_range(reference) {
            for file in self.ids_between(viewer, &low, &high)? {
                if !matches.iter().any(|found| found.file == file.file) {
                    matches.push(file);
                }
            }
        }
        matches.truncate(MATCHES_MAX);
        Ok(matches)
    }

    fn named(
        &self,
        viewer: Viewer,
        name: &str,
        owner: Option<PeerId>,
    ) -> Result<Vec<StoredFile>, CatalogError> {
        let Ok(name) = FileName::normalised(name) else { return Ok(Vec::new()) };
        self.files_where(
            viewer,
            "files.folded = ?1 AND files.name = ?2 AND (?3 IS NULL OR files.owner = ?3)",
            params![fold(name.as_str()), name.as_str(), owner.map(PeerId::to_bytes)],
            MATCHES_MAX,
        )
    }

    fn ids_between(
        &self,
        viewer: Viewer,
        low: &[u8; ID_BYTES],
        high: &[u8; ID_BYTES],
    ) -> Result<Vec<StoredFile>, CatalogError> {
        self.files_where(viewer, "files.file BETWEEN ?1 AND ?2", params![low, high], MATCHES_MAX)
    }

    /// The record of a file, also of a deleted one.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn record(&self, file: &FileId) -> Result<Option<SignedRecord>, CatalogError> {
        self.payload(Kind::FILE, file.as_bytes())
    }

    /// A file that exists and that the viewer may see.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn file(&self, viewer: Viewer, file: &FileId) -> Result<Option<StoredFile>, CatalogError> {
        Ok(self.ids_between(viewer, file.as_bytes(), file.as_bytes())?.pop())
    }

    /// How many files there are that are not deleted.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn count_files(&self) -> Result<u64, CatalogError> {
        let count: i64 =
            self.conn.prepare_cached("SELECT count(*) FROM files")?.query_row([], |row| row.get(0))?;
        u64::try_from(count).map_err(CatalogError::damaged)
    }

    /// The files with this content, in order of id, at most `limit`; hidden ones too.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn content_files(&self, content: &ContentId, limit: usize) -> Result<Vec<StoredFile>, CatalogError> {
        self.files_where(Viewer::Administrator, "files.content = ?1", params![content.as_bytes()], limit)
    }

    /// Whether a content is some file's present one. What was replaced, withdrawn or deleted is not.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn is_current(&self, content: &ContentId) -> Result<bool, CatalogError> {
        Ok(self
            .conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM files WHERE content = ?1)")?
            .query_row([content.as_bytes()], |row| row.get(0))?)
    }

    /// `condition` takes as many parameters as there are `values`.
    fn files_where(
        &self,
        viewer: Viewer,
        condition: &str,
        values: &[&dyn rusqlite::ToSql],
        limit: usize,
    ) -> Result<Vec<StoredFile>, CatalogError> {
        let viewer = viewer.parameter();
        let mut values = values.to_vec();
        let shown = match &viewer {
            Some(viewer) => {
                values.push(viewer);
                format!("AND {}", shown_to(&format!("?{}", values.len())))
            }
            None => String::new(),
        };
        let mut rows = self.conn.prepare_cached(&format!(
            "SELECT files.file, files.owner, files.name, members.name, entries.payload
             FROM files JOIN entries ON entries.row = files.row JOIN members ON members.peer = files.owner
             WHERE {condition} {shown} ORDER BY files.file LIMIT {limit}"
        ))?;
        let mut rows = rows.query(values.as_slice())?;
        let mut files = Vec::new();
        while let Some(row) = rows.next()? {
            files.extend(stored_file(row)?);
        }
        Ok(files)
    }

    pub(super) fn payload<T: serde::de::DeserializeOwned>(
        &self,
        kind: Kind,
        id: &[u8; ID_BYTES],
    ) -> Result<Option<T>, CatalogError> {
        let mut query =
            self.conn.prepare_cached("SELECT payload FROM entries WHERE kind = ?1 AND id = ?2")?;
        let bytes: Option<Vec<u8>> = query.query_row(params![kind.0, id], |row| row.get(0)).optional()?;
        bytes.map(|bytes| cbor::from_slice(&bytes).map_err(CatalogError::damaged)).transpose()
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// The ids that begin with these hexadecimal digits: the least and the greatest.
fn id_range(digits: &str) -> Option<([u8; ID_BYTES], [u8; ID_BYTES])> {
    if !(ID_PREFIX_MIN_DIGITS..2 * ID_BYTES).contains(&digits.len()) {
        return None;
    }
    let (mut low, mut high) = ([0; ID_BYTES], [0xff; ID_BYTES]);
    for (at, digit) in digits.chars().enumerate() {
        let digit = u8::try_from(digit.to_digit(16)?).ok()?;
        let (shift, kept) = if at % 2 == 0 { (4, 0x0f) } else { (0, 0xf0) };
        low[at / 2] = low[at / 2] & kept | digit << shift;
        high[at / 2] = high[at / 2] & kept | digit << shift;
    }
    Some((low, high))
}

/// A row of file, owner, name, owner's name and payload; none while the owner is not known.
pub(super) fn stored_file(row: &Row<'_>) -> Result<Option<StoredFile>, CatalogError> {
    let Some(owner_name) = row.get::<_, Option<String>>(3)? else { return Ok(None) };
    let payload = row.get_ref(4)?.as_blob().map_err(CatalogError::damaged)?;
    Ok(Some(StoredFile {
        record: cbor::from_slice(payload).map_err(CatalogError::damaged)?,
        file: FileId::from_bytes(row.get(0)?),
        name: file_name(row, 2)?,
        owner: peer(row, 1)?,
        owner_name: member_name(owner_name)?,
    }))
}

pub(super) fn file_name(row: &Row<'_>, at: usize) -> Result<FileName, CatalogError> {
    FileName::new(row.get_ref(at)?.as_str().map_err(CatalogError::damaged)?).map_err(CatalogError::damaged)
}

pub(super) fn member_name(text: String) -> Result<MemberName, CatalogError> {
    MemberName::new(&text).map_err(CatalogError::damaged)
}

pub(super) fn peer(row: &Row<'_>, at: usize) -> Result<PeerId, CatalogError> {
    PeerId::from_bytes(row.get_ref(at)?.as_blob().map_err(CatalogError::damaged)?)
        .map_err(CatalogError::damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_a_range_of_ids() {
        let (low, high) = id_range("ABc4f").unwrap();
        assert_eq!((&low[..4], &high[..4]), (&[0xab, 0xc4, 0xf0, 0][..], &[0xab, 0xc4, 0xff, 0xff][..]));
        for not_one in ["abc", "abcg1", "", "ab d1", &"a".repeat(64), "日本語のid"] {
            assert_eq!(id_range(not_one), None, "{not_one}");
        }
    }
}
