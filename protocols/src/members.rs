//! A member's entry in the catalog: its credential and its sealing key, each verifiable by itself.

use std::cmp::Ordering;

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use crate::{
    cbor,
    credentials::{Credential, CredentialError, Membership, Trust},
    ids::RecordHash,
    keys::SealingKey,
    lately::Mark,
    signing::Signed,
};

/// The largest encoded enrolment, in bytes.
pub const ENROLMENT_MAX_BYTES: usize = 8 * 1024;

/// A member's entry as it travels, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Whose it is.
    pub peer: PeerId,
    /// Its latest credential.
    pub credential: Credential,
    /// Its sealing key.
    pub sealing_key: Signed<SealingKey>,
}

/// A verified entry. Its credential may have expired: the member existed all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// What the credential says.
    pub membership: Membership,
    /// The sealing key, signed by the member.
    pub sealing_key: SealingKey,
    enrolment: Enrolment,
    hash: RecordHash,
}

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// The credential is not one of this network for this peer.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The sealing key is not the member's own.
    #[error("the sealing key is not signed by the member")]
    SealingKey,
}

impl Enrolment {
    /// The id of a member's entry: its peer id's hash, since peer ids have no fixed length.
    pub fn id_of(peer: &PeerId) -> [u8; 32] {
        blake3::derive_key("quarta 2026 member entry v1", &peer.to_bytes())
    }

    /// Verifies the entry.
    ///
    /// # Errors
    /// [`EnrolmentError`] with the first reason found.
    pub fn verify(self, trust: &Trust) -> Result<Enrolled, EnrolmentError> {
        let bytes = cbor::to_vec(&self);
        let hash = RecordHash::of(&bytes);
        let mark = Mark::of(&bytes);
        if let Some((membership, sealing_key)) = trust.enrolled.get(&mark) {
            return Ok(Enrolled { membership, sealing_key, enrolment: self, hash });
        }
        let membership = self.credential.verify_ignoring_time(trust, &self.peer)?;
        let sealing_key = SealingKey::verify(&self.sealing_key, &trust.network, &self.peer)
            .map_err(|_| EnrolmentError::SealingKey)?;
        trust.enrolled.keep([(mark, (membership.clone(), sealing_key.clone()))]);
        Ok(Enrolled { membership, sealing_key, enrolment: self, hash })
    }
}

impl Enrolled {
    /// The entry as it travels.
    pub const fn enrolment(&self) -> &Enrolment {
        &self.enrolment
    }

    /// Whether this entry takes the place of `other`, which must be of the same member: the credential issued later
    /// wins, then the higher hash.
    pub fn supersedes(&self, other: &Self) -> bool {
        let order = self.membership.issued.cmp(&other.membership.issued).then(self.hash.cmp(&other.hash));
        order == Ordering::Greater
    }
}
