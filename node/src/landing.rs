//! A file on its way in: chunks arrive from several sources in any order and become a file of the library.
//!
//! Each sealed chunk is checked against the manifest before it is opened, and written where it belongs; several threads
//! write at once. While the beginning of the file grows, a follower hashes it, so that at the end the whole file's
//! SHA-256 is known without reading it again. Only a file whose SHA-256 is the record's gets into the library.
//!
//! The follower runs inside the writers: whoever finds it idle takes it a few chunks further, from the buffer just
//! opened where chunks come in order, else from the page cache. So it needs no thread and no memory of its own, and no
//! writer ever waits for it.
//!
//! **What has arrived outlasts this process** (`library::Partial`), and is not believed when it is found again: beginning
//! a landing reads back every chunk that is claimed to be here, seals it as a source would, and compares it with the
//! manifest. The same pass feeds the follower. So neither a power loss nor a flipped bit nor a curious hand in the
//! partial file can bring a wrong byte in, and no chunk needs a flush of its own.

use std::{
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quarta_protocols::{
    content::{Cipher, ContentError, ContentKey, Manifest},
    ids::Sha256,
    names::{FileName, MemberName},
};
use sha2::Digest;

use crate::{
    download::chunk_set::ChunkSet,
    library::{Library, LibraryError, LibraryPath, Partial, PartialName, Stamp, writeback::Writeback},
    serving::Serving,
};

/// How many chunks one writer takes the follower further at most, so that no writer is kept from its source for long.
const FOLLOW_CHUNKS: u32 = 8;

/// Why a chunk is not kept or a file not finished.
#[derive(Debug, thiserror::Error)]
pub enum LandingError {
    /// The bytes are not that chunk of this content: the source is at fault.
    #[error("chunk {0} differs from the manifest")]
    BadChunk(u32),
    /// The content has no such chunk: the caller is at fault.
    #[error("the content has no chunk {0}")]
    NoSuchChunk(u32),
    /// The chunk is as the manifest says, and the key does not open it: the record is at fault.
    #[error("the file cannot be opened with the key in its record; its owner must update it")]
    WrongKey,
    /// The whole file is not what the record says, though every chunk is: the record is at fault.
    #[error("the file's checksum is {found}, its record says {expected}; its owner must update it")]
    OtherChecksum {
        /// What the record says.
        expected: Sha256,
        /// What the chunks make.
        found: Sha256,
    },
    /// Finished too early.
    #[error("{0} chunks are missing")]
    Incomplete(u32),
    /// The file could not be written.
    #[error("cannot write the file: {0}; check the disk and try again")]
    Write(#[source] io::Error),
    /// It was told to stop while it read back what is here.
    #[error("it was stopped")]
    Stopped,
    /// The library cannot take it; a full disk shows here, before the first byte is fetched.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// It is here now.
    New,
    /// It was here already, from this or another source.
    Known,
}

/// A fetched file in the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// Where it lies.
    pub path: LibraryPath,
    /// Its size and modification time.
    pub stamp: Stamp,
}

/// A file on its way in. Dropping it leaves what has arrived for the next attempt.
#[derive(Debug)]
pub struct Landing {
    name: PartialName,
    partial: Partial,
    manifest: Manifest,
    cipher: Cipher,
    expected: Sha256,
    /// Shared with those who serve it meanwhile.
    verified: Arc<Mutex<ChunkSet>>,
    follower: Mutex<Follower>,
}

/// Hashes the contiguous beginning of the file.
#[derive(Debug, Default)]
struct Follower {
    hash: sha2::Sha256,
    next: u32,
    /// What is read back, one chunk at a time.
    buffer: Vec<u8>,
    writeback: Writeback,
}

impl Landing {
    /// Begins a file in `DATA/partial` and reserves its space, or goes on with what an earlier attempt left there. The
    /// content's name in `name` is the manifest's. `goes_on` is asked once for each chunk that is read back.
    ///
    /// # Errors
    /// [`LandingError::Library`] where the disk is full or refuses, [`LandingError::Stopped`]. What was there stays.
    pub fn begin(
        library: &Library,
        name: PartialName,
        manifest: Manifest,
        key: &ContentKey,
        expected: Sha256,
        goes_on: impl Fn() -> bool,
    ) -> Result<Self, LandingError> {
        let chunks = manifest.geometry().chunks();
        let landing = Self {
            name,
            partial: library.open_partial(&name, &manifest)?,
            cipher: key.cipher(),
            expected,
            verified: Arc::new(Mutex::new(ChunkSet::none(chunks))),
            follower: Mutex::new(Follower::default()),
            manifest,
        };
        landing.read_back(&goes_on)?;
        if landing.partial.was_placed() && !landing.verified_set().is_full() {
            // It lies in the library under another name too, where somebody has changed it: that one stays as it is.
            let Self { partial, manifest, .. } = landing;
            library.discard_open(partial, &name);
            return Self::begin(library, name, manifest, key, expected, goes_on);
        }
        let here = landing.verified();
        landing.partial.mark_all(&here).map_err(LandingError::Write)?;
        Ok(landing)
    }

    /// Verifies the chunks that are claimed to be here.
    fn read_back(&self, goes_on: &impl Fn() -> bool) -> Result<(), LandingError> {
        let geometry = self.manifest.geometry();
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plain = Vec::new();
        let mut sealed = Vec::new();
        for index in self.partial.claimed().iter() {
            if !goes_on() {
                return Err(LandingError::Stopped);
            }
            plain.resize(geometry.plain_len(index), 0);
            // What cannot be read is missing: writing it anew may well succeed.
            if self.partial.file().read_exact_at(&mut plain, geometry.offset(index)).is_err() {
                continue;
            }
            sealed.clear();
            sealed.extend_from_slice(&plain);
            self.cipher.seal(index, &mut sealed);
            if self.manifest.check(index, &sealed).is_ok() {
                self.verified_set().insert(index);
                if index == follower.next {
                    follower.hash.update(&plain);
                    follower.next += 1;
                }
            }
        }
        Ok(())
    }

    /// What has arrived, for serving it to others while more of it arrives. Of use also after the file has got to its
    /// place.
    ///
    /// # Errors
    /// Where the system has no open file to spare.
    pub fn serving(&self, key: &ContentKey) -> io::Result<Serving> {
        let file = self.partial.file().try_clone()?;
        Ok(Serving::arriving(file, key.cipher(), self.manifest.clone(), Arc::clone(&self.verified)))
    }

    /// The manifest of what arrives.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The chunks that are here and verified.
    pub fn verified(&self) -> ChunkSet {
        self.verified_set().clone()
    }

    /// Checks, opens and writes one chunk. Blocks on the disk; may be called by several threads at once.
    ///
    /// # Errors
    /// [`LandingError::BadChunk`], [`LandingError::NoSuchChunk`], [`LandingError::WrongKey`] or
    /// [`LandingError::Write`]; nothing is kept of the chunk then.
    pub fn write(&self, index: u32, mut sealed: Vec<u8>) -> Result<Wrote, LandingError> {
        self.manifest.check(index, &sealed).map_err(at_fault)?;
        if self.verified_set().contains(index) {
            return Ok(Wrote::Known);
        }
        let plain = self.cipher.open(index, &mut sealed).map_err(at_fault)?;
        let offset = self.manifest.geometry().offset(index);
        self.partial.file().write_all_at(plain, offset).map_err(LandingError::Write)?;
        // Two threads with the same chunk have written the same bytes.
        let new = {
            let mut verified = self.verified_set();
            let new = verified.insert(index);
            // Under the lock: of two marks in one byte the later has both.
            self.partial.mark(index, &verified);
            new
        };
        if let Ok(mut follower) = self.follower.try_lock() {
            self.follow(&mut follower, Some((index, plain)), FOLLOW_CHUNKS)?;
        }
        Ok(if new { Wrote::New } else { Wrote::Known })
    }

    /// Checks the whole file's SHA-256, makes it durable and puts it at `<owner>/<name>` in the library. Doing it twice
    /// gives the same place. Until [`Landing::settle`] the data stays here too.
    ///
    /// # Errors
    /// [`LandingError::Incomplete`], [`LandingError::OtherChecksum`], [`LandingError::Write`] or
    /// [`LandingError::Library`]; what has arrived stays.
    pub fn finish(
        &mut self,
        library: &Library,
        owner: &MemberName,
        name: &FileName,
    ) -> Result<Landed, LandingError> {
        self.check()?;
        let stamp = Stamp::of(self.partial.file()).map_err(LandingError::Write)?;
        let path = library.place_fetched(self.partial.staged(), owner, name, &self.name.file)?;
        Ok(Landed { path, stamp })
    }

    /// Checks the whole file's SHA-256.
    ///
    /// # Errors
    /// [`LandingError::Incomplete`], [`LandingError::OtherChecksum`] or [`LandingError::Write`].
    pub fn check(&self) -> Result<(), LandingError> {
        let missing = {
            let verified = self.verified_set();
            verified.chunks() - verified.count()
        };
        if missing > 0 {
            return Err(LandingError::Incomplete(missing));
        }
        let found = {
            let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
            self.follow(&mut follower, None, u32::MAX)?;
            Sha256::from_bytes(follower.hash.clone().finalize().into())
        };
        if found != self.expected {
            return Err(LandingError::OtherChecksum { expected: self.expected, found });
        }
        Ok(())
    }

    /// Removes the partial data: the file is in the library and noted there, or given up.
    pub fn settle(self, library: &Library) {
        library.discard_open(self.partial, &self.name);
    }

    /// Takes the follower at most `most` chunks further.
    fn follow(
        &self,
        follower: &mut Follower,
        at_hand: Option<(u32, &[u8])>,
        most: u32,
    ) -> Result<(), LandingError> {
        let geometry = self.manifest.geometry();
        for _ in 0..most {
            let next = follower.next;
            if !self.verified_set().contains(next) {
                break;
            }
            match at_hand {
                Some((index, plain)) if index == next => follower.hash.update(plain),
                _ => {
                    follower.buffer.resize(geometry.plain_len(next), 0);
                    let file = self.partial.file();
                    file.read_exact_at(&mut follower.buffer, geometry.offset(next))
                        .map_err(LandingError::Write)?;
                    follower.hash.update(&follower.buffer);
                }
            }
            follower.next += 1;
        }
        follower.writeback.reached(self.partial.file(), geometry.offset(follower.next));
        Ok(())
    }

    fn verified_set(&self) -> MutexGuard<'_, ChunkSet> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn at_fault(error: ContentError) -> LandingError {
    match error {
        ContentError::NoSuchChunk(index) => LandingError::NoSuchChunk(index),
        ContentError::OtherChunk(index) => LandingError::BadChunk(index),
        ContentError::WrongKey(_) | ContentError::MalformedManifest | ContentError::OtherManifest => {
            LandingError::WrongKey
        }
    }
}

#[cfg(test)]
mod tests;
