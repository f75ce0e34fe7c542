//! Hello on one connection: speaks, listens, and verifies what it hears in the connection's own task.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::{AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::time::timeout;

use super::hello::{
    MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Presented, Refusal, Request, Response, Unwelcome, check,
};
use crate::{
    cbor,
    credentials::{Trust, UnixSeconds},
    network::{codec::read_message, limits::HELLO_TIMEOUT},
};

/// What the gate tells a connection.
#[derive(Debug)]
pub(in crate::network) enum Command {
    /// Present us with these bytes.
    Speak(Arc<[u8]>),
    /// Answer the greeting that was reported last.
    Answer(Response),
    /// Whether the connection stays open when nothing uses it.
    KeepAlive(bool),
}

/// A greeting as verified.
pub(super) type Heard = Result<Box<Presented>, Unwelcome>;

/// What a connection tells the gate.
#[derive(Debug)]
pub(in crate::network) enum Report {
    /// The peer's greeting, verified or not; it waits for its answer.
    Heard(Heard),
    /// The peer's answer to ours.
    Answered(Result<Response, SpeakError>),
}

/// Why our greeting was not answered.
#[derive(Debug)]
pub(in crate::network) enum SpeakError {
    /// The peer does not know this network's hello.
    Unsupported,
    /// The stream broke or timed out.
    Broken,
}

/// The connection's part of the gate.
pub(in crate::network) struct Handler {
    protocol: StreamProtocol,
    trust: Arc<Trust>,
    peer: PeerId,
    keep_alive: bool,
    to_speak: Option<Arc<[u8]>>,
    speaking: Speaking,
    listening: Listening,
    waker: Option<Waker>,
}

enum Speaking {
    Silent,
    Opening(Arc<[u8]>),
    Spoken(BoxFuture<'static, io::Result<Response>>),
    Failed(SpeakError),
}

enum Listening {
    Idle,
    Reading(BoxFuture<'static, io::Result<(Heard, Stream)>>),
    Waiting(Stream),
    Answering(BoxFuture<'static, io::Result<()>>),
}

impl Handler {
    pub(super) const fn new(protocol: StreamProtocol, trust: Arc<Trust>, peer: PeerId) -> Self {
        Self {
            protocol,
            trust,
            peer,
            // Until it is decided, the gate's own deadline is what closes the connection.
            keep_alive: true,
            to_speak: None,
            speaking: Speaking::Silent,
            listening: Listening::Idle,
            waker: None,
        }
    }

    fn listen(&mut self, mut stream: Stream) {
        if !matches!(self.listening, Listening::Idle) {
            // One greeting at a time; dropping the stream resets it.
            return;
        }
        let (trust, peer) = (self.trust.clone(), self.peer);
        self.listening = Listening::Reading(
            async move {
                let request =
                    timeout(HELLO_TIMEOUT, read_message::<Request, _>(&mut stream, MAX_REQUEST_BYTES))
                        .await?;
                let heard = match request {
                    Ok(request) => check(request, &trust, &peer, UnixSeconds::now()).map(Box::new),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        Err(Refusal::Malformed.into())
                    }
                    Err(error) => return Err(error),
                };
                Ok((heard, stream))
            }
            .boxed(),
        );
    }
}

async fn speak(mut stream: Stream, greeting: Arc<[u8]>) -> io::Result<Response> {
    stream.write_all(&greeting).await?;
    stream.close().await?;
    read_message(&mut stream, MAX_RESPONSE_BYTES).await
}

async fn answer(mut stream: Stream, response: Response) -> io::Result<()> {
    stream.write_all(&cbor::to_vec(&response)).await?;
    stream.close().await
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Report;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ()).with_timeout(HELLO_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep_alive
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Speak(greeting) => self.to_speak = Some(greeting),
            Command::KeepAlive(keep_alive) => self.keep_alive = keep_alive,
            Command::Answer(response) => {
                if let Listening::Waiting(stream) = std::mem::replace(&mut self.listening, Listening::Idle) {
                    let answering = async move { timeout(HELLO_TIMEOUT, answer(stream, response)).await? };
                    self.listening = Listening::Answering(answering.boxed());
                }
            }
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        match &mut self.listening {
            Listening::Reading(reading) => {
                if let Poll::Ready(outcome) = reading.poll_unpin(cx) {
                    self.listening = Listening::Idle;
                    if let Ok((heard, stream)) = outcome {
                        self.listening = Listening::Waiting(stream);
                        return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Report::Heard(heard)));
                    }
                }
            }
            Listening::Answering(answering) => {
                if answering.poll_unpin(cx).is_ready() {
                    self.listening = Listening::Idle;
                }
            }
            Listening::Idle | Listening::Waiting(_) => {}
        }
        match &mut self.speaking {
            Speaking::Silent => {
                if let Some(greeting) = self.to_speak.take() {
                    self.speaking = Speaking::Opening(greeting);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                        protocol: self.listen_protocol(),
                    });
                }
            }
            Speaking::Opening(_) => {}
            Speaking::Spoken(spoken) => {
                if let Poll::Ready(answer) = spoken.poll_unpin(cx) {
                    self.speaking = Speaking::Silent;
                    let report = Report::Answered(answer.map_err(|_| SpeakError::Broken));
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
                }
            }
            Speaking::Failed(_) => {
                if let Speaking::Failed(error) = std::mem::replace(&mut self.speaking, Speaking::Silent) {
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Report::Answered(Err(
                        error,
                    ))));
                }
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.listen(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream, ..
            }) => {
                if let Speaking::Opening(greeting) = std::mem::replace(&mut self.speaking, Speaking::Silent) {
                    let spoken = async move { timeout(HELLO_TIMEOUT, speak(stream, greeting)).await? };
                    self.speaking = Speaking::Spoken(spoken.boxed());
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.speaking = Speaking::Failed(match error {
                    StreamUpgradeError::NegotiationFailed => SpeakError::Unsupported,
                    _ => SpeakError::Broken,
                });
            }
            _ => {}
        }
    }
}
