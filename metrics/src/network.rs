//! What both services tell about connections, the admission gate and requests.
//!
//! The families carry the prefix of the registry's service, `quarta_superpeer_` or `quarta_node_`, so that a
//! dashboard tells the two ends of an exchange apart without joining on a label.

use std::time::Duration;

use crate::{
    family::{Counter, CounterBy, GaugeBy, Histogram, HistogramBy, buckets, label},
    registry::{RegisterError, Registry},
};

label! {
    /// What carries a connection.
    Transport as "transport" {
        /// TCP with TLS.
        Tcp = "tcp",
        /// QUIC over UDP.
        Quic = "quic",
        /// A circuit through a super-peer.
        Relay = "relay",
    }
}

label! {
    /// Who opened a connection, or sent a request.
    Direction as "direction" {
        /// The other side.
        Inbound = "inbound",
        /// This process.
        Outbound = "outbound",
    }
}

label! {
    /// How an attempt to connect ended.
    DialOutcome as "outcome" {
        /// A secured connection to the expected peer.
        Connected = "connected",
        /// Nothing listened at any of the addresses, or they could not be reached.
        Unreachable = "unreachable",
        /// Another peer than the expected one answered.
        WrongPeer = "wrong_peer",
    }
}

label! {
    /// Why one side of a connection refused the other.
    GateRefusal as "reason" {
        /// The greeting or credential could not be parsed.
        Malformed = "malformed",
        /// The signature chain does not lead to this network's root.
        NotIssuedHere = "not_issued_here",
        /// The credential is of another network.
        OtherNetwork = "other_network",
        /// The credential is of another peer than the one that the transport proved.
        OtherPeer = "other_peer",
        /// The credential has run out.
        Expired = "expired",
        /// The credential is not valid yet: a clock is wrong.
        NotYetValid = "not_yet_valid",
        /// The member was revoked or has left.
        Revoked = "revoked",
        /// The super-peer that issued its credential was revoked.
        IssuerRevoked = "issuer_revoked",
        /// The side that refuses is no member itself.
        NotAMember = "not_a_member",
    }
}

label! {
    /// The application protocol of a request.
    Protocol as "protocol" {
        /// Credential exchange after connecting.
        Hello = "hello",
        /// Joining, renewing and discovering.
        Admission = "admission",
        /// Inventories, records, search and sources at a super-peer.
        Index = "index",
        /// A super-peer's question for a node's inventory and load.
        Poll = "poll",
        /// The catalog between super-peers.
        Sync = "sync",
        /// File content between nodes.
        Chunk = "chunk",
    }
}

label! {
    /// How a request ended.
    RequestOutcome as "outcome" {
        /// Answered.
        Answered = "answered",
        /// Answered with a refusal: not permitted, not found, over a limit, not understood.
        Refused = "refused",
        /// No answer in time.
        TimedOut = "timed_out",
        /// The connection or stream broke, or what came over it could not be decoded.
        Failed = "failed",
    }
}

/// The network families of one process.
#[derive(Clone, Debug)]
pub struct Network {
    /// Open connections now. Changed by [`connection_opened`](Self::connection_opened) and
    /// [`connection_closed`](Self::connection_closed).
    pub connections: GaugeBy<(Transport, Direction)>,
    /// Connections opened since the start.
    pub connections_opened: CounterBy<(Transport, Direction)>,
    /// Attempts to connect by outcome.
    pub dials: CounterBy<DialOutcome>,
    /// Round-trip times that pings measured.
    pub ping_rtt: Histogram,
    /// Pings without an answer.
    pub ping_failures: Counter,
    /// Peers whose credential the gate verified.
    pub gate_admitted: Counter,
    /// Peers that the gate turned away.
    pub gate_refused: CounterBy<GateRefusal>,
    /// Requests by who sent them, protocol and outcome. Changed by [`request_ended`](Self::request_ended).
    pub requests: CounterBy<(Direction, Protocol, RequestOutcome)>,
    /// How long requests took, whatever their outcome.
    pub request_duration: HistogramBy<(Direction, Protocol)>,
}

impl Network {
    /// Registers the families under the prefix of the registry's service.
    pub fn register(registry: &Registry) -> Result<Self, RegisterError> {
        Ok(Self {
            connections: GaugeBy::register(
                registry,
                "connections",
                "Open connections, by what carries them and who opened them.",
            )?,
            connections_opened: CounterBy::register(
                registry,
                "connections_opened_total",
                "Connections opened, by what carries them and who opened them.",
            )?,
            dials: CounterBy::register(
                registry,
                "dials_total",
                "Attempts to connect to a peer, by outcome.",
            )?,
            ping_rtt: Histogram::register(
                registry,
                "ping_rtt_seconds",
                "Round-trip time of pings.",
                // 0.1 ms, a fast LAN, to 1.6 s, a satellite link with full queues.
                buckets(0.0001, 2.0, 15)?,
            )?,
            ping_failures: Counter::register(
                registry,
                "ping_failures_total",
                "Pings that were not answered in time.",
            )?,
            gate_admitted: Counter::register(
                registry,
                "gate_admitted_total",
                "Peers whose credential the admission gate verified.",
            )?,
            gate_refused: CounterBy::register(
                registry,
                "gate_refused_total",
                "Peers that the admission gate refused, by reason.",
            )?,
            requests: CounterBy::register(
                registry,
                "requests_total",
                "Requests, by direction (inbound: served here; outbound: sent from here), protocol and outcome.",
            )?,
            request_duration: HistogramBy::register(
                registry,
                "request_duration_seconds",
                "Time from a request's arrival or sending to the end of its answer, by direction and protocol.",
                // 0.25 ms, a lookup in memory, to 65 s, a long run of chunks over a slow line.
                buckets(0.000_25, 4.0, 10)?,
            )?,
        })
    }

    /// Records a connection that was opened.
    pub fn connection_opened(&self, transport: Transport, direction: Direction) {
        self.connections.inc((transport, direction));
        self.connections_opened.inc((transport, direction));
    }

    /// Records the end of a connection that [`connection_opened`](Self::connection_opened) recorded, with the
    /// same transport and direction.
    pub fn connection_closed(&self, transport: Transport, direction: Direction) {
        self.connections.dec((transport, direction));
    }

    /// Records the end of a request, which took `duration` from its arrival or sending.
    pub fn request_ended(
        &self,
        direction: Direction,
        protocol: Protocol,
        outcome: RequestOutcome,
        duration: Duration,
    ) {
        self.requests.inc((direction, protocol, outcome));
        self.request_duration.observe((direction, protocol), duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Service;

    #[test]
    fn a_closed_connection_leaves_the_level_and_stays_in_the_count() {
        let registry = Registry::new(Service::SuperPeer, "1").unwrap();
        let network = Network::register(&registry).unwrap();
        network.connection_opened(Transport::Quic, Direction::Inbound);
        network.connection_opened(Transport::Quic, Direction::Inbound);
        network.connection_closed(Transport::Quic, Direction::Inbound);
        assert_eq!(network.connections.get((Transport::Quic, Direction::Inbound)), 1);
        assert_eq!(network.connections_opened.get((Transport::Quic, Direction::Inbound)), 2);
        assert_eq!(network.connections.get((Transport::Tcp, Direction::Inbound)), 0);
    }

    #[test]
    fn a_request_is_counted_by_outcome_and_timed_by_protocol() {
        let registry = Registry::new(Service::Node, "1").unwrap();
        let network = Network::register(&registry).unwrap();
        let took = Duration::from_millis(3);
        network.request_ended(Direction::Inbound, Protocol::Chunk, RequestOutcome::Refused, took);
        let text = registry.encode();
        let labels = r#"direction="inbound",outcome="refused",protocol="chunk""#;
        assert!(text.contains(&format!("quarta_node_requests_total{{{labels}}} 1\n")), "{text}");
        let labels = r#"direction="inbound",protocol="chunk",le="0.004""#;
        assert!(text.contains(&format!("request_duration_seconds_bucket{{{labels}}} 1\n")), "{text}");
    }
}
