//! Admission: how an invite is made, and becomes a membership exactly as often as it says; and how a membership goes on.
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
//! - Super-peers' credentials are signed by the root. Where its key does not lie, a super-peer that shows its invite
//!   becomes a [`Candidate`] and waits until the root's holder approves it.
//! - A name of a member that is gone is given again by an invite that says so, and by no other.
//!
//! No clock and no randomness in here: the caller gives both.

mod attempts;
mod candidates;
mod invites;
mod renewal;
#[cfg(test)]
mod tests;

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use libp2p::{PeerId, identity::Keypair};
use quarta_protocols::{
    credentials::{Credential, CredentialError, Grant, Membership, NODE_LIFETIME, Role, Trust, UnixSeconds},
    endings::RevocationNotice,
    invites::{SECRET_BYTES, secret_hash},
    keys::SealingKey,
    members::{Enrolment, EnrolmentError},
    messages::{admission::Refusal, sync::Entry},
    names::MemberName,
    records::Link,
    signing::Signed,
};

pub use self::{
    attempts::{Attempts, OVERALL_PER_MINUTE, PER_ADDRESS_PER_MINUTE, PER_PEER_PER_MINUTE},
    candidates::{APPROVED_BEFORE_EXPIRY, Candidate, Wants, candidates},
    invites::{InviteId, Issued, Terms, list, withdraw},
    renewal::{RENEWED_AT_MOST_EVERY, Renewal},
};
use crate::catalog::{Catalog, CatalogError, Context, EnrolError, Standing, Write, check_name, store_member};

/// What this super-peer can admit with.
pub struct Authority {
    own: Keypair,
    credential: RwLock<Credential>,
    root: Option<Keypair>,
    node_lifetime: Duration,
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

/// A member with a credential to send to it.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// What to send to it.
    pub credential: Credential,
    /// Who it is now.
    pub membership: Membership,
    /// What the other super-peers are to be told; empty where all was known.
    pub entries: Vec<Entry>,
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
    /// An invite is to give a name again that is nobody's, or still somebody's.
    #[error("no member that left or was revoked was called {0}, or another member is called so")]
    NotDeparted(MemberName),
    /// Nobody waits for approval under this name.
    #[error("no super-peer called {0} waits for approval")]
    NobodyWaits(MemberName),
    /// What was signed elsewhere is not the credential of this candidate.
    #[error("the credential is not valid for this super-peer: {0}")]
    BadCredential(#[source] CredentialError),
    /// What was signed elsewhere says something else than was asked for.
    #[error("the credential is for another name or role")]
    OtherGrant,
    /// The admission could not be stored.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl AdmissionError {
    /// What the joiner is told; the rest is for the log.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => *refusal,
            _ => Refusal::Unavailable,
        }
    }
}

impl From<EnrolError> for AdmissionError {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Invalid(error) => Self::CannotIssue(error),
            EnrolError::NameTaken => Refusal::NameTaken.into(),
            EnrolError::NameOfDeparted => Refusal::NameOfDeparted.into(),
            EnrolError::Ended(Standing::Left) => Refusal::Left.into(),
            EnrolError::Ended(_) => Refusal::Revoked.into(),
            EnrolError::IssuerEnded => Refusal::NotAMember.into(),
            EnrolError::Catalog(error) => error.into(),
        }
    }
}

impl Authority {
    /// What a super-peer with this identity and credential admits with; with the root key also super-peers.
    pub const fn new(own: Keypair, credential: Credential, root: Option<Keypair>) -> Self {
        Self { own, credential: RwLock::new(credential), root, node_lifetime: NODE_LIFETIME }
    }

    /// The same, with credentials for nodes that live this long.
    #[must_use]
    pub fn for_nodes_that_live(self, node_lifetime: Duration) -> Self {
        Self { node_lifetime, ..self }
    }

    /// Whether it can admit super-peers.
    pub const fn holds_root(&self) -> bool {
        self.root.is_some()
    }

    /// Issues under this credential from now on: the super-peer's own was renewed.
    pub fn adopt(&self, credential: Credential) {
        *self.credential.write().unwrap_or_else(PoisonError::into_inner) = credential;
    }

    /// Redeems an invite: afterwards the joiner is a member, durably, and may be sent its credential.
    ///
    /// A super-peer that redeems where the root key does not lie is noted as a [`Candidate`], and is given the credential
    /// when it redeems again after it was approved. `token_id` is 128 fresh random bits.
    ///
    /// # Errors
    /// [`AdmissionError`]; nothing has changed then, but for [`Refusal::AwaitingApproval`].
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
        let redeemed = catalog.transact(now.0.saturating_mul(1000), |write, context| {
            let hash = secret_hash(&secret);
            let invite = invites::use_one(write.tx(), &hash, &peer, now)?;
            check_standing(write, &peer, invite.role)?;
            if invite.role == Role::Superpeer
                && self.root.is_none()
                && let Some(approved) = approved(write, &peer, context)?
            {
                return Ok(Ok(approved));
            }
            if invite.replaces.as_ref().is_some_and(|replaced| *replaced != name) {
                return Err(Refusal::OtherName.into());
            }
            // A request that comes late must not rename a member that has its credential already.
            if let Some(known) = write.enrolled(&peer, context.trust)?
                && known.membership.name != name
            {
                return Err(Refusal::OtherName.into());
            }
            check_name(write, &name, &peer, invite.replaces.is_some())?;
            if invite.role == Role::Superpeer && self.root.is_none() {
                candidates::note(write.tx(), &hash, &peer, &name, &sealing_key, now)?;
                return Ok(Err(Refusal::AwaitingApproval));
            }
            let role = invite.role;
            let credential = self.grant(context.trust, &Grant { peer, name: &name, role, now, token_id })?;
            candidates::forget(write.tx(), &peer)?;
            admit(write, Enrolment { peer, credential, sealing_key }, context).map(Ok)
        });
        redeemed?.map_err(AdmissionError::from)
    }

    /// Signs that a member is one no more: a super-peer with the root key, a node with this super-peer's own.
    ///
    /// # Errors
    /// [`Refusal::NotTheRoot`] for a super-peer where the root key does not lie.
    pub fn revocation(&self, member: PeerId, role: Role, trust: &Trust) -> Result<RevocationNotice, Refusal> {
        match (role, &self.root) {
            (Role::Superpeer, Some(root)) => Ok(RevocationNotice::by_root(member, root, trust)),
            (Role::Superpeer, None) => Err(Refusal::NotTheRoot),
            (Role::Node, _) => {
                let own = self.credential.read().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(RevocationNotice::by_superpeer(member, &self.own, own, trust))
            }
        }
    }

    /// Signs a hand-over in the place of an owner that is gone; none where the root key does not lie.
    pub fn sign_link(&self, link: &Link, trust: &Trust) -> Option<Signed<Link>> {
        self.root.as_ref().map(|root| Signed::new(link, &trust.network, root))
    }

    fn grant(&self, trust: &Trust, grant: &Grant<'_>) -> Result<Credential, Refusal> {
        match (grant.role, &self.root) {
            (Role::Superpeer, Some(root)) => Ok(Credential::issue_by_root(root, &trust.network, grant)),
            (Role::Superpeer, None) => Err(Refusal::AwaitingApproval),
            (Role::Node, _) => {
                let own = self.credential.read().unwrap_or_else(PoisonError::into_inner);
                let lifetime = self.node_lifetime;
                Ok(Credential::issue_by_superpeer_for(lifetime, &self.own, &own, &trust.network, grant))
            }
        }
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("holds_root", &self.holds_root()).finish_non_exhaustive()
    }
}

/// Stores a member under a credential that was just issued. Lasts if the transaction does.
fn admit(
    write: &mut Write<'_>,
    enrolment: Enrolment,
    context: &Context<'_>,
) -> Result<Admitted, AdmissionError> {
    let credential = enrolment.credential.clone();
    let enrolled = enrolment.verify(context.trust).map_err(AdmissionError::CannotIssue)?;
    let membership = enrolled.membership.clone();
    let entries = store_member(write, enrolled, context)?;
    Ok(Admitted { credential, membership, entries })
}

/// Refuses a peer whose membership has ended: it comes back with other keys, or not at all.
fn check_standing(write: &Write<'_>, peer: &PeerId, role: Role) -> Result<(), AdmissionError> {
    match write.standing_as(peer, role)? {
        Standing::Member => Ok(()),
        ended => Err(EnrolError::Ended(ended).into()),
    }
}

/// The super-peer that a peer is by now, if it is one.
fn approved(
    write: &Write<'_>,
    peer: &PeerId,
    context: &Context<'_>,
) -> Result<Option<Admitted>, AdmissionError> {
    let Some(enrolled) = write.enrolled(peer, context.trust)? else { return Ok(None) };
    Ok((enrolled.membership.role == Role::Superpeer).then(|| Admitted {
        credential: enrolled.enrolment().credential.clone(),
        membership: enrolled.membership,
        entries: Vec::new(),
    }))
}

fn seconds(time: UnixSeconds) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// A moment as [`seconds`] stored it.
fn moment(stored: i64) -> Result<UnixSeconds, CatalogError> {
    u64::try_from(stored).map(UnixSeconds).map_err(CatalogError::damaged)
}
