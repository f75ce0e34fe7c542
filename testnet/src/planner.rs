//! A super-peer that lives in this process and tells nodes what to keep in their vaults, as a test wants it told.
//!
//! It joins with an invite and connects as any super-peer does, so nodes cannot tell its word from another's. It keeps no
//! index: who asks it something gets no answer, and asks the next super-peer.

use crate::cluster::{ClusterError, Member};
use crate::guest::{become_member_as, config_as, failed, unable};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use quarta_protocols::content::SEALED_CHUNK_MAX_BYTES;
use quarta_protocols::credentials::Role;
use quarta_protocols::ids::ContentId;
use quarta_protocols::messages::chunk::{Head, Purpose, Request as ChunkRequest};
use quarta_protocols::messages::vault::{Assignment, Outcome, Request, Response, Vault};
use quarta_protocols::network::Network;
use std::net::Ipv4Addr;
use std::path::Path;

/// A planning super-peer in this process; gone when dropped.
pub struct Planner {
    network: Network,
}

impl Planner {
    /// Joins with a super-peer's `invite` under `name`, with a new data folder at `data`.
    ///
    /// # Errors
    /// [`ClusterError::Refused`].
    pub async fn join(name: &str, data: &Path, invite: &str) -> Result<Self, ClusterError> {
        let (identity, _) = become_member_as(Role::Superpeer, name, data, invite).await?;
        let config = config_as(Role::Superpeer, &identity);
        let (network, mut events) = Network::start(config).map_err(failed("start its network"))?;
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok(Self { network })
    }

    /// Tells a node what to keep and drop; its answer.
    ///
    /// # Errors
    /// [`ClusterError::Refused`].
    pub async fn assign(&self, node: &Member, what: Vec<Assignment>) -> Result<Vec<Outcome>, ClusterError> {
        match self.ask(node, Request::Assign(what)).await? {
            Response::Assigned(outcomes) => Ok(outcomes),
            other => Err(unable("assign", format!("the answer was {other:?}"))),
        }
    }

    /// Asks a node whether it holds these; its answer.
    ///
    /// # Errors
    /// [`ClusterError::Refused`].
    pub async fn confirm(&self, node: &Member, what: Vec<ContentId>) -> Result<Vec<bool>, ClusterError> {
        match self.ask(node, Request::Confirm(what)).await? {
            Response::Confirmed(held) => Ok(held),
            other => Err(unable("have it confirmed", format!("the answer was {other:?}"))),
        }
    }

    /// Fetches one chunk of a content from a node, as any member may; none where it refuses or breaks off.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] where the node cannot be asked.
    pub async fn chunk(
        &self,
        node: &Member,
        content: ContentId,
        first: u32,
    ) -> Result<Option<Vec<u8>>, ClusterError> {
        let peer = self.connect(node).await?;
        let request = ChunkRequest::Run { content, first, count: 1, purpose: Purpose::Person };
        let fetching = self.network.fetch(peer, request, SEALED_CHUNK_MAX_BYTES);
        let mut incoming = fetching.await.map_err(failed("ask a node"))?;
        if incoming.head != Head::Run {
            return Ok(None);
        }
        Ok(incoming.body.next().await.ok().flatten().map(Vec::from))
    }

    async fn connect(&self, node: &Member) -> Result<PeerId, ClusterError> {
        let peer = node.node().status().await?.peer_id.parse().map_err(failed("read a node's peer id"))?;
        let address = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(node.peer_port()));
        self.network.connect(peer, vec![address]).await.map_err(failed("reach a node"))?;
        Ok(peer)
    }

    async fn ask(&self, node: &Member, request: Request) -> Result<Response, ClusterError> {
        let peer = self.connect(node).await?;
        self.network.call::<Vault>(peer, request).await.map_err(failed("ask a node"))
    }
}
