//! One network namespace, and running tools in it.

use crate::attached;
use crate::process::Process;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long the system may take to make a namespace, on a machine that builds something else too.
const MAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How often is looked whether it is there.
const LOOK: Duration = Duration::from_millis(1);

/// Why hosts of their own cannot be had. Each text says what failed, why, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// A program could not be started or talked to.
    #[error("cannot run {program}: {cause}; install util-linux, iproute2 and nftables")]
    Program {
        /// Which.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The system gave no namespace.
    #[error("cannot make a network namespace: {why}; run as root")]
    NoNamespace {
        /// What happened instead.
        why: String,
    },
    /// A tool refused its input.
    #[error(
        "cannot set up a network namespace: {program} said: {said}; run as root on a Linux with veth, bridge and nftables"
    )]
    Refused {
        /// Which.
        program: String,
        /// Its first complaint.
        said: String,
    },
    /// More hosts than the network has addresses.
    #[error("cannot make a network of {0} hosts: it has addresses for {max}; make a smaller one", max = super::HOSTS_MAX)]
    TooMany(usize),
    /// A host that was not planned.
    #[error("no host is called {0}; name it when the network is made")]
    Unknown(String),
}

/// A network namespace, gone when dropped and no process is in it any more.
#[derive(Debug)]
pub(super) struct Namespace {
    /// Holds it open, and lends it its process id as a name.
    holder: Process,
}

impl Namespace {
    /// Makes as many, each with nothing in it but a loopback that is down. Blocks meanwhile.
    pub(super) fn make(launcher: &Path, count: usize) -> Result<Vec<Self>, NetnsError> {
        let holders = (0..count).map(|_| Self::start(launcher)).collect::<Result<Vec<_>, _>>()?;
        let own = network_of("self").map_err(|cause| NetnsError::NoNamespace { why: cause.to_string() })?;
        let deadline = Instant::now() + MAKE_DEADLINE;
        for namespace in &holders {
            namespace.wait(&own, deadline)?;
        }
        Ok(holders)
    }

    fn start(launcher: &Path) -> Result<Self, NetnsError> {
        let mut command = attached::command(launcher, "unshare".as_ref());
        command.args(["--net", "--", "sleep", "infinity"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = Process::spawn(command)
            .map_err(|cause| NetnsError::Program { program: launcher.display().to_string(), cause })?;
        Ok(Self { holder })
    }

    /// Waits until the holder has left the namespace `own`.
    fn wait(&self, own: &Path, deadline: Instant) -> Result<(), NetnsError> {
        loop {
            if let Some((status, _)) = self.holder.ending().get() {
                return Err(NetnsError::NoNamespace { why: format!("unshare ended with {status}") });
            }
            match network_of(&self.pid()) {
                Ok(network) if network != own => return Ok(()),
                _ if Instant::now() > deadline => {
                    let why = format!("not within {} s", MAKE_DEADLINE.as_secs());
                    return Err(NetnsError::NoNamespace { why });
                }
                _ => thread::sleep(LOOK),
            }
        }
    }

    /// What `ip` takes for its name.
    pub(super) fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// A program with arguments that becomes, in this namespace, the one named after it.
    pub(super) fn enter(&self) -> Vec<OsString> {
        ["nsenter", "--net", "--target", &self.pid(), "--"].map(OsString::from).to_vec()
    }

    /// Runs a tool in it with `input` on stdin; anything but success is an error. Blocks meanwhile.
    pub(super) fn run(&self, tool: &[&str], input: &str) -> Result<(), NetnsError> {
        let failed = |cause| NetnsError::Program { program: tool.join(" "), cause };
        let enter = self.enter();
        let mut child = Command::new(&enter[0])
            .args(&enter[1..])
            .args(tool)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that refuses its first line may end without reading the others, and then says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned();
        Err(NetnsError::Refused { program: tool.join(" "), said })
    }
}

/// What tells a process's network namespace from others.
fn network_of(pid: &str) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/net"))
}
