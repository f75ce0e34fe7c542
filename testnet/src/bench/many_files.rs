//! Ten thousand small files from one node to another over an unshaped link, all asked for at once.
//!
//! It counts from the first request to the last verified file in its place. Every run has a receiver of its own.

use super::OrFailure;
use super::figures::{self, Figure, Target};
use super::stage::{Stage, mib_per_second, spent};
use crate::cluster::ClusterError;
use crate::samples;
use futures::stream::{self, StreamExt, TryStreamExt};
use quarta_daemon::cli::{ExitCode, Failure};
use std::time::Instant;

/// What is to be reached, in files a second.
const TO_REACH: f64 = 1000.0;
/// Requests open at once, each on a connection of its own; the node may be asked for more than it carries out.
const ASKED_AT_ONCE: usize = 256;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many files.
    pub files: u32,
    /// The size of each, in bytes.
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
    let Options { files, size_bytes, runs, json } = options;
    let all_bytes = u64::from(files) * size_bytes;
    let mut stage = Stage::set(1 + runs, &[], 3 * all_bytes).await?;
    let folder = stage.folder()?.join("fotos");
    std::fs::create_dir_all(&folder).map_err(ClusterError::system("make a folder")).or_failure()?;
    for number in 0..files {
        let name = format!("foto {number:05}.jpg");
        let written = samples::write_bulk(&folder.join(&name), &name, size_bytes);
        written.map_err(ClusterError::system("write a file to share")).or_failure()?;
    }
    eprintln!("sharing {files} files");
    let started = Instant::now();
    let shared = stage.node(0)?.node().add_folder(&folder).await.or_failure()?;
    let added = shared.len() as f64 / started.elapsed().as_secs_f64();
    let (mut rates, mut speeds, mut sender, mut receiver) = (vec![], vec![], vec![], vec![]);
    for run in 1..=runs {
        let node = stage.node(run)?;
        eprintln!("run {run} of {runs}");
        let before = (spent(stage.node(0)?), spent(node));
        let started = Instant::now();
        let api = node.node();
        stream::iter(&shared)
            .map(async |file| {
                let transfer = api.fetched(&file.id).await.or_failure()?;
                if transfer.sha256 == file.sha256 { Ok(()) } else { Err(other_bytes(&transfer.name)) }
            })
            .buffer_unordered(ASKED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let took = started.elapsed();
        rates.push(shared.len() as f64 / took.as_secs_f64());
        speeds.push(mib_per_second(all_bytes, took));
        sender.push(spent(stage.node(0)?) - before.0);
        receiver.push(spent(node) - before.1);
        stage.dismiss(run).await?;
    }
    let figures = [
        Figure::of("fetched and verified", "files/s", rates).to_reach(Target::AtLeast(TO_REACH)),
        Figure::of("bytes of them", "MiB/s", speeds),
        Figure::of("added before, as a folder", "files/s", vec![added]),
        Figure::of("holder, processor time", "s", sender),
        Figure::of("receiver, processor time", "s", receiver),
    ];
    figures::print(&figures, json)
}

fn other_bytes(name: &str) -> Failure {
    Failure::new(
        format!("{name} arrived with other bytes"),
        "its checksum is another than at its owner",
        "please report this as a bug",
    )
}
