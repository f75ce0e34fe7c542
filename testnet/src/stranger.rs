//! Somebody with a fresh identity and no credential, who connects to a member and asks what only members may.
//!
//! It is built from libp2p's own parts and not from Quarta's network layer, so that a mistake that both sides of that
//! layer share cannot hide. It proves that it was heard as a peer (the transport's handshake succeeds) and then that no
//! application protocol answers it: a member that could not be reached at all would also "refuse".

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, tcp, tls, yamux};
use quarta_protocols::cbor;
use quarta_protocols::ids::NetworkId;
use quarta_protocols::messages::index;
use std::io;
use std::time::Duration;

/// What only members may speak.
pub const MEMBERS_PROTOCOLS: [&str; 4] = ["index", "poll", "sync", "chunk"];
/// How long a knock may take; longer than the time in which a member closes a stranger's connection.
const KNOCK_DEADLINE: Duration = Duration::from_secs(20);
/// Of an answer, this many bytes suffice to know that there is one.
const ANSWER_MAX_BYTES: u64 = 1024;

/// How a member answered a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It did not answer the question: how the attempt ended.
    Refused(String),
    /// It answered. That must not be.
    Answered {
        /// The bytes of its answer, up to 1024.
        bytes: usize,
    },
}

/// Why nothing was learnt.
#[derive(Debug, thiserror::Error)]
pub enum KnockError {
    /// Its transport could not be made.
    #[error("the stranger cannot be set up: {0}")]
    Setup(String),
    /// No connection came about, so whether a stranger is refused on one is not known.
    #[error("the member was not reached: {0}")]
    NotReached(String),
    /// Neither an answer nor a refusal.
    #[error("the member kept the stranger waiting for {} s", KNOCK_DEADLINE.as_secs())]
    KeptWaiting,
}

/// Connects to `member` (a TCP address) as a stranger and asks it a member's question on `protocol`, one of
/// [`MEMBERS_PROTOCOLS`], of the network.
///
/// # Errors
/// [`KnockError`] when it is not known how a stranger is treated.
pub async fn knock(member: Multiaddr, network: &NetworkId, protocol: &str) -> Result<Answer, KnockError> {
    let name = format!("/quarta/{}/{protocol}/1", network.protocol_tag());
    let name = StreamProtocol::try_from_owned(name).map_err(|error| KnockError::Setup(error.to_string()))?;
    tokio::time::timeout(KNOCK_DEADLINE, ask(member, name)).await.unwrap_or(Err(KnockError::KeptWaiting))
}

async fn ask(member: Multiaddr, protocol: StreamProtocol) -> Result<Answer, KnockError> {
    let mut swarm = swarm(protocol)?;
    swarm.dial(member).map_err(|error| KnockError::NotReached(error.to_string()))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                swarm.behaviour_mut().send_request(&peer_id, question());
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(KnockError::NotReached(error.to_string()));
            }
            SwarmEvent::ConnectionClosed { cause, .. } => {
                let how = cause.map_or_else(|| "connection closed".to_owned(), |cause| cause.to_string());
                return Ok(Answer::Refused(how));
            }
            SwarmEvent::Behaviour(request_response::Event::OutboundFailure { error, .. }) => {
                return Ok(Answer::Refused(error.to_string()));
            }
            SwarmEvent::Behaviour(request_response::Event::Message {
                message: request_response::Message::Response { response, .. },
                ..
            }) => return Ok(Answer::Answered { bytes: response.len() }),
            _ => {}
        }
    }
}

fn swarm(protocol: StreamProtocol) -> Result<Swarm<request_response::Behaviour<Raw>>, KnockError> {
    let setup = |error: String| KnockError::Setup(error);
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), tls::Config::new, yamux::Config::default)
        .map_err(|error| setup(error.to_string()))?
        .with_behaviour(|_| {
            let config = request_response::Config::default().with_request_timeout(KNOCK_DEADLINE);
            request_response::Behaviour::with_codec(Raw, [(protocol, ProtocolSupport::Outbound)], config)
        })
        .map_err(|error| setup(error.to_string()))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(KNOCK_DEADLINE))
        .build())
}

/// What a member would ask: all files.
fn question() -> Vec<u8> {
    cbor::to_vec(&index::Request::Search { query: String::new(), owner: None, after: None, limit: 10 })
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Vec<u8>> {
        Err(io::Error::other("a stranger is asked nothing"))
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        io.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
        if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        question: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&question).await?;
        io.close().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Vec<u8>,
    ) -> io::Result<()> {
        Err(io::Error::other("a stranger answers nothing"))
    }
}
