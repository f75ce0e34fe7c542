//! Own audiences with their keys, and members' keys of audiences: those that this node sealed for its readers, and its
//! own of other owners' audiences.

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, Keys, Rule, Stated, Wrap},
    cbor,
    ids::AudienceId,
    keys::SealingKey,
    members::Enrolment,
    records::Origin,
    signing::Signed,
};
use rusqlite::{OptionalExtension, Row, Transaction};
use serde_bytes::ByteArray;
use zeroize::Zeroizing;

use super::{Database, DatabaseError, integer, peer, unsigned};
use crate::audiences::Held;

/// An audience of this node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAudience {
    /// As it is stated.
    pub audience: Audience,
    /// Its keys, up to the present epoch.
    pub keys: Keys,
}

const COLUMNS: &str = "audience, owner, nonce, rule, epoch, keys";

impl Database {
    /// Keeps an own audience with the wraps that were sealed for its readers, and drops those of readers that are gone, in
    /// one step.
    ///
    /// # Errors
    /// [`DatabaseError`]; then nothing of it is kept.
    pub fn keep_audience(
        &self,
        own: &OwnAudience,
        wraps: &[(SealingKey, Stated<Wrap>)],
        gone: &[PeerId],
    ) -> Result<(), DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let Audience { audience, origin, rule, epoch } = &own.audience;
        let keys = Zeroizing::new(cbor::to_vec(&own.keys));
        let sql = "INSERT OR REPLACE INTO audiences (audience, owner, nonce, rule, epoch, keys)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        transaction.prepare_cached(sql)?.execute(rusqlite::params![
            &audience.as_bytes()[..],
            origin.owner.to_bytes(),
            &origin.nonce[..],
            cbor::to_vec(rule),
            integer(*epoch),
            &keys[..],
        ])?;
        for member in gone {
            let sql = "DELETE FROM wraps WHERE audience = ?1 AND member = ?2";
            transaction.prepare_cached(sql)?.execute((&audience.as_bytes()[..], member.to_bytes()))?;
        }
        for (sealed_to, wrap) in wraps {
            put(&transaction, wrap, Some(sealed_to))?;
        }
        Ok(transaction.commit()?)
    }

    /// An own audience.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn own_audience(&self, audience: &AudienceId) -> Result<Option<OwnAudience>, DatabaseError> {
        Ok(self.select_audiences("audience = ?1", [&audience.as_bytes()[..]])?.pop())
    }

    /// The own audiences that have exactly this rule.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn own_audiences_of(&self, rule: &Rule) -> Result<Vec<OwnAudience>, DatabaseError> {
        self.select_audiences("rule = ?1 ORDER BY audience", [cbor::to_vec(&rule.clone().sorted())])
    }

    /// All own audiences: one for each rule in use, so a few.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn own_audiences(&self) -> Result<Vec<OwnAudience>, DatabaseError> {
        self.select_audiences("true ORDER BY audience", [])
    }

    fn select_audiences(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<OwnAudience>, DatabaseError> {
        let connection = self.connection();
        let mut rows =
            connection.prepare_cached(&format!("SELECT {COLUMNS} FROM audiences WHERE {condition}"))?;
        rows.query_map(values, raw)?.map(|row| read(row?)).collect()
    }

    /// Whose keys of an own audience were sealed, and to what.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn held_wraps(&self, audience: &AudienceId) -> Result<Vec<Held>, DatabaseError> {
        let connection = self.connection();
        let sql = "SELECT member, epoch, sealed_to FROM wraps WHERE audience = ?1 AND sealed_to IS NOT NULL";
        let mut rows = connection.prepare_cached(sql)?;
        let rows = rows.query_map([&audience.as_bytes()[..]], |row| {
            Ok::<(Vec<u8>, i64, [u8; 32]), _>((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        rows.map(|row| {
            let (member, epoch, sealed_to) = row?;
            let (member, epoch) = (peer(&member, "a wrap's member")?, unsigned(epoch, "a wrap's epoch")?);
            Ok(Held { member, epoch, sealed_to })
        })
        .collect()
    }

    /// The keys of an audience that are sealed for a member, as signed. To be verified by whoever opens them.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn wrap(
        &self,
        audience: &AudienceId,
        member: &PeerId,
    ) -> Result<Option<Signed<Wrap>>, DatabaseError> {
        let sql = "SELECT wrap FROM wraps WHERE audience = ?1 AND member = ?2";
        let bytes: Option<Vec<u8>> = self
            .connection()
            .query_row(sql, (&audience.as_bytes()[..], member.to_bytes()), |row| row.get(0))
            .optional()?;
        let read = |bytes: Vec<u8>| cbor::from_slice(&bytes).map_err(|_| DatabaseError::Damaged("a wrap"));
        bytes.map(read).transpose()
    }

    /// The members' own entries, of nodes whose membership has not ended. To be verified by whoever seals to them.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn enrolments(&self) -> Result<Vec<Enrolment>, DatabaseError> {
        let connection = self.connection();
        let sql = "SELECT enrolment FROM members WHERE enrolment IS NOT NULL AND role = 'node'
            AND NOT EXISTS (SELECT 1 FROM endings e WHERE e.peer = members.peer)";
        let mut rows = connection.prepare_cached(sql)?;
        rows.query_map([], |row| row.get::<_, Vec<u8>>(0))?
            .map(|bytes| cbor::from_slice(&bytes?).map_err(|_| DatabaseError::Damaged("a member's entry")))
            .collect()
    }
}

/// Keeps a wrap if it supersedes the one that is here; whether it does. `sealed_to`: for one that this node sealed.
pub(super) fn put(
    transaction: &Transaction<'_>,
    wrap: &Stated<Wrap>,
    sealed_to: Option<&SealingKey>,
) -> rusqlite::Result<bool> {
    let Wrap { audience, member, epoch, .. } = wrap.statement();
    let key = (&audience.as_bytes()[..], member.to_bytes());
    let there: Option<(i64, bool)> = transaction
        .prepare_cached("SELECT epoch, sealed_to IS NOT NULL FROM wraps WHERE audience = ?1 AND member = ?2")?
        .query_row((key.0, &key.1), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    // What this node has sealed itself it knows better than any feed, and of one epoch the last that came is as good.
    if there.is_some_and(|(known, own)| known > integer(*epoch) || (own && sealed_to.is_none())) {
        return Ok(false);
    }
    let sql =
        "INSERT OR REPLACE INTO wraps (audience, member, epoch, sealed_to, wrap) VALUES (?1, ?2, ?3, ?4, ?5)";
    transaction.prepare_cached(sql)?.execute(rusqlite::params![
        key.0,
        key.1,
        integer(*epoch),
        sealed_to.map(|key| &key.public[..]),
        cbor::to_vec(wrap.signed()),
    ])?;
    Ok(true)
}

/// A wrap's bytes as they are here.
pub(super) fn wrap_bytes(transaction: &Transaction<'_>, wrap: &Wrap) -> rusqlite::Result<Option<Vec<u8>>> {
    transaction
        .prepare_cached("SELECT wrap FROM wraps WHERE audience = ?1 AND member = ?2")?
        .query_row((&wrap.audience.as_bytes()[..], wrap.member.to_bytes()), |row| row.get(0))
        .optional()
}

type Raw = ([u8; 32], Vec<u8>, [u8; 16], Vec<u8>, i64, Zeroizing<Vec<u8>>);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, Zeroizing::new(row.get(5)?)))
}

fn read((audience, owner, nonce, rule, epoch, keys): Raw) -> Result<OwnAudience, DatabaseError> {
    let damaged = DatabaseError::Damaged;
    let origin = Origin { owner: peer(&owner, "an audience's owner")?, nonce: ByteArray::new(nonce) };
    let audience = Audience {
        audience: AudienceId::from_bytes(audience),
        origin,
        rule: cbor::from_slice(&rule).map_err(|_| damaged("an audience's rule"))?,
        epoch: unsigned(epoch, "an audience's epoch")?,
    };
    let keys: Keys = cbor::from_slice(&keys).map_err(|_| damaged("an audience's keys"))?;
    Ok(OwnAudience { audience, keys })
}
