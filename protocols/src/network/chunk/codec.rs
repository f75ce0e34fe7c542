//! The bytes of a chunk transfer.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::timeout,
};

use super::{
    BodyError, Piece, Reply,
    cancelling::{Cancelled, Cancels, Ticket, TransferId},
};
use crate::{
    cbor,
    content::SEALED_CHUNK_MAX_BYTES,
    messages::chunk::{Abort, Head, MAX_HEAD_BYTES, MAX_REQUEST_BYTES, Request as Wanted},
    network::{
        codec::{CodecError, encode},
        transport::Transport,
    },
};

/// How long either side waits for the other's next bytes. A slow line moves a piece of 64 KiB within it.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the serving side waits for the request itself.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What must be written or read within [`PROGRESS_TIMEOUT`] to count as progress.
const PIECE_BYTES: usize = 64 * 1024;
const END: u32 = 0;
const ABORT: u32 = u32::MAX;

/// A request on its way out, with the local ends of what comes back.
#[derive(Debug)]
pub(in crate::network) struct Outgoing {
    pub(super) id: TransferId,
    pub(super) request: Wanted,
    pub(super) frame_max_bytes: usize,
    pub(super) head: oneshot::Sender<(Head, Transport)>,
    pub(super) frames: mpsc::Sender<Result<Option<Bytes>, BodyError>>,
}

/// A request on its way out or in.
#[derive(Debug)]
pub(in crate::network) enum Request {
    Outgoing(Outgoing),
    Incoming(Wanted),
    /// Either way: the transfer of this id is not wanted any more.
    Cancel(TransferId),
}

/// A response that has been delivered, or that the service still owes.
#[derive(Debug)]
pub(in crate::network) enum Response {
    Delivered,
    Owed(oneshot::Receiver<Reply>, OwnedSemaphorePermit),
}

impl Response {
    pub(super) const fn owed(reply: oneshot::Receiver<Reply>, permit: OwnedSemaphorePermit) -> Self {
        Self::Owed(reply, permit)
    }
}

/// The transport of the connection that is being opened, shared between the network's loop and the behaviour's codec.
#[derive(Debug, Clone, Default)]
pub(in crate::network) struct Opening(Arc<AtomicU8>);

impl Opening {
    pub(in crate::network) fn set(&self, transport: Transport) {
        self.0.store(transport as u8, Ordering::Relaxed);
    }

    fn get(&self) -> Transport {
        match self.0.load(Ordering::Relaxed) {
            0 => Transport::Tcp,
            1 => Transport::Quic,
            _ => Transport::Relay,
        }
    }
}

/// The codec. libp2p clones the behaviour's codec for each connection, and a connection's for each stream, so the
/// first clone takes the label of the connection that is being opened.
#[derive(Debug)]
pub(in crate::network) struct Codec {
    label: Label,
    cancels: Cancels,
    /// Between writing a request and reading its response.
    sink: Option<Sink>,
    /// Between reading a request and writing its response.
    ticket: Option<Ticket>,
}

#[derive(Debug)]
enum Label {
    Prototype(Opening),
    Bound(Transport),
}

#[derive(Debug)]
struct Sink {
    id: TransferId,
    frame_max_bytes: usize,
    head: oneshot::Sender<(Head, Transport)>,
    frames: mpsc::Sender<Result<Option<Bytes>, BodyError>>,
}

impl Codec {
    pub(in crate::network) fn new(opening: Opening) -> Self {
        Self { label: Label::Prototype(opening), cancels: Cancels::default(), sink: None, ticket: None }
    }

    const fn transport(&self) -> Option<Transport> {
        match self.label {
            Label::Prototype(_) => None,
            Label::Bound(transport) => Some(transport),
        }
    }
}

impl Clone for Codec {
    fn clone(&self) -> Self {
        let transport = match &self.label {
            Label::Prototype(opening) => opening.get(),
            Label::Bound(transport) => *transport,
        };
        Self { label: Label::Bound(transport), cancels: self.cancels.clone(), sink: None, ticket: None }
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        timeout(REQUEST_TIMEOUT, async {
            let id = TransferId::from_bytes(read_array(io).await?);
            match read_prefixed(io, MAX_REQUEST_BYTES).await? {
                None => {
                    self.cancels.cancel(id);
                    Ok(Request::Cancel(id))
                }
                Some(request) => {
                    self.ticket = Some(self.cancels.enter(id)?);
                    Ok(Request::Incoming(request))
                }
            }
        })
        .await?
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let (id, bytes) = match request {
            Request::Outgoing(Outgoing { id, request, frame_max_bytes, head, frames }) => {
                self.sink = Some(Sink { id, frame_max_bytes, head, frames });
                (id, encode(&request, MAX_REQUEST_BYTES)?)
            }
            Request::Cancel(id) => (id, Vec::new()),
            Request::Incoming(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        write_piece(io, &id.to_bytes()).await?;
        write_piece(io, &length(bytes.len())?).await?;
        write_piece(io, &bytes).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (Some(transport), Some(sink)) = (self.transport(), self.sink.take()) else {
            // Nothing answers a cancellation.
            return Ok(Response::Delivered);
        };
        let Sink { id, frame_max_bytes, head: head_sender, frames } = sink;
        let head: Head = tokio::select! {
            head = timeout(PROGRESS_TIMEOUT, read_prefixed(io, MAX_HEAD_BYTES)) => {
                head??.ok_or(io::ErrorKind::InvalidData)?
            }
            () = frames.closed() => return Err(Cancelled(id).into()),
        };
        head_sender.send((head, transport)).map_err(|_| Cancelled(id))?;
        loop {
            let frame = tokio::select! {
                frame = read_frame(io, frame_max_bytes.min(SEALED_CHUNK_MAX_BYTES)) => frame,
                () = frames.closed() => return Err(Cancelled(id).into()),
            };
            let outcome = match &frame {
                Ok(Some(_)) => None,
                // Nothing more comes.
                Ok(None) | Err(BodyError::Aborted(_) | BodyError::Broken(_)) => Some(Ok(Response::Delivered)),
                // More would come, and is not wanted.
                Err(BodyError::Stalled | BodyError::FrameTooLarge { .. }) => Some(Err(Cancelled(id).into())),
            };
            frames.send(frame).await.map_err(|_| Cancelled(id))?;
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let (Response::Owed(reply, _permit), Some(mut ticket)) = (response, self.ticket.take()) else {
            return Ok(());
        };
        let writing = async {
            let Reply { head, body } = reply.await.map_err(|_| CodecError::Unanswered)?;
            let bytes = encode(&head, MAX_HEAD_BYTES)?;
            write_piece(io, &length(bytes.len())?).await?;
            write_piece(io, &bytes).await?;
            match body {
                Some(body) => write_body(io, body).await,
                None => write_piece(io, &END.to_be_bytes()).await,
            }
        };
        tokio::select! {
            outcome = writing => outcome,
            cancelled = ticket.cancelled() => Err(cancelled.into()),
        }
    }
}

fn length(bytes: usize) -> io::Result<[u8; 4]> {
    u32::try_from(bytes).map(u32::to_be_bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

async fn read_array<const N: usize, T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn read_u32<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<u32> {
    read_array(io).await.map(u32::from_be_bytes)
}

/// A message behind its length; none where the length is 0.
async fn read_prefixed<M, T>(io: &mut T, limit: usize) -> io::Result<Option<M>>
where
    M: DeserializeOwned,
    T: AsyncRead + Unpin + Send,
{
    let size = read_u32(io).await? as usize;
    if size > limit {
        return Err(CodecError::TooLarge { limit }.into());
    }
    if size == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; size];
    io.read_exact(&mut bytes).await?;
    Ok(Some(cbor::from_slice(&bytes).map_err(CodecError::from)?))
}

async fn read_frame<T>(io: &mut T, limit: usize) -> Result<Option<Bytes>, BodyError>
where
    T: AsyncRead + Unpin + Send,
{
    let broken = |error: io::Error| BodyError::Broken(error.kind());
    let stalled = |_| BodyError::Stalled;
    let size = match timeout(PROGRESS_TIMEOUT, read_u32(io)).await.map_err(stalled)?.map_err(broken)? {
        END => return Ok(None),
        ABORT => {
            let mut reason = [0];
            timeout(PROGRESS_TIMEOUT, io.read_exact(&mut reason)).await.map_err(stalled)?.map_err(broken)?;
            return Err(BodyError::Aborted(Abort::from_code(reason[0])));
        }
        size => size as usize,
    };
    if size > limit {
        return Err(BodyError::FrameTooLarge { size, limit });
    }
    // Zeroed memory of this size comes untouched from the system, so an announced length costs nothing by itself.
    let mut bytes = vec![0; size];
    for piece in bytes.chunks_mut(PIECE_BYTES) {
        timeout(PROGRESS_TIMEOUT, io.read_exact(piece)).await.map_err(stalled)?.map_err(broken)?;
    }
    Ok(Some(bytes.into()))
}

async fn write_piece<T: AsyncWrite + Unpin + Send>(io: &mut T, bytes: &[u8]) -> io::Result<()> {
    timeout(PROGRESS_TIMEOUT, io.write_all(bytes)).await?
}

async fn write_body<T>(io: &mut T, mut body: mpsc::Receiver<Piece>) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    loop {
        let piece = if let Ok(piece) = body.try_recv() {
            piece
        } else {
            // Nothing ready: what has been written should not wait for what is still being read from a disk.
            timeout(PROGRESS_TIMEOUT, io.flush()).await??;
            match timeout(PROGRESS_TIMEOUT, body.recv()).await {
                Ok(Some(piece)) => piece,
                Ok(None) => Piece::Abort(Abort::Stopping),
                Err(_) => Piece::Abort(Abort::Unreadable),
            }
        };
        match piece {
            Piece::Frame(frame) => {
                if frame.is_empty() || frame.len() > SEALED_CHUNK_MAX_BYTES {
                    return Err(
                        CodecError::OwnTooLarge { size: frame.len(), limit: SEALED_CHUNK_MAX_BYTES }.into()
                    );
                }
                write_piece(io, &length(frame.len())?).await?;
                for piece in frame.chunks(PIECE_BYTES) {
                    write_piece(io, piece).await?;
                }
            }
            Piece::End => return write_piece(io, &END.to_be_bytes()).await,
            Piece::Abort(reason) => {
                write_piece(io, &ABORT.to_be_bytes()).await?;
                return write_piece(io, &[reason.code()]).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use futures::io::Cursor;
    use libp2p::request_response::Codec as _;
    use proptest::prelude::*;
    use tokio::sync::Semaphore;

    use super::{super::ChunkResponder, *};
    use crate::{ids::ContentId, messages::chunk::Purpose, network::chunk};

    const NAME: StreamProtocol = StreamProtocol::new("/chunk");

    fn wanted() -> Wanted {
        Wanted::Run { content: ContentId::from_bytes([1; 32]), first: 0, count: 2, purpose: Purpose::Person }
    }

    fn bound() -> Codec {
        Codec::new(Opening::default()).clone()
    }

    /// The codec of a stream on which a request has arrived.
    async fn serving() -> Codec {
        let (outgoing, _, _) = chunk::fetch(wanted(), 1);
        let mut wire = Cursor::new(Vec::new());
        bound().write_request(&NAME, &mut wire, Request::Outgoing(outgoing)).await.unwrap();
        let mut codec = bound();
        let request = codec.read_request(&NAME, &mut Cursor::new(wire.into_inner())).await.unwrap();
        assert!(matches!(request, Request::Incoming(request) if request == wanted()));
        codec
    }

    async fn responder() -> (ChunkResponder, Response) {
        ChunkResponder::new(Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap())
    }

    /// What a receiver gets out of the bytes of a response.
    async fn receive(wire: &[u8], frame_max_bytes: usize) -> (Option<Head>, Result<Vec<Bytes>, BodyError>) {
        let (outgoing, head, mut body) = chunk::fetch(wanted(), frame_max_bytes);
        let mut codec = bound();
        codec.write_request(&NAME, &mut Cursor::new(Vec::new()), Request::Outgoing(outgoing)).await.unwrap();
        let mut wire = Cursor::new(wire.to_vec());
        let reading = async { drop(codec.read_response(&NAME, &mut wire).await) };
        let collecting = async {
            let mut frames = Vec::new();
            loop {
                match body.next().await {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => return Ok(frames),
                    Err(error) => return Err(error),
                }
            }
        };
        let ((), frames) = tokio::join!(reading, collecting);
        (head.await.ok().map(|(head, _)| head), frames)
    }

    /// The bytes of a response as the serving side writes them.
    async fn send(frames: Vec<Bytes>, end: Option<Abort>) -> Vec<u8> {
        let (responder, response) = responder().await;
        let mut wire = Cursor::new(Vec::new());
        let feeding = async {
            let body = responder.stream(Head::Run);
            for frame in frames {
                body.send(frame).await.unwrap();
            }
            match end {
                None => body.finish().await.unwrap(),
                Some(reason) => body.abort(reason).await.unwrap(),
            }
        };
        let (written, ()) =
            tokio::join!(async { serving().await.write_response(&NAME, &mut wire, response).await }, feeding);
        written.unwrap();
        wire.into_inner()
    }

    #[tokio::test]
    async fn the_bytes_of_a_response_are_as_documented() {
        let wire = send(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")], None).await;
        assert_eq!(wire, b"\0\0\0\x04\x63run\0\0\0\x02ab\0\0\0\x01c\0\0\0\0");
        let wire = send(vec![], Some(Abort::Changed)).await;
        assert_eq!(wire, b"\0\0\0\x04\x63run\xff\xff\xff\xff\x01");
    }

    #[tokio::test]
    async fn a_cancelled_transfer_ends_though_its_stream_takes_no_more() {
        let (mut fetching, serving) = (bound(), bound());
        let (outgoing, _head, _body) = chunk::fetch(wanted(), 16);
        let id = outgoing.id;
        let mut wire = Cursor::new(Vec::new());
        fetching.write_request(&NAME, &mut wire, Request::Outgoing(outgoing)).await.unwrap();
        let mut stream = serving.clone();
        stream.read_request(&NAME, &mut Cursor::new(wire.into_inner())).await.unwrap();
        let (responder, response) = responder().await;
        let body = responder.stream(Head::Run);
        let (name, mut stuck) = (NAME, Stuck);
        let writing = stream.write_response(&name, &mut stuck, response);
        let cancelling = async {
            let mut wire = Cursor::new(Vec::new());
            bound().write_request(&NAME, &mut wire, Request::Cancel(id)).await.unwrap();
            serving.clone().read_request(&NAME, &mut Cursor::new(wire.into_inner())).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(writing, cancelling);
        assert_eq!(Cancelled::within(&outcome.unwrap_err()), Some(id));
        body.gone().await;
    }

    /// A stream whose other side reads nothing.
    struct Stuck;
    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_sender_that_gives_up_says_why_and_one_that_vanishes_is_not_taken_for_complete() {
        let wire = send(vec![Bytes::from_static(b"ab")], Some(Abort::Changed)).await;
        assert_eq!(receive(&wire, 16).await.1, Err(BodyError::Aborted(Abort::Changed)));
        let wire = send(vec![Bytes::from_static(b"ab")], None).await;
        for cut in 8..wire.len() {
            let (_, frames) = receive(&wire[..cut], 16).await;
            assert_eq!(frames, Err(BodyError::Broken(io::ErrorKind::UnexpectedEof)), "{cut}");
        }
        let (responder, response) = responder().await;
        drop(responder.stream(Head::Run));
        let mut wire = Cursor::new(Vec::new());
        serving().await.write_response(&NAME, &mut wire, response).await.unwrap();
        assert_eq!(receive(&wire.into_inner(), 16).await.1, Err(BodyError::Aborted(Abort::Stopping)));
    }

    #[tokio::test]
    async fn a_frame_larger_than_asked_for_is_refused_before_it_is_read() {
        let wire = send(vec![Bytes::from_static(b"abc")], None).await;
        assert_eq!(receive(&wire, 2).await.1, Err(BodyError::FrameTooLarge { size: 3, limit: 2 }));
        let mut huge = wire[..8].to_vec();
        huge.extend_from_slice(&0xffff_fffe_u32.to_be_bytes());
        assert!(matches!(receive(&huge, usize::MAX).await.1, Err(BodyError::FrameTooLarge { .. })));
    }

    #[tokio::test]
    async fn an_oversized_request_or_head_is_called_too_large() {
        let mut wire = Cursor::new([vec![7; 16], 0x0010_0000_u32.to_be_bytes().to_vec()].concat());
        let error = bound().read_request(&NAME, &mut wire).await.unwrap_err();
        assert_eq!(CodecError::within(&error), Some(&CodecError::TooLarge { limit: MAX_REQUEST_BYTES }));
        let (head, frames) = receive(&0x0010_0000_u32.to_be_bytes(), 16).await;
        assert!(head.is_none() && frames.is_err());
    }

    proptest! {
        #[test]
        fn any_body_arrives_as_it_was_sent(sizes in proptest::collection::vec(1_usize..200_000, 0..8)) {
            let frames: Vec<_> = sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let received = runtime.block_on(async { receive(&send(frames.clone(), None).await, 200_000).await });
            prop_assert_eq!(received, (Some(Head::Run), Ok(frames)));
        }
    }
}
