//! Renewal: how a member stays one.
//!
//! A credential that has expired is no obstacle: whoever the catalog knows as a member, and whose membership has not
//! ended, gets a new one, however long it was away. Repeatable, so that a lost answer costs nothing.
//!
//! Nobody lets in members whose issuer was revoked. They get a new credential here too, but only those that this catalog
//! had before it had the revocation, in the order in which it took them, which no clock and no signer can change.

use std::time::Duration;

use libp2p::PeerId;
use quarta_protocols::{
    credentials::{CLOCK_SKEW, Credential, Grant, Role, UnixSeconds},
    keys::SealingKey,
    members::Enrolment,
    messages::admission::Refusal,
    signing::Signed,
};

use super::{AdmissionError, Admitted, Authority, admit, check_standing};
use crate::catalog::{Catalog, Standing};

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
            // Whoever holds a stolen super-peer's key can make up members, and put any date on them. Those that were
            // known before it was revoked are genuine; the others may be genuine elsewhere.
            let revoked = |issuer: &PeerId| {
                Ok::<_, AdmissionError>(write.standing_as(issuer, Role::Superpeer)? == Standing::Revoked)
            };
            let orphan = match &member.issuer {
                Some(issuer) if revoked(issuer)? => {
                    if !write.knew_before_the_revocation_of(&peer, issuer)? {
                        return Err(Refusal::NotAMember.into());
                    }
                    true
                }
                _ => false,
            };
            if (&member.name, member.role) != (&shown.name, shown.role) {
                return Err(Refusal::NotAMember.into());
            }
            // One from the future, by a clock that was wrong, is no reason to wait until then.
            let fresh = !orphan
                && member.issued <= now.plus(CLOCK_SKEW)
                && member.issued.plus(RENEWED_AT_MOST_EVERY) > now;
            let newer = !orphan && member.issued > shown.issued && member.expires > now;
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

#[cfg(test)]
mod tests {
    use quarta_protocols::{credentials::NODE_LIFETIME, members::Enrolment};
    use tempfile::TempDir;

    use super::*;
    use crate::catalog::fixtures::{
        START, START_MS, catalog, departure, enrolment, key, membership, node_enrolment, peer, revocation,
        superpeer_credential, trust,
    };

    /// Long after every credential of the fixtures has run out.
    const LATE: UnixSeconds = UnixSeconds(START.0 + 200 * 86_400);

    /// The second super-peer with its catalog; the members' issuer is the first.
    fn second() -> (TempDir, Catalog, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let catalog = catalog(dir.path(), 102);
        (dir, catalog, Authority::new(key(102), superpeer_credential(102), None))
    }

    fn renewal(of: Enrolment) -> Renewal {
        Renewal { peer: of.peer, credential: of.credential, sealing_key: of.sealing_key }
    }

    fn renew(
        authority: &Authority,
        catalog: &mut Catalog,
        renewal: Renewal,
        now: UnixSeconds,
    ) -> Result<Admitted, Refusal> {
        authority.renew(catalog, renewal, [9; 16], now).map_err(|error| error.refusal())
    }

    #[test]
    fn a_member_that_was_away_for_long_is_renewed_by_any_super_peer_that_knows_it() {
        let (_dir, mut catalog, authority) = second();
        let authority = authority.for_nodes_that_live(Duration::from_hours(5));
        let renewed = renew(&authority, &mut catalog, renewal(enrolment(1)), LATE).unwrap();
        let member = renewed.credential.verify(&trust(), &peer(1), LATE).unwrap();
        assert_eq!((member.name, member.issuer), (membership(1).name, Some(peer(102))));
        assert_eq!(member.expires, LATE.plus(Duration::from_hours(5)));
        assert_eq!(renewed.entries.len(), 2, "the entry and its event");
        // Its answer may have got lost: the same again, and no further event.
        let again =
            renew(&authority, &mut catalog, renewal(enrolment(1)), LATE.plus(CLOCK_SKEW / 10)).unwrap();
        assert!(again.credential == renewed.credential && again.entries.is_empty());
    }

    #[test]
    fn strangers_thieves_and_members_that_are_gone_are_not_renewed() {
        let (_dir, mut catalog, authority) = second();
        let mut refused = |renewal| renew(&authority, &mut catalog, renewal, LATE).unwrap_err();
        assert_eq!(refused(renewal(enrolment(9))), Refusal::NotAMember, "nobody that is known here");
        let stolen = Renewal { credential: enrolment(1).credential, ..renewal(enrolment(2)) };
        assert_eq!(refused(stolen), Refusal::NotAMember);
        let renamed = node_enrolment(1, "filial-outra", START);
        assert_eq!(refused(renewal(renamed)), Refusal::NotAMember);
        let others_key = Renewal { sealing_key: enrolment(2).sealing_key, ..renewal(enrolment(1)) };
        assert_eq!(refused(others_key), Refusal::BadSealingKey);
        catalog.depart(&departure(1), START_MS).unwrap();
        catalog.revoke(revocation(2, 101), START_MS).unwrap();
        let mut refused = |seed| renew(&authority, &mut catalog, renewal(enrolment(seed)), LATE).unwrap_err();
        assert_eq!(refused(1), Refusal::Left);
        assert_eq!(refused(2), Refusal::Revoked);
    }

    #[test]
    fn the_members_of_a_revoked_issuer_are_renewed_if_they_were_known_before() {
        let (_dir, mut catalog, authority) = second();
        catalog.revoke(revocation(101, 200), START_MS).unwrap();
        // Made up with the stolen key, dated back, and brought by a super-peer that did not know yet.
        let made_up = enrolment(7);
        let dir = tempfile::tempdir().unwrap();
        let mut third = crate::catalog::fixtures::catalog(dir.path(), 101);
        let entries = third.enrol(made_up.clone(), START_MS).unwrap();
        catalog.take(&membership(102), entries, START_MS).unwrap();

        let now = START.plus(Duration::from_hours(1));
        let renewed = renew(&authority, &mut catalog, renewal(enrolment(1)), now).unwrap();
        assert_eq!(renewed.membership.issuer, Some(peer(102)));
        assert_eq!(renewed.membership.expires, now.plus(NODE_LIFETIME));
        assert_eq!(renew(&authority, &mut catalog, renewal(made_up), now).unwrap_err(), Refusal::NotAMember);
    }

    #[test]
    fn a_super_peer_is_renewed_with_the_root_key_and_waits_for_it_elsewhere() {
        let (_dir, mut catalog, authority) = second();
        let own = || renewal(enrolment(102));
        assert_eq!(renew(&authority, &mut catalog, own(), LATE).unwrap_err(), Refusal::AwaitingApproval);
        let root = Authority::new(key(102), superpeer_credential(102), Some(key(200)));
        let renewed = renew(&root, &mut catalog, own(), LATE).unwrap();
        assert_eq!((renewed.membership.issued, renewed.membership.issuer), (LATE, None));
    }
}
