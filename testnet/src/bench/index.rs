//! The index at the size of a large network: how fast lists enter it, and how long it takes to name sources.
//!
//! One super-peer runs as a process. Guests of this process say that each of them holds every file, over the wire and
//! page by page, as nodes do after a super-peer's start. For *locate* one of them has published the files before, and
//! others then ask for sources at a fixed pace, whether earlier answers have come or not. What counts is the time inside
//! the super-peer, which it tells Prometheus.

use super::figures::{self, Figure, Target};
use super::records::{content, record};
use super::stage::spent;
use super::{Latencies, OrFailure};
use crate::cluster::{Cluster, ClusterError, Member, Plan, Programs};
use crate::exposition::Exposition;
use crate::guest::{Guest, List};
use crate::sampling;
use futures::future::try_join_all;
use quarta_daemon::cli::{ExitCode, Failure};
use quarta_protocols::ids::{ContentId, FileId, Sha256};
use quarta_protocols::messages::inventory::{Completeness, Item};
use quarta_protocols::names::FileName;
use rand::RngExt;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// What is to be reached by registration, in entries a second.
const ENTRIES_TO_REACH: f64 = 300_000.0;
/// What is to be reached by *locate*: 99 of 100 within this, in milliseconds.
const LOCATE_TO_REACH_MS: f64 = 2.0;
/// What is to be reached by the super-peer's memory, in MiB.
const MEMORY_TO_REACH: f64 = 1024.0;
/// Lists that are registered at once: the super-peer reads one page while it takes another in.
const LISTS_AT_ONCE: usize = 2;
/// How long an invite needs to live for all guests.
const INVITE_LIFETIME: Duration = Duration::from_hours(1);
/// Records that are made and published in one go: bounds what this process holds.
const RECORDS_AT_ONCE: u32 = 10_000;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Files in the network.
    pub files: u32,
    /// Nodes that hold each of them.
    pub holders: usize,
    /// Figures as JSON, one a line.
    pub json: bool,
}

/// How sources are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// Questions a second, of all together.
    pub rate: u32,
    /// Over how many connections.
    pub connections: u32,
    /// For how long.
    pub stretch: Duration,
}

/// Runs the benchmark of registration as a command.
///
/// # Errors
/// A [`Failure`] where it cannot be run.
pub async fn register(options: Options) -> Result<ExitCode, Failure> {
    let home = crate::up::temporary("quarta-bench-")?;
    let cluster = cluster(&home).await?;
    let superpeer = superpeer(&cluster)?;
    let guests = guests(&cluster, "filial", options.holders).await?;
    eprintln!("making a list of {} files", options.files);
    let list = List::of((0..options.files).map(library_item));
    let figures = hold(superpeer, &guests, &list, options).await?;
    figures::print(&figures, options.json)
}

/// Runs the benchmark of *locate* as a command.
///
/// # Errors
/// A [`Failure`] where it cannot be run.
pub async fn locate(options: Options, asking: Asking) -> Result<ExitCode, Failure> {
    let home = crate::up::temporary("quarta-bench-")?;
    let cluster = cluster(&home).await?;
    let superpeer = superpeer(&cluster)?;
    let holders = guests(&cluster, "filial", options.holders).await?;
    let askers = guests(&cluster, "loja", asking.connections as usize).await?;
    let publisher =
        holders.first().ok_or_else(|| ClusterError::Unknown("filial-1".to_owned())).or_failure()?;
    eprintln!("publishing {} records", options.files);
    for first in (0..options.files).step_by(RECORDS_AT_ONCE as usize) {
        let numbers = first..options.files.min(first.saturating_add(RECORDS_AT_ONCE));
        let records = numbers.map(|number| record(publisher.identity(), number)).collect();
        publisher.publish(records).await.or_failure()?;
    }
    let mut contents: Vec<ContentId> = (0..options.files).map(content).collect();
    contents.sort_unstable();
    let list = List::of(contents.iter().map(|content| Item::Vault {
        content: *content,
        size_bytes: 1,
        completeness: Completeness::Complete,
    }));
    let mut figures = hold(superpeer, &holders, &list, options).await?;
    eprintln!("asking {} times a second for {} s", asking.rate, asking.stretch.as_secs());
    let before = (spent(superpeer), Instant::now());
    let latencies = ask(askers, &contents, asking).await?;
    let core = (spent(superpeer) - before.0) / before.1.elapsed().as_secs_f64();
    let told = superpeer.scrape("/metrics").await.or_failure()?;
    let told = Exposition::parse(&told)
        .map_err(|why| ClusterError::Http {
            member: superpeer.name().to_owned(),
            path: "/metrics",
            why: why.to_string(),
        })
        .or_failure()?;
    let inside = quantile(&told, 0.99).map(|seconds| seconds * 1e3);
    let asked = latencies.count() as f64 / asking.stretch.as_secs_f64();
    figures.extend([
        Figure::of("answered", "/s", vec![asked]).to_reach(Target::AtLeast(0.99 * f64::from(asking.rate))),
        Figure::of("p99 inside the super-peer", "ms", inside.into_iter().collect())
            .to_reach(Target::AtMost(LOCATE_TO_REACH_MS)),
        Figure::of("p99 as askers see it", "ms", vec![latencies.percentile(99).as_secs_f64() * 1e3]),
        Figure::of("the super-peer meanwhile, of one core", "", vec![core]),
    ]);
    figures::print(&figures, options.json)
}

/// Lets every guest say that it holds the list.
async fn hold(
    superpeer: &Member,
    guests: &[Guest],
    list: &List,
    options: Options,
) -> Result<Vec<Figure>, Failure> {
    eprintln!("registering {} entries", u64::from(options.files) * guests.len() as u64);
    let (before, started) = (spent(superpeer), Instant::now());
    for some in guests.chunks(LISTS_AT_ONCE) {
        try_join_all(some.iter().map(|guest| guest.hold(list))).await.or_failure()?;
    }
    let took = started.elapsed().as_secs_f64();
    let seconds = spent(superpeer) - before;
    let entries = f64::from(options.files) * guests.len() as f64;
    let resident = superpeer.pid().and_then(sampling::resident_bytes).unwrap_or_default();
    Ok(vec![
        Figure::of("registered over the wire", "entries/s", vec![entries / took])
            .to_reach(Target::AtLeast(ENTRIES_TO_REACH)),
        Figure::of("registered, of the super-peer's processor time", "entries/s", vec![entries / seconds]),
        Figure::of("the super-peer's memory", "MiB", vec![resident as f64 / f64::from(1 << 20)])
            .to_reach(Target::AtMost(MEMORY_TO_REACH)),
    ])
}

/// Asks for sources of contents drawn by lot; how long the answers took.
async fn ask(askers: Vec<Guest>, contents: &[ContentId], asking: Asking) -> Result<Latencies, Failure> {
    let pause = Duration::from_secs(1) * asking.connections / asking.rate.max(1);
    let each = asking.stretch.as_nanos() / pause.as_nanos().max(1);
    let asking = askers.into_iter().map(async |guest| {
        let guest = std::sync::Arc::new(guest);
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut questions = JoinSet::new();
        for _ in 0..each {
            ticks.tick().await;
            let (guest, content) = (guest.clone(), contents[rand::rng().random_range(..contents.len())]);
            questions.spawn(async move {
                let asked = Instant::now();
                guest.locate(content).await.map(|sources| (sources, asked.elapsed()))
            });
        }
        let mut times = Vec::with_capacity(questions.len());
        while let Some(answer) = questions.join_next().await {
            let (sources, took) = answer.map_err(|error| nothing_found(&error.to_string()))?.or_failure()?;
            if sources == 0 {
                return Err(nothing_found("no source was named"));
            }
            times.push(took);
        }
        Ok(times)
    });
    let times: Vec<Vec<Duration>> = try_join_all(asking).await?;
    Ok(Latencies::of(times.into_iter().flatten().collect()))
}

fn nothing_found(why: &str) -> Failure {
    Failure::new("cannot find sources", why, "see the super-peer's log")
}

/// The time within which this part of all *locate* questions was answered, in seconds, as Prometheus computes it: within
/// a bucket as if all values in it were spread evenly.
fn quantile(told: &Exposition, part: f64) -> Option<f64> {
    let mut buckets: Vec<(f64, f64)> = told
        .family("quarta_superpeer_query_duration_seconds_bucket")
        .filter(|sample| sample.labels.get("query").is_some_and(|query| query == "locate"))
        .filter_map(|sample| Some((sample.labels.get("le")?.parse().ok()?, sample.value)))
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let rank = part * buckets.last()?.1;
    let mut below = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= rank {
            let part = if count > below.1 { (rank - below.1) / (count - below.1) } else { 1.0 };
            return Some(if bound.is_finite() { below.0 + part * (bound - below.0) } else { below.0 });
        }
        below = (bound, count);
    }
    None
}

async fn cluster(home: &tempfile::TempDir) -> Result<Cluster, Failure> {
    let programs = Programs::this_executable().map_err(ClusterError::system("find this program"));
    let plan = Plan::new(home.path().join("net"), programs.or_failure()?, 1, 0).keeping_at_most(1);
    Cluster::start(plan, |step| eprintln!("{step}")).await.or_failure()
}

fn superpeer(cluster: &Cluster) -> Result<&Member, Failure> {
    cluster.superpeers().next().ok_or_else(|| ClusterError::Unknown("central-1".to_owned())).or_failure()
}

async fn guests(cluster: &Cluster, name: &str, count: usize) -> Result<Vec<Guest>, Failure> {
    let uses = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let invite = superpeer(cluster)?.superpeer().invite("node", uses, INVITE_LIFETIME).await.or_failure()?;
    let mut guests = Vec::with_capacity(count);
    for number in 1..=count {
        let name = format!("{name}-{number}");
        let data = cluster.dir().join(&name);
        guests.push(Guest::join(&name, &data, &invite.invite).await.or_failure()?);
    }
    Ok(guests)
}

/// An entry of a list as nodes have them; later numbers have later keys.
fn library_item(number: u32) -> Item {
    let mut id = [7; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Item::Library {
        file: FileId::from_bytes(id),
        name: FileName::new(&format!("verao 2026/recife/foto {number:07}.jpg")).expect("the name is valid"),
        size_bytes: 300_000,
        sha256: Some(Sha256::from_bytes(id)),
        content: ContentId::from_bytes(id),
        completeness: Completeness::Complete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_the_bucket_that_has_it() {
        let line = |le: &str, count: u32| {
            format!(
                "quarta_superpeer_query_duration_seconds_bucket{{query=\"locate\",le=\"{le}\"}} {count}\n"
            )
        };
        let text = [line("0.001", 90), line("0.002", 100), line("+Inf", 100)].concat();
        let told = Exposition::parse(&text).unwrap();
        let p95 = quantile(&told, 0.95).unwrap();
        assert!((p95 - 0.0015).abs() < 1e-9, "{p95}");
        assert_eq!(quantile(&Exposition::parse("").unwrap(), 0.95), None);
    }
}
