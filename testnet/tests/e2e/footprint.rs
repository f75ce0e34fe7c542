//! What a node takes of a machine.

use crate::support::{Network, eventually, memory};
use std::fs;
use std::time::Duration;

/// With the pages of the program itself, which all nodes of a machine share; as it is when optimised.
const IDLE_MAX_BYTES: u64 = 40 << 20;
/// What each takes for itself, however the program was built.
const IDLE_OWN_MAX_BYTES: u64 = 16 << 20;
const BUSY_MAX_BYTES: u64 = 150 << 20;
const LARGE_BYTES: u64 = 2 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_stays_under_40_mib_and_one_that_adds_or_fetches_2_gib_under_150() {
    // The copy at its owner, and the one at the node that fetches.
    let network =
        Network::start_changed(1, 2, Duration::from_secs(1), |plan| plan.files_bytes = 2 * LARGE_BYTES).await;
    // Idle for some polls.
    let superpeer = network.superpeer(0);
    let polls = async || {
        let text = superpeer.scrape("/metrics").await.unwrap();
        let metrics = quarta_testnet::exposition::Exposition::parse(&text).unwrap();
        metrics.sum_where("quarta_superpeer_polls_total", "outcome", "answered")
    };
    eventually("the nodes are polled", async || polls().await >= 6.0).await;
    for node in network.cluster.nodes() {
        let [idle, own] = ["VmRSS:", "RssAnon:"].map(|line| memory(node.pid().unwrap(), line));
        println!("{} idle: {} KiB, {} of it its own", node.name(), idle / 1024, own / 1024);
        assert!(own < IDLE_OWN_MAX_BYTES, "{} takes {own} bytes for itself when idle", node.name());
        // An unoptimised program's code takes three times as much.
        let optimised = !cfg!(debug_assertions);
        assert!(!optimised || idle < IDLE_MAX_BYTES, "{} takes {idle} bytes when idle", node.name());
    }

    // Sparse: its zeros are read, sealed and sent like any other bytes.
    let original = network.write("bruto.bin", b"");
    fs::File::options().write(true).open(&original).unwrap().set_len(LARGE_BYTES).unwrap();
    let file = network.node(0).node().add(&original, None).await.unwrap();
    eventually("the file is listed", async || {
        network.node(1).node().files("").await.is_ok_and(|files| files.len() == 1)
    })
    .await;
    network.fetch(1, &file).await;
    for node in network.cluster.nodes() {
        let most = memory(node.pid().unwrap(), "VmHWM:");
        println!("{} at most: {} KiB", node.name(), most / 1024);
        assert!(most < BUSY_MAX_BYTES, "{} took {most} bytes", node.name());
    }
    network.stop().await;
}
