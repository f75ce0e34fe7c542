//! Nodes that fall silent with their connections open: frozen, or with their link cut.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use quarta_node::api::model::File;
use quarta_testnet::cluster::Plan;
use quarta_testnet::watch::{gone_at_superpeer, state_at_node};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{DEADLINE, MIB, Network, TWO_SECONDS, assert_within, bytes, eventually, senders, state};

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
async fn a_node_whose_link_is_cut_is_removed_like_a_frozen_one_and_back_when_the_link_is() {
    let Some(link) = Link::make() else { return };
    let interval = Duration::from_secs(1);
    let network = Network::start_changed(1, 4, interval, |plan| link.place(plan)).await;
    let (file, another) = held_by_two(&network).await;
    let silent = network.name(1);
    let cut = Instant::now();
    link.set("down");
    watch_silence(&network, &silent, cut, interval, [&file, &another]).await;

    link.set("up");
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

/// A network namespace with a cable to this one. Removed when dropped.
struct Link {
    namespace: String,
    here: String,
}

impl Link {
    /// Where the members outside of the namespace listen, and the one inside. From the range for documentation
    /// (RFC 5737), so that no network of the machine is hidden.
    const HERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    /// Makes it. None, after saying so, where this user may not; with `CI=true` that is a failure.
    fn make() -> Option<Self> {
        let id = std::process::id();
        let link = Self { namespace: format!("qt{id}"), here: format!("qt{id}a") };
        let there = format!("qt{id}b");
        let made = ip(&["netns", "add", &link.namespace]).and_then(|()| {
            ip(&[
                "link",
                "add",
                &link.here,
                "type",
                "veth",
                "peer",
                "name",
                &there,
                "netns",
                &link.namespace,
            ])?;
            ip(&["addr", "add", &format!("{}/30", Self::HERE), "dev", &link.here])?;
            ip(&["link", "set", &link.here, "up"])?;
            let inside = ["-n", &link.namespace];
            ip(&[&inside[..], &["addr", "add", &format!("{}/30", Self::THERE), "dev", &there]].concat())?;
            ip(&[&inside[..], &["link", "set", &there, "up"]].concat())?;
            ip(&[&inside[..], &["link", "set", "lo", "up"]].concat())
        });
        match made {
            Ok(()) => Some(link),
            Err(why) => {
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "CI=true and no network namespace: {why}"
                );
                println!("NOT RUN: this needs root and iproute2 for a network namespace: {why}");
                None
            }
        }
    }

    /// Puts the second node into the namespace, and lets everybody listen at their end of the cable.
    fn place(&self, plan: &mut Plan) {
        for member in &mut plan.members {
            member.ip = Self::HERE;
        }
        let inside = &mut plan.members[2];
        inside.ip = Self::THERE;
        inside.through = ["ip", "netns", "exec", &self.namespace].map(OsString::from).to_vec();
    }

    fn set(&self, state: &str) {
        ip(&["link", "set", &self.here, state]).unwrap();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The cable goes with the namespace. What is left would be seen by `ip netns`.
        let _ = ip(&["link", "del", &self.here]);
        let _ = ip(&["netns", "del", &self.namespace]);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
