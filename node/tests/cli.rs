//! The program `quarta` as the people of a branch meet it: exit codes, the lines it prints, and what it leaves behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use libp2p::identity::Keypair;
use quarta_daemon::{
    data_dir::{self, Draft, Marker},
    identity::{self, Keys},
};
use quarta_protocols::{
    credentials::{Credential, Grant, Role, Trust, UnixSeconds},
    invites::Invite,
    messages::admission::PeerAddresses,
    names::MemberName,
};
use serde_json::Value;
use tempfile::TempDir;

/// Far above what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// Listens where the system chooses.
const ANYWHERE: &str = "/ip4/127.0.0.1/tcp/0";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quarta"));
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

    /// The data folder of a member that listens here and whose super-peers are all gone.
    fn member(&self, name: &str, listen: &str) -> String {
        let path = self.path(name);
        let [root, superpeer] = [Keypair::generate_ed25519(), Keypair::generate_ed25519()];
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let grant = |peer, name, role| {
            let now = UnixSeconds::now();
            Grant { peer, name, role, now, token_id: [1; 16] }
        };
        let sp1 = MemberName::new("sp1").unwrap();
        let issuing = grant(superpeer.public().to_peer_id(), &sp1, Role::Superpeer);
        let issuer = Credential::issue_by_root(&root, &trust.network, &issuing);

        let draft = Draft::begin(&path).unwrap();
        let keys = Keys::load_or_create(draft.folder()).unwrap();
        let own = MemberName::new(name).unwrap();
        let granted = grant(keys.peer(), &own, Role::Node);
        let credential = Credential::issue_by_superpeer(&superpeer, &issuer, &trust.network, &granted);
        identity::save_membership(draft.folder(), &trust, &credential).unwrap();
        let gone = PeerAddresses {
            peer: superpeer.public().to_peer_id(),
            addresses: vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()],
        };
        identity::save_superpeers(draft.folder(), &[gone]).unwrap();
        let settings = format!("listen = [{listen:?}]\nhttp = \"127.0.0.1:0\"\n");
        draft.folder().write_private("settings.toml", settings.as_bytes()).unwrap();
        let network = trust.network.to_string();
        draft.commit(Marker { role: data_dir::Role::Node, network, name: name.to_owned() }).unwrap();
        path.display().to_string()
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
        // Without a super-peer it is up and not healthy.
        while run(&["status", "--data", data]).status.code() != Some(1) {
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
    for args in [&["--help"][..], &["--version"], &["help", "serve"], &["join", "--help"]] {
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
        &["get"],
        &["add"],
        &["join", "invite"],
        &["join", "invite", "--name", "São Paulo"],
        &["join", "invite", "--name", "a", "--listen", "7481"],
        &["serve", "--upload-limit", "0"],
        &["serve", "--http", "7480"],
    ] {
        says(&failure(args, 2), &["error: cannot understand the command: ", "--help"]);
    }
    let place = Place::new();
    let data = place.path("none").display().to_string();
    let line = failure(&["add", "a", "b", "--name", "c", "--data", &data], 2);
    says(&line, &["error: cannot share several paths under one name", "; add them one by one"]);
    let line = failure(&["get", "a", "b", "-o", &data, "--data", &data], 2);
    says(&line, &["error: cannot put several files at ", "; give -o an existing folder"]);
}

#[test]
fn an_error_in_json_is_one_object() {
    let data = Place::new().path("none").display().to_string();
    for (args, code) in [
        (&["--json", "bogus"][..], 2),
        (&["status", "--json"], 2),
        (&["status", "--json", "--data", &data], 3),
        (&["serve", "--json", "--data", &data], 1),
        (&["join", "nonsense", "--name", "a", "--json", "--data", &data], 2),
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
    for args in [&["status"][..], &["serve"], &["ls"], &["get", "a"], &["join", "a", "--name", "a"]] {
        says(&failure(args, 2), &["no data folder was named", "--data", "QUARTA_DATA"]);
    }
}

#[test]
fn a_command_without_its_daemon_exits_with_3_and_says_how_to_start_it() {
    let place = Place::new();
    let data = place.member("recife", ANYWHERE);
    for args in [
        &["status"][..],
        &["add", "/etc/hostname"],
        &["ls"],
        &["info", "a"],
        &["get", "a"],
        &["members"],
        &["transfers"],
    ] {
        let line = failure(&[args, &["--data", &data]].concat(), 3);
        says(&line, &["error: cannot ", "is not running", &data, "; start it with `serve`"]);
    }
}

#[test]
fn what_is_not_an_invite_leaves_nothing_behind() {
    let place = Place::new();
    let data = place.path("a/recife").display().to_string();
    let issuer = Keypair::generate_ed25519();
    let root = issuer.public().try_into_ed25519().unwrap();
    let invite = |role| {
        let at = vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()];
        let expires = UnixSeconds::now().plus(Duration::from_hours(1));
        Invite::new(&root, issuer.public().to_peer_id(), at, role, expires, [7; 16]).to_text()
    };
    let whole = invite(Role::Node);
    for (given, why) in [
        ("nonsense", "neither an invite nor a file"),
        ("quarta1", "incomplete or mistyped"),
        (&whole[..whole.len() / 2], "incomplete or mistyped"),
        (&invite(Role::Superpeer), "the invite is for a superpeer; use `quarta-superpeer join`"),
    ] {
        let line = failure(&["join", given, "--data", &data, "--name", "recife"], 2);
        says(&line, &["error: cannot ", why, "; "]);
        assert_eq!(place.entries(), 0, "{given}");
    }
    // A genuine one whose super-peer is gone.
    let line = failure(&["join", &whole, "--data", &data, "--name", "recife"], 1);
    says(&line, &["error: cannot join the network: ", "does not answer", "; see that it is running"]);
    assert_eq!(place.entries(), 0);
    // A member's folder stays as it is, whatever the invite.
    let member = place.member("recife", ANYWHERE);
    let line = failure(&["join", &whole, "--data", &member, "--name", "natal"], 1);
    says(&line, &["already holds the node `recife`", "; use it as it is, or name another folder"]);
}

#[test]
fn a_folder_is_opened_by_its_own_role_and_format() {
    let place = Place::new();
    let data = place.member("recife", ANYWHERE);
    let marker = place.path("recife/quarta.json");
    let own = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, own.replace("\"node\"", "\"superpeer\"")).unwrap();
    let line = refused_start(&data, &[]);
    says(&line, &["it is the data folder of the superpeer `recife`", "; use `quarta-superpeer`"]);
    let mut newer: Value = serde_json::from_str(&own).unwrap();
    newer["format"] = 99.into();
    std::fs::write(&marker, newer.to_string()).unwrap();
    says(&refused_start(&data, &[]), &["its format is 99", "; install the newer version"]);
    std::fs::write(&marker, "{").unwrap();
    says(&refused_start(&data, &[]), &["is damaged", "; restore it from a backup"]);

    let empty = Place::new();
    let line = refused_start(&empty.path("none").display().to_string(), &[]);
    says(&line, &["the folder does not exist", "; run `quarta join` first"]);
    assert_eq!(empty.entries(), 0);
}

#[test]
fn a_misspelt_setting_is_named_with_its_line() {
    let place = Place::new();
    let data = place.member("recife", ANYWHERE);
    std::fs::write(place.path("recife/settings.toml"), "http = \"\"\nupload_slot = 1\n").unwrap();
    let line = refused_start(&data, &[]);
    says(&line, &["settings.toml", "line 2", "upload_slot", "; correct that line and start again"]);
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        says(text(&output.stdout), &["quarta", "upload-limit"]);
    }
    failure(&["completions", "abacus"], 2);
}

#[test]
fn a_folder_in_use_names_its_daemon_and_a_signal_ends_that_one_in_order() {
    let place = Place::new();
    let data = place.member("recife", ANYWHERE);
    let mut daemon = Daemon::serve(&data);
    let line = refused_start(&data, &[]);
    let pid = daemon.child.id();
    says(&line, &[&format!("in use by a running daemon (pid {pid})"), "; stop that one first"]);
    assert!(daemon.socket().exists(), "the one that was refused takes nothing away");
    assert_eq!(run(&["status", "--data", &data]).status.code(), Some(1), "not healthy without a super-peer");
    assert_eq!(daemon.terminate(), Some(0));
    assert!(!daemon.socket().exists());
    failure(&["status", "--data", &data], 3);
}

#[test]
fn a_daemon_that_was_killed_is_no_obstacle_to_the_next() {
    let place = Place::new();
    let data = place.member("recife", ANYWHERE);
    drop(Daemon::serve(&data));
    assert!(place.path("recife/api.sock").exists());
    failure(&["status", "--data", &data], 3);
    assert_eq!(Daemon::serve(&data).terminate(), Some(0));
}

#[test]
fn a_taken_port_is_named_with_a_way_out() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    let data = place.member("http", ANYWHERE);
    let http = format!("127.0.0.1:{port}");
    let line = refused_start(&data, &["--http", &http]);
    says(&line, &[&http, "the port is in use", "; stop that one, or choose another address with --http"]);

    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let line = refused_start(&place.member("tcp", &listen), &[]);
    says(&line, &[&listen, "in use", "; stop the program that has the port, or change listen"]);

    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/udp/{}/quic-v1", taken.local_addr().unwrap().port());
    let line = refused_start(&place.member("quic", &listen), &[]);
    says(&line, &[&listen, "in use", "; stop the program that has the port, or change listen"]);
    assert!(!Path::new(&data).join("api.sock").exists());
}

#[test]
fn two_daemons_do_not_share_a_port() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let _first = Daemon::serve(&place.member("recife", &listen));
    says(&refused_start(&place.member("natal", &listen), &[]), &[&listen, "in use"]);
}
