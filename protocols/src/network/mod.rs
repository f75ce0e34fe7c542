//! The network layer that every member runs: who is connected, who may be talked to, and how.
//!
//! One libp2p swarm with one recipe, run by one task (`driver`), used through a handle that can be cloned
//! ([`Network`]) and a bounded channel of [`Event`]s:
//!
//! ```text
//!  service ──Network──▶ commands ─▶ ┌─────────┐   gate ▸ hello, admission           TCP ▸ TLS 1.3 ▸ yamux
//!                                   │ driver  │── lanes ▸ index, changes, poll, …     QUIC
//!  service ◀──────────── events ◀── └─────────┘   chunk ▸ streamed bodies
//! ```
//!
//! What it guarantees:
//!
//! * A peer is heard on the application protocols only on a connection where it has proven to be a member, by a
//!   credential for the very peer id that the transport proved (`gate`). A stranger's bytes reach the decoders of
//!   *hello* and *admission* and no other. Revoked members and expired credentials are cut off while connected.
//! * Everything is bounded ([`limits`]): connections, streams, messages, queues, and time.
//! * Bodies stream in constant memory ([`chunk`]), and either side can end them.
//! * A connection that is given up carries nothing from that moment on, however long its socket takes to die.

mod addresses;
mod behaviour;
pub mod chunk;
mod codec;
mod dial;
mod driver;
mod error;
mod event;
mod gate;
mod handle;
mod lane;
pub mod limits;
mod listening;
mod observer;

mod tls;
mod transport;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

pub use addresses::{ADDRESS_MAX_BYTES, AddressPolicy, named_peer};
pub use behaviour::Pings;
pub use chunk::{Body, BodyError, BodySender, ChunkAsked, ChunkResponder, Incoming, ReceiverGone};
pub use codec::CodecError;
pub use error::{CallError, ConnectError, StartError};
pub use event::{Admitted, Asked, Event, Inbound, Responder};
pub use gate::{InvalidVersion, Presented, Refusal, SoftwareVersion};
pub use handle::Network;
pub use lane::{Call, Question, Spoken};
pub use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, Swarm, identity::Keypair, swarm};
pub use observer::{DialOutcome, ExchangeOutcome, NoObserver, Observer};
pub use tls::cpu_has_aes;
use tokio::sync::mpsc;
pub use transport::Transport;

use crate::{
    credentials::{Role, Trust},
    members::Enrolment,
};

/// What a member's network is made from.
pub struct Config {
    /// The identity that the transport proves.
    pub identity: Keypair,
    /// The network that this member belongs to, or joins.
    pub trust: Trust,
    /// What this member is: decides which protocols it answers.
    pub role: Role,
    /// Its credential and sealing key; none before it has joined.
    pub enrolment: Option<Enrolment>,
    /// Its software version, see [`SoftwareVersion`].
    pub version: String,
    /// Where to accept connections. None only dials.
    pub listen: Vec<Multiaddr>,
    /// Where it can be reached from elsewhere.
    pub external: Vec<Multiaddr>,
    /// Which addresses of others are dialled.
    pub addresses: AddressPolicy,
    /// How many connections there may be at once, at most [`limits::CONNECTIONS_MAX`]: fewer where the process may not
    /// have as many files open.
    pub connections: u32,
    /// How peers are pinged.
    pub pings: Pings,
    /// Who counts what happens.
    pub observer: Box<dyn Observer>,
}

impl Config {
    /// The usual configuration of a member that listens nowhere yet.
    pub fn new(identity: Keypair, trust: Trust, role: Role, version: &str) -> Self {
        Self {
            identity,
            trust,
            role,
            enrolment: None,
            version: version.to_owned(),
            listen: Vec::new(),
            external: Vec::new(),
            addresses: AddressPolicy::default(),
            connections: limits::CONNECTIONS_MAX,
            pings: Pings::default(),
            observer: Box::new(NoObserver),
        }
    }
}

impl Network {
    /// Starts the network on the current tokio runtime.
    ///
    /// The service must keep taking events: while it does not, requests of peers are refused.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: Config) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let version = SoftwareVersion::new(&config.version)?;
        let trust = Arc::new(config.trust);
        let peer = config.identity.public().to_peer_id();
        let opening = chunk::Opening::default();
        let behaviour = behaviour::Behaviour::new(
            &config.identity,
            trust.clone(),
            config.role,
            config.pings,
            config.connections,
            opening.clone(),
        );
        let swarm_config = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(limits::IDLE_TIMEOUT)
            .with_max_negotiating_inbound_streams(limits::NEGOTIATING_STREAMS_MAX);
        let mut swarm = Swarm::new(transport::build(&config.identity)?, behaviour, peer, swarm_config);
        for address in &config.listen {
            listening::check_free(address)
                .map_err(|cause| StartError::Listen { address: address.clone(), cause })?;
        }
        for address in config.listen {
            swarm
                .listen_on(address.clone())
                .map_err(|error| StartError::Listen { address, cause: listening::cause(error) })?;
        }
        for address in config.external {
            swarm.add_external_address(address);
        }
        if let Some(enrolment) = config.enrolment {
            swarm.behaviour_mut().gate.present(enrolment, version.clone());
        }
        let (command_sender, commands) = mpsc::channel(limits::COMMANDS_MAX);
        let (events, event_receiver) = mpsc::channel(limits::EVENTS_MAX);
        let driver = driver::Driver {
            swarm,
            commands,
            events,
            observer: config.observer,
            policy: config.addresses,
            version: version.clone(),
            opening,
            outbox: VecDeque::new(),
            attempts: HashMap::new(),
            strangers: HashMap::new(),
            slots: HashMap::new(),
            pings_missed: HashMap::new(),
            exchanges: driver::AllExchanges::default(),
        };
        tokio::spawn(driver.run());
        Ok((Self::new(command_sender, peer, trust, version), event_receiver))
    }
}
