//! Adding one large file that lies in the page cache: copied into the library, hashed, sealed, hashed again.
//!
//! It counts from the request to the answer that the file is shared: the copy durable on the disk, record and manifest in
//! the database.

use super::OrFailure;
use super::figures::{self, Figure, Target};
use super::stage::{Original, mib_per_second, spent};
use crate::cluster::{Cluster, ClusterError, Plan, Programs};
use quarta_daemon::cli::{ExitCode, Failure};
use std::time::Instant;

/// What is to be reached, in MiB a second.
const TO_REACH: f64 = 400.0;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The file's size, in bytes.
    pub size_bytes: u64,
    /// How often.
    pub runs: usize,
    /// Figures as JSON, one a line.
    pub json: bool,
}

/// Runs the benchmark as a command.
///
/// # Errors
/// A [`Failure`] where it cannot be run.
pub async fn run(options: Options) -> Result<ExitCode, Failure> {
    let Options { size_bytes, runs, json } = options;
    let home = crate::up::temporary("quarta-bench-")?;
    let programs = Programs::this_executable().map_err(ClusterError::system("find this program"));
    let mut plan = Plan::new(home.path().join("net"), programs.or_failure()?, 1, 1).keeping_at_most(1);
    plan.files_bytes = 3 * size_bytes;
    let cluster = Cluster::start(plan, |step| eprintln!("{step}")).await.or_failure()?;
    let original = Original::write(home.path(), "original.bin", size_bytes)?;
    let node =
        cluster.nodes().next().ok_or_else(|| ClusterError::Unknown("filial".to_owned())).or_failure()?;
    let (mut rates, mut seconds) = (vec![], vec![]);
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        let (before, started) = (spent(node), Instant::now());
        let file = node.node().add(&original.path, Some(format!("gravacao {run}.bin"))).await.or_failure()?;
        rates.push(mib_per_second(size_bytes, started.elapsed()));
        seconds.push(spent(node) - before);
        original.check(&file.name, file.sha256.as_deref())?;
        // The disk need not hold a copy for each run; the node takes note that this one is missing.
        let copy = node.data().join("library").join(&file.name);
        std::fs::remove_file(copy).map_err(ClusterError::system("remove a copy")).or_failure()?;
    }
    let figures = [
        Figure::of("added", "MiB/s", rates).to_reach(Target::AtLeast(TO_REACH)),
        Figure::of("the node, processor time", "s", seconds),
    ];
    figures::print(&figures, json)
}
