//! *admission*: how a stranger becomes a member. The only protocol that answers before a credential is shown.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::{
    cbor,
    credentials::Credential,
    endings::Departure,
    invites::SECRET_BYTES,
    keys::SealingKey,
    limits::{ADDRESSES_MAX, QUICK_TIMEOUT, SMALL_MESSAGE_BYTES, SUPERPEERS_MAX},
    names::MemberName,
    rpc::Protocol,
    signing::Signed,
};

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Admission;

impl Protocol for Admission {
    const NAME: &'static str = "admission";
    const MAX_REQUEST_BYTES: usize = SMALL_MESSAGE_BYTES;
    const MAX_RESPONSE_BYTES: usize = 64 * 1024;
    const TIMEOUT: Duration = QUICK_TIMEOUT;
    type Request = Request;
    type Response = Response;
}

/// What a stranger may ask.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Redeem an invite; only its issuer can.
    Redeem {
        /// The invite's secret.
        secret: ByteArray<SECRET_BYTES>,
        /// The wished name.
        name: MemberName,
        /// The joiner's sealing key.
        sealing_key: Signed<SealingKey>,
    },
    /// Where are super-peers? Any member answers.
    Discover,
    /// A new credential for the member that this connection's peer is; the old one may have expired.
    Renew {
        /// The latest credential.
        credential: Credential,
        /// The member's sealing key.
        sealing_key: Signed<SealingKey>,
    },
    /// I leave for good. Repeatable.
    Leave(Signed<Departure>),
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Redeem { name, .. } => f.debug_struct("Redeem").field("name", name).finish_non_exhaustive(),
            Self::Discover => f.write_str("Discover"),
            Self::Renew { .. } => f.write_str("Renew"),
            Self::Leave(_) => f.write_str("Leave"),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Welcome: the credential, and where all super-peers are.
    Joined {
        /// The new member's credential.
        credential: Credential,
        /// The super-peers known to the issuer, itself included.
        #[serde(deserialize_with = "cbor::at_most::<SUPERPEERS_MAX, _, _>")]
        superpeers: Vec<PeerAddresses>,
    },
    /// Where super-peers are.
    Superpeers(#[serde(deserialize_with = "cbor::at_most::<SUPERPEERS_MAX, _, _>")] Vec<PeerAddresses>),
    /// No.
    Refused(Refusal),
    /// To *renew*: the new credential.
    Renewed(Credential),
    /// To *leave*: stored, durably. Nobody will let this peer in any more.
    Farewell,
}

/// A peer and where to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerAddresses {
    /// The peer.
    pub peer: PeerId,
    /// Where it listens.
    #[serde(deserialize_with = "cbor::at_most::<ADDRESSES_MAX, _, _>")]
    pub addresses: Vec<Multiaddr>,
}

/// Why somebody is not admitted. Tells a stranger nothing about the network beyond its own request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Not an invite of this super-peer.
    #[error("this super-peer did not issue the invite")]
    UnknownInvite,
    /// Its time is over.
    #[error("the invite has expired")]
    InviteExpired,
    /// Used as often as it could be.
    #[error("the invite has been used already")]
    InviteUsed,
    /// The name belongs to another member.
    #[error("the name belongs to another member")]
    NameTaken,
    /// The sealing key is not the joiner's.
    #[error("the sealing key is not signed by the joiner")]
    BadSealingKey,
    /// The issuer cannot issue this role: it does not hold the root key.
    #[error("this super-peer does not hold the root key, which alone can admit super-peers")]
    NotTheRoot,
    /// This member was revoked.
    #[error("this machine's membership was revoked")]
    Revoked,
    /// Too many attempts.
    #[error("too many attempts; wait a minute")]
    TooManyAttempts,
    /// The super-peer could not store the admission.
    #[error("the super-peer could not complete the admission; its log says why")]
    Unavailable,
    /// Only super-peers admit.
    #[error("this member is not a super-peer")]
    NotASuperpeer,
    /// This member has left for good.
    #[error("this machine has left the network for good")]
    Left,
    /// The credential shown is not one that this network's super-peers gave this machine, as far as this one knows.
    #[error("this super-peer does not know this machine as a member")]
    NotAMember,
    /// The super-peer has just started and has not yet compared its records with another's.
    #[error(
        "the super-peer has not reached another super-peer since it started, and admits nobody before that"
    )]
    NotReconciled,
    /// The super-peer has been cut off from all others for too long.
    #[error(
        "the super-peer has not heard from another super-peer for too long, and admits nobody before it has"
    )]
    CutOff,
    /// The invite waits for the holder of the root key.
    #[error("the holder of the root key has not approved this super-peer yet")]
    AwaitingApproval,
    /// The name was a departed member's, and the invite does not say that it is to be used again.
    #[error("the name belonged to a member that is gone; only an invite made to replace it gives it again")]
    NameOfDeparted,
    /// The invite is made to replace a member that is gone, and gives that one's name only; or the peer is a member already,
    /// under another name.
    #[error(
        "the name is to be another: that of the member that the invite replaces, or the one joined under before"
    )]
    OtherName,
}
