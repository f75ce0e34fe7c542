//! Bad days of the local machine: files that change under one's hands, disks that fail or are full, clocks that are off.

use crate::support::clock::Clock;
use crate::support::{MIB, Network, bytes, eventually, names_in, outsider};
use futures::TryStreamExt;
use quarta_daemon::Role;
use quarta_node::api::model::{AddEvent, AddRequest, Defect, File, Status};
use quarta_testnet::cluster::{Member, MemberPlan};
use quarta_testnet::process::Process;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Whether the tools are there with which a machine is made to fail, as [`crate::support::can`] has it.
fn can(tool: &str) -> bool {
    let works = match tool {
        "strace" => Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "true"])
            .status()
            .is_ok_and(|s| s.success()),
        "mount" => rustix::process::geteuid().is_root(),
        _ => unreachable!("{tool}"),
    };
    crate::support::can(tool, works)
}

/// Makes system calls of a running daemon fail or wait, until it is dropped.
struct Fault {
    strace: Process,
}

impl Fault {
    /// `inject` as in strace's `-e inject=`, only for calls on `paths` where there are any.
    async fn on(member: &Member, inject: &str, paths: &[&Path], home: &Path) -> Self {
        let said = home.join("strace.out");
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-p"]).arg(member.pid().unwrap().to_string());
        for path in paths {
            command.arg("-P").arg(path);
        }
        command.arg("-e").arg(format!("inject={inject}"));
        command.stdout(Stdio::null()).stderr(fs::File::create(&said).unwrap());
        let strace = Process::spawn(command).unwrap();
        eventually("strace is attached", async || fs::read_to_string(&said).unwrap().contains("attached"))
            .await;
        Self { strace }
    }

    async fn end(self) {
        self.strace.end(SECOND * 5).await.unwrap();
    }
}

/// What a request to add brought: the names that were added, and path and words of each failure.
async fn add(
    member: &Member,
    request: &AddRequest,
    mut on_progress: impl FnMut(&Path),
) -> (Vec<String>, Vec<(PathBuf, String)>) {
    let mut events = member.client().post_lines::<AddEvent>("/api/v1/local/add", request).await.unwrap();
    let (mut added, mut failed) = (Vec::new(), Vec::new());
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            AddEvent::Progress { path, done_bytes, size_bytes } => {
                assert!(done_bytes <= size_bytes);
                on_progress(Path::new(&path));
            }
            AddEvent::Added { file, .. } => added.push(file.name),
            AddEvent::Failed { path, why, next_step } => {
                assert!(!next_step.is_empty() && !why.contains("os error"), "{why}; {next_step}");
                failed.push((path.into(), format!("{why}; {next_step}")));
            }
        }
    }
    added.sort();
    (added, failed)
}

fn request(paths: &[&Path], in_place: bool) -> AddRequest {
    let paths = paths.iter().map(|path| path.display().to_string()).collect();
    AddRequest { paths, name: None, in_place, hide_from: Vec::new(), only: None }
}

async fn status(member: &Member) -> Status {
    member.node().status().await.unwrap()
}

/// The one problem of a member, as its status tells it.
fn only_problem(status: &Status) -> &str {
    assert!(!status.healthy);
    assert_eq!(status.problems.len(), 1, "{:?}", status.problems);
    &status.problems[0]
}

fn line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A member that runs through a program.
fn through<S: AsRef<OsStr>>(words: &[S]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_added_fails_alone_and_leaves_nothing() {
    if !can("strace") {
        return;
    }
    let network = Network::start(1, 1, SECOND).await;
    let node = network.node(0);
    let [grows, shrinks, edited, moved, failing] = ["grows", "shrinks", "edited", "moved", "failing"]
        .map(|name| network.write(name, &bytes(1, 8 * MIB)));
    let good = network.write("good", &bytes(2, MIB));
    let gone = network.home.path().join("originals/gone");

    // Slowed down, so that something can happen to them in the middle.
    let slow = [&*grows, &*shrinks, &*edited, &*moved];
    let fault = Fault::on(node, "pread64:delay_enter=10000", &slow, network.home.path()).await;
    let mut touched = Vec::new();
    let copies = request(&[&grows, &shrinks, &gone, &edited, &good], false);
    let (added, failed) = add(node, &copies, |path| {
        if touched.iter().any(|done| done == path) {
            return;
        }
        touched.push(path.to_owned());
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        if path == grows {
            file.write_all_at(b"more", 8 * MIB as u64).unwrap();
        } else if path == shrinks {
            file.set_len(MIB as u64).unwrap();
        } else {
            file.write_all_at(b"edited", 0).unwrap();
        }
    })
    .await;
    assert_eq!(
        touched,
        [&*grows, &*shrinks, &*edited],
        "long files tell how far they are, short ones do not"
    );
    assert_eq!(added, ["good"]);
    let changed = |path: &Path| {
        failed.iter().any(|(failed, words)| {
            failed == path && words.contains("it changed while it was read; add it again")
        })
    };
    assert!(changed(&grows) && changed(&shrinks) && changed(&edited), "{failed:?}");
    assert!(
        failed.iter().any(|(path, words)| *path == gone && words.contains("it is not there")),
        "{failed:?}"
    );

    // Most editors put a new file in the old one's place.
    let (added, failed) = add(node, &request(&[&moved], true), |path| {
        let _ = fs::rename(&good, path);
    })
    .await;
    assert!(added.is_empty() && failed[0].1.contains("it changed while it was read"), "{failed:?}");
    fault.end().await;

    let fault = Fault::on(node, "pread64:error=EIO:when=3+", &[&failing], network.home.path()).await;
    let (added, failed) = add(node, &request(&[&failing], false), |_| ()).await;
    fault.end().await;
    assert!(
        added.is_empty() && failed[0].1.contains("the disk reports an error; check the disk"),
        "{failed:?}"
    );

    assert_eq!(names_in(&node.data().join("library")), ["good"]);
    assert_eq!(names_in(&node.data().join("partial")), [] as [&str; 0]);
    assert_eq!(node.node().files("").await.unwrap().len(), 1);
    assert_eq!(network.superpeer(0).superpeer().held(node.name()).await.unwrap().len(), 1);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_told_one_by_one_and_the_others_are_added() {
    let network = Network::start(1, 1, SECOND).await;
    let node = network.node(0);
    let folder = network.home.path().join("campaign");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/a.txt"), "a").unwrap();
    fs::write(folder.join(OsString::from_vec(b"caf\xe9.txt".to_vec())), "x").unwrap();
    symlink("/etc/passwd", folder.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let _socket = UnixListener::bind(folder.join("socket")).unwrap();
    let latin = network.home.path().join(OsString::from_vec(b"\xe9.txt".to_vec()));
    fs::write(&latin, "x").unwrap();
    let good = network.write("good.txt", b"good");

    let args: Vec<OsString> = vec![
        "add".into(),
        latin.into(),
        folder.clone().into(),
        "/dev/null".into(),
        "/proc/cpuinfo".into(),
        folder.join("fifo").into(),
        good.into(),
    ];
    let output = node.run(&args, "").await.unwrap();
    let said = line(&output);
    assert_eq!(output.status.code(), Some(6), "{said}");
    let failures: Vec<&str> = said.lines().filter(|line| line.starts_with("error: cannot add ")).collect();
    assert_eq!(failures.len(), 8, "{said}");
    for (path, why) in [
        ("/\u{fffd}.txt", "not valid UTF-8"),
        ("caf\u{fffd}.txt", "not valid UTF-8"),
        ("campaign/link", "it is a symbolic link"),
        ("campaign/fifo", "a named pipe"),
        ("campaign/socket", "it is a socket"),
        ("/dev/null", "it is a device"),
        ("/proc/cpuinfo", "it changed while it was read"),
    ] {
        let told =
            failures.iter().any(|line| line.contains(path) && line.contains(why) && line.contains("; "));
        assert!(told, "{path}: {why} in:\n{said}");
    }
    let names: Vec<String> = node.node().files("").await.unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["campaign/sub/a.txt", "good.txt"]);
    let output = node.run(&["add", "/dev/null"], "").await.unwrap();
    assert_eq!(output.status.code(), Some(1), "none was added");
    network.stop().await;
}

/// The file as a node lists it.
async fn listed(member: &Member, file: &File) -> File {
    let target = quarta_daemon::client::Target::new("/api/v1/files").segment(&file.id);
    member.client().get(target).await.unwrap()
}

async fn held_by(network: &Network, file: &File, holders: usize) {
    eventually(&format!("{holders} hold the file"), async || {
        let files = network.superpeer(0).superpeer().files().await.unwrap_or_default();
        files.iter().any(|listed| listed.id == file.id && listed.holders.len() == holders)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_file_that_is_edited_is_offered_no_more_until_it_is_verified_or_fetched_afresh() {
    let mut network = Network::start(1, 3, SECOND).await;
    let original = bytes(3, 3 * MIB);
    let file = network.share(0, "plano.bin", &original).await;
    let other = network.share(0, "outro.bin", &bytes(4, MIB)).await;
    held_by(&network, &file, 1).await;
    network.fetch(1, &file).await;
    held_by(&network, &file, 2).await;

    // Same size, in the middle; whoever fetches meanwhile gets the right bytes from the other holder.
    let path = network.node(0).data().join("library/plano.bin");
    let edited = fs::OpenOptions::new().write(true).open(&path).unwrap();
    edited.write_all_at(b"edited in place", MIB as u64).unwrap();
    drop(edited);
    network.fetch(2, &file).await;
    // The holder may not have been asked: looking is enough for `verify`, which reads every byte.
    let owner = network.node(0);
    let output = owner.run(&["verify"], "").await.unwrap();
    let said = line(&output);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains(&format!("changed     {}", path.display())), "{said}");
    assert!(said.contains("its bytes are not those that were shared; put the right file back"), "{said}");
    assert!(said.contains("1 of 2 copies are not what was shared"), "{said}");

    // It is no source any more, and its owner is told wherever it looks.
    held_by(&network, &file, 2).await;
    assert_eq!(network.superpeer(0).superpeer().held(owner.name()).await.unwrap().len(), 1);
    let told =
        |problem: &str| problem.contains(&*path.to_string_lossy()) && problem.contains("`quarta verify`");
    assert!(told(only_problem(&status(owner).await)));
    let output = owner.run(&["status"], "").await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        line(&output).starts_with("not healthy: files of the library are not what was shared"),
        "{}",
        line(&output)
    );
    assert_eq!(listed(owner, &file).await.defect, Some(Defect::Changed));
    assert_eq!(listed(owner, &other).await.defect, None);
    let ls = line(&owner.run(&["ls"], "").await.unwrap());
    assert!(ls.lines().any(|line| line.starts_with("plano.bin") && line.contains("changed")), "{ls}");
    let metrics = owner.scrape("/metrics").await.unwrap();
    assert!(metrics.contains("quarta_node_defective_copies{defect=\"changed\"} 1"), "{metrics}");
    assert!(fs::read_to_string(owner.log()).unwrap().contains("a file of the library is changed"));

    // A restart does not forget it, even though size and time of the file are as they are.
    let name = network.name(0);
    assert!(network.cluster.end(&name).await.unwrap());
    network.cluster.restart(&name).unwrap();
    network.cluster.ready(&name).await.unwrap();
    assert!(told(only_problem(&status(network.node(0)).await)));

    // Put right, and verified, it is a source again.
    fs::write(&path, &original).unwrap();
    let output = network.node(0).run(&["verify", "plano.bin", "--json"], "").await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", line(&output));
    assert!(line(&output).contains("\"defect\":null"), "{}", line(&output));
    held_by(&network, &file, 3).await;
    assert!(status(network.node(0)).await.healthy);

    // A reader whose copy is gone or edited gets it afresh; what was edited stays where it is.
    let reader = network.node(1);
    let copy = reader.data().join("library").join(&name).join("plano.bin");
    fs::remove_file(&copy).unwrap();
    assert_eq!(network.fetch(1, &file).await.path, Some(copy.display().to_string()));
    fs::write(&copy, "notes of my own").unwrap();
    let afresh = network.fetch(1, &file).await.path.unwrap();
    assert_ne!(Path::new(&afresh), copy);
    assert_eq!(fs::read_to_string(&copy).unwrap(), "notes of my own");
    held_by(&network, &file, 3).await;
    assert!(status(reader).await.healthy);
    let output = reader.run(&["verify", "nothing.bin"], "").await.unwrap();
    crate::support::assert_fails(&output, 5, &["cannot verify", "nothing.bin"]);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_noticed_when_the_file_is_asked_for_and_nothing_wrong_is_sent() {
    let network = Network::start(1, 2, SECOND).await;
    let file = network.share(0, "tabela.csv", &bytes(5, 2 * MIB)).await;
    held_by(&network, &file, 1).await;
    // As editors do it: a new file of the same size in the old one's place.
    let path = network.node(0).data().join("library/tabela.csv");
    let new = network.write("new", &bytes(6, 2 * MIB));
    fs::rename(new, &path).unwrap();
    let failure = network.node(1).node().fetched(&file.id).await.unwrap_err().to_string();
    assert!(failure.contains("; "), "{failure}");
    held_by(&network, &file, 0).await;
    assert_eq!(listed(network.node(0), &file).await.defect, Some(Defect::Changed));
    let metrics = network.node(0).scrape("/metrics").await.unwrap();
    assert!(!metrics.contains("quarta_node_seal_mismatches_total 0"), "{metrics}");
    assert_eq!(names_in(&network.node(1).data().join("library")), [] as [&str; 0]);
    network.stop().await;
}

/// A mount that goes when it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn make(args: &[&OsStr], at: &Path) -> Self {
        assert!(Command::new("mount").args(args).arg(at).status().unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_a_failing_and_a_read_only_disk_are_told_as_that_and_lose_nothing() {
    if !can("mount") || !can("strace") {
        return;
    }
    let home = crate::support::home();
    let disk = home.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let tmpfs = ["-t", "tmpfs", "-o", "size=600m", "tmpfs"].map(OsStr::new);
    let _disk = Mount::make(&tmpfs, &disk);
    let mut network = Network::start_changed(1, 1, SECOND, |plan| plan.dir = disk.join("net")).await;
    let name = network.name(0);
    let (first, second) =
        (network.write("first.bin", &bytes(7, MIB)), network.write("second.bin", &bytes(8, 4 * MIB)));
    let tiny = network.write("tiny.txt", b"");
    assert_eq!(add(network.node(0), &request(&[&first], false), |_| ()).await.0, ["first.bin"]);
    assert!(status(network.node(0)).await.healthy);

    // Too full for a file.
    let ballast = disk.join("ballast");
    let free = rustix::fs::statvfs(&disk).unwrap();
    let mut filling = fs::File::create(&ballast).unwrap();
    let most = free.f_bavail * free.f_frsize - 2 * MIB as u64;
    rustix::fs::fallocate(&filling, rustix::fs::FallocateFlags::empty(), 0, most).unwrap();
    let (added, failed) = add(network.node(0), &request(&[&second], false), |_| ()).await;
    assert!(added.is_empty() && failed[0].1.contains("free and 4.0 MiB are needed; make room"), "{failed:?}");
    assert!(only_problem(&status(network.node(0)).await).contains("are free on the disk of the data folder"));

    // Too full for anything: what cannot be noted is not added.
    std::io::Seek::seek(&mut filling, std::io::SeekFrom::End(0)).unwrap();
    while filling.write_all(&[1; 4096]).is_ok() {}
    let (added, failed) = add(network.node(0), &request(&[&tiny], false), |_| ()).await;
    assert!(added.is_empty() && failed[0].1.contains("the disk is full"), "{failed:?}");
    assert_eq!(names_in(&network.node(0).data().join("library")), ["first.bin"]);
    drop(filling);
    fs::remove_file(&ballast).unwrap();
    assert!(status(network.node(0)).await.healthy, "with room again it is well without a restart");

    // A disk that does not take the database's writes.
    let fault = Fault::on(network.node(0), "fdatasync,fsync:error=EIO", &[], home.path()).await;
    let (added, failed) = add(network.node(0), &request(&[&tiny], false), |_| ()).await;
    assert!(added.is_empty() && failed[0].1.contains("the disk reports an error"), "{failed:?}");
    fault.end().await;
    let database = network.node(0).data().join("node.db-wal");
    let fault = Fault::on(network.node(0), "fdatasync,fsync:error=EIO", &[&database], home.path()).await;
    let (added, failed) = add(network.node(0), &request(&[&tiny], false), |_| ()).await;
    assert!(
        added.is_empty() && failed[0].1.contains("the database failed: the disk reports an error"),
        "{failed:?}"
    );
    assert!(only_problem(&status(network.node(0)).await).contains("what happens cannot be noted"));
    fault.end().await;
    assert_eq!(names_in(&network.node(0).data().join("library")), ["first.bin"]);
    assert!(status(network.node(0)).await.healthy);
    let (added, failed) = add(network.node(0), &request(&[&tiny], false), |_| ()).await;
    assert_eq!(added, ["tiny.txt"], "{failed:?}");

    // A read-only data folder at the start.
    assert!(network.cluster.end(&name).await.unwrap());
    let data = network.node(0).data().to_owned();
    let folder = Mount::make(&[OsStr::new("--bind"), data.as_os_str()], &data);
    assert!(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&data).status().unwrap().success());
    let output = network.node(0).run(&["serve"], "").await.unwrap();
    drop(folder);
    crate::support::assert_fails(&output, 1, &["the disk is read-only; make the disk writable again"]);
    network.cluster.restart(&name).unwrap();
    network.cluster.ready(&name).await.unwrap();
    assert_eq!(network.node(0).node().files("").await.unwrap().len(), 2);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_out_of_descriptors_keeps_answering_and_recovers() {
    let network = Network::start_changed(1, 2, SECOND, |plan| {
        plan.members[1].through = through(&["prlimit", "--nofile=96:96"]);
        plan.members[2].through = through(&["prlimit", "--nofile=96:2048"]);
    })
    .await;
    let (short, raised) = (network.node(0), network.node(1));
    assert!(status(raised).await.healthy, "the soft limit is raised to the hard one");
    assert!(only_problem(&status(short).await).contains("only 96 files and connections may be open"));

    let file = network.share(0, "a.bin", &bytes(9, MIB)).await;
    held_by(&network, &file, 1).await;
    let connect = |port: u16| TcpStream::connect(("127.0.0.1", port));
    let held: Vec<TcpStream> = (0..200)
        .filter_map(|n| connect(if n % 2 == 0 { short.peer_port() } else { short.http().port() }).ok())
        .collect();
    assert!(held.len() > 100, "{}", held.len());
    assert!(!status(short).await.healthy, "it answers");
    drop(held);
    eventually("it takes files again", async || {
        let path = network.home.path().join("originals/a.bin");
        short.node().add(&path, Some("b.bin".to_owned())).await.is_ok()
            || short.node().files("b.bin").await.is_ok_and(|files| files.len() == 1)
    })
    .await;
    network.fetch(1, &file).await;
    assert_eq!(listed(short, &file).await.defect, None, "its copies are not blamed");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_years_off_is_told_as_that_and_nothing_else_breaks() {
    let home = crate::support::home();
    let Some(clock) = Clock::at(home.path().join("clock")) else { return };
    let mut network =
        Network::start_changed(1, 2, SECOND, |plan| plan.members[1].through = clock.through()).await;
    let name = network.name(0);
    let file = network.share(0, "a.bin", &bytes(10, MIB)).await;
    held_by(&network, &file, 1).await;

    for (offset, words) in [("-4y", "4 years behind"), ("+4y", "4 years ahead of")] {
        assert!(network.cluster.end(&name).await.unwrap());
        clock.set(offset);
        network.cluster.restart(&name).unwrap();
        eventually("the clock is told", async || {
            let status = network.node(0).node().status().await;
            status.is_ok_and(|status| {
                status.problems.len() == 1
                    && status.problems[0].contains(&format!("this machine's clock is {words} the network's"))
                    && status.problems[0].contains("; set the clock")
            })
        })
        .await;
        assert!(fs::read_to_string(network.node(0).log()).unwrap().contains(words));
        // What needs nobody else goes on.
        let path = network.write(&format!("new{offset}"), b"new");
        network.node(0).node().add(&path, None).await.unwrap();
        assert_eq!(listed_alone(network.node(0), &file).await.as_deref(), Some("a.bin"));
        clock.set("+0");
        network.cluster.ready(&name).await.unwrap();
        eventually("with the clock set right it is well without a restart", async || {
            network.node(0).node().status().await.is_ok_and(|status| status.healthy)
        })
        .await;
    }
    network.fetch(1, &file).await;

    // A machine that joins.
    let superpeer = network.superpeer(0).superpeer();
    let invite = superpeer.invite("node", 1, SECOND * 600).await.unwrap().invite;
    let joiner = network
        .cluster
        .outsider(MemberPlan { through: clock.through(), ..outsider("tarde", Role::Node) })
        .unwrap();
    let join = ["join", "-", "--name", "tarde"];
    clock.set("-3y");
    let output = joiner.run(&join, &invite).await.unwrap();
    crate::support::assert_fails(
        &output,
        1,
        &["this machine's clock is 3 years behind the network's; set the clock"],
    );
    clock.set("+0");
    let output = joiner.run(&join, &invite).await.unwrap();
    assert!(output.status.success(), "the same invite, though it is for one machine: {}", line(&output));
    network.stop().await;
}

/// The name of a file as a node lists it, whether or not a super-peer answers.
async fn listed_alone(member: &Member, file: &File) -> Option<String> {
    let files = member.node().files("").await.ok()?;
    files.into_iter().find(|listed| listed.id == file.id).map(|listed| listed.name)
}
