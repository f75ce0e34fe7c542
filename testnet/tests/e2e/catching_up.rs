//! Super-peers that were away, are new, come from an old backup, or live in another year.

use crate::support::agreement::{agreement, same_trail};
use crate::support::clock::Clock;
use crate::support::{MIB, Network, assert_fails, bytes, eventually, outsider, promptly, state};
use quarta_daemon::Role;
use quarta_testnet::cluster::{MemberPlan, registered};
use quarta_testnet::netns::Lan;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_super_peer_from_an_old_backup_a_long_dead_and_a_new_one_catch_up_and_spread_nothing_old() {
    let later = ["filial-tarde", "filial-outra", "filial-dupla", "central-4"];
    let Some((mut network, lan)) = Network::start_apart(3, 3, SECOND, &later, |_| {}).await else { return };
    let names = network.names();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let [sp1, sp2, sp3, recife, natal, belem] = all[..] else { panic!("{all:?}") };
    let [tarde, outra, dupla, sp4] = later;
    network.share(0, "antes.bin", &bytes(1, MIB)).await;
    network.share(2, "de-belem.bin", &bytes(2, MIB)).await;
    agreement(&network, &[sp1, sp2, sp3, recife, natal, belem]).await;
    let [spent, open] = [invite(&network, 2, "node").await, invite(&network, 2, "node").await];

    // What the backup and the dead one do not know of.
    network.cluster.kill(sp2).await.unwrap();
    let backup = network.cluster.back_up(sp3).await.unwrap();
    network.cluster.join(on(&lan, tarde, Role::Node), &spent).await.unwrap();
    network.cluster.ready(tarde).await.unwrap();
    network.share(0, "depois.bin", &bytes(3, MIB)).await;
    network.superpeer(0).succeed(&["revoke", belem], "").await.unwrap();
    agreement(&network, &[sp1, sp3, recife, natal, tarde]).await;

    network.cluster.restore(&backup).await.unwrap();
    lan.cut(&[sp3], &[sp1, recife, natal, tarde]).unwrap();
    network.cluster.restart(sp3).unwrap();
    let restored = network.cluster.member(sp3).unwrap();
    eventually("the restored super-peer runs, and it is an old one", async || {
        restored.superpeer().files().await.is_ok_and(|files| files.len() == 2)
            && state(restored, tarde).await.is_none()
            && state(restored, belem).await.is_some_and(|state| state != "revoked")
    })
    .await;
    let joiner = network.cluster.outsider(on(&lan, outra, Role::Node)).unwrap();
    let output = joiner.run(&["join", "-", "--name", outra], &open).await.unwrap();
    assert_fails(&output, 4, &["has not reached another super-peer since it started"]);
    let problems = restored.superpeer().status().await.unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("renews nobody")), "{problems:?}");

    lan.heal().unwrap();
    let healed = Instant::now();
    let agreed = agreement(&network, &[sp1, sp3, recife, natal, tarde]).await;
    println!(
        "the restored one is overtaken {:.2} s after it reached another",
        (agreed - healed).as_secs_f64()
    );
    for superpeer in [sp1, sp3].map(|name| network.cluster.member(name).unwrap()) {
        assert_eq!(state(superpeer, belem).await.as_deref(), Some("revoked"));
        assert_eq!(state(superpeer, tarde).await.as_deref(), Some("online"));
        assert_eq!(superpeer.superpeer().files().await.unwrap().len(), 3);
    }
    eventually("it admits again", async || {
        let status = network.superpeer(2).superpeer().status().await;
        status.is_ok_and(|status| !status.problems.iter().any(|problem| problem.contains("renews nobody")))
    })
    .await;
    // Who used its invites since the backup is lost, so that none of them can be used any more.
    let twin = network.cluster.outsider(on(&lan, dupla, Role::Node)).unwrap();
    for (joiner, invite) in [(&joiner, &open), (&twin, &spent)] {
        let output = joiner.run(&["join", "-", "--name", joiner.name()], invite).await.unwrap();
        assert_fails(&output, 4, &["the invite has been used already; ask for a new invite"]);
    }
    let new = invite(&network, 2, "node").await;
    joiner.succeed(&["join", "-", "--name", outra], &new).await.unwrap();

    network.cluster.restart(sp2).unwrap();
    let (started, agreed) =
        (Instant::now(), agreement(&network, &[sp1, sp2, sp3, recife, natal, tarde]).await);
    println!("the long dead one has caught up {:.2} s after its start", (agreed - started).as_secs_f64());
    let superpeer = invite(&network, 0, "superpeer").await;
    network.cluster.join(on(&lan, sp4, Role::Superpeer), &superpeer).await.unwrap();
    network.cluster.ready(sp4).await.unwrap();
    let agreed = agreement(&network, &[sp1, sp2, sp3, sp4, recife, natal, tarde]).await;
    println!(
        "the new one has caught up {:.2} s after the dead one's start",
        (agreed - started).as_secs_f64()
    );
    let trail = same_trail(&network).await;
    assert!(trail.iter().any(|event| event.contains("revoked") && event.contains(belem)), "{trail:?}");
    network.stop().await;
}

/// An invite for one machine.
async fn invite(network: &Network, superpeer: usize, role: &str) -> String {
    network.superpeer(superpeer).superpeer().invite(role, 1, SECOND * 600).await.unwrap().invite
}

/// A plan for somebody new on the host of that name.
fn on(lan: &Lan, name: &str, role: Role) -> MemberPlan {
    let mut plan = outsider(name, role);
    lan.place_member(&mut plan).unwrap();
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn a_super_peer_whose_clock_is_ten_years_off_says_so_and_harms_nobody() {
    let home = crate::support::home();
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
