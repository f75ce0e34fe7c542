//! The network's members: as their own enrolments say, as the super-peer followed last describes them, and as the ends of
//! memberships have it.
//!
//! A name and a role that a verified enrolment gives are not replaced by a super-peer's word. Whether somebody is a member
//! still is not stored beside it but computed from the endings, so that no order of arrival can make it wrong.

use libp2p::{Multiaddr, PeerId};
use quarta_protocols::{
    cbor,
    credentials::{Role, Trust, UnixSeconds},
    limits::ADDRESSES_MAX,
    members::{Enrolled, Enrolment},
    messages::index::{ListedMember, MemberState},
    names::MemberName,
};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::{Database, DatabaseError, integer, peer, unsigned};

/// A member as this node last heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMember {
    /// How it was, with what has become of its membership since.
    pub listed: ListedMember,
    /// When this node last heard of it, in milliseconds since 1970.
    pub heard_ms: u64,
}

const COLUMNS: &str = "peer, name, role, addresses, seen_ms, state, last_seen, version, files, stored_bytes,
    free_bytes, relayed,
    EXISTS (SELECT 1 FROM endings e WHERE e.peer = members.peer AND e.kind = 4 AND (e.by_root OR members.role = 'node')),
    EXISTS (SELECT 1 FROM endings e WHERE e.peer = members.peer AND e.kind = 3)";

impl Database {
    /// Remembers how a member is; without addresses, those known stay.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn remember_member(&self, member: &ListedMember, now_ms: u64) -> Result<(), DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        list(&transaction, member, now_ms)?;
        Ok(transaction.commit()?)
    }

    /// A member by its id.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn member(&self, peer: &PeerId) -> Result<Option<KnownMember>, DatabaseError> {
        let sql = format!("SELECT {COLUMNS} FROM members WHERE peer = ?1");
        let raw = self.connection().prepare_cached(&sql)?.query_row([peer.to_bytes()], raw).optional()?;
        raw.map(read).transpose()
    }

    /// All members known, by name, those that are members no more included: as many as the network has, a few hundred.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn members(&self) -> Result<Vec<KnownMember>, DatabaseError> {
        let connection = self.connection();
        let mut rows =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM members ORDER BY name, peer"))?;
        rows.query_map([], raw)?.map(|row| read(row?)).collect()
    }
}

/// Takes over how a super-peer sees a member. Gives how it stood before; none where it was not known.
pub(super) fn list(
    transaction: &Transaction<'_>,
    member: &ListedMember,
    now_ms: u64,
) -> rusqlite::Result<Option<String>> {
    let peer = member.peer.to_bytes();
    let before: Option<String> = transaction
        .prepare_cached("SELECT state FROM members WHERE peer = ?1")?
        .query_row([&peer], |row| row.get(0))
        .optional()?;
    let texts: Vec<String> = member.addresses.iter().take(ADDRESSES_MAX).map(ToString::to_string).collect();
    let sql = "INSERT INTO members (peer, name, role, addresses, seen_ms, state, last_seen, version, files,
            stored_bytes, free_bytes, relayed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
        ON CONFLICT (peer) DO UPDATE SET
            name = iif(enrolment IS NULL, excluded.name, name), role = iif(enrolment IS NULL, excluded.role, role),
            addresses = iif(excluded.addresses = '[]', addresses, excluded.addresses),
            seen_ms = max(seen_ms, excluded.seen_ms), state = excluded.state,
            last_seen = coalesce(excluded.last_seen, last_seen),
            version = iif(excluded.version = '', version, excluded.version), files = excluded.files,
            stored_bytes = excluded.stored_bytes, free_bytes = excluded.free_bytes, relayed = excluded.relayed";
    transaction.prepare_cached(sql)?.execute(rusqlite::params![
        peer,
        member.name.as_str(),
        member.role.to_string(),
        serde_json::Value::from(texts).to_string(),
        integer(now_ms),
        member.state.to_string(),
        member.last_seen.map(|seen| integer(seen.0)),
        member.version,
        integer(member.files),
        integer(member.stored_bytes),
        integer(member.free_bytes),
        member.relayed,
    ])?;
    Ok(before)
}

/// Keeps a member's enrolment if it supersedes the one that is here; whether it does.
pub(super) fn enrol(
    transaction: &Transaction<'_>,
    enrolled: &Enrolled,
    trust: &Trust,
    now_ms: u64,
) -> rusqlite::Result<bool> {
    let membership = &enrolled.membership;
    let peer = membership.peer.to_bytes();
    let bytes = cbor::to_vec(enrolled.enrolment());
    let stored = enrolment(transaction, &peer)?;
    if stored.as_ref() == Some(&bytes) {
        return Ok(false);
    }
    // One that does not verify any more is worth nothing.
    let current = stored
        .and_then(|bytes| cbor::from_slice::<Enrolment>(&bytes).ok())
        .and_then(|enrolment| enrolment.verify(trust).ok());
    if current.is_some_and(|current| !enrolled.supersedes(&current)) {
        return Ok(false);
    }
    let sql = "INSERT INTO members (peer, name, role, addresses, seen_ms, enrolment) VALUES (?1, ?2, ?3, '[]', ?4, ?5)
        ON CONFLICT (peer) DO UPDATE SET name = excluded.name, role = excluded.role, enrolment = excluded.enrolment,
            seen_ms = max(seen_ms, excluded.seen_ms)";
    transaction.prepare_cached(sql)?.execute(rusqlite::params![
        peer,
        membership.name.as_str(),
        membership.role.to_string(),
        integer(now_ms),
        bytes,
    ])?;
    Ok(true)
}

/// The enrolment that stands under a peer id.
pub(super) fn enrolment(transaction: &Transaction<'_>, peer: &[u8]) -> rusqlite::Result<Option<Vec<u8>>> {
    let found: Option<Option<Vec<u8>>> = transaction
        .prepare_cached("SELECT enrolment FROM members WHERE peer = ?1")?
        .query_row([peer], |row| row.get(0))
        .optional()?;
    Ok(found.flatten())
}

/// Forgets the member whose entry has this id.
pub(super) fn forget(transaction: &Transaction<'_>, id: &[u8; 32]) -> Result<(), DatabaseError> {
    let mut rows = transaction.prepare_cached("SELECT peer FROM members")?;
    let peers = rows.query_map([], |row| row.get::<_, Vec<u8>>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    for bytes in peers {
        if Enrolment::id_of(&peer(&bytes, "a member's id")?) == *id {
            transaction.prepare_cached("DELETE FROM members WHERE peer = ?1")?.execute([bytes])?;
        }
    }
    Ok(())
}

struct Raw {
    peer: Vec<u8>,
    name: String,
    role: String,
    addresses: String,
    seen_ms: i64,
    state: String,
    last_seen: Option<i64>,
    version: String,
    files: i64,
    stored_bytes: i64,
    free_bytes: i64,
    relayed: bool,
    revoked: bool,
    left: bool,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        peer: row.get(0)?,
        name: row.get(1)?,
        role: row.get(2)?,
        addresses: row.get(3)?,
        seen_ms: row.get(4)?,
        state: row.get(5)?,
        last_seen: row.get(6)?,
        version: row.get(7)?,
        files: row.get(8)?,
        stored_bytes: row.get(9)?,
        free_bytes: row.get(10)?,
        relayed: row.get(11)?,
        revoked: row.get(12)?,
        left: row.get(13)?,
    })
}

fn read(raw: Raw) -> Result<KnownMember, DatabaseError> {
    let damaged = |what| move || DatabaseError::Damaged(what);
    let role = [Role::Node, Role::Superpeer].into_iter().find(|known| known.to_string() == raw.role);
    let states = [
        MemberState::Online,
        MemberState::Suspect,
        MemberState::Offline,
        MemberState::Left,
        MemberState::Revoked,
    ];
    let said = states.into_iter().find(|known| known.to_string() == raw.state);
    let state = match (raw.revoked, raw.left) {
        (true, _) => MemberState::Revoked,
        (_, true) => MemberState::Left,
        _ => said.ok_or_else(damaged("a member's state"))?,
    };
    let addresses: Vec<Multiaddr> =
        serde_json::from_str(&raw.addresses).map_err(|_| DatabaseError::Damaged("a member's addresses"))?;
    let listed = ListedMember {
        peer: peer(&raw.peer, "a member's id")?,
        name: MemberName::new(&raw.name).map_err(|_| DatabaseError::Damaged("a member's name"))?,
        role: role.ok_or_else(damaged("a member's role"))?,
        state,
        last_seen: raw
            .last_seen
            .map(|seen| unsigned(seen, "when a member was seen").map(UnixSeconds))
            .transpose()?,
        version: raw.version,
        files: unsigned(raw.files, "a member's files")?,
        stored_bytes: unsigned(raw.stored_bytes, "a member's bytes")?,
        free_bytes: unsigned(raw.free_bytes, "a member's free bytes")?,
        addresses,
        relayed: raw.relayed,
    };
    Ok(KnownMember { listed, heard_ms: unsigned(raw.seen_ms, "a member's time")? })
}
