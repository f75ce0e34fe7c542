//! A whole sealed copy, open for reading.

use std::{fs::File, io, os::unix::fs::FileExt};

use bytes::Bytes;
use quarta_protocols::{
    content::{Geometry, Manifest},
    messages::chunk::Abort,
};

use crate::serving::Chunks;

/// A whole replica of the vault. What was removed meanwhile can be read until this is dropped.
#[derive(Debug)]
pub struct Replica {
    file: File,
    manifest: Manifest,
}

impl Replica {
    pub(super) const fn new(file: File, manifest: Manifest) -> Self {
        Self { file, manifest }
    }

    /// The content's manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// As [`Chunks::read`], from the disk itself and leaving nothing in the system's cache, where the system can do that:
    /// what is read seldom is not to push out what others read often.
    ///
    /// # Errors
    /// As there.
    pub fn read_from_disk(&self, index: u32) -> Result<Bytes, Abort> {
        self.uncache(index);
        let chunk = self.read(index);
        self.uncache(index);
        chunk
    }

    #[cfg(target_os = "linux")]
    fn uncache(&self, index: u32) {
        let geometry = self.manifest.geometry();
        let length = std::num::NonZeroU64::new(geometry.sealed_len(index) as u64);
        // Only advice: what the system makes of it does not matter here.
        let _ = rustix::fs::fadvise(
            &self.file,
            super::filling::offset(geometry, index),
            length,
            rustix::fs::Advice::DontNeed,
        );
    }

    #[cfg(not(target_os = "linux"))]
    fn uncache(&self, _index: u32) {}
}

impl Chunks for Replica {
    fn geometry(&self) -> Geometry {
        self.manifest.geometry()
    }

    fn read(&self, index: u32) -> Result<Bytes, Abort> {
        let geometry = self.manifest.geometry();
        if index >= geometry.chunks() {
            return Err(Abort::Unreadable);
        }
        let mut sealed = vec![0; geometry.sealed_len(index)];
        self.file.read_exact_at(&mut sealed, super::filling::offset(geometry, index)).map_err(|error| {
            match error.kind() {
                io::ErrorKind::UnexpectedEof => Abort::Changed,
                _ => Abort::Unreadable,
            }
        })?;
        self.manifest.check(index, &sealed).map_err(|_| Abort::Changed)?;
        Ok(Bytes::from(sealed))
    }
}
