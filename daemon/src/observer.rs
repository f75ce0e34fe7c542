//! Records what the network layer sees into the process's metrics.
//!
//! The network layer knows no metrics and the metrics know no network; this is the one place where their words meet.

use std::time::Duration;

use libp2p::PeerId;
use quarta_metrics::network::{
    self as families, DialOutcome as Dial, Direction, GateRefusal, Protocol, RequestOutcome,
    Transport as Carrier,
};
use quarta_protocols::network::{DialOutcome, ExchangeOutcome, Observer, Refusal, Transport};

/// Observes into the network families of a registry.
#[derive(Debug, Clone)]
pub struct Recorder(pub families::Network);

/// The label of a transport.
pub const fn carrier(transport: Transport) -> Carrier {
    match transport {
        Transport::Tcp => Carrier::Tcp,
        Transport::Quic => Carrier::Quic,
        Transport::Relay => Carrier::Relay,
    }
}

const fn direction(inbound: bool) -> Direction {
    if inbound { Direction::Inbound } else { Direction::Outbound }
}

fn protocol(name: &str) -> Option<Protocol> {
    Some(match name {
        "hello" => Protocol::Hello,
        "admission" => Protocol::Admission,
        "index" => Protocol::Index,
        "poll" => Protocol::Poll,
        "sync" => Protocol::Sync,
        "chunk" => Protocol::Chunk,
        _ => return None,
    })
}

const fn outcome(outcome: ExchangeOutcome) -> RequestOutcome {
    match outcome {
        ExchangeOutcome::Answered => RequestOutcome::Answered,
        ExchangeOutcome::TimedOut => RequestOutcome::TimedOut,
        ExchangeOutcome::Failed => RequestOutcome::Failed,
        ExchangeOutcome::Refused => RequestOutcome::Refused,
    }
}

impl Recorder {
    fn ended(&self, inbound: bool, name: &str, ended: ExchangeOutcome, took: Duration) {
        if let Some(protocol) = protocol(name) {
            self.0.request_ended(direction(inbound), protocol, outcome(ended), took);
        }
    }
}

impl Observer for Recorder {
    fn connection_opened(&mut self, transport: Transport, inbound: bool) {
        self.0.connection_opened(carrier(transport), direction(inbound));
    }

    fn connection_closed(&mut self, transport: Transport, inbound: bool) {
        self.0.connection_closed(carrier(transport), direction(inbound));
    }

    fn dialled(&mut self, outcome: DialOutcome) {
        self.0.dials.inc(match outcome {
            DialOutcome::Connected => Dial::Connected,
            DialOutcome::Unreachable => Dial::Unreachable,
            DialOutcome::WrongPeer => Dial::WrongPeer,
        });
    }

    fn pinged(&mut self, _peer: PeerId, _transport: Transport, round_trip: Duration) {
        self.0.ping_rtt.observe(round_trip);
    }

    fn ping_missed(&mut self, _peer: PeerId) {
        self.0.ping_failures.inc();
    }

    fn admitted(&mut self, _inbound: bool) {
        self.0.gate_admitted.inc();
    }

    fn refused(&mut self, refusal: Refusal, by_us: bool) {
        if by_us {
            self.0.gate_refused.inc(match refusal {
                Refusal::Malformed => GateRefusal::Malformed,
                Refusal::NotIssuedHere => GateRefusal::NotIssuedHere,
                Refusal::OtherNetwork => GateRefusal::OtherNetwork,
                Refusal::OtherPeer => GateRefusal::OtherPeer,
                Refusal::Expired => GateRefusal::Expired,
                Refusal::NotYetValid => GateRefusal::NotYetValid,
                Refusal::Revoked | Refusal::Left => GateRefusal::Revoked,
                Refusal::IssuerRevoked => GateRefusal::IssuerRevoked,
                Refusal::NotAMember => GateRefusal::NotAMember,
            });
        }
    }

    fn asked(&mut self, protocol: &'static str, outcome: ExchangeOutcome, took: Duration) {
        self.ended(false, protocol, outcome, took);
    }

    fn answered(&mut self, protocol: &'static str, outcome: ExchangeOutcome, took: Duration) {
        self.ended(true, protocol, outcome, took);
    }
}
