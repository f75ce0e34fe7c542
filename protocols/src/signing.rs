//! Signatures: each covers a domain string with a version, the network id, and the signed bytes exactly as they travel.
//!
//! ```text
//! signed message = domain (UTF-8) ‖ 0x00 ‖ network id (32 bytes) ‖ body
//! ```
//!
//! No domain contains a zero byte, so no two (domain, network, body) give the same message. What has not been verified
//! is a [`Signed<T>`]; its content comes out through [`Signed::verify`] only, and is decoded from the very bytes that
//! were signed, so that encodings need not be canonical.

use std::{fmt, marker::PhantomData};

use libp2p::identity::{Keypair, ed25519};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    cbor::{self, DecodeError},
    ids::NetworkId,
};

/// Length of an Ed25519 signature, in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// A kind of statement that can be signed.
pub trait Statement: Serialize + DeserializeOwned {
    /// What is being stated, with a version: unique among all statements, without a zero byte.
    const DOMAIN: &'static str;
    /// The largest encoded statement, in bytes.
    const MAX_BYTES: usize;
}

/// Why a signed statement is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The signature is not this signer's over these bytes in this network.
    #[error("the signature does not verify")]
    BadSignature,
    /// Well signed, but not a statement of the expected shape.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// A statement with a signature that nobody has checked yet. Prints as its length: a file's record holds its key.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    body: ByteBuf,
    signature: ByteArray<SIGNATURE_BYTES>,
    #[serde(skip)]
    statement: PhantomData<fn() -> T>,
}

impl<T: Statement> Signed<T> {
    /// Signs a statement for one network.
    ///
    /// # Panics
    /// Only for a key that is not Ed25519, which no member has.
    pub fn new(statement: &T, network: &NetworkId, signer: &Keypair) -> Self {
        let body = cbor::to_vec(statement);
        let signature = sign(T::DOMAIN, network, &body, signer);
        Self { body: ByteBuf::from(body), signature: ByteArray::new(signature), statement: PhantomData }
    }

    /// Checks the signature and gives the statement.
    ///
    /// # Errors
    /// [`VerifyError`]; nothing of the content is looked at before the signature holds.
    pub fn verify(&self, network: &NetworkId, signer: &ed25519::PublicKey) -> Result<T, VerifyError> {
        if !verify(T::DOMAIN, network, &self.body, signer, &self.signature) {
            return Err(VerifyError::BadSignature);
        }
        Ok(cbor::from_slice_within(&self.body, T::MAX_BYTES)?)
    }

    /// The statement as claimed, for finding out whose signature to check. Trust nothing else in it.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are no such statement.
    pub fn peek(&self) -> Result<T, DecodeError> {
        cbor::from_slice_within(&self.body, T::MAX_BYTES)
    }

    /// The signed bytes.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl<T: Statement> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({}, {} bytes)", T::DOMAIN, self.body.len())
    }
}

/// Signs bytes under a domain in a network.
///
/// # Panics
/// Only for a key that is not Ed25519, which no member has.
pub fn sign(domain: &str, network: &NetworkId, body: &[u8], signer: &Keypair) -> [u8; SIGNATURE_BYTES] {
    signer
        .sign(&message(domain, network, body))
        .ok()
        .and_then(|signature| signature.try_into().ok())
        .expect("an Ed25519 key signs anything with 64 bytes")
}

/// Whether `signature` is `signer`'s over these bytes under this domain in this network.
pub fn verify(
    domain: &str,
    network: &NetworkId,
    body: &[u8],
    signer: &ed25519::PublicKey,
    signature: &[u8; SIGNATURE_BYTES],
) -> bool {
    signer.verify(&message(domain, network, body), signature)
}

fn message(domain: &str, network: &NetworkId, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(domain.len() + 33 + body.len());
    message.extend_from_slice(domain.as_bytes());
    message.push(0);
    message.extend_from_slice(network.as_bytes());
    message.extend_from_slice(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note(String);
    impl Statement for Note {
        const DOMAIN: &'static str = "quarta/test-note/1";
        const MAX_BYTES: usize = 64;
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Other(String);
    impl Statement for Other {
        const DOMAIN: &'static str = "quarta/test-other/1";
        const MAX_BYTES: usize = 64;
    }

    #[test]
    fn a_signed_statement_does_not_print_what_it_states() {
        let key = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let signed = Signed::new(&Note("a key".to_owned()), &NetworkId::from_bytes([1; 32]), &key);
        assert_eq!(format!("{signed:?}"), "Signed(quarta/test-note/1, 6 bytes)");
    }

    fn public(key: &Keypair) -> ed25519::PublicKey {
        key.public().try_into_ed25519().unwrap()
    }

    #[test]
    fn a_signature_holds_for_its_signer_network_and_kind_only() {
        let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (here, there) = (NetworkId::from_bytes([1; 32]), NetworkId::from_bytes([2; 32]));
        let signed = Signed::new(&Note("hello".into()), &here, &key);
        assert_eq!(signed.verify(&here, &public(&key)), Ok(Note("hello".into())));
        assert_eq!(signed.verify(&there, &public(&key)), Err(VerifyError::BadSignature));
        assert_eq!(signed.verify(&here, &public(&other)), Err(VerifyError::BadSignature));
        let recast =
            Signed::<Other> { body: signed.body, signature: signed.signature, statement: PhantomData };
        assert_eq!(recast.verify(&here, &public(&key)), Err(VerifyError::BadSignature));
    }

    #[test]
    fn a_flipped_bit_anywhere_breaks_it() {
        let key = Keypair::generate_ed25519();
        let network = NetworkId::from_bytes([1; 32]);
        let bytes = cbor::to_vec(&Signed::new(&Note("hello".into()), &network, &key));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let accepted = cbor::from_slice::<Signed<Note>>(&changed).is_ok_and(|signed| {
                signed.verify(&network, &public(&key)).is_ok_and(|note| note.0 != "hello")
            });
            assert!(!accepted, "bit {bit}");
        }
    }

    #[test]
    fn a_statement_above_its_size_is_refused_though_well_signed() {
        let key = Keypair::generate_ed25519();
        let network = NetworkId::from_bytes([1; 32]);
        let signed = Signed::new(&Note("x".repeat(100)), &network, &key);
        assert!(matches!(
            signed.verify(&network, &public(&key)),
            Err(VerifyError::Malformed(DecodeError::TooLarge { .. }))
        ));
    }
}
