//! A guest in a process of its own, so that it can live on a host of its own.
//!
//! `quarta-testnet __writer NAME DATA` reads an invite from the first line of stdin, joins with it and says `joined`.
//! Every further line `FIRST COUNT` makes it publish the records with these numbers and say `published`. It ends with
//! its input.

use super::records::record;
use crate::attached;
use crate::cluster::{ClusterError, MemberPlan, Programs};
use crate::guest::Guest;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

/// The hidden command of `quarta-testnet`.
pub(crate) const COMMAND: &str = "__writer";
/// How long it may take to join, or to publish what one line asks for.
const DEADLINE: Duration = Duration::from_mins(10);
const JOINED: &str = "joined";
const PUBLISHED: &str = "published";

/// Does what the lines on stdin ask for.
///
/// # Errors
/// [`ClusterError`] with the first thing that failed.
pub(crate) async fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), ClusterError> {
    let mut args = args.into_iter();
    let (name, data) = (args.next().unwrap_or_default(), PathBuf::from(args.next().unwrap_or_default()));
    let mut lines = input();
    let Some(invite) = lines.recv().await else { return Ok(()) };
    let guest = Guest::join(&name.to_string_lossy(), &data, &invite).await?;
    println!("{JOINED}");
    while let Some(line) = lines.recv().await {
        let Some((first, count)) =
            line.split_once(' ').and_then(|(a, b)| a.parse().ok().zip(b.parse::<u32>().ok()))
        else {
            return Err(ended(format!("expected FIRST COUNT, not {line}")));
        };
        let records = (first..first + count).map(|number| record(guest.identity(), number)).collect();
        guest.publish(records).await?;
        println!("{PUBLISHED}");
    }
    Ok(())
}

/// The lines of stdin. A thread reads them: it may wait for ever.
fn input() -> mpsc::Receiver<String> {
    let (lines, received) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    received
}

/// The running writer. Killed when dropped.
pub(super) struct Writer {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    /// Starts it at `plan`'s place with a new data folder within `home`, and lets it join.
    pub(super) async fn join(
        programs: &Programs,
        plan: &MemberPlan,
        home: &Path,
        invite: &str,
    ) -> Result<Self, ClusterError> {
        let launcher = programs.launcher().as_os_str();
        let mut line = plan.through.iter().map(OsString::as_os_str).chain([launcher, OsStr::new(COMMAND)]);
        let first = line.next().unwrap_or(launcher);
        let mut command = Command::from(attached::command(programs.launcher(), first));
        command.args(line).arg(&plan.name).arg(home.join(&plan.name)).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(ClusterError::system("start a writer"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ended("it has no input or output".to_owned()));
        };
        let output = BufReader::new(output).lines();
        let mut writer = Self { _child: child, input, output };
        writer.ask(invite, JOINED).await?;
        Ok(writer)
    }

    /// Lets it publish `count` records, and waits until all are stored.
    pub(super) async fn publish(&mut self, first: u32, count: u32) -> Result<(), ClusterError> {
        self.ask(&format!("{first} {count}"), PUBLISHED).await
    }

    async fn ask(&mut self, line: &str, expected: &str) -> Result<(), ClusterError> {
        let line = format!("{line}\n");
        self.input.write_all(line.as_bytes()).await.map_err(ClusterError::system("talk to a writer"))?;
        let answer = tokio::time::timeout(DEADLINE, self.output.next_line())
            .await
            .map_err(|_| ended("it took too long".to_owned()))?
            .map_err(ClusterError::system("talk to a writer"))?;
        if answer.as_deref() == Some(expected) {
            Ok(())
        } else {
            Err(ended(format!("it said {answer:?} where {expected} was expected")))
        }
    }
}

fn ended(why: String) -> ClusterError {
    ClusterError::Refused {
        member: "a writer".to_owned(),
        what: "cannot publish records".to_owned(),
        why,
        next_step: "see what it printed above".to_owned(),
    }
}
