//! The private folder that holds everything a member is: its keys, its database, its settings, its socket.
//!
//! Guarantees: holding a [`DataDir`] proves that the folder belongs to this role in a format that this
//! version knows, and that nobody else on the machine may change it. The marker `quarta.json` is written
//! last, so a folder either *is* a data folder or is none; a creation that fails removes what it made, and
//! one that was killed midway is recognised by the `quarta.draft` it left and continued by the next try. At
//! most one process holds the [`Lock`].
//!
//! ```text
//! DATA/quarta.json     what this folder is            DATA/settings.toml   see [`crate::settings`]
//! DATA/quarta.draft    only while it is being made    DATA/api.sock        see [`crate::http`]
//! DATA/lock            held by the running process    DATA/api-token       see [`crate::http`]
//! DATA/quarta.left     once its member has left for good; what it shared stays
//! ```

mod draft;
mod folder;
mod lock;
mod marker;

pub use draft::Draft;
pub use folder::{Folder, FolderError, MAX_PRIVATE_FILE_BYTES};
pub use lock::{Lock, LockError};
pub use marker::{FORMAT, Marker, Role, UnknownRole};

use marker::{MARKER_FILE, MarkerError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Is there once the folder's member has left for good.
const LEFT_FILE: &str = "quarta.left";

/// A folder that was checked to be a data folder of the expected role.
#[derive(Debug, Clone)]
pub struct DataDir {
    folder: Folder,
    marker: Marker,
}

/// Why a folder cannot be made or used as a data folder. Each text says what failed, why, and what to do
/// next.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// There is no folder at this path, or no marker in it.
    #[error(
        "no data folder at {}: {why}; run `{}` first, or name the right folder with --data",
        path.display(), role.first_step()
    )]
    Missing {
        /// The folder that was asked for.
        path: PathBuf,
        /// The role that it was asked for.
        role: Role,
        /// What is there instead.
        why: &'static str,
    },
    /// The folder is of the other role.
    #[error(
        "{} cannot be used here: it is the data folder of the {} `{}`; \
         use `{}`, or name another folder with --data",
        path.display(), found.role, found.name, found.role.program()
    )]
    OtherRole {
        /// The folder that was asked for.
        path: PathBuf,
        /// What the folder is.
        found: Box<Marker>,
    },
    /// The folder was written by a newer version.
    #[error(
        "{} cannot be read: its format is {found} and this version knows formats up to {FORMAT}; \
         install the newer version",
        path.display()
    )]
    NewerFormat {
        /// The folder that was asked for.
        path: PathBuf,
        /// The format that it has.
        found: u64,
    },
    /// Its member has left the network for good.
    #[error(
        "{} cannot be used any more: `{}` has left the network for good; take the files out that you want to keep, and \
         join again with an invite and a new data folder",
        path.display(), left.name
    )]
    Left {
        /// The folder that was asked for.
        path: PathBuf,
        /// What the folder was.
        left: Box<Marker>,
    },
    /// The marker is there but says nothing usable.
    #[error("{} is damaged: {why}; restore it from a backup", path.display())]
    Damaged {
        /// The marker file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A data folder was to be made where one is already.
    #[error(
        "cannot create a data folder at {}: it already holds the {} `{}` of network {}; \
         use it as it is, or name another folder with --data",
        path.display(), found.role, found.name, found.network
    )]
    AlreadyExists {
        /// The folder that was asked for.
        path: PathBuf,
        /// What the folder is.
        found: Box<Marker>,
    },
    /// A data folder was to be made in a folder with other things in it.
    #[error(
        "cannot create a data folder at {}: it is not empty and was not made by Quarta; \
         name a new or empty folder with --data",
        path.display()
    )]
    NotEmpty {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// Others on this machine could replace what lies in the folder.
    #[error(
        "{} is not safe to use: others on this machine may write to it (mode {mode:04o}); \
         run `chmod 700` on it",
        path.display()
    )]
    WritableByOthers {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The folder or a file in it could not be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl DataDir {
    /// Makes a data folder at `path` in one step: [`Draft::begin`] and [`Draft::commit`].
    ///
    /// `path` must be free or an empty folder. Missing parents are made, private too.
    ///
    /// # Errors
    /// [`DataDirError::AlreadyExists`], [`DataDirError::NotEmpty`], or what the file system said; nothing is
    /// left then.
    pub fn create(path: &Path, marker: Marker) -> Result<Self, DataDirError> {
        Draft::begin(path)?.commit(marker)
    }

    /// Opens the data folder at `path` for a process of `role`.
    ///
    /// # Errors
    /// [`DataDirError`] says what the folder is instead.
    pub fn open(path: &Path, role: Role) -> Result<Self, DataDirError> {
        let missing = |why| DataDirError::Missing { path: path.to_owned(), role, why };
        let metadata = std::fs::metadata(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => missing("the folder does not exist"),
            _ => FolderError::new("read", path, cause).into(),
        })?;
        if !metadata.is_dir() {
            return Err(missing("it is not a folder"));
        }
        let marker = read_marker(path)?.ok_or_else(|| {
            missing(if draft::is_draft(path) {
                "setting it up was interrupted"
            } else {
                "the folder holds no quarta.json"
            })
        })?;
        if marker.role != role {
            return Err(DataDirError::OtherRole { path: path.to_owned(), found: Box::new(marker) });
        }
        if path.join(LEFT_FILE).exists() {
            return Err(DataDirError::Left { path: path.to_owned(), left: Box::new(marker) });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(DataDirError::WritableByOthers { path: path.to_owned(), mode });
        }
        Ok(Self { folder: Folder::existing(path), marker })
    }

    /// What this folder is.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// The folder's path, as it was given.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder itself, for parts that need no more than a private place.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Marks the folder as one whose member has left for good: it is not opened again.
    ///
    /// # Errors
    /// What the file system said; the folder is as it was then.
    pub fn mark_left(&self) -> Result<(), FolderError> {
        let text = "The member whose data folder this was has left its network for good.\n";
        self.folder.write_private(LEFT_FILE, text.as_bytes())
    }

    /// Takes the folder for this process until the guard is dropped.
    ///
    /// # Errors
    /// [`LockError::InUse`] while another holds it.
    pub fn lock(&self) -> Result<Lock, LockError> {
        Lock::take(self.path())
    }

    /// See [`Folder::write_private`].
    ///
    /// # Errors
    /// As there.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        self.folder.write_private(name, bytes)
    }

    /// See [`Folder::read_private`].
    ///
    /// # Errors
    /// As there.
    pub fn read_private(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, FolderError> {
        self.folder.read_private(name)
    }

    /// See [`Folder::subfolder`].
    ///
    /// # Errors
    /// As there.
    pub fn subfolder(&self, name: &str) -> Result<Folder, FolderError> {
        self.folder.subfolder(name)
    }
}

/// The marker of the folder at `path`, or `None` where there is none.
fn read_marker(path: &Path) -> Result<Option<Marker>, DataDirError> {
    let file = path.join(MARKER_FILE);
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(FolderError::new("read", &file, cause).into()),
    };
    match Marker::decode(&bytes) {
        Ok(marker) => Ok(Some(marker)),
        Err(MarkerError::Newer(found)) => Err(DataDirError::NewerFormat { path: path.to_owned(), found }),
        Err(MarkerError::Unusable(why)) => Err(DataDirError::Damaged { path: file, why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn marker() -> Marker {
        Marker { role: Role::Node, network: "a1b2".into(), name: "filial-recife".into() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_created_folder_is_private_and_opens_as_what_it_was_created() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/data");
        DataDir::create(&path, marker()).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("quarta.json")), 0o600);
        assert_eq!(*DataDir::open(&path, Role::Node).unwrap().marker(), marker());
    }

    #[test]
    fn an_empty_folder_of_the_operator_is_taken_and_made_private() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        DataDir::create(place.path(), marker()).unwrap();
        assert_eq!(mode(place.path()), 0o700);
    }

    #[test]
    fn a_second_creation_says_what_is_there_and_changes_nothing() {
        let place = tempfile::tempdir().unwrap();
        DataDir::create(place.path(), marker()).unwrap();
        let other = Marker { role: Role::Superpeer, network: "ffff".into(), name: "other".into() };
        let text = DataDir::create(place.path(), other).unwrap_err().to_string();
        assert!(text.contains("node `filial-recife` of network a1b2"), "{text}");
        assert_eq!(*DataDir::open(place.path(), Role::Node).unwrap().marker(), marker());
    }

    #[test]
    fn a_foreign_folder_is_refused_and_left_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("thesis.txt"), "mine").unwrap();
        let error = DataDir::create(place.path(), marker()).unwrap_err();
        assert!(matches!(error, DataDirError::NotEmpty { .. }), "{error}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_names_the_command_that_makes_one() {
        let place = tempfile::tempdir().unwrap();
        let node = DataDir::open(&place.path().join("none"), Role::Node).unwrap_err().to_string();
        assert!(node.contains("does not exist; run `quarta join` first"), "{node}");
        let superpeer = DataDir::open(place.path(), Role::Superpeer).unwrap_err().to_string();
        assert!(superpeer.contains("no quarta.json; run `quarta-superpeer init`"), "{superpeer}");
    }

    #[test]
    fn the_other_roles_folder_is_refused_by_name() {
        let place = tempfile::tempdir().unwrap();
        DataDir::create(place.path(), marker()).unwrap();
        let text = DataDir::open(place.path(), Role::Superpeer).unwrap_err().to_string();
        assert!(text.contains("data folder of the node `filial-recife`; use `quarta`"), "{text}");
    }

    #[test]
    fn the_folder_of_a_member_that_has_left_says_so_and_is_neither_opened_nor_made_anew() {
        let place = tempfile::tempdir().unwrap();
        DataDir::create(place.path(), marker()).unwrap().mark_left().unwrap();
        let text = DataDir::open(place.path(), Role::Node).unwrap_err().to_string();
        assert!(text.contains("`filial-recife` has left the network for good; take"), "{text}");
        assert!(DataDir::create(place.path(), marker()).is_err());
    }

    #[test]
    fn a_newer_format_asks_for_the_newer_version() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("quarta.json"), r#"{"format":2,"kind":"hive"}"#).unwrap();
        let error = DataDir::open(place.path(), Role::Node).unwrap_err();
        assert!(matches!(error, DataDirError::NewerFormat { found: 2, .. }), "{error}");
    }

    #[test]
    fn a_damaged_marker_is_not_taken_for_a_missing_one() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("quarta.json"), "{\"format\":1,").unwrap();
        for error in [
            DataDir::open(place.path(), Role::Node).unwrap_err(),
            DataDir::create(place.path(), marker()).unwrap_err(),
        ] {
            assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
        }
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let place = tempfile::tempdir().unwrap();
        DataDir::create(place.path(), marker()).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = DataDir::open(place.path(), Role::Node).unwrap_err();
        assert!(matches!(error, DataDirError::WritableByOthers { mode: 0o770, .. }), "{error}");
    }

    #[test]
    fn no_error_of_a_folder_spans_lines() {
        let place = tempfile::tempdir().unwrap();
        DataDir::create(place.path(), Marker { name: "a\nb".into(), ..marker() }).unwrap();
        let error = DataDir::open(place.path(), Role::Superpeer).unwrap_err();
        let failure = crate::cli::Failure::from(error).to_string();
        assert!(!failure.contains('\n'), "{failure}");
    }
}
