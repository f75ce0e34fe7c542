//! Every node's own database follows the network: at once, after a pause, from another super-peer, and good for listing and
//! fetching when there is none.

use crate::support::{MIB, Network, TWO_SECONDS, bytes, eventually, senders};
use quarta_node::api::model::{FilePage, MemberPage};
use quarta_node::database::{Database, FILE_NAME, Listing};
use quarta_node::following::{ANSWER_GRACE, WAIT};
use quarta_protocols::messages::index::MemberState;
use quarta_testnet::cluster::registered;
use std::time::{Duration, Instant};

/// How long anything that a person asks for may take while a super-peer is lost.
const THREE_SECONDS: Duration = Duration::from_secs(3);

/// The database of a node, read beside its daemon.
fn database(network: &Network, node: usize) -> Database {
    Database::open(&network.node(node).data().join(FILE_NAME)).unwrap()
}

fn names(database: &Database) -> Vec<String> {
    let listed = database.list_files(&Listing::default(), 1000).unwrap();
    listed.into_iter().map(|file| file.name.to_string()).collect()
}

fn state(database: &Database, name: &str) -> Option<MemberState> {
    let members = database.members().unwrap();
    members.into_iter().find(|member| member.listed.name.as_str() == name).map(|member| member.listed.state)
}

/// Waits until a file stands in a database, and answers how long after `since`.
async fn heard(database: &Database, name: &str, since: Instant) -> Duration {
    let at = eventually(name, async || names(database).iter().any(|known| known == name)).await;
    at.saturating_duration_since(since)
}

/// Waits until every node is connected to every super-peer again, so that the next one can be lost.
async fn whole(network: &Network) {
    let superpeers = network.cluster.superpeers().count();
    for node in network.cluster.nodes() {
        eventually("all super-peers are connected", async || {
            node.node().status().await.is_ok_and(|status| registered(&status) == superpeers)
        })
        .await;
    }
}

/// Does something that must be done within [`THREE_SECONDS`].
async fn soon<T>(what: &str, doing: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = doing.await;
    println!("{what}: {:.2} s", started.elapsed().as_secs_f64());
    assert!(started.elapsed() <= THREE_SECONDS, "{what} took {:?}", started.elapsed());
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_stands_in_everybodys_own_database_within_two_seconds_through_pauses_and_lost_super_peers()
 {
    let mut network = Network::start(2, 3, Duration::from_secs(15)).await;
    let own = database(&network, 2);

    network.share(0, "plano.csv", b"a;b\n").await;
    let after = heard(&own, "plano.csv", Instant::now()).await;
    println!("a file that was added is known elsewhere after {:.3} s", after.as_secs_f64());
    assert!(after <= TWO_SECONDS, "{after:?}");

    // A member that is gone is so in everybody's database.
    let writer = network.name(0);
    assert_eq!(state(&own, &writer), Some(MemberState::Online));
    let killed = Instant::now();
    network.cluster.kill(&writer).await.unwrap();
    let gone = eventually("the killed node is not online", async || {
        state(&own, &writer) != Some(MemberState::Online)
    })
    .await;
    assert!(gone.saturating_duration_since(killed) <= TWO_SECONDS, "{:?}", gone - killed);
    network.cluster.restart(&writer).unwrap();
    network.cluster.ready(&writer).await.unwrap();
    whole(&network).await;

    // A pause: what happened meanwhile comes when the node is there again, from where it was.
    let reader = network.name(2);
    network.cluster.freeze(&reader).unwrap();
    for number in 0..20 {
        network.share(0, &format!("pausa {number:02}.txt"), &[number]).await;
    }
    network.cluster.thaw(&reader).unwrap();
    let thawed = Instant::now();
    assert!(heard(&own, "pausa 19.txt", thawed).await <= TWO_SECONDS * 2);
    network.cluster.kill(&reader).await.unwrap();
    network.share(0, "reinício.txt", b"x").await;
    network.cluster.restart(&reader).unwrap();
    network.cluster.ready(&reader).await.unwrap();
    assert!(heard(&own, "reinício.txt", Instant::now()).await <= TWO_SECONDS);

    // One super-peer after the other is lost and comes back: whichever is followed, nothing is missed.
    for (turn, lost) in [0, 1, 0].into_iter().enumerate() {
        let victim = network.superpeer(lost).name().to_owned();
        network.cluster.kill(&victim).await.unwrap();
        let during = format!("{turn} sem {victim}.txt");
        network.share(1, &during, during.as_bytes()).await;
        let after = heard(&own, &during, Instant::now()).await;
        println!("without {victim} after {:.3} s", after.as_secs_f64());
        // A killed process says nothing where its connection was one over QUIC: then its silence tells.
        assert!(after <= WAIT + ANSWER_GRACE + TWO_SECONDS, "{after:?}");
        network.cluster.restart(&victim).unwrap();
        network.cluster.ready(&victim).await.unwrap();
        whole(&network).await;
    }
    assert_eq!(names(&own).iter().filter(|name| name.starts_with("pausa")).count(), 20);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_super_peer_at_all_files_are_listed_and_fetched_and_all_catches_up_afterwards() {
    let mut network = Network::start(2, 4, Duration::from_secs(1)).await;
    let large = network.share(0, "lançamento.bin", &bytes(1, 24 * MIB)).await;
    let small = network.share(1, "plano.csv", b"a;b\n").await;
    network.fetch(1, &large).await;
    let own = database(&network, 3);
    heard(&own, "lançamento.bin", Instant::now()).await;
    heard(&own, "plano.csv", Instant::now()).await;

    let superpeers = [0, 1].map(|index| network.superpeer(index).name().to_owned());
    for superpeer in &superpeers {
        network.cluster.kill(superpeer).await.unwrap();
    }
    let page: FilePage = soon("listing", network.node(3).client().get("/api/v1/files")).await.unwrap();
    let listed: Vec<&str> = page.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!((page.stale, listed), (true, vec!["lançamento.bin", "plano.csv"]));
    let members: MemberPage = soon("members", network.node(3).client().get("/api/v1/members")).await.unwrap();
    assert_eq!((members.stale, members.members.len()), (true, 6));
    let status = network.node(3).node().status().await.unwrap();
    assert!(status.problems.iter().any(|why| why.contains("keeps trying")), "{:?}", status.problems);

    // From its owner, which nobody has named as a source before; and from a branch that merely has a copy.
    assert_eq!(senders(&soon("a fetch", network.fetch(3, &small)).await), [network.node(1).name()]);
    let owner = network.name(0);
    network.cluster.kill(&owner).await.unwrap();
    let transfer = network.fetch(2, &large).await;
    assert_eq!(senders(&transfer), [network.node(1).name()], "{transfer:?}");

    // What was added meanwhile is everybody's as soon as there is a super-peer again.
    let late = soon("adding", network.share(2, "entretanto.txt", b"x")).await;
    for superpeer in &superpeers {
        network.cluster.restart(superpeer).unwrap();
        network.cluster.ready(superpeer).await.unwrap();
    }
    heard(&own, "entretanto.txt", Instant::now()).await;
    eventually("the listing is not stale any more", async || {
        let page: Option<FilePage> = network.node(3).client().get("/api/v1/files").await.ok();
        page.is_some_and(|page| !page.stale && page.files.len() == 3)
    })
    .await;
    network.fetch(3, &late).await;
    network.cluster.restart(&owner).unwrap();
    network.cluster.ready(&owner).await.unwrap();
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_of_two_super_peers_frozen_or_killed_everything_goes_on_within_three_seconds() {
    let mut network = Network::start(2, 3, Duration::from_secs(1)).await;
    let shared = network.share(0, "campanha.bin", &bytes(2, MIB)).await;
    heard(&database(&network, 2), "campanha.bin", Instant::now()).await;
    for (turn, (lost, freeze)) in [(0, true), (1, true), (0, false), (1, false)].into_iter().enumerate() {
        let victim = network.superpeer(lost).name().to_owned();
        if freeze {
            network.cluster.freeze(&victim).unwrap();
        } else {
            network.cluster.kill(&victim).await.unwrap();
        }
        // At once, before anything can have noticed; every node prefers a super-peer of its own.
        let added = format!("durante {turn}.txt");
        for node in 0..3 {
            let listed = soon("ls", network.node(node).node().files("campanha")).await.unwrap();
            assert_eq!(listed.len(), 1);
        }
        let file = soon("add", network.share(turn % 2, &added, added.as_bytes())).await;
        soon("get", network.fetch(2, &file)).await;
        if turn == 0 {
            soon("get", network.fetch(1, &shared)).await;
        }
        if freeze {
            network.cluster.thaw(&victim).unwrap();
        } else {
            network.cluster.restart(&victim).unwrap();
        }
        network.cluster.ready(&victim).await.unwrap();
        eventually("the other super-peer has what it missed", async || {
            let files = network.superpeer(lost).superpeer().files().await.unwrap_or_default();
            files.iter().any(|listed| listed.id == file.id)
        })
        .await;
        whole(&network).await;
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_super_peer_that_was_restored_from_a_backup_hears_from_nodes_what_it_has_lost() {
    let mut network = Network::start(1, 2, Duration::from_secs(1)).await;
    let superpeer = network.superpeer(0).name().to_owned();
    let catalog = network.superpeer(0).data().join("catalog.db");
    network.share(0, "antes.txt", b"1").await;

    assert!(network.cluster.end(&superpeer).await.unwrap());
    let backup = std::fs::read(&catalog).unwrap();
    network.cluster.restart(&superpeer).unwrap();
    network.cluster.ready(&superpeer).await.unwrap();
    whole(&network).await;
    network.share(0, "depois.txt", b"2").await;
    heard(&database(&network, 1), "depois.txt", Instant::now()).await;

    assert!(network.cluster.end(&superpeer).await.unwrap());
    for side in ["catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(catalog.with_file_name(side));
    }
    std::fs::write(&catalog, backup).unwrap();
    network.cluster.restart(&superpeer).unwrap();
    network.cluster.ready(&superpeer).await.unwrap();
    // Its owner has been told before that the file is stored, and publishes it again all the same.
    eventually("the restored super-peer has the file that it had lost", async || {
        let files = network.superpeer(0).superpeer().files().await.unwrap_or_default();
        files.iter().any(|listed| listed.name == "depois.txt")
    })
    .await;
    // And the others go on following it.
    network.share(1, "de novo.txt", b"3").await;
    let after = heard(&database(&network, 0), "de novo.txt", Instant::now()).await;
    assert!(after <= TWO_SECONDS, "{after:?}");
    network.stop().await;
}
