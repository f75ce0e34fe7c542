//! How long a search over a node's HTTP API takes with very many files in the network.
//!
//! One super-peer and one node run as processes; a guest publishes the records of files that nobody holds, which is all
//! that listing and searching look at. Then the node is asked over TCP with its token, as a browser would, one request
//! after the other: listings from the beginning and from far behind, words that many, few and no names contain, two
//! letters. Whole answers are read.

use super::Latencies;
use super::records::record;
use crate::api;
use crate::cluster::{Cluster, ClusterError, Member, Plan, Programs};
use crate::guest::Guest;
use quarta_daemon::cli::{ExitCode, Failure};
use quarta_daemon::client::Target;
use quarta_node::api::model::FilePage;
use std::time::{Duration, Instant};

/// What is to be reached: 95 of 100 searches are answered within this.
pub const P95_TO_REACH: Duration = Duration::from_millis(50);
/// Requests of each kind before those that count.
const WARM_UP: usize = 5;
/// How far behind the beginning a listing is asked for, in pages.
const PAGES_BEHIND: usize = 20;
/// How long an invite needs to live for one guest.
const INVITE_LIFETIME: Duration = Duration::from_mins(10);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Files in the network.
    pub files: u32,
    /// Requests of each kind that count.
    pub requests: usize,
}

/// A kind of search, and how long its requests took.
#[derive(Debug)]
pub struct Measured {
    /// What was searched for, in words.
    pub kind: &'static str,
    /// How many files the first page showed.
    pub shown: usize,
    /// How long the requests took.
    pub latencies: Latencies,
}

/// All requests of all kinds together.
pub fn together(measured: &[Measured]) -> Latencies {
    Latencies::of(measured.iter().flat_map(|kind| kind.latencies.iter()).collect())
}

/// Runs the benchmark as a command.
///
/// # Errors
/// A [`Failure`] where it cannot be run.
pub async fn run(options: Options) -> Result<ExitCode, Failure> {
    let home = crate::up::temporary("quarta-bench-")?;
    let programs = Programs::this_executable().map_err(ClusterError::system("find this program"));
    let plan = Plan::new(home.path().join("net"), programs.map_err(|e| Failure::told(&e))?, 1, 1);
    let cluster = Cluster::start(plan, |step| eprintln!("{step}")).await.map_err(|e| Failure::told(&e))?;
    eprintln!("publishing {} records", options.files);
    let measured = measure(&cluster, options).await.map_err(|e| Failure::told(&e))?;
    for kind in &measured {
        println!("{:32} {:4} shown   {}", kind.kind, kind.shown, kind.latencies);
    }
    let all = together(&measured);
    println!("{:32}              {all}", "all");
    let reached = all.percentile(95) <= P95_TO_REACH;
    println!(
        "{} files: p95 {:.1} ms, to reach {} ms: {}",
        options.files,
        all.percentile(95).as_secs_f64() * 1e3,
        P95_TO_REACH.as_millis(),
        if reached { "reached" } else { "missed" }
    );
    cluster.stop().await.map_err(|e| Failure::told(&e))?;
    Ok(if reached { ExitCode::Success } else { ExitCode::Failure })
}

/// Fills the catalog of a running cluster's first super-peer, and searches at its first node.
///
/// # Errors
/// [`ClusterError`].
pub async fn measure(cluster: &Cluster, options: Options) -> Result<Vec<Measured>, ClusterError> {
    fill(cluster, options.files).await?;
    let unknown = || ClusterError::Unknown("node".to_owned());
    let node = cluster.nodes().next().ok_or_else(unknown)?;
    let far = cursor_behind(node, PAGES_BEHIND).await?;
    let files = Target::new("/api/v1/files");
    let query = |text: &str| files.clone().query("query", text);
    let kinds = [
        ("all files, first page", files.clone()),
        (
            "all files, page 21",
            far.map_or_else(|| files.clone(), |cursor| files.clone().query("cursor", &cursor)),
        ),
        ("a word in an eighth of the names", query("verao")),
        ("two words in few names", query("banner 000")),
        ("a number in few names", query("000012")),
        ("two letters", query("in")),
        ("letters in no name", query("zzqzz")),
    ];
    let mut measured = Vec::with_capacity(kinds.len());
    for (kind, target) in kinds {
        let mut latencies = Vec::with_capacity(options.requests);
        let mut shown = 0;
        for number in 0..WARM_UP + options.requests {
            let started = Instant::now();
            shown = page(node, &target).await?.files.len();
            if number >= WARM_UP {
                latencies.push(started.elapsed());
            }
        }
        measured.push(Measured { kind, shown, latencies: Latencies::of(latencies) });
    }
    Ok(measured)
}

async fn fill(cluster: &Cluster, files: u32) -> Result<(), ClusterError> {
    let superpeer =
        cluster.superpeers().next().ok_or_else(|| ClusterError::Unknown("super-peer".to_owned()))?;
    let invite = superpeer.superpeer().invite("node", 1, INVITE_LIFETIME).await?.invite;
    let guest = Guest::join("filial-acervo", &cluster.dir().join("guest"), &invite).await?;
    let records = (0..files).map(|number| record(guest.identity(), number)).collect();
    guest.publish(records).await
}

/// The cursor after so many pages of all files; none where there are fewer.
async fn cursor_behind(node: &Member, pages: usize) -> Result<Option<String>, ClusterError> {
    let mut target = Target::new("/api/v1/files");
    let mut next = None;
    for _ in 0..pages {
        next = page(node, &target).await?.next;
        let Some(cursor) = &next else { break };
        target = Target::new("/api/v1/files").query("cursor", cursor);
    }
    Ok(next)
}

async fn page(node: &Member, target: &Target) -> Result<FilePage, ClusterError> {
    let failed = |why| ClusterError::Http { member: node.name().to_owned(), path: "/api/v1/files", why };
    let body = api::scrape(node.http(), target.as_str(), &node.token()?).await.map_err(failed)?;
    serde_json::from_str(&body).map_err(|error| failed(error.to_string()))
}
