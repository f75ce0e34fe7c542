//! One large file from several holders with limited uplinks, beside curl from nginx over one link of the summed rate.
//!
//! Every holder has the whole file before its line is limited; the receiver's own line is not. A receiver of its own for
//! every run, and a transfer of curl's after each of Quarta's.

use super::OrFailure;
use super::figures::{self, Figure, Target};
use super::stage::{Stage, mib_per_second};
use super::web::WebServer;
use quarta_daemon::cli::{ExitCode, Failure};

/// What is to be reached with equal uplinks, of curl's rate.
const EQUAL_TO_REACH: f64 = 0.97;
/// What is to be reached with different ones.
const DIFFERENT_TO_REACH: f64 = 0.94;
/// The host of nginx, whose line has the summed rate.
const WEB: &str = "web";
/// Bits in what a rate is given in.
const MEGABIT: u64 = 1_000_000;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file's size, in bytes.
    pub size_bytes: u64,
    /// What each holder's line takes, in Mbit/s with all headers.
    pub rates: Vec<u32>,
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
    let Options { size_bytes, rates, runs, json } = options;
    let holders = rates.len();
    let files_bytes = (holders as u64 + 2) * size_bytes;
    let mut stage = Stage::set(holders + runs, &[WEB], files_bytes).await?;
    let original = stage.write(size_bytes)?;
    let file = stage.share(0, &original, "gravacao.bin").await?;
    for holder in 1..holders {
        stage.fetch(0, holder, &file, &original).await?;
    }
    for (holder, rate) in rates.iter().enumerate() {
        let host = stage.node(holder)?.name();
        stage.lan.limit_sending(host, u64::from(*rate) * MEGABIT).or_failure()?;
    }
    let sum: u64 = rates.iter().map(|rate| u64::from(*rate)).sum();
    stage.lan.limit_sending(WEB, sum * MEGABIT).or_failure()?;
    let folder = stage.folder()?;
    let web = WebServer::start(&stage.lan, WEB, &original.path, &folder).await?;
    let mut speeds = [vec![], vec![]];
    let mut shares = vec![vec![]; holders];
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        let number = holders + run - 1;
        let fetched = stage.fetch(0, number, &file, &original).await?;
        speeds[0].push(mib_per_second(size_bytes, fetched.took));
        for (holder, share) in shares.iter_mut().enumerate() {
            let name = stage.node(holder)?.name();
            let source = fetched.transfer.sources.iter().find(|source| source.name == name);
            share.push(source.map_or(0.0, |source| source.bytes as f64 / size_bytes as f64));
        }
        if let Some(web) = &web {
            let host = stage.node(number)?.name().to_owned();
            let downloaded = web.download(&stage.lan, &host, &folder.join("download")).await?;
            speeds[1].push(mib_per_second(size_bytes, downloaded.took));
        }
        stage.dismiss(number).await?;
    }
    drop(web);
    let equal = rates.windows(2).all(|pair| pair[0] == pair[1]);
    let to_reach = Target::AtLeast(if equal { EQUAL_TO_REACH } else { DIFFERENT_TO_REACH });
    let ratios = speeds[0].iter().zip(&speeds[1]).map(|(own, other)| own / other).collect();
    let [own, other] = speeds;
    let mut figures = vec![
        Figure::of(format!("Quarta from {holders} holders"), "MiB/s", own),
        Figure::of(format!("nginx to curl over {sum} Mbit/s"), "MiB/s", other),
        Figure::of("Quarta to curl", "", ratios).to_reach(to_reach),
    ];
    for (rate, share) in rates.iter().zip(shares) {
        figures.push(Figure::of(format!("share of the holder with {rate} Mbit/s"), "", share));
    }
    figures::print(&figures, json)
}
