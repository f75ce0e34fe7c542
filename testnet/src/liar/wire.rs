//! The half of a lying holder that serves chunks: a libp2p swarm that writes whatever bytes it likes.
//!
//! It is built from libp2p's own parts and not from Quarta's network layer, whose codec could not send such bytes.

use super::lie::{self, Answer, Lie, Step};
use super::{Goods, LiarError};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::{self, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, ping, tcp, tls, yamux};
use quarta_protocols::cbor;
use quarta_protocols::ids::{ContentId, NetworkId};
use quarta_protocols::members::Enrolment;
use quarta_protocols::messages::chunk;
use serde::Serialize;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A stream that nobody ends is kept for this long: longer than any fetch waits.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between the bytes of what is dripped.
const DRIP: Duration = Duration::from_secs(1);
/// A greeting fits into this.
const GREETING_MAX_BYTES: u64 = 16 * 1024;
/// A transfer's id stands before its request.
const TRANSFER_ID_BYTES: usize = 16;
/// Streams at a time: more than any fetcher opens.
const STREAMS: usize = 256;

/// What the serving half shares with its owner.
#[derive(Debug)]
pub(super) struct Counter {
    lie: Lie,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    goods: HashMap<ContentId, Arc<Goods>>,
    first_lie: HashMap<ContentId, Instant>,
}

impl Counter {
    pub(super) fn new(lie: Lie) -> Arc<Self> {
        Arc::new(Self { lie, state: Mutex::new(State::default()) })
    }

    pub(super) fn stock(&self, goods: Goods) {
        self.state().goods.insert(goods.content(), Arc::new(goods));
    }

    pub(super) fn first_lie(&self, content: &ContentId) -> Option<Instant> {
        self.state().first_lie.get(content).copied()
    }

    fn answer(&self, request: chunk::Request) -> Answer {
        let content = request.content();
        let goods = self.state().goods.get(&content).cloned();
        let answer = lie::answer(self.lie, request, goods.as_deref());
        if answer.lies {
            self.state().first_lie.entry(content).or_insert_with(Instant::now);
        }
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to serve, until the runtime ends or the answered task is aborted. Answers where.
pub(super) async fn serve(
    keys: Keypair,
    enrolment: Enrolment,
    network: &NetworkId,
    counter: Arc<Counter>,
) -> Result<(Multiaddr, tokio::task::AbortHandle), LiarError> {
    let setup = |error: &dyn std::fmt::Display| LiarError::Setup(error.to_string());
    let mut swarm = swarm(keys, network, counter)?;
    let any: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().map_err(|error| setup(&error))?;
    swarm.listen_on(any).map_err(|error| setup(&error))?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let greeting = cbor::to_vec(&Hello { enrolment, version: env!("CARGO_PKG_VERSION") });
    let task = tokio::spawn(async move {
        loop {
            drive(&mut swarm, &greeting).await;
        }
    });
    Ok((address, task.abort_handle()))
}

/// Hello's request as it stands on the wire.
#[derive(Serialize)]
struct Hello {
    enrolment: Enrolment,
    version: &'static str,
}

#[derive(NetworkBehaviour)]
struct Lanes {
    hello: request_response::Behaviour<Greetings>,
    chunks: request_response::Behaviour<Chunks>,
    ping: ping::Behaviour,
}

async fn drive(swarm: &mut Swarm<Lanes>, greeting: &[u8]) {
    match swarm.select_next_some().await {
        SwarmEvent::Behaviour(LanesEvent::Hello(Event::Message {
            peer,
            message: Message::Request { channel, .. },
            ..
        })) => {
            // Whoever is gone already needs no welcome.
            let _ = swarm.behaviour_mut().hello.send_response(channel, cbor::to_vec("welcome"));
            swarm.behaviour_mut().hello.send_request(&peer, greeting.to_vec());
        }
        SwarmEvent::Behaviour(LanesEvent::Chunks(Event::Message {
            message: Message::Request { request, channel, .. },
            ..
        })) => {
            let _ = swarm.behaviour_mut().chunks.send_response(channel, request);
        }
        _ => {}
    }
}

fn swarm(keys: Keypair, network: &NetworkId, counter: Arc<Counter>) -> Result<Swarm<Lanes>, LiarError> {
    let name = |protocol: &str| {
        StreamProtocol::try_from_owned(format!("/quarta/{}/{protocol}/1", network.protocol_tag()))
            .map_err(|error| LiarError::Setup(error.to_string()))
    };
    let (hello, chunks) = (name("hello")?, name(chunk::NAME)?);
    let config = || {
        request_response::Config::default()
            .with_request_timeout(PATIENCE)
            .with_max_concurrent_streams(STREAMS)
    };
    Ok(SwarmBuilder::with_existing_identity(keys)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), tls::Config::new, yamux::Config::default)
        .map_err(|error| LiarError::Setup(error.to_string()))?
        .with_behaviour(|_| Lanes {
            hello: request_response::Behaviour::with_codec(
                Greetings,
                [(hello, ProtocolSupport::Full)],
                config(),
            ),
            chunks: request_response::Behaviour::with_codec(
                Chunks(counter),
                [(chunks, ProtocolSupport::Inbound)],
                config(),
            ),
            ping: ping::Behaviour::default(),
        })
        .map_err(|error| LiarError::Setup(error.to_string()))?
        .with_swarm_config(|config: swarm::Config| config.with_idle_connection_timeout(PATIENCE))
        .build())
}

/// Bytes as they are, each way.
#[derive(Debug, Clone, Copy)]
struct Greetings;

impl request_response::Codec for Greetings {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io.take(GREETING_MAX_BYTES).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        self.read_request(protocol, io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await?;
        io.close().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        self.write_request(protocol, io, bytes).await
    }
}

/// Reads a chunk request, and writes the lie.
#[derive(Debug, Clone)]
struct Chunks(Arc<Counter>);

impl request_response::Codec for Chunks {
    type Protocol = StreamProtocol;
    type Request = chunk::Request;
    type Response = chunk::Request;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<chunk::Request> {
        let mut start = [0; TRANSFER_ID_BYTES + 4];
        io.read_exact(&mut start).await?;
        let [.., a, b, c, d] = start;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        // Length 0 ends a transfer, which shows in its own stream.
        if !(1..=chunk::MAX_REQUEST_BYTES).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        io.read_exact(&mut bytes).await?;
        cbor::from_slice(&bytes).map_err(io::Error::other)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<chunk::Request> {
        Err(io::Error::other("a liar asks nobody for chunks"))
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: chunk::Request,
    ) -> io::Result<()> {
        Err(io::Error::other("a liar asks nobody for chunks"))
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: chunk::Request,
    ) -> io::Result<()> {
        for step in self.0.answer(request).steps {
            match step {
                Step::Write(bytes) => io.write_all(&bytes).await?,
                Step::Drip(bytes) => {
                    for byte in bytes {
                        io.write_all(&[byte]).await?;
                        io.flush().await?;
                        tokio::time::sleep(DRIP).await;
                    }
                }
                Step::Wait => {
                    io.flush().await?;
                    tokio::time::sleep(PATIENCE).await;
                }
                Step::Reset => {
                    io.flush().await?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        io.flush().await
    }
}
