//! A flash crowd: one holder, and everybody else asks for its file at once, on lines that are limited each way.
//!
//! The bound is what the first holder's line takes to send the file once: no receiver can be done before, and all could
//! be then, if each passed on what it has. It counts from the first request to the last verified file. Each run shares
//! the same bytes anew, which makes another content of them.

use super::OrFailure;
use super::figures::{self, Figure, Target};
use super::stage::Stage;
use futures::future::try_join_all;
use quarta_daemon::cli::{ExitCode, Failure};
use std::time::Instant;

/// What is to be reached by the last, of the bound, on lines of this rate and above that lose nothing ...
const FAST_TO_REACH: (u32, f64) = (100, 1.25);
/// ... and on others.
const SLOW_TO_REACH: f64 = 1.35;
/// How many times the first holder may send the file.
const SENT_TO_REACH: f64 = 1.5;
/// Bits in what a rate is given in.
const MEGABIT: u64 = 1_000_000;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The file's size, in bytes.
    pub size_bytes: u64,
    /// How many ask for it.
    pub receivers: usize,
    /// What each line takes, in Mbit/s each way with all headers.
    pub rate: u32,
    /// How many frames are lost, in hundredths.
    pub loss_per_cent: u32,
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
    let Options { size_bytes, receivers, rate, loss_per_cent, runs, json } = options;
    let files_bytes = ((1 + receivers) * runs + 1) as u64 * size_bytes;
    let stage = Stage::set(1 + receivers, &[], files_bytes).await?;
    let original = stage.write(size_bytes)?;
    let bits = u64::from(rate) * MEGABIT;
    for node in 0..=receivers {
        let host = stage.node(node)?.name();
        stage.lan.limit_sending(host, bits).or_failure()?;
        stage.lan.limit_receiving(host, bits).or_failure()?;
    }
    if loss_per_cent > 0 {
        stage.lan.lose(loss_per_cent).or_failure()?;
    }
    let bound = size_bytes as f64 * 8.0 / bits as f64;
    let (mut last, mut middle, mut first_sent) = (vec![], vec![], vec![]);
    for run in 1..=runs {
        let file = stage.share(0, &original, &format!("gravacao {run}.bin")).await?;
        eprintln!("run {run} of {runs}");
        let before = sent_bytes(&stage).await?;
        let started = Instant::now();
        let fetches = (1..=receivers).map(async |receiver| {
            let fetched = stage.fetch(0, receiver, &file, &original).await?;
            eprintln!("  {} is done after {:.1} s", stage.node(receiver)?.name(), fetched.took.as_secs_f64());
            Ok::<_, Failure>(fetched.took.as_secs_f64())
        });
        let times = try_join_all(fetches).await?;
        last.push(started.elapsed().as_secs_f64() / bound);
        middle.push(figures::median(&times) / bound);
        first_sent.push((sent_bytes(&stage).await? - before) as f64 / size_bytes as f64);
    }
    let (fast, fast_to_reach) = FAST_TO_REACH;
    let to_reach = if rate >= fast && loss_per_cent == 0 { fast_to_reach } else { SLOW_TO_REACH };
    let figures = [
        Figure::of("the bound", "s", vec![bound]),
        Figure::of("the last is done, of the bound", "", last).to_reach(Target::AtMost(to_reach)),
        Figure::of("the median is done, of the bound", "", middle),
        Figure::of("the first holder sends, of the file", "", first_sent)
            .to_reach(Target::AtMost(SENT_TO_REACH)),
    ];
    figures::print(&figures, json)
}

/// What the first holder has sent, sealed, in bytes.
async fn sent_bytes(stage: &Stage) -> Result<u64, Failure> {
    Ok(stage.node(0)?.node().status().await.or_failure()?.served_bytes)
}
