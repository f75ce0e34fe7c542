//! Chunks for others, sealed afresh from a plaintext file.
//!
//! **A chunk is compared with the manifest before a byte of it leaves.** Sealing is deterministic, so a file that was
//! edited in place would send a second plaintext under the same key and nonce, which gives both away; here such a chunk
//! is never handed out. The comparison is of what was read and sealed, in one buffer, so that it does not matter when
//! the file changes. Modification times are no substitute and are not looked at.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::StreamExt;
use quarta_daemon::cause::Plain;
use quarta_protocols::{
    content::{Cipher, Geometry, Manifest},
    messages::chunk::Abort,
};
use tokio::{sync::mpsc, task};

use crate::{
    download::chunk_set::ChunkSet,
    library::{Defect, Library, Place, Stamp},
    throttle::Throttle,
};

/// How many bytes one run reads ahead at most.
const AHEAD_BYTES: u64 = 2 * 1024 * 1024;
/// How many chunks one run reads ahead at most: enough to keep both a disk and a core busy.
const AHEAD_CHUNKS: u64 = 4;

/// The sealed chunks of one content, in this node's hands. Reading blocks on the disk.
pub trait Chunks: Send + Sync + 'static {
    /// How the content is cut.
    fn geometry(&self) -> Geometry;

    /// The chunks that can be read now.
    fn offers(&self) -> ChunkSet {
        ChunkSet::all(self.geometry().chunks())
    }

    /// One sealed chunk that is the manifest's.
    ///
    /// # Errors
    /// [`Abort::Changed`] where the disk has something else, [`Abort::Unreadable`] where it fails or there is no such
    /// chunk.
    fn read(&self, index: u32) -> Result<Bytes, Abort>;
}

/// One content that can be served from a plaintext file.
#[derive(Debug)]
pub struct Serving {
    file: File,
    cipher: Cipher,
    manifest: Manifest,
    /// The chunks that are here by now; none where that is all.
    arrived: Option<Arc<Mutex<ChunkSet>>>,
}

/// Why a copy is not opened.
#[derive(Debug, thiserror::Error)]
pub enum Unservable {
    /// It must stop being a source.
    #[error("the copy is {}", .0.as_str())]
    Defective(Defect),
    /// Nothing is wrong with it: this process has too many files open.
    #[error("{}", Plain(.0))]
    NotNow(io::Error),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All chunks were handed over.
    Complete,
    /// The receiver is gone: the other side cancelled, or its connection broke.
    Cancelled,
    /// It was broken off, and the receiver was told. After [`Abort::Changed`] and [`Abort::Unreadable`] the copy must
    /// stop being a source.
    Aborted(Abort),
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunReport {
    /// How it ended.
    pub end: RunEnd,
    /// Chunks handed over.
    pub chunks: u32,
    /// Sealed bytes handed over.
    pub bytes: u64,
}

impl Serving {
    /// Opens a copy for serving. Blocks on the disk.
    ///
    /// # Errors
    /// [`Unservable`].
    pub fn open(
        library: &Library,
        place: &Place,
        cipher: Cipher,
        manifest: Manifest,
    ) -> Result<Self, Unservable> {
        let unservable =
            |cause| Defect::of_failure(&cause).map_or(Unservable::NotNow(cause), Unservable::Defective);
        let file = library.open_file(place).map_err(unservable)?;
        let stamp = Stamp::of(&file).map_err(unservable)?;
        if stamp.size_bytes != manifest.geometry().size_bytes() {
            return Err(Unservable::Defective(Defect::Changed));
        }
        Ok(Self { file, cipher, manifest, arrived: None })
    }

    /// A file that is being fetched, of which the verified chunks can be served.
    pub(crate) const fn arriving(
        file: File,
        cipher: Cipher,
        manifest: Manifest,
        arrived: Arc<Mutex<ChunkSet>>,
    ) -> Self {
        Self { file, cipher, manifest, arrived: Some(arrived) }
    }

    /// How the content is cut.
    pub const fn geometry(&self) -> Geometry {
        self.manifest.geometry()
    }

    /// The content's manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads one chunk's plaintext, having compared what it seals to with the manifest. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Chunks::read`].
    pub fn read_plain(&self, index: u32) -> Result<Bytes, Abort> {
        let plain = self.read_unchecked(index)?;
        let mut sealed = Vec::with_capacity(self.geometry().sealed_len(index));
        sealed.extend_from_slice(&plain);
        self.cipher.seal(index, &mut sealed);
        self.manifest.check(index, &sealed).map_err(|_| Abort::Changed)?;
        Ok(Bytes::from(plain))
    }

    /// A chunk as it is on the disk, in a buffer with room for sealing it.
    fn read_unchecked(&self, index: u32) -> Result<Vec<u8>, Abort> {
        let geometry = self.geometry();
        if index >= geometry.chunks() {
            return Err(Abort::Unreadable);
        }
        let mut chunk = Vec::with_capacity(geometry.sealed_len(index));
        chunk.resize(geometry.plain_len(index), 0);
        self.file.read_exact_at(&mut chunk, geometry.offset(index)).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Abort::Changed,
            _ => Abort::Unreadable,
        })?;
        Ok(chunk)
    }
}

impl Chunks for Serving {
    fn geometry(&self) -> Geometry {
        self.manifest.geometry()
    }

    fn offers(&self) -> ChunkSet {
        let arrived =
            self.arrived.as_ref().map(|here| here.lock().unwrap_or_else(PoisonError::into_inner).clone());
        arrived.unwrap_or_else(|| ChunkSet::all(self.geometry().chunks()))
    }

    fn read(&self, index: u32) -> Result<Bytes, Abort> {
        let mut chunk = self.read_unchecked(index)?;
        self.cipher.seal(index, &mut chunk);
        self.manifest.check(index, &chunk).map_err(|_| Abort::Changed)?;
        Ok(Bytes::from(chunk))
    }
}

/// Hands `count` chunks from `first` on to `to`, in order, reading a few ahead on the blocking threads.
///
/// Ends early where the receiver is gone. Memory is bounded by the channel's capacity and by what is read ahead: at most 2 MiB, or one chunk.
/// Cancel-safe: when dropped, the reads under way end by themselves.
pub async fn stream_run<C: Chunks>(
    serving: Arc<C>,
    first: u32,
    count: u32,
    to: mpsc::Sender<Result<Bytes, Abort>>,
    limit: Option<Arc<Throttle>>,
) -> RunReport {
    let mut report = RunReport { end: RunEnd::Complete, chunks: 0, bytes: 0 };
    let read = |index| {
        let serving = Arc::clone(&serving);
        async move {
            // A blocking task is only cancelled when the runtime ends.
            task::spawn_blocking(move || serving.read(index)).await.unwrap_or(Err(Abort::Stopping))
        }
    };
    let run = first..first.saturating_add(count);
    let mut chunks = futures::stream::iter(run).map(read).buffered(ahead(serving.geometry()));
    let receiver = to.clone();
    let hand_over = async {
        while let Some(chunk) = chunks.next().await {
            let len = match &chunk {
                Ok(bytes) => bytes.len(),
                Err(_) => 0,
            };
            if let (Some(limit), true) = (&limit, len > 0) {
                limit.pass(len).await;
            }
            let failed = chunk.as_ref().err().copied();
            if to.send(chunk).await.is_err() {
                report.end = RunEnd::Cancelled;
                return;
            }
            if let Some(abort) = failed {
                report.end = RunEnd::Aborted(abort);
                return;
            }
            report.chunks += 1;
            report.bytes += len as u64;
        }
    };
    let cancelled = tokio::select! {
        biased;
        () = hand_over => false,
        // Noticed also while waiting for the disk or the limit.
        () = receiver.closed() => true,
    };
    if cancelled {
        report.end = RunEnd::Cancelled;
    }
    report
}

/// How many chunks a run reads ahead: bounded in bytes, so that large chunks do not multiply.
fn ahead(geometry: Geometry) -> usize {
    usize::try_from((AHEAD_BYTES / geometry.chunk_bytes()).clamp(1, AHEAD_CHUNKS)).unwrap_or(1)
}

#[cfg(test)]
mod tests;
