//! Nodes that fall silent with their connections open: frozen, or with their link cut.

use crate::support::{DEADLINE, MIB, Network, TWO_SECONDS, assert_within, bytes, eventually, senders, state};
use quarta_node::api::model::File;
use quarta_testnet::watch::{gone_at_superpeer, state_at_node};
use std::time::{Duration, Instant};

/// What a poll may take beyond its interval before it counts as missed, and what the lists need to tell it.
const ALLOWANCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_is_offered_no_more_after_a_missed_poll_removed_after_two_and_back_when_it_runs_on() {
    // Side by side: the longer interval takes half a minute.
    tokio::join!(freeze_and_thaw(Duration::from_secs(1)), freeze_and_thaw(Duration::from_secs(15)));
}

async fn freeze_and_thaw(interval: Duration) {
    let network = Network::start(1, 4, interval).await;
    let (file, another) = held_by_two(&network).await;
    let silent = network.name(1);
    let frozen = Instant::now();
    network.cluster.freeze(&silent).unwrap();
    watch_silence(&network, &silent, frozen, interval, [&file, &another]).await;

    let thawed = Instant::now();
    network.cluster.thaw(&silent).unwrap();
    assert_back(&network, &silent, thawed, &file).await;
    network.stop().await;
}

/// Shares two files at the first node; the second, which will fall silent, gets both.
async fn held_by_two(network: &Network) -> (File, File) {
    let file = network.share(0, "um.bin", &bytes(1, MIB)).await;
    let another = network.share(0, "dois.bin", &bytes(2, MIB)).await;
    for file in [&file, &another] {
        eventually("the file is listed", async || {
            network.node(1).node().files("").await.is_ok_and(|files| files.iter().any(|f| f.id == file.id))
        })
        .await;
        network.fetch(1, file).await;
        eventually("both holders are listed", async || {
            let files = network.superpeer(0).superpeer().files().await.unwrap_or_default();
            files.iter().any(|listed| listed.id == file.id && listed.holders.len() == 2)
        })
        .await;
    }
    (file, another)
}

/// Follows a node that fell silent at `since`: suspected and not offered after one interval, removed after two.
async fn watch_silence(
    network: &Network,
    silent: &str,
    since: Instant,
    interval: Duration,
    files: [&File; 2],
) {
    let superpeer = network.superpeer(0);
    let suspected = eventually("the silent node is suspected", async || {
        state(superpeer, silent).await.is_some_and(|state| state != "online")
    })
    .await;
    let seen = (superpeer.name().to_owned(), Ok(suspected));
    assert_within(interval + ALLOWANCE, since, seen, &format!("suspected, polled every {interval:?}"));
    for (fetcher, file) in files.into_iter().enumerate() {
        let transfer = network.fetch(2 + fetcher, file).await;
        assert!(
            transfer.sources.iter().all(|source| source.name != silent),
            "a suspected node is not offered: {transfer:?}"
        );
    }
    let gone = gone_at_superpeer(superpeer.superpeer(), silent.to_owned(), DEADLINE).await;
    assert_within(2 * interval + ALLOWANCE, since, gone, &format!("removed, polled every {interval:?}"));
    let heard = state_at_node(network.node(2).node(), silent.to_owned(), "offline", DEADLINE).await;
    assert_within(2 * interval + ALLOWANCE + TWO_SECONDS, since, heard, "nodes hear of the removal");
}

async fn assert_back(network: &Network, silent: &str, since: Instant, file: &File) {
    let superpeer = network.superpeer(0);
    let back = eventually("the node is back", async || {
        let files = superpeer.superpeer().files().await.unwrap_or_default();
        let holds =
            files.iter().any(|listed| listed.id == file.id && listed.holders.iter().any(|h| h == silent));
        holds && state(superpeer, silent).await.is_some_and(|state| state == "online")
    })
    .await;
    assert_within(TWO_SECONDS, since, (superpeer.name().to_owned(), Ok(back)), "back, with its files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_link_is_cut_is_removed_like_a_frozen_one_and_back_when_it_is_healed() {
    let interval = Duration::from_secs(1);
    let Some((network, lan)) = Network::start_apart(1, 4, interval, &[], |_| {}).await else { return };
    let (file, another) = held_by_two(&network).await;
    let silent = network.name(1);
    let cut = Instant::now();
    lan.cut_off(&silent).unwrap();
    watch_silence(&network, &silent, cut, interval, [&file, &another]).await;

    lan.heal().unwrap();
    assert_back(&network, &silent, Instant::now(), &file).await;
    let transfer = network.node(1).node().status().await.unwrap();
    assert!(transfer.superpeers.iter().all(|superpeer| superpeer.connected));
    // It can be fetched from again.
    let third = network.share(1, "três.bin", &bytes(3, MIB)).await;
    eventually("its new file is listed", async || {
        network.node(0).node().files("três").await.is_ok_and(|files| files.len() == 1)
    })
    .await;
    assert_eq!(senders(&network.fetch(0, &third).await), [&*silent]);
    network.stop().await;
}
