//! What the end-to-end tests share: clusters of the real binaries, files, and bounds.

pub mod agreement;
pub mod canaries;
pub mod clock;
pub mod http;

use quarta_daemon::Role;
use quarta_node::api::model::{File, Transfer};
use quarta_testnet::cluster::{Cluster, Member, MemberPlan, Plan, Programs};
use quarta_testnet::netns::{Lan, NetnsError};
use quarta_testnet::original;
use quarta_testnet::wait::{Late, Look, until};
use quarta_testnet::watch::Seen;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long is waited for what has its own, smaller bound, so that a miss shows its real figure.
pub const DEADLINE: Duration = Duration::from_mins(1);
/// How soon a killed node is off the lists, and one that runs and is reachable again is on them.
pub const TWO_SECONDS: Duration = Duration::from_secs(2);
/// How long a person at a branch waits at most while super-peers are lost.
pub const PROMPT: Duration = Duration::from_secs(3);
pub const MIB: usize = 1 << 20;

/// The binaries as users have them, from the folder that Cargo built this test's launcher into.
pub fn programs() -> Programs {
    Programs::beside(env!("CARGO_BIN_EXE_quarta-testnet")).unwrap_or_else(|missing| panic!("{missing}"))
}

/// A cluster and the folder it lives in, removed at the end.
pub struct Network {
    pub cluster: Cluster,
    pub home: TempDir,
}

impl Network {
    /// Starts `superpeers` and `nodes` that are polled every `poll_interval`, and that keep no replicas: files lie where
    /// the test puts them, so that it can say who holds what and who serves it.
    pub async fn start(superpeers: usize, nodes: usize, poll_interval: Duration) -> Self {
        Self::start_changed(superpeers, nodes, poll_interval, |_| {}).await
    }

    /// As [`Network::start`], after `change` to the plan.
    pub async fn start_changed(
        superpeers: usize,
        nodes: usize,
        poll_interval: Duration,
        change: impl FnOnce(&mut Plan),
    ) -> Self {
        let home = home();
        let mut plan = Plan::new(home.path().join("net"), programs(), superpeers, nodes)
            .polling_every(poll_interval)
            .keeping_at_most(1);
        change(&mut plan);
        Self::start_planned(plan, home).await
    }

    /// As [`Network::start`], with replicas as they are by default, made anew `grace` after a node has gone.
    pub async fn start_replicating(
        superpeers: usize,
        nodes: usize,
        poll_interval: Duration,
        grace: Duration,
    ) -> Self {
        let home = home();
        let plan = Plan::new(home.path().join("net"), programs(), superpeers, nodes)
            .polling_every(poll_interval)
            .repairing_after(grace);
        Self::start_planned(plan, home).await
    }

    /// As [`Network::start_changed`], with every member on a host of its own, and with hosts for `others` who may come
    /// later. None, after saying so, where this user may not.
    pub async fn start_apart(
        superpeers: usize,
        nodes: usize,
        poll_interval: Duration,
        others: &[&str],
        change: impl FnOnce(&mut Plan),
    ) -> Option<(Self, Lan)> {
        let home = home();
        let mut plan = Plan::new(home.path().join("net"), programs(), superpeers, nodes)
            .polling_every(poll_interval)
            .keeping_at_most(1);
        change(&mut plan);
        let lan = lan(&plan, others)?;
        lan.place(&mut plan).unwrap();
        Some((Self::start_planned(plan, home).await, lan))
    }

    async fn start_planned(plan: Plan, home: TempDir) -> Self {
        let cluster = Cluster::start(plan, |_| {}).await.unwrap_or_else(|error| panic!("{error}"));
        Self { cluster, home }
    }

    pub fn node(&self, index: usize) -> &Member {
        self.cluster.nodes().nth(index).unwrap()
    }

    pub fn superpeer(&self, index: usize) -> &Member {
        self.cluster.superpeers().nth(index).unwrap()
    }

    /// The name of a node, for calls that change the cluster.
    pub fn name(&self, index: usize) -> String {
        self.node(index).name().to_owned()
    }

    /// The names of all members, super-peers first.
    pub fn names(&self) -> Vec<String> {
        self.cluster.members().iter().map(|member| member.name().to_owned()).collect()
    }

    /// Shares bytes at a node under a name.
    pub async fn share(&self, index: usize, name: &str, bytes: &[u8]) -> File {
        let path = self.write(name, bytes);
        self.node(index).node().add(&path, Some(name.to_owned())).await.unwrap()
    }

    /// Writes a file outside of all data folders.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.home.path().join("originals").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Fetches a file at a node, and compares it with the one that was shared.
    pub async fn fetch(&self, index: usize, file: &File) -> Transfer {
        let transfer = self.node(index).node().fetched(&file.id).await.unwrap();
        let copy = PathBuf::from(transfer.path.as_deref().unwrap());
        let original = self.home.path().join("originals").join(&file.name);
        original::compare(&original, &copy, file.sha256.as_deref().unwrap()).unwrap();
        transfer
    }

    /// Ends the cluster; every member must end in order.
    pub async fn stop(self) {
        assert_eq!(self.cluster.stop().await.unwrap(), [] as [&str; 0], "did not stop in order");
    }
}

/// A folder with a short path, because of the sockets in it.
pub fn home() -> TempDir {
    tempfile::Builder::new().prefix("qt-").tempdir().unwrap()
}

/// Whether a test can run that needs `what`, which `works` here or does not. Where it cannot, that is said; with `CI=true`
/// it is a failure.
pub fn can(what: &str, works: bool) -> bool {
    assert!(works || std::env::var("CI").as_deref() != Ok("true"), "CI=true and no {what}");
    if !works {
        println!("NOT RUN: this needs {what}");
    }
    works
}

/// Hosts for the members of a plan and for others, as [`can`] has it.
pub fn lan(plan: &Plan, others: &[&str]) -> Option<Lan> {
    match Lan::new(plan, others) {
        Ok(lan) => Some(lan),
        Err(error @ (NetnsError::TooMany(_) | NetnsError::Unknown(_))) => panic!("{error}"),
        Err(error) => {
            can(&format!("root, iproute2 and nftables for network namespaces: {error}"), false);
            None
        }
    }
}

/// A plan for somebody beside the cluster's members.
pub fn outsider(name: &str, role: Role) -> MemberPlan {
    MemberPlan {
        name: name.to_owned(),
        role,
        ip: Ipv4Addr::LOCALHOST,
        through: Vec::new(),
        serve_args: Vec::new(),
    }
}

/// Bytes that differ from chunk to chunk and from seed to seed.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Waits until `holds`, up to [`DEADLINE`], and answers when.
pub async fn eventually<F>(what: &str, mut holds: impl FnMut() -> F) -> Instant
where
    F: Future<Output = bool>,
{
    let look = || {
        let held = holds();
        async move { Look::of(held.await.then_some(()), || what.to_owned()) }
    };
    match until(DEADLINE, look).await {
        Ok(((), at)) => at,
        Err(late) => panic!("{late}"),
    }
}

/// Runs a command that must succeed within [`PROMPT`], and gives what it printed.
pub async fn promptly(member: &Member, args: &[&str], input: &str) -> String {
    let asked = Instant::now();
    let printed = member.succeed(args, input).await.unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let took = asked.elapsed();
    println!("{} {}: {:.2} s", member.name(), args[0], took.as_secs_f64());
    assert!(took <= PROMPT, "{args:?} at {} took {took:?}", member.name());
    printed
}

/// How a member stands at a super-peer.
pub async fn state(superpeer: &Member, name: &str) -> Option<String> {
    let members = superpeer.superpeer().members().await.ok()?;
    members.into_iter().find(|member| member.name == name).map(|member| member.state)
}

/// Asserts that something was seen within `bound` of `since`.
pub fn assert_within(bound: Duration, since: Instant, (who, when): Seen, what: &str) {
    let when: Result<Instant, Late> = when;
    let after = match when {
        Ok(when) => when.saturating_duration_since(since),
        Err(late) => panic!("{what} at {who}: {late}"),
    };
    println!("{what} at {who}: after {:.2} s, bound {:.2} s", after.as_secs_f64(), bound.as_secs_f64());
    assert!(after <= bound, "{what} at {who}: after {after:?}, bound {bound:?}");
}

/// Asserts a command's exit code and that its failure is one line with what failed, why, and what to do next.
pub fn assert_fails(output: &Output, exit_code: i32, says: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(output.status.code(), Some(exit_code), "{stderr}");
    assert_eq!(lines.len(), 1, "one line of error: {stderr}");
    assert!(lines[0].contains(": ") && lines[0].contains("; "), "cause and next step: {stderr}");
    for text in says {
        assert!(lines[0].contains(text), "`{text}` in: {stderr}");
    }
}

/// The names in a folder, sorted; empty where there is none.
pub fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// From whom a transfer's bytes came.
pub fn senders(transfer: &Transfer) -> Vec<&str> {
    transfer.sources.iter().filter(|source| source.bytes > 0).map(|source| source.name.as_str()).collect()
}

/// A program that was built beside the launcher.
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_quarta-testnet")).with_file_name(name)
}

/// A line of a process's status, in bytes. `VmHWM` is the peak since its start.
pub fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    let kibibytes: u64 = value.trim().strip_suffix("kB").unwrap().trim().parse().unwrap();
    kibibytes * 1024
}
