//! One large file from one node to another over an unshaped link, beside curl from nginx over the same one.
//!
//! Every run has a receiver of its own, which is a member already and has nothing; nginx and the holder are on the same
//! host and read from the same disk, where the file is in the page cache. Between two transfers of Quarta stands one of
//! curl's, so that whatever else the machine does hits both. What a transfer takes counts from its request to the
//! verified file in its place, durable on the disk; curl's file is neither verified nor durable at its end.

use super::figures::{self, Figure, Target};
use super::stage::{Stage, mib_per_second};
use super::web::WebServer;
use quarta_daemon::cli::{ExitCode, Failure};

/// What is to be reached, of curl's rate.
const RATIO_TO_REACH: f64 = 0.5;

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
    // The original, the holder's copy, and one that arrives by either way.
    let mut stage = Stage::set(1 + runs, &[], 3 * size_bytes).await?;
    let original = stage.write(size_bytes)?;
    let file = stage.share(0, &original, "gravacao.bin").await?;
    let holder = stage.node(0)?.name().to_owned();
    let folder = stage.folder()?;
    let web = WebServer::start(&stage.lan, &holder, &original.path, &folder).await?;
    let mut rates = [vec![], vec![]];
    let mut spent = [vec![], vec![], vec![], vec![]];
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        let fetched = stage.fetch(0, run, &file, &original).await?;
        rates[0].push(mib_per_second(size_bytes, fetched.took));
        spent[0].push(fetched.sender_seconds);
        spent[1].push(fetched.receiver_seconds);
        if let Some(web) = &web {
            let host = stage.node(run)?.name().to_owned();
            let downloaded = web.download(&stage.lan, &host, &folder.join("download")).await?;
            rates[1].push(mib_per_second(size_bytes, downloaded.took));
            spent[2].push(downloaded.sender_seconds);
            spent[3].push(downloaded.receiver_seconds);
        }
        stage.dismiss(run).await?;
    }
    drop(web);
    let ratios = rates[0].iter().zip(&rates[1]).map(|(own, other)| own / other).collect();
    let [own, other] = rates;
    let [sent, received, nginx, curl] = spent;
    let seconds = |what: &str, runs| Figure::of(format!("{what}, processor time"), "s", runs);
    figures::print(
        &[
            Figure::of("Quarta, sealed, verified, durable", "MiB/s", own),
            Figure::of("nginx to curl", "MiB/s", other),
            Figure::of("Quarta to curl", "", ratios).to_reach(Target::AtLeast(RATIO_TO_REACH)),
            seconds("holder", sent),
            seconds("receiver", received),
            seconds("nginx", nginx),
            seconds("curl", curl),
        ],
        json,
    )
}
