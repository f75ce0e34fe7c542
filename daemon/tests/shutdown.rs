//! Signals end a daemon as the shell and systemd expect. The daemon is this test binary, started again.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use quarta_daemon::shutdown;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

const ROLE: &str = "QUARTA_TEST_DAEMON";
const PATIENCE: Duration = Duration::from_secs(10);

/// The child's side: a daemon that stops in order (`prompt`), or that takes for ever to (`stubborn`).
#[tokio::test]
async fn daemon() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let stop = shutdown::on_signals().unwrap();
    shutdown::notify_ready();
    stop.cancelled().await;
    shutdown::notify_stopping();
    if role == "stubborn" {
        std::future::pending::<()>().await;
    }
}

struct Daemon {
    process: Child,
    supervisor: UnixDatagram,
    _place: tempfile::TempDir,
}

impl Daemon {
    fn start(role: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["daemon", "--exact"])
            .env(ROLE, role)
            .env("NOTIFY_SOCKET", path)
            .spawn()
            .unwrap();
        let daemon = Self { process, supervisor, _place: place };
        assert_eq!(daemon.told(), "READY=1\n");
        daemon
    }

    fn told(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.supervisor.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the daemon did not end");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_first_signal_stops_in_order_and_systemd_is_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start("prompt");
        daemon.signal(signal);
        assert_eq!(daemon.told(), "STOPPING=1\n");
        assert!(daemon.ended().success());
    }
}

#[test]
fn the_second_signal_ends_a_daemon_that_takes_too_long() {
    let mut daemon = Daemon::start("stubborn");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.told(), "STOPPING=1\n");
    daemon.signal(Signal::INT);
    let status = daemon.ended();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
}
