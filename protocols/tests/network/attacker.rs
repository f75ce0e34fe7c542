//! A peer that does not keep to the rules: it opens whatever protocol it likes, without a gate of its own.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm,
    core::{muxing::StreamMuxerBox, transport::Transport as _, upgrade::Version},
    identity::Keypair,
    quic,
    request_response::{self, Event, Message, OutboundFailure, ProtocolSupport},
    swarm::{self, NetworkBehaviour, SwarmEvent},
    tcp, tls, yamux,
};
use quarta_protocols::{
    cbor,
    credentials::{Role, UnixSeconds},
    members::Enrolment,
};
use serde::Serialize;

use crate::world::{Over, SOON, World, search, within};

/// Sends any bytes, and takes up to 64 KiB of answer.
#[derive(Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, name: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read_response(name, io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.take(64 * 1024).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, name: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write_request(name, io, bytes).await
    }
}

#[derive(NetworkBehaviour)]
struct Lanes {
    hello: request_response::Behaviour<Raw>,
    target: request_response::Behaviour<Raw>,
}

pub(crate) type Outcome = Result<Vec<u8>, OutboundFailure>;

/// Connects under `key`, says `hello` where there is one, and then sends `bytes` on the target protocol of the same
/// connection. Gives what came back on it.
pub(crate) async fn attack(
    key: &Keypair,
    address: &Multiaddr,
    names: [String; 2],
    hello: Option<Vec<u8>>,
    bytes: &[u8],
) -> Outcome {
    let tcp = tcp::tokio::Transport::new(tcp::Config::new())
        .upgrade(Version::V1Lazy)
        .authenticate(tls::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let transport = quic::tokio::Transport::new(quic::Config::new(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .or_transport(tcp)
        .map(|either, _| either.into_inner())
        .boxed();
    let [hello_name, target_name] = names.map(|name| StreamProtocol::try_from_owned(name).unwrap());
    let lane = |name, support| {
        request_response::Behaviour::new([(name, support)], request_response::Config::default())
    };
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(SOON);
    let lanes = Lanes {
        hello: lane(hello_name, ProtocolSupport::Full),
        target: lane(target_name, ProtocolSupport::Outbound),
    };
    let mut swarm = Swarm::new(transport, lanes, key.public().to_peer_id(), config);
    swarm.dial(address.clone()).unwrap();
    let mut victim = None;
    let mut greeting = hello;
    within(async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    victim = Some(peer_id);
                    match greeting.take() {
                        Some(greeting) => swarm.behaviour_mut().hello.send_request(&peer_id, greeting),
                        None => swarm.behaviour_mut().target.send_request(&peer_id, bytes.to_vec()),
                    };
                }
                SwarmEvent::Behaviour(LanesEvent::Hello(Event::Message { message, .. })) => match message {
                    Message::Response { response, .. } => {
                        assert!(!response.is_empty());
                        swarm.behaviour_mut().target.send_request(&victim.unwrap(), bytes.to_vec());
                    }
                    Message::Request { channel, .. } => {
                        let welcome = cbor::to_vec("welcome");
                        swarm.behaviour_mut().hello.send_response(channel, welcome).unwrap();
                    }
                },
                SwarmEvent::Behaviour(LanesEvent::Hello(Event::OutboundFailure { error, .. })) => {
                    panic!("hello was not answered: {error}");
                }
                SwarmEvent::Behaviour(LanesEvent::Target(outcome)) => match outcome {
                    Event::Message { message: Message::Response { response, .. }, .. } => {
                        return Ok(response);
                    }
                    Event::OutboundFailure { error, .. } => return Err(error),
                    other => panic!("{other:?}"),
                },
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    })
    .await
}

/// Hello's request as it stands on the wire.
#[derive(Serialize)]
struct Hello {
    enrolment: Enrolment,
    version: &'static str,
}

pub(crate) fn hello(enrolment: Enrolment) -> Vec<u8> {
    cbor::to_vec(&Hello { enrolment, version: "0.1.0" })
}

/// A search, well formed: whoever decodes it answers it.
pub(crate) fn well_formed() -> Vec<u8> {
    cbor::to_vec(&search())
}

#[tokio::test]
async fn malformed_and_oversized_bytes_from_a_member_are_dropped_without_an_answer() {
    let world = World::new();
    let superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let address = superpeer.addresses().await.remove(0);
    let (_network, asked) = superpeer.answer_all();
    let key = Keypair::generate_ed25519();
    let greeting = hello(world.enrol(&key, Role::Node, UnixSeconds::now()));
    let tag = world.trust.network.protocol_tag();
    let name = |protocol: &str| format!("/quarta/{tag}/{protocol}/1");
    let trailing = [well_formed(), vec![0]].concat();
    for bytes in [vec![], vec![0xff; 64], trailing, vec![0x81; 2 * 1024 * 1024]] {
        let outcome =
            attack(&key, &address, [name("hello"), name("index")], Some(greeting.clone()), &bytes).await;
        assert!(outcome.as_ref().is_ok_and(Vec::is_empty) || outcome.is_err(), "{outcome:?}");
    }
    // The same of hello and admission, which strangers reach.
    for protocol in ["hello", "admission"] {
        for bytes in [vec![0xff; 64], vec![0x81; 2 * 1024 * 1024]] {
            let outcome = attack(&key, &address, [name("hello"), name(protocol)], None, &bytes).await;
            let refused = outcome
                .as_ref()
                .is_ok_and(|answer| answer.is_empty() || answer.starts_with(b"\xa1\x67refused"));
            assert!(refused || outcome.is_err(), "{outcome:?}");
        }
    }
    assert!(asked.lock().unwrap().is_empty());
}
