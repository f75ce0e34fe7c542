//! Members on hosts of their own whose network falls apart and is one again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use quarta_node::api::model::File;
use std::time::Duration;
use support::agreement::agreement;
use support::{MIB, Network, bytes, eventually, state};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_cut_go_on_and_are_one_network_again_when_it_is_healed() {
    let Some((network, lan)) = Network::start_apart(3, 4, SECOND, &[], |_| {}).await else { return };
    let names: Vec<_> = network.cluster.members().iter().map(|member| member.name().to_owned()).collect();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let [sp1, sp2, sp3, recife, natal, belem, manaus] = all[..] else { panic!("{all:?}") };
    let before = network.share(0, "antes.bin", &bytes(1, MIB)).await;
    listed(&network, &[0, 1, 2, 3], &before).await;

    lan.cut(&[sp1, recife, natal], &[sp2, sp3, belem, manaus]).unwrap();
    for (superpeer, lost) in [(0, [belem, manaus]), (1, [recife, natal]), (2, [recife, natal])] {
        eventually("the other side is offline", async || {
            let superpeer = network.superpeer(superpeer);
            state(superpeer, lost[0]).await.as_deref() == Some("offline")
                && state(superpeer, lost[1]).await.as_deref() == Some("offline")
        })
        .await;
    }
    // Each side goes on by itself, and does not hear of the other.
    let here = network.share(0, "daqui.bin", &bytes(2, MIB)).await;
    let there = network.share(2, "dali.bin", &bytes(3, MIB)).await;
    for (file, [near, far]) in [(&here, [1, 3]), (&there, [3, 1])] {
        listed(&network, &[near], file).await;
        network.fetch(near, file).await;
        let heard = network.node(far).node().files(&file.name).await.unwrap();
        assert_eq!(heard, [], "it came through the cut");
    }

    lan.heal().unwrap();
    let healed = std::time::Instant::now();
    // The listings must have crossed before it means something that they agree.
    listed(&network, &[2, 3], &here).await;
    listed(&network, &[0, 1], &there).await;
    let agreed = agreement(&network, &all).await;
    println!("one network again after {:.2} s", agreed.duration_since(healed).as_secs_f64());
    for superpeer in network.cluster.superpeers() {
        let files = superpeer.superpeer().files().await.unwrap();
        assert_eq!(files.len(), 3, "every acknowledged file is in the catalog of {}", superpeer.name());
        assert!(superpeer.superpeer().members().await.unwrap().iter().all(|member| member.state == "online"));
    }
    network.fetch(0, &there).await;
    network.fetch(3, &here).await;
    network.stop().await;
}

/// Waits until nodes list a file.
async fn listed(network: &Network, nodes: &[usize], file: &File) {
    for node in nodes {
        let node = network.node(*node);
        eventually(&format!("{} lists {}", node.name(), file.name), async || {
            node.node()
                .files(&file.name)
                .await
                .is_ok_and(|files| files.iter().any(|other| other.id == file.id))
        })
        .await;
    }
}
