//! One process at a time.
//!
//! The kernel's advisory lock on `DATA/lock` decides, not the file's existence: it goes with the process
//! however that ends, so a crash leaves nothing to clean up. The process id in the file only serves the error
//! message.

use super::folder::FolderError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(super) const LOCK_FILE: &str = "lock";

/// A process id has at most this many digits; what is longer in the lock file was not written by us.
const MAX_PID_BYTES: u64 = 20;

/// Proof that this process, and no other, uses the data folder. Dropping it gives the folder free.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a data folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{} cannot be used now: it is in use by a running daemon{}; stop that one first",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The data folder.
        path: PathBuf,
        /// Who has it, if it said so.
        pid: Option<u32>,
    },
    /// The lock file could not be opened or locked.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl Lock {
    pub(super) fn take(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(LOCK_FILE);
        let failed = |cause| FolderError::new("lock", &path, cause);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::InUse { path: folder.to_owned(), pid: holder(&file) });
            }
            Err(TryLockError::Error(cause)) => return Err(failed(cause).into()),
        }
        let sign = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        sign(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_has_the_folder_and_gets_it_afterwards() {
        let place = tempfile::tempdir().unwrap();
        let first = Lock::take(place.path()).unwrap();
        let refusal = Lock::take(place.path()).unwrap_err().to_string();
        let expected = format!("in use by a running daemon (pid {})", std::process::id());
        assert!(refusal.contains(&expected), "{refusal}");
        drop(first);
        Lock::take(place.path()).unwrap();
    }

    #[test]
    fn a_lock_file_left_by_a_crash_is_no_obstacle() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(LOCK_FILE), "4194304 and more than any pid has\n").unwrap();
        Lock::take(place.path()).unwrap();
        let pid = std::fs::read_to_string(place.path().join(LOCK_FILE)).unwrap();
        assert_eq!(pid, format!("{}\n", std::process::id()));
    }
}
