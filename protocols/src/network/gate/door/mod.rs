//! Keeps a protocol away from peers that are not admitted.
//!
//! [`Gated`] wraps a behaviour so that it never learns of a connection before the gate lets its peer in, and forgets
//! it the moment the gate shuts it, whatever state the socket is in. Until then the connection offers none of the
//! protocol's names, so no stream of it is negotiated and no byte of it read.
//!
//! A connection opens in two steps, because the two sides verify each other at different moments. When *we* have
//! verified the peer, its streams are accepted ([`Gated::listen`]); when *it* has welcomed us too, ours are opened
//! ([`Gated::release`]): what the behaviour wanted to open before waits in between.
//!
//! The wrapped handler is handed over through a slot that both sides share rather than by a message to the
//! connection's task, so that whoever sees the peer's welcome can rely on the peer's protocols being there already.
//! A second use of this wrapper: libp2p's request-response spreads requests over all connections that it knows to a
//! peer, so shutting a dead one at once is what steers requests to the fresh one.

mod handler;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    task::{Context, Poll},
    time::Duration,
};

use handler::{Handler, Order, Slot, Told, Turn, slot_of};
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
    },
};

/// A behaviour behind the gate.
pub(in crate::network) struct Gated<B: NetworkBehaviour> {
    inner: B,
    stream_timeout: Duration,
    /// Open to everybody but these, for the protocol by which strangers become members.
    ajar: Option<HashSet<PeerId>>,
    links: HashMap<ConnectionId, Link<THandler<B>>>,
    commands: VecDeque<(PeerId, ConnectionId, Turn)>,
}

struct Link<H> {
    slot: Slot<H>,
    peer: PeerId,
    endpoint: ConnectedPoint,
    listening: bool,
}

impl<B: NetworkBehaviour> Gated<B> {
    /// Wraps a behaviour; a stream of it must be negotiated within `stream_timeout`.
    pub(in crate::network) fn new(inner: B, stream_timeout: Duration) -> Self {
        Self { inner, stream_timeout, ajar: None, links: HashMap::new(), commands: VecDeque::new() }
    }

    /// The same for a behaviour that strangers may use, from the first moment of a connection on.
    pub(in crate::network) fn ajar(inner: B, stream_timeout: Duration) -> Self {
        Self { ajar: Some(HashSet::new()), ..Self::new(inner, stream_timeout) }
    }

    pub(in crate::network) const fn inner(&self) -> &B {
        &self.inner
    }

    pub(in crate::network) const fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Keeps this peer out also where strangers are let in.
    pub(in crate::network) fn bar(&mut self, peer: PeerId) {
        if let Some(barred) = &mut self.ajar {
            barred.insert(peer);
        }
    }

    /// Accepts the peer's streams on this connection from now on, and lets the behaviour know the connection.
    pub(in crate::network) fn listen(&mut self, connection: ConnectionId) {
        if !self.fill(connection) {
            return;
        }
        let Some(link) = self.links.get(&connection) else { return };
        let (peer, endpoint) = (link.peer, link.endpoint.clone());
        self.introduce(connection, peer, &endpoint);
    }

    /// Opens our own streams on this connection from now on.
    pub(in crate::network) fn release(&mut self, connection: ConnectionId) {
        self.turn(connection, Turn::Release);
    }

    /// Forgets the connection: what runs on it fails now, and nothing new is accepted or opened.
    pub(in crate::network) fn shut(&mut self, connection: ConnectionId) {
        self.turn(connection, Turn::Shut);
        self.forget(connection);
    }

    /// Makes the wrapped handler; false where it exists already or the connection is not known.
    fn fill(&mut self, connection: ConnectionId) -> bool {
        let Some(Link { slot, peer, endpoint, listening: listening @ false }) =
            self.links.get_mut(&connection)
        else {
            return false;
        };
        let handler = match endpoint {
            ConnectedPoint::Dialer { address, role_override, port_use } => {
                self.inner.handle_established_outbound_connection(
                    connection,
                    *peer,
                    address,
                    *role_override,
                    *port_use,
                )
            }
            ConnectedPoint::Listener { local_addr, send_back_addr } => self
                .inner
                .handle_established_inbound_connection(connection, *peer, local_addr, send_back_addr),
        };
        // None of the wrapped behaviours denies connections; to one that did, this one would simply stay shut.
        let Ok(handler) = handler else { return false };
        *slot_of(slot) = Some(handler);
        *listening = true;
        true
    }

    fn introduce(&mut self, connection: ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
        let other_established = self.listening_with(&peer).saturating_sub(1);
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint,
            failed_addresses: &[],
            other_established,
        }));
    }

    fn turn(&mut self, connection: ConnectionId, turn: Turn) {
        if let Some(Link { peer, listening: true, .. }) = self.links.get(&connection) {
            self.commands.push_back((*peer, connection, turn));
        }
    }

    fn forget(&mut self, connection: ConnectionId) {
        let Some(Link { slot, peer, endpoint, listening: true }) = self.links.remove(&connection) else {
            return;
        };
        drop(slot_of(&slot).take());
        let remaining_established = self.listening_with(&peer);
        self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            cause: None,
            remaining_established,
        }));
    }

    fn listening_with(&self, peer: &PeerId) -> usize {
        self.links.values().filter(|link| link.listening && link.peer == *peer).count()
    }

    fn handler(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        endpoint: ConnectedPoint,
    ) -> Handler<THandler<B>> {
        let slot = Slot::default();
        self.links.insert(connection, Link { slot: slot.clone(), peer, endpoint, listening: false });
        let open = self.ajar.as_ref().is_some_and(|barred| !barred.contains(&peer));
        // Before the connection's task exists, so that a stranger's first stream finds it.
        let released = open && self.fill(connection);
        Handler::new(slot, released, self.stream_timeout)
    }
}

impl<B> NetworkBehaviour for Gated<B>
where
    B: NetworkBehaviour,
    THandler<B>: ConnectionHandler<InboundOpenInfo = (), OutboundOpenInfo = ()>,
{
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        send_back_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let endpoint = ConnectedPoint::Listener {
            local_addr: local_addr.clone(),
            send_back_addr: send_back_addr.clone(),
        };
        Ok(self.handler(connection, peer, endpoint))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let endpoint = ConnectedPoint::Dialer { address: address.clone(), role_override, port_use };
        Ok(self.handler(connection, peer, endpoint))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                if self.links.get(&established.connection_id).is_some_and(|link| link.listening) {
                    self.introduce(established.connection_id, established.peer_id, established.endpoint);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.forget(closed.connection_id);
            }
            // Where another behaviour denied the connection after this one had made its handler.
            FromSwarm::ListenFailure(failure) => self.forget(failure.connection_id),
            FromSwarm::DialFailure(failure) => self.forget(failure.connection_id),
            FromSwarm::AddressChange(change) => {
                if let Some(link) = self.links.get_mut(&change.connection_id) {
                    link.endpoint = change.new.clone();
                    if link.listening {
                        self.inner.on_swarm_event(event);
                    }
                }
            }
            event => self.inner.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if self.links.get(&connection).is_some_and(|link| link.listening) {
            self.inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, turn)) = self.commands.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event: Order(Told::Turn(turn)),
            });
        }
        self.inner.poll(cx).map(|event| event.map_in(|event| Order(Told::Inner(event))))
    }
}
