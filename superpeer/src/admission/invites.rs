//! Invites as their issuer keeps them.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use quarta_protocols::{
    credentials::{Role, UnixSeconds},
    invites::{Invite, SECRET_BYTES, secret_hash},
    messages::admission::Refusal,
    names::MemberName,
};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{AdmissionError, Authority, moment, seconds};
use crate::catalog::{Catalog, CatalogError, Standing};

/// How long an invite is still listed after its end, so that an operator sees why a joiner was refused.
pub(super) const KEPT_AFTER_EXPIRY: Duration = Duration::from_hours(30 * 24);

/// An invite as its issuer remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Names the invite towards its issuer; admits nobody.
    pub id: InviteId,
    /// What joiners become.
    pub role: Role,
    /// How often it can be redeemed in all.
    pub uses: u32,
    /// How often still.
    pub uses_left: u32,
    /// When it was issued.
    pub created: UnixSeconds,
    /// When it ends.
    pub expires: UnixSeconds,
    /// The departed member whose name it gives again.
    pub replaces: Option<MemberName>,
}

/// An invite's name towards its issuer: the hash of its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InviteId([u8; 32]);

/// What an invite permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What joiners become.
    pub role: Role,
    /// How often it can be redeemed.
    pub uses: u32,
    /// When it ends.
    pub expires: UnixSeconds,
    /// The departed member whose name the joiner has to take; then `uses` is 1.
    pub replaces: Option<MemberName>,
}

/// An invite that is being redeemed.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) role: Role,
    pub(super) replaces: Option<MemberName>,
}

impl InviteId {
    /// The id of the invite with this secret.
    pub fn of_secret(secret: &[u8; SECRET_BYTES]) -> Self {
        Self(secret_hash(secret))
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Wraps bytes that [`Self::as_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Display for InviteId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl Authority {
    /// Issues an invite and stores it. `secret` must be 128 fresh random bits.
    ///
    /// # Errors
    /// [`AdmissionError::NotDeparted`] for a name to be given again that is not free, [`CatalogError`] where the invite
    /// cannot be stored.
    pub fn issue(
        &self,
        catalog: &mut Catalog,
        terms: Terms,
        secret: [u8; SECRET_BYTES],
        addresses: Vec<Multiaddr>,
        now: UnixSeconds,
    ) -> Result<Invite, AdmissionError> {
        let own = self.own.public().to_peer_id();
        let (role, expires) = (terms.role, terms.expires);
        catalog.transact(now.0.saturating_mul(1000), |write, _| {
            if let Some(name) = &terms.replaces
                && write.name_holder(name, &own)?.is_none_or(Standing::is_member)
            {
                return Err(AdmissionError::NotDeparted(name.clone()));
            }
            let kept = seconds(now).saturating_sub(seconds(UnixSeconds(KEPT_AFTER_EXPIRY.as_secs())));
            let store = || {
                write.tx().execute("DELETE FROM invites WHERE expires < ?1", [kept])?;
                write.tx().execute(
                    "INSERT INTO invites (secret_hash, superpeer, uses, uses_left, created, expires, replaces)
                     VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6)",
                    params![
                        secret_hash(&secret),
                        terms.role == Role::Superpeer,
                        terms.uses,
                        seconds(now),
                        seconds(terms.expires),
                        terms.replaces.as_ref().map(MemberName::as_str),
                    ],
                )
            };
            store().map_err(CatalogError::from)?;
            Ok(())
        })?;
        Ok(Invite::new(&catalog.trust().root, own, addresses, role, expires, secret))
    }
}

/// Takes one use of an invite for a peer, unless the peer has one already. Lasts if the transaction does.
///
/// A super-peer that waits for approval may go on asking after the invite's end.
pub(super) fn use_one(
    tx: &Transaction<'_>,
    hash: &[u8; 32],
    peer: &PeerId,
    now: UnixSeconds,
) -> Result<Used, AdmissionError> {
    type Row = (bool, u32, i64, Option<String>, bool);
    let invite: Option<Row> = tx
        .query_row(
            "SELECT superpeer, uses_left, expires, replaces,
                    EXISTS (SELECT 1 FROM redemptions
                            WHERE redemptions.secret_hash = invites.secret_hash AND peer = ?2)
             FROM invites WHERE secret_hash = ?1",
            params![hash, peer.to_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .optional()
        .map_err(CatalogError::from)?;
    let Some((superpeer, uses_left, expires, replaces, redeemed)) = invite else {
        return Err(Refusal::UnknownInvite.into());
    };
    if expires <= seconds(now) && !(superpeer && redeemed) {
        return Err(Refusal::InviteExpired.into());
    }
    if !redeemed {
        if uses_left == 0 {
            return Err(Refusal::InviteUsed.into());
        }
        let note = || {
            tx.execute(
                "INSERT INTO redemptions VALUES (?1, ?2, ?3)",
                params![hash, peer.to_bytes(), seconds(now)],
            )?;
            tx.execute("UPDATE invites SET uses_left = uses_left - 1 WHERE secret_hash = ?1", params![hash])
        };
        note().map_err(CatalogError::from)?;
    }
    let replaces = replaces.map(|name| MemberName::new(&name).map_err(CatalogError::damaged)).transpose()?;
    Ok(Used { role: if superpeer { Role::Superpeer } else { Role::Node }, replaces })
}

/// The invites that this super-peer issued, newest first; those that ended long ago are forgotten.
///
/// # Errors
/// [`CatalogError`] where the database fails.
pub fn list(catalog: &Catalog) -> Result<Vec<Issued>, CatalogError> {
    let mut query = catalog.connection().prepare_cached(
        "SELECT secret_hash, superpeer, uses, uses_left, created, expires, replaces FROM invites
         ORDER BY created DESC, secret_hash",
    )?;
    let mut rows = query.query([])?;
    let mut invites = Vec::new();
    while let Some(row) = rows.next()? {
        let replaces: Option<String> = row.get(6)?;
        invites.push(Issued {
            id: InviteId(row.get(0)?),
            role: if row.get(1)? { Role::Superpeer } else { Role::Node },
            uses: row.get(2)?,
            uses_left: row.get(3)?,
            created: moment(row.get(4)?)?,
            expires: moment(row.get(5)?)?,
            replaces: replaces
                .map(|name| MemberName::new(&name).map_err(CatalogError::damaged))
                .transpose()?,
        });
    }
    Ok(invites)
}

/// Withdraws an invite: nobody can redeem it any more; whom it admitted stays. Whether there was such an invite.
///
/// # Errors
/// [`CatalogError`] where the database fails.
pub fn withdraw(catalog: &mut Catalog, invite: &InviteId) -> Result<bool, CatalogError> {
    catalog.transact(0, |write, _| {
        Ok(write.tx().execute("DELETE FROM invites WHERE secret_hash = ?1", params![invite.0])? == 1)
    })
}
