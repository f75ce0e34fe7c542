//! The catalog off the event loop: one thread writes, a few connections read.
//!
//! SQLite blocks; the service must not. Writes are closures that one thread runs one after the other, which is also
//! what makes "exactly one of many concurrent redemptions wins" true. Reads run on tokio's blocking threads, each with
//! a connection of its own, and never wait for a write.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::catalog::{Catalog, CatalogError, Reader};

/// Writes waiting for the thread; more make their requesters wait.
const WRITES_WAITING: usize = 256;
/// Reading connections: more than the cores that a super-peer usually has for them bring nothing.
const READERS: usize = 4;

/// Why the store has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The service is stopping, or the writing thread has ended.
    #[error("the catalog is closed")]
    Closed,
}

type Write = Box<dyn FnOnce(&mut Catalog) + Send>;

/// A handle on the catalog.
#[derive(Clone)]
pub struct Store {
    writes: mpsc::Sender<Write>,
    readers: Arc<Mutex<Vec<Reader>>>,
    free_readers: Arc<Semaphore>,
    sequence: watch::Receiver<u64>,
}

impl Store {
    /// Starts the writing thread over an open catalog. It ends when the last handle is gone.
    ///
    /// # Errors
    /// [`StoreError`] where the reading connections cannot be opened or the thread cannot be started.
    pub fn start(mut catalog: Catalog) -> Result<Self, StoreError> {
        let readers = (0..READERS).map(|_| catalog.reader()).collect::<Result<Vec<_>, _>>()?;
        let (writes, mut waiting) = mpsc::channel::<Write>(WRITES_WAITING);
        let (moved, sequence) = watch::channel(catalog.sequence());
        std::thread::Builder::new()
            .name("catalog".to_owned())
            .spawn(move || {
                while let Some(write) = waiting.blocking_recv() {
                    write(&mut catalog);
                    let now = catalog.sequence();
                    moved.send_if_modified(|before| std::mem::replace(before, now) != now);
                }
            })
            .map_err(|_| StoreError::Closed)?;
        let free_readers = Arc::new(Semaphore::new(readers.len()));
        Ok(Self { writes, readers: Arc::new(Mutex::new(readers)), free_readers, sequence })
    }

    /// The number of the catalog's latest change, as of the last write that has ended: what it says is committed.
    pub fn sequence(&self) -> watch::Receiver<u64> {
        self.sequence.clone()
    }

    /// Runs a write on the catalog's thread. Once it has begun it is carried out, also when this future is dropped.
    ///
    /// # Errors
    /// [`StoreError::Closed`]; what the closure returns is its own.
    pub async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Catalog) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let write: Write = Box::new(move |catalog| {
            let _ = sender.send(write(catalog));
        });
        self.writes.send(write).await.map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Closed)
    }

    /// Runs a read on a blocking thread, with a connection of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = self.free_readers.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = self.readers.clone();
        let result = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let lock = || readers.lock().unwrap_or_else(PoisonError::into_inner);
            let reader = lock().pop()?;
            let result = read(&reader);
            lock().push(reader);
            Some(result)
        })
        .await;
        match result {
            Ok(Some(result)) => Ok(result?),
            _ => Err(StoreError::Closed),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}
