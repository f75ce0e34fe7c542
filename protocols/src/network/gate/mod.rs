//! The admission gate: who is on the other end of a connection, and what it may therefore use.
//!
//! The transport proves a peer id and no more. The gate exchanges [`hello`] on each connection, verifies the peer's
//! credential for that id, and only then are the other protocols offered there ([`door`]); a stranger's bytes reach no
//! decoder but hello's and admission's. A peer is *admitted* when we have verified it and it has welcomed us.
//!
//! The gate decides per connection, not per peer: a connection that somebody else opens under the same id has to pass
//! by itself, and one on which a member presents an expired credential does not live on another's merits.

pub(super) mod door;
mod handler;
mod hello;
mod link;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

pub(super) use handler::{Command, Report, SpeakError};
pub use hello::{InvalidVersion, Presented, Refusal, SoftwareVersion};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
pub(super) use link::{Link, Overdue};

use super::{codec::protocol_name, error::ConnectError, limits::STRANGERS_MAX, transport::Transport};
use crate::{
    cbor,
    credentials::{Role, Trust, UnixSeconds},
    endings::Ended,
    members::Enrolment,
};

/// What the gate tells the network's loop.
#[derive(Debug)]
pub(super) enum Event {
    /// The peer has proven that it is a member. It waits for [`Behaviour::welcome`], which is for the loop to call
    /// once the protocols are on offer.
    Verified(ConnectionId),
    /// Both sides have let each other in; again when the peer presents a new credential.
    Admitted { connection: ConnectionId, renewed: bool },
    /// One side did not let the other in.
    Refused {
        connection: ConnectionId,
        peer: PeerId,
        refusal: Refusal,
        by_us: bool,
        clock: Option<UnixSeconds>,
    },
    /// The exchange broke down, or too many strangers knock: close it.
    Hopeless(ConnectionId),
}

/// What is known of a membership that may have ended, in whatever order it became known.
#[derive(Debug, Clone, Copy, Default)]
struct Endings {
    left: bool,
    revoked: bool,
    revoked_node: bool,
}

impl Endings {
    fn note(&mut self, ended: Ended) {
        match ended {
            Ended::Left => self.left = true,
            Ended::Revoked => self.revoked = true,
            Ended::RevokedNode => self.revoked_node = true,
        }
    }

    /// What somebody in this role is told, if its membership has ended. A revocation goes before a departure.
    const fn refusal(self, role: Option<Role>) -> Option<Refusal> {
        if self.revoked || (self.revoked_node && matches!(role, Some(Role::Node))) {
            Some(Refusal::Revoked)
        } else if self.left {
            Some(Refusal::Left)
        } else {
            None
        }
    }
}

/// The gate of one member.
pub(super) struct Behaviour {
    protocol: StreamProtocol,
    trust: Arc<Trust>,
    role: Role,
    /// Our own greeting but for the time; none while we are not a member.
    greeting: Option<hello::Request>,
    /// Members whose membership has ended, and what they are told.
    ended: HashMap<PeerId, Endings>,
    /// Whether nobody is let in or dialled, because this member has signed off.
    signed_off: bool,
    links: HashMap<ConnectionId, Link>,
    /// Connections being dialled on which we do not present ourselves.
    quiet: HashSet<ConnectionId>,
    events: VecDeque<ToSwarm<Event, Command>>,
}

impl Behaviour {
    pub(super) fn new(trust: Arc<Trust>, role: Role) -> Self {
        Self {
            protocol: protocol_name(&trust.network, hello::NAME, hello::VERSION),
            trust,
            role,
            greeting: None,
            ended: HashMap::new(),
            signed_off: false,
            links: HashMap::new(),
            quiet: HashSet::new(),
            events: VecDeque::new(),
        }
    }

    /// What this side is.
    pub(super) const fn role(&self) -> Role {
        self.role
    }

    /// Whether this side is a member and can present itself.
    pub(super) const fn is_member(&self) -> bool {
        self.greeting.is_some()
    }

    /// Presents this credential from now on, and at once on every connection where we would have presented another.
    pub(super) fn present(&mut self, enrolment: Enrolment, version: SoftwareVersion) {
        self.greeting = Some(hello::Request { enrolment, version, clock: None });
        let due: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.inbound || link.spoken).map(|(id, _)| *id).collect();
        for connection in due {
            self.speak(connection);
        }
    }

    /// Does not present ourselves on the connection that is about to be dialled.
    pub(super) fn stay_quiet_on(&mut self, connection: ConnectionId) {
        self.quiet.insert(connection);
    }

    /// Tells a verified peer that it is let in, and presents ourselves where we have not yet.
    pub(super) fn welcome(&mut self, connection: ConnectionId) {
        self.command(connection, Command::Answer(hello::Response::Welcome));
        let Some(link) = self.links.get_mut(&connection) else { return };
        link.let_in = true;
        if !link.spoken {
            self.speak(connection);
        } else if link.welcomed {
            self.events.push_back(ToSwarm::GenerateEvent(Event::Admitted { connection, renewed: false }));
        }
    }

    /// Refuses the peer from now on, and gives the connections that are for the loop to close: its own, and those of
    /// members whose credential a revoked super-peer issued.
    pub(super) fn end(&mut self, peer: PeerId, ended: Ended) -> Vec<ConnectionId> {
        let endings = self.ended.entry(peer).or_default();
        endings.note(ended);
        let endings = *endings;
        let role = |link: &Link| link.membership().map(|membership| membership.role);
        let issued_by = |link: &Link| link.membership().and_then(|membership| membership.issuer);
        let concerned = |link: &Link| {
            (link.peer == peer && endings.refusal(role(link)).is_some())
                || (endings.revoked && issued_by(link) == Some(peer))
        };
        let open = self.links.iter().filter(|(_, link)| !link.shut && concerned(link));
        open.map(|(connection, _)| *connection).collect()
    }

    /// Why a peer is none of the network any more, if it is none in this role or, where no role is given, in any.
    pub(super) fn ended(&self, peer: &PeerId, role: Option<Role>) -> Option<Refusal> {
        self.ended.get(peer)?.refusal(role)
    }

    /// Why what a peer has proven does not let it in all the same.
    fn objection(&self, peer: &PeerId, heard: &handler::Heard) -> Option<Refusal> {
        let membership = heard.as_ref().ok().map(|presented| &presented.enrolled.membership);
        if let Some(refusal) = self.ended(peer, membership.map(|membership| membership.role)) {
            return Some(refusal);
        }
        if self.greeting.is_none() {
            return Some(Refusal::NotAMember);
        }
        // Whoever has a stolen super-peer's key can issue as it pleases.
        let issuer = membership?.issuer?;
        self.ended.get(&issuer).is_some_and(|issuer| issuer.revoked).then_some(Refusal::IssuerRevoked)
    }

    /// Lets nobody in and nobody be dialled, or ends that. Gives the connections that are for the loop to close.
    pub(super) fn sign(&mut self, off: bool) -> Vec<ConnectionId> {
        self.signed_off = off;
        let open = self.links.iter().filter(|(_, link)| off && !link.shut);
        open.map(|(connection, _)| *connection).collect()
    }

    pub(super) const fn is_signed_off(&self) -> bool {
        self.signed_off
    }

    fn deny_while_signed_off(&self) -> Result<(), ConnectionDenied> {
        if self.signed_off { Err(ConnectionDenied::new(ConnectError::SignedOff)) } else { Ok(()) }
    }

    /// Grants the time that joining takes.
    pub(super) fn uses_admission(&mut self, connection: ConnectionId) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.uses_admission = true;
        }
    }

    /// The connections whose time is up.
    pub(super) fn overdue(&self, now: Instant, clock: UnixSeconds) -> Vec<(ConnectionId, Overdue)> {
        self.links.iter().filter_map(|(id, link)| Some((*id, link.overdue(now, clock)?))).collect()
    }

    /// Nothing is to run on this connection any more. Gives whose it was and whether it was admitted, once.
    pub(super) fn shut(&mut self, connection: ConnectionId) -> Option<(PeerId, bool)> {
        let link = self.links.get_mut(&connection).filter(|link| !link.shut)?;
        let was_admitted = link.is_admitted();
        link.shut = true;
        Some((link.peer, was_admitted))
    }

    /// The socket is gone. Gives what [`Self::shut`] would have given if that has not happened before.
    pub(super) fn forget(&mut self, connection: ConnectionId) -> Option<(PeerId, bool)> {
        let was = self.shut(connection);
        self.links.remove(&connection);
        was
    }

    pub(super) fn link(&self, connection: ConnectionId) -> Option<&Link> {
        self.links.get(&connection)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = (ConnectionId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// The connections with a peer on which something may still run.
    pub(super) fn with<'a>(&'a self, peer: &'a PeerId) -> impl Iterator<Item = (ConnectionId, &'a Link)> {
        self.links
            .iter()
            .filter(move |(_, link)| link.peer == *peer && !link.shut)
            .map(|(id, link)| (*id, link))
    }

    fn command(&mut self, connection: ConnectionId, command: Command) {
        if let Some(link) = self.links.get(&connection) {
            self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: link.peer,
                handler: NotifyHandler::One(connection),
                event: command,
            });
        }
    }

    fn speak(&mut self, connection: ConnectionId) {
        let Some(greeting) = self.greeting.clone() else { return };
        if let Some(link) = self.links.get_mut(&connection) {
            link.spoken = true;
            let greeting = hello::Request { clock: Some(UnixSeconds::now()), ..greeting };
            self.command(connection, Command::Speak(cbor::to_vec(&greeting).into()));
        }
    }

    fn refuse(&mut self, connection: ConnectionId, unwelcome: impl Into<hello::Unwelcome>) {
        let hello::Unwelcome { refusal, clock } = unwelcome.into();
        let Some(link) = self.links.get_mut(&connection) else { return };
        link.refused = Some((refusal, Instant::now()));
        let peer = link.peer;
        self.command(connection, Command::Answer(hello::Response::Refused(refusal)));
        self.events.push_back(ToSwarm::GenerateEvent(Event::Refused {
            connection,
            peer,
            refusal,
            by_us: true,
            clock,
        }));
    }

    fn heard(&mut self, connection: ConnectionId, heard: handler::Heard) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if let Some((refusal, _)) = link.refused {
            return self.command(connection, Command::Answer(hello::Response::Refused(refusal)));
        }
        let peer = link.peer;
        if let Some(refusal) = self.objection(&peer, &heard) {
            return self.refuse(connection, refusal);
        }
        let Some(link) = self.links.get_mut(&connection) else { return };
        let presented = match heard {
            Err(unwelcome) => return self.refuse(connection, unwelcome),
            Ok(presented) => presented,
        };
        // Between two nodes a connection that nothing uses may go; one with a super-peer is how it knows who lives.
        let keep_alive =
            Role::Superpeer == self.role || Role::Superpeer == presented.enrolled.membership.role;
        link.heard = Some(Arc::new(*presented));
        let (let_in, admitted) = (link.let_in, link.is_admitted());
        self.command(connection, Command::KeepAlive(keep_alive));
        if let_in {
            self.command(connection, Command::Answer(hello::Response::Welcome));
            if admitted {
                self.events.push_back(ToSwarm::GenerateEvent(Event::Admitted { connection, renewed: true }));
            }
        } else {
            self.events.push_back(ToSwarm::GenerateEvent(Event::Verified(connection)));
        }
    }

    fn answered(&mut self, connection: ConnectionId, answer: Result<hello::Response, SpeakError>) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let refusal = match answer {
            Ok(hello::Response::Welcome) => {
                let was_admitted = link.is_admitted();
                link.welcomed = true;
                if link.is_admitted() && !was_admitted {
                    let event = Event::Admitted { connection, renewed: false };
                    self.events.push_back(ToSwarm::GenerateEvent(event));
                }
                return;
            }
            Ok(hello::Response::Refused(refusal)) => refusal,
            // It speaks libp2p, and not this network's hello.
            Err(SpeakError::Unsupported) => Refusal::OtherNetwork,
            Err(SpeakError::Broken) => {
                return self.events.push_back(ToSwarm::GenerateEvent(Event::Hopeless(connection)));
            }
        };
        let peer = link.peer;
        self.events.push_back(ToSwarm::GenerateEvent(Event::Refused {
            connection,
            peer,
            refusal,
            by_us: false,
            clock: None,
        }));
    }

    /// Makes room among the strangers: members do not stay strangers for long, so the oldest goes.
    fn displace_a_stranger(&mut self) {
        let strangers = || self.links.iter().filter(|(_, link)| link.is_stranger());
        if strangers().count() > STRANGERS_MAX
            && let Some((oldest, _)) = strangers().min_by_key(|(_, link)| (link.uses_admission, link.since))
        {
            self.events.push_back(ToSwarm::GenerateEvent(Event::Hopeless(*oldest)));
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = handler::Handler;
    type ToSwarm = Event;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.deny_while_signed_off()
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.deny_while_signed_off()?;
        Ok(handler::Handler::new(self.protocol.clone(), self.trust.clone(), peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.deny_while_signed_off()?;
        Ok(handler::Handler::new(self.protocol.clone(), self.trust.clone(), peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let connection = established.connection_id;
                let remote = established.endpoint.get_remote_address().clone();
                let transport = Transport::of(&remote);
                let inbound = established.endpoint.to_endpoint().is_listener();
                let link = Link::new(established.peer_id, remote, transport, inbound, Instant::now());
                self.links.insert(connection, link);
                if self.quiet.remove(&connection) || inbound {
                    self.displace_a_stranger();
                } else {
                    self.speak(connection);
                }
            }
            FromSwarm::DialFailure(failure) => {
                self.quiet.remove(&failure.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Report::Heard(heard) => self.heard(connection, heard),
            Report::Answered(answer) => self.answered(connection, answer),
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
