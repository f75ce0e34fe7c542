//! What the network layer tells whoever counts: the services record it into their metrics.

use std::time::Duration;

use libp2p::PeerId;

use super::{gate::Refusal, transport::Transport};

/// How an attempt to connect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialOutcome {
    /// A transport connection was made.
    Connected,
    /// No address answered.
    Unreachable,
    /// Somebody else answered.
    WrongPeer,
}

/// How the exchange of a control message or a chunk transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeOutcome {
    /// It was answered.
    Answered,
    /// It took too long.
    TimedOut,
    /// It failed otherwise.
    Failed,
    /// It was not accepted: too many at once, or not this peer's to ask.
    Refused,
}

/// Is told what happens, in the network's loop: implementations must not block. Every method does nothing by default.
#[expect(unused_variables, reason = "the defaults do nothing with what they are told")]
pub trait Observer: Send + 'static {
    /// A transport connection opened.
    fn connection_opened(&mut self, transport: Transport, inbound: bool) {}
    /// A connection closed.
    fn connection_closed(&mut self, transport: Transport, inbound: bool) {}
    /// An attempt to connect ended.
    fn dialled(&mut self, outcome: DialOutcome) {}
    /// A ping came back.
    fn pinged(&mut self, peer: PeerId, transport: Transport, round_trip: Duration) {}
    /// A ping did not come back.
    fn ping_missed(&mut self, peer: PeerId) {}
    /// Both sides let each other in.
    fn admitted(&mut self, inbound: bool) {}
    /// One side did not let the other in.
    fn refused(&mut self, refusal: Refusal, by_us: bool) {}
    /// A request of ours ended.
    fn asked(&mut self, protocol: &'static str, outcome: ExchangeOutcome, took: Duration) {}
    /// A peer's request ended.
    fn answered(&mut self, protocol: &'static str, outcome: ExchangeOutcome, took: Duration) {}
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
