//! Identifiers: fixed-size hashes under distinct types, so that a content can never be passed where a file is meant.
//!
//! All are 32 bytes, print as 64 lower-case hexadecimal digits, travel in CBOR as a byte string and in JSON as that
//! hexadecimal text. Each is the output of BLAKE3 under a context of its own (or SHA-256, for [`Sha256`]), so equal
//! inputs of two kinds never give equal ids.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use libp2p::{PeerId, identity::ed25519};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Length of every identifier, in bytes.
pub const ID_BYTES: usize = 32;

/// A text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {kind}: expected 64 hexadecimal digits")]
pub struct ParseIdError {
    kind: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// Wraps bytes that are known to be such an id.
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }

            /// The first 12 hexadecimal digits: enough for people to tell apart what one list shows.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..6])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                HEXLOWER
                    .decode(text.to_ascii_lowercase().as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or(ParseIdError { kind: $kind })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    serde_bytes::ByteArray::<ID_BYTES>::deserialize(deserializer).map(|b| Self(b.into_array()))
                }
            }
        }
    };
}

id!(
    /// One organisation's network: derived from its root public key.
    NetworkId,
    "a network id"
);
id!(
    /// A file for as long as it exists, through updates and hand-overs: derived from network, first owner and a nonce.
    FileId,
    "a file id"
);
id!(
    /// One sealed form of a file's bytes: the hash of its manifest.
    ContentId,
    "a content id"
);
id!(
    /// One exact revision of a record: the hash of its signed bytes.
    RecordHash,
    "a record hash"
);
id!(
    /// The SHA-256 of a file's plaintext: what `sha256sum` prints.
    Sha256,
    "a SHA-256 checksum"
);

id!(
    /// A set of readers and their keys: derived from network, owner and a nonce.
    AudienceId,
    "an audience id"
);

impl NetworkId {
    /// The network whose root holds `root`'s private half.
    pub fn of_root(root: &ed25519::PublicKey) -> Self {
        Self(blake3::derive_key("quarta 2026 network id v1", &root.to_bytes()))
    }

    /// The form that stands in protocol names: 32 hexadecimal digits.
    pub fn protocol_tag(&self) -> String {
        HEXLOWER.encode(&self.0[..16])
    }
}

impl FileId {
    /// The id of the file that `first_owner` added with `nonce`. Deriving it from its owner lets nobody else claim it.
    pub fn derive(network: &NetworkId, first_owner: &PeerId, nonce: &[u8; 16]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("quarta 2026 file id v1");
        hasher.update(network.as_bytes());
        hasher.update(nonce);
        hasher.update(&first_owner.to_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl AudienceId {
    /// The id of the audience that `owner` made with `nonce`.
    pub fn derive(network: &NetworkId, owner: &PeerId, nonce: &[u8; 16]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("quarta 2026 audience id v1");
        hasher.update(network.as_bytes());
        hasher.update(nonce);
        hasher.update(&owner.to_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl RecordHash {
    /// The hash of a record's signed bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::derive_key("quarta 2026 record hash v1", bytes))
    }
}

/// A peer id does not carry an Ed25519 public key, as every member's does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the id of an Ed25519 key")]
pub struct NotEd25519(pub PeerId);

/// The public key inside a member's peer id.
///
/// Ed25519 peer ids are the key itself (libp2p's *identity* multihash), so a signature by a member can be verified
/// with nothing but its id.
///
/// # Errors
/// [`NotEd25519`] for an id of another key type.
pub fn public_key_of(peer: &PeerId) -> Result<ed25519::PublicKey, NotEd25519> {
    let multihash = peer.as_ref();
    (multihash.code() == 0)
        .then(|| libp2p::identity::PublicKey::try_decode_protobuf(multihash.digest()).ok())
        .flatten()
        .and_then(|key| key.try_into_ed25519().ok())
        .ok_or(NotEd25519(*peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn an_id_reads_back_from_what_it_prints_and_from_cbor_and_json() {
        let id = FileId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse::<FileId>().unwrap(), id);
        assert_eq!(id.to_string().to_uppercase().parse::<FileId>().unwrap(), id);
        let bytes = cbor::to_vec(&id);
        assert_eq!(bytes.len(), 34, "a byte string, not an array of integers");
        assert_eq!(cbor::from_slice::<FileId>(&bytes).unwrap(), id);
        assert_eq!(serde_json::from_str::<FileId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn a_short_or_odd_text_is_not_an_id() {
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert!(text.parse::<ContentId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_peer_id_gives_back_its_own_key_and_other_key_types_are_refused() {
        let key = libp2p::identity::Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        assert_eq!(libp2p::identity::PublicKey::from(public_key_of(&peer).unwrap()), key.public());
        assert!(public_key_of(&PeerId::random()).is_err());
    }
}
