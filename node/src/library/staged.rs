//! Files in the making, in `DATA/partial`: either gone when dropped, or lasting until they are discarded.
//!
//! A passing file has a random name and moves into the library by a rename. A lasting one has a name that a later run
//! of the daemon finds again, and gets into the library by a *hard link*: until it is discarded it has both names. So
//! whoever is killed between the link and noting it in the database finds, the next time, the file that was placed
//! already ([`Staged::is_at`]) instead of placing a second one.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::Arc,
};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::beneath;

/// The bytes that `st_blocks` counts by, on every system.
const BLOCK_BYTES: u64 = 512;
/// How often opening is tried anew where the file goes meanwhile, or something else lies in its place.
const OPEN_TRIES: u32 = 3;

/// A file that is not in the library yet.
#[derive(Debug)]
pub struct Staged {
    folder: Arc<OwnedFd>,
    name: String,
    file: File,
    /// Whether dropping it leaves its name.
    stays: bool,
    origin: Origin,
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Passing,
    Lasting,
    /// It was in the library before, and goes back there or stays where it is.
    Trash,
}

/// How much space there is, and how much was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) needed_bytes: u64,
    pub(crate) free_bytes: u64,
}

impl Staged {
    /// A passing file.
    pub(super) fn create(folder: &Arc<OwnedFd>) -> io::Result<Self> {
        let name = format!("{:032x}.part", rand::random::<u128>());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&**folder, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
        Ok(Self { folder: Arc::clone(folder), name, file, stays: false, origin: Origin::Passing })
    }

    /// A lasting file, as it was left or new. Whoever opens it has it alone: this waits until every other
    /// [`Staged`] of the name is dropped. What lies there and is no regular file is removed, never followed.
    pub(super) fn open_lasting(folder: &Arc<OwnedFd>, name: &str) -> io::Result<Self> {
        for _ in 0..OPEN_TRIES {
            let Some(file) = open_regular(folder, name)? else { continue };
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                // Some network file systems have no locks.
                Ok(()) | Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
            // Whoever had it may have discarded it meanwhile.
            if file.metadata()?.nlink() > 0 {
                let name = name.to_owned();
                return Ok(Self {
                    folder: Arc::clone(folder),
                    name,
                    file,
                    stays: true,
                    origin: Origin::Lasting,
                });
            }
        }
        Err(io::Error::other("something else keeps taking its place"))
    }

    /// A file of the trash, on its way back: it stays there until it is placed.
    pub(super) fn of_trash(folder: &Arc<OwnedFd>, name: String, file: File) -> Self {
        Self { folder: Arc::clone(folder), name, file, stays: true, origin: Origin::Trash }
    }

    /// The open file, for reading and writing.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Whether it has another name than its own here: it was placed already.
    pub(crate) fn is_linked(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 1)
    }

    /// Reserves the file's whole space, so that a full disk is found now and not in the middle. What it has already
    /// counts.
    ///
    /// Where the file system cannot reserve, the free space is compared at least.
    pub(crate) fn reserve(&self, size_bytes: u64) -> io::Result<Result<(), Shortage>> {
        reserve(&self.file, size_bytes)
    }

    /// Gives the file the name `name` in `to` unless something of that name is there (`AlreadyExists`).
    pub(super) fn place(&mut self, to: impl AsFd, name: &str) -> io::Result<()> {
        let here = self.name.as_str();
        let link = || rustix::fs::linkat(&*self.folder, here, &to, name, AtFlags::empty());
        let rename = || rustix::fs::renameat_with(&*self.folder, here, &to, name, RenameFlags::NOREPLACE);
        if self.origin == Origin::Lasting {
            match link() {
                // Some file systems have no hard links. A rename never replaces either.
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => rename()?,
                other => other?,
            }
            return Ok(());
        }
        match rename() {
            // Some file systems have no such rename. A hard link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                link()?;
                // What is left behind is swept away at the next start.
                let _ = rustix::fs::unlinkat(&*self.folder, here, AtFlags::empty());
            }
            other => other?,
        }
        self.stays = true;
        Ok(())
    }

    /// Undoes what [`Staged::place`] did, where it turns out that it may not last.
    pub(super) fn take_back(&self, at: impl AsFd, name: &str) {
        // Nothing better can be done where this fails too.
        let _ = match self.origin {
            Origin::Trash => rustix::fs::renameat(at, name, &*self.folder, self.name.as_str()),
            Origin::Passing | Origin::Lasting => rustix::fs::unlinkat(at, name, AtFlags::empty()),
        };
    }

    /// Whether `name` in `at` is this very file, placed before.
    pub(super) fn is_at(&self, at: impl AsFd, name: &str) -> io::Result<bool> {
        if self.origin != Origin::Lasting {
            return Ok(false);
        }
        match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => {
                let here = rustix::fs::fstat(&self.file)?;
                Ok((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes its name here. One that was placed stays in the library.
    pub(super) fn discard(mut self) {
        self.stays = false;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.stays {
            // Nothing better can be done here; the next start sweeps the folder.
            let _ = rustix::fs::unlinkat(&*self.folder, self.name.as_str(), AtFlags::empty());
        }
    }
}

/// Reserves a file's whole space, as [`Staged::reserve`] does.
pub(crate) fn reserve(file: &File, size_bytes: u64) -> io::Result<Result<(), Shortage>> {
    if size_bytes == 0 {
        return Ok(Ok(()));
    }
    let needed_bytes = size_bytes.saturating_sub(file.metadata()?.blocks() * BLOCK_BYTES);
    let disk = rustix::fs::fstatvfs(file)?;
    let shortage = Shortage { needed_bytes, free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize) };
    if shortage.free_bytes < needed_bytes {
        return Ok(Err(shortage));
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => Ok(Ok(())),
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Ok(Err(shortage)),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size_bytes).map(Ok),
        Err(error) => Err(error.into()),
    }
}

/// Opens or makes a regular file; none where something else was in its place, which is gone now.
pub(crate) fn open_regular(folder: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => {
            let file = File::from(file);
            if beneath::irregular(&file)?.is_none() {
                return Ok(Some(file));
            }
        }
        // A link, a folder, a socket.
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {}
        Err(error) => return Err(error.into()),
    }
    remove(folder, name)?;
    Ok(None)
}

/// Removes what lies under a name, but for a folder that holds something; nothing is followed.
pub(crate) fn remove(folder: &OwnedFd, name: impl rustix::path::Arg + Copy) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?),
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
