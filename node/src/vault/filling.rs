//! A sealed copy in the making: chunks arrive in any order and are written where they belong, as they are.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quarta_protocols::content::{Geometry, Manifest};

use super::{Part, Vault, VaultError, staged};
use crate::download::chunk_set::ChunkSet;

/// Where a sealed chunk lies, in bytes: each before it has a tag.
pub(super) fn offset(geometry: Geometry, index: u32) -> u64 {
    let tag = geometry.sealed_len(0) - geometry.plain_len(0);
    geometry.offset(index) + u64::from(index) * tag as u64
}

/// A replica in the making. Dropping it leaves what has arrived for the next attempt.
#[derive(Debug)]
pub struct Filling {
    vault: Arc<Vault>,
    file: File,
    manifest: Manifest,
    verified: Mutex<ChunkSet>,
}

impl Filling {
    /// Begins a replica and reserves its space, or goes on with what is here, of which every chunk is read and checked.
    /// `is_wanted` is asked before anything is made and again for each chunk that is read.
    ///
    /// # Errors
    /// [`VaultError::DiskFull`], [`VaultError::Disk`], [`VaultError::Unwanted`]; what was there stays.
    pub fn begin(
        vault: &Arc<Vault>,
        manifest: Manifest,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Self, VaultError> {
        let geometry = manifest.geometry();
        let file = {
            let _naming = vault.naming();
            if !is_wanted() {
                return Err(VaultError::Unwanted);
            }
            let failed = VaultError::disk("write to");
            vault.keep_manifest(&manifest).and_then(|()| open(vault, &manifest)).map_err(failed)?
        };
        let sealed_bytes = geometry.sealed_bytes();
        let length = file.metadata().map_err(VaultError::disk("look into"))?.len();
        if length > sealed_bytes {
            file.set_len(sealed_bytes).map_err(VaultError::disk("write to"))?;
        }
        match staged::reserve(&file, sealed_bytes).map_err(VaultError::disk("reserve space in"))? {
            Ok(()) => {}
            Err(staged::Shortage { needed_bytes, free_bytes }) => {
                return Err(VaultError::DiskFull { needed_bytes, free_bytes });
            }
        }
        let verified = ChunkSet::none(geometry.chunks());
        let filling = Self { vault: Arc::clone(vault), file, manifest, verified: Mutex::new(verified) };
        if length > 0 {
            filling.read_back(&is_wanted)?;
        }
        Ok(filling)
    }

    /// Finds out which chunks are here.
    fn read_back(&self, is_wanted: &impl Fn() -> bool) -> Result<(), VaultError> {
        let geometry = self.manifest.geometry();
        let mut sealed = Vec::new();
        for index in 0..geometry.chunks() {
            if !is_wanted() {
                return Err(VaultError::Unwanted);
            }
            sealed.resize(geometry.sealed_len(index), 0);
            // What cannot be read is missing: writing it anew may well succeed.
            let read = self.file.read_exact_at(&mut sealed, offset(geometry, index));
            if read.is_ok() && self.manifest.check(index, &sealed).is_ok() {
                self.verified_set().insert(index);
            }
        }
        Ok(())
    }

    /// The content's manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The chunks that are here and verified.
    pub fn verified(&self) -> ChunkSet {
        self.verified_set().clone()
    }

    /// Checks and writes one sealed chunk; `false` where it is not the manifest's. May be called by several threads at
    /// once. Blocks on the disk.
    ///
    /// # Errors
    /// [`VaultError::Disk`].
    pub fn write(&self, index: u32, sealed: &[u8]) -> Result<bool, VaultError> {
        if self.manifest.check(index, sealed).is_err() {
            return Ok(false);
        }
        let at = offset(self.manifest.geometry(), index);
        self.file.write_all_at(sealed, at).map_err(VaultError::disk("write to"))?;
        self.verified_set().insert(index);
        Ok(true)
    }

    /// Makes it durable and a whole replica, unless it is not wanted any more. Blocks on the disk.
    ///
    /// # Errors
    /// [`VaultError::Disk`], also where chunks are missing; [`VaultError::Unwanted`].
    pub fn finish(&self, is_wanted: impl Fn() -> bool) -> Result<(), VaultError> {
        if !self.verified_set().is_full() {
            let cause = std::io::Error::other("chunks are missing");
            return Err(VaultError::Disk { action: "finish a replica in", cause });
        }
        self.file.sync_all().map_err(VaultError::disk("write to"))?;
        let _naming = self.vault.naming();
        if !is_wanted() {
            return Err(VaultError::Unwanted);
        }
        let content = self.manifest.id();
        match self.vault.rename(&content, Part::Partial, Part::Sealed) {
            // An earlier attempt has just done it.
            Err(_) if self.vault.is_there(&content, Part::Sealed) => Ok(()),
            other => other.map_err(VaultError::disk("write to")),
        }
    }

    fn verified_set(&self) -> MutexGuard<'_, ChunkSet> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(vault: &Vault, manifest: &Manifest) -> std::io::Result<File> {
    let name = Part::Partial.name(&manifest.id());
    let opened = staged::open_regular(&vault.folder, &name)?;
    opened
        .or(staged::open_regular(&vault.folder, &name)?)
        .ok_or_else(|| std::io::Error::other("something else keeps taking its place"))
}
