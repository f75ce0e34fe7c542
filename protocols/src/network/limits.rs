//! Every bound of the network layer, each with its reason.
//!
//! libp2p's own defaults are mostly "unlimited"; a bound that is missing here is a mistake. What a single message may
//! weigh stands with its protocol ([`crate::rpc::Protocol`]), not here.

use std::time::Duration;

use libp2p::connection_limits::ConnectionLimits;

/// Longest that TCP, DNS, TLS and multiplexer negotiation of one connection may take together: three round trips at
/// the worst latency of a branch's line (500 ms) with a retransmission each.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that [`super::Network::connect`] takes: a transport attempt over TCP and the better part of one over QUIC.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// How long an unverified peer may stay connected: hello takes two round trips.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for one that is using the admission protocol: its answer waits for a durable write.
pub const ADMISSION_IN_USE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a refused peer keeps its connection, so that it can read why before the socket closes.
pub const REFUSAL_GRACE: Duration = Duration::from_secs(1);
/// How long one hello exchange may take on its stream.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening a stream (its protocol negotiation) may take on a connection that exists.
pub const STREAM_OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// When a connection between two nodes that nothing uses is closed. Those with a super-peer stay.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// How many pings in a row a connection may miss before it is closed.
pub const PINGS_MISSED_MAX: u32 = 3;

/// Inbound connections whose handshake is not done: bounds what slow strangers cost in file descriptors.
pub const PENDING_INBOUND_MAX: u32 = 256;
/// Outbound connections whose handshake is not done.
pub const PENDING_OUTBOUND_MAX: u32 = 128;
/// Connections with one peer: one over each transport from each side, and dead ones the kernel has not given up yet.
pub const PER_PEER_MAX: u32 = 8;
/// All connections: beyond what one organisation's members make, within a service's file descriptor limit.
pub const CONNECTIONS_MAX: u32 = 4096;
/// Inbound connections whose peer is not verified. A further one displaces the oldest, so that idle strangers cannot
/// keep members out: a member is verified within two round trips.
pub const STRANGERS_MAX: usize = 256;

/// Streams of one multiplexed TCP connection in both directions: all lanes below at their bounds.
pub const STREAMS_PER_CONNECTION_MAX: usize = 256;
/// Inbound streams of one connection that are negotiating their protocol.
pub const NEGOTIATING_STREAMS_MAX: usize = 64;
/// Streams of one control protocol on one connection, both directions together.
pub const CONTROL_STREAMS_MAX: usize = 32;
/// Chunk streams on one connection, both directions together: a downloader keeps a few per source, and several
/// downloads may share a connection.
pub const CHUNK_STREAMS_MAX: usize = 64;
/// Requests of one peer that the service is working on at a time, chunk transfers apart. Further ones are refused.
pub const REQUESTS_PER_PEER_MAX: usize = 32;
/// Chunk transfers to one peer at a time. Further ones are refused, and the peer asks another holder.
pub const TRANSFERS_PER_PEER_MAX: usize = 32;

/// Commands waiting for the loop: handles wait when it is full.
pub const COMMANDS_MAX: usize = 256;
/// Events waiting in the channel to the service.
pub const EVENTS_MAX: usize = 256;
/// Events waiting in the loop for room in that channel. Beyond it requests are refused and pings go unreported.
pub const OUTBOX_SOFT_MAX: usize = 256;
/// Beyond this the network itself waits for the service: what must not be lost (who came, who left) is not dropped.
pub const OUTBOX_HARD_MAX: usize = 8192;
/// Dial attempts at a time.
pub const DIALS_MAX: usize = 256;

/// libp2p's own connection limits, filled from the constants above; at most `connections` in all, of which handshakes
/// that are not done take a quarter each way.
pub(super) fn connection_limits(connections: u32) -> ConnectionLimits {
    let pending = |most: u32| Some(most.min((connections / 4).max(1)));
    ConnectionLimits::default()
        .with_max_pending_incoming(pending(PENDING_INBOUND_MAX))
        .with_max_pending_outgoing(pending(PENDING_OUTBOUND_MAX))
        .with_max_established_per_peer(Some(PER_PEER_MAX))
        .with_max_established(Some(connections.min(CONNECTIONS_MAX)))
}
