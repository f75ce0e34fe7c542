//! What lies on the disks, read past the code under test.

use std::{collections::BTreeMap, path::Path};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::Wrap,
    cbor,
    ids::{AudienceId, ID_BYTES},
    members::Enrolment,
    messages::sync::{Kind, Stamp},
    signing::Signed,
};
use rusqlite::{Connection, OpenFlags};

use crate::simulation::cast::Who;

/// An entry's place: its kind and its id.
pub(super) type Key = (Kind, [u8; ID_BYTES]);
/// A payload's name: the hash of its bytes.
pub(super) type Payload = [u8; 32];
/// What stands in a catalog.
pub(super) type Contents = BTreeMap<Key, Payload>;

/// An entry as it lies on a super-peer's disk.
pub(super) struct Stored {
    pub(super) key: Key,
    pub(super) payload: Payload,
    pub(super) bytes: Vec<u8>,
    pub(super) stamped_by: Option<Who>,
}

/// A number that changes whenever another connection has committed.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// What a catalog's database says has changed since a number, and the last number.
pub(super) fn changed(conn: &Connection, since: i64) -> rusqlite::Result<(Vec<Stored>, i64)> {
    let sql = "SELECT kind, id, payload, stamp, sequence FROM entries WHERE sequence > ?1";
    let mut query = conn.prepare_cached(sql)?;
    let mut rows = query.query([since])?;
    let (mut changed, mut last) = (Vec::new(), since);
    while let Some(row) = rows.next()? {
        let kind = Kind(row.get(0)?);
        let bytes: Vec<u8> = row.get(2)?;
        let stamp: Option<Signed<Stamp>> = cbor::from_slice(row.get_ref(3)?.as_blob()?).ok();
        let stamped_by =
            stamp.and_then(|stamp| stamp.peek().ok()).and_then(|stamp| Who::of_peer(&stamp.superpeer));
        last = last.max(row.get(4)?);
        changed.push(Stored { key: (kind, row.get(1)?), payload: hash(kind, &bytes), bytes, stamped_by });
    }
    Ok((changed, last))
}

/// What a node's database holds of the catalog.
pub(super) fn mirrored(conn: &Connection) -> rusqlite::Result<Contents> {
    let mut contents = Contents::new();
    let mut add = |kind: Kind, id: [u8; ID_BYTES], bytes: &[u8]| {
        contents.insert((kind, id), hash(kind, bytes));
    };
    let id_of = |peer: &[u8]| PeerId::from_bytes(peer).map_or([0; ID_BYTES], |peer| Enrolment::id_of(&peer));
    let mut query = conn.prepare_cached("SELECT file, record FROM records")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        add(Kind::FILE, row.get(0)?, row.get_ref(1)?.as_blob()?);
    }
    let mut query = conn.prepare_cached("SELECT peer, enrolment FROM members WHERE enrolment IS NOT NULL")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        add(Kind::MEMBER, id_of(row.get_ref(0)?.as_blob()?), row.get_ref(1)?.as_blob()?);
    }
    let mut query = conn.prepare_cached("SELECT audience, member, wrap FROM wraps")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let member = PeerId::from_bytes(row.get_ref(1)?.as_blob()?);
        let audience = AudienceId::from_bytes(row.get(0)?);
        let id = member.map_or([0; ID_BYTES], |member| Wrap::id_of(&audience, &member));
        add(Kind::WRAP, id, row.get_ref(2)?.as_blob()?);
    }
    let mut query = conn.prepare_cached("SELECT peer, kind, bytes FROM endings")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        add(Kind(row.get(1)?), id_of(row.get_ref(0)?.as_blob()?), row.get_ref(2)?.as_blob()?);
    }
    Ok(contents)
}

/// Opens a database to be read beside who writes it.
pub(super) fn open(database: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(database, flags)
}

/// The name of an entry's payload.
pub(super) fn hash(kind: Kind, payload: &[u8]) -> Payload {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&kind.0.to_be_bytes());
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

/// The beginning of an id, for people.
pub(super) fn short(id: &[u8; ID_BYTES]) -> String {
    data_encoding::HEXLOWER.encode(&id[..4])
}
