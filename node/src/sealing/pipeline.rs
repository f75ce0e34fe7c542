//! Reading and hashing on one thread, writing and sealing on another, with a fixed number of buffers between them.
//!
//! SHA-256 is sequential and the slowest step; with reading it fills one core. The other thread writes the copy, seals
//! and hashes the sealed chunk. The buffers go round, so memory is what [`buffers`] says, however large the file.

use std::{fs::File, io, os::unix::fs::FileExt, sync::mpsc, thread};

use quarta_protocols::{
    content::{ChunkHash, ContentKey, Geometry, Manifest, TAG_BYTES, chunk_hash},
    ids::Sha256,
};
use sha2::Digest;

use crate::library::writeback::Writeback;

/// What all buffers may hold together, for chunks that fit in several times.
const BUFFERS_BYTES: u64 = 8 * 1024 * 1024;
/// Buffers at the usual chunk size: enough that neither thread waits for the other's every hiccup.
const BUFFERS_MAX: u64 = 8;
/// With fewer the threads would take turns.
const BUFFERS_MIN: u64 = 2;

/// A sealed content.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) manifest: Manifest,
    pub(super) key: ContentKey,
    pub(super) sha256: Sha256,
}

/// Which side failed.
#[derive(Debug)]
pub(super) enum SealError {
    Read(io::Error),
    Write(io::Error),
}

/// How many buffers go round.
#[allow(clippy::cast_possible_truncation, reason = "at most BUFFERS_MAX")]
fn buffers(geometry: Geometry) -> usize {
    (BUFFERS_BYTES / geometry.chunk_bytes()).clamp(BUFFERS_MIN, BUFFERS_MAX) as usize
}

/// Seals a file of a known size; writes what it reads to `copy` where there is one. Tells `progress` how many bytes were
/// read, after each chunk.
pub(super) fn seal(
    key: ContentKey,
    source: &File,
    copy: Option<&File>,
    geometry: Geometry,
    progress: &mut dyn FnMut(u64),
) -> Result<Product, SealError> {
    let cipher = key.cipher();
    let count = buffers(geometry);
    let (filled, to_seal) = mpsc::sync_channel::<Vec<u8>>(count);
    let (emptied, to_fill) = mpsc::sync_channel::<Vec<u8>>(count);
    let (hash, hashes) = thread::scope(|scope| {
        let sealer = scope.spawn(move || -> io::Result<Vec<ChunkHash>> {
            let mut hashes = Vec::with_capacity(geometry.chunks() as usize);
            let mut writeback = Writeback::default();
            for (index, mut chunk) in (0u32..).zip(to_seal) {
                if let Some(copy) = copy {
                    copy.write_all_at(&chunk, geometry.offset(index))?;
                    writeback.reached(copy, geometry.offset(index + 1));
                }
                cipher.seal(index, &mut chunk);
                hashes.push(chunk_hash(&chunk));
                // After the last chunk nobody takes it.
                let _ = emptied.send(chunk);
            }
            Ok(hashes)
        });
        let read = read(source, geometry, count, filled, to_fill, progress);
        let hashes = match sealer.join() {
            Ok(hashes) => hashes.map_err(SealError::Write),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // Where the sealer failed, the reader has only stopped.
        hashes.and_then(|hashes| Ok((read.map_err(SealError::Read)?, hashes)))
    })?;
    let manifest = Manifest::new(geometry, hashes).expect("every chunk was read and sealed");
    Ok(Product { manifest, key, sha256: hash })
}

/// Reads and hashes all chunks; stops early where nobody seals them any more.
fn read(
    source: &File,
    geometry: Geometry,
    buffers: usize,
    filled: mpsc::SyncSender<Vec<u8>>,
    to_fill: mpsc::Receiver<Vec<u8>>,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    let mut fresh = (0..buffers).map(|_| Vec::with_capacity(geometry.sealed_len(0).max(TAG_BYTES)));
    for index in 0..geometry.chunks() {
        let Some(mut chunk) = fresh.next().or_else(|| to_fill.recv().ok()) else { break };
        chunk.resize(geometry.plain_len(index), 0);
        source.read_exact_at(&mut chunk, geometry.offset(index))?;
        hash.update(&chunk);
        progress(geometry.offset(index) + chunk.len() as u64);
        if filled.send(chunk).is_err() {
            break;
        }
    }
    Ok(Sha256::from_bytes(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use quarta_protocols::content::{CHUNK_MAX_BYTES, FILE_MAX_BYTES};

    use super::*;

    #[test]
    fn memory_is_bounded_whatever_the_size_of_the_file() {
        for size in [0, 1, 1 << 20, 1 << 30, 8 << 30, 64 << 30, 256 << 30] {
            let geometry = Geometry::for_size(size).unwrap();
            let held = buffers(geometry) as u64 * geometry.chunk_bytes();
            assert!(held <= 16 << 20, "{held} bytes for a file of {size}");
        }
        let largest = Geometry::for_size(FILE_MAX_BYTES).unwrap();
        assert_eq!(buffers(largest) as u64 * largest.chunk_bytes(), 2 * CHUNK_MAX_BYTES);
    }
}
