//! Reading a file of the library, for this branch's own people.
//!
//! Through [`Serving`], which seals each chunk and compares it with the manifest: what a person downloads is what was
//! shared, or nothing. Sealing costs less than sending does.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use quarta_protocols::{
    audiences::AccessSecret,
    ids::FileId,
    messages::{chunk::Abort, inventory::Completeness},
    names::FileName,
    records::Record,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use crate::{
    library::Defect,
    serving::{Serving, Unservable},
};

/// Files read at once: each holds up to 2 MiB or one chunk, which keeps a node within its memory.
const READS_MAX: usize = 32;
/// Bytes that are read ahead of the receiver, unless one chunk is larger.
const AHEAD_BYTES: u64 = 1024 * 1024;

/// Bounds the files read at once.
pub(crate) struct Reads(Arc<Semaphore>);

impl Default for Reads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READS_MAX)))
    }
}

/// Why a file cannot be read here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is no complete copy of its present content.
    #[error("the file is not on this machine")]
    NotHere,
    /// As many as can be are being read.
    #[error("{READS_MAX} files are being read already")]
    Busy,
    /// Its copy is not what it was.
    #[error("the copy on this machine is {}", .0.as_str())]
    Defective(Defect),
    /// Nothing is wrong with it, and it cannot be opened now.
    #[error("{0}")]
    NotNow(Unservable),
    /// The database failed.
    #[error("the database could not be read: {0}")]
    Database(String),
}

/// A file of the library, open for reading.
pub(crate) struct Reading {
    shared: Arc<Shared>,
    file: FileId,
    name: FileName,
    media_type: Option<String>,
    tag: String,
    serving: Arc<Serving>,
    _slot: OwnedSemaphorePermit,
}

impl Reading {
    /// Opens the present content of a file.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) async fn open(shared: &Arc<Shared>, record: &Record) -> Result<Arc<Self>, OpenError> {
        let slot = shared.reads.0.clone().try_acquire_owned().map_err(|_| OpenError::Busy)?;
        let (blocking, record) = (shared.clone(), record.clone());
        let opened = tokio::task::spawn_blocking(move || open(blocking, record, slot)).await;
        match opened {
            Ok(result) => result.map(Arc::new),
            Err(error) => Err(OpenError::Database(error.to_string())),
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.serving.geometry().size_bytes()
    }

    pub(crate) const fn name(&self) -> &FileName {
        &self.name
    }

    pub(crate) fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref()
    }

    /// Names the content: its SHA-256, or the sealed content's id where that is not known.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// `count` bytes from `first`, both within the file, chunk by chunk. A copy that turns out to be changed stops being
    /// a source.
    pub(crate) fn pieces(
        self: &Arc<Self>,
        first: u64,
        count: u64,
    ) -> impl Stream<Item = Result<Bytes, Abort>> + Send + 'static {
        let chunk_bytes = self.serving.geometry().chunk_bytes();
        let end = first + count;
        let chunks =
            if count == 0 { 0..0 } else { index(first / chunk_bytes)..index((end - 1) / chunk_bytes) + 1 };
        let ahead = usize::try_from((AHEAD_BYTES / chunk_bytes).max(1)).unwrap_or(1);
        let reading = self.clone();
        stream::iter(chunks)
            .map(move |chunk| {
                let reading = reading.clone();
                async move { reading.piece(chunk, first, end).await }
            })
            .buffered(ahead)
    }

    /// The part of a chunk that lies between two places of the file.
    async fn piece(self: Arc<Self>, chunk: u32, first: u64, end: u64) -> Result<Bytes, Abort> {
        let serving = self.serving.clone();
        let read = tokio::task::spawn_blocking(move || serving.read_plain(chunk)).await;
        let plain = match read.unwrap_or(Err(Abort::Stopping)) {
            Ok(plain) => plain,
            Err(abort) => {
                if let Some(defect) = Defect::of_abort(abort) {
                    self.shared.lost_file(self.file, defect).await;
                }
                return Err(abort);
            }
        };
        let begin = self.serving.geometry().offset(chunk);
        let from = usize::try_from(first.saturating_sub(begin)).unwrap_or(usize::MAX).min(plain.len());
        let to = usize::try_from(end.saturating_sub(begin)).unwrap_or(usize::MAX).min(plain.len());
        Ok(plain.slice(from..to))
    }
}

fn open(shared: Arc<Shared>, record: Record, slot: OwnedSemaphorePermit) -> Result<Reading, OpenError> {
    let database = |e: crate::database::DatabaseError| OpenError::Database(e.to_string());
    let entry = record.entry().ok_or(OpenError::NotHere)?.clone();
    let AccessSecret { key, sha256, media_type } = shared.secret_of(&record).ok_or(OpenError::NotHere)?;
    let copy = shared.database.copy(&record.file()).map_err(database)?;
    let copy = copy
        .filter(|copy| copy.content == entry.content && copy.completeness == Completeness::Complete)
        .ok_or(OpenError::NotHere)?;
    let manifest = shared.database.manifest(&copy.content).map_err(database)?.ok_or(OpenError::NotHere)?;
    // A look tells of most edits at once; the chunks tell of the others.
    if !shared.is_sound(&copy) {
        let known = shared.defects.get(&copy.file).map(|known| known.defect);
        return Err(OpenError::Defective(known.unwrap_or(Defect::Changed)));
    }
    let opened = Serving::open(&shared.library, &copy.place, key.cipher(), manifest);
    let serving = opened.map_err(|unservable| match unservable {
        Unservable::Defective(defect) => {
            shared.lost(&copy, defect);
            OpenError::Defective(defect)
        }
        Unservable::NotNow(_) => OpenError::NotNow(unservable),
    })?;
    Ok(Reading {
        tag: sha256.to_string(),
        media_type,
        name: entry.name,
        serving: Arc::new(serving),
        file: copy.file,
        shared,
        _slot: slot,
    })
}

fn index(chunk: u64) -> u32 {
    u32::try_from(chunk).unwrap_or(u32::MAX)
}
