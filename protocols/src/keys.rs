//! A member's sealing key: the X25519 key that others wrap file keys to, bound to the member by its own signature.
//!
//! Keys are wrapped to no key that has not come through [`SealingKey::verify`]: a super-peer that passes on another
//! key than the member's own is found out by the signature.

use hpke::{Deserializable, Kem, Serializable, kem::X25519HkdfSha256};
use libp2p::{PeerId, identity::Keypair};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    ids::{NetworkId, public_key_of},
    signing::{Signed, Statement, VerifyError},
};

/// Length of a sealing key, public or private, in bytes.
pub const SEALING_KEY_BYTES: usize = 32;

/// The public half, as stated by its member.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SealingKey {
    /// The member.
    pub peer: PeerId,
    /// Its X25519 public key.
    pub public: ByteArray<SEALING_KEY_BYTES>,
}

impl Statement for SealingKey {
    const DOMAIN: &'static str = "quarta/sealing-key/1";
    const MAX_BYTES: usize = 256;
}

impl SealingKey {
    /// Checks that this is `peer`'s own statement.
    ///
    /// # Errors
    /// [`VerifyError`]; a statement about another peer counts as badly signed.
    pub fn verify(signed: &Signed<Self>, network: &NetworkId, peer: &PeerId) -> Result<Self, VerifyError> {
        let key = public_key_of(peer).map_err(|_| VerifyError::BadSignature)?;
        let stated = signed.verify(network, &key)?;
        if stated.peer == *peer { Ok(stated) } else { Err(VerifyError::BadSignature) }
    }
}

/// The private half. Prints as nothing and is wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealingSecret([u8; SEALING_KEY_BYTES]);

impl SealingSecret {
    /// Makes a new key pair's private half from the system's randomness.
    pub fn generate() -> Self {
        let (secret, _) = X25519HkdfSha256::gen_keypair();
        Self(secret.to_bytes().into())
    }

    /// Takes back what [`Self::as_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; SEALING_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The raw private key, for its key file.
    pub const fn as_bytes(&self) -> &[u8; SEALING_KEY_BYTES] {
        &self.0
    }

    /// The member's signed statement of the public half.
    ///
    /// # Panics
    /// Only for an identity that is not Ed25519, which no member has.
    pub fn statement(&self, network: &NetworkId, identity: &Keypair) -> Signed<SealingKey> {
        let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.0)
            .expect("any 32 bytes are an X25519 key");
        let public = X25519HkdfSha256::sk_to_pk(&secret).to_bytes();
        let key = SealingKey { peer: identity.public().to_peer_id(), public: ByteArray::new(public.into()) };
        Signed::new(&key, network, identity)
    }
}

impl std::fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_vouches_for_its_own_key_and_nobody_elses() {
        let network = NetworkId::from_bytes([1; 32]);
        let (member, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let signed = SealingSecret::generate().statement(&network, &member);
        assert!(SealingKey::verify(&signed, &network, &member.public().to_peer_id()).is_ok());
        assert!(SealingKey::verify(&signed, &network, &other.public().to_peer_id()).is_err());
    }

    #[test]
    fn the_same_secret_states_the_same_key_after_a_restart() {
        let network = NetworkId::from_bytes([1; 32]);
        let member = Keypair::generate_ed25519();
        let secret = SealingSecret::generate();
        let again = SealingSecret::from_bytes(*secret.as_bytes());
        assert_eq!(secret.statement(&network, &member), again.statement(&network, &member));
    }
}
