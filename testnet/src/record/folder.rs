//! Where a record is kept: one folder that can be read, copied and committed as it is.

use super::Record;
use super::page::{PAGE_FILE, render};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The record for programs.
pub const RECORD_FILE: &str = "record.json";
const METRICS: &str = "metrics";
const LOGS: &str = "logs";

/// A record's folder, ready to be written to.
#[derive(Debug)]
pub struct Folder(PathBuf);

/// Why a record cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder holds something else.
    #[error("cannot keep the record in {}: the folder holds other things; name a new folder with --report", .0.display())]
    Occupied(PathBuf),
    /// The system refused something.
    #[error("cannot keep the record in {}: {cause}; name a folder that can be written to with --report", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl Folder {
    /// Makes the folder. One that holds an earlier record and nothing else is used again: the earlier record goes.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn prepare(path: PathBuf) -> Result<Self, FolderError> {
        let failed = |cause| FolderError::Io { path: path.clone(), cause };
        fs::create_dir_all(&path).map_err(failed)?;
        for entry in fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if ![PAGE_FILE, RECORD_FILE, METRICS, LOGS].iter().any(|ours| name == *ours) {
                return Err(FolderError::Occupied(path));
            }
        }
        let occupied = path.join(PAGE_FILE).exists() && !path.join(RECORD_FILE).exists();
        if occupied {
            return Err(FolderError::Occupied(path));
        }
        for folder in [METRICS, LOGS].map(|name| path.join(name)) {
            match fs::remove_dir_all(&folder) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
                _ => fs::create_dir(&folder).map_err(failed)?,
            }
        }
        Ok(Self(path))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Keeps what a member told Prometheus.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn metrics(&self, member: &str, exposition: &str) -> Result<(), FolderError> {
        fs::write(self.0.join(METRICS).join(format!("{member}.prom")), exposition)
            .map_err(|cause| self.failed(cause))
    }

    /// Keeps a member's log, with every occurrence of a path in `replaced` as the word beside it.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn log(&self, member: &str, log: &Path, replaced: &[(&Path, &str)]) -> Result<(), FolderError> {
        let copy = || {
            let from = BufReader::new(File::open(log)?);
            let mut to = BufWriter::new(File::create(self.0.join(LOGS).join(format!("{member}.log")))?);
            for line in from.split(b'\n') {
                let mut line = String::from_utf8_lossy(&line?).into_owned();
                for (path, word) in replaced {
                    line = line.replace(&*path.to_string_lossy(), word);
                }
                writeln!(to, "{line}")?;
            }
            to.flush()
        };
        copy().map_err(|cause| self.failed(cause))
    }

    /// Keeps the record, as a page and for programs.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn record(&self, record: &Record) -> Result<(), FolderError> {
        let write = || {
            let mut json = serde_json::to_string_pretty(record)?;
            json.push('\n');
            fs::write(self.0.join(RECORD_FILE), json)?;
            fs::write(self.0.join(PAGE_FILE), render(record))
        };
        write().map_err(|cause: io::Error| self.failed(cause))
    }

    fn failed(&self, cause: io::Error) -> FolderError {
        FolderError::Io { path: self.0.clone(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::journal::tests::parameters;
    use crate::record::{Journal, Outcome};

    #[test]
    fn an_earlier_record_is_replaced_and_anything_else_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/report");
        let record = Journal::begin(parameters(), io::sink()).finish(Outcome::Passed);
        let folder = Folder::prepare(path.clone()).unwrap();
        folder.metrics("old", "x 1\n").unwrap();
        folder.record(&record).unwrap();

        let folder = Folder::prepare(path.clone()).unwrap();
        folder.record(&record).unwrap();
        assert!(!path.join(METRICS).join("old.prom").exists());
        let read: Record = serde_json::from_slice(&fs::read(path.join(RECORD_FILE)).unwrap()).unwrap();
        assert_eq!(read, record);

        fs::write(path.join("thesis.txt"), "").unwrap();
        assert!(matches!(Folder::prepare(path.clone()), Err(FolderError::Occupied(_))));
        assert!(path.join("thesis.txt").exists() && path.join(RECORD_FILE).exists());
    }

    #[test]
    fn somebody_elses_readme_is_not_overwritten() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(PAGE_FILE), "mine").unwrap();
        assert!(matches!(Folder::prepare(home.path().to_owned()), Err(FolderError::Occupied(_))));
    }

    #[test]
    fn a_kept_log_names_no_folder_of_the_machine() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("x.log");
        fs::write(&log, "INFO data=/tmp/q1/net/filial-recife\n\u{fffd}from /home/ana/files/a.txt\n").unwrap();
        let folder = Folder::prepare(home.path().join("report")).unwrap();
        folder
            .log("x", &log, &[(Path::new("/tmp/q1/net"), "DEMO"), (Path::new("/home/ana/files"), "SHARED")])
            .unwrap();
        let kept = fs::read_to_string(folder.path().join(LOGS).join("x.log")).unwrap();
        assert_eq!(kept, "INFO data=DEMO/filial-recife\n\u{fffd}from SHARED/a.txt\n");
    }
}
