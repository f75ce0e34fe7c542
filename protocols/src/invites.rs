//! Invites: one pasteable string that lets a machine join.
//!
//! ```text
//! invite = "quarta1" ‖ base32(lower case, no padding)( CBOR of Invite ‖ first 4 bytes of its BLAKE3 )
//! ```
//!
//! The root public key and the issuer's peer id stand in it, so the joiner authenticates the network before it shows
//! the secret; the checksum tells a mistyped invite from a refused one. The secret has 128 bits; the issuer keeps only
//! [`secret_hash`] of it.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use libp2p::{Multiaddr, PeerId, identity::ed25519};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::{
    cbor,
    credentials::{Role, Trust, UnixSeconds},
    limits::ADDRESSES_MAX,
};

/// Length of an invite's secret, in bytes.
pub const SECRET_BYTES: usize = 16;
/// Longest invite, in characters.
pub const INVITE_MAX_CHARS: usize = 4096;

/// How every invite begins.
pub const INVITE_PREFIX: &str = "quarta1";
const CHECKSUM_BYTES: usize = 4;

/// A permission to join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    root: ByteArray<32>,
    /// The super-peer that issued it and alone redeems it.
    pub issuer: PeerId,
    /// Where the issuer is reached.
    #[serde(deserialize_with = "cbor::at_most::<ADDRESSES_MAX, _, _>")]
    pub addresses: Vec<Multiaddr>,
    /// What the joiner will be.
    pub role: Role,
    /// Until when it can be redeemed.
    pub expires: UnixSeconds,
    secret: ByteArray<SECRET_BYTES>,
}

/// Why a text is not an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Does not begin as one.
    #[error("an invite begins with {INVITE_PREFIX:?}")]
    NotAnInvite,
    /// Incomplete or mistyped.
    #[error("the invite is incomplete or mistyped")]
    Damaged,
}

impl Invite {
    /// Makes an invite from its parts.
    pub fn new(
        root: &ed25519::PublicKey,
        issuer: PeerId,
        addresses: Vec<Multiaddr>,
        role: Role,
        expires: UnixSeconds,
        secret: [u8; SECRET_BYTES],
    ) -> Self {
        let root = ByteArray::new(root.to_bytes());
        Self { root, issuer, addresses, role, expires, secret: ByteArray::new(secret) }
    }

    /// Reads an invite, ignoring white space that pasting brought along.
    ///
    /// # Errors
    /// [`InviteError`] for anything but an undamaged invite.
    pub fn parse(text: &str) -> Result<Self, InviteError> {
        let text: String = text.chars().take(2 * INVITE_MAX_CHARS).filter(|c| !c.is_whitespace()).collect();
        let encoded = text.strip_prefix(INVITE_PREFIX).ok_or(InviteError::NotAnInvite)?;
        if text.len() > INVITE_MAX_CHARS {
            return Err(InviteError::Damaged);
        }
        let bytes =
            BASE32_NOPAD.decode(encoded.to_ascii_uppercase().as_bytes()).map_err(|_| InviteError::Damaged)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InviteError::Damaged)?;
        if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != checksum[..] {
            return Err(InviteError::Damaged);
        }
        let invite: Self = cbor::from_slice(body).map_err(|_| InviteError::Damaged)?;
        invite.trust().ok_or(InviteError::Damaged)?;
        Ok(invite)
    }

    /// The network it leads to; none where the root key in it is not a key, which [`Self::parse`] refuses.
    pub fn trust(&self) -> Option<Trust> {
        ed25519::PublicKey::try_from_bytes(self.root.as_slice()).ok().map(Trust::in_root)
    }

    /// The secret to show to the issuer.
    pub const fn secret(&self) -> &ByteArray<SECRET_BYTES> {
        &self.secret
    }

    /// The pasteable string. It admits whoever holds it: treat it like a password.
    pub fn to_text(&self) -> String {
        let mut bytes = cbor::to_vec(self);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        format!("{INVITE_PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("root", &HEXLOWER.encode(&*self.root))
            .field("issuer", &self.issuer)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// What the issuer stores in place of the secret.
pub fn secret_hash(secret: &[u8; SECRET_BYTES]) -> [u8; 32] {
    blake3::derive_key("quarta 2026 invite secret v1", secret)
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    fn invite() -> Invite {
        let root = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let issuer = Keypair::ed25519_from_bytes([2; 32]).unwrap().public().to_peer_id();
        let address = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let root = root.public().try_into_ed25519().unwrap();
        Invite::new(&root, issuer, vec![address], Role::Node, UnixSeconds(1_800_000_000), [3; 16])
    }

    #[test]
    fn an_invite_survives_a_mail_programs_line_breaks_and_capitals() {
        let text = invite().to_text();
        let wrapped: String = text
            .chars()
            .enumerate()
            .flat_map(|(i, c)| if i % 70 == 69 { vec![c, '\r', '\n'] } else { vec![c] })
            .collect();
        assert_eq!(Invite::parse(&wrapped), Ok(invite()));
        assert_eq!(Invite::parse(&format!("quarta1{}", text[7..].to_uppercase())), Ok(invite()));
    }

    #[test]
    fn a_mistyped_invite_is_told_from_a_wrong_text() {
        let text = invite().to_text();
        assert_eq!(Invite::parse("hello"), Err(InviteError::NotAnInvite));
        assert_eq!(Invite::parse(&text[..text.len() - 1]), Err(InviteError::Damaged));
        for at in (7..text.len()).step_by(5) {
            let mut typo: Vec<u8> = text.clone().into_bytes();
            typo[at] = if typo[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(
                Invite::parse(std::str::from_utf8(&typo).unwrap()),
                Err(InviteError::Damaged),
                "at {at}"
            );
        }
    }

    #[test]
    fn an_invites_text_is_held_still() {
        assert_eq!(invite().to_text(), GOLDEN);
    }
    const GOLDEN: &str = "quarta1uzshe33pormcbcui4poxicprsx6vfwznhs5f24wkm4e36hmucin7g5eiag2a6324mzuxg43vmvzfqjqaeqeaceraqe4xodvipulv6vvdkrtmgtd6ztfy3curwtxdpis56yhvxd6jwokgsylemrzgk43tmvzycsaeyaaaeaigb6qwi4tpnrswi3tpmrswozlyobuxezltdjvutuqamzzwky3smv2faaydambqgaydambqgaydambqga4bfnhqk";

    #[test]
    fn debug_output_has_no_secret() {
        assert!(!format!("{:?}", invite()).contains("[3, 3"));
    }
}
