//! Files change hands: given, drawn when their owner leaves, orphaned when it is gone without leaving, and assigned.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use crate::support::{MIB, Network, assert_fails, bytes, eventually, state};
use quarta_node::api::model::File;
use quarta_testnet::cluster::Member;

const SECOND: Duration = Duration::from_secs(1);
/// Where a first super-peer has the root key.
const ROOT_KEY: &str = quarta_superpeer::setup::ROOT_KEY_FILE;

/// A file as a node lists it.
async fn listed(node: &Member, id: &str) -> Option<File> {
    node.node().files("").await.ok()?.into_iter().find(|file| file.id == id)
}

/// Waits until a node lists a file as this owner's.
async fn owned(node: &Member, id: &str, owner: &str) -> File {
    eventually(&format!("{} lists {owner} as the owner", node.name()), async || {
        listed(node, id).await.is_some_and(|file| file.owner == owner)
    })
    .await;
    listed(node, id).await.unwrap()
}

/// Shares bytes at a node, and waits until every node lists the file.
async fn share(network: &Network, at: usize, name: &str, content: &[u8]) -> File {
    let file = network.share(at, name, content).await;
    for node in network.cluster.nodes() {
        eventually("the file is listed", async || listed(node, &file.id).await.is_some()).await;
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_given_belongs_to_its_new_owner_for_everybody_and_to_nobody_else() {
    let mut network = Network::start(1, 3, SECOND).await;
    let [giver, taker, third] = [0, 1, 2].map(|index| network.name(index));
    let superpeer = network.superpeer(0).name().to_owned();
    let file = share(&network, 0, "plano.csv", &bytes(1, 2 * MIB)).await;
    // The next owner has given the name to a file of its own.
    let twin = share(&network, 1, "Plano.CSV", b"another").await;

    let refused = async |index: usize, file: &str, to: &str, code: i32, says: &[&str]| {
        assert_fails(&network.node(index).run(&["give", file, to], "").await.unwrap(), code, says);
    };
    refused(0, "ausente.csv", &taker, 5, &["no file is called"]).await;
    refused(0, &file.id, "filial-nenhuma", 5, &["no member is called"]).await;
    refused(0, &file.id, &superpeer, 1, &["is a super-peer, which owns no files"]).await;
    refused(0, &file.id, &giver, 1, &["belongs to this branch already"]).await;
    refused(1, &file.id, &taker, 4, &["belongs to", "only its owner"]).await;
    refused(2, &file.id, &taker, 4, &["belongs to", "only its owner"]).await;

    let said = network.node(0).succeed(&["give", &file.id, &taker], "").await.unwrap();
    assert!(said.contains(&format!("belongs to {taker} now")), "{said}");
    let name = format!("plano ({giver}).csv");
    for node in network.cluster.nodes() {
        let now = owned(node, &file.id, &taker).await;
        assert_eq!((now.name.as_str(), now.sha256.as_ref()), (name.as_str(), file.sha256.as_ref()));
        assert_eq!(listed(node, &twin.id).await.unwrap().name, "Plano.CSV");
    }
    let log = network.superpeer(0).succeed(&["log"], "").await.unwrap();
    assert!(log.lines().any(|line| line.contains("took over") && line.contains(&taker)), "{log}");

    // Asked again it is done already; to anybody else it is not this branch's to give.
    network.node(0).succeed(&["give", &file.id, &taker], "").await.unwrap();
    refused(0, &file.id, &third, 4, &[&format!("belongs to {taker}")]).await;

    // The new owner has all of it, and the copy of the one before is a copy like any.
    network.cluster.kill(&giver).await.unwrap();
    let transfer = network.node(2).node().fetched(&file.id).await.unwrap();
    assert_eq!(transfer.sha256, file.sha256);
    assert_eq!(crate::support::senders(&transfer), [taker.as_str()]);
    network.cluster.restart(&giver).unwrap();
    network.cluster.ready(&giver).await.unwrap();
    let kept = owned(network.node(0), &file.id, &taker).await;
    assert!(kept.path.is_some() && kept.defect.is_none());
    // And it can be given on.
    network.node(1).succeed(&["give", &file.id, &third], "").await.unwrap();
    for node in network.cluster.nodes() {
        owned(node, &file.id, &third).await;
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_and_a_next_owner_that_go_away_half_way_leave_one_owner() {
    let mut network = Network::start_changed(1, 3, SECOND, |plan| {
        for member in plan.members.iter_mut().filter(|member| member.role == quarta_daemon::Role::Node) {
            member.serve_args = ["--limit-lan", "--upload-limit", "8MiB"].map(Into::into).to_vec();
        }
    })
    .await;
    let [giver, taker] = [0, 1].map(|index| network.name(index));
    let file = share(&network, 0, "campanha.mov", &bytes(2, 24 * MIB)).await;
    // Somebody else has it too, so that it can be had once its owner is gone.
    network.fetch(2, &file).await;

    let arguments = ["give", &file.id, &taker];
    let give = network.node(0).run(&arguments, "");
    let meanwhile = eventually("the next owner fetches it", async || {
        let transfers = network.node(1).node().transfers().await;
        transfers.is_ok_and(|all| all.iter().any(|transfer| transfer.done_bytes > 0))
    });
    tokio::select! {
        _ = give => panic!("it is not there yet"),
        _ = meanwhile => {}
    }
    for name in [&giver, &taker] {
        network.cluster.kill(name).await.unwrap();
    }
    assert_eq!(listed(network.node(2), &file.id).await.unwrap().owner, giver, "nobody has signed");
    // The next owner goes on by itself.
    network.cluster.restart(&taker).unwrap();
    let now = owned(network.node(2), &file.id, &taker).await;
    assert_eq!(now.revision, file.revision + 1);
    // And the owner before finds out when it is back, and has its copy.
    network.cluster.restart(&giver).unwrap();
    let kept = owned(network.node(0), &file.id, &taker).await;
    assert!(kept.path.is_some());
    let back = network.node(0).run(&["give", &file.id, &network.name(2)], "").await.unwrap();
    assert_fails(&back, 4, &["only its owner"]);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_hands_its_files_to_holders_and_says_what_nobody_can_have() {
    let network = Network::start(2, 3, SECOND).await;
    let [leaver, holder, other] = [0, 1, 2].map(|index| network.name(index));
    let fetched = share(&network, 0, "fotos/praia.jpg", &bytes(3, MIB)).await;
    let alone = share(&network, 0, "contrato.pdf", &bytes(4, MIB)).await;
    network.fetch(1, &fetched).await;
    eventually("the holder is known", async || {
        listed(network.node(0), &fetched.id).await.is_some_and(|file| file.holders == Some(2))
    })
    .await;

    // Nobody else is there: it stays, and all is as it was.
    for name in [&holder, &other] {
        network.node(if name == &holder { 1 } else { 2 }).succeed(&["disconnect"], "").await.unwrap();
    }
    let says = ["2 files of this branch would have no owner any more", "contrato.pdf", "--abandon"];
    assert_fails(&network.node(0).run(&["leave", "--yes"], "").await.unwrap(), 1, &says);
    assert_eq!(state(network.superpeer(0), &leaver).await.as_deref(), Some("online"));
    assert_eq!(listed(network.node(0), &alone.id).await.unwrap().owner, leaver);

    for index in [1, 2] {
        network.node(index).succeed(&["connect"], "").await.unwrap();
        let name = network.name(index);
        eventually("it is back", async || {
            state(network.superpeer(0), &name).await.as_deref() == Some("online")
                && state(network.superpeer(1), &name).await.as_deref() == Some("online")
        })
        .await;
    }
    let said = network.node(0).succeed(&["leave", "--yes"], "").await.unwrap();
    assert!(said.contains("has left the network for good") && !said.contains("without an owner"), "{said}");
    // The one that was held goes to its holder; the other one was fetched by whoever was drawn.
    for index in [1, 2] {
        owned(network.node(index), &fetched.id, &holder).await;
        let now = listed(network.node(index), &alone.id).await.unwrap();
        assert!([&holder, &other].contains(&&now.owner) && now.sha256 == alone.sha256, "{now:?}");
    }
    let drawn = listed(network.node(1), &alone.id).await.unwrap().owner;
    let at = if drawn == holder { 2 } else { 1 };
    let transfer = network.node(at).node().fetched(&alone.id).await.unwrap();
    assert_eq!(transfer.sha256, alone.sha256);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_leave_at_once_do_not_hand_their_files_to_each_other() {
    let network = Network::start(1, 2, SECOND).await;
    let [first, second] = [0, 1].map(|index| network.name(index));
    let files = [share(&network, 0, "a.txt", b"a").await, share(&network, 1, "b.txt", b"b").await];
    network.fetch(1, &files[0]).await;
    network.fetch(0, &files[1]).await;
    let leave = ["leave", "--yes"];
    let (a, b) = tokio::join!(network.node(0).run(&leave, ""), network.node(1).run(&leave, ""));
    let left: Vec<bool> = [a, b].into_iter().map(|output| output.unwrap().status.success()).collect();
    // Whatever the order: one at most has left, and both files belong to somebody who is there.
    assert!(left.iter().filter(|left| **left).count() <= 1, "{left:?}");
    let stays = usize::from(left[0]);
    let other = 1 - stays;
    for file in &files {
        let now = listed(network.node(stays), &file.id).await.unwrap();
        let gone = [&first, &second].into_iter().zip(&left).find(|(_, left)| **left).map(|(name, _)| name);
        assert_ne!(Some(&now.owner), gone, "{now:?}");
    }
    // Alone, it can only abandon them.
    if !left[other] {
        network.node(other).succeed(&["disconnect"], "").await.unwrap();
        eventually("it is offline", async || {
            state(network.superpeer(0), &network.name(other)).await.as_deref() == Some("offline")
        })
        .await;
    }
    let output = network.node(stays).run(&leave, "").await.unwrap();
    assert_fails(&output, 1, &["of this branch would have no owner any more"]);
    network.node(stays).succeed(&["leave", "--yes", "--abandon"], "").await.unwrap();
    let name = network.name(stays);
    eventually("it has left", async || state(network.superpeer(0), &name).await.as_deref() == Some("left"))
        .await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_owner_is_gone_is_shown_so_can_be_fetched_and_is_assigned_by_the_roots_holder() {
    let network = Network::start(2, 4, SECOND).await;
    let [gone, holder, next] = [0, 1, 2].map(|index| network.name(index));
    let file = share(&network, 0, "campanha/verba.csv", &bytes(5, MIB)).await;
    let other = share(&network, 1, "minha.txt", b"minha").await;
    network.fetch(1, &file).await;
    network.superpeer(0).succeed(&["revoke", &gone], "").await.unwrap();
    for index in [1, 2, 3] {
        eventually("it is shown as orphaned", async || {
            listed(network.node(index), &file.id).await.is_some_and(|file| file.orphaned)
        })
        .await;
        let shown = network.node(index).succeed(&["ls", "verba"], "").await.unwrap();
        assert!(shown.contains(&format!("{gone} (gone)")), "{shown}");
        let shown = network.node(index).succeed(&["info", &file.id], "").await.unwrap();
        assert!(shown.contains("is gone") && shown.contains("quarta-superpeer assign"), "{shown}");
        assert!(!listed(network.node(index), &other.id).await.unwrap().orphaned);
    }
    for superpeer in network.cluster.superpeers() {
        eventually("it is shown as orphaned", async || {
            let files = superpeer.superpeer().files().await;
            files.is_ok_and(|files| files.iter().any(|shown| shown.id == file.id && shown.orphaned))
        })
        .await;
    }
    // Readable all the same; nobody's to give.
    assert_eq!(network.node(3).node().fetched(&file.id).await.unwrap().sha256, file.sha256);
    let given = network.node(1).run(&["give", &file.id, &next], "").await.unwrap();
    assert_fails(&given, 4, &["only its owner", "quarta-superpeer assign"]);

    let assign = async |at: usize, arguments: &[&str], code: i32, says: &[&str]| {
        let arguments = [&["assign"], arguments].concat();
        assert_fails(&network.superpeer(at).run(&arguments, "").await.unwrap(), code, says);
    };
    let key = network.superpeer(0).data().join(ROOT_KEY);
    let kept = network.home.path().join("root.key");
    std::fs::copy(&key, &kept).unwrap();
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o600)).unwrap();
    let kept = kept.to_str().unwrap();
    let foreign = network.node(1).data().join("identity.key");
    let central = network.superpeer(1).name().to_owned();
    assign(1, &[&file.id, &next], 4, &["only the root key", "--root-key"]).await;
    assign(1, &[&file.id, &next, "--root-key", foreign.to_str().unwrap()], 4, &["root key"]).await;
    assign(1, &["ausente.csv", &next, "--root-key", kept], 5, &["no file is called"]).await;
    assign(0, &[&file.id, "filial-nenhuma"], 5, &["no member is called"]).await;
    assign(0, &[&file.id, &central], 1, &["is a super-peer, which owns no files"]).await;
    assign(0, &[&file.id, &gone], 1, &["is a member no more"]).await;
    assign(0, &[&other.id, &next], 1, &[&format!("its owner, {holder}, is a member"), "quarta give"]).await;

    // Where the root key does not lie, and to somebody who does not hold the file yet.
    let arguments = ["assign", &file.id, &next, "--root-key", kept];
    let said = network.superpeer(1).succeed(&arguments, "").await.unwrap();
    assert!(said.contains(&format!("belongs to {next} now")), "{said}");
    for index in [1, 2, 3] {
        let now = owned(network.node(index), &file.id, &next).await;
        assert!(!now.orphaned && now.sha256 == file.sha256);
    }
    // What it owns is its own to give, as any.
    network.node(2).succeed(&["give", &file.id, &holder], "").await.unwrap();
    owned(network.node(3), &file.id, &holder).await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_file_goes_to_its_readers_only_and_stays_hidden_from_whom_it_was() {
    let network = Network::start(1, 4, SECOND).await;
    let [giver, reader, hidden, leaver] = [0, 1, 2, 3].map(|index| network.name(index));
    let path = network.write("salarios.csv", &bytes(6, MIB));
    let path = path.to_str().unwrap();
    let added = network.node(0).succeed(&["--json", "add", path, "--hide-from", &hidden], "").await.unwrap();
    let id =
        serde_json::from_str::<serde_json::Value>(&added).unwrap()["file"]["id"].as_str().unwrap().to_owned();
    let sum = eventually_readable(network.node(1), &id).await;
    assert_fails(
        &network.node(0).run(&["give", &id, &hidden], "").await.unwrap(),
        1,
        &[&format!("{hidden} may not read the file")],
    );
    network.node(0).succeed(&["give", &id, &reader], "").await.unwrap();
    for index in [0, 1, 3] {
        owned(network.node(index), &id, &reader).await;
        assert_eq!(eventually_readable(network.node(index), &id).await, sum);
    }
    // The new owner has the list, and the one before has it no more.
    let listed_now = network.node(1).succeed(&["blacklist", "ls", &id], "").await.unwrap();
    assert!(listed_now.contains(&hidden), "{listed_now}");
    assert_fails(&network.node(0).run(&["blacklist", "ls", &id], "").await.unwrap(), 4, &["belongs to"]);
    assert_eq!(network.node(3).node().fetched(&id).await.unwrap().sha256, Some(sum.clone()));

    // The draw passes over who may not read it, though nobody else holds it.
    network.node(1).succeed(&["give", &id, &leaver], "").await.unwrap();
    owned(network.node(0), &id, &leaver).await;
    network.node(3).succeed(&["leave", "--yes"], "").await.unwrap();
    eventually("a reader owns it", async || {
        listed(network.node(0), &id).await.is_some_and(|file| [&giver, &reader].contains(&&file.owner))
    })
    .await;
    assert_eq!(network.node(0).node().fetched(&id).await.unwrap().sha256, Some(sum));
    assert!(listed(network.node(2), &id).await.is_none(), "hidden all the while");
    assert_fails(&network.node(2).run(&["get", &id], "").await.unwrap(), 5, &["no file is called"]);
    network.stop().await;
}

/// Waits until a node can read a file, and gives its checksum.
async fn eventually_readable(node: &Member, id: &str) -> String {
    eventually("it can be read", async || listed(node, id).await.is_some_and(|file| file.sha256.is_some()))
        .await;
    listed(node, id).await.unwrap().sha256.unwrap()
}
