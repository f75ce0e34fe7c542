//! What is added: an open regular file, and where it lies.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use quarta_daemon::cause::{self, Plain};

use crate::library::{Library, Stamp, irregular, open_absolute, walk::Folder};

/// A file to add, open, with its size and modification time as they were then.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: PathBuf,
    stamp: Stamp,
}

/// Why a file cannot be added from where it is. The text is "what: why; next step".
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not a regular file.
    #[error("cannot add {}: {}; {}", path.display(), self.why(), self.next_step())]
    Irregular {
        /// Which file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It belongs to this node itself: its keys and database lie there.
    #[error("cannot add {}: {}; {}", path.display(), self.why(), self.next_step())]
    DataFolder {
        /// Which file.
        path: PathBuf,
    },
    /// It was written to while it was read.
    #[error("cannot add {}: {}; {}", path.display(), self.why(), self.next_step())]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// It cannot be opened or read.
    #[error("cannot add {}: {}; {}", path.display(), self.why(), self.next_step())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl SourceError {
    /// The middle part of the error: why it is so.
    pub fn why(&self) -> String {
        match self {
            Self::Irregular { what, .. } => format!("it is {what}, and only regular files can be shared"),
            Self::DataFolder { .. } => "it lies in this node's own data folder".to_owned(),
            Self::Changed { .. } => "it changed while it was read".to_owned(),
            Self::Unreadable { cause, .. } => format!("it cannot be read: {}", Plain(cause)),
        }
    }

    /// The last part of the error: what to do next.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Irregular { .. } => "name a regular file, or a folder",
            Self::DataFolder { .. } => "move it out of there first",
            Self::Changed { .. } => "add it again when nothing writes to it",
            Self::Unreadable { cause, .. } => cause::next_step(cause),
        }
    }
}

impl Source {
    /// Opens a file that the user named. A symbolic link counts as the file that it leads to now: the user named it.
    ///
    /// # Errors
    /// [`SourceError`]; a named pipe or device is neither waited for nor read.
    pub fn named(path: &Path, library: &Library) -> Result<Self, SourceError> {
        let unreadable = |cause| SourceError::Unreadable { path: path.to_owned(), cause };
        let canonical = fs::canonicalize(path).map_err(unreadable)?;
        // Some devices act when they are opened.
        let meta = fs::symlink_metadata(&canonical).map_err(unreadable)?;
        if !meta.is_file() && !meta.is_dir() {
            let what = "a device, a pipe or a socket";
            return Err(SourceError::Irregular { path: path.to_owned(), what });
        }
        let file = open_absolute(&canonical).map_err(unreadable)?;
        Self::of(file, canonical, library)
    }

    /// Opens a file that a walk of a folder has found, following no link on the way.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn found(folder: &Folder, relative: &Path, library: &Library) -> Result<Self, SourceError> {
        let path = folder.path().join(relative);
        match folder.open_found(relative) {
            Ok(file) => Self::of(file, path, library),
            Err(cause) => Err(SourceError::Unreadable { path, cause }),
        }
    }

    fn of(file: File, path: PathBuf, library: &Library) -> Result<Self, SourceError> {
        let checked = irregular(&file).and_then(|what| Ok((what, Stamp::of(&file)?)));
        match checked {
            Err(cause) => Err(SourceError::Unreadable { path, cause }),
            Ok((Some(what), _)) => Err(SourceError::Irregular { path, what }),
            Ok(_) if path.starts_with(library.data_folder()) => Err(SourceError::DataFolder { path }),
            Ok((None, stamp)) => Ok(Self { file, path, stamp }),
        }
    }

    /// Where it lies: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size and modification time when it was opened.
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn into_path(self) -> PathBuf {
        self.path
    }

    /// Says so where the file is not what it was when it was opened.
    pub(super) fn check_unchanged(&self) -> Result<(), SourceError> {
        // Some files of the system claim to be empty and are not.
        let beyond = || self.file.read_at(&mut [0], self.stamp.size_bytes);
        let path = self.path.clone();
        match Stamp::of(&self.file).and_then(|now| Ok((now, beyond()?))) {
            Ok((now, 0)) if now == self.stamp => Ok(()),
            Ok(_) => Err(SourceError::Changed { path }),
            Err(cause) => Err(SourceError::Unreadable { path, cause }),
        }
    }

    /// Says so where its path does not lead to this very file any more: many programs save by putting a new file in
    /// the old one's place, which the open one does not show.
    pub(super) fn check_in_place(&self) -> Result<(), SourceError> {
        let path = self.path.clone();
        let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        let there = open_absolute(&self.path).and_then(|file| identity(&file));
        match there.and_then(|there| Ok(there == identity(&self.file)?)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SourceError::Changed { path }),
            Err(cause) => Err(SourceError::Unreadable { path, cause }),
        }
    }

    /// What a failed read means: an early end is a file that became shorter.
    pub(super) fn read_failed(&self, cause: io::Error) -> SourceError {
        let path = self.path.clone();
        match cause.kind() {
            io::ErrorKind::UnexpectedEof => SourceError::Changed { path },
            _ => SourceError::Unreadable { path, cause },
        }
    }
}
