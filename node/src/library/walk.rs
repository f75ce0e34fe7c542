//! The files of a folder that a user adds as a whole.
//!
//! The walk goes over open descriptors and follows no symbolic link, and a found file is opened the same way from the
//! folder that the user named; so nothing outside that folder is read, also when something is swapped meanwhile. What
//! cannot be shared is reported with the reason and does not end the walk.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use quarta_daemon::cause::{self, Plain};
use quarta_protocols::names::{FILE_NAME_MAX_DEPTH, FileName, NameError};
use rustix::fs::FileType;

use super::{
    Library,
    beneath::{self, irregular_kind},
};

/// A folder whose files are to be added.
#[derive(Debug)]
pub struct Folder {
    root: OwnedFd,
    path: PathBuf,
    data: PathBuf,
    prefix: Option<FileName>,
}

/// What the walk comes upon.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File {
        /// The name it would be added under.
        name: FileName,
        /// Where it lies, relative to the folder walked.
        relative: PathBuf,
    },
    /// Something that is not added.
    Skipped {
        /// Where it lies, relative to the folder walked.
        relative: PathBuf,
        /// Why it is not.
        reason: Skip,
    },
}

/// Why something in a folder is not added.
#[derive(Debug, thiserror::Error)]
pub enum Skip {
    /// A symbolic link, a pipe, a device, a socket.
    #[error("it is {0}, and only regular files are added")]
    Irregular(&'static str),
    /// No name for a shared file. A folder's files are not looked at then.
    #[error("its name cannot be shared: {0}")]
    Name(#[from] NameError),
    /// The name is not Unicode.
    #[error("its name is not valid UTF-8")]
    NotUnicode,
    /// Quarta's own data folder.
    #[error("it is the data folder of this node")]
    DataFolder,
    /// The system refuses to list or look at it.
    #[error("it cannot be read: {}", Plain(.0))]
    Unreadable(#[from] io::Error),
}

impl Skip {
    /// What to do next.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Irregular(_) => "the other files of the folder are not affected",
            Self::Name(_) | Self::NotUnicode => "rename it, or add it by itself with --name",
            Self::DataFolder => "move what is to be shared out of the data folder",
            Self::Unreadable(cause) => cause::next_step(cause),
        }
    }
}

impl Folder {
    /// Opens a folder that the user named; a link to a folder counts as the folder.
    ///
    /// The files' names are relative to it, below `prefix` where one is given.
    ///
    /// # Errors
    /// As the file system has them; `NotADirectory` for anything else than a folder.
    pub fn open(path: &Path, prefix: Option<&FileName>, library: &Library) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let root = File::open(&path)?;
        if !root.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let data = library.data_folder().to_owned();
        Ok(Self { root: root.into(), path, data, prefix: prefix.cloned() })
    }

    /// The folder's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything in it: recursively, hidden files included, each folder's entries in the order of their names.
    ///
    /// Holds the names of one folder for each level, of which there are at most [`FILE_NAME_MAX_DEPTH`].
    pub fn walk(&self) -> Walk<'_> {
        let mut walk = Walk { folder: self, levels: Vec::new(), pending: None };
        let opened = self.root.as_fd().try_clone_to_owned();
        walk.pending = opened
            .and_then(|root| walk.descend(root, PathBuf::new()))
            .err()
            .map(|error| Found::Skipped { relative: PathBuf::from("."), reason: Skip::Unreadable(error) });
        walk
    }

    /// Opens a file that the walk has found.
    pub(crate) fn open_found(&self, relative: &Path) -> io::Result<File> {
        beneath::open_path(&self.root, relative)
    }

    fn name(&self, relative: &Path) -> Result<FileName, Skip> {
        let relative = relative.to_str().ok_or(Skip::NotUnicode)?;
        Ok(match &self.prefix {
            Some(prefix) => FileName::normalised(&format!("{prefix}/{relative}"))?,
            None => FileName::normalised(relative)?,
        })
    }
}

/// The iterator of [`Folder::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    folder: &'a Folder,
    levels: Vec<Level>,
    pending: Option<Found>,
}

#[derive(Debug)]
struct Level {
    folder: OwnedFd,
    relative: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

impl Walk<'_> {
    fn descend(&mut self, folder: OwnedFd, relative: PathBuf) -> io::Result<()> {
        let mut names = beneath::names(&folder)?.collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        self.levels.push(Level { folder, relative, names: names.into_iter() });
        Ok(())
    }

    /// What an entry is; nothing for a folder, which is gone into instead.
    fn visit(&mut self, name: OsString) -> Result<Option<Found>, (PathBuf, Skip)> {
        let Some(level) = self.levels.last() else { return Ok(None) };
        let relative = level.relative.join(&name);
        let skip = |reason| (relative.clone(), reason);
        // Gone since it was listed: as if it had never been there.
        let Some(kind) = beneath::kind(&level.folder, &name).map_err(|e| skip(e.into()))? else {
            return Ok(None);
        };
        if kind == FileType::Directory {
            if self.folder.path.join(&relative) == self.folder.data {
                return Err(skip(Skip::DataFolder));
            }
            // A file in it would have a name longer by one component.
            let depth = self.folder.name(&relative).map_err(skip)?.components().count();
            if depth >= FILE_NAME_MAX_DEPTH {
                return Err(skip(NameError::TooDeep.into()));
            }
            let next = beneath::open_folder(&level.folder, &name).map_err(|e| skip(e.into()))?;
            self.descend(next, relative.clone()).map_err(|e| skip(e.into()))?;
            return Ok(None);
        }
        if let Some(what) = irregular_kind(kind) {
            return Err(skip(Skip::Irregular(what)));
        }
        let name = self.folder.name(&relative).map_err(skip)?;
        Ok(Some(Found::File { name, relative }))
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if let Some(found) = self.pending.take() {
            return Some(found);
        }
        loop {
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            match self.visit(name) {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err((relative, reason)) => return Some(Found::Skipped { relative, reason }),
            }
        }
    }
}
