//! What users get wrong: each gives one line with cause and next step, the documented exit code, and nothing half-done.

use crate::support::{Network, assert_fails, eventually, names_in, outsider};
use quarta_daemon::Role;
use quarta_testnet::cluster::Member;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_another_kind_is_named_and_left_as_it_is() {
    let mut network = Network::start(1, 1, Duration::from_secs(15)).await;
    let other = Network::start(1, 0, Duration::from_secs(15)).await;
    let (superpeer, node) = (network.superpeer(0), network.node(0));

    // In use by a running daemon.
    for member in [superpeer, node] {
        let output = member.run(&["serve"], "").await.unwrap();
        assert_fails(&output, 1, &["in use by a running daemon", &member.pid().unwrap().to_string()]);
    }

    // Of the other role: what is a super-peer's is offered to a node, and the other way round.
    for (folder, role) in [(superpeer, Role::Node), (node, Role::Superpeer)] {
        let wrong = network.cluster.outsider(outsider(folder.name(), role)).unwrap();
        let output = wrong.run(&["serve"], "").await.unwrap();
        assert_fails(&output, 1, &["is the data folder of", folder.name()]);
    }

    // Of another network.
    let before = names_in(node.data());
    let foreign =
        other.superpeer(0).superpeer().invite("node", 1, Duration::from_hours(1)).await.unwrap().invite;
    let output = node.run(&["join", "-", "--name", "outro"], &foreign).await.unwrap();
    assert_fails(&output, 1, &[node.name()]);
    assert_eq!(names_in(node.data()), before);
    let output = superpeer.run(&["init", "--name", "outro"], "").await.unwrap();
    assert_fails(&output, 1, &["already holds the"]);

    // Of a newer version.
    let name = network.name(0);
    assert!(network.cluster.end(&name).await.unwrap());
    let node = network.node(0);
    let marker = node.data().join("quarta.json");
    let original = fs::read_to_string(&marker).unwrap();
    let mut newer: serde_json::Value = serde_json::from_str(&original).unwrap();
    newer["format"] = 99.into();
    fs::write(&marker, newer.to_string()).unwrap();
    let output = node.run(&["serve"], "").await.unwrap();
    assert_fails(&output, 1, &["its format is 99", "install the newer version"]);

    // None of it spoilt anything.
    fs::write(&marker, original).unwrap();
    network.cluster.restart(&name).unwrap();
    network.cluster.ready(&name).await.unwrap();
    // No data folder at all.
    let nowhere = network.cluster.outsider(outsider("nenhum", Role::Node)).unwrap();
    assert_fails(&nowhere.run(&["serve"], "").await.unwrap(), 1, &["no data folder at", "quarta join"]);
    assert!(!nowhere.data().exists());
    network.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_and_the_daemon_starts_once_it_is_free() {
    let mut network = Network::start(1, 1, Duration::from_secs(15)).await;
    for name in [network.name(0), network.superpeer(0).name().to_owned()] {
        let member = network.cluster.member(&name).unwrap();
        let (http, peers) = (member.http(), member.peer_port());
        assert!(network.cluster.end(&name).await.unwrap());
        for address in [http, ([127, 0, 0, 1], peers).into()] {
            let taken = TcpListener::bind(address).unwrap();
            let member = network.cluster.member(&name).unwrap();
            let output = member.run(&["serve"], "").await.unwrap();
            assert_fails(&output, 1, &[&address.port().to_string(), "in use"]);
            assert!(!member.data().join("api.sock").exists(), "no socket is left");
            drop(taken);
        }
        network.cluster.restart(&name).unwrap();
        network.cluster.ready(&name).await.unwrap();
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_unknown_ambiguous_or_badly_named_changes_nothing() {
    let network = Network::start(1, 2, Duration::from_secs(15)).await;
    let (one, other) = (network.node(0), network.node(1));
    network.share(0, "logo.png", b"one").await;
    network.share(1, "logo.png", b"other").await;
    eventually("both files are listed", async || {
        one.node().files("").await.is_ok_and(|files| files.len() == 2)
    })
    .await;

    for command in ["get", "info"] {
        assert_fails(&one.run(&[command, "nada.png"], "").await.unwrap(), 5, &["nada.png"]);
        // By its bare name it could be either's.
        let output = one.run(&[command, "logo.png"], "").await.unwrap();
        assert_fails(&output, 1, &["names several files", other.name()]);
    }
    let output = one.succeed(&["get", &format!("{}:logo.png", other.name()), "--json"], "").await.unwrap();
    let fetched: quarta_node::api::model::Transfer = serde_json::from_str(output.trim()).unwrap();
    assert_eq!(fs::read(fetched.path.unwrap()).unwrap(), b"other");

    // Names that would be something else on another branch's machine.
    let path = network.write("bom.txt", b"x");
    let path = path.to_str().unwrap();
    for hostile in ["../../fora.txt", "/etc/passwd", "nul\u{202e}gpj.exe", "a//b", "CON", "fim."] {
        let output = one.run(&["add", path, "--name", hostile], "").await.unwrap();
        assert_fails(&output, 1, &["cannot add"]);
        assert!(
            !String::from_utf8_lossy(&output.stderr).contains('\u{202e}'),
            "a name cannot turn the terminal's text"
        );
    }
    let output = one.run(&["add", path, &format!("{path}.missing")], "").await.unwrap();
    assert_fails(&output, 6, &["bom.txt.missing"]);
    assert_eq!(one.node().files("").await.unwrap().len(), 3, "only the good file was added");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_or_super_peer_that_is_down_is_told_with_what_to_do() {
    let mut network = Network::start(1, 1, Duration::from_secs(15)).await;
    let file = network.share(0, "a.txt", b"a").await;
    let invite =
        network.superpeer(0).superpeer().invite("node", 1, Duration::from_hours(1)).await.unwrap().invite;
    let superpeer = network.superpeer(0).name().to_owned();
    network.cluster.kill(&superpeer).await.unwrap();

    let joiner = network.cluster.outsider(outsider("novo", Role::Node)).unwrap();
    assert_fails(
        &joiner.run(&["join", "-", "--name", "novo"], &invite).await.unwrap(),
        1,
        &["cannot join the network"],
    );
    assert_eq!(names_in(joiner.data()), [] as [&str; 0], "nothing is left");
    assert_fails(&down(&network, &superpeer, "members").await, 3, &["is not running", "serve"]);

    // The node still answers, and says that it may be out of date.
    let node = network.node(0);
    let listed = node.run(&["ls", "--json"], "").await.unwrap();
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&file.id));
    assert!(String::from_utf8_lossy(&listed.stderr).contains("may be out of date"), "{listed:?}");

    // Its invite still works once the super-peer is back.
    network.cluster.restart(&superpeer).unwrap();
    network.cluster.ready(&superpeer).await.unwrap();
    joiner.succeed(&["join", "-", "--name", "novo"], &invite).await.unwrap();

    let name = network.name(0);
    network.cluster.kill(&name).await.unwrap();
    for command in ["ls", "members", "status", "transfers"] {
        assert_fails(&down(&network, &name, command).await, 3, &["is not running", "serve"]);
    }
    network.stop().await;
}

/// Runs a command at a member whose daemon is down.
async fn down(network: &Network, name: &str, command: &str) -> std::process::Output {
    let member: &Member = network.cluster.member(name).unwrap();
    member.run(&[command], "").await.unwrap()
}
