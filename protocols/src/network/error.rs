//! What can go wrong between asking the network for something and getting it.

use std::io;

use libp2p::{Multiaddr, PeerId, request_response::OutboundFailure};

use super::{
    codec::CodecError,
    gate::{InvalidVersion, Refusal},
    tls,
};

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// An address cannot be listened on: taken, not this machine's, or of an unknown kind.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why not.
        cause: io::Error,
    },
    /// The own software version is not one.
    #[error(transparent)]
    Version(#[from] InvalidVersion),
}

/// Why a peer is not connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// None of the addresses answered; the text names each and why.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// No address is left after the address policy.
    #[error("no usable address is known")]
    NoAddress,
    /// Another peer answered at the address.
    #[error("{obtained} answered instead")]
    WrongPeer {
        /// Who answered.
        obtained: PeerId,
    },
    /// One side did not let the other in.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It took longer than [`super::limits::CONNECT_TIMEOUT`].
    #[error("no connection within {} s", super::limits::CONNECT_TIMEOUT.as_secs())]
    Timeout,
    /// The connection was lost before both sides had let each other in.
    #[error("the connection was lost while introducing each other")]
    Lost,
    /// This side is not a member and can only connect as a stranger.
    #[error("this machine has no credential yet")]
    NotAMember,
    /// This member has signed off: it dials nobody and lets nobody in.
    #[error("this member has signed off")]
    SignedOff,
    /// Too many attempts at a time.
    #[error("too many connection attempts at once")]
    Busy,
    /// The network is shutting down.
    #[error("the network is shutting down")]
    Shutdown,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer is not connected, or not admitted.
    #[error("the peer is not connected")]
    NotConnected,
    /// No answer in the protocol's time. It is not known whether the peer acted on it.
    #[error("no answer in time")]
    Timeout,
    /// The peer does not offer this to us.
    #[error("the peer does not offer this")]
    Unsupported,
    /// The request, or the peer's answer, is larger than its kind may be.
    #[error("{0}")]
    TooLarge(CodecError),
    /// The peer's answer makes no sense.
    #[error("{0}")]
    Malformed(CodecError),
    /// The peer ended the exchange without an answer: it could not read the request, or is busy.
    #[error("the peer did not answer")]
    Unanswered,
    /// The connection was lost meanwhile. It is not known whether the peer acted on it.
    #[error("the connection was lost")]
    Closed,
    /// The network is shutting down.
    #[error("the network is shutting down")]
    Shutdown,
}

impl From<OutboundFailure> for CallError {
    fn from(failure: OutboundFailure) -> Self {
        match failure {
            OutboundFailure::DialFailure => Self::NotConnected,
            OutboundFailure::Timeout => Self::Timeout,
            OutboundFailure::ConnectionClosed => Self::Closed,
            OutboundFailure::UnsupportedProtocols => Self::Unsupported,
            OutboundFailure::Io(error) => match CodecError::within(&error) {
                Some(error @ (CodecError::OwnTooLarge { .. } | CodecError::TooLarge { .. })) => {
                    Self::TooLarge(error.clone())
                }
                Some(error) => Self::Malformed(error.clone()),
                None if error.kind() == io::ErrorKind::TimedOut => Self::Timeout,
                None => Self::Unanswered,
            },
        }
    }
}
