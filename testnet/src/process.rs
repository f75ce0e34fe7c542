//! A process that this program started, and may therefore signal.
//!
//! **What is guaranteed.** A signal reaches the process that was started or nobody: its id cannot be given to another
//! process before [`Process`] knows that it ended, because it is collected only under the lock that signalling takes.
//! Dropping a [`Process`] kills it and waits for its end, so that a folder removed afterwards is written to by nobody.
//! And where it was started through `attached`, it dies with this program even if that is killed.
//!
//! **Why a thread for each.** The kernel sends a child's parent-death signal when the *thread* that started it ends.
//! Threads of an async runtime come and go; the thread here does nothing but wait for its one child. It also waits
//! without collecting (`WNOWAIT`), which `tokio::process` cannot.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::fmt;
use std::io;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a process may take to end after SIGKILL; only one stuck in the kernel needs longer.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// How often a blocking wait looks.
const LOOK: Duration = Duration::from_millis(2);

/// A child process. Killed when dropped.
pub struct Process {
    pid: Pid,
    running: Arc<Mutex<bool>>,
    ended: Ending,
}

/// How and when a process ended. Outlives the [`Process`], so that what happened can be told afterwards.
#[derive(Debug, Clone)]
pub struct Ending(watch::Receiver<Option<(ExitStatus, Instant)>>);

impl Ending {
    /// How it ended, and when that was seen; none while it runs.
    pub fn get(&self) -> Option<(ExitStatus, Instant)> {
        *self.0.borrow()
    }
}

impl Process {
    /// Starts `command`, which says itself where its output goes.
    ///
    /// # Errors
    /// What the system answered.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let (started, pid) = mpsc::sync_channel(1);
        let (ends, ended) = watch::channel(None);
        let running = Arc::new(Mutex::new(true));
        let kept = Arc::clone(&running);
        thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(cause) => {
                    let _ = started.send(Err(cause));
                    return;
                }
            };
            let pid = Pid::from_child(&child);
            let _ = started.send(Ok(pid));
            while matches!(
                waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT),
                Err(rustix::io::Errno::INTR)
            ) {}
            let mut running = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let status = child.wait();
            *running = false;
            drop(running);
            let _ = ends.send(Some((status.unwrap_or_default(), Instant::now())));
        })?;
        let pid = pid.recv().map_err(|_| io::Error::other("the thread that starts a process ended"))??;
        Ok(Self { pid, running, ended: Ending(ended) })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.ended.get().is_none()
    }

    /// What will tell how and when it ended, also once this is dropped.
    pub fn ending(&self) -> Ending {
        self.ended.clone()
    }

    /// Sends a signal; does nothing once the process has ended.
    ///
    /// # Errors
    /// What the system answered.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if *running { kill_process(self.pid, signal).map_err(Into::into) } else { Ok(()) }
    }

    /// Stops it (SIGSTOP) and waits until all its threads stand still; does nothing once it has ended.
    ///
    /// # Errors
    /// What the system answered, or that the process did not stand still within ten seconds.
    pub async fn stop(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        let stands = async {
            while self.is_running() {
                // The keeper waits for its end and takes nothing away from this.
                let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                if matches!(waitid(WaitId::Pid(self.pid), options), Ok(Some(_))) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(KILL_DEADLINE, stands)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it did not stand still after SIGSTOP"))
    }

    /// Waits for its end. Cancel-safe.
    pub async fn wait(&self) -> ExitStatus {
        let mut ended = self.ended.0.clone();
        // The keeper always says how the process ended before it goes.
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.map(|(status, _)| status).unwrap_or_default(),
            Err(_) => ExitStatus::default(),
        }
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// What the system answered, or that the process did not end within ten seconds.
    pub async fn kill(&self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        tokio::time::timeout(KILL_DEADLINE, self.wait())
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it did not end after SIGKILL"))
    }

    /// Asks it to end (SIGTERM); kills it when it has not after `grace`.
    ///
    /// # Errors
    /// As [`Process::kill`].
    pub async fn end(&self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        // A stopped process handles no SIGTERM before it runs again.
        self.signal(Signal::CONT)?;
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(status) => Ok(status),
            Err(_) => self.kill().await,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.signal(Signal::KILL).is_ok() {
            let deadline = Instant::now() + KILL_DEADLINE;
            while self.is_running() && Instant::now() < deadline {
                thread::sleep(LOOK);
            }
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.id()).field("running", &self.is_running()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn sleeper() -> Process {
        let mut command = Command::new("sleep");
        command.arg("600");
        Process::spawn(command).unwrap()
    }

    fn exists(pid: u32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[tokio::test]
    async fn a_killed_process_tells_the_signal_that_ended_it() {
        let process = sleeper();
        let ending = process.ending();
        assert!(process.is_running() && ending.get().is_none());
        assert_eq!(process.kill().await.unwrap().signal(), Some(9));
        assert!(!process.is_running());
        process.signal(Signal::KILL).unwrap();
        drop(process);
        assert_eq!(ending.get().and_then(|(status, _)| status.signal()), Some(9), "also when it is gone");
    }

    #[tokio::test]
    async fn a_stopped_process_can_be_ended() {
        let process = sleeper();
        process.signal(Signal::STOP).unwrap();
        assert_eq!(process.end(Duration::from_secs(10)).await.unwrap().signal(), Some(15));
    }

    #[tokio::test]
    async fn a_process_told_to_stop_stands_still_and_runs_on() {
        let process = sleeper();
        let state = || {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
            status.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        for _ in 0..2 {
            process.stop().await.unwrap();
            assert_eq!(state(), 'T');
            process.signal(Signal::CONT).unwrap();
            assert_ne!(state(), 'T');
        }
        process.kill().await.unwrap();
        process.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_process_that_ignores_the_wish_to_end_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        command.stdout(std::fs::File::create(&out).unwrap());
        let process = Process::spawn(command).unwrap();
        while std::fs::metadata(&out).unwrap().len() == 0 {
            tokio::time::sleep(LOOK).await;
        }
        assert_eq!(process.end(Duration::from_millis(200)).await.unwrap().signal(), Some(9));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = sleeper();
        let pid = process.id();
        assert!(exists(pid));
        drop(process);
        assert!(!exists(pid));
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let error = Process::spawn(Command::new("/nonexistent/quarta")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
