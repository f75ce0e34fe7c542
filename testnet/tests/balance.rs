//! How a super-peer spreads fetches over holders.
//!
//! One super-peer, because each evens out what it assigned itself lately: with several, what each of them assigned while
//! the holders got their copies would show in what is measured here.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use futures::future::join_all;
use quarta_node::api::model::{File, Transfer};
use std::collections::BTreeMap;
use std::time::Duration;
use support::{Network, bytes, eventually};

/// Fetches in a run, half of them at once.
const FETCHES: usize = 30;
/// One chunk each.
const FILE_BYTES: usize = 256 * 1024;
/// A file of 96 chunks: six seconds of the holder's line.
const CROWD_FILE_BYTES: usize = 24 * 1024 * 1024;
/// The nodes that hold every file, and those that fetch.
const HOLDERS: std::ops::Range<usize> = 0..3;
const FETCHERS: std::ops::Range<usize> = 3..6;

#[tokio::test(flavor = "multi_thread")]
async fn thirty_fetches_burden_three_equal_holders_equally() {
    let network = Network::start(1, 6, Duration::from_secs(1)).await;
    let files = held_by_all_holders(&network).await;
    let served = served(&fetch_half_at_once(&network, &files).await);
    println!("bytes served by equal holders: {served:?}");
    let mean = (FETCHES * FILE_BYTES / HOLDERS.len()) as f64;
    for holder in HOLDERS.map(|index| network.name(index)) {
        let share = served.get(&holder).copied().unwrap_or_default() as f64 / mean;
        assert!((0.75..=1.25).contains(&share), "{holder} served {share:.2} of an equal share: {served:?}");
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_with_a_quarter_of_the_rate_is_chosen_at_most_half_as_often() {
    let network = Network::start_changed(1, 6, Duration::from_secs(1), |plan| {
        let nodes = plan.members.iter_mut().skip(1);
        for (member, rate) in nodes.zip(["8MiB", "8MiB", "2MiB"]) {
            member.serve_args.extend(["--upload-limit".into(), rate.into()]);
        }
    })
    .await;
    let files = held_by_all_holders(&network).await;
    let transfers = fetch_half_at_once(&network, &files).await;
    let mut chosen: BTreeMap<String, usize> = BTreeMap::new();
    for source in transfers.iter().flat_map(|transfer| &transfer.sources).filter(|source| source.bytes > 0) {
        *chosen.entry(source.name.clone()).or_default() += 1;
    }
    println!("chosen: {chosen:?}");
    let times = |index| chosen.get(&network.name(index)).copied().unwrap_or_default();
    let others = (times(0) + times(1)) as f64 / 2.0;
    assert!(times(2) as f64 <= others / 2.0, "the slow holder was chosen too often: {chosen:?}");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_receivers_that_ask_at_once_have_the_file_from_each_other_and_the_holder_sends_it_about_once() {
    let network = Network::start_changed(1, 5, Duration::from_secs(1), |plan| {
        plan.members[1].serve_args.extend(["--upload-limit".into(), "4MiB".into()]);
    })
    .await;
    let file = network.share(0, "campanha.bin", &bytes(1, CROWD_FILE_BYTES)).await;
    let receivers = 1..5;
    for receiver in receivers.clone() {
        eventually("the file is listed", async || {
            network.node(receiver).node().files("").await.is_ok_and(|listed| listed.len() == 1)
        })
        .await;
    }
    // Each copy is compared with what was shared.
    let transfers = join_all(receivers.clone().map(|receiver| network.fetch(receiver, &file))).await;
    let sent = network.node(0).node().status().await.unwrap().served_bytes as f64 / CROWD_FILE_BYTES as f64;
    println!("the holder sent {sent:.2} times the file: {:?}", served(&transfers));
    assert!(sent <= 1.7, "the holder sent {sent:.2} times the file");
    for receiver in receivers {
        let name = network.name(receiver);
        eventually("what was listed in part is listed whole", async || {
            let held = network.superpeer(0).superpeer().held(&name).await.unwrap_or_default();
            held.len() == 1 && held[0].complete
        })
        .await;
    }
    network.stop().await;
}

/// Gives every file to every holder and waits until every super-peer knows. Each holder shares a third of them, so that
/// none has served more than another when it begins to count.
async fn held_by_all_holders(network: &Network) -> Vec<File> {
    let mut files = Vec::with_capacity(FETCHES);
    for number in 0..FETCHES {
        let owner = number % HOLDERS.len();
        files.push(network.share(owner, &format!("{number}.bin"), &bytes(number as u64, FILE_BYTES)).await);
    }
    for holder in HOLDERS {
        eventually("the files are listed", async || {
            network.node(holder).node().files("").await.is_ok_and(|listed| listed.len() == FETCHES)
        })
        .await;
    }
    for file in &files {
        for holder in HOLDERS.filter(|holder| network.node(*holder).name() != file.owner) {
            network.fetch(holder, file).await;
        }
    }
    for superpeer in network.cluster.superpeers() {
        eventually("all holders are listed", async || {
            let listed = superpeer.superpeer().files().await.unwrap_or_default();
            listed.len() == FETCHES && listed.iter().all(|file| file.holders.len() == HOLDERS.len())
        })
        .await;
    }
    files
}

/// Fetches every file once: half of them at once, the others one after the other. Whoever fetched a file holds it, but
/// nobody else wants it, so fetchers do not become sources.
async fn fetch_half_at_once(network: &Network, files: &[File]) -> Vec<Transfer> {
    let fetch = |(number, file): (usize, &'_ File)| {
        let fetcher = FETCHERS.start + number % FETCHERS.len();
        let file = file.clone();
        async move { network.fetch(fetcher, &file).await }
    };
    let mut numbered = files.iter().enumerate();
    let half: Vec<_> = numbered.by_ref().take(FETCHES / 2).map(fetch).collect();
    let mut transfers = join_all(half).await;
    for numbered in numbered {
        transfers.push(fetch(numbered).await);
    }
    transfers
}

fn served(transfers: &[Transfer]) -> BTreeMap<String, u64> {
    let mut served = BTreeMap::new();
    for source in transfers.iter().flat_map(|transfer| &transfer.sources) {
        *served.entry(source.name.clone()).or_default() += source.bytes;
    }
    served
}
