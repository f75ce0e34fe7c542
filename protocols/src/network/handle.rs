//! The handle by which a service uses the network: cheap to clone, every method bounded in time and safe to cancel.

use std::{sync::Arc, time::Instant};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    chunk::{self, Incoming, Outgoing},
    dial::Waiter,
    error::{CallError, ConnectError},
    event::Admitted,
    gate::SoftwareVersion,
    lane::{Call, Question, Spoken},
    limits::{CONNECT_TIMEOUT, STREAM_OPEN_TIMEOUT},
    transport::Transport,
};
use crate::{
    credentials::Trust,
    endings::Ended,
    members::Enrolment,
    messages::chunk::{Head, Request},
};

/// What the loop is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Connect {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        fresh: bool,
        until: Instant,
        waiter: Waiter,
    },
    ConnectStranger {
        address: Multiaddr,
        until: Instant,
        waiter: oneshot::Sender<Result<PeerId, ConnectError>>,
    },
    Call(Call),
    Fetch {
        peer: PeerId,
        outgoing: Outgoing,
        failed: oneshot::Sender<CallError>,
    },
    Disconnect(PeerId),
    CloseConnection(ConnectionId),
    End(PeerId, Ended),
    Sign {
        off: bool,
    },
    Present(Enrolment),
    ListenAddresses(oneshot::Sender<Vec<Multiaddr>>),
    AddExternal(Multiaddr),
    Connections(Option<PeerId>, oneshot::Sender<Vec<Admitted>>),
    Shutdown(oneshot::Sender<()>),
}

/// The running network. Clones share it; it ends with [`Network::shutdown`] or when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Network {
    commands: mpsc::Sender<Command>,
    local: Arc<Local>,
}

#[derive(Debug)]
struct Local {
    peer: PeerId,
    trust: Arc<Trust>,
    version: SoftwareVersion,
}

impl Network {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        peer: PeerId,
        trust: Arc<Trust>,
        version: SoftwareVersion,
    ) -> Self {
        Self { commands, local: Arc::new(Local { peer, trust, version }) }
    }

    /// This member's peer id.
    pub fn local_peer(&self) -> PeerId {
        self.local.peer
    }

    /// The network that this member belongs to, or joins.
    pub fn trust(&self) -> &Trust {
        &self.local.trust
    }

    /// The own software version, as peers are told.
    pub fn version(&self) -> &SoftwareVersion {
        &self.local.version
    }

    /// Connects to a member: at once where it is admitted already, else over TCP, then QUIC, in at most
    /// [`CONNECT_TIMEOUT`]. Concurrent calls for one peer share the attempt.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<Admitted, ConnectError> {
        self.connect_to(peer, addresses, false).await
    }

    /// Like [`Self::connect`], over a new connection even where one exists, for when that one seems dead. Once the new
    /// one is admitted those that existed before are closed, so that every request takes the new one.
    ///
    /// # Errors
    /// [`ConnectError`]; the existing connections then stay.
    pub async fn connect_fresh(
        &self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) -> Result<Admitted, ConnectError> {
        self.connect_to(peer, addresses, true).await
    }

    async fn connect_to(
        &self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        fresh: bool,
    ) -> Result<Admitted, ConnectError> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        let (waiter, outcome) = oneshot::channel();
        timeout(CONNECT_TIMEOUT, async {
            self.send(Command::Connect { peer, addresses, fresh, until, waiter })
                .await
                .map_err(|Gone| ConnectError::Shutdown)?;
            outcome.await.unwrap_or(Err(ConnectError::Shutdown))
        })
        .await
        .unwrap_or(Err(ConnectError::Timeout))
    }

    /// Connects without presenting ourselves, for joining and renewing: only *admission* can be asked then.
    ///
    /// The address may end in `/p2p/<peer>`; then nobody else is accepted. The peer closes such a connection after
    /// [`super::limits::ADMISSION_IN_USE_TIMEOUT`] unless [`Self::present`] makes it a member's.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_stranger(&self, address: Multiaddr) -> Result<PeerId, ConnectError> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        let (waiter, outcome) = oneshot::channel();
        timeout(CONNECT_TIMEOUT, async {
            self.send(Command::ConnectStranger { address, until, waiter })
                .await
                .map_err(|Gone| ConnectError::Shutdown)?;
            outcome.await.unwrap_or(Err(ConnectError::Shutdown))
        })
        .await
        .unwrap_or(Err(ConnectError::Timeout))
    }

    /// Asks a connected peer and waits for its answer, at most the protocol's `TIMEOUT`.
    ///
    /// Cancelling it leaves the exchange to run out by itself.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<P: Spoken>(&self, peer: PeerId, request: P::Request) -> Result<P::Response, CallError> {
        let (answer, outcome) = oneshot::channel();
        timeout(P::TIMEOUT, async {
            self.send(Command::Call(P::question(Question { peer, request, answer })))
                .await
                .map_err(|Gone| CallError::Shutdown)?;
            outcome.await.unwrap_or(Err(CallError::Shutdown))
        })
        .await
        .unwrap_or(Err(CallError::Timeout))
    }

    /// Fetches from a connected holder: returns when the head has arrived, while the body streams.
    ///
    /// A frame larger than `frame_max_bytes` ends the body with an error before it is read. Dropping what is returned
    /// cancels the transfer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn fetch(
        &self,
        peer: PeerId,
        request: Request,
        frame_max_bytes: usize,
    ) -> Result<Incoming, CallError> {
        let (outgoing, head, body) = chunk::fetch(request, frame_max_bytes);
        let (failed, failure) = oneshot::channel();
        let head: (Head, Transport) = timeout(STREAM_OPEN_TIMEOUT + chunk::PROGRESS_TIMEOUT, async {
            self.send(Command::Fetch { peer, outgoing, failed }).await.map_err(|Gone| CallError::Shutdown)?;
            match head.await {
                Ok(head) => Ok(head),
                // Without a head the reason follows from the loop.
                Err(_) => Err(failure.await.unwrap_or(CallError::Shutdown)),
            }
        })
        .await
        .unwrap_or(Err(CallError::Timeout))?;
        Ok(Incoming { head: head.0, transport: head.1, body })
    }

    /// Closes all connections with a peer. It may come back.
    pub async fn disconnect(&self, peer: PeerId) {
        // A network that has ended has no connections.
        let _ = self.send(Command::Disconnect(peer)).await;
    }

    /// Closes one connection.
    pub async fn close_connection(&self, connection: ConnectionId) {
        let _ = self.send(Command::CloseConnection(connection)).await;
    }

    /// Closes all connections with a peer and refuses it from now on, until the process ends: the service tells the
    /// network again at its next start. So are members whose credential a revoked peer issued, until they show one of
    /// another super-peer.
    pub async fn end(&self, peer: PeerId, ended: Ended) {
        let _ = self.send(Command::End(peer, ended)).await;
    }

    /// Signs off: closes every connection, and from now on dials nobody and lets nobody in. Or ends that.
    ///
    /// Whoever connects meanwhile is cut off before its first byte is read.
    pub async fn sign_off(&self, off: bool) {
        let _ = self.send(Command::Sign { off }).await;
    }

    /// Presents this credential and sealing key from now on, at once also on the connections that exist. After
    /// joining this makes a stranger's connection a member's.
    pub async fn present(&self, enrolment: Enrolment) {
        let _ = self.send(Command::Present(enrolment)).await;
    }

    /// The addresses at which this member accepts connections, all interfaces listed.
    pub async fn listen_addresses(&self) -> Vec<Multiaddr> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.send(Command::ListenAddresses(sender)).await;
        receiver.await.unwrap_or_default()
    }

    /// Adds an address at which this member can be reached from elsewhere.
    pub async fn add_external(&self, address: Multiaddr) {
        let _ = self.send(Command::AddExternal(address)).await;
    }

    /// The admitted connections with one peer, or with all.
    pub async fn connections(&self, peer: Option<PeerId>) -> Vec<Admitted> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.send(Command::Connections(peer, sender)).await;
        receiver.await.unwrap_or_default()
    }

    /// Closes all connections, so that peers notice at once, and ends the network.
    pub async fn shutdown(&self) {
        let (sender, receiver) = oneshot::channel();
        let _ = self.send(Command::Shutdown(sender)).await;
        let _ = receiver.await;
    }

    async fn send(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).await.map_err(|_| Gone)
    }
}

/// The loop has ended.
struct Gone;
