//! Super-peers that wait for the holder of the root key: to become members, or to go on being so.
//!
//! Only the root signs super-peers' credentials, and its key belongs offline. So approval comes to the key, not the key to
//! the daemon: whoever holds it reads here who waits, signs elsewhere, and hands in the finished credential.

use std::time::Duration;

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    credentials::{Credential, Grant, Role, UnixSeconds},
    keys::SealingKey,
    members::Enrolment,
    messages::admission::Refusal,
    names::MemberName,
    signing::Signed,
};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{AdmissionError, Admitted, Authority, admit, check_standing, moment, seconds};
use crate::catalog::{Catalog, CatalogError, EnrolError, Standing, Write, check_name};

/// How long before the end of its credential a super-peer's is to be approved again.
pub const APPROVED_BEFORE_EXPIRY: Duration = Duration::from_hours(60 * 24);

/// A super-peer that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerId,
    /// How it will be called, or is.
    pub name: MemberName,
    /// What it waits for.
    pub wants: Wants,
}

/// What a super-peer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// It showed an invite, for the last time then.
    Admission(UnixSeconds),
    /// Its credential ends then.
    Renewal(UnixSeconds),
}

/// The super-peers that wait for approval, those that want to join first.
///
/// # Errors
/// [`CatalogError`] where the database fails.
pub fn candidates(catalog: &Catalog, now: UnixSeconds) -> Result<Vec<Candidate>, CatalogError> {
    let mut rows =
        catalog.connection().prepare_cached("SELECT peer, name, since FROM candidates ORDER BY name")?;
    let mut rows = rows.query([])?;
    let mut candidates = Vec::new();
    while let Some(row) = rows.next()? {
        let peer: Vec<u8> = row.get(0)?;
        let name: String = row.get(1)?;
        candidates.push(Candidate {
            peer: PeerId::from_bytes(&peer).map_err(CatalogError::damaged)?,
            name: MemberName::new(&name).map_err(CatalogError::damaged)?,
            wants: Wants::Admission(moment(row.get(2)?)?),
        });
    }
    let due = now.plus(APPROVED_BEFORE_EXPIRY);
    let superpeers = catalog.reader()?.superpeers()?;
    let due = superpeers.into_iter().filter(|member| member.expires <= due);
    candidates.extend(due.map(|member| Candidate {
        peer: member.peer,
        name: member.name,
        wants: Wants::Renewal(member.expires),
    }));
    Ok(candidates)
}

impl Authority {
    /// Approves the super-peer that waits under a name: with a credential that the root signed elsewhere, or where there is
    /// none with the root key that lies here. It gets the credential when it asks the next time.
    ///
    /// `token_id` is 128 fresh random bits.
    ///
    /// # Errors
    /// [`AdmissionError`]; then nothing has changed.
    pub fn approve(
        &self,
        catalog: &mut Catalog,
        name: &MemberName,
        signed: Option<Credential>,
        token_id: [u8; 16],
        now: UnixSeconds,
    ) -> Result<Admitted, AdmissionError> {
        catalog.transact(now.0.saturating_mul(1000), |write, context| {
            let waiting = waiting(write.tx(), name)?;
            let (peer, sealing_key) = match waiting {
                Some((peer, hash, sealing_key)) => {
                    check_standing(write, &peer, Role::Superpeer)?;
                    check_name(write, name, &peer, gives_again(write.tx(), &hash, name)?)?;
                    (peer, sealing_key)
                }
                None => member_to_renew(write, name, context.trust)?
                    .ok_or_else(|| AdmissionError::NobodyWaits(name.clone()))?,
            };
            let role = Role::Superpeer;
            let credential = match (signed, &self.root) {
                (Some(signed), _) => {
                    let says = signed
                        .verify_ignoring_time(context.trust, &peer)
                        .map_err(AdmissionError::BadCredential)?;
                    if says.role != role || says.name != *name {
                        return Err(AdmissionError::OtherGrant);
                    }
                    signed
                }
                (None, Some(_)) => self.grant(context.trust, &Grant { peer, name, role, now, token_id })?,
                (None, None) => return Err(Refusal::NotTheRoot.into()),
            };
            forget(write.tx(), &peer)?;
            admit(write, Enrolment { peer, credential, sealing_key }, context)
        })
    }
}

/// Notes that a super-peer waits, in place of what it wanted before. Of two that wish for one name the first has it.
pub(super) fn note(
    tx: &Transaction<'_>,
    invite: &[u8; 32],
    peer: &PeerId,
    name: &MemberName,
    sealing_key: &Signed<SealingKey>,
    now: UnixSeconds,
) -> Result<(), AdmissionError> {
    if waiting(tx, name)?.is_some_and(|(first, ..)| first != *peer) {
        return Err(EnrolError::NameTaken.into());
    }
    tx.execute(
        "INSERT OR REPLACE INTO candidates VALUES (?1, ?2, ?3, ?4, ?5)",
        params![peer.to_bytes(), invite, name.as_str(), cbor::to_vec(sealing_key), seconds(now)],
    )
    .map_err(CatalogError::from)?;
    Ok(())
}

pub(super) fn forget(tx: &Transaction<'_>, peer: &PeerId) -> Result<(), CatalogError> {
    tx.execute("DELETE FROM candidates WHERE peer = ?1", [peer.to_bytes()])?;
    Ok(())
}

type Waiting = (PeerId, [u8; 32], Signed<SealingKey>);

fn waiting(tx: &Transaction<'_>, name: &MemberName) -> Result<Option<Waiting>, CatalogError> {
    let found: Option<(Vec<u8>, [u8; 32], Vec<u8>)> = tx
        .query_row(
            "SELECT peer, secret_hash, sealing_key FROM candidates WHERE name = ?1",
            [name.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((peer, hash, sealing_key)) = found else { return Ok(None) };
    let peer = PeerId::from_bytes(&peer).map_err(CatalogError::damaged)?;
    Ok(Some((peer, hash, cbor::from_slice(&sealing_key).map_err(CatalogError::damaged)?)))
}

/// Whether the invite gives the departed member's name again.
fn gives_again(tx: &Transaction<'_>, invite: &[u8; 32], name: &MemberName) -> Result<bool, CatalogError> {
    Ok(tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM invites WHERE secret_hash = ?1 AND replaces = ?2)",
        params![invite, name.as_str()],
        |row| row.get(0),
    )?)
}

/// The super-peer of this name, which is one already.
fn member_to_renew(
    write: &Write<'_>,
    name: &MemberName,
    trust: &quarta_protocols::credentials::Trust,
) -> Result<Option<(PeerId, Signed<SealingKey>)>, CatalogError> {
    let Some(peer) = write.superpeer_called(name)? else { return Ok(None) };
    if write.standing_of(&peer)? != Some(Standing::Member) {
        return Ok(None);
    }
    let enrolled = write.enrolled(&peer, trust)?;
    Ok(enrolled.map(|enrolled| (peer, enrolled.enrolment().sealing_key.clone())))
}
