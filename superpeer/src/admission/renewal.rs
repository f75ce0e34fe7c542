//! Renewal: how a member stays one.
//!
//! A credential that has expired is no obstacle: whoever the catalog knows as a member, and whose membership has not
//! ended, gets a new one, however long it was away. Repeatable, so that a lost answer costs nothing.

use std::time::Duration;

use libp2p::PeerId;
use quarta_protocols::{
    credentials::{CLOCK_SKEW, Credential, Grant, UnixSeconds},
    keys::SealingKey,
    members::Enrolment,
    messages::admission::Refusal,
    signing::Signed,
};

use super::{AdmissionError, Admitted, Authority, admit, check_standing};
use crate::catalog::Catalog;

/// A credential younger than this is given again instead of a new one: each new one is an event in everybody's audit
/// trail for ever.
pub const RENEWED_AT_MOST_EVERY: Duration = Duration::from_mins(1);

/// A member's request. The transport has proved that it comes from `peer`.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// The member.
    pub peer: PeerId,
    /// The latest credential that it has.
    pub credential: Credential,
    /// Its sealing key.
    pub sealing_key: Signed<SealingKey>,
}

impl Authority {
    /// Gives a member a new credential, or the one that stands in the catalog where that is newer than what it shows.
    ///
    /// A super-peer's is signed by the root. Where its key does not lie, the super-peer gets what was approved, and
    /// [`Refusal::AwaitingApproval`] before that. `token_id` is 128 fresh random bits.
    ///
    /// # Errors
    /// [`AdmissionError`]; then nothing has changed.
    pub fn renew(
        &self,
        catalog: &mut Catalog,
        renewal: Renewal,
        token_id: [u8; 16],
        now: UnixSeconds,
    ) -> Result<Admitted, AdmissionError> {
        let Renewal { peer, credential, sealing_key } = renewal;
        SealingKey::verify(&sealing_key, &catalog.trust().network, &peer)
            .map_err(|_| Refusal::BadSealingKey)?;
        let shown =
            credential.verify_ignoring_time(catalog.trust(), &peer).map_err(|_| Refusal::NotAMember)?;
        catalog.transact(now.0.saturating_mul(1000), |write, context| {
            check_standing(write, &peer, shown.role)?;
            let known = write.enrolled(&peer, context.trust)?.ok_or(Refusal::NotAMember)?;
            let member = known.membership.clone();
            if (&member.name, member.role) != (&shown.name, shown.role) {
                return Err(Refusal::NotAMember.into());
            }
            // One from the future, by a clock that was wrong, is no reason to wait until then.
            let fresh =
                member.issued <= now.plus(CLOCK_SKEW) && member.issued.plus(RENEWED_AT_MOST_EVERY) > now;
            let newer = member.issued > shown.issued && member.expires > now;
            let granted = match self
                .grant(context.trust, &Grant { peer, name: &member.name, role: member.role, now, token_id })
            {
                Ok(_) if fresh => None,
                Ok(granted) => Some(granted),
                Err(_) if newer => None,
                Err(refusal) => return Err(refusal.into()),
            };
            match granted {
                Some(credential) => admit(write, Enrolment { peer, credential, sealing_key }, context),
                None => Ok(Admitted {
                    credential: known.enrolment().credential.clone(),
                    membership: member,
                    entries: Vec::new(),
                }),
            }
        })
    }
}
