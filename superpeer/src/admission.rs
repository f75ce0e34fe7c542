//! Admission: how an invite is made, and becomes a membership exactly as often as it says.
//!
//! Invites stand in the catalog's database, so that counting a use, noting who used it and enrolling the new member are
//! one transaction: a credential leaves this machine only after all three are on the disk, and a crash at any moment
//! leaves all or none. The catalog's single writer takes redemptions one after another, so that of many that arrive at
//! once exactly as many win as there are uses.
//!
//! - A use belongs to the peer that redeemed it. That peer may redeem again, e.g. because the answer got lost, without
//!   a further use; nobody else gains anything from having overheard the secret.
//! - A refusal uses nothing up: with a name that is taken, the joiner tries again with another.
//! - Only a hash of the secret is stored, and secrets are looked up by it, so neither a stolen database nor the time a
//!   look-up takes tells anything about a secret.
//! - Guessing is hopeless (128 bits); [`Attempts`] keeps it from being a burden.
//!
//! No clock and no randomness in here: the caller gives both.

mod attempts;
#[cfg(test)]
mod tests;

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use quarta_protocols::{
    credentials::{Credential, Grant, Membership, Role, Trust, UnixSeconds},
    invites::{Invite, SECRET_BYTES, secret_hash},
    keys::SealingKey,
    members::{Enrolment, EnrolmentError},
    messages::{admission::Refusal, sync::Entry},
    names::MemberName,
    signing::Signed,
};
use rusqlite::{OptionalExtension, Transaction, params};

pub use self::attempts::{Attempts, OVERALL_PER_MINUTE, PER_ADDRESS_PER_MINUTE, PER_PEER_PER_MINUTE};
use crate::catalog::{Catalog, CatalogError, store_member};

/// How long an invite is still listed after its end, so that an operator sees why a joiner was refused.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_hours(30 * 24);

/// What this super-peer can admit with.
pub struct Authority {
    own: Keypair,
    credential: Credential,
    root: Option<Keypair>,
}

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
}

/// An invite's name towards its issuer: the hash of its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InviteId([u8; 32]);

/// What an invite permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What joiners become.
    pub role: Role,
    /// How often it can be redeemed.
    pub uses: u32,
    /// When it ends.
    pub expires: UnixSeconds,
}

/// A joiner's request. The transport has proved that it comes from `peer`.
#[derive(Debug, Clone)]
pub struct Redemption {
    /// The joiner.
    pub peer: PeerId,
    /// The secret that it shows.
    pub secret: [u8; SECRET_BYTES],
    /// The wished name.
    pub name: MemberName,
    /// Its sealing key.
    pub sealing_key: Signed<SealingKey>,
}

/// A new member.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// What to send to it.
    pub credential: Credential,
    /// Who it is now.
    pub membership: Membership,
    /// What the other super-peers are to be told.
    pub entry: Entry,
}

/// Why nobody is admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The request is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This super-peer's own credential admits nobody, e.g. because it has expired.
    #[error("this super-peer cannot issue credentials: {0}; renew its own")]
    CannotIssue(#[source] EnrolmentError),
    /// The admission could not be stored.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl AdmissionError {
    /// What the joiner is told; the rest is for the log.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => *refusal,
            Self::CannotIssue(_) | Self::Catalog(_) => Refusal::Unavailable,
        }
    }
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
    /// What a super-peer with this identity and credential admits with; with the root key also super-peers.
    pub const fn new(own: Keypair, credential: Credential, root: Option<Keypair>) -> Self {
        Self { own, credential, root }
    }

    /// Whether it can admit super-peers.
    pub const fn holds_root(&self) -> bool {
        self.root.is_some()
    }

    /// Issues an invite and stores it. `secret` must be 128 fresh random bits.
    ///
    /// # Errors
    /// [`Refusal::NotTheRoot`] for a super-peer's invite without the root key; [`CatalogError`] where it cannot be stored.
    pub fn issue(
        &self,
        catalog: &mut Catalog,
        terms: Terms,
        secret: [u8; SECRET_BYTES],
        addresses: Vec<Multiaddr>,
        now: UnixSeconds,
    ) -> Result<Invite, AdmissionError> {
        self.check_role(terms.role)?;
        catalog.transact(now.0.saturating_mul(1000), |write, _| {
            let kept = seconds(now).saturating_sub(seconds(UnixSeconds(KEPT_AFTER_EXPIRY.as_secs())));
            write.tx().execute("DELETE FROM invites WHERE expires < ?1", [kept])?;
            write.tx().execute(
                "INSERT INTO invites VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
                params![
                    secret_hash(&secret),
                    terms.role == Role::Superpeer,
                    terms.uses,
                    seconds(now),
                    seconds(terms.expires)
                ],
            )?;
            Ok::<_, CatalogError>(())
        })?;
        let root = &catalog.trust().root;
        Ok(Invite::new(root, self.own.public().to_peer_id(), addresses, terms.role, terms.expires, secret))
    }

    /// Redeems an invite: afterwards the joiner is a member, durably, and may be sent its credential.
    ///
    /// `token_id` is 128 fresh random bits.
    ///
    /// # Errors
    /// [`AdmissionError`]; then nothing has changed.
    pub fn redeem(
        &self,
        catalog: &mut Catalog,
        redemption: Redemption,
        token_id: [u8; 16],
        now: UnixSeconds,
    ) -> Result<Admitted, AdmissionError> {
        let Redemption { peer, secret, name, sealing_key } = redemption;
        SealingKey::verify(&sealing_key, &catalog.trust().network, &peer)
            .map_err(|_| Refusal::BadSealingKey)?;
        catalog.transact(now.0.saturating_mul(1000), |write, context| {
            let role = use_invite(write.tx(), &secret_hash(&secret), &peer, now)?;
            self.check_role(role)?;
            if write.is_taken(&name, &peer)? {
                return Err(Refusal::NameTaken.into());
            }
            let credential = self.grant(context.trust, &Grant { peer, name: &name, role, now, token_id })?;
            let enrolled = Enrolment { peer, credential: credential.clone(), sealing_key }
                .verify(context.trust)
                .map_err(AdmissionError::CannotIssue)?;
            let membership = enrolled.membership.clone();
            let (entry, _) = store_member(write, enrolled, context)?;
            Ok(Admitted { credential, membership, entry })
        })
    }

    fn check_role(&self, role: Role) -> Result<(), Refusal> {
        if role == Role::Superpeer && !self.holds_root() { Err(Refusal::NotTheRoot) } else { Ok(()) }
    }

    fn grant(&self, trust: &Trust, grant: &Grant<'_>) -> Result<Credential, Refusal> {
        match (grant.role, &self.root) {
            (Role::Superpeer, Some(root)) => Ok(Credential::issue_by_root(root, &trust.network, grant)),
            (Role::Superpeer, None) => Err(Refusal::NotTheRoot),
            (Role::Node, _) => {
                Ok(Credential::issue_by_superpeer(&self.own, &self.credential, &trust.network, grant))
            }
        }
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("holds_root", &self.holds_root()).finish_non_exhaustive()
    }
}

/// Takes one use of an invite for a peer, unless the peer has one already. Lasts if the transaction does.
fn use_invite(
    tx: &Transaction<'_>,
    hash: &[u8; 32],
    peer: &PeerId,
    now: UnixSeconds,
) -> Result<Role, AdmissionError> {
    let invite: Option<(bool, u32, i64)> = tx
        .query_row(
            "SELECT superpeer, uses_left, expires FROM invites WHERE secret_hash = ?1",
            params![hash],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
        .map_err(CatalogError::from)?;
    let Some((superpeer, uses_left, expires)) = invite else { return Err(Refusal::UnknownInvite.into()) };
    if expires <= seconds(now) {
        return Err(Refusal::InviteExpired.into());
    }
    let noted = tx
        .execute(
            "INSERT OR IGNORE INTO redemptions VALUES (?1, ?2, ?3)",
            params![hash, peer.to_bytes(), seconds(now)],
        )
        .map_err(CatalogError::from)?;
    if noted == 1 {
        if uses_left == 0 {
            return Err(Refusal::InviteUsed.into());
        }
        tx.execute("UPDATE invites SET uses_left = uses_left - 1 WHERE secret_hash = ?1", params![hash])
            .map_err(CatalogError::from)?;
    }
    Ok(if superpeer { Role::Superpeer } else { Role::Node })
}

/// The invites that this super-peer issued, newest first; those that ended long ago are forgotten.
///
/// # Errors
/// [`CatalogError`] where the database fails.
pub fn list(catalog: &Catalog) -> Result<Vec<Issued>, CatalogError> {
    let mut query = catalog.connection().prepare_cached(
        "SELECT secret_hash, superpeer, uses, uses_left, created, expires FROM invites
         ORDER BY created DESC, secret_hash",
    )?;
    let mut rows = query.query([])?;
    let mut invites = Vec::new();
    while let Some(row) = rows.next()? {
        let time = |at: usize| -> Result<UnixSeconds, CatalogError> {
            u64::try_from(row.get::<_, i64>(at)?).map(UnixSeconds).map_err(CatalogError::damaged)
        };
        invites.push(Issued {
            id: InviteId(row.get(0)?),
            role: if row.get(1)? { Role::Superpeer } else { Role::Node },
            uses: row.get(2)?,
            uses_left: row.get(3)?,
            created: time(4)?,
            expires: time(5)?,
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

fn seconds(time: UnixSeconds) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}
