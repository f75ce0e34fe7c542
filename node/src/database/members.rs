//! Members met, with the addresses under which they were last reached.

use libp2p::{Multiaddr, PeerId};
use quarta_protocols::{credentials::Role, limits::ADDRESSES_MAX, names::MemberName};
use rusqlite::{OptionalExtension, Row};

use super::{Database, DatabaseError, integer, peer, unsigned};

/// A member as this node last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMember {
    /// Who it is.
    pub peer: PeerId,
    /// Its name.
    pub name: MemberName,
    /// What it is.
    pub role: Role,
    /// Where it was reached or said to be reachable; at most [`ADDRESSES_MAX`] are kept.
    pub addresses: Vec<Multiaddr>,
    /// When it was last seen, in milliseconds since 1970.
    pub seen_ms: u64,
}

const COLUMNS: &str = "peer, name, role, addresses, seen_ms";

impl Database {
    /// Remembers a member; without addresses, those known stay.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn remember_member(&self, member: &KnownMember) -> Result<(), DatabaseError> {
        let texts: Vec<String> =
            member.addresses.iter().take(ADDRESSES_MAX).map(ToString::to_string).collect();
        let sql = "INSERT INTO members (peer, name, role, addresses, seen_ms) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT (peer) DO UPDATE SET name = excluded.name, role = excluded.role,
                addresses = iif(excluded.addresses = '[]', addresses, excluded.addresses),
                seen_ms = max(seen_ms, excluded.seen_ms)";
        self.connection().execute(
            sql,
            (
                member.peer.to_bytes(),
                member.name.as_str(),
                member.role.to_string(),
                serde_json::Value::from(texts).to_string(),
                integer(member.seen_ms),
            ),
        )?;
        Ok(())
    }

    /// Forgets a member.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn forget_member(&self, peer: &PeerId) -> Result<(), DatabaseError> {
        self.connection().execute("DELETE FROM members WHERE peer = ?1", [peer.to_bytes()])?;
        Ok(())
    }

    /// A member by its id.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn member(&self, peer: &PeerId) -> Result<Option<KnownMember>, DatabaseError> {
        let sql = format!("SELECT {COLUMNS} FROM members WHERE peer = ?1");
        let raw = self.connection().query_row(&sql, [peer.to_bytes()], raw).optional()?;
        raw.map(read).transpose()
    }

    /// All members known, by name: as many as the network has, a few hundred.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn members(&self) -> Result<Vec<KnownMember>, DatabaseError> {
        let connection = self.connection();
        let mut rows = connection.prepare(&format!("SELECT {COLUMNS} FROM members ORDER BY name, peer"))?;
        rows.query_map([], raw)?.map(|row| read(row?)).collect()
    }
}

type Raw = (Vec<u8>, String, String, String, i64);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn read((id, name, role, addresses, seen_ms): Raw) -> Result<KnownMember, DatabaseError> {
    let role = [Role::Node, Role::Superpeer].into_iter().find(|known| known.to_string() == role);
    Ok(KnownMember {
        peer: peer(&id, "a member's id")?,
        name: MemberName::new(&name).map_err(|_| DatabaseError::Damaged("a member's name"))?,
        role: role.ok_or(DatabaseError::Damaged("a member's role"))?,
        addresses: serde_json::from_str(&addresses)
            .map_err(|_| DatabaseError::Damaged("a member's addresses"))?,
        seen_ms: unsigned(seen_ms, "a member's time")?,
    })
}
