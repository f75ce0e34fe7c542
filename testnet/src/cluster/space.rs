//! Free disk space, looked at before anything is written.

use super::ClusterError;
use rustix::fs::statvfs;
use std::path::Path;

/// What a member needs besides files: database, log, keys, and a partial manifest or two.
pub const MEMBER_BYTES: u64 = 64 << 20;

/// Fails unless the disk under `path`, which need not exist yet, has `need_bytes` to spare.
///
/// # Errors
/// [`ClusterError::NoSpace`], or what the system answered.
pub fn require(path: &Path, need_bytes: u64) -> Result<(), ClusterError> {
    let have_bytes = free_bytes(path)?;
    if have_bytes < need_bytes {
        return Err(ClusterError::NoSpace { path: path.to_owned(), need_bytes, have_bytes });
    }
    Ok(())
}

/// Bytes that this user may still write to the disk under `path`, or under its nearest parent that exists.
///
/// # Errors
/// What the system answered.
pub fn free_bytes(path: &Path) -> Result<u64, ClusterError> {
    let existing = path
        .ancestors()
        .map(|ancestor| if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor })
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("."));
    let disk = statvfs(existing).map_err(|cause| {
        ClusterError::system(format!("look at the disk of {}", path.display()))(cause.into())
    })?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_told_with_both_figures_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not/yet/there");
        require(&path, 1).unwrap();
        let text = require(&path, u64::MAX).unwrap_err().to_string();
        assert!(text.contains("it needs 16.0 EiB of disk and"), "{text}");
        assert!(!folder.path().join("not").exists());
    }
}
