//! Super-peers that are lost, one or all, and come back: what branches notice of it.

use crate::support::agreement::agreement;
use crate::support::{MIB, Network, assert_fails, bytes, eventually, outsider, promptly, senders};
use futures::StreamExt;
use futures::future::{join_all, join3};
use quarta_daemon::Role;
use quarta_node::api::model::{FetchEvent, File, Transfer};
use quarta_testnet::api::Fetch;
use quarta_testnet::cluster::{Member, Plan, registered};
use quarta_testnet::netns::Lan;
use std::ffi::OsString;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// How long a transfer that does not notice may stand still; one that asks a lost super-peer would for longer.
const STANDSTILL_MAX: Duration = Duration::from_millis(1500);
/// How long somebody who would join waits at most until told that the invite's issuer is down.
const TOLD_WITHIN: Duration = Duration::from_secs(20);
/// What is sent of a film that takes its time: see [`slowly`].
const FILM: usize = 10 * MIB;

/// How a super-peer is lost, and comes back.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    Frozen,
    CutOff,
}

impl Loss {
    async fn happen(self, network: &mut Network, lan: &Lan, name: &str) {
        match self {
            Self::Killed => network.cluster.kill(name).await.unwrap(),
            Self::Frozen => network.cluster.freeze(name).unwrap(),
            Self::CutOff => lan.cut_off(name).unwrap(),
        }
    }

    fn end(self, network: &mut Network, lan: &Lan, name: &str) {
        match self {
            Self::Killed => network.cluster.restart(name).unwrap(),
            Self::Frozen => network.cluster.thaw(name).unwrap(),
            Self::CutOff => lan.heal().unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_one_of_two_super_peers_is_dead_frozen_or_cut_off() {
    let joiners = ["tarde-0", "outra-0", "tarde-1", "outra-1", "tarde-2", "outra-2"];
    let Some((mut network, lan)) = Network::start_apart(2, 3, SECOND, &joiners, slowly).await else { return };
    let names = network.names();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    for (round, loss) in [Loss::Killed, Loss::Frozen, Loss::CutOff].into_iter().enumerate() {
        let (lost, living) = ([0, 1][round % 2], [1, 0][round % 2]);
        let film = network.share(0, &format!("filme-{round}.bin"), &bytes(round as u64, FILM)).await;
        let small = [
            network.share(1, &format!("um-{round}.csv"), b"1;2;3\n").await,
            network.share(2, &format!("dois-{round}.csv"), b"4;5;6\n").await,
        ];
        agreement(&network, &all).await;
        let invites = [lost, living].map(async |superpeer| {
            let superpeer = network.superpeer(superpeer).superpeer();
            superpeer.invite("node", 1, SECOND * 600).await.unwrap().invite
        });
        let [from_lost, from_living] = join_all(invites).await.try_into().unwrap();
        let transfer = begun(&network, 2, &film).await;

        let name = network.superpeer(lost).name().to_owned();
        loss.happen(&mut network, &lan, &name).await;
        let at_work = join_all((0..3).map(|node| go_on(&network, node, round, &small)));
        let joining = async {
            let [tarde, outra] = [0, 1].map(|joiner| newcomer(&network, &lan, joiners[2 * round + joiner]));
            promptly(&tarde, &["join", "-", "--name", tarde.name()], &from_living).await;
            // To a joiner, one that is cut off is like a frozen one.
            if !matches!(loss, Loss::CutOff) {
                is_told_that_the_issuer_is_down(&outra, &from_lost).await;
            }
        };
        let (_, (), (standstill, transfer)) = join3(at_work, joining, watched(&network, 2, transfer)).await;
        println!("{loss:?}: the transfer stood still for {standstill:?} at most");
        assert!(standstill <= STANDSTILL_MAX, "it noticed: {standstill:?}");
        assert_eq!((senders(&transfer), &transfer.error), (vec![network.node(0).name()], &None));

        loss.end(&mut network, &lan, &name);
        let back = Instant::now();
        for node in network.cluster.nodes() {
            eventually("the node has told both its list again", async || {
                node.node().status().await.is_ok_and(|status| registered(&status) == 2)
            })
            .await;
        }
        let agreed = agreement(&network, &all).await;
        println!("{loss:?}: all agree {:.2} s after it is back", (agreed - back).as_secs_f64());
    }
    network.stop().await;
}

/// The first node sends so little a second that a film is under way for as long as a round needs.
fn slowly(plan: &mut Plan) {
    let node = plan.members.iter_mut().find(|member| member.role == Role::Node).unwrap();
    node.serve_args.extend(["--limit-lan", "--upload-limit", "2MiB"].map(OsString::from));
}

/// Somebody on a host of their own who is no member yet.
fn newcomer(network: &Network, lan: &Lan, name: &str) -> Member {
    let mut plan = outsider(name, Role::Node);
    lan.place_member(&mut plan).unwrap();
    network.cluster.outsider(plan).unwrap()
}

async fn is_told_that_the_issuer_is_down(joiner: &Member, invite: &str) {
    let asked = Instant::now();
    let output = joiner.run(&["join", "-", "--name", joiner.name()], invite).await.unwrap();
    assert_fails(&output, 1, &["the super-peer that issued the invite does not answer"]);
    println!("told that the issuer is down after {:.2} s", asked.elapsed().as_secs_f64());
    assert!(asked.elapsed() <= TOLD_WITHIN, "{:?}", asked.elapsed());
}

/// A branch at work while a super-peer is lost: it lists, shares and fetches as on any other day.
async fn go_on(network: &Network, node: usize, round: usize, small: &[File; 2]) {
    let member = network.node(node);
    let listed = promptly(member, &["ls"], "").await;
    assert!(small.iter().all(|file| listed.contains(&file.name)), "{listed}");
    let path = network.write(&format!("novo-{round}-de-{node}.csv"), b"7;8;9\n");
    promptly(member, &["add", path.to_str().unwrap()], "").await;
    for file in small.iter().filter(|file| file.owner != member.name()) {
        promptly(member, &["get", &file.id], "").await;
    }
}

/// A fetch that is well under way.
async fn begun(network: &Network, node: usize, file: &File) -> Fetch {
    let mut events = network.node(node).node().fetch(&file.id).await.unwrap();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            FetchEvent::Progress(now) if now.done_bytes * 20 >= now.size_bytes => return events,
            FetchEvent::Progress(_) => {}
            other => panic!("it ended early: {other:?}"),
        }
    }
    panic!("its events broke off");
}

/// Follows a fetch to its good end. Gives the longest time in which nothing came, and the transfer.
async fn watched(network: &Network, node: usize, mut events: Fetch) -> (Duration, Transfer) {
    let (mut longest, mut since, mut bytes) = (Duration::ZERO, Instant::now(), 0);
    let api = network.node(node).node();
    while let Some(event) = events.next().await {
        let event = event.unwrap();
        if let FetchEvent::Progress(now) = &event
            && now.done_bytes > bytes
        {
            longest = longest.max(since.elapsed());
            (since, bytes) = (Instant::now(), now.done_bytes);
        }
        if let Some(ended) = api.ended(event) {
            return (longest.max(since.elapsed()), ended.unwrap());
        }
    }
    panic!("its events broke off");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_super_peers_dead_branches_list_share_and_fetch_and_all_catch_up_afterwards() {
    let mut network = Network::start(2, 3, SECOND).await;
    let names = network.names();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let [sp1, sp2, recife, _, belem] = all[..] else { panic!("{all:?}") };
    let of_owner = network.share(0, "do-dono.bin", &bytes(1, MIB)).await;
    let of_reader = network.share(0, "do-leitor.bin", &bytes(2, MIB)).await;
    agreement(&network, &all).await;
    network.fetch(1, &of_reader).await;
    eventually("the reader is listed as a holder", async || {
        let files = network.node(2).node().files("do-leitor").await.unwrap_or_default();
        files.iter().any(|file| file.holders == Some(2))
    })
    .await;

    for superpeer in [sp1, sp2] {
        network.cluster.kill(superpeer).await.unwrap();
    }
    for node in network.cluster.nodes() {
        let listed = promptly(node, &["ls"], "").await;
        assert!(listed.contains(&of_owner.name) && listed.contains(&of_reader.name), "{listed}");
        let listed = node.run(&["ls"], "").await.unwrap();
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        assert!(said.contains("no super-peer"), "that the list may be old: {said}");
    }
    promptly(network.node(2), &["get", &of_owner.name], "").await;
    network.cluster.kill(recife).await.unwrap();
    promptly(network.node(2), &["get", &of_reader.name], "").await;
    let got = network.node(2).node().transfer(&of_reader.id).await.unwrap();
    assert_eq!(senders(&got), [network.node(1).name()], "its owner is gone");
    let meanwhile = network.write("entretanto.csv", b"1;2\n");
    promptly(network.node(1), &["add", meanwhile.to_str().unwrap()], "").await;

    // A node that starts alone says so, lists, and keeps trying.
    network.cluster.kill(belem).await.unwrap();
    network.cluster.restart(belem).unwrap();
    eventually("it says that it is alone", async || {
        network.node(2).node().status().await.is_ok_and(|status| {
            status
                .problems
                .iter()
                .any(|problem| problem.contains("no super-peer is reachable, and this node keeps"))
        })
    })
    .await;
    let listed = promptly(network.node(2), &["ls"], "").await;
    assert!(listed.contains(&of_owner.name), "{listed}");

    for name in [sp1, sp2, recife] {
        network.cluster.restart(name).unwrap();
    }
    let restarted = Instant::now();
    for node in network.cluster.nodes() {
        eventually("it is well by itself and lists what came meanwhile", async || {
            node.node().status().await.is_ok_and(|status| status.healthy && registered(&status) == 2)
                && node.node().files("entretanto").await.is_ok_and(|files| files.len() == 1)
        })
        .await;
    }
    let agreed = agreement(&network, &all).await;
    println!("all caught up {:.2} s after the super-peers' start", (agreed - restarted).as_secs_f64());
    network.stop().await;
}
