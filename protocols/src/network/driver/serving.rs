//! The loop's part of asking and answering.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    request_response::{self, InboundFailure, Message, OutboundFailure},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Driver;
use crate::{
    credentials::{Membership, Role},
    messages::{
        admission::Admission, changes::Changes, chunk as chunk_messages, handover::Handover, index::Index,
        poll::Poll, sync::Sync, vault::Vault,
    },
    network::{
        chunk::{self, Cancelled, ChunkAsked, ChunkResponder, Outgoing},
        codec::Response,
        error::CallError,
        event::{Asked, Event, Inbound},
        lane::{Arrived, Call, Spoken},
        limits::OUTBOX_SOFT_MAX,
        observer::ExchangeOutcome,
        transport::Transport,
    },
    rpc::Protocol,
};

type ControlEvent<P> = request_response::Event<<P as Protocol>::Request, Response<<P as Protocol>::Response>>;
type ChunkEvent = request_response::Event<chunk::Request, chunk::Response>;

/// Who asks, and its claim on our work.
struct Visitor {
    membership: Option<Membership>,
    transport: Transport,
    remote: Multiaddr,
    permit: OwnedSemaphorePermit,
}

macro_rules! lanes {
    ($($protocol:ident on $lane:ident, $on_event:ident;)+) => {
        impl Driver {
            /// Sends a question on its lane.
            pub(super) fn ask(&mut self, call: Call) {
                let behaviour = self.swarm.behaviour_mut();
                match call {
                    $(Call::$protocol(question) => self.exchanges.$lane.ask(&mut behaviour.$lane, question),)+
                }
            }

            $(/// Settles our questions; accepts what a peer asks, or drops it, which refuses it.
            pub(super) fn $on_event(&mut self, event: ControlEvent<$protocol>) {
                let Some(arrived) = self.exchanges.$lane.on_event(event, &mut *self.observer) else { return };
                let peer = arrived.peer;
                let Some(Visitor { membership, transport, remote, permit }) = self.visitor(&arrived) else {
                    tracing::debug!(%peer, protocol = $protocol::NAME, "request refused");
                    self.observer.answered($protocol::NAME, ExchangeOutcome::Refused, Duration::ZERO);
                    return;
                };
                let lane = &mut self.swarm.behaviour_mut().$lane;
                let (request, responder) = self.exchanges.$lane.accept(lane, arrived, permit);
                let asked = Asked { peer, membership, transport, remote, request, responder };
                self.outbox.push_back(Event::Request($protocol::inbound(asked)));
            })+
        }
    };
}

lanes! {
    Admission on admission, on_admission;
    Index on index, on_index;
    Changes on changes, on_changes;
    Poll on poll, on_poll;
    Sync on sync, on_sync;
    Vault on vault, on_vault;
    Handover on handover, on_handover;
}

impl Driver {
    /// Who asks this; none where it is not to be answered now.
    fn visitor<P: Spoken>(&mut self, arrived: &Arrived<P>) -> Option<Visitor> {
        let gate = &mut self.swarm.behaviour_mut().gate;
        if P::NAME == Admission::NAME {
            gate.uses_admission(arrived.connection);
        }
        let link = gate.link(arrived.connection)?;
        let membership = link.heard.as_ref().map(|presented| presented.enrolled.membership.clone());
        let role = membership.as_ref().map(|membership| membership.role);
        let may_ask = !P::BY_SUPERPEERS_ONLY || role == Some(Role::Superpeer);
        if !may_ask || self.outbox.len() >= OUTBOX_SOFT_MAX {
            return None;
        }
        let (transport, remote) = (link.transport, link.remote.clone());
        let slots = self.slots.entry(arrived.peer).or_default();
        let permit = slots.requests.clone().try_acquire_owned().ok()?;
        Some(Visitor { membership, transport, remote, permit })
    }

    pub(super) fn fetch(&mut self, peer: PeerId, outgoing: Outgoing, failed: oneshot::Sender<CallError>) {
        if failed.is_closed() {
            return;
        }
        let lane = &mut self.swarm.behaviour_mut().chunk;
        if !lane.inner().is_connected(&peer) {
            // Whoever asked may have given up meanwhile.
            let _ = failed.send(CallError::NotConnected);
            return;
        }
        let id = lane.inner_mut().send_request(&peer, chunk::Request::Outgoing(outgoing));
        self.exchanges.fetches.insert(id, (failed, Instant::now()));
    }

    pub(super) fn on_chunk(&mut self, event: ChunkEvent) {
        match event {
            request_response::Event::Message { peer, connection_id, message } => match message {
                Message::Request { request_id, request: chunk::Request::Incoming(request), channel } => {
                    let Some((membership, transport, permit)) = self.transfer(peer, connection_id) else {
                        let refused = ExchangeOutcome::Refused;
                        self.observer.answered(chunk_messages::NAME, refused, Duration::ZERO);
                        return;
                    };
                    let (responder, response) = ChunkResponder::new(permit);
                    self.exchanges.transfers.insert(request_id, Instant::now());
                    // Where the connection is gone already, the first frame says so.
                    let _ = self.swarm.behaviour_mut().chunk.inner_mut().send_response(channel, response);
                    let asked = ChunkAsked { peer, membership, transport, request, responder };
                    self.outbox.push_back(Event::Request(Inbound::Chunk(asked)));
                }
                // A cancellation has done its work when it was read.
                Message::Request { .. } => {}
                Message::Response { request_id, .. } => {
                    if let Some((_, since)) = self.exchanges.fetches.remove(&request_id) {
                        self.observer.asked(chunk_messages::NAME, ExchangeOutcome::Answered, since.elapsed());
                    }
                }
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                let cancelled = match &error {
                    OutboundFailure::Io(error) => Cancelled::within(error),
                    _ => None,
                };
                let lane = &mut self.swarm.behaviour_mut().chunk;
                if let Some(id) = cancelled
                    && lane.inner().is_connected(&peer)
                {
                    lane.inner_mut().send_request(&peer, chunk::Request::Cancel(id));
                }
                if let Some((failed, since)) = self.exchanges.fetches.remove(&request_id) {
                    self.observer.asked(chunk_messages::NAME, ExchangeOutcome::Failed, since.elapsed());
                    // Heard only by a fetch that still waits for its head.
                    let _ = failed.send(error.into());
                }
            }
            request_response::Event::ResponseSent { request_id, .. } => {
                self.transferred(request_id, ExchangeOutcome::Answered);
            }
            request_response::Event::InboundFailure { request_id, error, .. } => {
                let refused = matches!(error, InboundFailure::ResponseOmission);
                let outcome = if refused { ExchangeOutcome::Refused } else { ExchangeOutcome::Failed };
                self.transferred(request_id, outcome);
            }
        }
    }

    fn transfer(
        &mut self,
        peer: PeerId,
        connection: libp2p::swarm::ConnectionId,
    ) -> Option<(Membership, Transport, OwnedSemaphorePermit)> {
        let link = self.swarm.behaviour().gate.link(connection)?;
        let membership = link.heard.as_ref()?.enrolled.membership.clone();
        if self.outbox.len() >= OUTBOX_SOFT_MAX {
            return None;
        }
        let transport = link.transport;
        let permit = self.slots.entry(peer).or_default().transfers.clone().try_acquire_owned().ok()?;
        Some((membership, transport, permit))
    }

    fn transferred(&mut self, id: request_response::InboundRequestId, outcome: ExchangeOutcome) {
        if let Some(since) = self.exchanges.transfers.remove(&id) {
            self.observer.answered(chunk_messages::NAME, outcome, since.elapsed());
        }
    }
}
