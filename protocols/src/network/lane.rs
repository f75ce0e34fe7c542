//! One control protocol's way through the network: what we asked on it, and what peers ask.

use std::{collections::HashMap, time::Instant};

use libp2p::{
    PeerId, StreamProtocol,
    request_response::{
        Behaviour, Config, Event, InboundFailure, InboundRequestId, Message, OutboundRequestId,
        ProtocolSupport, ResponseChannel,
    },
    swarm::ConnectionId,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    codec::{Control, Response, protocol_name},
    error::CallError,
    event::{Asked, Inbound, Responder},
    gate::door::Gated,
    limits::{CONTROL_STREAMS_MAX, STREAM_OPEN_TIMEOUT},
    observer::{ExchangeOutcome, Observer},
};
use crate::{
    ids::NetworkId,
    messages::{
        admission::Admission, changes::Changes, handover::Handover, index::Index, poll::Poll, sync::Sync,
        vault::Vault,
    },
    rpc::Protocol,
};

/// The behaviour of one control protocol behind the gate.
pub(super) type Lane<P> = Gated<Behaviour<Control<P>>>;

/// A control protocol that the network carries.
pub trait Spoken: Protocol {
    /// Whether only super-peers may ask.
    const BY_SUPERPEERS_ONLY: bool;
    /// Wraps a question to be asked.
    fn question(question: Question<Self>) -> Call;
    /// Wraps what a peer asks.
    fn inbound(asked: Asked<Self>) -> Inbound;
}

macro_rules! spoken {
    ($($protocol:ident, $by_superpeers_only:literal;)+) => {
        /// A question of any control protocol, on its way to the network's loop.
        #[derive(Debug)]
        pub enum Call {
            $(#[doc = concat!("Of [`", stringify!($protocol), "`].")] $protocol(Question<$protocol>),)+
        }
        $(impl Spoken for $protocol {
            const BY_SUPERPEERS_ONLY: bool = $by_superpeers_only;

            fn question(question: Question<Self>) -> Call {
                Call::$protocol(question)
            }

            fn inbound(asked: Asked<Self>) -> Inbound {
                Inbound::$protocol(asked)
            }
        })+
    };
}

spoken! {
    Admission, false;
    Index, false;
    Changes, false;
    Poll, true;
    Sync, true;
    Vault, true;
    Handover, false;
}

/// Where the answer to a question goes.
pub(super) type Answer<P> = oneshot::Sender<Result<<P as Protocol>::Response, CallError>>;

/// A question to one peer and where its answer goes.
#[derive(Debug)]
pub struct Question<P: Protocol> {
    pub(super) peer: PeerId,
    pub(super) request: P::Request,
    pub(super) answer: Answer<P>,
}

/// What a peer has asked on a lane.
pub(super) struct Arrived<P: Protocol> {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) request: P::Request,
    id: InboundRequestId,
    channel: ResponseChannel<Response<P::Response>>,
}

/// What is under way on one lane.
pub(super) struct Exchanges<P: Protocol> {
    asked: HashMap<OutboundRequestId, (Answer<P>, Instant)>,
    answering: HashMap<InboundRequestId, Instant>,
}

impl<P: Protocol> Default for Exchanges<P> {
    fn default() -> Self {
        Self { asked: HashMap::new(), answering: HashMap::new() }
    }
}

/// Builds a lane; `support` says whether this side answers too.
pub(super) fn behaviour<P: Protocol>(network: &NetworkId, support: ProtocolSupport) -> Behaviour<Control<P>> {
    Behaviour::new([(name::<P>(network), support)], config::<P>())
}

fn name<P: Protocol>(network: &NetworkId) -> StreamProtocol {
    protocol_name(network, P::NAME, P::VERSION)
}

fn config<P: Protocol>() -> Config {
    Config::default().with_request_timeout(P::TIMEOUT).with_max_concurrent_streams(CONTROL_STREAMS_MAX)
}

pub(super) fn gated<P: Protocol>(network: &NetworkId, support: ProtocolSupport) -> Lane<P> {
    Gated::new(behaviour(network, support), STREAM_OPEN_TIMEOUT)
}

pub(super) fn ajar<P: Protocol>(network: &NetworkId, support: ProtocolSupport) -> Lane<P> {
    Gated::ajar(behaviour(network, support), STREAM_OPEN_TIMEOUT)
}

impl<P: Protocol> Exchanges<P> {
    /// Sends a question. It is not sent where the peer is not admitted: libp2p would dial, and wait.
    pub(super) fn ask(&mut self, lane: &mut Lane<P>, question: Question<P>) {
        let Question { peer, request, answer } = question;
        if answer.is_closed() {
            return;
        }
        if !lane.inner().is_connected(&peer) {
            // Whoever asked may have given up meanwhile.
            let _ = answer.send(Err(CallError::NotConnected));
            return;
        }
        let id = lane.inner_mut().send_request(&peer, request);
        self.asked.insert(id, (answer, Instant::now()));
    }

    /// Takes a lane's event: settles our questions, and gives what a peer asks.
    pub(super) fn on_event(
        &mut self,
        event: Event<P::Request, Response<P::Response>>,
        observer: &mut dyn Observer,
    ) -> Option<Arrived<P>> {
        match event {
            Event::Message { peer, connection_id, message } => match message {
                Message::Request { request_id, request, channel } => {
                    return Some(Arrived {
                        peer,
                        connection: connection_id,
                        request,
                        id: request_id,
                        channel,
                    });
                }
                Message::Response { request_id, response: Response::Received(response) } => {
                    self.settle(request_id, Ok(response), observer);
                }
                // A response that is owed is written and never read.
                Message::Response { .. } => {}
            },
            Event::OutboundFailure { request_id, error, .. } => {
                self.settle(request_id, Err(error.into()), observer);
            }
            Event::ResponseSent { request_id, .. } => {
                self.answered(request_id, ExchangeOutcome::Answered, observer);
            }
            Event::InboundFailure { request_id, error, .. } => {
                let outcome = match error {
                    InboundFailure::Timeout => ExchangeOutcome::TimedOut,
                    InboundFailure::ResponseOmission => ExchangeOutcome::Refused,
                    _ => ExchangeOutcome::Failed,
                };
                self.answered(request_id, outcome, observer);
            }
        }
        None
    }

    /// Accepts what a peer asks and gives where its answer goes.
    pub(super) fn accept(
        &mut self,
        lane: &mut Lane<P>,
        arrived: Arrived<P>,
        permit: OwnedSemaphorePermit,
    ) -> (P::Request, Responder<P>) {
        let (sender, receiver) = oneshot::channel();
        self.answering.insert(arrived.id, Instant::now());
        // Where the connection is gone already, the answer goes nowhere, as it would a moment later.
        let _ = lane.inner_mut().send_response(arrived.channel, Response::Owed(receiver, permit));
        (arrived.request, Responder(sender))
    }

    fn settle(
        &mut self,
        id: OutboundRequestId,
        outcome: Result<P::Response, CallError>,
        observer: &mut dyn Observer,
    ) {
        let Some((answer, since)) = self.asked.remove(&id) else { return };
        let label = match &outcome {
            Ok(_) => ExchangeOutcome::Answered,
            Err(CallError::Timeout) => ExchangeOutcome::TimedOut,
            Err(_) => ExchangeOutcome::Failed,
        };
        observer.asked(P::NAME, label, since.elapsed());
        // Whoever asked may have given up meanwhile.
        let _ = answer.send(outcome);
    }

    fn answered(&mut self, id: InboundRequestId, outcome: ExchangeOutcome, observer: &mut dyn Observer) {
        if let Some(since) = self.answering.remove(&id) {
            observer.answered(P::NAME, outcome, since.elapsed());
        }
    }
}
