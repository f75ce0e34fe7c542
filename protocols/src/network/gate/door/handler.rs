//! A gated protocol's part on one connection: offers nothing and opens nothing before it is told to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Stream,
    core::{UpgradeInfo, upgrade::InboundUpgrade},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{
            ConnectionEvent, FullyNegotiatedInbound, InboundUpgradeSend, ListenUpgradeError, UpgradeInfoSend,
        },
    },
};

/// Where the behaviour leaves a connection's wrapped handler for its task to take.
pub(super) type Slot<H> = Arc<Mutex<Option<H>>>;

/// What is in a slot. Nothing panics while it is held.
pub(super) fn slot_of<H>(slot: &Slot<H>) -> MutexGuard<'_, Option<H>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A change of one connection's door.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Release,
    Shut,
}

/// What a gated connection is told.
#[derive(Debug)]
pub(in crate::network) struct Order<E>(pub(super) Told<E>);

/// The door's own word, or the wrapped behaviour's.
#[derive(Debug)]
pub(super) enum Told<E> {
    Turn(Turn),
    Inner(E),
}

/// A connection's handler behind the gate.
pub(in crate::network) struct Handler<H: ConnectionHandler> {
    slot: Slot<H>,
    inner: Option<H>,
    released: bool,
    shut: bool,
    /// What the inner handler wanted to open before the peer welcomed us.
    held: VecDeque<SubstreamProtocol<H::OutboundProtocol>>,
    stream_timeout: Duration,
}

impl<H: ConnectionHandler> Handler<H> {
    pub(super) const fn new(slot: Slot<H>, released: bool, stream_timeout: Duration) -> Self {
        Self { slot, inner: None, released, shut: false, held: VecDeque::new(), stream_timeout }
    }

    fn inner(&mut self) -> Option<&mut H> {
        if self.inner.is_none() && !self.shut {
            self.inner = slot_of(&self.slot).take();
        }
        self.inner.as_mut()
    }
}

impl<H> ConnectionHandler for Handler<H>
where
    H: ConnectionHandler<InboundOpenInfo = (), OutboundOpenInfo = ()>,
{
    type FromBehaviour = Order<H::FromBehaviour>;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = Offer<H::InboundProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let offer = match &self.inner {
            Some(inner) => Some(inner.listen_protocol()),
            None if self.shut => None,
            None => slot_of(&self.slot).as_ref().map(ConnectionHandler::listen_protocol),
        };
        let upgrade = offer.map(|protocol| protocol.into_upgrade().0);
        SubstreamProtocol::new(Offer(upgrade), ()).with_timeout(self.stream_timeout)
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.as_ref().is_some_and(ConnectionHandler::connection_keep_alive)
    }

    fn on_behaviour_event(&mut self, Order(told): Self::FromBehaviour) {
        match told {
            Told::Turn(Turn::Release) => self.released = true,
            Told::Turn(Turn::Shut) => {
                self.shut = true;
                self.inner = None;
                self.held.clear();
            }
            Told::Inner(event) => {
                if let Some(inner) = self.inner() {
                    inner.on_behaviour_event(event);
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if self.released
            && let Some(protocol) = self.held.pop_front()
        {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        let (released, stream_timeout) = (self.released, self.stream_timeout);
        loop {
            let Some(inner) = self.inner() else { return Poll::Pending };
            match inner.poll(cx) {
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol }) => {
                    let protocol = protocol.with_timeout(stream_timeout);
                    if released {
                        return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                    }
                    self.held.push_back(protocol);
                }
                other => return other,
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner().map_or(Poll::Ready(None), |inner| inner.poll_close(cx))
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        let Some(inner) = self.inner() else { return };
        inner.on_connection_event(match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error })
            }
            ConnectionEvent::FullyNegotiatedOutbound(event) => {
                ConnectionEvent::FullyNegotiatedOutbound(event)
            }
            ConnectionEvent::DialUpgradeError(event) => ConnectionEvent::DialUpgradeError(event),
            ConnectionEvent::AddressChange(event) => ConnectionEvent::AddressChange(event),
            ConnectionEvent::LocalProtocolsChange(event) => ConnectionEvent::LocalProtocolsChange(event),
            ConnectionEvent::RemoteProtocolsChange(event) => ConnectionEvent::RemoteProtocolsChange(event),
            _ => return,
        });
    }
}

/// What a gated connection accepts: the protocol's own upgrade, or nothing.
pub(in crate::network) struct Offer<U>(Option<U>);

impl<U: UpgradeInfoSend> UpgradeInfo for Offer<U> {
    type Info = U::Info;
    type InfoIter = std::iter::Flatten<std::option::IntoIter<U::InfoIter>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.as_ref().map(U::protocol_info).into_iter().flatten()
    }
}

impl<U: InboundUpgradeSend> InboundUpgrade<Stream> for Offer<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, stream: Stream, info: Self::Info) -> Self::Future {
        self.0.expect("a name was negotiated, so one was offered").upgrade_inbound(stream, info)
    }
}
