//! The network's one loop: commands in, libp2p's events in, the service's events out.
//!
//! It only moves things. Credentials are verified, messages encoded and bodies streamed in the connections' own tasks.
//! A slow service never stops it: who came and who left waits in the outbox, requests are refused when it is long.

mod dialling;
mod serving;

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU8,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    PeerId, Swarm, ping,
    request_response::OutboundRequestId,
    swarm::{ConnectionId, SwarmEvent, dial_opts::DialOpts},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    AddressPolicy, Refusal,
    behaviour::{Behaviour, BehaviourEvent},
    chunk::Opening,
    dial::Attempt,
    error::{CallError, ConnectError},
    event::{Admitted, Event},
    gate::{self, Link, Overdue, SoftwareVersion},
    handle::Command,
    lane::Exchanges,
    limits::{
        OUTBOX_HARD_MAX, OUTBOX_SOFT_MAX, PINGS_MISSED_MAX, REQUESTS_PER_PEER_MAX, TRANSFERS_PER_PEER_MAX,
    },
    observer::Observer,
};
use crate::{
    credentials::UnixSeconds,
    endings::Ended,
    messages::{
        admission::Admission, changes::Changes, handover::Handover, index::Index, poll::Poll, sync::Sync,
        vault::Vault,
    },
};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long the last words of closing connections may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the loop owns.
pub(super) struct Driver {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) observer: Box<dyn Observer>,
    pub(super) policy: AddressPolicy,
    pub(super) version: SoftwareVersion,
    pub(super) opening: Opening,
    pub(super) outbox: VecDeque<Event>,
    pub(super) attempts: HashMap<ConnectionId, (Attempt, Vec<libp2p::Multiaddr>)>,
    pub(super) strangers: HashMap<ConnectionId, (oneshot::Sender<Result<PeerId, ConnectError>>, Instant)>,
    pub(super) slots: HashMap<PeerId, Slots>,
    pub(super) pings_missed: HashMap<ConnectionId, u32>,
    pub(super) exchanges: AllExchanges,
}

/// What is under way on each lane.
#[derive(Default)]
pub(super) struct AllExchanges {
    admission: Exchanges<Admission>,
    index: Exchanges<Index>,
    changes: Exchanges<Changes>,
    poll: Exchanges<Poll>,
    sync: Exchanges<Sync>,
    vault: Exchanges<Vault>,
    handover: Exchanges<Handover>,
    fetches: HashMap<OutboundRequestId, (oneshot::Sender<CallError>, Instant)>,
    transfers: HashMap<libp2p::request_response::InboundRequestId, Instant>,
}

/// What one peer may have us work on at a time.
pub(super) struct Slots {
    requests: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            requests: Arc::new(Semaphore::new(REQUESTS_PER_PEER_MAX)),
            transfers: Arc::new(Semaphore::new(TRANSFERS_PER_PEER_MAX)),
        }
    }
}

impl Slots {
    fn are_in_use(&self) -> bool {
        self.requests.available_permits() < REQUESTS_PER_PEER_MAX
            || self.transfers.available_permits() < TRANSFERS_PER_PEER_MAX
    }
}

impl Driver {
    /// Runs until the last handle is gone, [`Command::Shutdown`], or the service no longer listens.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        let events = self.events.clone();
        let asked_to_end = loop {
            tokio::select! {
                room = events.reserve(), if !self.outbox.is_empty() => match (room, self.outbox.pop_front()) {
                    (Ok(room), Some(event)) => room.send(event),
                    (Ok(_), None) => {}
                    (Err(_), _) => break None,
                },
                command = self.commands.recv() => match command {
                    None => break None,
                    Some(Command::Shutdown(done)) => break Some(done),
                    Some(command) => self.on_command(command),
                },
                event = self.swarm.select_next_some(), if self.outbox.len() < OUTBOX_HARD_MAX => self.on_event(event),
                _ = tick.tick() => self.on_tick(),
            }
        };
        self.say_farewell().await;
        if let Some(done) = asked_to_end {
            // Whoever asked may have given up waiting.
            let _ = done.send(());
        }
    }

    /// Closes every connection in an orderly way: a QUIC peer would otherwise notice only by its idle timeout.
    async fn say_farewell(&mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Not connected any more is what is wanted.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let swarm = &mut self.swarm;
        let closing = async {
            while swarm.network_info().num_peers() > 0 {
                swarm.select_next_some().await;
            }
        };
        // A peer that does not take its goodbye is left.
        let _ = tokio::time::timeout(FAREWELL, closing).await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Connect { peer, addresses, fresh, until, waiter } => {
                self.connect(peer, addresses, fresh, until, waiter);
            }
            Command::ConnectStranger { address, until, waiter } => {
                self.connect_stranger(address, until, waiter);
            }
            Command::Call(call) => self.ask(call),
            Command::Fetch { peer, outgoing, failed } => self.fetch(peer, outgoing, failed),
            Command::Disconnect(peer) => {
                for connection in self.connections_with(&peer) {
                    self.close(connection);
                }
            }
            Command::CloseConnection(connection) => self.close(connection),
            Command::End(peer, ended) => {
                let behaviour = self.swarm.behaviour_mut();
                if ended == Ended::Revoked {
                    behaviour.admission.bar(peer);
                }
                for connection in behaviour.gate.end(peer, ended) {
                    self.close(connection);
                }
            }
            Command::Sign { off } => {
                for connection in self.swarm.behaviour_mut().gate.sign(off) {
                    self.close(connection);
                }
            }
            Command::Present(enrolment) => {
                let version = self.version.clone();
                self.swarm.behaviour_mut().gate.present(enrolment, version);
            }
            Command::ListenAddresses(sender) => {
                let _ = sender.send(self.swarm.listeners().cloned().collect());
            }
            Command::AddExternal(address) => self.swarm.add_external_address(address),
            Command::Connections(peer, sender) => {
                let gate = &self.swarm.behaviour().gate;
                let wanted = |link: &Link| link.is_admitted() && peer.is_none_or(|peer| peer == link.peer);
                let admitted = gate.links().filter(|(_, link)| wanted(link));
                let _ = sender.send(admitted.filter_map(|(id, link)| admitted_on(id, link)).collect());
            }
            // Handled where the loop ends.
            Command::Shutdown(_) => {}
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::NewListenAddr { address, .. } => self.outbox.push_back(Event::Listening(address)),
            SwarmEvent::ConnectionEstablished { connection_id, peer_id, endpoint, .. } => {
                let transport = super::Transport::of(endpoint.get_remote_address());
                self.observer.connection_opened(transport, endpoint.is_listener());
                self.on_established(connection_id, peer_id);
            }
            SwarmEvent::ConnectionClosed { connection_id, peer_id, endpoint, cause, .. } => {
                let transport = super::Transport::of(endpoint.get_remote_address());
                self.observer.connection_closed(transport, endpoint.is_listener());
                tracing::debug!(peer = %peer_id, connection = %connection_id, ?cause, "connection closed");
                self.on_gone(connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failure(connection_id, error);
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "an incoming connection failed");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener has trouble"),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "a listener closed");
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gate(event) => self.on_gate(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Admission(event) => self.on_admission(event),
            BehaviourEvent::Index(event) => self.on_index(event),
            BehaviourEvent::Changes(event) => self.on_changes(event),
            BehaviourEvent::Poll(event) => self.on_poll(event),
            BehaviourEvent::Sync(event) => self.on_sync(event),
            BehaviourEvent::Vault(event) => self.on_vault(event),
            BehaviourEvent::Handover(event) => self.on_handover(event),
            BehaviourEvent::Chunk(event) => self.on_chunk(event),
            BehaviourEvent::Identify(_) => {}
        }
    }

    fn on_gate(&mut self, event: gate::Event) {
        match event {
            gate::Event::Verified(connection) => {
                let behaviour = self.swarm.behaviour_mut();
                if let Some(link) = behaviour.gate.link(connection)
                    && let Some(role) = link.membership().map(|membership| membership.role)
                {
                    self.opening.set(link.transport);
                    behaviour.listen(connection, role);
                    behaviour.gate.welcome(connection);
                }
            }
            gate::Event::Admitted { connection, renewed } => self.on_admitted(connection, renewed),
            gate::Event::Refused { connection, peer, refusal, by_us, clock } => {
                self.observer.refused(refusal, by_us);
                tracing::info!(%peer, %refusal, by_us, "not admitted");
                self.outbox.push_back(Event::Refused { peer, refusal, by_us, clock });
                self.settle_attempt_on(connection, ConnectError::Refused(refusal));
                if by_us {
                    // The socket stays for the peer to read why, and nothing else does.
                    self.shut(connection);
                } else {
                    self.close(connection);
                }
            }
            gate::Event::Hopeless(connection) => self.close(connection),
        }
    }

    fn on_admitted(&mut self, connection: ConnectionId, renewed: bool) {
        let behaviour = self.swarm.behaviour_mut();
        let Some(admitted) = behaviour.gate.link(connection).and_then(|link| admitted_on(connection, link))
        else {
            return;
        };
        behaviour.release(connection);
        let others = |(id, link): (ConnectionId, &Link)| id != connection && link.is_admitted();
        let first = !renewed && !behaviour.gate.with(&admitted.peer).any(others);
        if !renewed {
            self.observer.admitted(admitted.inbound);
        }
        self.outbox.push_back(Event::Admitted { admitted: admitted.clone(), first });
        self.settle_attempts_with(admitted);
    }

    fn on_ping(&mut self, event: ping::Event) {
        let (peer, connection) = (event.peer, event.connection);
        let Some(link) = self.swarm.behaviour().gate.link(connection) else { return };
        match event.result {
            Ok(round_trip) => {
                self.observer.pinged(peer, link.transport, round_trip);
                self.pings_missed.remove(&connection);
                if self.outbox.len() < OUTBOX_SOFT_MAX {
                    self.outbox.push_back(Event::Ping { peer, round_trip });
                }
            }
            Err(ping::Failure::Unsupported) => {}
            Err(failure) => {
                self.observer.ping_missed(peer);
                // libp2p keeps the first failure of a row to itself.
                let consecutive =
                    *self.pings_missed.entry(connection).and_modify(|missed| *missed += 1).or_insert(2);
                tracing::debug!(%peer, %failure, consecutive, "ping missed");
                if self.outbox.len() < OUTBOX_SOFT_MAX {
                    self.outbox.push_back(Event::PingMissed { peer, consecutive });
                }
                if consecutive >= PINGS_MISSED_MAX {
                    self.close(connection);
                }
            }
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        for (connection, why) in self.swarm.behaviour().gate.overdue(now, UnixSeconds::now()) {
            if why == Overdue::Expired
                && let Some(link) = self.swarm.behaviour().gate.link(connection)
            {
                let (peer, refusal, by_us) = (link.peer, Refusal::Expired, true);
                self.observer.refused(refusal, by_us);
                self.outbox.push_back(Event::Refused { peer, refusal, by_us, clock: None });
            }
            self.close(connection);
        }
        self.forget_late_attempts(now);
        // What a peer had us begin counts against it also when it comes back.
        self.slots.retain(|peer, slots| self.swarm.is_connected(peer) || slots.are_in_use());
    }

    /// Ends everything on a connection now, and its socket when the peer lets it.
    fn close(&mut self, connection: ConnectionId) {
        self.shut(connection);
        self.swarm.close_connection(connection);
    }

    /// Ends everything on a connection; the socket stays.
    fn shut(&mut self, connection: ConnectionId) {
        self.swarm.behaviour_mut().shut(connection);
        let link = self.swarm.behaviour_mut().gate.shut(connection);
        if let Some((peer, was_admitted)) = link {
            self.on_shut(connection, peer, was_admitted);
        }
    }

    /// The socket is gone; what ran on it may have ended before.
    fn on_gone(&mut self, connection: ConnectionId) {
        if let Some((peer, was_admitted)) = self.swarm.behaviour_mut().gate.forget(connection) {
            self.on_shut(connection, peer, was_admitted);
        }
    }

    fn on_shut(&mut self, connection: ConnectionId, peer: PeerId, was_admitted: bool) {
        self.pings_missed.remove(&connection);
        self.settle_attempt_on(connection, ConnectError::Lost);
        if was_admitted && !self.swarm.behaviour().gate.with(&peer).any(|(_, link)| link.is_admitted()) {
            self.outbox.push_back(Event::Departed { peer });
        }
    }

    fn connections_with(&self, peer: &PeerId) -> Vec<ConnectionId> {
        self.swarm.behaviour().gate.with(peer).map(|(connection, _)| connection).collect()
    }
}

/// An admitted connection, as services see it.
pub(super) fn admitted_on(connection: ConnectionId, link: &Link) -> Option<Admitted> {
    let presented = link.heard.clone().filter(|_| link.is_admitted())?;
    Some(Admitted {
        peer: link.peer,
        presented,
        connection,
        transport: link.transport,
        inbound: link.inbound,
        remote: link.remote.clone(),
    })
}

/// Dials all of a list at once.
pub(super) fn dial_opts(peer: PeerId, addresses: Vec<libp2p::Multiaddr>) -> DialOpts {
    let at_once = u8::try_from(addresses.len()).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MIN);
    DialOpts::peer_id(peer)
        .condition(libp2p::swarm::dial_opts::PeerCondition::Always)
        .override_dial_concurrency_factor(at_once)
        .addresses(addresses)
        .allocate_new_port()
        .build()
}
