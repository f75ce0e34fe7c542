//! Files that were replaced or deleted: `DATA/trash`, each under the number that the database has of it.
//!
//! They move by renames within one file system, so a file is in the library or in the trash and never in neither, and
//! moving a terabyte costs nothing. What is in the trash is offered and served to nobody: no path of a copy leads there.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::PoisonError,
};

use quarta_protocols::{ids::FileId, names::FileName};
use rustix::{
    fs::{AtFlags, FileType, RenameFlags},
    io::Errno,
};

use super::{Library, LibraryError, LibraryPath, Staged, TRASH, beneath, placing::Whose};

/// A number of the trash's list, as a file's name.
fn name(number: i64) -> String {
    number.to_string()
}

impl Library {
    /// Moves a file of the library to the trash; `false` where no file is there.
    ///
    /// # Errors
    /// [`LibraryError::Disk`]; then it is where it was.
    pub fn discard(&self, path: &LibraryPath, number: i64) -> Result<bool, LibraryError> {
        let moved = self.take_out(path, |folder, leaf| {
            // Another program may have put something else there.
            if beneath::kind(folder, leaf.as_ref())? != Some(FileType::RegularFile) {
                return Err(io::ErrorKind::NotFound.into());
            }
            rename_free(folder, leaf, &self.trash, &name(number))?;
            Ok(rustix::fs::fsync(&self.trash)?)
        });
        match moved {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.failed("move to the trash", path.as_str(), source)),
        }
    }

    /// Whether a file lies in the trash.
    pub fn is_in_trash(&self, number: i64) -> bool {
        matches!(beneath::kind(&self.trash, name(number).as_ref()), Ok(Some(_)))
    }

    /// Moves a file back to the very place that it was taken from.
    ///
    /// # Errors
    /// [`LibraryError`], among them [`LibraryError::Taken`] where something else lies there; then it stays in the trash.
    pub fn put_back(&self, number: i64, path: &LibraryPath, shown: &FileName) -> Result<(), LibraryError> {
        let mut staged = self.reopen(number)?;
        self.place(&mut staged, &path.as_str().split('/').collect::<Vec<_>>(), Whose::Own(shown)).map(drop)
    }

    /// Moves a file back into the library, under the name it had, with a suffix where that is taken. It is a file like any
    /// that a person puts there: no copy, and shared with nobody.
    ///
    /// # Errors
    /// [`LibraryError`]; then it stays in the trash.
    pub fn restore(
        &self,
        number: i64,
        path: &LibraryPath,
        file: &FileId,
    ) -> Result<LibraryPath, LibraryError> {
        let mut staged = self.reopen(number)?;
        self.place(&mut staged, &path.as_str().split('/').collect::<Vec<_>>(), Whose::Fetched(file))
    }

    /// Removes a file from the trash for good; one that is gone already is no failure.
    ///
    /// # Errors
    /// [`LibraryError::Disk`].
    pub fn erase_trashed(&self, number: i64) -> Result<(), LibraryError> {
        match rustix::fs::unlinkat(&self.trash, name(number), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.trash_failed("remove from", error.into())),
        }
    }

    fn reopen(&self, number: i64) -> Result<Staged, LibraryError> {
        let name = name(number);
        let opened = beneath::open_file(&self.trash, name.as_ref());
        let file: File = opened.map_err(|source| self.trash_failed("open a file in", source))?;
        Ok(Staged::of_trash(&self.trash, name, file))
    }

    fn trash_failed(&self, action: &'static str, source: io::Error) -> LibraryError {
        LibraryError::Disk { action, path: self.data.join(TRASH), source }
    }

    /// Lets `act` take a file of the library away, and removes the folders that this leaves empty.
    pub(super) fn take_out(
        &self,
        path: &LibraryPath,
        act: impl FnOnce(&OwnedFd, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        // So that no folder goes while another thread is about to put a file into it.
        let _placing = self.twins.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<&str> = path.0.split('/').collect();
        let mut folders = vec![self.root.try_clone()?];
        for part in &parts[..parts.len() - 1] {
            let next = beneath::open_folder(&folders[folders.len() - 1], part.as_ref())?;
            folders.push(next);
        }
        act(&folders[folders.len() - 1], parts[parts.len() - 1])?;
        rustix::fs::fsync(&folders[folders.len() - 1])?;
        // A folder that is not empty stays, by the system's own refusal.
        for (folder, name) in folders.iter().zip(&parts[..parts.len() - 1]).rev() {
            if rustix::fs::unlinkat(folder, *name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Renames where nothing lies. The trash's numbers are used once, so a system without such a rename replaces nothing
/// either.
fn rename_free(from: impl AsFd, name: &str, to: impl AsFd, new: &str) -> io::Result<()> {
    match rustix::fs::renameat_with(&from, name, &to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => Ok(rustix::fs::renameat(&from, name, &to, new)?),
        other => Ok(other?),
    }
}
