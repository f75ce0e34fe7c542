//! How a copy is, at a look: whether its file is there, can be read, and has the size and the modification time that it
//! had when it was last known to be sound.
//!
//! A look is cheap and may be deceived, so it only ever takes a copy out of use. What puts one back is `verify`, which
//! reads every byte. No chunk is sent on a look's account either: each is compared with the manifest (`crate::serving`).

use std::io;

use quarta_daemon::cause;
use quarta_protocols::messages::chunk::Abort;
use serde::{Deserialize, Serialize};

use super::{Library, Place, Stamp};

/// What is wrong with a copy on disk.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Defect {
    /// The file is another one than was shared or fetched.
    Changed,
    /// There is no file any more.
    Missing,
    /// There is a file and it cannot be read.
    Unreadable,
    /// Nobody has written to the file, and its bytes are not those that were shared: the disk has lost some.
    Damaged,
}

impl Defect {
    /// What it means that a copy cannot be opened or read; none where nothing is wrong with the copy: the process has
    /// no descriptor left.
    pub fn of_failure(cause: &io::Error) -> Option<Self> {
        if cause::too_many_open(cause) {
            return None;
        }
        Some(match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            // A link, a folder or something else has taken its place, or it has become shorter.
            io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => Self::Changed,
            _ => Self::Unreadable,
        })
    }

    /// What a run that was broken off says of the copy; none where nothing is wrong with it.
    pub const fn of_abort(abort: Abort) -> Option<Self> {
        match abort {
            Abort::Changed => Some(Self::Changed),
            Abort::Unreadable => Some(Self::Unreadable),
            Abort::Stopping | Abort::MakesWay => None,
        }
    }

    /// A word for tables and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Damaged => "damaged",
        }
    }
}

impl Stamp {
    /// The stamp of a copy that was found to be another file: no look finds it sound again, also after a restart.
    #[must_use]
    pub const fn doubted(self) -> Self {
        Self { mtime_ns: i64::MIN, ..self }
    }

    /// The stamp of a copy whose disk has lost some of its bytes, likewise.
    #[must_use]
    pub const fn damaged(self) -> Self {
        Self { mtime_ns: i64::MIN + 1, ..self }
    }

    /// Whether it is such a stamp. No file was modified in 1677.
    pub const fn is_doubted(self) -> bool {
        self.mtime_ns == i64::MIN || self.is_damaged()
    }

    /// Whether it is the stamp of a damaged copy.
    pub const fn is_damaged(self) -> bool {
        self.mtime_ns == i64::MIN + 1
    }
}

impl Library {
    /// Looks at a copy that had `stamp` when it was sound. Blocks on the disk.
    ///
    /// # Errors
    /// Only where nothing can be said of the copy, because the process has no descriptor left.
    pub fn look(&self, place: &Place, stamp: Stamp) -> io::Result<Option<Defect>> {
        match self.open_file(place).and_then(|file| Stamp::of(&file)) {
            Ok(now) => Ok((now != stamp).then_some(Defect::Changed)),
            Err(cause) => Defect::of_failure(&cause).map(Some).ok_or(cause),
        }
    }
}
