//! `quarta-testnet demo`: the main job from end to end, with everything that it claims checked.
//!
//! **What is guaranteed.** It exits 0 only if every check held; each stands in the record, with what was found. Every
//! copy that a node fetched is compared with the original byte by byte and by SHA-256. Temporary data goes however the
//! run ends; the report stays, also of a failed one. Disk space is stated and checked before anything large is written.
//!
//! In reading order: `source` decides what is shared; `run` holds the stages together; then come `sharing`,
//! `fetching`, `churn` and `inspection`, one file for each part of the job.

mod churn;
mod fetching;
mod inspection;
mod run;
mod sharing;
mod source;

use crate::cluster::{ClusterError, Plan, Programs, space};
use crate::original;
use crate::record::folder::Folder;
use crate::record::html;
use crate::record::markdown::{TRANSFER_HEADER, transfer_cells};
use crate::record::scrub::Scrub;
use crate::record::{CheckFailed, Command, Journal, Outcome, Parameters, Record};
use crate::up::{temporary, told};
use quarta_daemon::cli::{ExitCode, Failure, Output, size};
use quarta_daemon::shutdown;
use run::Run;
use source::Source;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Fewest nodes: an owner, two more holders of which one is killed, and one that fetches meanwhile.
pub const NODES_MIN: usize = 4;
/// Smallest bulk file: below it, a transfer ends before a holder can be killed in its middle.
pub const BIG_SIZE_MIN_BYTES: u64 = 64 << 20;

/// What is to be shown.
#[derive(Debug, Clone)]
pub struct Options {
    /// A person's folder to share; none for the samples.
    pub share: Option<PathBuf>,
    /// Where the report goes; none for a new folder here, named by the time.
    pub report: Option<PathBuf>,
    /// Super-peers, at least one.
    pub superpeers: usize,
    /// Nodes, at least [`NODES_MIN`].
    pub nodes: usize,
    /// Size of the bulk file, at least [`BIG_SIZE_MIN_BYTES`].
    pub big_size_bytes: u64,
    /// How often super-peers poll.
    pub poll_interval: Duration,
}

/// Why a demo did not pass.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Check(#[from] CheckFailed),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Folder(#[from] original::FolderError),
    #[error("cannot write the samples: {0}")]
    Samples(io::Error),
    #[error("a task ended unexpectedly: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("interrupted")]
    Interrupted,
}

/// Runs the demo.
///
/// # Errors
/// A [`Failure`] when something did not hold or could not be done.
pub async fn run(options: Options) -> Result<ExitCode, Failure> {
    println!(
        "Quarta's main job, on this machine: {} super-peers, {} nodes",
        options.superpeers, options.nodes
    );
    let interrupted = shutdown::on_signals().map_err(|cause| {
        Failure::new("cannot start", cause.to_string(), "check the limits on this user's processes")
    })?;
    let source = Source::choose(options.share.as_deref(), options.big_size_bytes)
        .map_err(|error| Failure::told(&error))?;
    let work = temporary("quarta-demo-")?;
    let programs =
        Programs::this_executable().map_err(ClusterError::system("find this program")).map_err(told)?;
    let mut plan = Plan::new(work.path().join("net"), programs, options.superpeers, options.nodes)
        .polling_every(options.poll_interval)
        // What is measured is how people's transfers share the load: replicas would be further holders, and made meanwhile.
        .keeping_at_most(1);
    // Every node ends up with a copy of every file.
    plan.files_bytes = source.shared_bytes().saturating_mul(options.nodes as u64);
    let disk_bytes = plan.need_bytes().saturating_add(source.written_bytes());
    space::require(work.path(), disk_bytes).map_err(told)?;
    let report = report_folder(options.report)?;

    let parameters = Parameters {
        superpeers: options.superpeers,
        nodes: options.nodes,
        shared: if options.share.is_some() { "folder" } else { "samples" }.to_owned(),
        big_size_bytes: source.big_size_bytes(),
        poll_interval_ms: u64::try_from(options.poll_interval.as_millis()).unwrap_or(u64::MAX),
        disk_bytes,
    };
    let mut run = Run::new(
        Journal::begin(Command::Demo, parameters, io::stdout()),
        source,
        work.path().join("samples"),
    );
    println!("{} of disk are needed in {} and are free", size(disk_bytes), work.path().display());
    let result = tokio::select! {
        result = run.stages(plan) => result,
        () = interrupted.cancelled() => Err(DemoError::Interrupted),
    };
    let shared_folder = options.share.as_deref();
    finish(run, result, report, work, shared_folder).await
}

/// Where the report goes, made now so that a bad name fails before the work.
fn report_folder(chosen: Option<PathBuf>) -> Result<Folder, Failure> {
    let path = chosen.unwrap_or_else(|| {
        format!("quarta-demo-report-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")).into()
    });
    Folder::prepare(path).map_err(|error| Failure::told(&error))
}

/// Stops everything, keeps the report, removes the rest, and says how it went.
async fn finish(
    mut run: Run,
    result: Result<(), DemoError>,
    mut report: Folder,
    work: TempDir,
    shared_folder: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let result = match result {
        Ok(()) => run.stop().await,
        Err(error) => {
            run.abandon().await;
            Err(error)
        }
    };
    let mut scrub = run.tokens.iter().fold(Scrub::default(), |scrub, token| scrub.secret(token, "TOKEN"));
    scrub = scrub.folder(work.path(), "DEMO");
    if let Some(folder) = shared_folder {
        scrub = scrub.folder(folder, "SHARED");
    }
    let (outcome, next) = match &result {
        Ok(()) => (Outcome::Passed, ""),
        Err(DemoError::Interrupted) => (Outcome::Interrupted, "run it again"),
        // The path is of no use to anybody once the folder is gone.
        Err(error) => {
            (Outcome::Failed { why: scrub.clean(&error.to_string()) }, "see the logs in the report")
        }
    };
    run.journal.snapshots(&run.before, &run.after);
    let record = run.journal.finish(outcome);
    let kept = report
        .logs(&work.path().join("net"), &scrub)
        .and_then(|()| report.metrics(&run.before, &run.after, &scrub))
        .and_then(|()| report.record(&record));
    drop(work);
    print_result(&record)?;
    kept.map_err(|error| Failure::told(&error))?;
    println!("\nReport: {}", report.path().join(html::PAGE_FILE).display());
    match record.outcome {
        Outcome::Passed => {
            println!("Passed: {} checks held in {:.1} s", record.checks.len(), record.seconds);
            Ok(ExitCode::Success)
        }
        Outcome::Failed { why } => Err(Failure::new("the demo failed", why, next)),
        Outcome::Interrupted | Outcome::Ended => {
            Err(Failure::new("the demo did not end", "it was interrupted", next))
        }
    }
}

fn print_result(record: &Record) -> Result<(), Failure> {
    if record.transfers.is_empty() {
        return Ok(());
    }
    println!("\nWho fetched what from whom:");
    Output::stdout(false).table(&TRANSFER_HEADER, &record.transfers, transfer_cells)
}
