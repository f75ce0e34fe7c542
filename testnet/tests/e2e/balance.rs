//! How a super-peer spreads fetches over holders, and how a holder shares its line among those who fetch.
//!
//! One super-peer, because each evens out what it assigned itself lately: with several, what each of them assigned while
//! the holders got their copies would show in what is measured here.

use crate::support::{MIB, Network, bytes, eventually, promptly};
use futures::StreamExt;
use futures::future::join_all;
use quarta_node::api::model::{FetchEvent, File, Transfer};
use quarta_testnet::cluster::Member;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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
    // Equal by their lines, a chunk in 63 ms each: without limits, what else runs on this machine would decide which of
    // them is fast.
    let network = Network::start_changed(1, 6, Duration::from_secs(1), |plan| {
        for member in plan.members.iter_mut().skip(1).take(HOLDERS.len()) {
            member.serve_args.extend(["--limit-lan".into(), "--upload-limit".into(), "4MiB".into()]);
        }
    })
    .await;
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
            member.serve_args.extend(["--limit-lan".into(), "--upload-limit".into(), rate.into()]);
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

/// The limit in the scenarios below, in bytes a second.
const LIMIT: usize = 4 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_within_five_per_cent_from_the_moment_they_are_set_to_the_moment_they_are_lifted() {
    const SIZE: usize = 8 * LIMIT;
    let network = Network::start(1, 4, Duration::from_secs(1)).await;
    let (sender, receiver) = (network.node(0), network.node(3));
    let sent = network.share(0, "sent.bin", &bytes(1, SIZE)).await;
    let received = network.share(2, "received.bin", &bytes(2, SIZE)).await;
    let lifted = network.share(0, "lifted.bin", &bytes(3, 2 * SIZE)).await;
    for (node, file) in [(1, &sent), (1, &lifted), (3, &received)] {
        sees(network.node(node), file).await;
    }
    promptly(sender, &["limits", "set", "--upload", "4MiB", "--limit-lan", "true"], "").await;
    promptly(receiver, &["limits", "set", "--download", "4MiB", "--limit-lan", "true"], "").await;
    let (up, down) = tokio::join!(rate(network.node(1), &sent), rate(receiver, &received));
    for (what, rate) in [("upload", up), ("download", down)] {
        let share = rate / LIMIT as f64;
        println!("{what}: {share:.3} of the limit");
        assert!((0.95..=1.05).contains(&share), "{what}: {share:.3} of the limit");
    }

    let mut events = network.node(1).node().fetch(&lifted.id).await.unwrap();
    let begun = Instant::now();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            FetchEvent::Progress(now) if now.done_bytes >= MIB as u64 => break,
            FetchEvent::Progress(_) => {}
            other => panic!("it ended early: {other:?}"),
        }
    }
    promptly(sender, &["limits", "set", "--upload", "0"], "").await;
    network.fetch(1, &lifted).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "the limit would have made it 16 s: {took:?}");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_fetch_gets_nearly_all_of_a_limited_line_while_replicas_are_made_over_it() {
    const SIZE: usize = 5 * LIMIT;
    let network = Network::start_replicating(1, 3, Duration::from_secs(1), Duration::from_mins(1)).await;
    promptly(network.node(0), &["limits", "set", "--upload", "4MiB", "--limit-lan", "true"], "").await;
    let mut files = Vec::new();
    for seed in 0..3 {
        files.push(network.share(0, &format!("{seed}.bin"), &bytes(seed, SIZE)).await);
    }
    let wanted = network.share(0, "wanted.bin", &bytes(9, SIZE)).await;
    sees(network.node(1), &wanted).await;
    for node in [1, 2] {
        eventually("replicas are wanted", async || {
            network.node(node).node().status().await.is_ok_and(|status| status.vault.wanted > 0)
        })
        .await;
    }
    let share = rate(network.node(1), &wanted).await / LIMIT as f64;
    println!("a person's share of the line: {share:.3}");
    assert!(share >= 0.8, "a person got {share:.3} of the line");
    let wanted = network.node(2).node().status().await.unwrap().vault.wanted;
    assert!(wanted > 0, "no replica was being made, so this shows nothing");
    network.stop().await;
}

async fn sees(node: &Member, file: &File) {
    eventually("the file is listed", async || {
        node.node().files("").await.is_ok_and(|files| files.iter().any(|listed| listed.id == file.id))
    })
    .await;
}

/// Fetches a file, and gives the rate at which it came, in bytes a second, without its beginning and its end.
async fn rate(node: &Member, file: &File) -> f64 {
    let mut events = node.node().fetch(&file.id).await.unwrap();
    let (mut first, mut last) = (None, None);
    while let Some(event) = events.next().await {
        match event.unwrap() {
            FetchEvent::Progress(now) => {
                let share = now.done_bytes as f64 / now.size_bytes as f64;
                let seen = (Instant::now(), now.done_bytes);
                if share >= 0.15 {
                    first.get_or_insert(seen);
                }
                if share < 1.0 {
                    last = Some(seen);
                }
            }
            FetchEvent::Done(_) => break,
            failed @ FetchEvent::Failed { .. } => panic!("it failed: {failed:?}"),
        }
    }
    let ((from, before), (until, after)) = first.zip(last).unwrap();
    (after - before) as f64 / until.duration_since(from).as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_receivers_that_ask_at_once_have_the_file_from_each_other_and_the_holder_sends_it_about_once() {
    let network = Network::start(1, 5, Duration::from_secs(1)).await;
    promptly(network.node(0), &["limits", "set", "--upload", "4MiB", "--limit-lan", "true"], "").await;
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
