//! Files in the making: in `DATA/partial`, under random names, gone when dropped.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A file that is not in the library yet. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    folder: Arc<OwnedFd>,
    name: String,
    file: File,
    placed: bool,
}

/// How much space there is, and how much was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) needed_bytes: u64,
    pub(crate) free_bytes: u64,
}

impl Staged {
    pub(super) fn create(folder: &Arc<OwnedFd>) -> io::Result<Self> {
        let name = format!("{:032x}.part", rand::random::<u128>());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&**folder, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
        Ok(Self { folder: Arc::clone(folder), name, file, placed: false })
    }

    /// The open file, for reading and writing.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Reserves the file's whole space, so that a full disk is found now and not in the middle.
    ///
    /// Where the file system cannot reserve, the free space is compared at least.
    pub(crate) fn reserve(&self, size_bytes: u64) -> io::Result<Result<(), Shortage>> {
        if size_bytes == 0 {
            return Ok(Ok(()));
        }
        let disk = rustix::fs::fstatvfs(&self.file)?;
        let shortage =
            Shortage { needed_bytes: size_bytes, free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize) };
        if shortage.free_bytes < size_bytes {
            return Ok(Err(shortage));
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size_bytes) {
            Ok(()) => Ok(Ok(())),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Ok(Err(shortage)),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(size_bytes).map(Ok),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves the file to `name` in `to` unless something of that name is there (`AlreadyExists`).
    pub(super) fn place(&mut self, to: impl AsFd, name: &str) -> io::Result<()> {
        let here = self.name.as_str();
        match rustix::fs::renameat_with(&*self.folder, here, &to, name, RenameFlags::NOREPLACE) {
            // Some file systems have no such rename. A hard link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(&*self.folder, here, &to, name, AtFlags::empty())?;
                // What is left behind is swept away at the next start.
                let _ = rustix::fs::unlinkat(&*self.folder, here, AtFlags::empty());
            }
            other => other?,
        }
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing better can be done here; the next start sweeps the folder.
            let _ = rustix::fs::unlinkat(&*self.folder, self.name.as_str(), AtFlags::empty());
        }
    }
}
