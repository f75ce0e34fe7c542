//! One member of a cluster: its folder, its ports, its process, and how it is asked.

use super::lives::Lives;
use super::ports::Port;
use super::{ClusterError, Programs};
use crate::api::{NodeApi, SuperpeerApi};
use crate::process::Process;
use quarta_daemon::Role;
use quarta_daemon::client::Client;
use quarta_daemon::http::TOKEN_FILE;
use rustix::process::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long a command may take that talks to a daemon or another member.
const COMMAND_DEADLINE: Duration = Duration::from_mins(1);
/// How much of a log's end an error shows, in bytes.
const LOG_TAIL_BYTES: u64 = 600;

/// A member and, while it runs, its process.
#[derive(Debug)]
pub struct Member {
    name: String,
    role: Role,
    data: PathBuf,
    log: PathBuf,
    ip: Ipv4Addr,
    peer_port: Port,
    http_port: Port,
    through: Vec<OsString>,
    programs: Programs,
    extra: Vec<OsString>,
    process: Option<Process>,
    lives: Lives,
}

/// How a member is to be.
#[derive(Debug, Clone)]
pub struct MemberPlan {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The address on which it listens for members.
    pub ip: Ipv4Addr,
    /// A program with arguments that becomes the one named after it, such as `nsenter --net=FILE`; empty for none.
    pub through: Vec<OsString>,
    /// Further arguments of its `serve`.
    pub serve_args: Vec<OsString>,
}

impl Member {
    pub(super) fn new(
        plan: MemberPlan,
        dir: &Path,
        programs: Programs,
        lives: Lives,
    ) -> Result<Self, ClusterError> {
        let port = || Port::free().ok_or(ClusterError::NoPort);
        Ok(Self {
            data: dir.join(&plan.name),
            log: dir.join(format!("{}.log", plan.name)),
            peer_port: port()?,
            http_port: port()?,
            name: plan.name,
            role: plan.role,
            ip: plan.ip,
            through: plan.through,
            extra: plan.serve_args,
            programs,
            process: None,
            lives,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    pub(super) fn programs(&self) -> Programs {
        self.programs.clone()
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The address of its HTTP API.
    pub fn http(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.http_port.get()).into()
    }

    /// The port on which it listens for members, on TCP and UDP.
    pub fn peer_port(&self) -> u16 {
        self.peer_port.get()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().filter(|process| process.is_running()).map(Process::id)
    }

    /// Asks its daemon, over the socket in its data folder.
    pub fn client(&self) -> Client {
        Client::new(&self.data)
    }

    /// Asks its daemon as a node.
    pub fn node(&self) -> NodeApi {
        NodeApi::new(&self.name, self.client())
    }

    /// Asks its daemon as a super-peer.
    pub fn superpeer(&self) -> SuperpeerApi {
        SuperpeerApi::new(&self.name, self.client())
    }

    /// The bearer token of its HTTP API.
    ///
    /// # Errors
    /// What the system answered; the daemon makes the token when it first starts.
    pub fn token(&self) -> Result<String, ClusterError> {
        let read = std::fs::read_to_string(self.data.join(TOKEN_FILE));
        let token = read.map_err(ClusterError::system(format!("read the API token of {}", self.name)))?;
        Ok(token.trim().to_owned())
    }

    /// Gets `path` over TCP with the bearer token, as a scraper would.
    ///
    /// # Errors
    /// [`ClusterError::Http`].
    pub async fn scrape(&self, path: &'static str) -> Result<String, ClusterError> {
        let token = self.token()?;
        crate::api::scrape(self.http(), path, &token).await.map_err(|why| ClusterError::Http {
            member: self.name.clone(),
            path,
            why,
        })
    }

    /// The arguments that say where it listens.
    pub(super) fn listen_args(&self) -> Vec<OsString> {
        let (ip, port) = (self.ip, self.peer_port.get());
        let listen = [format!("/ip4/{ip}/tcp/{port}"), format!("/ip4/{ip}/udp/{port}/quic-v1")];
        listen
            .into_iter()
            .flat_map(|address| ["--listen".to_owned(), address])
            .chain(["--http".to_owned(), self.http().to_string()])
            .map(OsString::from)
            .collect()
    }

    /// Runs a command of its program on its data folder, with `input` on stdin, and answers how it ended.
    ///
    /// # Errors
    /// [`ClusterError::System`], also after a minute without an end.
    pub async fn run<A: AsRef<OsStr>>(&self, args: &[A], input: &str) -> Result<Output, ClusterError> {
        let said = words(args);
        let failed = || ClusterError::system(format!("run `{said}` at {}", self.name));
        let mut command = tokio::process::Command::from(self.programs.command(self.role, &self.through));
        command.args(args).arg("--data").arg(&self.data).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that refuses its arguments may end without reading.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        tokio::time::timeout(COMMAND_DEADLINE, child.wait_with_output())
            .await
            .unwrap_or_else(|_| {
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "it did not end in time"))
            })
            .map_err(failed())
    }

    /// As [`Member::run`], and answers what the command printed; anything but success is an error.
    ///
    /// # Errors
    /// [`ClusterError::Command`] with what it said, or [`ClusterError::System`].
    pub async fn succeed<A: AsRef<OsStr>>(&self, args: &[A], input: &str) -> Result<String, ClusterError> {
        let output = self.run(args, input).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let said = if stderr.is_empty() { output.status.to_string() } else { stderr };
        Err(ClusterError::Command { member: self.name.clone(), command: words(args), said })
    }

    /// Starts its daemon. Does nothing while it runs.
    pub(super) fn start(&mut self) -> Result<(), ClusterError> {
        if self.pid().is_some() {
            return Ok(());
        }
        let failed = || ClusterError::system(format!("start {}", self.name));
        let mut command = self.programs.command(self.role, &self.through);
        command.arg("serve").arg("--data").arg(&self.data).args(&self.extra);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).map_err(failed())?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed())?).stderr(log);
        let process = Process::spawn(command).map_err(failed())?;
        self.lives.began(&self.name, self.role, process.id(), process.ending());
        self.process = Some(process);
        Ok(())
    }

    /// An error when its process has ended.
    pub(super) async fn still_runs(&self) -> Result<(), ClusterError> {
        let status = match &self.process {
            Some(process) if process.is_running() => return Ok(()),
            Some(process) => process.wait().await.to_string(),
            None => "not started".to_owned(),
        };
        Err(ClusterError::Ended {
            member: self.name.clone(),
            status,
            log: self.log_tail(),
            path: self.log.clone(),
        })
    }

    /// The last line or so of its log.
    fn log_tail(&self) -> String {
        let mut tail = Vec::new();
        let read = File::open(&self.log).and_then(|mut log| {
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            log.take(LOG_TAIL_BYTES).read_to_end(&mut tail)
        });
        match read {
            Ok(_) => {
                let text = String::from_utf8_lossy(&tail);
                text.trim_end().lines().next_back().unwrap_or("its log is empty").to_owned()
            }
            Err(cause) => format!("its log cannot be read ({cause})"),
        }
    }

    /// Sends its process a signal; does nothing where none runs.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), ClusterError> {
        let Some(process) = &self.process else { return Ok(()) };
        process.signal(signal).map_err(ClusterError::system(format!("signal {}", self.name)))
    }

    /// Stops its process (SIGSTOP) and waits until it stands still; does nothing where none runs.
    pub(super) async fn stop(&self) -> Result<(), ClusterError> {
        let Some(process) = &self.process else { return Ok(()) };
        process.stop().await.map_err(ClusterError::system(format!("freeze {}", self.name)))
    }

    /// Kills its process and waits for its end.
    pub(super) async fn kill(&mut self) -> Result<(), ClusterError> {
        if let Some(process) = self.process.take() {
            process.kill().await.map_err(ClusterError::system(format!("kill {}", self.name)))?;
        }
        Ok(())
    }

    /// Ends its process in order. Answers whether it ended by itself and with success.
    pub(super) async fn end(&mut self, grace: Duration) -> Result<bool, ClusterError> {
        let Some(process) = self.process.take() else { return Ok(true) };
        let status = process.end(grace).await.map_err(ClusterError::system(format!("stop {}", self.name)))?;
        Ok(status.success())
    }
}

/// A command's words without values: no path, name or secret.
fn words<A: AsRef<OsStr>>(args: &[A]) -> String {
    args.iter().take(1).map(|arg| arg.as_ref().to_string_lossy()).collect()
}
