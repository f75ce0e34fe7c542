//! The vault: a node keeps what a super-peer assigns to it, sealed; serves it when the owner is gone; finds and repairs
//! what has gone bad on its disk; and lets go of it at a word.

use crate::support::canaries::Canaries;
use crate::support::{MIB, Network, bytes, eventually, names_in, senders};
use quarta_node::api::model::{File, Keeps, Replication};
use quarta_protocols::ids::ContentId;
use quarta_protocols::messages::vault::{Assignment, DropReason, Outcome};
use quarta_testnet::cluster::Member;
use quarta_testnet::exposition::Exposition;
use quarta_testnet::planner::Planner;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const POLL: Duration = Duration::from_secs(1);
/// Nodes by what they do here.
const OWNER: usize = 0;
const KEEPER: usize = 1;
const SMALL: usize = 2;
const READER: usize = 3;
/// A text that occurs in the file and nowhere else.
const CANARY: &str = "campanha confidencial do outono, nao mostrar a ninguem";

async fn planner(network: &Network) -> Planner {
    let invite =
        network.superpeer(0).superpeer().invite("superpeer", 1, Duration::from_hours(1)).await.unwrap();
    Planner::join("planejador", &network.home.path().join("planner"), &invite.invite).await.unwrap()
}

fn content(file: &File) -> ContentId {
    file.content.parse().unwrap()
}

fn keep(file: &File) -> Assignment {
    Assignment::Keep { content: content(file), size_bytes: file.size_bytes }
}

fn sealed(member: &Member, file: &File) -> PathBuf {
    member.data().join("vault").join(format!("{}.sealed", file.content))
}

/// Waits until the super-peer has heard that a node keeps a file, or keeps it no longer.
async fn listed(network: &Network, node: usize, file: &File, kept: bool) {
    let name = network.name(node);
    eventually(&format!("{name} keeps {}: {kept}", file.name), async || {
        let held = network.superpeer(0).superpeer().held(&name).await.unwrap_or_default();
        held.iter().any(|held| held.kind == "vault" && held.content == file.content && held.complete) == kept
    })
    .await;
}

async fn metric(member: &Member, name: &str) -> f64 {
    let text = member.scrape("/metrics").await.unwrap();
    Exposition::parse(&text).unwrap().family(name).map(|sample| sample.value).sum()
}

/// Changes a number in a stopped node's settings.
fn set(member: &Member, key: &str, value: u64) {
    let path = member.data().join("settings.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let begins = format!("{key} = ");
    assert!(text.lines().any(|line| line.starts_with(&begins)), "{text}");
    let changed = text.lines().map(|line| {
        if line.starts_with(&begins) { format!("{begins}{value}\n") } else { format!("{line}\n") }
    });
    std::fs::write(path, changed.collect::<String>()).unwrap();
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_assigned_is_kept_sealed_outlives_its_owner_and_is_gone_at_a_word() {
    let mut network = Network::start_changed(1, 4, POLL, |plan| {
        plan.members[1 + SMALL].serve_args.extend(["--vault-quota", "4MiB"].map(OsString::from));
    })
    .await;
    let planner = planner(&network).await;
    let mut plain = bytes(7, 3 * MIB + 17);
    plain[MIB..MIB + CANARY.len()].copy_from_slice(CANARY.as_bytes());
    let file = network.share(OWNER, "campanha-canario.bin", &plain).await;
    let other = network.share(OWNER, "outro.bin", &bytes(8, 2 * MIB)).await;

    let nobody = Assignment::Keep { content: ContentId::from_bytes([9; 32]), size_bytes: u64::MAX };
    let small = vec![keep(&file), keep(&file), keep(&other), nobody];
    let answered = planner.assign(network.node(SMALL), small).await.unwrap();
    assert_eq!(answered, [Outcome::Accepted, Outcome::Accepted, Outcome::NoRoom, Outcome::NoRoom]);
    let both = vec![keep(&file), keep(&other)];
    assert_eq!(planner.assign(network.node(KEEPER), both).await.unwrap(), [Outcome::Accepted; 2]);
    for node in [KEEPER, SMALL] {
        listed(&network, node, &file, true).await;
    }
    listed(&network, KEEPER, &other, true).await;
    let status = network.node(SMALL).node().status().await.unwrap();
    assert_eq!((status.files, status.vault.replicas, status.vault.quota_bytes), (0, 1, Some(4 << 20)));
    assert!(status.vault.bytes > plain.len() as u64 && status.vault.bytes < 4 << 20, "{status:?}");

    let shown = network.node(READER).succeed(&["info", &file.id, "--json"], "").await.unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let replication: Replication = serde_json::from_value(shown["replication"].clone()).unwrap();
    let held: Vec<_> =
        replication.holders.iter().map(|it| (it.name.clone(), it.keeps, it.complete)).collect();
    let mut expected = vec![
        (network.name(OWNER), Keeps::Library, true),
        (network.name(KEEPER), Keeps::Vault, true),
        (network.name(SMALL), Keeps::Vault, true),
    ];
    expected.sort();
    assert_eq!(held, expected, "in name order");
    assert_eq!(
        (replication.copies, replication.at_target, &shown["name"]),
        (3, true, &file.name.clone().into())
    );
    let told = network.node(READER).succeed(&["info", &file.id], "").await.unwrap();
    assert!(told.contains("3 whole, 1 wanted") && told.contains("(vault, online)"), "{told}");

    // Nothing of the file's text or name is in a vault; both are at the owner.
    let mut canaries = Canaries::default();
    canaries.bytes("text", CANARY.as_bytes());
    canaries.text("name", "campanha-canario");
    canaries.bytes("beginning", &plain[..32]);
    let mut at_owner = canaries.search();
    at_owner.folder(network.node(OWNER).data());
    for what in ["text, raw", "beginning, raw", "name"] {
        assert!(at_owner.found.iter().any(|line| line.starts_with(what)), "{what}: {:?}", at_owner.found);
    }
    for node in [KEEPER, SMALL] {
        let mut search = canaries.search();
        search.folder(&network.node(node).data().join("vault"));
        assert!(search.searched_bytes > plain.len() as u64);
        assert_eq!(search.found, [] as [&str; 0]);
    }
    let replica = |node: usize| std::fs::read(sealed(network.node(node), &file)).unwrap();
    assert_eq!(replica(KEEPER), replica(SMALL), "all holders have the same bytes");

    let owner = network.name(OWNER);
    network.cluster.kill(&owner).await.unwrap();
    let transfer = network.fetch(READER, &file).await;
    let keepers = [network.name(KEEPER), network.name(SMALL)];
    assert!(
        senders(&transfer).iter().all(|name| keepers.iter().any(|keeper| keeper == name)),
        "{transfer:?}"
    );

    // A copy in the library counts as well, and no second one is made of it.
    let asked = vec![content(&file), ContentId::from_bytes([9; 32])];
    for node in [KEEPER, SMALL, READER] {
        assert_eq!(planner.confirm(network.node(node), asked.clone()).await.unwrap(), [true, false]);
    }
    assert_eq!(planner.assign(network.node(READER), vec![keep(&file)]).await.unwrap(), [Outcome::Accepted]);
    assert_eq!(network.node(READER).node().status().await.unwrap().vault.wanted, 0);

    let keeper = network.name(KEEPER);
    assert!(network.cluster.end(&keeper).await.unwrap());
    network.cluster.restart(&keeper).unwrap();
    network.cluster.ready(&keeper).await.unwrap();
    let node = network.node(KEEPER);
    assert_eq!(planner.confirm(node, vec![content(&file), content(&other)]).await.unwrap(), [true, true]);
    listed(&network, KEEPER, &file, true).await;
    // Silent at first: what was withdrawn meanwhile is not to slip out.
    let serves = async || planner.chunk(node, content(&file), 0).await.unwrap().is_some();
    eventually("the restarted keeper serves again", serves).await;

    // Its own people need nobody else for what lies in its vault.
    for other in [SMALL, READER] {
        network.cluster.freeze(&network.name(other)).unwrap();
    }
    let transfer = network.fetch(KEEPER, &file).await;
    assert_eq!(senders(&transfer), [keeper.as_str()]);
    let carried = transfer.sources.iter().find(|source| source.bytes > 0).unwrap().transport.as_deref();
    assert_eq!(carried, Some("local"));
    for other in [SMALL, READER] {
        network.cluster.thaw(&network.name(other)).unwrap();
    }

    let drop = |file: &File| Assignment::Drop { content: content(file), reason: DropReason::Withdrawn };
    assert_eq!(planner.assign(node, vec![drop(&other)]).await.unwrap(), [Outcome::Accepted]);
    let after = planner.chunk(node, content(&other), 0).await.unwrap();
    assert_eq!(after, None, "served to nobody from that moment");
    assert_eq!(planner.confirm(node, vec![content(&other)]).await.unwrap(), [false]);
    let left = names_in(&node.data().join("vault"));
    assert!(!left.iter().any(|name| name.starts_with(&other.content)), "{left:?}");
    listed(&network, KEEPER, &other, false).await;
    listed(&network, KEEPER, &file, true).await;
    // A copy in the library is not concerned.
    assert_eq!(planner.assign(node, vec![drop(&file)]).await.unwrap(), [Outcome::Accepted]);
    assert_eq!(planner.confirm(node, vec![content(&file)]).await.unwrap(), [true]);
    assert_eq!(node.node().status().await.unwrap().vault.replicas, 0);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_goes_bad_is_never_served_and_is_repaired_from_others() {
    let mut network = Network::start(1, 3, POLL).await;
    let planner = planner(&network).await;
    let file = network.share(OWNER, "arquivo.bin", &bytes(11, 2 * MIB)).await;
    for node in [KEEPER, SMALL] {
        assert_eq!(planner.assign(network.node(node), vec![keep(&file)]).await.unwrap(), [Outcome::Accepted]);
        listed(&network, node, &file, true).await;
    }
    let sound = std::fs::read(sealed(network.node(KEEPER), &file)).unwrap();
    let repaired = async |node: usize, what: &str| {
        eventually(what, async || {
            std::fs::read(sealed(network.node(node), &file)).is_ok_and(|now| now == sound)
        })
        .await;
        listed(&network, node, &file, true).await;
    };

    // Somebody asks for the chunk.
    let node = network.node(KEEPER);
    let asked_before = metric(node, "quarta_node_vault_fetched_bytes_total").await;
    flip(&sealed(node, &file), 300_000);
    assert!(planner.chunk(node, content(&file), 0).await.unwrap().is_some(), "the others are sound");
    assert_eq!(planner.chunk(node, content(&file), 1).await.unwrap(), None);
    repaired(KEEPER, "the flipped byte is repaired").await;
    let fetched = metric(node, "quarta_node_vault_fetched_bytes_total").await - asked_before;
    println!("repaired by fetching {fetched} bytes");
    assert!(fetched <= 262_144.0, "only the damaged chunk is fetched: {fetched}");

    // A planner asks whether it is there.
    std::fs::remove_file(sealed(network.node(SMALL), &file)).unwrap();
    assert_eq!(planner.confirm(network.node(SMALL), vec![content(&file)]).await.unwrap(), [false]);
    repaired(SMALL, "the deleted replica is back").await;

    // Nobody asks: the check of the vault comes by.
    let keeper = network.name(KEEPER);
    assert!(network.cluster.end(&keeper).await.unwrap());
    set(network.node(KEEPER), "vault_scrub_every_seconds", 1);
    flip(&sealed(network.node(KEEPER), &file), sound.len() - 1);
    network.cluster.restart(&keeper).unwrap();
    network.cluster.ready(&keeper).await.unwrap();
    let repaired = async || std::fs::read(sealed(network.node(KEEPER), &file)).is_ok_and(|now| now == sound);
    eventually("the check finds and repairs it", repaired).await;
    assert!(metric(network.node(KEEPER), "quarta_node_vault_damaged_total").await >= 1.0);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_half_way_goes_on_by_itself() {
    let large = 48 * MIB;
    let mut network = Network::start_changed(1, 2, POLL, |plan| {
        plan.members[1 + OWNER]
            .serve_args
            .extend(["--limit-lan", "--upload-limit", "16MiB"].map(OsString::from));
    })
    .await;
    let planner = planner(&network).await;
    let file = network.share(OWNER, "grande.bin", &bytes(21, large)).await;
    assert_eq!(planner.assign(network.node(KEEPER), vec![keep(&file)]).await.unwrap(), [Outcome::Accepted]);
    let part = network.node(KEEPER).data().join("vault").join(format!("{}.part", file.content));
    eventually("some of it is there", async || {
        let fetched = metric(network.node(OWNER), "quarta_node_served_bytes_total").await;
        part.exists() && fetched > (large / 4) as f64
    })
    .await;
    let keeper = network.name(KEEPER);
    network.cluster.kill(&keeper).await.unwrap();
    assert!(!sealed(network.node(KEEPER), &file).exists());
    network.cluster.restart(&keeper).unwrap();
    network.cluster.ready(&keeper).await.unwrap();
    listed(&network, KEEPER, &file, true).await;
    let again = metric(network.node(KEEPER), "quarta_node_vault_fetched_bytes_total").await;
    println!("after the restart {again} of {large} bytes were fetched");
    assert!(again < (large - large / 8) as f64, "what had arrived was of use: {again}");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_not_kept_waiting_by_replicas_that_are_fetched_beside_them() {
    let (kept, wanted) = (96 * MIB, 32 * MIB);
    let mut network = Network::start_changed(1, 2, POLL, |plan| {
        plan.members[1 + OWNER]
            .serve_args
            .extend(["--limit-lan", "--upload-limit", "16MiB"].map(OsString::from));
    })
    .await;
    let planner = planner(&network).await;
    let keeper = network.name(KEEPER);
    assert!(network.cluster.end(&keeper).await.unwrap());
    set(network.node(KEEPER), "vault_fetch_bytes_per_second", 16 << 20);
    network.cluster.restart(&keeper).unwrap();
    network.cluster.ready(&keeper).await.unwrap();
    let replica = network.share(OWNER, "acervo.bin", &bytes(31, kept)).await;
    let person = network.share(OWNER, "urgente.bin", &bytes(32, wanted)).await;
    planner.assign(network.node(KEEPER), vec![keep(&replica)]).await.unwrap();
    let served = async || metric(network.node(OWNER), "quarta_node_served_bytes_total").await;
    eventually("the replica is on its way", async || served().await > (4 * MIB) as f64).await;
    let before = served().await;
    network.fetch(KEEPER, &person).await;
    let beside = served().await - before - wanted as f64;
    println!("while {wanted} bytes were fetched for a person, {beside} were for the vault");
    // Side by side each would have as much as the other. A run that had begun, and the first one after, are not small.
    assert!(beside < (wanted / 3 * 2) as f64, "the replica had {beside} bytes of the line");
    assert!(served().await < kept as f64, "the replica was under way all the time");
    network.stop().await;
}
