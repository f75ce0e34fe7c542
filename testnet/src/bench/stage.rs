//! Where transfers are measured: members on hosts of their own, and what they spend.
//!
//! Everything is gone when a [`Stage`] is dropped: processes first, then hosts, then files.

use super::OrFailure;
use crate::cluster::{Cluster, ClusterError, Member, Plan, Programs};
use crate::netns::Lan;
use crate::{original, samples, sampling, up};
use quarta_daemon::cli::Failure;
use quarta_node::api::model::{File, Transfer};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Disk space beside the files, in bytes: nobody's cluster may fill a disk to its last block.
const SPARE_BYTES: u64 = 256 << 20;

/// Members on hosts, and files for them.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) lan: Lan,
    home: TempDir,
}

/// A file to share, on the disk that the members' data lies on.
pub(super) struct Original {
    pub(super) path: PathBuf,
    sha256: String,
}

/// A fetch, timed from its request to its verified end.
pub(super) struct Fetched {
    pub(super) took: Duration,
    /// Processor seconds, user and system, of whoever sent.
    pub(super) sender_seconds: f64,
    /// The same of whoever received.
    pub(super) receiver_seconds: f64,
    pub(super) transfer: Transfer,
}

impl Stage {
    /// A super-peer and `nodes` nodes that keep no replicas, each on a host of its own, beside hosts for `others`; with
    /// space on the disk for `files_bytes`.
    pub(super) async fn set(nodes: usize, others: &[&str], files_bytes: u64) -> Result<Self, Failure> {
        Self::set_with(nodes, others, files_bytes, |_| {}).await
    }

    /// As [`Stage::set`], after `change` to the plan.
    pub(super) async fn set_with(
        nodes: usize,
        others: &[&str],
        files_bytes: u64,
        change: impl FnOnce(&mut Plan),
    ) -> Result<Self, Failure> {
        let home = up::temporary("quarta-bench-")?;
        let programs = Programs::this_executable().map_err(ClusterError::system("find this program"));
        let mut plan =
            Plan::new(home.path().join("net"), programs.or_failure()?, 1, nodes).keeping_at_most(1);
        plan.files_bytes = files_bytes.saturating_add(SPARE_BYTES);
        change(&mut plan);
        let lan = Lan::new(&plan, others).or_failure()?;
        lan.place(&mut plan).or_failure()?;
        let cluster = Cluster::start(plan, |step| eprintln!("{step}")).await.or_failure()?;
        Ok(Self { cluster, lan, home })
    }

    /// The name of the node with this number, from 0.
    pub(super) fn node(&self, number: usize) -> Result<&Member, Failure> {
        self.cluster.nodes().nth(number).ok_or_else(|| ClusterError::Unknown(number.to_string())).or_failure()
    }

    /// A folder for what is neither a member's data nor a log.
    pub(super) fn folder(&self) -> Result<PathBuf, Failure> {
        let folder = self.home.path().join("files");
        std::fs::create_dir_all(&folder).map_err(ClusterError::system("make a folder")).or_failure()?;
        Ok(folder)
    }

    /// Writes a file of pseudo-random bytes; it lies in the page cache then.
    pub(super) fn write(&self, size_bytes: u64) -> Result<Original, Failure> {
        eprintln!("writing a file of {}", quarta_daemon::cli::size(size_bytes));
        Original::write(&self.folder()?, "original.bin", size_bytes)
    }

    /// Shares a file at a node under a name; each time it is a content of its own.
    pub(super) async fn share(&self, at: usize, original: &Original, name: &str) -> Result<File, Failure> {
        self.node(at)?.node().add(&original.path, Some(name.to_owned())).await.or_failure()
    }

    /// Lets the node with number `to` fetch a file, and compares what it says to have got with the original.
    pub(super) async fn fetch(
        &self,
        from: usize,
        to: usize,
        file: &File,
        original: &Original,
    ) -> Result<Fetched, Failure> {
        let (sender, receiver) = (spent(self.node(from)?), spent(self.node(to)?));
        let started = Instant::now();
        let transfer = self.node(to)?.node().fetched(&file.id).await.or_failure()?;
        let took = started.elapsed();
        let sender_seconds = spent(self.node(from)?) - sender;
        let receiver_seconds = spent(self.node(to)?) - receiver;
        original.check(&transfer.name, transfer.sha256.as_deref())?;
        Ok(Fetched { took, sender_seconds, receiver_seconds, transfer })
    }

    /// Ends a node that has done its part, and frees what its data takes of the disk.
    pub(super) async fn dismiss(&mut self, number: usize) -> Result<(), Failure> {
        let name = self.node(number)?.name().to_owned();
        self.cluster.end(&name).await.or_failure()?;
        let data = self.node(number)?.data().to_owned();
        std::fs::remove_dir_all(data).map_err(ClusterError::system("remove a node's data")).or_failure()
    }
}

impl Original {
    /// Writes a file of pseudo-random bytes.
    pub(super) fn write(folder: &Path, name: &str, size_bytes: u64) -> Result<Self, Failure> {
        let path = folder.join(name);
        let written = samples::write_bulk(&path, name, size_bytes);
        written.map_err(ClusterError::system("write a file to share")).or_failure()?;
        let sha256 = original::sha256(&path).map_err(ClusterError::system("read a file to share"));
        Ok(Self { sha256: sha256.or_failure()?, path })
    }

    /// Fails where a node has other bytes, or does not say which.
    pub(super) fn check(&self, name: &str, sha256: Option<&str>) -> Result<(), Failure> {
        if sha256 == Some(self.sha256.as_str()) {
            return Ok(());
        }
        Err(Failure::new(
            format!("{name} came to be with other bytes"),
            format!("its checksum is {}, not {}", sha256.unwrap_or("not known"), self.sha256),
            "please report this as a bug",
        ))
    }
}

/// Processor seconds that a member's process has spent, user and system; 0 where none runs.
pub(super) fn spent(member: &Member) -> f64 {
    member.pid().and_then(sampling::processor_seconds).unwrap_or_default()
}

/// MiB a second.
pub(super) fn mib_per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / took.as_secs_f64()
}
