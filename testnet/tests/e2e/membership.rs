//! Branches that sign off and on, leave, are expelled, renew their credentials, and join by way of any member.

use crate::support::clock::Clock;
use crate::support::{
    DEADLINE, Network, TWO_SECONDS, assert_fails, assert_within, eventually, outsider, state,
};
use quarta_daemon::Role;
use quarta_protocols::invites::Invite;
use quarta_testnet::cluster::registered;
use quarta_testnet::watch::{back_at_superpeer, gone_at_superpeer, state_at_node};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Long enough that no poll tells what is to be told at once.
const SELDOM: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_signs_off_is_offline_for_all_at_once_stays_so_over_a_restart_and_is_back_at_once() {
    let mut network = Network::start(2, 3, SELDOM).await;
    let name = network.name(0);
    let since = Instant::now();
    network.node(0).succeed(&["disconnect"], "").await.unwrap();
    for superpeer in network.cluster.superpeers() {
        let gone = gone_at_superpeer(superpeer.superpeer(), name.clone(), DEADLINE).await;
        assert_within(TWO_SECONDS, since, gone, "signed off");
        let log = std::fs::read_to_string(superpeer.log()).unwrap();
        assert!(!log.contains("removed from the available list"), "it is no failure: {log}");
    }
    for other in [1, 2] {
        let heard = state_at_node(network.node(other).node(), name.clone(), "offline", DEADLINE).await;
        assert_within(TWO_SECONDS, since, heard, "signed off");
    }
    assert_is_off(&network).await;

    assert!(network.cluster.end(&name).await.unwrap());
    network.cluster.restart(&name).unwrap();
    eventually("its daemon answers", async || network.node(0).node().status().await.is_ok()).await;
    assert_is_off(&network).await;

    let since = Instant::now();
    network.node(0).succeed(&["connect"], "").await.unwrap();
    for superpeer in network.cluster.superpeers() {
        let back = back_at_superpeer(superpeer.superpeer(), name.clone(), BTreeSet::new(), DEADLINE).await;
        assert_within(TWO_SECONDS, since, back, "signed on");
    }
    let heard = state_at_node(network.node(1).node(), name.clone(), "online", DEADLINE).await;
    assert_within(TWO_SECONDS, since, heard, "signed on");
    network.stop().await;
}

/// The first node is off, says so, and counts as healthy: that is what was asked of it.
async fn assert_is_off(network: &Network) {
    let said = network.node(0).succeed(&["status"], "").await.unwrap();
    assert!(said.contains("healthy") && said.contains("signed off: `quarta connect`"), "{said}");
    let status = network.node(0).node().status().await.unwrap();
    assert!(status.signed_off && status.superpeers.iter().all(|superpeer| !superpeer.connected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_by_way_of_any_member_when_the_issuer_is_not_where_the_invite_says() {
    let mut network = Network::start(2, 1, SECOND).await;
    let issued = network.superpeer(1).superpeer().invite("node", 5, Duration::from_hours(1)).await.unwrap();
    let mut invite = Invite::parse(&issued.invite).unwrap();
    // Where it was before it moved; nobody listens on port 1.
    invite.addresses = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let invite = invite.to_text();
    let joiner = network.cluster.outsider(outsider("filial-nova", Role::Node)).unwrap();
    let join = ["join", "-", "--name", "filial-nova"];
    let output = joiner.run(&join, &invite).await.unwrap();
    assert_fails(&output, 1, &["the super-peer that issued the invite does not answer", "--via"]);

    let nobody = [&join[..], &["--via", "/ip4/127.0.0.1/tcp/1"]].concat();
    assert_fails(
        &joiner.run(&nobody, &invite).await.unwrap(),
        1,
        &["nobody answers at /ip4/127.0.0.1/tcp/1"],
    );
    let member = format!("/ip4/127.0.0.1/tcp/{}", network.node(0).peer_port());
    let via = [&join[..], &["--via", &member]].concat();
    eventually("the node knows where both super-peers are", async || {
        network.node(0).node().status().await.is_ok_and(|status| registered(&status) == 2)
    })
    .await;
    joiner.succeed(&via, &invite).await.unwrap();
    eventually("it is a member", async || state(network.superpeer(1), "filial-nova").await.is_some()).await;

    // Nobody but the issuer redeems, so while that is down this must be said, whoever is asked.
    let issuer = network.superpeer(1).name().to_owned();
    network.cluster.kill(&issuer).await.unwrap();
    let joiner = network.cluster.outsider(outsider("filial-tarde", Role::Node)).unwrap();
    let via = ["join", "-", "--name", "filial-tarde", "--via", &member];
    let output = joiner.run(&via, &invite).await.unwrap();
    let words =
        ["the super-peer that issued the invite does not answer", "ask another super-peer for an invite"];
    assert_fails(&output, 1, &words);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_leaves_for_good_by_itself_and_only_when_it_means_it() {
    let mut network = Network::start(2, 2, SECOND).await;
    let (name, node) = (network.name(0), network.node(0));
    let file = network.share(0, "plano.txt", b"plano").await;
    eventually("the file is listed", async || {
        network.node(1).node().files("").await.is_ok_and(|files| files.iter().any(|f| f.id == file.id))
    })
    .await;
    network.fetch(1, &file).await;

    assert_fails(
        &node.run(&["leave"], "").await.unwrap(),
        1,
        &["not confirmed", "quarta leave --yes", &name],
    );
    assert_eq!(state(network.superpeer(0), &name).await.as_deref(), Some("online"), "nothing has happened");

    let since = Instant::now();
    node.succeed(&["leave", "--yes"], "").await.unwrap();
    for superpeer in network.cluster.superpeers() {
        let left = eventually("it is listed as left", async || {
            state(superpeer, &name).await.as_deref() == Some("left")
        })
        .await;
        assert_within(TWO_SECONDS, since, (superpeer.name().to_owned(), Ok(left)), "left");
    }
    eventually("its daemon has ended", async || network.node(0).pid().is_none()).await;
    let kept = network.node(0).data().join("library").join("plano.txt");
    assert_eq!(std::fs::read(kept).unwrap(), b"plano", "the library stays");
    let serve = network.node(0).run(&["serve"], "").await.unwrap();
    assert_fails(&serve, 1, &["has left the network for good", "join again"]);

    // Not even by making the folder forget: nobody lets it in.
    std::fs::remove_file(network.node(0).data().join("quarta.left")).unwrap();
    network.cluster.restart(&name).unwrap();
    eventually("it is told that it has left", async || {
        let status = network.node(0).node().status().await;
        status.is_ok_and(|status| status.problems.iter().any(|problem| problem.contains("left the network")))
    })
    .await;
    assert_eq!(state(network.superpeer(0), &name).await.as_deref(), Some("left"));
    // Leaving again is harmless, and ends it here too.
    network.node(0).succeed(&["leave", "--yes", "--abandon"], "").await.unwrap();
    eventually("its daemon has ended", async || network.node(0).pid().is_none()).await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_renewed_by_themselves_also_after_they_have_run_out() {
    let home = crate::support::home();
    let Some(clock) = Clock::at(home.path().join("clock")) else { return };
    let mut network = Network::start_changed(1, 2, SECOND, |plan| {
        for member in &mut plan.members {
            member.through = clock.through();
        }
    })
    .await;
    let expires = async |network: &Network, index: usize| {
        network.node(index).node().status().await.map_or(0, |status| status.credential_expires)
    };
    let first = expires(&network, 0).await;
    let days = |days: u64| days * 24 * 3600;

    // All clocks pass the end of the nodes' fourteen days while they run.
    clock.set("+20d");
    let since = Instant::now();
    for index in [0, 1] {
        let renewed = eventually("it is renewed and let in", async || {
            expires(&network, index).await > first + days(15)
                && network.node(index).node().status().await.is_ok_and(|status| registered(&status) == 1)
        })
        .await;
        let who = network.name(index);
        assert_within(Duration::from_secs(10), since, (who, Ok(renewed)), "renewed when it ran out");
    }

    // One comes back after its end.
    let name = network.name(0);
    assert!(network.cluster.end(&name).await.unwrap());
    clock.set("+60d");
    let before = expires(&network, 1).await;
    network.cluster.restart(&name).unwrap();
    eventually("it is renewed and let in", async || {
        expires(&network, 0).await > before + days(30)
            && network.node(0).node().status().await.is_ok_and(|status| status.healthy)
    })
    .await;
    // What was renewed is on the disk: after a restart there is nothing to renew.
    let renewed = expires(&network, 0).await;
    assert!(network.cluster.end(&name).await.unwrap());
    network.cluster.restart(&name).unwrap();
    network.cluster.ready(&name).await.unwrap();
    assert_eq!(expires(&network, 0).await, renewed);

    // The super-peer that holds the root key renews its own year by itself.
    let superpeer = network.superpeer(0).name().to_owned();
    let own = network.superpeer(0).superpeer().status().await.unwrap().credential_expires;
    assert!(network.cluster.end(&superpeer).await.unwrap());
    clock.set("+300d");
    network.cluster.restart(&superpeer).unwrap();
    eventually("the super-peer is renewed", async || {
        let status = network.superpeer(0).superpeer().status().await;
        status.is_ok_and(|status| status.credential_expires > own + days(200))
    })
    .await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_branch_is_cut_off_everywhere_within_5_s_and_cannot_come_back() {
    let slow = "2MiB";
    let mut network = Network::start_changed(2, 2, SECOND, |plan| {
        let victim = plan.members.iter_mut().find(|member| member.role == Role::Node).unwrap();
        victim.serve_args = ["--limit-lan", "--upload-limit", slow].map(Into::into).to_vec();
    })
    .await;
    let name = network.name(0);
    let file = network.share(0, "grande.bin", &crate::support::bytes(7, 64 * crate::support::MIB)).await;
    eventually("the file is listed", async || {
        network.node(1).node().files("").await.is_ok_and(|files| files.iter().any(|f| f.id == file.id))
    })
    .await;
    // Half a minute of transfer over a live connection between two nodes.
    let fetch = network.node(1).node().fetch(&file.id).await.unwrap();
    eventually("it is fetched from", async || {
        network.node(0).node().status().await.is_ok_and(|status| status.active_uploads > 0)
    })
    .await;

    let since = Instant::now();
    network.superpeer(0).succeed(&["revoke", &name], "").await.unwrap();
    let bound = Duration::from_secs(5);
    let cut = eventually("nobody is connected with it", async || {
        let status = network.node(0).node().status().await;
        status.is_ok_and(|status| {
            status.active_uploads == 0 && status.superpeers.iter().all(|superpeer| !superpeer.connected)
        })
    })
    .await;
    assert_within(bound, since, (name.clone(), Ok(cut)), "cut off");
    for superpeer in network.cluster.superpeers() {
        let revoked = eventually("it is listed as revoked", async || {
            state(superpeer, &name).await.as_deref() == Some("revoked")
        })
        .await;
        assert_within(bound, since, (superpeer.name().to_owned(), Ok(revoked)), "revoked");
        let members = superpeer.superpeer().members().await.unwrap();
        let seen = members.iter().find(|member| member.name == name).unwrap().last_seen;
        assert!(seen.is_some(), "{} has forgotten when it last saw it", superpeer.name());
    }
    drop(fetch);

    // Not by asking, not by starting again.
    assert!(network.cluster.end(&name).await.unwrap());
    network.cluster.restart(&name).unwrap();
    eventually("it is told why", async || {
        let status = network.node(0).node().status().await;
        status.is_ok_and(|status| {
            status.superpeers.iter().all(|superpeer| !superpeer.connected)
                && status.problems.iter().any(|problem| problem.contains("revoked"))
        })
    })
    .await;
    assert_eq!(state(network.superpeer(1), &name).await.as_deref(), Some("revoked"));
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_branches_of_a_revoked_super_peer_are_renewed_by_another_and_stay() {
    let mut network = Network::start(2, 1, SECOND).await;
    let [by, other] = [1, 0].map(|index| network.superpeer(index).name().to_owned());
    let invite = network.superpeer(1).superpeer().invite("node", 1, Duration::from_hours(1)).await.unwrap();
    network.cluster.join(outsider("filial-orfa", Role::Node), &invite.invite).await.unwrap();
    network.cluster.ready("filial-orfa").await.unwrap();
    let orphan = || network.cluster.member("filial-orfa").unwrap().node();
    eventually("it knows both super-peers", async || {
        orphan().status().await.is_ok_and(|status| registered(&status) == 2)
    })
    .await;

    let since = Instant::now();
    network.superpeer(0).succeed(&["revoke", &by], "").await.unwrap();
    let renewed = eventually("its credential is renewed", async || {
        let log = std::fs::read_to_string(network.superpeer(0).log()).unwrap();
        log.lines().any(|line| line.contains("credential is renewed") && line.contains("filial-orfa"))
    })
    .await;
    assert_within(Duration::from_secs(10), since, (other.clone(), Ok(renewed)), "renewed elsewhere");
    eventually("it is let in, and by the living one alone", async || {
        let connected = |status: quarta_node::api::model::Status| {
            let connected = status.superpeers.into_iter().filter(|superpeer| superpeer.connected);
            connected.map(|superpeer| superpeer.name).collect::<Vec<_>>() == [other.clone()]
        };
        orphan().status().await.is_ok_and(connected)
    })
    .await;
    assert_eq!(state(network.superpeer(0), "filial-orfa").await.as_deref(), Some("online"));
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_super_peer_that_has_to_be_approved_waits_says_so_and_goes_on_by_itself() {
    let network = Network::start(2, 0, SECOND).await;
    // The root key does not lie where the invite is issued.
    let invite = network.superpeer(1).succeed(&["invite", "--role", "superpeer"], "").await.unwrap();
    let joiner = network.cluster.outsider(outsider("central-nova", Role::Superpeer)).unwrap();
    let join = async { joiner.run(&["join", "-", "--name", "central-nova"], &invite).await.unwrap() };
    let approve = async {
        eventually("it is listed as waiting", async || {
            let waiting = network.superpeer(1).succeed(&["approve"], "").await;
            waiting.is_ok_and(|waiting| waiting.contains("central-nova"))
        })
        .await;
        let key = network.superpeer(0).data().join("root.key");
        let approve = ["approve", "central-nova", "--root-key", key.to_str().unwrap()];
        network.superpeer(1).succeed(&approve, "").await.unwrap();
    };
    let (joined, ()) = tokio::join!(join, approve);
    let said = String::from_utf8_lossy(&joined.stderr).into_owned();
    assert!(joined.status.success() && said.contains("central-nova waits to be approved"), "{said}");
    network.stop().await;
}
