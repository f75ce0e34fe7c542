//! How a fetcher tells a holder that it does not want the rest.
//!
//! Closing the stream does not: libp2p's request-response closes its half after the request, and yamux (0.14) sends no
//! reset for a stream that is dropped half-closed, so the holder would write on until the window is full and then wait
//! for its own timeout with an upload slot taken. Hence each transfer has an id, and the one that drops a body sends
//! that id with an empty request on a stream of its own.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Names one transfer, drawn at random by the fetcher: nobody else can cancel it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::network) struct TransferId([u8; 16]);

impl TransferId {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    pub(super) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(super) const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// The transfer is not wanted any more, inside the [`io::Error`] that libp2p carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiver does not want it any more")]
pub(in crate::network) struct Cancelled(pub(in crate::network) TransferId);

impl Cancelled {
    /// The cancelled transfer inside an I/O error, if that is what it is.
    pub(in crate::network) fn within(error: &io::Error) -> Option<TransferId> {
        error.get_ref()?.downcast_ref::<Self>().map(|cancelled| cancelled.0)
    }
}

impl From<Cancelled> for io::Error {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, cancelled)
    }
}

/// The transfers that this member is serving. As many as there are streams, which are bounded.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancels(Arc<Mutex<HashMap<TransferId, oneshot::Sender<()>>>>);

impl Cancels {
    fn table(&self) -> MutexGuard<'_, HashMap<TransferId, oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a transfer while the ticket lives.
    ///
    /// # Errors
    /// For an id that is in use: a repetition, since ids are random.
    pub(super) fn enter(&self, id: TransferId) -> io::Result<Ticket> {
        let mut table = self.table();
        if table.contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (sender, cancelled) = oneshot::channel();
        table.insert(id, sender);
        drop(table);
        Ok(Ticket { id, cancels: self.clone(), cancelled })
    }

    /// Ends a transfer; one that is not known has ended already.
    pub(super) fn cancel(&self, id: TransferId) {
        if let Some(sender) = self.table().remove(&id) {
            // A transfer that has just ended needs no telling.
            let _ = sender.send(());
        }
    }
}

/// A transfer being served.
#[derive(Debug)]
pub(super) struct Ticket {
    id: TransferId,
    cancels: Cancels,
    cancelled: oneshot::Receiver<()>,
}

impl Ticket {
    /// Resolves when the fetcher has cancelled.
    pub(super) async fn cancelled(&mut self) -> Cancelled {
        // The sender lives in the table until it is used.
        let _ = (&mut self.cancelled).await;
        Cancelled(self.id)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancels.table().remove(&self.id);
    }
}
