//! Fetches that go on: after the fetching daemon was killed at any moment, after all sources were, over a full disk and
//! a pause.

use crate::support::{MIB, Network, assert_fails, bytes, eventually, names_in};
use futures::StreamExt;
use quarta_node::api::model::{FetchEvent, File, Transfer, TransferState};
use quarta_testnet::cluster::{Cluster, Plan};
use quarta_testnet::original;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What a fetch that goes on may receive over what was missing.
const WASTE_MAX: f64 = 1.01;

/// All nodes send at most so much a second, so that a fetch takes its time.
fn upload_limit(plan: &mut Plan, limit: &str) {
    for member in plan.members.iter_mut().filter(|member| member.role == quarta_daemon::Role::Node) {
        member.serve_args.extend(["--limit-lan", "--upload-limit", limit].map(OsString::from));
    }
}

/// Waits until a node sees a file with `holders` holders.
async fn listed(network: &Network, index: usize, file: &File, holders: u32) {
    eventually("the file and its holders are listed", async || {
        let files = network.node(index).node().files("").await.unwrap_or_default();
        files.iter().any(|listed| listed.id == file.id && listed.holders == Some(holders))
    })
    .await;
}

/// Begins to fetch and goes away once `share` of the file is there. Gives what was there then, in bytes.
async fn begun(network: &Network, index: usize, file: &File, share: f64) -> u64 {
    let mut events = network.node(index).node().fetch(&file.id).await.unwrap();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            FetchEvent::Progress(now) if now.done_bytes as f64 >= share * now.size_bytes as f64 => {
                return now.done_bytes;
            }
            FetchEvent::Progress(_) => {}
            other => panic!("it ended early: {other:?}"),
        }
    }
    panic!("its events broke off");
}

/// Waits until the file's latest transfer at a node is in a state, and gives it.
async fn reaches(network: &Network, index: usize, file: &File, state: TransferState) -> Transfer {
    let node = network.node(index).node();
    let what = format!("the transfer is {state:?}");
    eventually(&what, async || node.transfer(&file.id).await.is_ok_and(|now| now.state == state)).await;
    node.transfer(&file.id).await.unwrap()
}

fn data(network: &Network, index: usize) -> PathBuf {
    network.node(index).data().to_owned()
}

/// The file is in the library once, as it was shared, and nothing partial is left.
fn assert_one_copy(network: &Network, index: usize, file: &File) {
    let data = data(network, index);
    let copies: Vec<_> = original::in_folder(&data.join("library"))
        .unwrap()
        .into_iter()
        .filter(|found| found.name.contains(file.name.trim_end_matches(".bin")))
        .collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let shared = network.home.path().join("originals").join(&file.name);
    original::compare(&shared, &copies[0].path, file.sha256.as_deref().unwrap()).unwrap();
    assert_eq!(names_in(&data.join("partial")), [] as [&str; 0]);
}

async fn kill(cluster: &mut Cluster, name: &str) {
    cluster.kill(name).await.unwrap();
}

async fn restart(cluster: &mut Cluster, name: &str) {
    cluster.restart(name).unwrap();
    cluster.ready(name).await.unwrap();
}

async fn served(network: &Network, sources: &[usize]) -> u64 {
    let mut sum = 0;
    for source in sources {
        sum += network.node(*source).node().status().await.unwrap().served_bytes;
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_downloader_goes_on_by_itself_and_gets_hardly_more_than_what_was_missing() {
    let size = std::env::var("QUARTA_RESUME_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(96);
    let limit = format!("{}MiB", size / 6);
    let mut network =
        Network::start_changed(1, 3, Duration::from_secs(1), |plan| upload_limit(plan, &limit)).await;
    let file = network.share(0, "filme.bin", &bytes(1, size * MIB)).await;
    listed(&network, 1, &file, 1).await;
    network.fetch(1, &file).await;
    listed(&network, 2, &file, 2).await;

    let before = begun(&network, 2, &file, 0.5).await;
    let downloader = network.name(2);
    kill(&mut network.cluster, &downloader).await;
    let unseen = data(&network, 2);
    assert_eq!(names_in(&unseen.join("library")), [] as [&str; 0], "nothing partial is in the library");
    // What the sources have on their way still counts for the first run.
    for source in [0, 1] {
        eventually("the source has noticed", async || {
            network.node(source).node().status().await.is_ok_and(|status| status.active_uploads == 0)
        })
        .await;
    }
    let served_before = served(&network, &[0, 1]).await;

    restart(&mut network.cluster, &downloader).await;
    let ended = reaches(&network, 2, &file, TransferState::Completed).await;
    assert_one_copy(&network, 2, &file);
    let missing = file.size_bytes - ended.resumed_bytes;
    let received = served(&network, &[0, 1]).await - served_before;
    let shares: u64 = ended.sources.iter().map(|source| source.bytes).sum();
    println!(
        "seen before the kill {before}, resumed {}, missing {missing}, sent {received}, shares {shares}",
        ended.resumed_bytes
    );
    assert!(ended.resumed_bytes >= before, "what had been verified was fetched again");
    assert_eq!(shares, missing);
    assert!(received as f64 <= missing as f64 * WASTE_MAX, "{received} bytes for {missing}");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_loses_all_sources_waits_says_so_and_goes_on_when_one_is_back() {
    let mut network =
        Network::start_changed(1, 3, Duration::from_secs(1), |plan| upload_limit(plan, "4MiB")).await;
    let file = network.share(0, "filme.bin", &bytes(2, 24 * MIB)).await;
    listed(&network, 1, &file, 1).await;
    network.fetch(1, &file).await;
    listed(&network, 2, &file, 2).await;

    begun(&network, 2, &file, 0.3).await;
    let sources = [network.name(0), network.name(1)];
    let asking = async {
        // Joins the transfer and stays until it is told how that stands.
        network.node(2).run(&["get", &file.name], "").await.unwrap()
    };
    let output = {
        let pids: Vec<u32> = [0, 1].map(|index| network.node(index).pid().unwrap()).to_vec();
        let killing = async {
            eventually("more has come", async || {
                network.node(2).node().transfer(&file.id).await.is_ok_and(|now| now.done_bytes > 9 << 20)
            })
            .await;
            for pid in pids {
                let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        };
        tokio::join!(asking, killing).0
    };
    assert_fails(&output, 1, &["cannot get filme.bin", "goes on by itself", "quarta transfers"]);
    let waiting = reaches(&network, 2, &file, TransferState::Waiting).await;
    assert!(waiting.done_bytes > 9 << 20 && waiting.error.is_some(), "{waiting:?}");
    let listed = network.node(2).succeed(&["transfers"], "").await.unwrap();
    assert!(listed.contains("waiting") && listed.contains(" %"), "{listed}");
    // Asking again says the same, soon.
    let output = network.node(2).run(&["get", &file.id], "").await.unwrap();
    assert_fails(&output, 1, &["goes on by itself"]);

    for source in &sources {
        kill(&mut network.cluster, source).await;
        restart(&mut network.cluster, source).await;
    }
    let ended = reaches(&network, 2, &file, TransferState::Completed).await;
    assert!(ended.resumed_bytes >= waiting.done_bytes, "{ended:?}");
    assert_one_copy(&network, 2, &file);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_fetch_stays_so_over_a_restart_a_cancelled_one_leaves_nothing_and_nonsense_is_refused() {
    let mut network =
        Network::start_changed(1, 2, Duration::from_secs(1), |plan| upload_limit(plan, "8MiB")).await;
    let file = network.share(0, "filme.bin", &bytes(3, 24 * MIB)).await;
    let other = network.share(0, "outro.bin", &bytes(4, 24 * MIB)).await;
    listed(&network, 1, &other, 1).await;

    begun(&network, 1, &file, 0.2).await;
    let paused = network.node(1).succeed(&["transfers", "pause", "filme.bin"], "").await.unwrap();
    assert!(paused.contains("filme.bin  paused"), "{paused}");
    let at = network.node(1).node().transfer(&file.id).await.unwrap();
    assert!(at.done_bytes > 0 && at.state == TransferState::Paused, "{at:?}");
    let id = at.id.to_string();
    let twice = network.node(1).run(&["transfers", "pause", &id], "").await.unwrap();
    assert_fails(&twice, 1, &["it is paused already", "transfers resume"]);
    for command in ["pause", "resume", "cancel"] {
        let unknown = network.node(1).run(&["transfers", command, "4711"], "").await.unwrap();
        assert_fails(&unknown, 5, &["there is no transfer", "quarta transfers"]);
    }

    let name = network.name(1);
    assert!(network.cluster.end(&name).await.unwrap(), "it stops in order");
    restart(&mut network.cluster, &name).await;
    let still = network.node(1).node().transfer(&id).await.unwrap();
    assert_eq!((still.state, still.done_bytes), (TransferState::Paused, at.done_bytes));
    assert_eq!(names_in(&data(&network, 1).join("partial")).len(), 2, "data and marks");
    let files = network.node(1).node().files("filme").await.unwrap();
    assert!(files.iter().all(|file| file.path.is_none()), "what is partial is not here");

    network.node(1).succeed(&["transfers", "resume", &id], "").await.unwrap();
    let resumed = network.node(1).run(&["get", "filme.bin"], "").await.unwrap();
    let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert!(resumed.status.success() && said.contains("resuming filme.bin at "), "{said}");
    let ended = reaches(&network, 1, &file, TransferState::Completed).await;
    assert_eq!((ended.id, ended.resumed_bytes >= at.done_bytes), (at.id, true));
    assert_one_copy(&network, 1, &file);
    for command in ["pause", "resume", "cancel"] {
        let over = network.node(1).run(&["transfers", command, &id], "").await.unwrap();
        assert_fails(&over, 1, &["it is completed"]);
    }

    begun(&network, 1, &other, 0.2).await;
    network.node(1).succeed(&["transfers", "cancel", &other.id[..12]], "").await.unwrap();
    assert_eq!(names_in(&data(&network, 1).join("partial")), [] as [&str; 0]);
    let over = network.node(1).run(&["transfers", "resume", &other.id], "").await.unwrap();
    assert_fails(&over, 1, &["it was cancelled", "quarta get"]);
    network.fetch(1, &other).await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_moment_of_a_fetch_ends_with_one_whole_copy() {
    let home = crate::support::home();
    let point = home.path().join("kill-at");
    let mut network = Network::start_changed(1, 2, Duration::from_secs(1), |plan| {
        // Where the file names a system call, the next start is killed at it.
        let script = "if [ -s \"$0\" ]; then spec=$(cat \"$0\"); rm \"$0\"; \
            exec strace -D -f -qq -o /dev/null -e trace=\"${spec%%:*}\" -e inject=\"$spec\" \"$@\"; fi; exec \"$@\"";
        let node = plan.members.last_mut().unwrap();
        node.through = ["sh".into(), "-c".into(), script.into(), point.clone().into_os_string()].to_vec();
    })
    .await;
    let name = network.name(1);
    let mut points = Vec::new();
    if can_trace() {
        // Before the file has its name, before that is durable, and before each of its partial files is removed.
        points.extend([
            "linkat:signal=KILL:when=1",
            "unlinkat:signal=KILL:when=1",
            "unlinkat:signal=KILL:when=2",
        ]);
    }
    let rounds = points.len();
    for (round, spec) in points.into_iter().enumerate() {
        let file = network.share(0, &format!("ponto-{round}-.bin"), &bytes(50 + round as u64, 2 * MIB)).await;
        assert!(network.cluster.end(&name).await.unwrap());
        std::fs::write(&point, spec).unwrap();
        restart(&mut network.cluster, &name).await;
        listed(&network, 1, &file, 1).await;
        // Its answer breaks off.
        let _ = network.node(1).node().fetched(&file.id).await;
        eventually("it was killed", async || network.node(1).pid().is_none()).await;
        kill(&mut network.cluster, &name).await;
        restart(&mut network.cluster, &name).await;
        reaches(&network, 1, &file, TransferState::Completed).await;
        assert_one_copy(&network, 1, &file);
    }
    for round in rounds..rounds + 6 {
        let file =
            network.share(0, &format!("acaso-{round}-.bin"), &bytes(100 + round as u64, 6 * MIB)).await;
        listed(&network, 1, &file, 1).await;
        let mut events = network.node(1).node().fetch(&file.id).await.unwrap();
        let _ = events.next().await;
        // Somewhere between the beginning and shortly after the end.
        let moment = Duration::from_millis(round as u64 * 37 % 200);
        let ended = async { while events.next().await.is_some() {} };
        let _ = tokio::time::timeout(moment, ended).await;
        kill(&mut network.cluster, &name).await;
        restart(&mut network.cluster, &name).await;
        reaches(&network, 1, &file, TransferState::Completed).await;
        assert_one_copy(&network, 1, &file);
    }
    network.stop().await;
}

/// Whether strace can inject here; where not, that is said, and with `CI=true` a failure.
fn can_trace() -> bool {
    let traced =
        Command::new("strace").args(["-qq", "-o", "/dev/null", "-e", "trace=linkat", "true"]).output();
    let can = traced.is_ok_and(|output| output.status.success());
    assert!(can || std::env::var("CI").as_deref() != Ok("true"), "CI=true and strace does not work");
    if !can {
        println!("NOT RUN: kills at single system calls need strace");
    }
    can
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_fetch_with_its_cause_and_room_lets_it_go_on() {
    for kind in [Kind::Tmpfs, Kind::Ext2] {
        let mut network =
            Network::start_changed(1, 2, Duration::from_secs(1), |plan| upload_limit(plan, "8MiB")).await;
        let file = network.share(0, "filme.bin", &bytes(5, 20 * MIB)).await;
        listed(&network, 1, &file, 1).await;
        let name = network.name(1);
        assert!(network.cluster.end(&name).await.unwrap());
        let Some(disk) = SmallDisk::under(&data(&network, 1), network.home.path(), kind) else {
            network.stop().await;
            continue;
        };
        restart(&mut network.cluster, &name).await;

        // Full before it begins.
        disk.fill();
        let output = network.node(1).run(&["get", "filme.bin"], "").await.unwrap();
        assert_fails(&output, 1, &["cannot get filme.bin"]);
        disk.make_room();

        // Full in the middle.
        begun(&network, 1, &file, 0.3).await;
        disk.fill();
        let failed = reaches(&network, 1, &file, TransferState::Failed).await;
        assert!(failed.error.is_some(), "{failed:?}");
        assert_eq!(names_in(&data(&network, 1).join("library/filial-recife")), [] as [&str; 0]);
        disk.make_room();
        let output = network.node(1).run(&["get", "filme.bin"], "").await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("resuming filme.bin at"), "{kind:?}: {said}");
        let ended = reaches(&network, 1, &file, TransferState::Completed).await;
        assert!(ended.resumed_bytes as f64 >= 0.3 * file.size_bytes as f64, "{ended:?}");
        assert_one_copy(&network, 1, &file);
        // And after a restart it is still known.
        assert!(network.cluster.end(&name).await.unwrap());
        restart(&mut network.cluster, &name).await;
        let files = network.node(1).node().files("filme").await.unwrap();
        assert!(files.iter().all(|file| file.path.is_some()));
        assert!(network.cluster.end(&name).await.unwrap());
        drop(disk);
        network.stop().await;
    }
}

/// What a small disk is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Reserves space, so that a fetch has its own before it begins; then the database's writes fail.
    Tmpfs,
    /// Reserves none: the chunks' own writes fail.
    Ext2,
}

/// A data folder on a disk of its own. Unmounted when dropped.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Moves a data folder to a small disk. None, after saying so, where this user may not; with `CI=true` that is a
    /// failure.
    fn under(data: &Path, home: &Path, kind: Kind) -> Option<Self> {
        let (image, kept) = (home.join("disk.img"), home.join("kept"));
        let made = run("cp", &["-a"], &[data, &kept])
            .and_then(|()| match kind {
                Kind::Tmpfs => run("mount", &["-t", "tmpfs", "-o", "size=40m", "tmpfs"], &[data]),
                Kind::Ext2 => run("truncate", &["-s", "48m"], &[&image])
                    .and_then(|()| run("mkfs.ext2", &["-q", "-F", "-m", "0"], &[&image]))
                    .and_then(|()| run("mount", &["-o", "loop"], &[&image, data])),
            })
            .and_then(|()| run("cp", &["-a", "-T"], &[&kept, data]));
        match made {
            Ok(()) => Some(Self { at: data.to_owned() }),
            Err(why) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true and no small disk: {why}");
                println!("NOT RUN: this needs root to mount a small disk: {why}");
                None
            }
        }
    }

    /// Until not a byte fits any more.
    fn fill(&self) {
        use std::io::Write;
        let mut ballast = std::fs::File::create(self.at.join("ballast")).unwrap();
        let mut piece = 1 << 20;
        while piece > 0 {
            if ballast.write_all(&vec![1; piece]).and_then(|()| ballast.sync_all()).is_err() {
                piece /= 16;
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.at.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l"], &[&self.at]);
    }
}

fn run(program: &str, args: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output =
        Command::new(program).args(args).args(paths).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
