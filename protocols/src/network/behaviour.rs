//! Everything that runs on a connection, in the order in which it is asked.
//!
//! The limits come first and the gate next: a connection that either denies must not be known to anything behind.

use std::{sync::Arc, time::Duration};

use libp2p::{
    connection_limits, identify,
    identity::Keypair,
    ping,
    request_response::{self, ProtocolSupport},
    swarm::{ConnectionId, NetworkBehaviour},
};

use super::{
    chunk::{self, Opening},
    codec::protocol_name,
    gate::{self, door::Gated},
    lane::{self, Lane},
    limits::{CHUNK_STREAMS_MAX, STREAM_OPEN_TIMEOUT, connection_limits},
};
use crate::{
    credentials::{Role, Trust},
    messages::{
        admission::Admission, changes::Changes, chunk as chunk_messages, handover::Handover, index::Index,
        poll::Poll, sync::Sync, vault::Vault,
    },
};

/// Longest that libp2p lets a chunk transfer run in all: the codec's own progress timeouts are what ends a stuck one.
const TRANSFER_TIMEOUT: Duration = Duration::from_hours(24);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) gate: gate::Behaviour,
    pub(super) ping: Gated<ping::Behaviour>,
    identify: Gated<identify::Behaviour>,
    pub(super) admission: Lane<Admission>,
    pub(super) index: Lane<Index>,
    pub(super) changes: Lane<Changes>,
    pub(super) poll: Lane<Poll>,
    pub(super) sync: Lane<Sync>,
    pub(super) vault: Lane<Vault>,
    pub(super) handover: Lane<Handover>,
    pub(super) chunk: Gated<request_response::Behaviour<chunk::Codec>>,
}

/// How often and how patiently peers are pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pings {
    /// From one ping's answer to the next ping.
    pub interval: Duration,
    /// When one counts as missed.
    pub timeout: Duration,
}

impl Default for Pings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(2) }
    }
}

impl Behaviour {
    pub(super) fn new(
        identity: &Keypair,
        trust: Arc<Trust>,
        role: Role,
        pings: Pings,
        connections: u32,
        opening: Opening,
    ) -> Self {
        let network = trust.network;
        // Who asks whom: strangers ask anybody, nodes ask super-peers, super-peers poll nodes, assign replicas to them and
        // synchronise with each other, nodes serve chunks and take files over. What a role does not answer is not offered, so it is not decoded either.
        let answered_by =
            |answerer: Role| if role == answerer { ProtocolSupport::Full } else { ProtocolSupport::Outbound };
        let identify_config =
            identify::Config::new(protocol_name(&network, "identify", 1).to_string(), identity.public())
                .with_agent_version("quarta".to_owned())
                .with_hide_listen_addrs(true)
                .with_cache_size(0);
        let ping_config = ping::Config::new().with_interval(pings.interval).with_timeout(pings.timeout);
        Self {
            limits: connection_limits::Behaviour::new(connection_limits(connections)),
            gate: gate::Behaviour::new(trust, role),
            ping: Gated::new(ping::Behaviour::new(ping_config), pings.timeout),
            identify: Gated::new(identify::Behaviour::new(identify_config), STREAM_OPEN_TIMEOUT),
            admission: lane::ajar(&network, ProtocolSupport::Full),
            index: lane::gated(&network, answered_by(Role::Superpeer)),
            changes: lane::gated(&network, answered_by(Role::Superpeer)),
            poll: lane::gated(&network, answered_by(Role::Node)),
            sync: lane::gated(&network, answered_by(Role::Superpeer)),
            vault: lane::gated(&network, answered_by(Role::Node)),
            handover: lane::gated(&network, answered_by(Role::Node)),
            chunk: Gated::new(
                request_response::Behaviour::with_codec(
                    chunk::Codec::new(opening),
                    [(
                        protocol_name(&network, chunk_messages::NAME, chunk_messages::VERSION),
                        answered_by(Role::Node),
                    )],
                    request_response::Config::default()
                        .with_request_timeout(TRANSFER_TIMEOUT)
                        .with_max_concurrent_streams(CHUNK_STREAMS_MAX),
                ),
                STREAM_OPEN_TIMEOUT,
            ),
        }
    }

    /// Accepts a verified peer's streams on this connection, as far as its role may open them.
    pub(super) fn listen(&mut self, connection: ConnectionId, peer: Role) {
        self.ping.listen(connection);
        self.identify.listen(connection);
        self.index.listen(connection);
        self.changes.listen(connection);
        self.chunk.listen(connection);
        self.handover.listen(connection);
        // What only super-peers may ask is not offered to a node, so that none of its bytes is read. A super-peer does
        // not answer polls or assignments and asks them of nodes, for which its lanes have to know the connection.
        if peer == Role::Superpeer || self.gate.role() == Role::Superpeer {
            self.poll.listen(connection);
            self.vault.listen(connection);
        }
        if peer == Role::Superpeer {
            self.sync.listen(connection);
        }
    }

    /// Opens our own streams on this connection.
    pub(super) fn release(&mut self, connection: ConnectionId) {
        self.ping.release(connection);
        self.identify.release(connection);
        self.index.release(connection);
        self.changes.release(connection);
        self.poll.release(connection);
        self.sync.release(connection);
        self.vault.release(connection);
        self.handover.release(connection);
        self.chunk.release(connection);
    }

    /// Ends everything on this connection at once.
    pub(super) fn shut(&mut self, connection: ConnectionId) {
        self.ping.shut(connection);
        self.identify.shut(connection);
        self.admission.shut(connection);
        self.index.shut(connection);
        self.changes.shut(connection);
        self.poll.shut(connection);
        self.sync.shut(connection);
        self.vault.shut(connection);
        self.handover.shut(connection);
        self.chunk.shut(connection);
    }
}
