//! `quarta-testnet up`: a network to try things on, until it is interrupted.
//!
//! `testnet.json` tells programs where every member is. It holds the members' API tokens, so it is readable by its owner
//! only, and it is put in place whole: whoever sees it sees all of it, and all members are ready by then.
//!
//! A member that ends does not end the network: people kill members to see what happens. It is told, with the command
//! that starts it again, and with `--report` it stands in the record.

use crate::cluster::programs::{NODE_COMMAND, SUPERPEER_COMMAND};
use crate::cluster::{Cluster, ClusterError, Member, Plan, Programs};
use crate::record::folder::Folder;
use crate::record::load::Distribution;
use crate::record::scrub::Scrub;
use crate::record::{Command, Journal, MemberRow, Outcome, Parameters, SharedFile, html};
use crate::sampling::Sampler;
use crate::snapshot::Snapshot;
use quarta_daemon::Role;
use quarta_daemon::cli::{ExitCode, Failure, Output, size};
use quarta_daemon::shutdown;
use quarta_node::api::model::Transfer;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in the cluster's folder that tells about its members.
pub const TESTNET_FILE: &str = "testnet.json";
/// How often it is looked whether a member has ended by itself, and what super-peers saw.
const LOOK: Duration = Duration::from_secs(1);
/// After how many looks the nodes' transfers are asked for, so that those of a member that ends are not lost.
const TRANSFERS_EVERY_LOOKS: u64 = 5;
/// How long a member is waited for; one that is frozen must not keep the others from being looked at.
const ANSWER_DEADLINE: Duration = Duration::from_millis(500);
/// Most files named in a record.
const FILES_MAX: usize = 2_000;

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Super-peers.
    pub superpeers: usize,
    /// Nodes.
    pub nodes: usize,
    /// Where; none for a temporary folder that is removed at the end.
    pub dir: Option<PathBuf>,
    /// How often super-peers poll.
    pub poll_interval: Duration,
    /// How long a node may be away before its copies are made anew; none for the super-peers' default.
    pub repair_after: Option<Duration>,
    /// How many copies of a file there are at most; none for the super-peers' default.
    pub max_copies: Option<u32>,
    /// Where a record of the run goes; none for no record.
    pub report: Option<PathBuf>,
    /// Print one JSON object a line.
    pub json: bool,
}

/// `testnet.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testnet {
    /// The network's id.
    pub network: String,
    /// Every member, super-peers first.
    pub members: Vec<RunningMember>,
}

/// A member in `testnet.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningMember {
    /// Its name.
    pub name: String,
    /// `superpeer` or `node`.
    pub role: String,
    /// Its peer id.
    pub peer_id: String,
    /// Its process id.
    pub pid: u32,
    /// Its data folder.
    pub data: PathBuf,
    /// The address of its HTTP API.
    pub http: String,
    /// The bearer token of its HTTP API.
    pub token: String,
}

/// Runs a cluster until SIGINT or SIGTERM.
///
/// # Errors
/// A [`Failure`] when it cannot be started or stopped, everything is stopped then, or when the record cannot be kept.
pub async fn run(options: Options) -> Result<ExitCode, Failure> {
    let interrupted = shutdown::on_signals().map_err(|cause| {
        Failure::new("cannot start", cause.to_string(), "check the limits on this user's processes")
    })?;
    let (dir, _temporary) = match options.dir {
        Some(dir) => (dir, None),
        None => temporary("quarta-up-").map(|folder| (folder.path().join("net"), Some(folder)))?,
    };
    let programs =
        Programs::this_executable().map_err(ClusterError::system("find this program")).map_err(told)?;
    let mut plan =
        Plan::new(dir, programs, options.superpeers, options.nodes).polling_every(options.poll_interval);
    if let Some(grace) = options.repair_after {
        plan = plan.repairing_after(grace);
    }
    if let Some(copies) = options.max_copies {
        plan = plan.keeping_at_most(copies);
    }
    // A bad name fails before the work.
    let report = options.report.map(Folder::prepare).transpose().map_err(|error| Failure::told(&error))?;
    let parameters = Parameters {
        superpeers: options.superpeers,
        nodes: options.nodes,
        shared: "nothing".to_owned(),
        big_size_bytes: None,
        poll_interval_ms: u64::try_from(options.poll_interval.as_millis()).unwrap_or(u64::MAX),
        disk_bytes: plan.need_bytes(),
    };
    let mut journal = Journal::begin(Command::Up, parameters, io::stderr());
    journal.note(format!(
        "starting {} members; this needs {} of disk",
        plan.members.len(),
        size(plan.need_bytes())
    ));

    let cluster = tokio::select! {
        started = Cluster::start(plan, |step| journal.note(step)) => started.map_err(told)?,
        () = interrupted.cancelled() => return Ok(ExitCode::Success),
    };
    let testnet = describe(&cluster).await.map_err(told)?;
    let path = cluster.dir().join(TESTNET_FILE);
    write_private(&path, &testnet)
        .map_err(ClusterError::system(format!("write {}", path.display())))
        .map_err(told)?;
    let mut output = Output::stdout(options.json);
    output.table(&["NAME", "ROLE", "PID", "HTTP", "DATA"], &testnet.members, |member| {
        vec![
            member.name.clone(),
            member.role.clone(),
            member.pid.to_string(),
            member.http.clone(),
            member.data.display().to_string(),
        ]
    })?;
    if !options.json {
        eprint!("{}", hints(&cluster, &path));
    }
    let mut watched = Watched::begin(&cluster, journal).await;
    tokio::select! {
        () = interrupted.cancelled() => {}
        () = watched.follow(&cluster) => {}
    }
    eprintln!("stopping {} members", cluster.members().len());
    // What it says must not be true any more when somebody reads it.
    let _ = std::fs::remove_file(&path);
    if report.is_some() {
        watched.last_look(&cluster).await;
    }
    let (dir, lives) = (cluster.dir().to_owned(), cluster.lives());
    let unclean = cluster.stop().await.map_err(told)?;
    let unclean: Vec<String> = unclean.into_iter().filter(|name| !watched.ended.contains(name)).collect();
    if let Some(report) = report {
        watched.journal.lives(&lives);
        let kept = watched.keep(report, &dir, &testnet)?;
        eprintln!("Report: {}", kept.display());
    }
    if unclean.is_empty() {
        Ok(ExitCode::Success)
    } else {
        Err(Failure::new(
            format!("{} did not stop in order", unclean.join(", ")),
            "it ended with an error or was killed after its time",
            "see its log in the cluster's folder",
        ))
    }
}

/// A running cluster as it is seen from here.
struct Watched {
    journal: Journal,
    sampler: Sampler,
    before: Snapshot,
    after: Snapshot,
    /// Members whose processes ended by themselves.
    ended: BTreeSet<String>,
    /// What each node last said about its transfers.
    transfers: BTreeMap<String, Vec<Transfer>>,
    sightings: usize,
    states: BTreeMap<String, String>,
}

impl Watched {
    async fn begin(cluster: &Cluster, journal: Journal) -> Self {
        let mut watched = Self {
            sampler: Sampler::start(cluster, journal.clock()),
            before: Snapshot::of_those_that_answer(cluster).await,
            after: Snapshot::default(),
            ended: BTreeSet::new(),
            transfers: BTreeMap::new(),
            sightings: 0,
            states: BTreeMap::new(),
            journal,
        };
        watched.members(cluster, "Before").await;
        watched
    }

    /// Notes what happens; never ends. Cancel-safe.
    async fn follow(&mut self, cluster: &Cluster) {
        let mut ticks = tokio::time::interval(LOOK);
        for look in 1_u64.. {
            ticks.tick().await;
            for member in cluster.members().iter().filter(|member| member.pid().is_none()) {
                if self.ended.insert(member.name().to_owned()) {
                    let again = format!("{} --data {} serve", program(member), member.data().display());
                    self.journal.note(format!("{} ended by itself", member.name()));
                    eprintln!("  see {}; start it again with: {again}", member.log().display());
                }
            }
            let seen = self.sampler.sightings(self.sightings);
            self.sightings += seen.len();
            for seen in seen {
                let before = self.states.insert(seen.member.clone(), seen.state.clone());
                // That everybody is there at first is no news.
                if before.is_some() || seen.state != "online" {
                    self.journal.note(format!("{} is {}, says {}", seen.member, seen.state, seen.seen_by));
                }
            }
            if look.is_multiple_of(TRANSFERS_EVERY_LOOKS) {
                self.ask_for_transfers(cluster).await;
            }
        }
    }

    async fn ask_for_transfers(&mut self, cluster: &Cluster) {
        for node in cluster.nodes() {
            let asked = tokio::time::timeout(ANSWER_DEADLINE, node.node().transfers()).await;
            if let Ok(Ok(transfers)) = asked {
                self.transfers.insert(node.name().to_owned(), transfers);
            }
        }
    }

    async fn members(&mut self, cluster: &Cluster, when: &str) {
        for superpeer in cluster.superpeers() {
            let asked = tokio::time::timeout(ANSWER_DEADLINE, superpeer.superpeer().members()).await;
            if let Ok(Ok(members)) = asked {
                let rows = members.into_iter().map(MemberRow::from).collect();
                return self.journal.members(when, superpeer.name(), rows);
            }
        }
    }

    /// Asks for what only running members can tell.
    async fn last_look(&mut self, cluster: &Cluster) {
        self.ask_for_transfers(cluster).await;
        self.members(cluster, "After").await;
        self.after = Snapshot::of_those_that_answer(cluster).await;
        for superpeer in cluster.superpeers() {
            let asked = tokio::time::timeout(ANSWER_DEADLINE, superpeer.superpeer().files()).await;
            let Ok(Ok(files)) = asked else { continue };
            for file in files.into_iter().take(FILES_MAX) {
                let (name, owner, size_bytes) = (file.name, file.owner, file.size_bytes);
                let sha256 = file.sha256.unwrap_or_default();
                self.journal.shared(SharedFile { name, owner, size_bytes, sha256 });
            }
            break;
        }
    }

    /// Writes the record; answers where its page is.
    fn keep(self, mut report: Folder, dir: &Path, testnet: &Testnet) -> Result<PathBuf, Failure> {
        let Self { mut journal, sampler, before, after, transfers, .. } = self;
        journal.observed(sampler.finish());
        let mut fetches: Vec<(String, Transfer)> = transfers
            .into_iter()
            .flat_map(|(to, transfers)| transfers.into_iter().map(move |transfer| (to.clone(), transfer)))
            .collect();
        fetches.sort_by_key(|(_, transfer)| transfer.started_ms);
        for (to, transfer) in fetches {
            journal.transfer(&to, transfer, None);
        }
        let nodes: Vec<String> = testnet
            .members
            .iter()
            .filter(|member| member.role == "node")
            .map(|member| member.name.clone())
            .collect();
        let load = Distribution::new(&nodes, &after.offered(&nodes), &journal.record().transfers);
        journal.load(load);
        journal.snapshots(&before, &after);
        let scrub = testnet
            .members
            .iter()
            .fold(Scrub::default(), |scrub, member| scrub.secret(&member.token, "TOKEN"))
            .folder(dir, "DEMO");
        let record = journal.finish(Outcome::Ended);
        report
            .logs(dir, &scrub)
            .and_then(|()| report.metrics(&before, &after, &scrub))
            .and_then(|()| report.record(&record))
            .map_err(|error| Failure::told(&error))?;
        Ok(report.path().join(html::PAGE_FILE))
    }
}

/// A temporary folder with a short path, removed when dropped.
pub(crate) fn temporary(prefix: &str) -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new().prefix(prefix).tempdir().map_err(|cause| {
        Failure::new(
            "cannot make a temporary folder",
            cause.to_string(),
            "set TMPDIR to a folder that can be written to",
        )
    })
}

/// A cluster's error as a command's failure.
pub(crate) fn told(error: ClusterError) -> Failure {
    Failure::told(&error)
}

async fn describe(cluster: &Cluster) -> Result<Testnet, ClusterError> {
    let mut members = Vec::with_capacity(cluster.members().len());
    let mut network = String::new();
    for member in cluster.members() {
        let (peer_id, pid) = match member.role() {
            Role::Superpeer => {
                let status = member.superpeer().status().await?;
                network = status.network;
                (status.peer_id, status.pid)
            }
            Role::Node => {
                let status = member.node().status().await?;
                (status.peer_id, status.pid)
            }
        };
        members.push(RunningMember {
            name: member.name().to_owned(),
            role: member.role().as_str().to_owned(),
            peer_id,
            pid,
            data: member.data().to_owned(),
            http: member.http().to_string(),
            token: member.token()?,
        });
    }
    Ok(Testnet { network, members })
}

/// Writes the description whole, for its owner's eyes; temporary files are made with mode 0600.
fn write_private(path: &Path, testnet: &Testnet) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, testnet)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn hints(cluster: &Cluster, path: &Path) -> String {
    let example = |member: Option<&Member>, command: &str| {
        let line =
            |member: &Member| format!("  {} --data {} {command}\n", program(member), member.data().display());
        member.map(line).unwrap_or_default()
    };
    let first = cluster.nodes().next();
    format!(
        "\nTry it:\n{}{}{}\nAddresses and tokens: {}\nStop with Ctrl-C.\n",
        example(first, "add FILE"),
        example(cluster.nodes().nth(1).or(first), "ls"),
        example(cluster.superpeers().next(), "members"),
        path.display()
    )
}

/// How a member's program is called from here: by its own name where it is built beside this one, else as this one.
fn program(member: &Member) -> String {
    let this = std::env::current_exe().unwrap_or_else(|_| "quarta-testnet".into());
    let own = this.with_file_name(member.role().program());
    let (program, command) = match member.role() {
        _ if own.is_file() => (own, ""),
        Role::Superpeer => (this, SUPERPEER_COMMAND),
        Role::Node => (this, NODE_COMMAND),
    };
    format!("{} {command}", program.display()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_description_is_for_its_owner_only_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TESTNET_FILE);
        let member = RunningMember {
            name: "filial-recife".to_owned(),
            role: "node".to_owned(),
            peer_id: "12D3".to_owned(),
            pid: 7,
            data: "/d".into(),
            http: "127.0.0.1:1".to_owned(),
            token: "t".to_owned(),
        };
        let testnet = Testnet { network: "n".to_owned(), members: vec![member] };
        std::fs::write(&path, "an older one").unwrap();
        write_private(&path, &testnet).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(serde_json::from_slice::<Testnet>(&std::fs::read(&path).unwrap()).unwrap(), testnet);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
