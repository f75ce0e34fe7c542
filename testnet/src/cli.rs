//! The command line of `quarta-testnet`.

use crate::bench::cli::Bench;
use crate::bench::writer;
use crate::cluster::programs::{NODE_COMMAND, SUPERPEER_COMMAND};
use crate::{attached, demo, simulation, up};
use bytesize::ByteSize;
use clap::{Parser, Subcommand, value_parser};
use quarta_daemon::cli::{self, ExitCode, Failure};
use quarta_superpeer::settings::GRACE_SECONDS;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Most members of each role: more would say nothing that simulations do not say better.
const MEMBERS_MAX: u64 = 64;
/// Between these bounds super-peers accept an interval.
const POLL_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_mins(10);

/// Local Quarta networks: every super-peer and node its own process with its own data folder.
#[derive(Debug, Parser)]
#[command(name = "quarta-testnet", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a network until it is interrupted, and write DIR/testnet.json
    Up {
        /// Super-peers
        #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..=MEMBERS_MAX))]
        superpeers: u64,
        /// Nodes
        #[arg(long, default_value_t = 6, value_parser = value_parser!(u64).range(0..=MEMBERS_MAX))]
        nodes: u64,
        /// New or empty folder for everything [default: a temporary folder, removed at the end]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// How often super-peers poll the nodes' lists, e.g. 15s (250ms to 10m)
        #[arg(long, default_value = "15s", value_parser = interval, value_name = "TIME")]
        poll_interval: Duration,
        /// How long a node may be away before its copies are made anew, e.g. 5s [default: 15m, as super-peers have it]
        #[arg(long, value_parser = grace, value_name = "TIME")]
        repair_after: Option<Duration>,
        /// Keep at most so many copies of a file; 1 for no replicas [default: a third of the nodes]
        #[arg(long, value_parser = value_parser!(u32).range(1..), value_name = "COUNT")]
        max_copies: Option<u32>,
        /// New or empty folder for a record of the run, written when it ends [default: no record]
        #[arg(long, value_name = "DIR")]
        report: Option<PathBuf>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Share, find and fetch files, kill a holder meanwhile, check everything, and keep a report
    Demo {
        /// Share the files in this folder instead of samples
        #[arg(long, value_name = "DIR")]
        share: Option<PathBuf>,
        /// New or empty folder for the report, or one of an earlier run [default: quarta-demo-report-<time>]
        #[arg(long, value_name = "DIR")]
        report: Option<PathBuf>,
        /// Super-peers
        #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..=MEMBERS_MAX))]
        superpeers: u64,
        /// Nodes, at least 4
        #[arg(long, default_value_t = 6, value_parser = value_parser!(u64).range(demo::NODES_MIN as u64..=MEMBERS_MAX))]
        nodes: u64,
        /// Size of the largest sample, at least 64MiB
        #[arg(long, default_value = "512MiB", value_parser = big_size, value_name = "SIZE")]
        big_size: u64,
        /// How often super-peers poll the nodes' lists, e.g. 15s (250ms to 10m)
        #[arg(long, default_value = "2s", value_parser = interval, value_name = "TIME")]
        poll_interval: Duration,
    },
    /// Run a network under faults in this process, in the order that a seed gives, and check every promise
    Simulate {
        /// The seed whose schedule is run and told
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Schedules, one for each seed from there on; of several only the first that fails is told
        #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
        schedules: u64,
        /// Steps of each schedule before everything heals [default: 200]
        #[arg(long)]
        steps: Option<usize>,
    },
    /// Measure a figure that is claimed; exit code 0 where it is reached
    Bench {
        #[command(subcommand)]
        bench: Bench,
    },
}

/// Runs the command line with the given arguments, the first of which is the program's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> std::process::ExitCode {
    let mut args: Vec<OsString> = args.into_iter().collect();
    match args.get(1).and_then(|command| command.to_str()) {
        Some(attached::COMMAND) => {
            let error = attached::become_program(args.into_iter().skip(2));
            let failure =
                Failure::new("cannot start a member", error.to_string(), "see whether its program is there");
            failure.report(false).into()
        }
        Some(writer::COMMAND) => cli::run(false, async {
            let written = writer::run(args.into_iter().skip(2)).await;
            written.map(|()| ExitCode::Success).map_err(|error| Failure::told(&error))
        }),
        Some(SUPERPEER_COMMAND) => {
            args.remove(1);
            quarta_superpeer::cli::main_with(args)
        }
        Some(NODE_COMMAND) => {
            args.remove(1);
            quarta_node::cli::main_with(args)
        }
        _ => match cli::parse_from::<Args>(args) {
            Ok(args) => run(args.command),
            Err(code) => code.into(),
        },
    }
}

fn run(command: Command) -> std::process::ExitCode {
    match command {
        Command::Up { superpeers, nodes, dir, poll_interval, repair_after, max_copies, report, json } => {
            let (superpeers, nodes) = (count(superpeers), count(nodes));
            let options =
                up::Options { superpeers, nodes, dir, poll_interval, repair_after, max_copies, report, json };
            cli::run(json, up::run(options))
        }
        Command::Demo { share, report, superpeers, nodes, big_size, poll_interval } => {
            let (superpeers, nodes) = (count(superpeers), count(nodes));
            let options =
                demo::Options { share, report, superpeers, nodes, big_size_bytes: big_size, poll_interval };
            cli::run(false, demo::run(options))
        }
        Command::Simulate { seed, schedules, steps } => {
            let options = simulation::command::Options { seed, schedules, steps };
            cli::run(false, async move { simulation::command::run(options) })
        }
        Command::Bench { bench } => bench.run(),
    }
}

/// Bounded by [`MEMBERS_MAX`], which fits everywhere.
fn count(members: u64) -> usize {
    usize::try_from(members).unwrap_or(usize::MAX)
}

fn interval(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "expected a time such as 15s".to_owned())?;
    Duration::try_from(span)
        .ok()
        .filter(|interval| POLL_INTERVAL.contains(interval))
        .ok_or_else(|| "nodes are polled every 250ms to 10m".to_owned())
}

fn grace(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "expected a time such as 5s".to_owned())?;
    Duration::try_from(span)
        .ok()
        .filter(|grace| GRACE_SECONDS.contains(&grace.as_secs()))
        .ok_or_else(|| "a node may be away for 1s to 168h".to_owned())
}

fn big_size(text: &str) -> Result<u64, String> {
    let ByteSize(bytes) = text.parse().map_err(|_| "expected a size such as 512MiB".to_owned())?;
    if bytes < demo::BIG_SIZE_MIN_BYTES {
        return Err(
            "the transfer of less than 64MiB ends before a holder can be killed in its middle".to_owned()
        );
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed_and_its_defaults_are_accepted() {
        Args::command().debug_assert();
        Args::try_parse_from(["quarta-testnet", "demo"]).unwrap();
        Args::try_parse_from(["quarta-testnet", "up"]).unwrap();
    }

    #[test]
    fn a_demo_that_could_not_show_what_it_claims_is_refused() {
        for bad in
            [["--nodes", "3"], ["--superpeers", "0"], ["--big-size", "1MiB"], ["--poll-interval", "1ms"]]
        {
            assert!(
                Args::try_parse_from(["quarta-testnet", "demo"].into_iter().chain(bad)).is_err(),
                "{bad:?}"
            );
        }
    }
}
