//! The sealed replicas that this node keeps for others: the folder `DATA/vault`.
//!
//! ```text
//! CONTENT.manifest   the content's manifest, as holders give it
//! CONTENT.sealed     all its sealed chunks, one after the other: whole, verified, and on the disk
//! CONTENT.part       the same in the making: each chunk at its place, the rest a hole
//! scrub              how far the check of the vault is
//! ```
//!
//! **A name is the proof.** A content's id is the hash of its manifest, and the manifest has the hash of every chunk, so
//! everything in here is checked without a key and without a database that could disagree with the disk. `.sealed` is
//! given by a rename after every chunk was verified and made durable, so a crash leaves the one state or the other. What
//! a `.part` has is found out by reading it: marks beside it would be claims that a power loss makes false.
//!
//! **What is read is checked again**, each time: a flipped byte is never handed out. A damaged replica is renamed back to
//! `.part`, which makes its sound chunks the beginning of its repair.
//!
//! No plaintext, no key and no name of a file gets in here; and no key is needed to fetch, keep, check or serve.
//!
//! [`ledger`] decides what is kept; [`Replica`] is a whole copy, [`Filling`] one in the making; [`scrub`] notes how far the
//! check of all of it is.

mod filling;
pub mod ledger;
mod replica;
pub mod scrub;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quarta_daemon::cause::{self, Plain};
use quarta_protocols::{
    content::{MANIFEST_MAX_BYTES, Manifest},
    ids::ContentId,
};
use rustix::fs::{AtFlags, Mode, OFlags};

pub use self::{filling::Filling, replica::Replica};
use crate::library::{beneath, staged};

/// The vault's folder below the data folder.
pub const FOLDER: &str = "vault";

/// Why the vault cannot be used. The text is "what: why; next step".
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The disk is full.
    #[error(
        "cannot keep a replica: the disk has {} free and {} are needed; make room or set a quota for the vault",
        bytesize::ByteSize(*free_bytes), bytesize::ByteSize(*needed_bytes)
    )]
    DiskFull {
        /// What the replica needs, in bytes.
        needed_bytes: u64,
        /// What there was, in bytes.
        free_bytes: u64,
    },
    /// The file system refused something.
    #[error("cannot {action} the vault: {}; {}", Plain(cause), cause::next_step(cause))]
    Disk {
        /// What was tried, e.g. `write to`.
        action: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// It was dropped meanwhile, or the node stops.
    #[error("the replica is not wanted any more; nothing needs to be done")]
    Unwanted,
}

impl VaultError {
    fn disk(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Disk { action, cause }
    }
}

/// A replica that lies in the folder when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The content.
    pub content: ContentId,
    /// The plaintext's size, in bytes.
    pub size_bytes: u64,
    /// Whether it is whole; else it is in the making.
    pub whole: bool,
}

/// What a file of the folder is of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Manifest,
    Sealed,
    Partial,
}

impl Part {
    const ALL: [Self; 3] = [Self::Sealed, Self::Partial, Self::Manifest];

    const fn ending(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Sealed => "sealed",
            Self::Partial => "part",
        }
    }

    fn name(self, content: &ContentId) -> String {
        format!("{content}.{}", self.ending())
    }

    /// What a file of this name is; none where it is nothing of the vault's.
    fn of(name: &OsStr) -> Option<(ContentId, Self)> {
        let (stem, ending) = name.to_str()?.split_once('.')?;
        let content: ContentId = stem.parse().ok()?;
        let part = Self::ALL.into_iter().find(|part| part.ending() == ending)?;
        // An id may be written in several ways; these files' names are not.
        (content.to_string() == stem).then_some((content, part))
    }
}

/// The open vault. Share it between threads; every method blocks on the disk.
#[derive(Debug)]
pub struct Vault {
    path: PathBuf,
    folder: Arc<OwnedFd>,
    /// Held while names in the folder change, so that no replica is finished while it is being removed.
    naming: Mutex<()>,
}

impl Vault {
    /// Opens the vault of a data folder, creating it where it is missing, and says what lies in it. Whatever is not a
    /// replica, or cannot be proven to be one, is removed.
    ///
    /// # Errors
    /// [`VaultError::Disk`], also where `vault` is a symbolic link.
    pub fn open(data: &Path) -> Result<(Self, Vec<Found>), VaultError> {
        let path = data.join(FOLDER);
        let opened = match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => File::open(data).and_then(|at| beneath::open_folder(at, FOLDER.as_ref())),
        };
        let folder = opened.map_err(VaultError::disk("open"))?;
        let private = fs::Permissions::from_mode(0o700);
        folder
            .try_clone()
            .and_then(|folder| File::from(folder).set_permissions(private))
            .map_err(VaultError::disk("protect"))?;
        let vault = Self { path, folder: Arc::new(folder), naming: Mutex::default() };
        let found = vault.look().map_err(VaultError::disk("read"))?;
        Ok((vault, found))
    }

    /// Where it lies, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn look(&self) -> io::Result<Vec<Found>> {
        let mut there: BTreeMap<ContentId, Vec<Part>> = BTreeMap::new();
        for name in beneath::names(&*self.folder)? {
            let name = name?;
            if let Some((content, part)) = Part::of(&name) {
                there.entry(content).or_default().push(part);
            } else if name != scrub::NAME {
                self.sweep(&name);
            }
        }
        Ok(there.into_iter().filter_map(|(content, parts)| self.found(content, &parts)).collect())
    }

    /// What there is of a content. What is of no use is removed.
    fn found(&self, content: ContentId, parts: &[Part]) -> Option<Found> {
        let Some(manifest) = self.manifest(&content) else {
            // Nothing proves what the rest is, and a new fetch brings it all.
            for part in parts {
                self.sweep(part.name(&content).as_ref());
            }
            return None;
        };
        let size_bytes = manifest.geometry().size_bytes();
        let found = |whole| Some(Found { content, size_bytes, whole });
        if parts.contains(&Part::Sealed) {
            if parts.contains(&Part::Partial) {
                self.sweep(Part::Partial.name(&content).as_ref());
            }
            let length = beneath::open_file(&*self.folder, Part::Sealed.name(&content).as_ref())
                .and_then(|file| Ok(file.metadata()?.len()));
            if length.is_ok_and(|length| length == manifest.geometry().sealed_bytes()) {
                return found(true);
            }
            // Cut off by whatever: it is repaired.
            return self.demote(&content).is_ok().then_some(found(false)).flatten();
        }
        if parts.contains(&Part::Partial) {
            return found(false);
        }
        self.sweep(Part::Manifest.name(&content).as_ref());
        None
    }

    fn sweep(&self, name: &OsStr) {
        if let Err(error) = staged::remove(&self.folder, name) {
            tracing::warn!(?name, %error, "something in the vault's folder could not be removed");
        }
    }

    /// The manifest that lies here, verified; none where there is none, or it is damaged.
    pub fn manifest(&self, content: &ContentId) -> Option<Manifest> {
        let file = beneath::open_file(&*self.folder, Part::Manifest.name(content).as_ref()).ok()?;
        let mut bytes = Vec::new();
        // One byte more than there can be, which then is not the content's.
        file.take(MANIFEST_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
        Manifest::verify(&bytes, content).ok()
    }

    /// Makes the manifest durable, unless it is there.
    fn keep_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let content = manifest.id();
        if self.manifest(&content).is_some() {
            return Ok(());
        }
        let (name, draft) = (Part::Manifest.name(&content), format!("{content}.draft"));
        staged::remove(&self.folder, draft.as_str())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(rustix::fs::openat(&*self.folder, draft.as_str(), flags, mode)?);
        file.write_all(&manifest.to_bytes())?;
        file.sync_all()?;
        Ok(rustix::fs::renameat(&*self.folder, draft.as_str(), &*self.folder, name.as_str())?)
    }

    /// Opens a whole replica for reading. The manifest is read from the disk too.
    ///
    /// # Errors
    /// As the file system has them; `InvalidData` where the manifest or the length is not the content's.
    pub fn replica(&self, content: &ContentId) -> io::Result<Replica> {
        let file = beneath::open_file(&*self.folder, Part::Sealed.name(content).as_ref())?;
        let damaged = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        let manifest = self.manifest(content).ok_or_else(|| damaged("its manifest is damaged"))?;
        if beneath::irregular(&file)?.is_some()
            || file.metadata()?.len() != manifest.geometry().sealed_bytes()
        {
            return Err(damaged("it has another length"));
        }
        Ok(Replica::new(file, manifest))
    }

    /// Makes a damaged replica one in the making, whose sound chunks need not be fetched again.
    ///
    /// # Errors
    /// As the file system has them; `NotFound` where it is gone.
    pub fn demote(&self, content: &ContentId) -> io::Result<()> {
        let _naming = self.naming();
        self.rename(content, Part::Sealed, Part::Partial)
    }

    /// Removes a replica, whole or not. One that is not there is no failure. Durable when it returns.
    ///
    /// # Errors
    /// As the file system has them; the next start finds what is left.
    pub fn remove(&self, content: &ContentId) -> io::Result<()> {
        let _naming = self.naming();
        for part in Part::ALL {
            staged::remove(&self.folder, part.name(content).as_str())?;
        }
        self.sync()
    }

    /// Space left on the disk that holds the vault, in bytes; 0 where it cannot be told.
    pub fn free_bytes(&self) -> u64 {
        rustix::fs::fstatvfs(&*self.folder).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rename(&self, content: &ContentId, from: Part, to: Part) -> io::Result<()> {
        let (from, to) = (from.name(content), to.name(content));
        rustix::fs::renameat(&*self.folder, from.as_str(), &*self.folder, to.as_str())?;
        self.sync()
    }

    /// Makes the names in the folder durable.
    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&*self.folder)?)
    }

    /// Whether a file of a content is there, without following or opening it.
    fn is_there(&self, content: &ContentId, part: Part) -> bool {
        let name = part.name(content);
        rustix::fs::statat(&*self.folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

#[cfg(test)]
mod tests;
