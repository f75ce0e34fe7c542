//! Copies of members' data folders, as an operator's backup makes them, and bringing them back.

use super::ClusterError;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A copy of a member's data folder at one moment. Removed when dropped.
#[derive(Debug)]
pub struct Backup {
    member: String,
    copy: TempDir,
}

impl Backup {
    /// Copies `data`, to which nobody writes meanwhile, to somewhere in `folder`.
    pub(super) fn of(member: &str, data: &Path, folder: &Path) -> Result<Self, ClusterError> {
        let failed = || ClusterError::system(format!("back up {member}"));
        let copy = tempfile::Builder::new().prefix("backup-").tempdir_in(folder).map_err(failed())?;
        copy_folder(data, &copy.path().join("data")).map_err(failed())?;
        Ok(Self { member: member.to_owned(), copy })
    }

    /// Puts the copy in the place of `data`, to which nobody writes meanwhile. The copy stays.
    pub(super) fn bring_back(&self, data: &Path) -> Result<(), ClusterError> {
        let restore = || {
            fs::remove_dir_all(data)?;
            copy_folder(&self.copy.path().join("data"), data)
        };
        restore().map_err(ClusterError::system(format!("restore {}", self.member)))
    }

    /// Whose it is.
    pub fn member(&self) -> &str {
        &self.member
    }
}

/// Copies a folder with all in it but sockets, which only mean something to the process that made them.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let mut folders: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        DirBuilder::new().mode(fs::metadata(&from)?.permissions().mode()).create(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (kind, copy) = (entry.file_type()?, to.join(entry.file_name()));
            if kind.is_dir() {
                folders.push((entry.path(), copy));
            } else if kind.is_file() {
                // With its permissions.
                fs::copy(entry.path(), copy)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_restored_folder_is_what_it_was_with_modes_and_without_sockets() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        fs::create_dir_all(data.join("keys")).unwrap();
        fs::write(data.join("keys/identity"), "secret").unwrap();
        fs::set_permissions(data.join("keys/identity"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::set_permissions(data.join("keys"), PermissionsExt::from_mode(0o700)).unwrap();
        let _socket = UnixListener::bind(data.join("api.sock")).unwrap();

        let backup = Backup::of("central-1", &data, home.path()).unwrap();
        fs::write(data.join("keys/identity"), "changed").unwrap();
        fs::write(data.join("new"), "new").unwrap();
        for _ in 0..2 {
            backup.bring_back(&data).unwrap();
            assert_eq!(fs::read_to_string(data.join("keys/identity")).unwrap(), "secret");
            assert!(!data.join("new").exists() && !data.join("api.sock").exists());
            let mode = |path| fs::metadata(data.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode("keys"), mode("keys/identity")), (0o700, 0o600));
        }
    }
}
