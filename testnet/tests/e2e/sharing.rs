//! Register, search, fetch from several, kill, removal, return; and what super-peers tell each other.

use crate::support::{DEADLINE, MIB, Network, TWO_SECONDS, assert_within, bytes, eventually, senders};
use quarta_testnet::watch::{back_at_superpeer, gone_at_superpeer, state_at_node};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_is_off_the_lists_within_two_seconds_and_back_with_its_files_within_two_of_running() {
    let mut network = Network::start(2, 4, Duration::from_secs(15)).await;
    let large = network.share(0, "Vídeos/lançamento.bin", &bytes(1, 48 * MIB)).await;
    let small = network.share(1, "plano.csv", b"a;b\n1;2\n").await;

    // Every node finds both by parts of their names.
    for node in network.cluster.nodes() {
        eventually("a search finds the file", async || {
            let found = node.node().files("lançam").await.unwrap_or_default();
            found.iter().map(|file| &file.id).eq([&large.id])
        })
        .await;
        eventually("all files are listed", async || {
            node.node().files("").await.is_ok_and(|all| all.len() == 2)
        })
        .await;
    }
    assert_eq!(senders(&network.fetch(1, &large).await), [network.node(0).name()]);
    network.fetch(2, &small).await;
    // The list that a super-peer was polled for, as an operator sees it.
    for superpeer in network.cluster.superpeers() {
        eventually("the second holder is listed", async || {
            let held = superpeer.superpeer().held(network.node(1).name()).await.unwrap_or_default();
            held.iter().any(|held| {
                held.sha256 == large.sha256 && held.complete && held.size_bytes == large.size_bytes
            })
        })
        .await;
    }
    let transfer = network.fetch(2, &large).await;
    assert_eq!(senders(&transfer).len(), 2, "from both holders at once: {transfer:?}");
    for superpeer in network.cluster.superpeers() {
        eventually("all holders are listed", async || {
            let files = superpeer.superpeer().files().await.unwrap_or_default();
            files.iter().any(|file| file.id == large.id && file.holders.len() == 3)
        })
        .await;
    }

    let victim = network.name(1);
    let killed = Instant::now();
    network.cluster.kill(&victim).await.unwrap();
    let (first, second, node) = tokio::join!(
        gone_at_superpeer(network.superpeer(0).superpeer(), victim.clone(), DEADLINE),
        gone_at_superpeer(network.superpeer(1).superpeer(), victim.clone(), DEADLINE),
        state_at_node(network.node(3).node(), victim.clone(), "offline", DEADLINE),
    );
    for seen in [first, second, node] {
        assert_within(TWO_SECONDS, killed, seen, "gone after SIGKILL");
    }
    let transfer = network.fetch(3, &large).await;
    assert!(!senders(&transfer).contains(&&*victim), "a dead holder is no source: {transfer:?}");

    network.cluster.restart(&victim).unwrap();
    let running = eventually("it runs", async || network.node(1).node().status().await.is_ok()).await;
    let files =
        [&large, &small].map(|file| file.id.clone()).into_iter().collect::<std::collections::BTreeSet<_>>();
    let (first, second, node) = tokio::join!(
        back_at_superpeer(network.superpeer(0).superpeer(), victim.clone(), files.clone(), DEADLINE),
        back_at_superpeer(network.superpeer(1).superpeer(), victim.clone(), files, DEADLINE),
        state_at_node(network.node(3).node(), victim.clone(), "online", DEADLINE),
    );
    for seen in [first, second, node] {
        assert_within(TWO_SECONDS, running, seen, "back after its restart");
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_reach_every_super_peer_and_outlast_its_restart_and_one_super_peer_is_enough() {
    let mut network = Network::start(2, 3, Duration::from_secs(1)).await;
    let file = network.share(0, "contrato.pdf", &bytes(2, MIB)).await;
    let listed = async |network: &Network, index: usize| {
        let files = network.superpeer(index).superpeer().files().await.unwrap_or_default();
        files
            .iter()
            .any(|listed| listed.id == file.id && listed.sha256 == file.sha256 && !listed.holders.is_empty())
    };
    eventually("the first super-peer has the record", async || listed(&network, 0).await).await;
    eventually("the second super-peer has the record", async || listed(&network, 1).await).await;

    let second = network.superpeer(1).name().to_owned();
    assert!(network.cluster.end(&second).await.unwrap(), "a super-peer stops in order");
    network.cluster.restart(&second).unwrap();
    network.cluster.ready(&second).await.unwrap();
    eventually("a restarted super-peer has the record and its holder", async || listed(&network, 1).await)
        .await;

    // Without the super-peer that admitted everybody, the other carries on.
    let first = network.superpeer(0).name().to_owned();
    network.cluster.kill(&first).await.unwrap();
    let late = network.share(1, "aditivo.pdf", &bytes(3, MIB)).await;
    eventually("a file that is shared now is listed", async || {
        network.node(2).node().files("aditivo").await.is_ok_and(|files| files.len() == 1)
    })
    .await;
    network.fetch(2, &late).await;
    network.fetch(2, &file).await;

    // It hears of it when it is back.
    network.cluster.restart(&first).unwrap();
    network.cluster.ready(&first).await.unwrap();
    eventually("the first super-peer has what it missed", async || {
        let files = network.superpeer(0).superpeer().files().await.unwrap_or_default();
        files.iter().any(|listed| listed.id == late.id && listed.holders.len() == 2)
    })
    .await;
    network.stop().await;
}
