//! What two members say to each other first: who they are, proven by a credential for the very peer id that the
//! transport proved, and the key that may be sealed to.
//!
//! The side that dialled speaks first; the other presents itself only to a peer that it has verified, so a stranger
//! that knocks learns no name. Either side speaks again when its credential changes.

use libp2p::PeerId;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    credentials::{CredentialError, Trust, UnixSeconds},
    limits::VERSION_MAX_BYTES,
    members::{ENROLMENT_MAX_BYTES, Enrolled, Enrolment, EnrolmentError},
};

/// The protocol's part of its libp2p name.
pub(super) const NAME: &str = "hello";
/// Counts incompatible changes.
pub(super) const VERSION: u32 = 1;
/// The largest encoded greeting, in bytes.
pub(super) const MAX_REQUEST_BYTES: usize = ENROLMENT_MAX_BYTES + 256;
/// The largest encoded answer, in bytes.
pub(super) const MAX_RESPONSE_BYTES: usize = 64;

/// A greeting, not yet verified.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) enrolment: Enrolment,
    pub(super) version: SoftwareVersion,
    /// The sender's clock when it spoke; versions before it was added send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) clock: Option<UnixSeconds>,
}

/// Why a greeting is not accepted, and what its sender's clock said where the sender is a member but for the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) struct Unwelcome {
    pub(super) refusal: Refusal,
    pub(super) clock: Option<UnixSeconds>,
}

impl From<Refusal> for Unwelcome {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, clock: None }
    }
}

/// A greeting's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::network) enum Response {
    Welcome,
    Refused(Refusal),
}

/// Why a peer is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Its greeting or credential is not of the expected form.
    #[error("the credential is malformed")]
    Malformed,
    /// Its credential's signatures do not lead to this network's root, or its issuer may not issue it.
    #[error("the credential was not issued by this network")]
    NotIssuedHere,
    /// It is a member of another network.
    #[error("the peer is in another network")]
    OtherNetwork,
    /// Its credential names another peer.
    #[error("the credential belongs to another peer")]
    OtherPeer,
    /// Its credential has expired.
    #[error("the credential has expired")]
    Expired,
    /// Its credential is not valid yet: a clock is wrong.
    #[error("the credential is not valid yet: a clock is wrong")]
    NotYetValid,
    /// It has been revoked.
    #[error("the member has been revoked")]
    Revoked,
    /// It has left for good.
    #[error("the member has left the network for good")]
    Left,
    /// The super-peer that issued its credential has been revoked; another one can renew it.
    #[error("the super-peer that issued the credential has been revoked")]
    IssuerRevoked,
    /// The one that refuses is itself not a member yet.
    #[error("the other side is not a member itself")]
    NotAMember,
}

impl Refusal {
    /// The label used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotIssuedHere => "not_issued_here",
            Self::OtherNetwork => "other_network",
            Self::OtherPeer => "other_peer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::Left => "left",
            Self::IssuerRevoked => "issuer_revoked",
            Self::NotAMember => "not_a_member",
        }
    }
}

impl From<CredentialError> for Refusal {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Malformed => Self::Malformed,
            CredentialError::NotIssuedHere | CredentialError::IssuerNotAllowed => Self::NotIssuedHere,
            CredentialError::OtherNetwork => Self::OtherNetwork,
            CredentialError::OtherPeer => Self::OtherPeer,
            CredentialError::Expired { .. } => Self::Expired,
            CredentialError::NotYetValid { .. } => Self::NotYetValid,
        }
    }
}

/// The version of the software that a member runs: 1 to [`VERSION_MAX_BYTES`] visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SoftwareVersion(String);

/// A text is not a software version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a software version is 1 to {VERSION_MAX_BYTES} visible ASCII characters")]
pub struct InvalidVersion;

impl SoftwareVersion {
    /// Validates a version.
    ///
    /// # Errors
    /// [`InvalidVersion`].
    pub fn new(version: &str) -> Result<Self, InvalidVersion> {
        let fits =
            (1..=VERSION_MAX_BYTES).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(version.to_owned())).ok_or(InvalidVersion)
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SoftwareVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What a verified greeting said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The member's credential and sealing key.
    pub enrolled: Enrolled,
    /// The software that it runs.
    pub version: SoftwareVersion,
    /// Its clock when it spoke, if it said so. Its own word: of use for telling whose clock is wrong, and nothing else.
    pub clock: Option<UnixSeconds>,
}

/// Verifies a greeting for the peer that the transport proved.
pub(super) fn check(
    request: Request,
    trust: &Trust,
    presenter: &PeerId,
    now: UnixSeconds,
) -> Result<Presented, Unwelcome> {
    if request.enrolment.peer != *presenter {
        return Err(Refusal::OtherPeer.into());
    }
    let in_time = request.enrolment.credential.verify(trust, presenter, now);
    let enrolled = request.enrolment.verify(trust).map_err(|error| match error {
        EnrolmentError::Credential(error) => Refusal::from(error),
        EnrolmentError::SealingKey => Refusal::Malformed,
    })?;
    // All but the time is in order, so that the clock is a member's word.
    in_time.map_err(|error| Unwelcome { refusal: error.into(), clock: request.clock })?;
    Ok(Presented { enrolled, version: request.version, clock: request.clock })
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;
    use crate::{
        cbor,
        credentials::{Credential, Grant, Role},
        keys::SealingSecret,
        names::MemberName,
        network::codec::protocol_name,
    };

    #[test]
    fn a_version_is_short_and_visible() {
        assert!(SoftwareVersion::new("0.1.0+abc").is_ok());
        for text in ["", "1 2", "1\n", "é", &"1".repeat(33)] {
            assert_eq!(SoftwareVersion::new(text), Err(InvalidVersion), "{text:?}");
        }
        assert!(cbor::from_slice::<SoftwareVersion>(&cbor::to_vec("1\u{7}")).is_err());
    }

    fn greeting() -> (Trust, Request) {
        let [root, superpeer] = [1, 2].map(|seed| Keypair::ed25519_from_bytes([seed; 32]).unwrap());
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let peer = superpeer.public().to_peer_id();
        let grant = Grant {
            peer,
            name: &MemberName::new("sp1").unwrap(),
            role: Role::Superpeer,
            now: UnixSeconds(1_790_000_000),
            token_id: [5; 16],
        };
        let credential = Credential::issue_by_root(&root, &trust.network, &grant);
        let sealing_key = SealingSecret::from_bytes([8; 32]).statement(&trust.network, &superpeer);
        let version = SoftwareVersion::new("0.1.0").unwrap();
        (trust, Request { enrolment: Enrolment { peer, credential, sealing_key }, version, clock: None })
    }

    /// The other formats are held still in `protocols/tests/golden`, which also says what to do about a change; an
    /// enrolment's own bytes are among them.
    #[test]
    fn the_name_and_the_bytes_of_a_greeting_are_held_still() {
        let (trust, greeting) = greeting();
        let name = protocol_name(&trust.network, NAME, VERSION);
        assert_eq!(name.as_ref(), "/quarta/672c939b10de23178b52860d1651af0c/hello/1");
        let bytes = cbor::to_vec(&greeting);
        let enrolment = cbor::to_vec(&greeting.enrolment);
        let expected = [b"\xa2\x69enrolment".as_slice(), &enrolment, b"\x67version\x650.1.0"].concat();
        assert_eq!(bytes, expected);
        assert_eq!(cbor::to_vec(&cbor::from_slice::<Request>(&bytes).unwrap()), bytes);
        let with_clock = Request { clock: Some(UnixSeconds(1_790_000_000)), ..greeting };
        let clock = b"\x65clock\x1a\x6a\xb1\x3b\x80";
        let expected = [b"\xa3".as_slice(), &expected[1..], clock].concat();
        assert_eq!(cbor::to_vec(&with_clock), expected);
        assert_eq!(cbor::to_vec(&cbor::from_slice::<Request>(&expected).unwrap()), expected);
        let with_a_later_field = [b"\xa3\x65later\x81\xf6".as_slice(), &bytes[1..]].concat();
        assert_eq!(cbor::to_vec(&cbor::from_slice::<Request>(&with_a_later_field).unwrap()), bytes);
    }

    #[test]
    fn a_member_that_is_refused_for_the_time_alone_tells_its_clock_and_nobody_else_does() {
        let (trust, greeting) = greeting();
        let peer = greeting.enrolment.peer;
        let told = UnixSeconds(1_790_000_100);
        let greeting = Request { clock: Some(told), ..greeting };
        let at = |seconds| check(greeting.clone(), &trust, &peer, UnixSeconds(seconds));
        assert_eq!(at(1_790_000_000).unwrap().clock, Some(told));
        let refused = |refusal| Unwelcome { refusal, clock: Some(told) };
        assert_eq!(at(1_700_000_000), Err(refused(Refusal::NotYetValid)));
        assert_eq!(at(1_900_000_000), Err(refused(Refusal::Expired)));
        let other = Keypair::ed25519_from_bytes([3; 32]).unwrap();
        let foreign = Trust::in_root(other.public().try_into_ed25519().unwrap());
        let refused = check(greeting.clone(), &foreign, &peer, UnixSeconds(1_700_000_000)).unwrap_err();
        assert_eq!(refused, Refusal::NotIssuedHere.into());
    }

    #[test]
    fn a_damaged_greeting_is_refused_without_a_panic() {
        let bytes = cbor::to_vec(&greeting().1);
        for at in 0..bytes.len() {
            assert!(cbor::from_slice::<Request>(&bytes[..at]).is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let _ = cbor::from_slice::<Request>(&flipped);
        }
    }

    #[test]
    fn answers_keep_their_bytes_and_their_cap() {
        assert_eq!(cbor::to_vec(&Response::Welcome), b"\x67welcome");
        for (refusal, word) in [
            (Refusal::Malformed, "malformed"),
            (Refusal::NotIssuedHere, "not_issued_here"),
            (Refusal::OtherNetwork, "other_network"),
            (Refusal::OtherPeer, "other_peer"),
            (Refusal::Expired, "expired"),
            (Refusal::NotYetValid, "not_yet_valid"),
            (Refusal::Revoked, "revoked"),
            (Refusal::Left, "left"),
            (Refusal::IssuerRevoked, "issuer_revoked"),
            (Refusal::NotAMember, "not_a_member"),
        ] {
            let bytes = cbor::to_vec(&Response::Refused(refusal));
            assert_eq!(bytes, [b"\xa1\x67refused".as_slice(), &cbor::to_vec(word)].concat());
            assert_eq!(cbor::from_slice(&bytes), Ok(Response::Refused(refusal)));
            assert!(bytes.len() <= MAX_RESPONSE_BYTES);
        }
    }
}
