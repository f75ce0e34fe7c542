//! `quarta-testnet up`: a network to try things on, until it is interrupted.
//!
//! `testnet.json` tells programs where every member is. It holds the members' API tokens, so it is readable by its owner
//! only, and it is put in place whole: whoever sees it sees all of it, and all members are ready by then.

use crate::cluster::programs::{NODE_COMMAND, SUPERPEER_COMMAND};
use crate::cluster::{Cluster, ClusterError, Member, Plan, Programs};
use quarta_daemon::Role;
use quarta_daemon::cli::{ExitCode, Failure, Output, size};
use quarta_daemon::shutdown;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in the cluster's folder that tells about its members.
pub const TESTNET_FILE: &str = "testnet.json";
/// How often it is looked whether a member has ended by itself.
const LOOK: Duration = Duration::from_secs(1);

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
/// A [`Failure`] when it cannot be started or a member ends by itself; everything is stopped then.
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
    let plan =
        Plan::new(dir, programs, options.superpeers, options.nodes).polling_every(options.poll_interval);
    eprintln!("starting {} members; this needs {} of disk", plan.members.len(), size(plan.need_bytes()));

    let cluster = tokio::select! {
        started = Cluster::start(plan, |step| eprintln!("{step}")) => started.map_err(told)?,
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
    let ended = tokio::select! {
        () = interrupted.cancelled() => None,
        name = first_to_end(&cluster) => Some(name),
    };
    eprintln!("stopping {} members", cluster.members().len());
    // What it says must not be true any more when somebody reads it.
    let _ = std::fs::remove_file(&path);
    let unclean = cluster.stop().await.map_err(told)?;
    match ended {
        Some(name) => Err(Failure::new(
            format!("{name} ended unexpectedly"),
            "its process is gone",
            "see its log in the cluster's folder",
        )),
        None if unclean.is_empty() => Ok(ExitCode::Success),
        None => Err(Failure::new(
            format!("{} did not stop in order", unclean.join(", ")),
            "it ended with an error or was killed after its time",
            "see its log in the cluster's folder",
        )),
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

/// Waits until a member ends by itself, and answers its name.
async fn first_to_end(cluster: &Cluster) -> String {
    loop {
        if let Some(member) = cluster.members().iter().find(|member| member.pid().is_none()) {
            return member.name().to_owned();
        }
        tokio::time::sleep(LOOK).await;
    }
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
