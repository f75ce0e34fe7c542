//! The codec of control protocols: one CBOR request, one CBOR response, each ended by closing its half of the stream.
//!
//! A cap is exact: one byte more than allowed is read at most, and answered with an error that says so instead of a
//! confusing one from a truncated message. The answer is written when the service has it, straight from the task of
//! the connection: the swarm's loop neither encodes nor decodes.

use std::{io, marker::PhantomData};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    cbor::{self, DecodeError},
    ids::NetworkId,
    rpc::Protocol,
};

/// Why a message could not be exchanged, inside the [`io::Error`] that libp2p carries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// What was to be sent is larger than its kind may be.
    #[error("own message of {size} bytes exceeds the limit of {limit} bytes")]
    OwnTooLarge {
        /// Encoded size, in bytes.
        size: usize,
        /// Allowed size, in bytes.
        limit: usize,
    },
    /// What was received is larger than its kind may be.
    #[error("received message exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Allowed size, in bytes.
        limit: usize,
    },
    /// What was received is not a message of its kind.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The service did not answer the request.
    #[error("the request was not answered")]
    Unanswered,
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl CodecError {
    /// The codec's error inside an I/O error, if that is what it is.
    pub(super) fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// The libp2p name of a protocol in a network: `/quarta/<network>/<name>/<version>`.
pub(super) fn protocol_name(network: &NetworkId, name: &str, version: u32) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/quarta/{}/{name}/{version}", network.protocol_tag()))
        .expect("the name begins with a slash")
}

/// A response on its way in or out.
#[derive(Debug)]
pub(super) enum Response<R> {
    /// Read from the peer.
    Received(R),
    /// To be written as soon as the service has it. The permit counts the request against its peer's bound.
    Owed(oneshot::Receiver<R>, OwnedSemaphorePermit),
}

/// The codec of one control protocol.
#[derive(Debug)]
pub(super) struct Control<P>(PhantomData<fn() -> P>);

impl<P> Clone for Control<P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for Control<P> {}
impl<P> Default for Control<P> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// Reads to the end of the stream's half and decodes, taking no more than one byte above `limit`.
pub(super) async fn read_message<M, T>(io: &mut T, limit: usize) -> io::Result<M>
where
    M: DeserializeOwned,
    T: AsyncRead + Unpin + Send,
{
    let mut bytes = Vec::new();
    io.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > limit {
        return Err(CodecError::TooLarge { limit }.into());
    }
    if bytes.is_empty() {
        // No CBOR value is empty: the peer went away or did not want to answer.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(cbor::from_slice(&bytes).map_err(CodecError::from)?)
}

impl<P: Protocol> request_response::Codec for Control<P> {
    type Protocol = StreamProtocol;
    type Request = P::Request;
    type Response = Response<P::Response>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<P::Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_message(io, P::MAX_REQUEST_BYTES).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Self::Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_message(io, P::MAX_RESPONSE_BYTES).await.map(Response::Received)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: P::Request,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        // Encoded before the first await, so that requests need not be `Sync`.
        let bytes = encode(&request, P::MAX_REQUEST_BYTES)?;
        drop(request);
        io.write_all(&bytes).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Self::Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Response::Owed(answer, permit) = response else { return Err(CodecError::Unanswered.into()) };
        let bytes = {
            let answer = answer.await.map_err(|_| CodecError::Unanswered)?;
            encode(&answer, P::MAX_RESPONSE_BYTES)?
        };
        io.write_all(&bytes).await?;
        drop(permit);
        Ok(())
    }
}

/// Encodes a message, refusing one that the peer would refuse.
pub(super) fn encode<M: Serialize>(message: &M, limit: usize) -> Result<Vec<u8>, CodecError> {
    let bytes = cbor::to_vec(message);
    if bytes.len() > limit { Err(CodecError::OwnTooLarge { size: bytes.len(), limit }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{executor::block_on, io::Cursor};
    use libp2p::request_response::Codec as _;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    struct Echo;
    impl Protocol for Echo {
        const NAME: &'static str = "echo";
        const MAX_REQUEST_BYTES: usize = 16;
        const MAX_RESPONSE_BYTES: usize = 16;
        const TIMEOUT: Duration = Duration::from_secs(1);
        type Request = String;
        type Response = String;
    }

    fn name() -> StreamProtocol {
        protocol_name(&NetworkId::from_bytes([7; 32]), Echo::NAME, Echo::VERSION)
    }

    fn read(bytes: &[u8]) -> io::Result<String> {
        block_on(Control::<Echo>::default().read_request(&name(), &mut Cursor::new(bytes)))
    }

    fn write(text: &str) -> io::Result<Vec<u8>> {
        let mut wire = Cursor::new(Vec::new());
        block_on(Control::<Echo>::default().write_request(&name(), &mut wire, text.to_owned()))?;
        Ok(wire.into_inner())
    }

    #[test]
    fn a_protocol_name_carries_the_network_and_a_version() {
        assert_eq!(name().as_ref(), "/quarta/07070707070707070707070707070707/echo/1");
    }

    #[test]
    fn a_message_of_exactly_the_cap_passes_and_one_byte_more_is_called_too_large() {
        let wire = write(&"x".repeat(15)).unwrap();
        assert_eq!(wire.len(), 16);
        assert_eq!(read(&wire).unwrap(), "x".repeat(15));
        let error = read(&cbor::to_vec(&"x".repeat(16))).unwrap_err();
        assert_eq!(CodecError::within(&error), Some(&CodecError::TooLarge { limit: 16 }));
        let error = write(&"x".repeat(16)).unwrap_err();
        assert_eq!(CodecError::within(&error), Some(&CodecError::OwnTooLarge { size: 17, limit: 16 }));
    }

    #[test]
    fn trailing_bytes_and_an_empty_message_are_refused() {
        let mut wire = write("a").unwrap();
        wire.push(0);
        let error = read(&wire).unwrap_err();
        assert_eq!(CodecError::within(&error), Some(&CodecError::Malformed(DecodeError::TrailingBytes(1))));
        assert_eq!(read(&[]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = read(&bytes) {
                prop_assert!(text.len() < 16);
            }
        }
    }
}
