//! The plaintext files that this branch shares or has fetched: the folder `DATA/library`.
//!
//! **Nothing outside the folder is ever written, and no symbolic link is followed**, also when a folder is swapped for a
//! link meanwhile: every path is walked a component at a time over open descriptors (`beneath`). Files appear whole or
//! not at all: they are made in `DATA/partial`, made durable, and get their name in the library by a step that never
//! replaces.
//!
//! **Own files lie under their name, fetched ones under `<owner>/<name>`.** No name is reserved: which member a file is
//! of is said by the database, not by its path, so a branch may well keep own files in a folder that is called like
//! another branch. What is there first stays; what comes second gives way. A component of an *own* file's name that is
//! taken, or whose twin by case or Unicode normalisation is there, is refused with the advice to choose another name. A
//! *fetched* file's component gets a suffix made from the file's id, since nobody is there to choose.

pub(crate) mod beneath;
mod condition;
mod partial;
mod placing;
pub(crate) mod staged;
mod trash;
mod twins;
pub mod walk;
pub(crate) mod writeback;

use std::{
    fmt, fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use quarta_daemon::cause::{self, Plain};
use quarta_protocols::names::FileName;
use rustix::fs::AtFlags;

pub(crate) use beneath::{irregular, open_path};
pub use condition::Defect;
pub(crate) use partial::Partial;
pub use partial::PartialName;
use staged::Shortage;
pub use staged::Staged;
use twins::Twins;

/// The library's folder below the data folder.
const LIBRARY: &str = "library";
/// The folder of files in the making. Beside the library, so that a rename moves them in.
const PARTIAL: &str = "partial";
/// The folder of files that were replaced or deleted. Beside the library for the same reason.
const TRASH: &str = "trash";
/// Suffixes tried for a fetched file before giving up: every one of them taken means that something else is wrong.
const SUFFIXES_MAX: u32 = 99;

/// Where a file lies within the library: relative, without `.` and `..`.
///
/// Made by placing a file; unlike a [`FileName`] it may carry a suffix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LibraryPath(String);

impl LibraryPath {
    /// Reads a path back that was stored; none where it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        text.split('/').all(sound).then(|| Self(text.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LibraryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a file's plaintext lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the library.
    Library(LibraryPath),
    /// Outside, where its user keeps it (`add --in-place`): an absolute path without symbolic links.
    InPlace(PathBuf),
}

/// What tells cheaply that a file is probably as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Size, in bytes.
    pub size_bytes: u64,
    /// Modification time, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl Stamp {
    /// The stamp of an open file.
    ///
    /// # Errors
    /// Where the file cannot be asked.
    pub fn of(file: &fs::File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
        Ok(Self { size_bytes: meta.size(), mtime_ns })
    }
}

/// Why a file does not get into the library, or the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// An own file's place is taken.
    #[error("cannot add {name}: {}; {}", self.why(), self.next_step())]
    Taken {
        /// The name wanted.
        name: FileName,
        /// What is there, relative to the library.
        taken: String,
    },
    /// An own file's name differs from one that is there by case or Unicode normalisation only.
    #[error("cannot add {name}: {}; {}", self.why(), self.next_step())]
    Twin {
        /// The name wanted.
        name: FileName,
        /// What is there, relative to the library.
        twin: String,
    },
    /// The name and all its suffixed forms are taken.
    #[error("cannot keep {}: {}; {}", .0, self.why(), self.next_step())]
    Crowded(String),
    /// The disk is full.
    #[error("cannot write to {}: {}; {}", folder.display(), self.why(), self.next_step())]
    DiskFull {
        /// The folder that was to hold the file.
        folder: PathBuf,
        /// What the file needs, in bytes.
        needed_bytes: u64,
        /// What there was when it was tried, in bytes.
        free_bytes: u64,
    },
    /// The file system refused something.
    #[error("cannot {action} {}: {}; {}", path.display(), Plain(source), cause::next_step(source))]
    Disk {
        /// What was tried, e.g. `create`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl LibraryError {
    /// The middle part of the error: why it is so.
    pub fn why(&self) -> String {
        match self {
            Self::Taken { taken, .. } => format!("{taken:?} is already in the library"),
            Self::Twin { twin, .. } => {
                format!("the library has {twin:?}, which is the same name on systems that ignore case")
            }
            Self::Crowded(_) => format!("its name and {SUFFIXES_MAX} variants of it are taken"),
            Self::DiskFull { needed_bytes, free_bytes, .. } => {
                let [free, needed] = [*free_bytes, *needed_bytes].map(bytesize::ByteSize);
                format!("the disk has {free} free and {needed} are needed")
            }
            Self::Disk { action, path, source } => {
                format!("the library's disk does not let it {action} {}: {}", path.display(), Plain(source))
            }
        }
    }

    /// The last part of the error: what to do next.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Taken { .. } | Self::Twin { .. } => "choose another name with --name",
            Self::Crowded(_) => "tidy up the library folder",
            Self::DiskFull { .. } => "make room and try again",
            Self::Disk { source, .. } => cause::next_step(source),
        }
    }
}

/// The open library. Share it between threads; every method blocks on the disk.
#[derive(Debug)]
pub struct Library {
    data: PathBuf,
    root: OwnedFd,
    partial: Arc<OwnedFd>,
    trash: Arc<OwnedFd>,
    /// Held while a file is placed or removed, so that two of this process's own are not each other's twins.
    twins: Mutex<Twins>,
}

impl Library {
    /// Opens the library of a data folder, creating it where it is missing.
    ///
    /// What an earlier run left in `DATA/partial` is for [`Library::sweep_partials`] to judge, once it is known which
    /// fetches go on.
    ///
    /// # Errors
    /// [`LibraryError::Disk`], also where `library`, `partial` or `trash` is a symbolic link.
    pub fn open(data: &Path) -> Result<Self, LibraryError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| LibraryError::Disk { action, path, source }
        };
        let data = fs::canonicalize(data).map_err(failed("open", data))?;
        let folder = |name: &str| {
            let path = data.join(name);
            let opened = match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => fs::File::open(&data).and_then(|at| beneath::open_folder(at, name.as_ref())),
            };
            opened.map_err(failed("open", &path))
        };
        let (root, partial, trash) = (folder(LIBRARY)?, folder(PARTIAL)?, folder(TRASH)?);
        let private = fs::Permissions::from_mode(0o700);
        let made_private =
            partial.try_clone().and_then(|partial| fs::File::from(partial).set_permissions(private));
        made_private.map_err(failed("protect", &data.join(PARTIAL)))?;
        let (partial, trash) = (Arc::new(partial), Arc::new(trash));
        Ok(Self { data, root, partial, trash, twins: Mutex::default() })
    }

    /// The library's folder.
    pub fn folder(&self) -> PathBuf {
        self.data.join(LIBRARY)
    }

    /// The folder of files in the making.
    pub(crate) fn partial_folder(&self) -> PathBuf {
        self.data.join(PARTIAL)
    }

    /// The data folder around it, without symbolic links: nothing in there is ever shared as a source.
    pub(crate) fn data_folder(&self) -> &Path {
        &self.data
    }

    /// Where a file lies, for people: opening it by this path would follow links, so use [`Library::open_file`].
    pub fn path_of(&self, place: &Place) -> PathBuf {
        match place {
            Place::Library(path) => self.folder().join(path.as_str()),
            Place::InPlace(path) => path.clone(),
        }
    }

    /// Opens a file for reading, following no link at any component of its path.
    ///
    /// # Errors
    /// As the file system has them; `InvalidInput` where it is no regular file any more.
    pub fn open_file(&self, place: &Place) -> io::Result<fs::File> {
        let file = match place {
            Place::Library(path) => open_path(&self.root, Path::new(path.as_str()))?,
            Place::InPlace(path) => open_absolute(path)?,
        };
        match irregular(&file)? {
            None => Ok(file),
            Some(what) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}"))),
        }
    }

    /// Removes a file of the library, and the folders that this leaves empty.
    ///
    /// # Errors
    /// [`LibraryError::Disk`]; a file that is gone already is none.
    pub fn remove(&self, path: &LibraryPath) -> Result<(), LibraryError> {
        let removed =
            self.take_out(path, |folder, leaf| Ok(rustix::fs::unlinkat(folder, leaf, AtFlags::empty())?));
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", path.as_str(), source))
            }
            _ => Ok(()),
        }
    }

    /// Begins a file in `DATA/partial`.
    ///
    /// # Errors
    /// [`LibraryError::Disk`].
    pub fn stage(&self) -> Result<Staged, LibraryError> {
        Staged::create(&self.partial).map_err(|source| LibraryError::Disk {
            action: "create a file in",
            path: self.data.join(PARTIAL),
            source,
        })
    }

    /// Begins a file and reserves its whole size.
    ///
    /// # Errors
    /// [`LibraryError::DiskFull`] or [`LibraryError::Disk`].
    pub(crate) fn stage_reserved(&self, size_bytes: u64) -> Result<Staged, LibraryError> {
        let staged = self.stage()?;
        self.reserve(&staged, size_bytes)?;
        Ok(staged)
    }

    fn reserve(&self, staged: &Staged, size_bytes: u64) -> Result<(), LibraryError> {
        match staged.reserve(size_bytes) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Shortage { needed_bytes, free_bytes })) => {
                Err(LibraryError::DiskFull { folder: self.data.join(PARTIAL), needed_bytes, free_bytes })
            }
            Err(source) => {
                Err(LibraryError::Disk { action: "reserve space in", path: self.data.join(PARTIAL), source })
            }
        }
    }

    fn failed(&self, action: &'static str, below: &str, source: io::Error) -> LibraryError {
        LibraryError::Disk { action, path: self.folder().join(below), source }
    }
}

/// Opens an absolute path, following no link at any component.
pub(crate) fn open_absolute(path: &Path) -> io::Result<fs::File> {
    let below = path.strip_prefix("/").map_err(|_| io::ErrorKind::InvalidInput)?;
    open_path(fs::File::open("/")?, below)
}

#[cfg(test)]
mod tests;
