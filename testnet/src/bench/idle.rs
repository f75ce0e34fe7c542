//! What a network costs in which nobody does anything: connections, polls, feeds and health of many processes.

use super::OrFailure;
use super::figures::{self, Figure, Target};
use super::stage::spent;
use crate::cluster::{Cluster, ClusterError, Member, Plan, Programs};
use crate::sampling;
use quarta_daemon::Role;
use quarta_daemon::cli::{ExitCode, Failure};
use std::time::{Duration, Instant};

/// What is to be reached by all together, of one core.
const CORE_TO_REACH: f64 = 0.25;
/// What is to be reached by each, in MiB of resident memory.
const MEMORY_TO_REACH: f64 = 40.0;
/// How long they are left alone before it counts: what joining brought about has ended then.
const SETTLE: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Super-peers.
    pub superpeers: usize,
    /// Nodes.
    pub nodes: usize,
    /// Over how long.
    pub stretch: Duration,
    /// Figures as JSON, one a line.
    pub json: bool,
}

/// Runs the benchmark as a command.
///
/// # Errors
/// A [`Failure`] where it cannot be run.
pub async fn run(options: Options) -> Result<ExitCode, Failure> {
    let Options { superpeers, nodes, stretch, json } = options;
    let home = crate::up::temporary("quarta-bench-")?;
    let programs = Programs::this_executable().map_err(ClusterError::system("find this program"));
    let plan = Plan::new(home.path().join("net"), programs.or_failure()?, superpeers, nodes);
    let cluster = Cluster::start(plan, |step| eprintln!("{step}")).await.or_failure()?;
    eprintln!("leaving them alone for {} s, then looking on for {} s", SETTLE.as_secs(), stretch.as_secs());
    tokio::time::sleep(SETTLE).await;
    let (before, started) = (all(&cluster), Instant::now());
    tokio::time::sleep(stretch).await;
    let (after, took) = (all(&cluster), started.elapsed().as_secs_f64());
    let of_a_core = |role| {
        let members = cluster.members().iter().zip(before.iter().zip(&after));
        let of_role = members.filter(|(member, _)| member.role() == role);
        of_role.map(|(_, (before, after))| after - before).sum::<f64>() / took
    };
    let largest = |role| {
        let of_role = cluster.members().iter().filter(|member| member.role() == role);
        of_role.map(resident_mib).fold(0.0, f64::max)
    };
    let (servers, branches) = (of_a_core(Role::Superpeer), of_a_core(Role::Node));
    let memory = |what: &str, role| {
        Figure::of(what, "MiB", vec![largest(role)]).to_reach(Target::AtMost(MEMORY_TO_REACH))
    };
    let figures = [
        Figure::of("all together, of one core", "", vec![servers + branches])
            .to_reach(Target::AtMost(CORE_TO_REACH)),
        Figure::of(format!("{superpeers} super-peers, of one core"), "", vec![servers]),
        Figure::of(format!("{nodes} nodes, of one core"), "", vec![branches]),
        memory("the largest super-peer", Role::Superpeer),
        memory("the largest node", Role::Node),
    ];
    figures::print(&figures, json)
}

fn all(cluster: &Cluster) -> Vec<f64> {
    cluster.members().iter().map(spent).collect()
}

fn resident_mib(member: &Member) -> f64 {
    let bytes = member.pid().and_then(sampling::resident_bytes).unwrap_or_default();
    bytes as f64 / f64::from(1 << 20)
}
