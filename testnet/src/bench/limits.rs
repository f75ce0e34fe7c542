//! How well a node keeps the limit on what it sends.
//!
//! A node with a limit sends one large file over an unshaped link; what it has sent is read before and after a stretch
//! of time in the middle of the transfer.

use super::OrFailure;
use super::figures::{self, Figure, Target};
use super::stage::Stage;
use crate::cluster::ClusterError;
use crate::wait::{Look, until};
use quarta_daemon::cli::{ExitCode, Failure};
use std::time::{Duration, Instant};

/// What is to be reached: so far from the limit at most.
const TO_REACH: f64 = 0.05;
/// Over how long.
const STRETCH: Duration = Duration::from_secs(10);
/// What is sent before it counts: a bucket that was full at the beginning is empty then.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the transfer may take to begin.
const BEGIN_DEADLINE: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The limit, in bytes a second.
    pub bytes_per_second: u64,
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
    let Options { bytes_per_second, runs, json } = options;
    // Twice what passes while it is looked at, so that a limit that is not kept shows.
    let size_bytes = 2 * bytes_per_second * (WARM_UP + STRETCH).as_secs();
    let limit = ["--upload-limit".to_owned(), bytes_per_second.to_string()];
    let mut stage = Stage::set_with(1 + runs, &[], 3 * size_bytes, |plan| {
        if let Some(node) = plan.members.iter_mut().find(|member| member.role == quarta_daemon::Role::Node) {
            node.serve_args.extend(limit.map(Into::into));
        }
    })
    .await?;
    let original = stage.write(size_bytes)?;
    let file = stage.share(0, &original, "gravacao.bin").await?;
    let (mut rates, mut off) = (vec![], vec![]);
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        let (sender, receiver) = (stage.node(0)?.node(), stage.node(run)?.node());
        let before = sender.status().await.or_failure()?.served_bytes;
        let rate = {
            let measuring = async {
                until(BEGIN_DEADLINE, async || match sender.status().await {
                    Ok(status) => Look::of((status.served_bytes > before).then_some(()), || {
                        "nothing was sent yet".to_owned()
                    }),
                    Err(error) => Look::failed(error),
                })
                .await
                .map_err(ClusterError::Apart)
                .or_failure()?;
                tokio::time::sleep(WARM_UP).await;
                let (first, since) = (sender.status().await.or_failure()?.served_bytes, Instant::now());
                tokio::time::sleep(STRETCH).await;
                let last = sender.status().await.or_failure()?.served_bytes;
                Ok::<_, Failure>((last - first) as f64 / since.elapsed().as_secs_f64())
            };
            tokio::select! {
                rate = measuring => rate?,
                ended = receiver.fetched(&file.id) => {
                    ended.or_failure()?;
                    return Err(Failure::new(
                        "the limit is not kept",
                        "the file arrived before its time",
                        "please report this as a bug",
                    ));
                }
            }
        };
        rates.push(rate / f64::from(1 << 20));
        off.push((rate / bytes_per_second as f64 - 1.0).abs());
        stage.dismiss(run).await?;
    }
    let figures = [
        Figure::of("the limit", "MiB/s", vec![bytes_per_second as f64 / f64::from(1 << 20)]),
        Figure::of(format!("sent over {} s", STRETCH.as_secs()), "MiB/s", rates),
        Figure::of("off the limit", "", off).to_reach(Target::AtMost(TO_REACH)),
    ];
    figures::print(&figures, json)
}
