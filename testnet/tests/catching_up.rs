//! Super-peers that live in another year.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use quarta_testnet::cluster::registered;
use std::time::{Duration, Instant};
use support::agreement::agreement;
use support::clock::Clock;
use support::{Network, eventually, promptly};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_super_peer_whose_clock_is_ten_years_off_says_so_and_harms_nobody() {
    let home = support::home();
    let Some(clock) = Clock::at(home.path().join("clock")) else { return };
    let mut network =
        Network::start_changed(2, 2, SECOND, |plan| plan.members[1].through = clock.through()).await;
    let names = network.names();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let [sp1, wrong, recife, natal] = all[..] else { panic!("{all:?}") };
    for (offset, words, restarts) in [("+10y", "10 years ahead of", false), ("-10y", "10 years behind", true)]
    {
        if restarts {
            assert!(network.cluster.end(wrong).await.unwrap());
        }
        clock.set(offset);
        network.cluster.restart(wrong).unwrap();
        let set = Instant::now();
        eventually(&format!("the super-peer {words} tells of it"), async || {
            network.superpeer(1).superpeer().status().await.is_ok_and(|status| {
                let told = format!("this machine's clock is {words} most members'");
                status
                    .problems
                    .iter()
                    .any(|problem| problem.contains(&told) && problem.contains("; set the clock"))
            })
        })
        .await;
        println!("{words}: told after {:.2} s", set.elapsed().as_secs_f64());
        for (node, other) in [(0, 1), (1, 0)] {
            let (member, name) = (network.node(node), format!("com{offset}-de-{node}.csv"));
            let path = network.write(&name, b"1;2;3\n");
            promptly(member, &["add", path.to_str().unwrap()], "").await;
            let other = network.node(other);
            eventually("it is listed", async || {
                other.node().files(&name).await.is_ok_and(|files| files.len() == 1)
            })
            .await;
            promptly(other, &["ls"], "").await;
            promptly(other, &["get", &name], "").await;
        }
        let status = network.superpeer(0).superpeer().status().await.unwrap();
        assert_eq!((status.nodes_online, status.superpeers_connected), (2, 0), "{:?}", status.problems);

        clock.set("+0");
        let set = Instant::now();
        for node in network.cluster.nodes() {
            eventually("the node has told both its list", async || {
                node.node().status().await.is_ok_and(|status| status.healthy && registered(&status) == 2)
            })
            .await;
        }
        let agreed = agreement(&network, &[sp1, wrong, recife, natal]).await;
        println!("{words}: all agree {:.2} s after the clock is right", (agreed - set).as_secs_f64());
    }
    network.stop().await;
}
