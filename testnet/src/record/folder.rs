//! Where a record is kept: one folder that can be read, copied and committed as it is.

use super::html::{self, LogEnd};
use super::kept_log::keep;
use super::scrub::Scrub;
use super::{Record, markdown};
use crate::snapshot::Snapshot;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

/// The record for programs.
pub const RECORD_FILE: &str = "record.json";
/// The folder of the members' metrics at the beginning and at the end.
pub const METRICS: [&str; 2] = ["metrics-before", "metrics-after"];
/// The folder of the members' logs.
pub const LOGS: &str = "logs";
/// Records of format 1 had one folder of metrics.
const METRICS_OF_FORMAT_1: &str = "metrics";
/// How much of a log's end stands in the page, in lines.
const LOG_END_LINES: usize = 15;

/// A record's folder, ready to be written to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    log_ends: Vec<LogEnd>,
}

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
            let ours = [markdown::PAGE_FILE, html::PAGE_FILE, RECORD_FILE, LOGS, METRICS_OF_FORMAT_1];
            if !ours.iter().chain(&METRICS).any(|ours| name == *ours) {
                return Err(FolderError::Occupied(path));
            }
        }
        let page = [markdown::PAGE_FILE, html::PAGE_FILE].iter().any(|page| path.join(page).exists());
        if page && !path.join(RECORD_FILE).exists() {
            return Err(FolderError::Occupied(path));
        }
        for folder in [METRICS[0], METRICS[1], LOGS, METRICS_OF_FORMAT_1] {
            match fs::remove_dir_all(path.join(folder)) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
                _ => {}
            }
        }
        Ok(Self { path, log_ends: Vec::new() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps what the members told Prometheus at the beginning and at the end.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn metrics(&self, before: &Snapshot, after: &Snapshot, scrub: &Scrub) -> Result<(), FolderError> {
        let write = || {
            for (folder, snapshot) in METRICS.iter().zip([before, after]) {
                let folder = self.path.join(folder);
                fs::create_dir(&folder)?;
                for told in snapshot.members() {
                    fs::write(folder.join(format!("{}.prom", told.name)), scrub.clean(&told.text))?;
                }
            }
            Ok(())
        };
        write().map_err(|cause| self.failed(cause))
    }

    /// Keeps the logs that lie in `folder`, each the one of the member that it is named after.
    ///
    /// # Errors
    /// [`FolderError::Io`]. Without `folder` no member was started, which is none.
    pub fn logs(&mut self, folder: &Path, scrub: &Scrub) -> Result<(), FolderError> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|end| end == "log"));
        logs.sort();
        for log in logs {
            let Some(member) = log.file_stem().and_then(|name| name.to_str()) else { continue };
            let copy = || {
                fs::create_dir_all(self.path.join(LOGS))?;
                let to = File::create(self.path.join(LOGS).join(format!("{member}.log")))?;
                keep(BufReader::new(File::open(&log)?), BufWriter::new(to), scrub, LOG_END_LINES)
            };
            let lines = copy().map_err(|cause| self.failed(cause))?;
            self.log_ends.push(LogEnd { member: member.to_owned(), lines });
        }
        Ok(())
    }

    /// Keeps the record, as pages and for programs. Comes last: the pages show the ends of the logs that were kept.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn record(&self, record: &Record) -> Result<(), FolderError> {
        let write = || {
            let mut json = serde_json::to_string_pretty(record)?;
            json.push('\n');
            fs::write(self.path.join(RECORD_FILE), json)?;
            fs::write(self.path.join(markdown::PAGE_FILE), markdown::render(record))?;
            fs::write(self.path.join(html::PAGE_FILE), html::render(record, &self.log_ends))
        };
        write().map_err(|cause: io::Error| self.failed(cause))
    }

    fn failed(&self, cause: io::Error) -> FolderError {
        FolderError::Io { path: self.path.clone(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::journal::tests::parameters;
    use crate::record::{Command, Journal, Outcome};

    fn record() -> Record {
        Journal::begin(Command::Demo, parameters(), io::sink()).finish(Outcome::Passed)
    }

    #[test]
    fn an_earlier_record_is_replaced_and_anything_else_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/report");
        let net = home.path().join("net");
        fs::create_dir(&net).unwrap();
        fs::write(net.join("old.log"), "x\n").unwrap();
        let mut folder = Folder::prepare(path.clone()).unwrap();
        folder.metrics(&Snapshot::default(), &Snapshot::default(), &Scrub::default()).unwrap();
        folder.logs(&net, &Scrub::default()).unwrap();
        folder.record(&record()).unwrap();
        assert!(path.join(LOGS).join("old.log").exists());

        let folder = Folder::prepare(path.clone()).unwrap();
        folder.record(&record()).unwrap();
        assert!(!path.join(LOGS).exists());
        let read: Record = serde_json::from_slice(&fs::read(path.join(RECORD_FILE)).unwrap()).unwrap();
        assert_eq!(read.outcome, Outcome::Passed);

        fs::write(path.join("thesis.txt"), "").unwrap();
        assert!(matches!(Folder::prepare(path.clone()), Err(FolderError::Occupied(_))));
        assert!(path.join("thesis.txt").exists() && path.join(RECORD_FILE).exists());
    }

    #[test]
    fn somebody_elses_pages_are_not_overwritten() {
        for page in [markdown::PAGE_FILE, html::PAGE_FILE] {
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join(page), "mine").unwrap();
            assert!(matches!(Folder::prepare(home.path().to_owned()), Err(FolderError::Occupied(_))));
        }
    }

    #[test]
    fn a_kept_log_names_no_folder_of_the_machine_and_its_end_stands_in_the_page() {
        let home = tempfile::tempdir().unwrap();
        let net = home.path().join("net");
        fs::create_dir(&net).unwrap();
        fs::write(net.join("x.log"), "INFO data=/tmp/q1/net/x\n<script>from /home/ana/files/a.txt\n")
            .unwrap();
        let scrub = Scrub::default()
            .folder(Path::new("/tmp/q1/net"), "DEMO")
            .folder(Path::new("/home/ana/files"), "SHARED");
        let mut folder = Folder::prepare(home.path().join("report")).unwrap();
        folder.logs(&net, &scrub).unwrap();
        folder.record(&record()).unwrap();
        let kept = fs::read_to_string(folder.path().join(LOGS).join("x.log")).unwrap();
        assert_eq!(kept, "INFO data=DEMO/x\n<script>from SHARED/a.txt\n");
        let page = fs::read_to_string(folder.path().join(html::PAGE_FILE)).unwrap();
        assert!(page.contains("&lt;script&gt;from SHARED/a.txt"), "{page}");
    }
}
