//! Credentials: what makes a peer a member, checkable offline with the network's root public key alone.
//!
//! A credential is a JSON Web Token signed with EdDSA. The root signs super-peers' tokens, super-peers sign nodes';
//! a node therefore presents two tokens, its own and its issuer's:
//!
//! ```text
//! root key ──signs──▶ super-peer token (sub = super-peer) ──its key signs──▶ node token (sub = node, iss = super-peer)
//! ```
//!
//! A credential names the peer id that may use it; the transport proves that id, so a copied token is worth nothing.
//! The algorithm is EdDSA and nothing else, whatever a token's header asks for, and the `typ` is checked, so that no
//! other token signed with the same key passes for a credential.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use libp2p::{
    PeerId,
    identity::{Keypair, ed25519},
};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{NetworkId, public_key_of},
    keys::SealingKey,
    lately::Lately,
    names::MemberName,
    records::Record,
};

/// How long a node's credential lives where its issuer does not say otherwise.
pub const NODE_LIFETIME: Duration = Duration::from_hours(14 * 24);
/// How long a super-peer's credential lives.
pub const SUPERPEER_LIFETIME: Duration = Duration::from_hours(365 * 24);
/// How far two members' clocks may differ before a fresh or just expired credential is refused.
pub const CLOCK_SKEW: Duration = Duration::from_mins(5);
/// Longest token, in bytes: real ones are below 700.
pub const TOKEN_MAX_BYTES: usize = 2048;

const TYPE: &str = "quarta-credential+jwt";
const ROOT_ISSUER: &str = "root";

/// What a member is in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A branch.
    Node,
    /// A designated server that keeps index and health.
    Superpeer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Node => "node",
            Self::Superpeer => "superpeer",
        })
    }
}

/// Seconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// The machine's clock now; 0 for a clock before 1970.
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
    }

    /// That much later.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }
}

/// The tokens a member presents: its own, and for a node the one of the super-peer that issued it. Not yet verified.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Credential {
    /// The member's own token.
    token: String,
    /// The issuer's token; none where the root is the issuer.
    issuer: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// A member whose credential has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Whom the credential names.
    pub peer: PeerId,
    /// The human name.
    pub name: MemberName,
    /// Node or super-peer.
    pub role: Role,
    /// Since when it is valid.
    pub issued: UnixSeconds,
    /// Until when it is valid.
    pub expires: UnixSeconds,
    /// The super-peer that issued it; none where the root did.
    pub issuer: Option<PeerId>,
    /// The token's own identifier.
    pub token_id: String,
}

/// Why a credential is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not tokens of the expected form.
    #[error("the credential is malformed")]
    Malformed,
    /// A signature of the chain does not lead to this network's root.
    #[error("the credential was not issued by this network")]
    NotIssuedHere,
    /// Made for another network.
    #[error("the credential belongs to another network")]
    OtherNetwork,
    /// Names another peer than the one that presents it.
    #[error("the credential belongs to another peer")]
    OtherPeer,
    /// Its time is over.
    #[error("the credential expired {} s ago", .now.0.saturating_sub(.expires.0))]
    Expired {
        /// When it ended.
        expires: UnixSeconds,
        /// The verifier's clock.
        now: UnixSeconds,
    },
    /// Its time has not begun: one of the two clocks is wrong.
    #[error("the credential is valid only {} s from now: a clock is wrong", .issued.0.saturating_sub(.now.0))]
    NotYetValid {
        /// When it begins.
        issued: UnixSeconds,
        /// The verifier's clock.
        now: UnixSeconds,
    },
    /// The issuer is not one that may issue this role.
    #[error("the credential's issuer may not issue it")]
    IssuerNotAllowed,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: PeerId,
    name: MemberName,
    role: Role,
    net: NetworkId,
    iat: u64,
    exp: u64,
    jti: String,
}

/// What a new credential is to say.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// The peer that may use it.
    pub peer: PeerId,
    /// Its human name.
    pub name: &'a MemberName,
    /// Its role.
    pub role: Role,
    /// From when it is valid.
    pub now: UnixSeconds,
    /// 128 random bits that identify the token.
    pub token_id: [u8; 16],
}

impl Credential {
    /// Issues a super-peer's credential with the root key.
    ///
    /// # Panics
    /// Only for a root key that is not Ed25519, which no network has.
    pub fn issue_by_root(root: &Keypair, network: &NetworkId, grant: &Grant<'_>) -> Self {
        let token = sign(root, ROOT_ISSUER.to_owned(), network, grant, SUPERPEER_LIFETIME);
        Self { token, issuer: None }
    }

    /// Issues a node's credential as the super-peer that holds `key` and `own`.
    ///
    /// # Panics
    /// Only for a key that is not Ed25519, which no super-peer has.
    pub fn issue_by_superpeer(key: &Keypair, own: &Self, network: &NetworkId, grant: &Grant<'_>) -> Self {
        Self::issue_by_superpeer_for(NODE_LIFETIME, key, own, network, grant)
    }

    /// The same with a lifetime of the issuer's choice.
    ///
    /// # Panics
    /// As there.
    pub fn issue_by_superpeer_for(
        lifetime: Duration,
        key: &Keypair,
        own: &Self,
        network: &NetworkId,
        grant: &Grant<'_>,
    ) -> Self {
        let issuer = key.public().to_peer_id().to_base58();
        Self { token: sign(key, issuer, network, grant, lifetime), issuer: Some(own.token.clone()) }
    }

    /// Verifies the chain for the peer that presents it.
    ///
    /// An issuer's own token must have been valid when it issued; that it has expired since takes nothing away from
    /// what it issued before.
    ///
    /// # Errors
    /// [`CredentialError`] with the first reason found.
    pub fn verify(
        &self,
        trust: &Trust,
        presenter: &PeerId,
        now: UnixSeconds,
    ) -> Result<Membership, CredentialError> {
        let membership = self.verify_ignoring_time(trust, presenter)?;
        if membership.issued > now.plus(CLOCK_SKEW) {
            return Err(CredentialError::NotYetValid { issued: membership.issued, now });
        }
        if membership.expires.plus(CLOCK_SKEW) <= now {
            return Err(CredentialError::Expired { expires: membership.expires, now });
        }
        Ok(membership)
    }

    /// Verifies everything but the present validity: for renewing an expired credential and for judging old records.
    ///
    /// # Errors
    /// [`CredentialError`] with the first reason found.
    pub fn verify_ignoring_time(
        &self,
        trust: &Trust,
        presenter: &PeerId,
    ) -> Result<Membership, CredentialError> {
        let (claims, issuer) = match &self.issuer {
            None => {
                let claims = open(&self.token, &trust.root)?;
                let by_root = claims.iss == ROOT_ISSUER && claims.role == Role::Superpeer;
                (by_root.then_some(claims).ok_or(CredentialError::IssuerNotAllowed)?, None)
            }
            Some(issuer_token) => {
                let issuer = open(issuer_token, &trust.root)?;
                if issuer.iss != ROOT_ISSUER || issuer.role != Role::Superpeer {
                    return Err(CredentialError::IssuerNotAllowed);
                }
                if issuer.net != trust.network {
                    return Err(CredentialError::OtherNetwork);
                }
                let key = public_key_of(&issuer.sub).map_err(|_| CredentialError::Malformed)?;
                let claims = open(&self.token, &key)?;
                let issued_in_time =
                    issuer.iat <= UnixSeconds(claims.iat).plus(CLOCK_SKEW).0 && claims.iat < issuer.exp;
                if claims.iss != issuer.sub.to_base58() || claims.role != Role::Node || !issued_in_time {
                    return Err(CredentialError::IssuerNotAllowed);
                }
                (claims, Some(issuer.sub))
            }
        };
        if claims.net != trust.network {
            return Err(CredentialError::OtherNetwork);
        }
        if claims.sub != *presenter {
            return Err(CredentialError::OtherPeer);
        }
        public_key_of(&claims.sub).map_err(|_| CredentialError::Malformed)?;
        Ok(Membership {
            peer: claims.sub,
            name: claims.name,
            role: claims.role,
            issued: UnixSeconds(claims.iat),
            expires: UnixSeconds(claims.exp),
            issuer,
            token_id: claims.jti,
        })
    }
}

/// What a member verifies others' credentials against. Clones share what they have verified lately.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The network's root public key.
    pub root: ed25519::PublicKey,
    /// The network, derived from it.
    pub network: NetworkId,
    /// Members' entries, which come again and again: with each connection, feed and reconciliation.
    pub(crate) enrolled: Arc<Lately<(Membership, SealingKey)>>,
    /// Records, of which a super-peer hears from their publisher and from each other super-peer.
    pub(crate) records: Arc<Lately<Record>>,
}

/// Members' entries of one generation that are remembered as verified: together with a second one under 2 MiB.
const ENROLLED_LATELY: usize = 2048;
/// Records of one generation: two of the longest pages, together with a second one about 2 MiB.
const RECORDS_LATELY: usize = 1024;

impl Trust {
    /// Trust in the network of this root key.
    pub fn in_root(root: ed25519::PublicKey) -> Self {
        let network = NetworkId::of_root(&root);
        let enrolled = Arc::new(Lately::new(ENROLLED_LATELY));
        Self { root, network, enrolled, records: Arc::new(Lately::new(RECORDS_LATELY)) }
    }
}

fn sign(key: &Keypair, issuer: String, network: &NetworkId, grant: &Grant<'_>, lifetime: Duration) -> String {
    let claims = Claims {
        iss: issuer,
        sub: grant.peer,
        name: grant.name.clone(),
        role: grant.role,
        net: *network,
        iat: grant.now.0,
        exp: grant.now.plus(lifetime).0,
        jti: HEXLOWER.encode(&grant.token_id),
    };
    let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::EdDSA) };
    let key = key.clone().try_into_ed25519().expect("identities and root keys are Ed25519");
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&pkcs8(&key)))
        .expect("a well-formed Ed25519 key signs any claims")
}

/// The PKCS #8 form (RFC 8410, section 7) of an Ed25519 private key: a fixed prefix and the 32-byte seed.
fn pkcs8(key: &ed25519::Keypair) -> [u8; 48] {
    const PREFIX: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut der = [0; 48];
    der[..16].copy_from_slice(&PREFIX);
    der[16..].copy_from_slice(key.secret().as_ref());
    der
}

fn open(token: &str, signer: &ed25519::PublicKey) -> Result<Claims, CredentialError> {
    if token.len() > TOKEN_MAX_BYTES {
        return Err(CredentialError::Malformed);
    }
    let mut validation = Validation::new(Algorithm::EdDSA);
    // Time is checked by the caller, with its own clock and skew, after the signature; there is no audience.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.leeway = 0;
    validation.required_spec_claims = ["iss", "sub", "exp"].map(str::to_owned).into();
    let key = DecodingKey::from_ed_der(&signer.to_bytes());
    let data =
        jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => CredentialError::NotIssuedHere,
            _ => CredentialError::Malformed,
        })?;
    if data.header.typ.as_deref() != Some(TYPE) {
        return Err(CredentialError::Malformed);
    }
    Ok(data.claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Network {
        root: Keypair,
        superpeer: Keypair,
        superpeer_credential: Credential,
        trust: Trust,
    }

    const START: UnixSeconds = UnixSeconds(1_800_000_000);

    fn grant(peer: &Keypair, name: &MemberName, role: Role) -> Grant<'static> {
        Grant {
            peer: peer.public().to_peer_id(),
            name: Box::leak(Box::new(name.clone())),
            role,
            now: START,
            token_id: [7; 16],
        }
    }

    fn network() -> Network {
        let (root, superpeer) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let name = MemberName::new("sp1").unwrap();
        let superpeer_credential =
            Credential::issue_by_root(&root, &trust.network, &grant(&superpeer, &name, Role::Superpeer));
        Network { root, superpeer, superpeer_credential, trust }
    }

    impl Network {
        fn node(&self, key: &Keypair) -> Credential {
            let name = MemberName::new("filial-recife").unwrap();
            let grant = grant(key, &name, Role::Node);
            Credential::issue_by_superpeer(
                &self.superpeer,
                &self.superpeer_credential,
                &self.trust.network,
                &grant,
            )
        }
    }

    #[test]
    fn a_chain_from_the_root_makes_a_member() {
        let net = network();
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let member = net.node(&key).verify(&net.trust, &peer, START).unwrap();
        assert_eq!((member.name.as_str(), member.role, member.peer), ("filial-recife", Role::Node, peer));
        assert_eq!(member.issuer, Some(net.superpeer.public().to_peer_id()));
        assert_eq!(member.expires, START.plus(NODE_LIFETIME));
        let superpeer = net.superpeer.public().to_peer_id();
        let own = net.superpeer_credential.verify(&net.trust, &superpeer, START).unwrap();
        assert_eq!((own.role, own.issuer), (Role::Superpeer, None));
    }

    #[test]
    fn a_credential_is_worth_nothing_to_another_peer() {
        let net = network();
        let credential = net.node(&Keypair::generate_ed25519());
        let thief = Keypair::generate_ed25519().public().to_peer_id();
        assert_eq!(credential.verify(&net.trust, &thief, START), Err(CredentialError::OtherPeer));
    }

    #[test]
    fn another_networks_credential_is_refused() {
        let (here, there) = (network(), network());
        let key = Keypair::generate_ed25519();
        let foreign = there.node(&key);
        let result = foreign.verify(&here.trust, &key.public().to_peer_id(), START);
        assert_eq!(result, Err(CredentialError::NotIssuedHere));
    }

    #[test]
    fn time_is_allowed_for_skew_and_no_more() {
        let net = network();
        let key = Keypair::generate_ed25519();
        let (credential, peer) = (net.node(&key), key.public().to_peer_id());
        let end = START.plus(NODE_LIFETIME);
        let skew = CLOCK_SKEW.as_secs();
        assert!(credential.verify(&net.trust, &peer, UnixSeconds(START.0 - skew)).is_ok());
        assert!(matches!(
            credential.verify(&net.trust, &peer, UnixSeconds(START.0 - skew - 1)),
            Err(CredentialError::NotYetValid { .. })
        ));
        assert!(credential.verify(&net.trust, &peer, UnixSeconds(end.0 + skew - 1)).is_ok());
        assert!(matches!(
            credential.verify(&net.trust, &peer, UnixSeconds(end.0 + skew)),
            Err(CredentialError::Expired { .. })
        ));
        assert!(credential.verify_ignoring_time(&net.trust, &peer).is_ok());
    }

    #[test]
    fn a_node_cannot_issue_and_a_superpeer_cannot_make_superpeers() {
        let net = network();
        let (node, friend) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let name = MemberName::new("friend").unwrap();
        let by_node = Credential::issue_by_superpeer(
            &node,
            &net.node(&node),
            &net.trust.network,
            &grant(&friend, &name, Role::Node),
        );
        assert!(by_node.verify(&net.trust, &friend.public().to_peer_id(), START).is_err());
        let promoted = Credential::issue_by_superpeer(
            &net.superpeer,
            &net.superpeer_credential,
            &net.trust.network,
            &grant(&friend, &name, Role::Superpeer),
        );
        assert_eq!(
            promoted.verify(&net.trust, &friend.public().to_peer_id(), START),
            Err(CredentialError::IssuerNotAllowed)
        );
    }

    #[test]
    fn what_an_issuer_signs_outside_its_own_time_is_refused() {
        let net = network();
        let key = Keypair::generate_ed25519();
        let name = MemberName::new("late").unwrap();
        let late = Grant { now: START.plus(SUPERPEER_LIFETIME), ..grant(&key, &name, Role::Node) };
        let credential = Credential::issue_by_superpeer(
            &net.superpeer,
            &net.superpeer_credential,
            &net.trust.network,
            &late,
        );
        assert_eq!(
            credential.verify(&net.trust, &key.public().to_peer_id(), late.now),
            Err(CredentialError::IssuerNotAllowed)
        );
    }

    #[test]
    fn other_algorithms_and_types_are_refused() {
        let net = network();
        let peer = net.superpeer.public().to_peer_id();
        let token = &net.superpeer_credential.token;
        let parts: Vec<&str> = token.split('.').collect();
        let encode = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
        for header in [
            r#"{"typ":"quarta-credential+jwt","alg":"none"}"#.to_owned(),
            r#"{"typ":"quarta-credential+jwt","alg":"HS256"}"#.to_owned(),
            r#"{"typ":"JWT","alg":"EdDSA"}"#.to_owned(),
        ] {
            let forged =
                Credential { token: format!("{}.{}.{}", encode(&header), parts[1], parts[2]), issuer: None };
            assert!(forged.verify(&net.trust, &peer, START).is_err(), "{header}");
        }
        // Well signed, wrong type.
        let claims = serde_json::json!({"iss":"root","sub":peer.to_base58(),"name":"sp1","role":"superpeer",
            "net":net.trust.network.to_string(),"iat":START.0,"exp":START.plus(NODE_LIFETIME).0,"jti":"x"});
        let root = net.root.clone().try_into_ed25519().unwrap();
        let token = jsonwebtoken::encode(
            &Header { typ: Some("JWT".into()), ..Header::new(Algorithm::EdDSA) },
            &claims,
            &EncodingKey::from_ed_der(&pkcs8(&root)),
        )
        .unwrap();
        let other_type = Credential { token, issuer: None };
        assert_eq!(other_type.verify(&net.trust, &peer, START), Err(CredentialError::Malformed));
    }

    #[test]
    fn debug_output_shows_no_token() {
        let net = network();
        assert!(!format!("{:?}", net.superpeer_credential).contains("ey"));
    }
}
