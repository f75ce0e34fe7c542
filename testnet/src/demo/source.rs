//! What a demo shares: the samples, or a person's folder.

use super::BIG_SIZE_MIN_BYTES;
use crate::original::{FolderError, Original, in_folder};
use crate::samples::{self, Kind};
use std::io;
use std::path::Path;

/// What the samples but the bulk file take, rounded up.
const SAMPLES_BYTES: u64 = 16 << 20;

/// What is shared.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// One sample of each kind, written by the demo.
    Samples {
        /// The bulk file's size.
        big_size_bytes: u64,
    },
    /// A person's files.
    Folder {
        /// The files, the largest first.
        files: Vec<Original>,
        /// The size of a bulk file that is added, because none of the files is large enough for a holder to die in the
        /// middle of its transfer.
        big_size_bytes: Option<u64>,
    },
}

impl Source {
    /// The samples, or the files in `folder`.
    pub(super) fn choose(folder: Option<&Path>, big_size_bytes: u64) -> Result<Self, FolderError> {
        let Some(folder) = folder else { return Ok(Self::Samples { big_size_bytes }) };
        let files = in_folder(folder)?;
        let largest = files.first().map_or(0, |file| file.size_bytes);
        Ok(Self::Folder { files, big_size_bytes: (largest < BIG_SIZE_MIN_BYTES).then_some(big_size_bytes) })
    }

    /// The size of the bulk file that the demo makes, if any.
    pub(super) fn big_size_bytes(&self) -> Option<u64> {
        match self {
            Self::Samples { big_size_bytes } => Some(*big_size_bytes),
            Self::Folder { big_size_bytes, .. } => *big_size_bytes,
        }
    }

    /// Bytes that the demo itself writes.
    pub(super) fn written_bytes(&self) -> u64 {
        match self {
            Self::Samples { big_size_bytes } => big_size_bytes.saturating_add(SAMPLES_BYTES),
            Self::Folder { big_size_bytes: None, .. } => 0,
            Self::Folder { big_size_bytes: Some(bytes), .. } => bytes.saturating_add(SAMPLES_BYTES),
        }
    }

    /// Bytes of all files that are shared.
    pub(super) fn shared_bytes(&self) -> u64 {
        match self {
            Self::Samples { .. } => self.written_bytes(),
            Self::Folder { files, big_size_bytes } => files
                .iter()
                .fold(big_size_bytes.unwrap_or_default(), |sum, file| sum.saturating_add(file.size_bytes)),
        }
    }

    /// Writes what is to be written into `folder`, and answers all files, the largest first. Blocks.
    pub(super) fn write(self, folder: &Path) -> io::Result<Vec<Original>> {
        let sample = |sample: samples::Sample| Original {
            name: sample.kind.file_name().to_owned(),
            path: sample.path,
            size_bytes: sample.size_bytes,
        };
        let mut files = match self {
            Self::Samples { big_size_bytes } => {
                samples::write_all(folder, big_size_bytes)?.into_iter().map(sample).collect()
            }
            Self::Folder { files, big_size_bytes: None } => files,
            Self::Folder { mut files, big_size_bytes: Some(bytes) } => {
                let written = samples::write_all(folder, bytes)?;
                if let Some(mut bulk) =
                    written.into_iter().find(|sample| sample.kind == Kind::Bulk).map(sample)
                {
                    // A person's own file of this name is the one that is meant by it.
                    if files.iter().any(|file| file.name == bulk.name) {
                        bulk.name = format!("Quarta/{}", bulk.name);
                    }
                    files.push(bulk);
                }
                files
            }
        };
        files.sort_by_key(|file| std::cmp::Reverse(file.size_bytes));
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_small_files_gets_a_bulk_file_and_its_own_files_stay_where_they_are() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("mine");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.txt"), "abc").unwrap();
        let source = Source::choose(Some(&folder), 3_000_000).unwrap();
        assert_eq!(source.shared_bytes(), 3_000_003);
        let files = source.write(&home.path().join("samples")).unwrap();
        assert_eq!(files.iter().map(|file| file.size_bytes).collect::<Vec<_>>(), [3_000_000, 3]);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn the_samples_take_no_more_than_was_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let source = Source::choose(None, 3_000_000).unwrap();
        let (said, files) = (source.written_bytes(), source.write(home.path()).unwrap());
        assert_eq!(files.len(), Kind::ALL.len());
        assert!(files.iter().map(|file| file.size_bytes).sum::<u64>() <= said);
    }
}
