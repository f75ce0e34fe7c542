//! Receiving uploads: bytes from a request's body become a file of the network.
//!
//! The bytes go straight into a file in the making, piece by piece, and are sealed and announced once they are all
//! there. **A body that breaks off leaves nothing**: its end is told explicitly, so that a connection that is lost
//! between two pieces is not taken for one. What came whole is shared even if the client does not wait for the answer.

use std::{io, sync::Arc};

use bytes::{Buf, Bytes};
use quarta_metrics::node::AddOutcome;
use quarta_protocols::names::FileName;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Shared, adding, keyring::Readers};
use crate::{
    api::model::File,
    database::LibraryCopy,
    library::LibraryError,
    sealing::{AddError, add_stream},
};

/// Uploads at once: each has a thread and a file, and more of them only share the same disk.
const RECEIPTS_MAX: usize = 16;
/// Pieces of a body that wait for the disk; a piece is what one read of the connection gave, at most some 64 KiB.
const PIECES_WAITING: usize = 16;

/// Bounds the uploads.
pub(crate) struct Receipts(Arc<Semaphore>);

impl Default for Receipts {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(RECEIPTS_MAX)))
    }
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Some bytes.
    Bytes(Bytes),
    /// There are no more.
    End,
    /// The body broke off.
    Broken(io::Error),
}

/// Why an upload is not shared. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// As many as can be are being received.
    #[error("{RECEIPTS_MAX} uploads are under way already")]
    Busy,
    /// It could not be sealed or put into the library.
    #[error(transparent)]
    Add(#[from] AddError),
    /// It could not be noted.
    #[error("{0}")]
    Unnoted(String),
}

/// Where to send a body's pieces, and what becomes of them.
pub(crate) struct Receipt<T, E> {
    /// Told once the name and the space are there; dropped where they are not. Before that nothing should be asked of
    /// the sender, who may be waiting for leave to send gigabytes.
    pub(crate) welcome: oneshot::Receiver<()>,
    pub(crate) pieces: mpsc::Sender<Piece>,
    /// Ends with the file; goes on by itself when it is dropped.
    pub(crate) ended: tokio::task::JoinHandle<Result<T, E>>,
}

impl<T: Send + 'static, E: From<ReceiveError> + Send + 'static> Receipt<T, E> {
    /// Goes on, by itself, with what came of it.
    pub(crate) fn then<U, F>(self, next: impl FnOnce(T) -> F + Send + 'static) -> Receipt<U, E>
    where
        U: Send + 'static,
        F: Future<Output = Result<U, E>> + Send,
    {
        let Self { welcome, pieces, ended } = self;
        let ended = tokio::spawn(async move {
            let received = ended.await.unwrap_or_else(|e| Err(ReceiveError::Unnoted(e.to_string()).into()));
            next(received?).await
        });
        Receipt { welcome, pieces, ended }
    }
}

/// Begins to receive a file. `size_bytes`, where it is known, is reserved at once, so that a disk that is too small is
/// told before anything is sent.
///
/// # Errors
/// [`ReceiveError::Busy`]; everything else shows as the receipt's end, at once where the name is taken.
pub(crate) fn begin(
    shared: &Arc<Shared>,
    name: FileName,
    readers: Readers,
    size_bytes: Option<u64>,
) -> Result<Receipt<File, ReceiveError>, ReceiveError> {
    let receipt = receive(shared, move |shared, stream| {
        let noted = add_stream(&shared.library, stream, &name, size_bytes).map_err(ReceiveError::from);
        let noted = noted.and_then(|added| {
            adding::note(shared, name.clone(), readers, &added).map_err(|why| {
                adding::take_back(shared, &added);
                ReceiveError::Unnoted(why)
            })
        });
        noted.inspect_err(|error| shared.metrics.node.adds.inc(outcome(error)))
    })?;
    let shared = shared.clone();
    Ok(receipt.then(move |copy: LibraryCopy| async move {
        adding::announce(&shared, std::slice::from_ref(&copy)).await;
        shared.show_copy(&copy).ok_or_else(|| ReceiveError::Unnoted("its record is not valid".to_owned()))
    }))
}

/// Lets `take` read a body to its end, on a thread of its own.
///
/// # Errors
/// [`ReceiveError::Busy`]; everything else shows as the receipt's end.
pub(super) fn receive<T, E>(
    shared: &Arc<Shared>,
    take: impl FnOnce(&Arc<Shared>, &mut dyn io::Read) -> Result<T, E> + Send + 'static,
) -> Result<Receipt<T, E>, ReceiveError>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let slot = shared.receipts.0.clone().try_acquire_owned().map_err(|_| ReceiveError::Busy)?;
    let (pieces, received) = mpsc::channel(PIECES_WAITING);
    let (ready, welcome) = oneshot::channel();
    let mut stream = Pieces { ready: Some(ready), received, present: Bytes::new(), ended: false };
    let shared = shared.clone();
    let ended = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        take(&shared, &mut stream)
    });
    Ok(Receipt { welcome, pieces, ended })
}

const fn outcome(error: &ReceiveError) -> AddOutcome {
    match error {
        ReceiveError::Add(
            AddError::Library(LibraryError::Taken { .. } | LibraryError::Twin { .. })
            | AddError::TooLarge { .. },
        ) => AddOutcome::Refused,
        _ => AddOutcome::Failed,
    }
}

/// A body as a blocking stream.
struct Pieces {
    /// Whom to tell that the first one is wanted.
    ready: Option<oneshot::Sender<()>>,
    received: mpsc::Receiver<Piece>,
    present: Bytes,
    ended: bool,
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(ready) = self.ready.take() {
            // Where nobody waits any more, the pieces end at once.
            let _ = ready.send(());
        }
        while self.present.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.received.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.present = bytes,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Broken(cause)) => return Err(cause),
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was lost")),
            }
        }
        let count = self.present.len().min(buffer.len());
        self.present.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(pieces: Vec<Piece>) -> io::Result<Vec<u8>> {
        let (sender, received) = mpsc::channel(PIECES_WAITING);
        for piece in pieces {
            sender.try_send(piece).unwrap();
        }
        drop(sender);
        let mut stream = Pieces { ready: None, received, present: Bytes::new(), ended: false };
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    }

    fn bytes(text: &'static str) -> Piece {
        Piece::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn only_a_body_that_was_told_to_end_has_ended() {
        assert_eq!(read(vec![bytes("ab"), bytes(""), bytes("c"), Piece::End]).unwrap(), b"abc");
        assert_eq!(read(vec![Piece::End]).unwrap(), b"");
        assert_eq!(read(vec![bytes("ab")]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let broken = Piece::Broken(io::Error::other("stalled"));
        assert_eq!(read(vec![bytes("ab"), broken, Piece::End]).unwrap_err().to_string(), "stalled");
    }
}
