//! Copies of files by themselves: every file is on a third of the nodes without anybody doing anything, and is again
//! after nodes have died for good.

use crate::support::{MIB, Network, bytes};
use futures::future::join_all;
use quarta_testnet::exposition::Exposition;
use quarta_testnet::wait::{Look, until};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const NODES: usize = 12;
const FILES: usize = 200;
/// A third of the nodes.
const TARGET: usize = 4;
const KILLED: [usize; 3] = [1, 5, 10];
const GRACE: Duration = Duration::from_secs(5);
/// Within which all copies are there again.
const REPAIRED_WITHIN: Duration = Duration::from_mins(1);
/// How much more than what is missing may be moved.
const MOVED_MAX: f64 = 1.2;
/// How long is waited for what is to take [`REPAIRED_WITHIN`] at most, and for the first copies.
const DEADLINE: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_files_are_back_at_four_copies_within_a_minute_of_the_death_of_three_of_twelve_nodes() {
    let mut network = Network::start_replicating(2, NODES, Duration::from_secs(1), GRACE).await;
    let names: Vec<String> = (0..NODES).map(|index| network.name(index)).collect();
    let began = Instant::now();
    join_all((0..NODES).map(async |node| {
        for number in (0..FILES).filter(|number| number % NODES == node) {
            network.share(node, &format!("{number:03}.bin"), &bytes(number as u64, MIB)).await;
        }
    }))
    .await;
    println!("{FILES} files are shared after {:.1} s", began.elapsed().as_secs_f64());
    until_all_have_their_copies(&network).await;
    println!("all have {TARGET} copies after {:.1} s", began.elapsed().as_secs_f64());
    let copies = trimmed(&network, &names).await;
    assert_eq!(copies.len(), FILES);
    assert!(copies.values().all(|holders| holders.len() == TARGET), "{copies:?}");
    let stored = (FILES * TARGET * MIB) as u64;
    reached(&network, "the bill is that of these copies", async |network| {
        statuses(network).await[0].replication.stored_bytes == stored
    })
    .await;
    let bill = network.superpeer(0).superpeer().status().await.unwrap().replication;
    assert_eq!((bill.target, bill.floor, bill.stored_bytes, bill.wanted_bytes), (4, 3, stored, stored));

    let dead = KILLED.map(|index| names[index].clone());
    let missing: usize =
        copies.values().map(|holders| holders.iter().filter(|holder| dead.contains(holder)).count()).sum();
    let moved_before = fetched_for_vaults(&network, &dead).await;
    for name in &dead {
        network.cluster.kill(name).await.unwrap();
    }
    let killed = Instant::now();
    reached(&network, "copies are missed", async |network| {
        let statuses = statuses(network).await;
        statuses.iter().all(|status| status.nodes_online == 9 && status.replication.below_target > 0)
    })
    .await;
    assert!(killed.elapsed() >= GRACE, "they may come back");
    until_all_have_their_copies(&network).await;
    let took = killed.elapsed();
    let moved = fetched_for_vaults(&network, &dead).await - moved_before;
    let lost = (missing * MIB) as f64;
    println!(
        "{missing} copies were lost with three nodes and made anew within {:.1} s; {:.3} times their bytes moved",
        took.as_secs_f64(),
        moved / lost
    );
    assert!(took <= REPAIRED_WITHIN, "it took {took:?}");
    assert!(moved >= lost && moved <= MOVED_MAX * lost, "{moved} bytes moved for {lost} that were missing");

    let left: Vec<String> = names.iter().filter(|name| !dead.contains(name)).cloned().collect();
    let copies = trimmed(&network, &left).await;
    assert_eq!(copies.len(), FILES);
    assert!(copies.values().all(|holders| holders.len() == TARGET), "{copies:?}");
    network.stop().await;
}

async fn statuses(network: &Network) -> Vec<quarta_superpeer::api::model::Status> {
    let asked = network.cluster.superpeers().map(async |member| member.superpeer().status().await.unwrap());
    join_all(asked).await
}

async fn until_all_have_their_copies(network: &Network) {
    reached(network, "every file has its copies", async |network| {
        statuses(network).await.iter().all(|status| {
            let bill = &status.replication;
            status.files == FILES as u64
                && bill.plain_bytes == (FILES * MIB) as u64
                && (bill.unseen, bill.below_target, bill.under_way) == (0, 0, 0)
        })
    })
    .await;
}

/// Which of these nodes hold all of each content, once none has a copy too many: while a node is slow to list what it
/// was asked to keep, another may be asked too, and one of them drops it after the grace period.
async fn trimmed(network: &Network, nodes: &[String]) -> BTreeMap<String, Vec<String>> {
    reached(network, "no file has more copies than it should", async |network| {
        copies(network, nodes).await.values().all(|holders| holders.len() <= TARGET)
    })
    .await;
    copies(network, nodes).await
}

async fn reached(network: &Network, what: &str, holds: impl AsyncFn(&Network) -> bool) {
    let reached = until(DEADLINE, async || {
        if holds(network).await {
            return Look::Holds(());
        }
        let bills: Vec<_> = statuses(network).await.into_iter().map(|status| status.replication).collect();
        Look::NotYet(format!("{what}: {bills:#?}"))
    });
    reached.await.unwrap_or_else(|late| panic!("{late}"));
}

/// Which of these nodes hold all of each content, as the first super-peer lists it.
async fn copies(network: &Network, nodes: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut copies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in nodes {
        for held in network.superpeer(0).superpeer().held(node).await.unwrap() {
            assert!(held.complete, "{held:?}");
            copies.entry(held.content).or_default().push(node.clone());
        }
    }
    copies
}

/// Bytes that vaults have fetched, but for those of some nodes.
async fn fetched_for_vaults(network: &Network, except: &[String]) -> f64 {
    let left = network.cluster.nodes().filter(|node| !except.contains(&node.name().to_owned()));
    let fetched = left.map(async |node| {
        let exposition = Exposition::parse(&node.scrape("/metrics").await.unwrap()).unwrap();
        exposition.sum("quarta_node_vault_fetched_bytes_total").unwrap_or_default()
    });
    join_all(fetched).await.into_iter().sum()
}
