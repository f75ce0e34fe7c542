//! A data folder in the making.
//!
//! Joining a network takes several steps, some of them over the network, and each can fail. A draft holds
//! what was made so far and removes it when it is dropped; only [`Draft::commit`] turns it into a data
//! folder, by writing the marker last. `kill -9` can prevent the removal, so a draft carries a `quarta.draft`
//! from its first to its last moment: the next try recognises its own and goes on with the files in it. That
//! matters for an invite, which was perhaps redeemed for the key that lies there already.

use super::folder::{Folder, FolderError, make_private};
use super::lock::{LOCK_FILE, Lock, LockError};
use super::marker::{MARKER_FILE, Marker};
use super::{DataDir, DataDirError, read_marker};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const DRAFT_FILE: &str = "quarta.draft";

/// A data folder in the making, locked by this process. Dropping it removes everything in it.
#[derive(Debug)]
pub struct Draft {
    folder: Folder,
    lock: Option<Lock>,
    resumed: bool,
    /// Folders that this draft made, the innermost first.
    made: Vec<PathBuf>,
    finished: bool,
}

pub(super) fn is_draft(path: &Path) -> bool {
    path.join(DRAFT_FILE).exists()
}

impl Draft {
    /// Begins a data folder at `path`, which must be free, an empty folder, or an interrupted draft.
    ///
    /// # Errors
    /// [`DataDirError::AlreadyExists`], [`DataDirError::NotEmpty`], [`LockError::InUse`] while another
    /// process is drafting here, or what the file system said. Nothing is left behind then.
    pub fn begin(path: &Path) -> Result<Self, DataDirError> {
        let io = |doing| move |cause| DataDirError::from(FolderError::new(doing, path, cause));
        let made: Vec<PathBuf> = path
            .ancestors()
            .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
            .map(Path::to_owned)
            .collect();
        let resumed = made.is_empty() && may_be_taken(path)?;
        let mut draft = Self { folder: Folder::existing(path), lock: None, resumed, made, finished: resumed };
        make_private(path).map_err(io("create"))?;
        match Lock::take(path) {
            Ok(lock) => draft.lock = Some(lock),
            Err(error) => {
                // Whoever holds the lock is drafting here: nothing in the folder is ours to remove.
                draft.finished |= matches!(error, LockError::InUse { .. });
                return Err(error.into());
            }
        }
        // Another process may have committed between the first look and the lock.
        if let Some(found) = read_marker(path)? {
            draft.finished = true;
            return Err(DataDirError::AlreadyExists { path: path.to_owned(), found: Box::new(found) });
        }
        File::create(path.join(DRAFT_FILE)).map_err(io("write to"))?;
        // Only now may a drop remove an earlier try's files: the caller has seen them.
        draft.finished = false;
        Ok(draft)
    }

    /// Where the draft's files go; see [`Folder::write_private`].
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Whether an interrupted draft is being continued, with the files that it had.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Makes the draft a data folder, durably.
    ///
    /// # Errors
    /// What the file system said; the draft's content is removed then.
    pub fn commit(mut self, marker: Marker) -> Result<DataDir, DataDirError> {
        self.folder.write_private(MARKER_FILE, &marker.encode())?;
        // From here on the folder is a data folder, whatever happens to the draft's sign in it.
        self.finished = true;
        let _ = fs::remove_file(self.folder.path().join(DRAFT_FILE));
        Ok(DataDir { folder: self.folder.clone(), marker })
    }

    /// From now on dropping the draft leaves it as it is, to be continued by a later [`Draft::begin`].
    ///
    /// For the case in which it is not known whether the other side acted, such as an invite whose answer got
    /// lost.
    pub fn keep(&mut self) {
        self.finished = true;
    }

    fn remove(&self) -> io::Result<()> {
        if self.folder.path().is_dir() {
            self.remove_content()?;
        }
        for path in self.made.iter().filter(|path| path.is_dir()) {
            fs::remove_dir(path)?;
        }
        Ok(())
    }

    fn remove_content(&self) -> io::Result<()> {
        // The draft's sign goes last, so that an interrupted removal is still recognised as a draft.
        let mut last = Vec::new();
        for entry in fs::read_dir(self.folder.path())? {
            let entry = entry?;
            if entry.file_name() == DRAFT_FILE || entry.file_name() == LOCK_FILE {
                last.push(entry.path());
            } else if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        for path in last {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished
            && let Err(cause) = self.remove()
        {
            let path = self.folder.path().display();
            tracing::warn!(%path, %cause, "could not remove an unfinished data folder");
        }
    }
}

/// Whether the folder at `path` is an interrupted draft (`true`) or empty (`false`); anything else is
/// refused.
fn may_be_taken(path: &Path) -> Result<bool, DataDirError> {
    if let Some(found) = read_marker(path)? {
        return Err(DataDirError::AlreadyExists { path: path.to_owned(), found: Box::new(found) });
    }
    if is_draft(path) {
        return Ok(true);
    }
    let list = || fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    let names = list().map_err(|cause| FolderError::new("read", path, cause))?;
    // A lock file alone is a draft that was killed in its first moment.
    if names.iter().any(|name| name != LOCK_FILE) {
        return Err(DataDirError::NotEmpty { path: path.to_owned() });
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::Role;

    fn marker() -> Marker {
        Marker { role: Role::Node, network: "a1b2".into(), name: "filial".into() }
    }

    #[test]
    fn a_creation_that_fails_removes_all_it_made_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let draft = Draft::begin(&place.path().join("a/b")).unwrap();
        draft.folder().write_private("key", b"secret").unwrap();
        draft.folder().subfolder("vault").unwrap();
        drop(draft);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

        drop(Draft::begin(place.path()).unwrap());
        assert!(place.path().is_dir(), "the operator's own folder stays");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_marker_that_cannot_be_written_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let draft = Draft::begin(&path).unwrap();
        // A full or read-only disk fails at the same rename; a folder in the way also fails for root.
        fs::create_dir_all(path.join("quarta.json/in-the-way")).unwrap();
        draft.commit(marker()).unwrap_err();
        assert!(!path.exists());
    }

    #[test]
    fn a_killed_creation_is_continued_with_the_key_it_had() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let mut draft = Draft::begin(&path).unwrap();
        draft.folder().write_private("key", b"redeemed for this").unwrap();
        draft.keep();
        drop(draft);
        assert!(DataDir::open(&path, Role::Node).unwrap_err().to_string().contains("interrupted"));

        let again = Draft::begin(&path).unwrap();
        assert!(again.resumed());
        assert_eq!(**again.folder().read_private("key").unwrap(), *b"redeemed for this");
        again.commit(marker()).unwrap();
        assert!(!path.join(DRAFT_FILE).exists());
        DataDir::open(&path, Role::Node).unwrap();
    }

    #[test]
    fn two_creations_at_once_do_not_disturb_each_other() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let first = Draft::begin(&path).unwrap();
        first.folder().write_private("key", b"mine").unwrap();
        assert!(matches!(Draft::begin(&path), Err(DataDirError::Lock(LockError::InUse { .. }))));
        assert_eq!(**first.folder().read_private("key").unwrap(), *b"mine");
        first.commit(marker()).unwrap();
    }

    #[test]
    fn a_path_below_a_file_is_an_error_and_harms_nothing() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "x").unwrap();
        let text = Draft::begin(&place.path().join("file/data")).unwrap_err().to_string();
        assert!(text.starts_with("cannot create"), "{text}");
        assert!(place.path().join("file").is_file());
        assert!(Draft::begin(&place.path().join("file")).is_err());
    }
}
