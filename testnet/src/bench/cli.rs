//! The benchmarks' command lines.

use super::{add, crowd, idle, index, limits, many_files, many_to_one, one_to_one, reconcile, search};
use bytesize::ByteSize;
use clap::{Args, Subcommand, value_parser};
use quarta_daemon::cli;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What a line may be limited to, in Mbit/s: above, the machine is the limit.
const RATES: RangeInclusive<i64> = 1..=10_000;

/// Which benchmark, and how.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// One large file between two nodes, beside curl from nginx: at least half its rate (needs root)
    OneToOne {
        /// The file's size
        #[arg(long, default_value = "1GiB", value_parser = size, value_name = "SIZE")]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Many small files between two nodes, all asked for at once: at least 1000 files a second (needs root)
    ManyFiles {
        /// How many
        #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=10_000))]
        files: u32,
        /// The size of each
        #[arg(long, default_value = "100KiB", value_parser = size, value_name = "SIZE")]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Adding a file that lies in the page cache: at least 400 MiB a second
    Add {
        /// The file's size
        #[arg(long, default_value = "1GiB", value_parser = size, value_name = "SIZE")]
        size: u64,
        #[command(flatten)]
        common: Common,
    },
    /// One file from holders with limited uplinks, beside curl from nginx over one link of the summed rate: at least 0.97
    /// of its rate with equal uplinks, 0.94 with different ones (needs root)
    ManyToOne {
        /// The file's size
        #[arg(long, default_value = "512MiB", value_parser = size, value_name = "SIZE")]
        size: u64,
        /// Each holder's uplink, in Mbit/s
        #[arg(long, default_value = "50,50,50,50", value_delimiter = ',', value_name = "MBIT",
              value_parser = value_parser!(u32).range(RATES))]
        rates: Vec<u32>,
        #[command(flatten)]
        common: Common,
    },
    /// Many ask one holder for a file at once: the last is done within 1.25 times the bound, 1.35 below 100 Mbit/s or
    /// with losses; the first holder sends the file 1.5 times at most (needs root)
    Crowd {
        /// The file's size
        #[arg(long, default_value = "128MiB", value_parser = size, value_name = "SIZE")]
        size: u64,
        /// How many ask
        #[arg(long, default_value_t = 8, value_parser = value_parser!(u8).range(1..=64))]
        receivers: u8,
        /// Everybody's line, in Mbit/s each way
        #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(RATES), value_name = "MBIT")]
        rate: u32,
        /// Frames lost, in hundredths
        #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=50), value_name = "PER CENT")]
        loss: u32,
        #[command(flatten)]
        common: Common,
    },
    /// The limit on what a node sends: kept within 5 % over 10 s (needs root)
    Limits {
        /// The limit, a second
        #[arg(long, default_value = "8MiB", value_parser = size, value_name = "SIZE")]
        rate: u64,
        #[command(flatten)]
        common: Common,
    },
    /// A network in which nobody does anything: at most a quarter of a core altogether, 40 MiB each
    Idle {
        /// Super-peers
        #[arg(long, default_value_t = 3, value_parser = value_parser!(u8).range(1..=16))]
        superpeers: u8,
        /// Nodes
        #[arg(long, default_value_t = 72, value_parser = value_parser!(u8).range(1..))]
        nodes: u8,
        /// For how many seconds it is looked at
        #[arg(long, default_value_t = 60, value_parser = value_parser!(u16).range(5..))]
        seconds: u16,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Nodes' lists entering a super-peer's index: at least 300000 entries a second
    Register {
        /// Files in each list
        #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1_000..=1_000_000))]
        files: u32,
        /// Lists
        #[arg(long, default_value_t = 24, value_parser = value_parser!(u8).range(1..=64))]
        holders: u8,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Naming sources: p99 within 2 ms inside the super-peer, which takes 1 GiB of memory at most
    Locate {
        /// Files in the network
        #[arg(long, default_value_t = 1_000_000, value_parser = value_parser!(u32).range(1_000..=1_000_000))]
        files: u32,
        /// Nodes that hold each
        #[arg(long, default_value_t = 24, value_parser = value_parser!(u8).range(1..=64))]
        holders: u8,
        /// Questions a second
        #[arg(long, default_value_t = 5_000, value_parser = value_parser!(u32).range(1..=100_000))]
        rate: u32,
        /// Connections over which they come
        #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=200))]
        connections: u32,
        /// For how many seconds they are asked
        #[arg(long, default_value_t = 20, value_parser = value_parser!(u16).range(1..))]
        seconds: u16,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Searches over a node's HTTP API: p95 within 50 ms
    Search {
        /// Files in the network
        #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1_000..=1_000_000))]
        files: u32,
        /// Requests of each of the seven kinds
        #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(20..=10_000))]
        requests: u32,
    },
    /// Super-peers after a partition in which both sides were written to: agreed within 5 s, at most 4 times the
    /// differing bytes and 64 KiB on the wire (needs root, for network namespaces)
    Reconcile {
        /// Records that all have before
        #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(100..=1_000_000))]
        records: u32,
        /// Records that each side takes while they are apart
        #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=100_000))]
        writes: u32,
    },
}

/// What most benchmarks take.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Common {
    /// How often it is measured; the median counts
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u8).range(1..=50))]
    runs: u8,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Runs the benchmark to its end.
    pub(crate) fn run(self) -> std::process::ExitCode {
        match self {
            Self::OneToOne { size, common: Common { runs, json } } => {
                let options = one_to_one::Options { size_bytes: size, runs: runs.into(), json };
                cli::run(json, one_to_one::run(options))
            }
            Self::ManyFiles { files, size, common: Common { runs, json } } => {
                let options = many_files::Options { files, size_bytes: size, runs: runs.into(), json };
                cli::run(json, many_files::run(options))
            }
            Self::Add { size, common: Common { runs, json } } => {
                cli::run(json, add::run(add::Options { size_bytes: size, runs: runs.into(), json }))
            }
            Self::ManyToOne { size, rates, common: Common { runs, json } } => {
                let options = many_to_one::Options { size_bytes: size, rates, runs: runs.into(), json };
                cli::run(json, many_to_one::run(options))
            }
            Self::Crowd { size, receivers, rate, loss, common: Common { runs, json } } => {
                let options = crowd::Options {
                    size_bytes: size,
                    receivers: receivers.into(),
                    rate,
                    loss_per_cent: loss,
                    runs: runs.into(),
                    json,
                };
                cli::run(json, crowd::run(options))
            }
            Self::Limits { rate, common: Common { runs, json } } => cli::run(
                json,
                limits::run(limits::Options { bytes_per_second: rate, runs: runs.into(), json }),
            ),
            Self::Idle { superpeers, nodes, seconds, json } => {
                let stretch = Duration::from_secs(seconds.into());
                let (superpeers, nodes) = (superpeers.into(), nodes.into());
                cli::run(json, idle::run(idle::Options { superpeers, nodes, stretch, json }))
            }
            Self::Register { files, holders, json } => {
                cli::run(json, index::register(index::Options { files, holders: holders.into(), json }))
            }
            Self::Locate { files, holders, rate, connections, seconds, json } => {
                let asking =
                    index::Asking { rate, connections, stretch: Duration::from_secs(seconds.into()) };
                let options = index::Options { files, holders: holders.into(), json };
                cli::run(json, index::locate(options, asking))
            }
            Self::Search { files, requests } => {
                let requests = requests as usize;
                cli::run(false, search::run(search::Options { files, requests }))
            }
            Self::Reconcile { records, writes } => {
                cli::run(false, reconcile::run(reconcile::Options { records, writes }))
            }
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let ByteSize(bytes) = text.parse().map_err(|_| "expected a size such as 512MiB".to_owned())?;
    if bytes == 0 { Err("a file of no bytes takes no time".to_owned()) } else { Ok(bytes) }
}
