//! The disk of a data folder: whether it can be written, how much room it has, and what to do where not.

use rustix::fs::{Access, StatVfsMountFlags};
use std::path::Path;

/// Below this much free space a member is not healthy: the next thing to be stored may not fit.
pub const LOW_SPACE_BYTES: u64 = 256 * 1024 * 1024;

/// How a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It can be written.
    Writable {
        /// Space left, in bytes.
        free_bytes: u64,
    },
    /// It, or one of the folders, cannot be written by this process.
    ReadOnly,
    /// It does not answer.
    Unknown,
}

impl Disk {
    /// Looks at the disk of folders that lie on one; blocks on it. Without folders it is unknown.
    pub fn of<P: AsRef<Path>>(folders: &[P]) -> Self {
        let first = folders.first().and_then(|folder| rustix::fs::statvfs(folder.as_ref()).ok());
        let Some(disk) = first else { return Self::Unknown };
        let writable =
            |folder: &P| rustix::fs::access(folder.as_ref(), Access::WRITE_OK | Access::EXEC_OK).is_ok();
        if disk.f_flag.contains(StatVfsMountFlags::RDONLY) || !folders.iter().all(writable) {
            return Self::ReadOnly;
        }
        Self::Writable { free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize) }
    }

    /// What is wrong with it and what to do, if anything is.
    pub fn problem(self) -> Option<String> {
        match self {
            Self::Writable { free_bytes } if free_bytes >= LOW_SPACE_BYTES => None,
            Self::Writable { free_bytes } => Some(format!(
                "only {} are free on the disk of the data folder, so that the next thing to be stored may not fit; \
                 make room",
                crate::cli::size(free_bytes)
            )),
            Self::ReadOnly => Some(
                "the data folder cannot be written, so that nothing new can be stored; make its disk writable again, \
                 and see that the folder belongs to the user that runs the daemon"
                    .to_owned(),
            ),
            Self::Unknown => {
                Some("the disk of the data folder does not answer; check the disk and its connection".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_this_machine_is_writable_and_one_that_is_not_there_is_unknown() {
        let place = tempfile::tempdir().unwrap();
        assert!(matches!(Disk::of(&[place.path()]), Disk::Writable { .. }));
        assert_eq!(Disk::of(&[place.path().join("none")]), Disk::Unknown);
        assert_eq!(Disk::of(&[place.path(), &place.path().join("none")]), Disk::ReadOnly);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_do() {
        assert_eq!(Disk::Writable { free_bytes: LOW_SPACE_BYTES }.problem(), None);
        let low = Disk::Writable { free_bytes: 3 << 20 }.problem().unwrap();
        assert!(low.contains("only 3.0 MiB are free") && low.contains("; make room"), "{low}");
        assert!(Disk::ReadOnly.problem().unwrap().contains("cannot be written"));
    }
}
