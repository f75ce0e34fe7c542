//! The files that are shared in a run, and whether what arrived is the same.
//!
//! A copy is compared with its original byte by byte *and* by SHA-256: the first shows that they are the same, the second
//! that the checksum which people compare is that of these bytes. Both go through the file once, in constant memory.

use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Read at once; large enough that the system's calls do not count.
const BUFFER_BYTES: usize = 256 * 1024;
/// Most files that a run shares: each is fetched by every node.
pub const FILES_MAX: usize = 10_000;
/// Deepest nesting of folders that is followed.
const DEPTH_MAX: usize = 32;

/// A file to be shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Where it lies.
    pub path: PathBuf,
    /// The name to share it under: its path within its folder.
    pub name: String,
    /// Its length.
    pub size_bytes: u64,
}

/// Why a folder's files cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It, or something in it, could not be read.
    #[error("cannot share {}: {cause}; check that it is a folder that you may read", path.display())]
    Io {
        /// What could not be read.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Nothing in it.
    #[error("cannot share {}: there is no file in it; name a folder with files", .0.display())]
    Empty(PathBuf),
    /// More in it than a demo can show.
    #[error("cannot share {}: it holds more than {FILES_MAX} files, or folders nested deeper than {DEPTH_MAX}; name a smaller one", .0.display())]
    TooMuch(PathBuf),
    /// A name that is no text.
    #[error("cannot share {}: its name is not UTF-8; rename it", .0.display())]
    Name(PathBuf),
}

/// The files in `folder` and its folders, the largest first. Symbolic links and special files are left out.
///
/// # Errors
/// [`FolderError`].
pub fn in_folder(folder: &Path) -> Result<Vec<Original>, FolderError> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((inside, depth)) = folders.pop() {
        let failed = |cause| FolderError::Io { path: inside.clone(), cause };
        for entry in fs::read_dir(&inside).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Does not follow links.
            let metadata = entry.metadata().map_err(failed)?;
            let path = entry.path();
            if metadata.is_dir() {
                if depth == DEPTH_MAX {
                    return Err(FolderError::TooMuch(folder.to_owned()));
                }
                folders.push((path, depth + 1));
            } else if metadata.is_file() {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_str().map(str::to_owned);
                let name = name.ok_or_else(|| FolderError::Name(path.clone()))?;
                found.push(Original { path, name, size_bytes: metadata.len() });
            }
            if found.len() > FILES_MAX {
                return Err(FolderError::TooMuch(folder.to_owned()));
            }
        }
    }
    if found.is_empty() {
        return Err(FolderError::Empty(folder.to_owned()));
    }
    found.sort_by(|one, other| other.size_bytes.cmp(&one.size_bytes).then_with(|| one.name.cmp(&other.name)));
    Ok(found)
}

/// A file's SHA-256 in hexadecimal, as `sha256sum` prints it. Blocks.
///
/// # Errors
/// What the system answered.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(hash)),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// How a copy differs from its original.
#[derive(Debug, thiserror::Error)]
pub enum Difference {
    /// One of them could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The bytes differ, or one is longer.
    #[error("the copy differs from its original within the {BUFFER_BYTES} bytes from offset {0}")]
    Bytes(u64),
    /// The bytes are the same and the checksum is another's.
    #[error("the copy's SHA-256 is {found} and {expected} was told")]
    Checksum {
        /// Of the copy.
        found: String,
        /// What was told.
        expected: String,
    },
}

/// Compares a copy with its original byte by byte, and its SHA-256 with the one that was told. Blocks.
///
/// # Errors
/// [`Difference`].
pub fn compare(original: &Path, copy: &Path, told_sha256: &str) -> Result<(), Difference> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| Difference::Io { path, cause }
    };
    let (mut left, mut right) =
        (File::open(original).map_err(failed(original))?, File::open(copy).map_err(failed(copy))?);
    let (mut left_buffer, mut right_buffer) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut hash = Sha256::new();
    let mut offset = 0;
    loop {
        let left_read = fill(&mut left, &mut left_buffer).map_err(failed(original))?;
        let right_read = fill(&mut right, &mut right_buffer).map_err(failed(copy))?;
        if left_buffer[..left_read] != right_buffer[..right_read] {
            return Err(Difference::Bytes(offset));
        }
        if right_read == 0 {
            break;
        }
        hash.update(&right_buffer[..right_read]);
        offset += right_read as u64;
    }
    let found = hex(hash);
    if found == told_sha256 {
        Ok(())
    } else {
        Err(Difference::Checksum { found, expected: told_sha256.to_owned() })
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn hex(hash: Sha256) -> String {
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_gives_its_files_the_largest_first_and_follows_no_link() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("f");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("small.txt"), "x").unwrap();
        fs::write(folder.join("a/b/large.txt"), "xxx").unwrap();
        fs::write(home.path().join("secret.txt"), "x").unwrap();
        symlink(home.path().join("secret.txt"), folder.join("link.txt")).unwrap();
        symlink(home.path(), folder.join("up")).unwrap();
        let names: Vec<_> = in_folder(&folder).unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["a/b/large.txt", "small.txt"]);
    }

    #[test]
    fn an_empty_folder_a_missing_one_and_a_file_are_refused() {
        let home = tempfile::tempdir().unwrap();
        assert!(matches!(in_folder(home.path()), Err(FolderError::Empty(_))));
        assert!(matches!(in_folder(&home.path().join("x")), Err(FolderError::Io { .. })));
        fs::write(home.path().join("x"), "x").unwrap();
        assert!(matches!(in_folder(&home.path().join("x")), Err(FolderError::Io { .. })));
    }

    #[test]
    fn the_checksum_is_what_sha256sum_prints() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&path).unwrap(), known);
        compare(&path, &path, known).unwrap();
        assert!(matches!(compare(&path, &path, "0"), Err(Difference::Checksum { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_difference_in_bytes_or_length_is_found(
            length in 1_usize..600_000,
            place in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let home = tempfile::tempdir().unwrap();
            let (one, other) = (home.path().join("one"), home.path().join("other"));
            let mut bytes = vec![7; length];
            fs::write(&one, &bytes).unwrap();
            let place = place.index(length);
            if cut { bytes.truncate(place) } else { bytes[place] ^= 1 }
            fs::write(&other, &bytes).unwrap();
            let told = sha256(&one).unwrap();
            prop_assert!(matches!(compare(&one, &other, &told), Err(Difference::Bytes(_))));
        }
    }
}
