//! Which names in a folder are the same on some system.
//!
//! Two names are *twins* where a system that ignores case or Unicode normalisation takes them for one: copied there,
//! one file would overwrite the other. What the folder's own system tells apart is no twin of itself; never overwriting
//! on this machine is ensured elsewhere, by renames that refuse to replace.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::fd::AsFd,
};

use quarta_protocols::names::fold;

use super::beneath;

/// The folded names of the folder looked at last.
///
/// Adding a folder of files looks at one folder again and again; without this, n files would cost n² names read. Only
/// hashes are kept: 100 000 names in 2 MiB. A listing counts for as long as the folder's modification time stands, so
/// what others put into the library is seen too (but for changes within a tick of the file system's clock).
#[derive(Debug, Default)]
pub(super) struct Twins {
    listed: Option<Listed>,
}

#[derive(Debug)]
struct Listed {
    folder: Version,
    folded: HashSet<u64>,
}

/// A folder at one moment: device, inode, modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version(u64, u64, i64, u64);

impl Twins {
    /// Whether the folder has a name that is equal to `name` but for case or normalisation. `name` itself is absent.
    pub(super) fn has_twin(&mut self, folder: impl AsFd, name: &str) -> io::Result<bool> {
        let now = version(&folder)?;
        let listed = match &mut self.listed {
            Some(listed) if listed.folder == now => listed,
            outdated => outdated.insert(Listed { folder: now, folded: list(&folder)? }),
        };
        // What was taken away again within a tick of that clock is still among the hashes.
        Ok(listed.folded.contains(&digest(name)) && find(&folder, name)?.is_some())
    }

    /// Notes that this process has just put `name` into the folder.
    pub(super) fn added(&mut self, folder: impl AsFd, name: &str) -> io::Result<()> {
        let now = version(&folder)?;
        if let Some(listed) = &mut self.listed
            && (listed.folder.0, listed.folder.1) == (now.0, now.1)
        {
            listed.folder = now;
            listed.folded.insert(digest(name));
        }
        Ok(())
    }
}

/// The twin of `name` in a folder, for people to read.
pub(super) fn find(folder: impl AsFd, name: &str) -> io::Result<Option<String>> {
    let wanted = fold(name);
    for other in beneath::names(folder)? {
        if let Some(other) = other?.to_str()
            && other != name
            && fold(other) == wanted
        {
            return Ok(Some(other.to_owned()));
        }
    }
    Ok(None)
}

fn list(folder: impl AsFd) -> io::Result<HashSet<u64>> {
    // A name that is not Unicode has no twin among names that are.
    beneath::names(folder)?.map(|name| Ok(digest(&name?.to_string_lossy()))).collect()
}

fn digest(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    fold(name).hash(&mut hasher);
    hasher.finish()
}

fn version(folder: impl AsFd) -> io::Result<Version> {
    let stat = rustix::fs::fstat(folder)?;
    #[allow(clippy::useless_conversion, reason = "the fields' types differ between systems")]
    Ok(Version(stat.st_dev.into(), stat.st_ino.into(), stat.st_mtime.into(), stat.st_mtime_nsec.into()))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, path::Path};

    use super::*;

    fn put(base: &Path, name: &str) {
        std::fs::write(base.join(name), "").unwrap();
    }

    #[test]
    fn twins_by_case_and_by_normalisation_are_found() {
        let base = tempfile::tempdir().unwrap();
        put(base.path(), "Foto.JPG");
        put(base.path(), "vera\u{303}o.txt");
        let folder = File::open(base.path()).unwrap();
        let mut twins = Twins::default();
        for (name, twin) in
            [("foto.jpg", Some("Foto.JPG")), ("VERÃO.txt", Some("vera\u{303}o.txt")), ("foto2.jpg", None)]
        {
            assert_eq!(twins.has_twin(&folder, name).unwrap(), twin.is_some(), "{name}");
            assert_eq!(find(&folder, name).unwrap().as_deref(), twin, "{name}");
        }
    }

    #[test]
    fn what_was_added_and_taken_away_within_a_tick_is_no_twin() {
        let base = tempfile::tempdir().unwrap();
        let folder = File::open(base.path()).unwrap();
        let mut twins = Twins::default();
        assert!(!twins.has_twin(&folder, "a").unwrap());
        put(base.path(), "A");
        let tick = folder.metadata().unwrap().modified().unwrap();
        twins.added(&folder, "A").unwrap();
        std::fs::remove_file(base.path().join("A")).unwrap();
        folder.set_modified(tick).unwrap();
        assert!(!twins.has_twin(&folder, "a").unwrap());
    }

    #[test]
    fn what_was_added_since_is_known() {
        let base = tempfile::tempdir().unwrap();
        let folder = File::open(base.path()).unwrap();
        let mut twins = Twins::default();
        assert!(!twins.has_twin(&folder, "a").unwrap());
        put(base.path(), "A");
        twins.added(&folder, "A").unwrap();
        assert!(twins.has_twin(&folder, "a").unwrap());
        // By somebody else.
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        put(base.path(), "B");
        folder.set_modified(later).unwrap();
        assert!(twins.has_twin(&folder, "b").unwrap());
    }
}
