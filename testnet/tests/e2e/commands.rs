//! `quarta-testnet` itself: the demo as users run it, and `up`.

use crate::support::{DEADLINE, eventually, home, names_in};
use quarta_testnet::process::Process;
use quarta_testnet::record::{Outcome, Record};
use quarta_testnet::up::Testnet;
use quarta_testnet::wait::LOOK;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TESTNET: &str = env!("CARGO_BIN_EXE_quarta-testnet");
const CLUSTER: &str = "testnet.json";

#[test]
fn the_demo_passes_and_leaves_its_report_and_nothing_else() {
    let home = home();
    let (temporary, report) = (home.path().join("t"), home.path().join("report"));
    fs::create_dir(&temporary).unwrap();
    let output = Command::new(TESTNET)
        .args(["demo", "--big-size", "256MiB", "--report"])
        .arg(&report)
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(names_in(&temporary), [] as [&str; 0], "temporary data is gone");

    let record: Record = serde_json::from_slice(&fs::read(report.join("record.json")).unwrap()).unwrap();
    assert_eq!(record.outcome, Outcome::Passed);
    assert!(record.checks.iter().all(|check| check.passed));
    assert_eq!(record.transfers.len(), 9 * 5, "every node fetched every file that it does not own");
    assert!(record.transfers.iter().all(|transfer| transfer.identical == Some(true)));
    for folder in ["logs", "metrics-before", "metrics-after"] {
        assert_eq!(names_in(&report.join(folder)).len(), 8, "{folder} of every member");
    }
    // It can be shown to anybody.
    let path = temporary.to_str().unwrap();
    for file in files_in(&report) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(path), "{} names a folder of this machine", file.display());
        assert!(!text.contains("quarta1"), "{} holds an invite", file.display());
    }
}

#[test]
fn an_interrupted_demo_leaves_no_process_and_no_temporary_data() {
    let home = home();
    let (temporary, report) = (home.path().join("t"), home.path().join("report"));
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(TESTNET);
    command.args(["demo", "--big-size", "64MiB", "--report"]).arg(&report).env("TMPDIR", &temporary);
    let out = home.path().join("out");
    command.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::null());
    let demo = Process::spawn(command).unwrap();
    block_on(async {
        eventually("members run", async || fs::read_to_string(&out).unwrap().contains("made the network"))
            .await;
        let status = demo.end(DEADLINE).await.unwrap();
        assert_eq!(status.code(), Some(1), "it did not pass");
    });
    assert_eq!(names_in(&temporary), [] as [&str; 0]);
    assert_eq!(running_in(&temporary), [] as [u32; 0]);
    let record: Record = serde_json::from_slice(&fs::read(report.join("record.json")).unwrap()).unwrap();
    assert_eq!(record.outcome, Outcome::Interrupted);
}

#[test]
fn a_cluster_tells_where_its_members_are_and_goes_with_its_launcher_however_that_ends() {
    for signal in [Signal::INT, Signal::KILL] {
        let home = home();
        let dir = home.path().join("net");
        let mut command = Command::new(TESTNET);
        command.args(["up", "--superpeers", "2", "--nodes", "2", "--dir"]).arg(&dir);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let up = Process::spawn(command).unwrap();
        block_on(async {
            eventually("the cluster runs", async || dir.join(CLUSTER).exists()).await;
        });
        let mode = fs::metadata(dir.join(CLUSTER)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds tokens");
        let testnet: Testnet = serde_json::from_slice(&fs::read(dir.join(CLUSTER)).unwrap()).unwrap();
        let roles: Vec<_> = testnet.members.iter().map(|member| member.role.as_str()).collect();
        assert_eq!(roles, ["superpeer", "superpeer", "node", "node"]);
        let mut pids: Vec<u32> = testnet.members.iter().map(|member| member.pid).collect();
        pids.sort_unstable();
        assert_eq!(running_in(&dir), pids, "every member is its own process");
        assert!(testnet.members.iter().all(|member| member.token.len() >= 32 && !member.peer_id.is_empty()));

        up.signal(signal).unwrap();
        block_on(async {
            let status = tokio::time::timeout(DEADLINE, up.wait()).await.unwrap();
            assert_eq!(status.success(), signal == Signal::INT, "{status}");
        });
        let ended = Instant::now();
        while !running_in(&dir).is_empty() {
            assert!(ended.elapsed() < Duration::from_secs(5), "members outlive their launcher");
            std::thread::sleep(LOOK);
        }
        assert_eq!(dir.join(CLUSTER).exists(), signal == Signal::KILL);
    }
}

#[test]
fn a_cluster_goes_on_when_a_member_is_killed_and_its_record_tells_of_it() {
    let home = home();
    let (dir, report, said) = (home.path().join("net"), home.path().join("report"), home.path().join("said"));
    let mut command = Command::new(TESTNET);
    command.args(["up", "--superpeers", "1", "--nodes", "2", "--poll-interval", "1s", "--dir"]).arg(&dir);
    command.arg("--report").arg(&report).stdout(Stdio::null()).stderr(fs::File::create(&said).unwrap());
    let up = Process::spawn(command).unwrap();
    let victim = block_on(async {
        eventually("the cluster runs", async || dir.join(CLUSTER).exists()).await;
        let testnet: Testnet = serde_json::from_slice(&fs::read(dir.join(CLUSTER)).unwrap()).unwrap();
        let victim = testnet.members[1].clone();
        // The launcher's child: nobody else can have its id before the launcher has collected it.
        let pid = rustix::process::Pid::from_raw(i32::try_from(victim.pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let told = format!("{} is offline, says central-1", victim.name);
        eventually("its loss is told", async || fs::read_to_string(&said).unwrap().contains(&told)).await;
        let status = up.end(DEADLINE).await.unwrap();
        assert!(status.success(), "{status}: {}", fs::read_to_string(&said).unwrap());
        victim.name
    });
    let record: Record = serde_json::from_slice(&fs::read(report.join("record.json")).unwrap()).unwrap();
    assert_eq!(record.outcome, Outcome::Ended);
    let ends: Vec<_> = record.lives.iter().map(|life| (life.member == victim, life.end.as_deref())).collect();
    assert_eq!(ends, [(false, Some("in order")), (true, Some("signal 9")), (false, Some("in order"))]);
    assert!(record.sightings.iter().any(|seen| seen.member == victim && seen.state == "offline"));
    assert!(!record.samples.at_seconds.is_empty() && !record.metrics.is_empty());
}

#[test]
fn a_folder_that_cannot_hold_a_cluster_is_refused_before_anything_is_started() {
    let home = home();
    fs::write(home.path().join("thesis.txt"), "").unwrap();
    let long = home.path().join("x".repeat(100));
    for (dir, why) in [(home.path(), "the folder is not empty"), (&*long, "the path of a member's socket")] {
        let output = Command::new(TESTNET).args(["up", "--dir"]).arg(dir).output().unwrap();
        crate::support::assert_fails(&output, 1, &["cannot start a cluster", why]);
    }
    assert_eq!(names_in(home.path()), ["thesis.txt"]);
}

/// The processes of daemons whose data lies in `folder`, sorted.
fn running_in(folder: &Path) -> Vec<u32> {
    let folder = folder.to_str().unwrap();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("serve") && line.contains(folder)
        })
        .collect();
    pids.sort_unstable();
    pids
}

fn files_in(folder: &Path) -> Vec<std::path::PathBuf> {
    quarta_testnet::original::in_folder(folder).unwrap().into_iter().map(|file| file.path).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
