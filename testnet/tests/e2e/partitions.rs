//! Members on hosts of their own whose network falls apart and is one again.

use crate::support::agreement::{agreement, same_trail};
use crate::support::{MIB, Network, assert_within, bytes, eventually, outsider, state};
use quarta_daemon::Role;
use quarta_node::api::model::File;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// How soon a revoked member's connections are closed wherever a reachable super-peer is known.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// Who joins while the network is in two parts.
const TARDE: &str = "filial-tarde";

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_cut_go_on_and_are_one_network_again_when_it_is_healed() {
    let Some((mut network, lan)) = Network::start_apart(3, 4, SECOND, &[TARDE], |_| {}).await else { return };
    let names = network.names();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let [sp1, sp2, sp3, recife, natal, belem, manaus] = all[..] else { panic!("{all:?}") };
    let before = network.share(0, "antes.bin", &bytes(1, MIB)).await;
    listed(&network, &[0, 1, 2, 3], &before).await;

    lan.cut(&[sp1, recife, natal, TARDE], &[sp2, sp3, belem, manaus]).unwrap();
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

    // One side admits a member, the other ends a membership.
    let invite = network.superpeer(0).superpeer().invite("node", 1, SECOND * 600).await.unwrap().invite;
    let mut late = outsider(TARDE, Role::Node);
    lan.place_member(&mut late).unwrap();
    network.cluster.join(late, &invite).await.unwrap();
    network.cluster.ready(TARDE).await.unwrap();
    let new = network.share(4, "de-tarde.bin", &bytes(4, MIB)).await;
    listed(&network, &[0], &new).await;
    let revoked = Instant::now();
    network.superpeer(1).succeed(&["revoke", manaus], "").await.unwrap();
    let refused = eventually("the revoked node is let in by nobody", async || {
        let status = network.node(3).node().status().await.unwrap();
        let reachable = |name: &str| name == sp2 || name == sp3;
        status.superpeers.iter().all(|superpeer| !(reachable(&superpeer.name) && superpeer.connected))
    })
    .await;
    assert_within(CLOSED_WITHIN, revoked, (manaus.to_owned(), Ok(refused)), "its connections are closed");

    lan.heal().unwrap();
    let healed = Instant::now();
    // The listings must have crossed before it means something that they agree.
    listed(&network, &[2], &here).await;
    listed(&network, &[0, 1], &there).await;
    let agreed = agreement(&network, &[sp1, sp2, sp3, recife, natal, belem, TARDE]).await;
    println!("one network again after {:.2} s", (agreed - healed).as_secs_f64());
    for superpeer in network.cluster.superpeers() {
        let files = superpeer.superpeer().files().await.unwrap();
        assert_eq!(files.len(), 4, "every acknowledged file is in the catalog of {}", superpeer.name());
        for member in superpeer.superpeer().members().await.unwrap() {
            let expected = if member.name == manaus { "revoked" } else { "online" };
            // Whom it had lost may be heard of only with its next poll.
            eventually(&format!("{} is {expected} at {}", member.name, superpeer.name()), async || {
                state(superpeer, &member.name).await.as_deref() == Some(expected)
            })
            .await;
        }
    }
    assert!(
        same_trail(&network).await.iter().any(|event| event.contains("revoked") && event.contains(manaus))
    );
    network.fetch(0, &there).await;
    network.fetch(2, &new).await;
    eventually("it is told why", async || status_tells(&network, 3, "revoked").await).await;
    network.stop().await;
}

async fn status_tells(network: &Network, node: usize, word: &str) -> bool {
    let status = network.node(node).node().status().await.unwrap();
    status.problems.iter().any(|problem| problem.contains(word))
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
