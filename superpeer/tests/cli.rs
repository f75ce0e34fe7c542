//! The program `quarta-superpeer` as its operators meet it: exit codes, the lines it prints, and what it leaves behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use libp2p::identity::Keypair;
use quarta_protocols::{
    credentials::{Role, UnixSeconds},
    invites::Invite,
};
use serde_json::Value;
use tempfile::TempDir;

/// Far above what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// Listens where the system chooses.
const ANYWHERE: &str = "/ip4/127.0.0.1/tcp/0";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quarta-superpeer"));
    command.args(args).env_remove("QUARTA_DATA").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs a command that must fail with this code, and gives the one line that says why.
fn failure(args: &[&str], code: i32) -> String {
    let output = run(args);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    assert_eq!(errors.lines().count(), 1, "{args:?}: {errors}");
    errors.trim_end().to_owned()
}

/// Holds that a line has all of these parts.
fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is missing in {line:?}");
    }
}

/// A place for data folders.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A network's first super-peer that listens here.
    fn init(&self, name: &str, listen: &str) -> String {
        let data = self.path(name).display().to_string();
        let args =
            ["init", "--data", &data, "--name", name, "--listen", listen, "--http", "127.0.0.1:0", "--json"];
        let output = run(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        data
    }

    /// What was left behind.
    fn entries(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }
}

/// A running daemon, killed at the end of its test however that ends.
struct Daemon {
    child: Child,
    data: PathBuf,
}

impl Daemon {
    fn serve(data: &str) -> Self {
        let child = command(&["serve", "--data", data]).stderr(Stdio::null()).spawn().unwrap();
        let mut daemon = Self { child, data: data.into() };
        let begun = Instant::now();
        while run(&["status", "--data", data]).status.code() != Some(0) {
            assert_eq!(daemon.child.try_wait().unwrap(), None, "the daemon ended");
            assert!(begun.elapsed() < DEADLINE, "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    fn terminate(&mut self) -> Option<i32> {
        let signal = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &signal]).status().unwrap().success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "the daemon does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn socket(&self) -> PathBuf {
        self.data.join("api.sock")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last line of a daemon that must not start.
fn refused_start(data: &str, more: &[&str]) -> String {
    let mut child = command(&["serve", "--data", data])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the daemon runs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    errors.lines().last().unwrap().to_owned()
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["--version"], &["help", "serve"], &["init", "--help"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_command_that_makes_no_sense_is_one_line_and_exits_with_2() {
    for args in [
        &["bogus"][..],
        &["status", "--colour"],
        &["init"],
        &["invite", "--uses", "0"],
        &["invite", "--expires", "31d"],
        &["invite", "--role", "king"],
        &["invite", "--replaces", "sp2", "--uses", "2"],
        &["approve", "--root-key", "x"],
        &["log", "--limit", "0"],
        &["log", "--signed", "--observed"],
        &["serve", "--poll-interval", "1ms"],
        &["init", "--name", "São Paulo"],
    ] {
        says(&failure(args, 2), &["error: cannot understand the command: ", "--help"]);
    }
}

#[test]
fn an_error_in_json_is_one_object() {
    let data = Place::new().path("none").display().to_string();
    for (args, code) in [
        (&["--json", "bogus"][..], 2),
        (&["status", "--json"], 2),
        (&["status", "--json", "--data", &data], 3),
        (&["serve", "--json", "--data", &data], 1),
    ] {
        let object: Value = serde_json::from_str(&failure(args, code)).unwrap();
        assert_eq!(object["exit_code"], code, "{args:?}");
        for part in ["error", "why", "next_step"] {
            assert!(object[part].as_str().is_some_and(|text| !text.is_empty()), "{args:?}: {part}");
        }
    }
}

#[test]
fn a_command_needs_a_data_folder() {
    for args in [&["status"][..], &["serve"], &["init", "--name", "sp1"], &["members"], &["invite"]] {
        says(&failure(args, 2), &["no data folder was named", "--data", "QUARTA_DATA"]);
    }
}

#[test]
fn a_command_without_its_daemon_exits_with_3_and_says_how_to_start_it() {
    let place = Place::new();
    let data = place.init("sp1", ANYWHERE);
    for args in [
        &["status"][..],
        &["members"],
        &["files"],
        &["files", "--holder", "a"],
        &["invite"],
        &["invites"],
        &["invites", "withdraw", "abcd"],
        &["approve"],
        &["approve", "sp2"],
        &["revoke", "a"],
        &["log"],
    ] {
        let line = failure(&[args, &["--data", &data]].concat(), 3);
        says(&line, &["error: cannot ", "is not running", &data, "; start it with `serve`"]);
    }
}

#[test]
fn what_is_not_an_invite_leaves_nothing_behind() {
    let place = Place::new();
    let data = place.path("a/sp2").display().to_string();
    let issuer = Keypair::generate_ed25519();
    let root = issuer.public().try_into_ed25519().unwrap();
    let invite = |role| {
        let at = vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()];
        let expires = UnixSeconds::now().plus(Duration::from_hours(1));
        Invite::new(&root, issuer.public().to_peer_id(), at, role, expires, [7; 16]).to_text()
    };
    let whole = invite(Role::Superpeer);
    for (given, why) in [
        ("nonsense", "neither an invite nor a file"),
        ("quarta1", "incomplete or mistyped"),
        (&whole[..whole.len() / 2], "incomplete or mistyped"),
        (&invite(Role::Node), "the invite is for a node; use `quarta join`"),
    ] {
        let line = failure(&["join", given, "--data", &data, "--name", "sp2"], 2);
        says(&line, &["error: cannot ", why, "; "]);
        assert_eq!(place.entries(), 0, "{given}");
    }
    // A genuine one whose super-peer is gone.
    let line = failure(&["join", &whole, "--data", &data, "--name", "sp2"], 1);
    says(&line, &["error: cannot join the network: ", "does not answer", "; see that it is running"]);
    assert_eq!(place.entries(), 0);
}

#[test]
fn a_folder_is_taken_once_and_by_its_own_role_and_format() {
    let place = Place::new();
    let data = place.init("sp1", ANYWHERE);
    let key = std::fs::read(place.path("sp1/root.key")).unwrap();
    let line = failure(&["init", "--data", &data, "--name", "sp2"], 1);
    says(&line, &["already holds the superpeer `sp1`", "; use it as it is, or name another folder"]);
    assert_eq!(std::fs::read(place.path("sp1/root.key")).unwrap(), key, "the root key stays");

    let marker = place.path("sp1/quarta.json");
    let own = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, own.replace("\"superpeer\"", "\"node\"")).unwrap();
    says(&refused_start(&data, &[]), &["it is the data folder of the node `sp1`", "; use `quarta`"]);
    let mut newer: Value = serde_json::from_str(&own).unwrap();
    newer["format"] = 99.into();
    std::fs::write(&marker, newer.to_string()).unwrap();
    says(&refused_start(&data, &[]), &["its format is 99", "; install the newer version"]);
    std::fs::write(&marker, "{").unwrap();
    says(&refused_start(&data, &[]), &["is damaged", "; restore it from a backup"]);

    let empty = Place::new();
    let line = refused_start(&empty.path("none").display().to_string(), &[]);
    says(&line, &["the folder does not exist", "; run `quarta-superpeer init`"]);
    assert_eq!(empty.entries(), 0);
    std::fs::write(empty.path("letter.txt"), "mine").unwrap();
    let line = failure(&["init", "--data", &empty.0.path().display().to_string(), "--name", "sp1"], 1);
    says(&line, &["it is not empty and was not made by Quarta", "; name a new or empty folder"]);
    assert_eq!(empty.entries(), 1);
}

#[test]
fn a_misspelt_setting_is_named_with_its_line() {
    let place = Place::new();
    let data = place.init("sp1", ANYWHERE);
    std::fs::write(place.path("sp1/settings.toml"), "http = \"\"\npoll_intervall_ms = 1\n").unwrap();
    let line = refused_start(&data, &[]);
    says(&line, &["settings.toml", "line 2", "poll_intervall_ms", "; correct that line and start again"]);
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        says(text(&output.stdout), &["quarta-superpeer", "poll-interval"]);
    }
    failure(&["completions", "abacus"], 2);
}

#[test]
fn a_folder_in_use_names_its_daemon_and_a_signal_ends_that_one_in_order() {
    let place = Place::new();
    let data = place.init("sp1", ANYWHERE);
    let mut daemon = Daemon::serve(&data);
    let line = refused_start(&data, &[]);
    let pid = daemon.child.id();
    says(&line, &[&format!("in use by a running daemon (pid {pid})"), "; stop that one first"]);
    assert!(daemon.socket().exists(), "the one that was refused takes nothing away");
    assert_eq!(run(&["status", "--data", &data]).status.code(), Some(0));
    assert_eq!(daemon.terminate(), Some(0));
    assert!(!daemon.socket().exists());
    failure(&["status", "--data", &data], 3);
}

#[test]
fn a_daemon_that_was_killed_is_no_obstacle_to_the_next() {
    let place = Place::new();
    let data = place.init("sp1", ANYWHERE);
    drop(Daemon::serve(&data));
    assert!(place.path("sp1/api.sock").exists());
    failure(&["status", "--data", &data], 3);
    assert_eq!(Daemon::serve(&data).terminate(), Some(0));
}

#[test]
fn a_taken_port_is_named_with_a_way_out() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    let data = place.init("http", ANYWHERE);
    let http = format!("127.0.0.1:{port}");
    let line = refused_start(&data, &["--http", &http]);
    says(&line, &[&http, "the port is in use", "; stop that one, or choose another address with --http"]);

    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let line = refused_start(&place.init("tcp", &listen), &[]);
    says(&line, &[&listen, "in use", "; stop the program that has the port, or change listen"]);

    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/udp/{}/quic-v1", taken.local_addr().unwrap().port());
    let line = refused_start(&place.init("quic", &listen), &[]);
    says(&line, &[&listen, "in use", "; stop the program that has the port, or change listen"]);
    assert!(!Path::new(&data).join("api.sock").exists());
}

#[test]
fn two_daemons_do_not_share_a_port() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let _first = Daemon::serve(&place.init("sp1", &listen));
    says(&refused_start(&place.init("sp2", &listen), &[]), &[&listen, "in use"]);
}

/// Runs a command that must succeed, and gives what it prints.
fn success(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout).trim_end().to_owned()
}

/// What a command prints as JSON, one object a line.
fn objects(args: &[&str]) -> Vec<Value> {
    let printed = success(&[args, &["--json"]].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The arguments with which a super-peer joins.
fn joining<'a>(invite: &'a str, data: &'a str, name: &'a str) -> Vec<&'a str> {
    vec!["join", invite, "--data", data, "--name", name, "--listen", ANYWHERE, "--http", "127.0.0.1:0"]
}

#[test]
fn a_super_peer_waits_for_the_root_key_that_never_reaches_a_daemon() {
    let place = Place::new();
    let data = place.init("sp1", ANYWHERE);
    let key = place.path("offline.key").display().to_string();
    success(&["root", "export", &key, "--data", &data]);
    assert!(!place.path("sp1/root.key").exists());
    let line = failure(&["root", "export", &key, "--data", &data], 5);
    says(&line, &["cannot export the root key", "does not lie on this machine", "; run the command where"]);
    let _first = Daemon::serve(&data);
    let line = failure(&["root", "export", &place.path("x").display().to_string(), "--data", &data], 1);
    says(&line, &["in use by a running daemon"]);
    assert!(!success(&["status", "--data", &data]).contains("Root key"));

    let invite = success(&["invite", "--role", "superpeer", "--data", &data]);
    let second = place.path("sp2").display().to_string();
    let mut join = command(&joining(&invite, &second, "sp2"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("sp2 is not listed as waiting", || {
        objects(&["approve", "--data", &data]).iter().any(|waits| waits["name"] == "sp2")
    });
    let line = failure(&["approve", "sp2", "--data", &data], 4);
    says(&line, &["cannot approve sp2: only the root key", "--root-key FILE"]);
    let foreign = place.init("other", ANYWHERE);
    let foreign = format!("{foreign}/root.key");
    let line = failure(&["approve", "sp2", "--root-key", &foreign, "--data", &data], 4);
    says(&line, &["does not hold the root key of this network"]);
    let line = failure(&["approve", "sp9", "--root-key", &key, "--data", &data], 5);
    says(&line, &["no super-peer called sp9 waits"]);
    success(&["approve", "sp2", "--root-key", &key, "--data", &data]);
    until("sp2 does not join", || join.try_wait().unwrap().is_some());
    assert!(join.wait().unwrap().success());
    let _second = Daemon::serve(&second);
    until("sp1 and sp2 do not see each other", || {
        let members = objects(&["members", "--data", &data]);
        members.iter().filter(|member| member["state"] == "online").count() == 2
    });

    // Revoking it takes the same key.
    let line = failure(&["revoke", "sp2", "--data", &data], 4);
    says(&line, &["cannot revoke sp2: only the root key can revoke a super-peer", "--root-key FILE"]);
    success(&["revoke", "sp2", "--root-key", &key, "--data", &data]);
    let revoked = &objects(&["log", "--data", &data, "--signed", "--limit", "1"])[0];
    assert_eq!(
        (&revoked["action"], &revoked["actor"], &revoked["subject"], &revoked["by"]),
        (&"revoked".into(), &"root".into(), &"sp2".into(), &"sp1".into())
    );
}

#[test]
fn a_member_is_revoked_once_shown_as_such_refused_and_replaced_on_purpose() {
    let place = Place::new();
    let data = place.init("sp1", ANYWHERE);
    let _first = Daemon::serve(&data);
    let invite =
        |more: &[&str]| success(&[&["invite", "--role", "superpeer", "--data", &data], more].concat());
    let second = place.path("sp2").display().to_string();
    success(&joining(&invite(&[]), &second, "sp2"));
    for (member, code, why) in
        [("nobody", 5, "no member is called nobody"), ("sp1", 1, "a super-peer does not revoke itself")]
    {
        let line = failure(&["revoke", member, "--data", &data], code);
        says(&line, &[&format!("error: cannot revoke {member}: {why}"), "; "]);
    }
    let line = failure(&["invite", "--replaces", "sp2", "--data", &data], 1);
    says(&line, &["another member is called so"]);

    let id = objects(&["members", "--data", &data])[1]["peer_id"].as_str().unwrap().to_owned();
    success(&["revoke", &id[..id.len() - 4], "--data", &data]);
    says(&failure(&["revoke", "sp2", "--data", &data], 1), &["sp2 is no member any more (revoked)"]);
    let members = success(&["members", "--data", &data]);
    says(
        members.lines().next().unwrap(),
        &["NAME", "ROLE", "STATE", "VIA", "SEEN", "STORED", "FREE", "VERSION"],
    );
    says(members.lines().nth(2).unwrap(), &["sp2", "superpeer", "revoked"]);

    // It knocks all the same.
    let mut expelled = command(&["serve", "--data", &second]).stderr(Stdio::null()).spawn().unwrap();
    until("the refusal is not in the log", || {
        objects(&["log", "--data", &data, "--observed"])
            .iter()
            .any(|seen| seen["action"] == "refused" && seen["actor"] == "sp2" && seen["by"] == "sp1")
    });
    let _ = expelled.kill();
    expelled.wait().unwrap();

    let (usual, third) = (invite(&[]), place.path("sp3").display().to_string());
    let line = failure(&joining(&usual, &third, "sp2"), 4);
    says(&line, &["the name belonged to a member that is gone", "--replaces"]);
    let replacing = invite(&["--replaces", "sp2"]);
    says(&failure(&joining(&replacing, &third, "sp3"), 4), &["the name is to be another"]);
    success(&joining(&replacing, &third, "sp2"));
    let log = success(&["log", "sp2", "--data", &data]);
    assert!(log.lines().nth(1).unwrap().contains("joined"), "of the one who is called so now: {log}");
    let log = success(&["log", &id, "--data", &data]);
    says(&log, &["joined", "sp2", "was refused"]);
    assert_eq!(log.lines().next().unwrap().split_whitespace().next(), Some("TIME"));
}

#[test]
fn invites_are_listed_and_withdrawn_where_they_were_issued() {
    let place = Place::new();
    let data = place.init("sp1", ANYWHERE);
    let _first = Daemon::serve(&data);
    assert_eq!(objects(&["invites", "--data", &data]), Vec::<Value>::new());
    let invite = success(&["invite", "--uses", "3", "--expires", "7d", "--data", &data]);
    let listed = objects(&["invites", "--data", &data]);
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(
        (&listed[0]["state"], &listed[0]["uses_left"], &listed[0]["role"]),
        (&"open".into(), &3.into(), &"node".into())
    );
    assert!(!invite.contains(id) && !success(&["invites", "--data", &data]).contains(&invite));
    success(&["invites", "withdraw", &id[..8], "--data", &data]);
    let line = failure(&["invites", "withdraw", &id[..8], "--data", &data], 5);
    says(&line, &["cannot withdraw the invite", "; see `quarta-superpeer invites`"]);
    assert_eq!(objects(&["invites", "--data", &data]), Vec::<Value>::new());
}
