//! A private folder, and private files that are either wholly there or not at all.

use crate::cause::{self, Plain};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use zeroize::Zeroizing;

/// The longest private file that is read, in bytes. Keys, credentials, tokens and settings are a thousandth
/// of it.
pub const MAX_PRIVATE_FILE_BYTES: u64 = 1024 * 1024;

/// A folder of mode 0700 whose files only this user reads.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// What went wrong with a folder or a file in it.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file system refused.
    #[error("cannot {doing} {}: {}; {}", path.display(), Plain(cause), next_step(cause))]
    Io {
        /// What was tried, as in "cannot …".
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A key file that others may read is no longer a secret.
    #[error(
        "{} is not safe to use: others on this machine may read it (mode {mode:04o}); \
         run `chmod 600` on it, and replace the key if somebody may have copied it",
        path.display()
    )]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A private file is longer than [`MAX_PRIVATE_FILE_BYTES`] or not a file.
    #[error("{} is not usable: it is {why}; restore it from a backup", path.display())]
    NotAPrivateFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
}

fn next_step(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "make the disk writable again, or name another folder with --data"
        }
        io::ErrorKind::PermissionDenied => {
            "run as the user that owns the data folder, or name another with --data"
        }
        io::ErrorKind::NotFound => "check the path, or restore the file from a backup",
        io::ErrorKind::NotADirectory => "name a folder with --data",
        _ => cause::next_step(cause),
    }
}

impl FolderError {
    pub(crate) fn new(doing: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), cause }
    }

    /// Whether the cause is a file or folder that does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }
}

impl Folder {
    /// A folder that the caller knows to exist and to be private.
    pub(super) fn existing(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry of this folder. `name` is relative and has no `..`.
    ///
    /// # Errors
    /// When `name` leads out of the folder.
    pub fn entry(&self, name: &str) -> Result<PathBuf, FolderError> {
        let path = self.path.join(name);
        let inside =
            !name.is_empty() && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if inside {
            Ok(path)
        } else {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "the name leads out of the data folder");
            Err(FolderError::new("use", &path, cause))
        }
    }

    /// Makes a folder of mode 0700 in this one, or takes the one that is there.
    ///
    /// # Errors
    /// What the file system said.
    pub fn subfolder(&self, name: &str) -> Result<Self, FolderError> {
        let path = self.entry(name)?;
        make_private(&path).map_err(|cause| FolderError::new("create", &path, cause))?;
        Ok(Self { path })
    }

    /// Writes a file of mode 0600 so that after a crash or power loss it has either its old or its new
    /// content.
    ///
    /// On `Ok` the content is on the disk (file and folder are synced). Blocks; short files only.
    ///
    /// # Errors
    /// What the file system said; the old content stands then.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let path = self.entry(name)?;
        let parent = path.parent().unwrap_or(&self.path);
        let write = || -> io::Result<()> {
            // Created with mode 0600 and removed again by its drop unless it gets its name.
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(parent)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(parent)?.sync_all()
        };
        write().map_err(|cause| FolderError::new("write", &path, cause))
    }

    /// Removes a file, so that it is gone after a crash too. One that is not there is gone already.
    ///
    /// # Errors
    /// What the file system said.
    pub fn remove_private(&self, name: &str) -> Result<(), FolderError> {
        let path = self.entry(name)?;
        let removed = match fs::remove_file(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(()) => File::open(path.parent().unwrap_or(&self.path)).and_then(|folder| folder.sync_all()),
            Err(cause) => Err(cause),
        };
        removed.map_err(|cause| FolderError::new("remove", &path, cause))
    }

    /// Reads a file that holds a secret. The bytes are wiped from memory when dropped.
    ///
    /// # Errors
    /// [`FolderError::ReadableByOthers`] when the group or others may read it;
    /// [`FolderError::NotAPrivateFile`] when it is no regular file or too long; otherwise what the file
    /// system said.
    pub fn read_private(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, FolderError> {
        let path = self.entry(name)?;
        let failed = |cause| FolderError::new("read", &path, cause);
        let bad = |why| FolderError::NotAPrivateFile { path: path.clone(), why };
        // Before the open: opening a fifo would wait for its writer.
        if !fs::metadata(&path).map_err(failed)?.is_file() {
            return Err(bad("not a regular file"));
        }
        let file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(FolderError::ReadableByOthers { path, mode });
        }
        // The room is reserved at once: a vector that grows leaves copies of the secret behind in freed
        // memory.
        let room = usize::try_from(metadata.len().min(MAX_PRIVATE_FILE_BYTES)).unwrap_or(0) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        let length = file.take(MAX_PRIVATE_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if length as u64 > MAX_PRIVATE_FILE_BYTES {
            return Err(bad("far longer than a private file can be"));
        }
        Ok(bytes)
    }
}

/// Makes a folder of mode 0700 with its parents, or makes the one that is there private.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::existing(place.path());
        (place, folder)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_private_file_is_readable_by_its_owner_alone_and_replaced_whole() {
        let (_place, folder) = folder();
        folder.write_private("key", b"one, and longer").unwrap();
        folder.write_private("key", b"two").unwrap();
        let path = folder.entry("key").unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(**folder.read_private("key").unwrap(), *b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_the_group_or_others_may_read_is_refused_with_a_way_out() {
        let (_place, folder) = folder();
        folder.write_private("key", b"secret").unwrap();
        for mode in [0o640, 0o604, 0o644] {
            set_mode(&folder.entry("key").unwrap(), mode);
            let text = folder.read_private("key").unwrap_err().to_string();
            assert!(text.contains("chmod 600") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_removed_file_is_gone_and_removing_it_again_does_no_harm() {
        let (_place, folder) = folder();
        folder.write_private("key", b"x").unwrap();
        for _ in 0..2 {
            folder.remove_private("key").unwrap();
            assert!(folder.read_private("key").unwrap_err().is_not_found());
        }
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        let (_place, folder) = folder();
        for name in ["../key", "/etc/passwd", "a/../../b", "", "."] {
            assert!(folder.write_private(name, b"x").is_err(), "{name}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_scraps() {
        let (_place, folder) = folder();
        fs::create_dir_all(folder.path().join("key/occupied")).unwrap();
        folder.write_private("key", b"new").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_endless_or_strange_file_is_not_read() {
        let (_place, folder) = folder();
        let long = File::create(folder.path().join("long")).unwrap();
        long.set_len(MAX_PRIVATE_FILE_BYTES + 1).unwrap();
        set_mode(&folder.path().join("long"), 0o600);
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero")).unwrap();
        for name in ["long", "zero"] {
            let error = folder.read_private(name).unwrap_err();
            assert!(matches!(error, FolderError::NotAPrivateFile { .. }), "{error}");
        }
        assert!(folder.read_private("none").unwrap_err().is_not_found());
    }

    #[test]
    fn a_subfolder_is_private_also_when_it_was_not() {
        let (_place, folder) = folder();
        fs::create_dir(folder.path().join("vault")).unwrap();
        set_mode(&folder.path().join("vault"), 0o755);
        for _ in 0..2 {
            let vault = folder.subfolder("vault").unwrap();
            assert_eq!(fs::metadata(vault.path()).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
