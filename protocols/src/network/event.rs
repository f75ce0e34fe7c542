//! What a service hears from the network.

use std::{sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::sync::oneshot;

use super::{
    chunk::ChunkAsked,
    gate::{Presented, Refusal},
    transport::Transport,
};
use crate::{
    credentials::{Membership, UnixSeconds},
    messages::{
        admission::Admission, changes::Changes, handover::Handover, index::Index, poll::Poll, sync::Sync,
        vault::Vault,
    },
    rpc::Protocol,
};

/// A connection on which both sides have let each other in.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The peer.
    pub peer: PeerId,
    /// What it proved: credential, sealing key, software version.
    pub presented: Arc<Presented>,
    /// The connection.
    pub connection: ConnectionId,
    /// What carries it.
    pub transport: Transport,
    /// Whether the peer made it.
    pub inbound: bool,
    /// The peer's address as seen from here.
    pub remote: Multiaddr,
}

impl Admitted {
    /// What the peer's credential says.
    pub fn membership(&self) -> &Membership {
        &self.presented.enrolled.membership
    }
}

/// What happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an event is moved a few times and not kept")]
pub enum Event {
    /// The network accepts connections at this address.
    Listening(Multiaddr),
    /// A member is connected.
    Admitted {
        /// Who and how.
        admitted: Admitted,
        /// Whether it was not connected before. Otherwise it has a further connection, or showed a new credential.
        first: bool,
    },
    /// A member's last admitted connection is gone.
    Departed {
        /// Who.
        peer: PeerId,
    },
    /// One side did not let the other in.
    Refused {
        /// Who was refused, or refused us.
        peer: PeerId,
        /// Why.
        refusal: Refusal,
        /// Whether this side refused.
        by_us: bool,
        /// What the peer's clock said, where it is a member and was refused for the time alone.
        clock: Option<UnixSeconds>,
    },
    /// A ping came back.
    Ping {
        /// From whom.
        peer: PeerId,
        /// How long it took.
        round_trip: Duration,
    },
    /// Pings do not come back. At [`super::limits::PINGS_MISSED_MAX`] the connection is closed.
    PingMissed {
        /// From whom.
        peer: PeerId,
        /// How many in a row. The first that is missed goes unreported, so this begins at 2.
        consecutive: u32,
    },
    /// A peer asks something.
    Request(Inbound),
}

/// What a peer asks.
#[derive(Debug)]
pub enum Inbound {
    /// To become or stay a member. The only one that a stranger can ask.
    Admission(Asked<Admission>),
    /// To register, publish, search or locate.
    Index(Asked<Index>),
    /// For what is new in the catalog.
    Changes(Asked<Changes>),
    /// For this node's list. Comes from super-peers only.
    Poll(Asked<Poll>),
    /// To exchange catalog entries. Comes from super-peers only.
    Sync(Asked<Sync>),
    /// To keep or drop replicas. Comes from super-peers only.
    Vault(Asked<Vault>),
    /// To take a file over.
    Handover(Asked<Handover>),
    /// For chunks.
    Chunk(ChunkAsked),
}

/// A peer's request, waiting for its answer.
#[derive(Debug)]
pub struct Asked<P: Protocol> {
    /// Who asks.
    pub peer: PeerId,
    /// What its credential says; none for a stranger.
    pub membership: Option<Membership>,
    /// What carries it.
    pub transport: Transport,
    /// The peer's address as seen from here.
    pub remote: Multiaddr,
    /// What it asks.
    pub request: P::Request,
    /// Answers it.
    pub responder: Responder<P>,
}

/// Answers one request. Dropping it leaves the peer without an answer, which it notices at once.
#[derive(Debug)]
pub struct Responder<P: Protocol>(pub(super) oneshot::Sender<P::Response>);

impl<P: Protocol> Responder<P> {
    /// Answers. A peer that has gone meanwhile needs no answer, so this cannot fail.
    pub fn respond(self, response: P::Response) {
        let _ = self.0.send(response);
    }
}
