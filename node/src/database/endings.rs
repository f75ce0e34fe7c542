//! How memberships ended, as signed: what keeps an expelled member out also while no super-peer can be asked.

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    credentials::{Role, Trust},
    endings::{Departure, Ended, RevocationNotice, Revoked},
    messages::sync::Kind,
    signing::Signed,
};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::{Database, DatabaseError, peer};

/// All ends of memberships that this node knows of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endings {
    /// Departures.
    pub departures: Vec<Signed<Departure>>,
    /// Revocations, those included that end nothing.
    pub revocations: Vec<RevocationNotice>,
}

/// What [`Ended::of`] follows from, for each peer that has an ending.
const FACTS: &str = "SELECT e.peer, max(e.kind = 3), max(e.kind = 4), max(e.by_root), m.role
    FROM endings e LEFT JOIN members m ON m.peer = e.peer";

impl Database {
    /// Everybody whose membership has ended.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn ended(&self) -> Result<Vec<(PeerId, Ended)>, DatabaseError> {
        let connection = self.connection();
        let mut rows = connection.prepare_cached(&format!("{FACTS} GROUP BY e.peer"))?;
        let mut rows = rows.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let peer = peer(&row.get::<_, Vec<u8>>(0)?, "the end of a membership")?;
            all.extend(ended(row)?.map(|ended| (peer, ended)));
        }
        Ok(all)
    }

    /// All endings as signed, for a super-peer that may have lost them.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn endings(&self) -> Result<Endings, DatabaseError> {
        let connection = self.connection();
        let mut rows = connection.prepare_cached("SELECT kind, bytes FROM endings ORDER BY peer, kind")?;
        let rows = rows.query_map([], |row| Ok((Kind(row.get(0)?), row.get::<_, Vec<u8>>(1)?)))?;
        let damaged = |_| DatabaseError::Damaged("the end of a membership");
        let mut endings = Endings::default();
        for row in rows {
            match row? {
                (Kind::DEPARTURE, bytes) => {
                    endings.departures.push(cbor::from_slice(&bytes).map_err(damaged)?);
                }
                (_, bytes) => endings.revocations.push(cbor::from_slice(&bytes).map_err(damaged)?),
            }
        }
        Ok(endings)
    }
}

/// Keeps a departure; whether it is news.
pub(super) fn depart(
    transaction: &Transaction<'_>,
    member: &PeerId,
    signed: &Signed<Departure>,
) -> rusqlite::Result<bool> {
    let sql = "INSERT OR IGNORE INTO endings (peer, kind, by_root, bytes) VALUES (?1, ?2, 0, ?3)";
    let values = rusqlite::params![member.to_bytes(), Kind::DEPARTURE.0, cbor::to_vec(signed)];
    Ok(transaction.prepare_cached(sql)?.execute(values)? > 0)
}

/// Keeps a revocation if it supersedes the one that is here; whether it does.
pub(super) fn revoke(
    transaction: &Transaction<'_>,
    revoked: &Revoked,
    trust: &Trust,
) -> rusqlite::Result<bool> {
    let (member, kind) = (revoked.member.to_bytes(), Kind::REVOCATION.0);
    let stored: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT bytes FROM endings WHERE peer = ?1 AND kind = ?2")?
        .query_row(rusqlite::params![member, kind], |row| row.get(0))
        .optional()?;
    let current = stored
        .and_then(|bytes| cbor::from_slice::<RevocationNotice>(&bytes).ok())
        .and_then(|notice| notice.verify(trust).ok());
    if current.is_some_and(|current| !revoked.supersedes(&current)) {
        return Ok(false);
    }
    let sql = "INSERT OR REPLACE INTO endings (peer, kind, by_root, bytes) VALUES (?1, ?2, ?3, ?4)";
    let values = rusqlite::params![member, kind, revoked.by.is_none(), cbor::to_vec(revoked.notice())];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(true)
}

/// How a membership has ended, if it has.
pub(super) fn ended_of(transaction: &Transaction<'_>, member: &PeerId) -> rusqlite::Result<Option<Ended>> {
    let sql = format!("{FACTS} WHERE e.peer = ?1 GROUP BY e.peer");
    let found = transaction.prepare_cached(&sql)?.query_row([member.to_bytes()], ended).optional()?;
    Ok(found.flatten())
}

fn ended(facts: &Row<'_>) -> rusqlite::Result<Option<Ended>> {
    let role: Option<String> = facts.get(4)?;
    let role = role.map(|role| if role == "node" { Role::Node } else { Role::Superpeer });
    Ok(Ended::of(facts.get(1)?, facts.get(2)?, facts.get(3)?, role))
}
