//! The life of a file, over real processes: its owner updates and deletes it, readers' copies follow, also those that
//! were away, what was replaced or deleted is in the trash, and nobody but the owner changes anything.

use crate::support::http::{Api, encoded};
use crate::support::{MIB, Network, TWO_SECONDS, assert_fails, assert_within, bytes, eventually, names_in};
use futures::future::join_all;
use quarta_node::api::model::{Defect, File, TransferState, TrashEntry, TrashPage};
use quarta_protocols::ids::{ContentId, RecordHash};
use quarta_protocols::messages::index::{Index, Publication, Request, Response};
use quarta_protocols::records::{Body, Link, Record, SignedRecord, State};
use quarta_protocols::signing::Signed;
use quarta_testnet::cluster::Member;
use quarta_testnet::liar::{Liar, Lie};
use quarta_testnet::watch::Seen;
use std::ffi::OsString;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Where a copy of another branch's file lies.
fn copy_of(member: &Member, owner: &str, name: &str) -> PathBuf {
    member.data().join("library").join(owner).join(name)
}

async fn trash(member: &Member) -> Vec<TrashEntry> {
    let page = |page: TrashPage| (page.entries, page.next);
    member.client().get_all("/api/v1/trash", page).await.unwrap()
}

async fn listed(member: &Member, id: &str) -> Option<File> {
    member.node().files("").await.ok()?.into_iter().find(|file| file.id == id)
}

async fn until_it_reads(path: &Path, bytes: &[u8]) -> Instant {
    let what = format!("{} is what it should be", path.display());
    eventually(&what, async || fs::read(path).is_ok_and(|found| found == bytes)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_follow_updates_and_deletions_also_those_that_were_away() {
    let mut network = Network::start(2, 3, SECOND).await;
    let [first, second, third] = [1, 2, 3].map(|seed| bytes(seed, 700_000));
    let plan = network.share(0, "plano.csv", &first).await;
    let kept = network.share(0, "ficha.csv", b"it stays").await;
    for reader in [1, 2] {
        network.fetch(reader, &plan).await;
        network.fetch(reader, &kept).await;
    }
    let (owner, away) = (network.name(0), network.name(2));
    assert!(network.cluster.end(&away).await.unwrap());

    // An update, by the command line.
    let newer = network.write("newer", &second);
    let node = network.node(0);
    let said = node.succeed(&["update", "plano.csv", newer.to_str().unwrap()], "").await.unwrap();
    assert!(said.contains("revision 2"), "{said}");
    let at_reader = copy_of(network.node(1), &owner, "plano.csv");
    let since = Instant::now();
    let when = until_it_reads(&at_reader, &second).await;
    println!("a reader had the new version after {:.2} s", when.duration_since(since).as_secs_f64());
    assert_eq!(fs::read(node.data().join("library/plano.csv")).unwrap(), second);
    for (member, path) in [(node, "plano.csv".to_owned()), (network.node(1), format!("{owner}/plano.csv"))] {
        let trashed = trash(member).await;
        assert_eq!(trashed.len(), 1, "{trashed:?}");
        assert_eq!((trashed[0].reason.as_str(), trashed[0].revision), ("replaced", 1));
        assert_eq!(trashed[0].path, path);
        assert_eq!(trashed[0].sha256, plan.sha256);
        assert_eq!(trashed[0].until_ms - trashed[0].since_ms, 30 * 24 * 60 * 60 * 1000);
    }
    // The same bytes again are no new revision.
    let said = node.succeed(&["update", "plano.csv", newer.to_str().unwrap()], "").await.unwrap();
    assert!(said.contains("revision 2"), "{said}");
    assert_eq!(listed(node, &plan.id).await.unwrap().revision, 2);

    // The one that was away follows when it is back; the new version comes from whoever holds it.
    network.cluster.restart(&away).unwrap();
    network.cluster.ready(&away).await.unwrap();
    until_it_reads(&copy_of(network.node(2), &owner, "plano.csv"), &second).await;
    assert_eq!(fs::read(copy_of(network.node(2), &owner, "ficha.csv")).unwrap(), b"it stays");

    // Once more, over HTTP, and what is restored of it is the old version.
    let api = Api::of(network.node(0));
    let put = api.ask(&format!("PUT /api/v1/files/{}", plan.id), &[], &third).await;
    assert_eq!((put.status, put.json()["revision"].as_u64()), (200, Some(3)));
    until_it_reads(&at_reader, &third).await;
    let newest = trash(network.node(1)).await.remove(0);
    let restored = network.home.path().join("restored.csv");
    let number = newest.number.to_string();
    let restore = ["trash", "restore", &number, "-o", restored.to_str().unwrap()];
    network.node(1).succeed(&restore, "").await.unwrap();
    assert_eq!(fs::read(&restored).unwrap(), second);
    assert_eq!(trash(network.node(1)).await.len(), 1, "one was restored, one is left");
    let again = network.node(1).run(&restore, "").await.unwrap();
    assert_fails(&again, 5, &["trash", "quarta trash ls"]);

    // A deletion is gone from every list at once, and from the one that was away when it is back.
    assert!(network.cluster.end(&away).await.unwrap());
    let since = Instant::now();
    network.node(0).succeed(&["rm", "plano.csv"], "").await.unwrap();
    for member in [network.node(0), network.node(1)] {
        let when = eventually("it is not listed", async || listed(member, &plan.id).await.is_none()).await;
        let seen: Seen = (member.name().to_owned(), Ok(when));
        assert_within(TWO_SECONDS, since, seen, "a deleted file is not listed");
        let info = member.run(&["info", &plan.id], "").await.unwrap();
        assert_fails(&info, 5, &["no file is called"]);
    }
    eventually("the reader's copy is gone", async || !at_reader.exists()).await;
    assert!(!network.node(0).data().join("library/plano.csv").exists());
    assert!(at_reader.with_file_name("ficha.csv").exists());
    network.cluster.restart(&away).unwrap();
    network.cluster.ready(&away).await.unwrap();
    let at_away = copy_of(network.node(2), &owner, "plano.csv");
    eventually("the copy of the one that was away is gone", async || !at_away.exists()).await;
    assert!(listed(network.node(2), &plan.id).await.is_none());
    let deleted = trash(network.node(2)).await.remove(0);
    assert_eq!((deleted.reason.as_str(), deleted.revision, deleted.own), ("deleted", 3, false));

    // Restored it lies where it lay, and is shared with nobody; emptied it is gone.
    let said = network.node(2).succeed(&["trash", "restore", &deleted.number.to_string()], "").await.unwrap();
    assert!(said.contains(at_away.to_str().unwrap()), "{said}");
    assert_eq!(fs::read(&at_away).unwrap(), third);
    assert!(listed(network.node(2), &plan.id).await.is_none());
    let said = network.node(1).succeed(&["trash", "empty"], "").await.unwrap();
    assert!(said.contains("2 files"), "{said}");
    assert_eq!(names_in(&network.node(1).data().join("trash")), [] as [&str; 0]);

    // A name is free again, for a new file with a new id.
    let anew = network.share(0, "plano.csv", &first).await;
    assert_ne!(anew.id, plan.id);
    eventually("the new one is listed", async || listed(network.node(1), &anew.id).await.is_some()).await;
    network.fetch(1, &anew).await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_during_an_update_ends_with_one_whole_version_and_says_which() {
    let network = Network::start_changed(1, 2, SECOND, |plan| {
        plan.members[1].serve_args.extend(["--limit-lan", "--upload-limit", "4MiB"].map(OsString::from));
    })
    .await;
    let (old, new) = (bytes(1, 12 * MIB), bytes(2, 6 * MIB));
    let file = network.share(0, "filme.bin", &old).await;
    let reader = network.node(1).node();
    let watched = tokio::spawn({
        let (reader, id) = (reader.clone(), file.id.clone());
        async move { reader.fetched(&id).await }
    });
    eventually("some of it has arrived", async || {
        reader.transfers().await.is_ok_and(|all| all.iter().any(|one| one.done_bytes > 2 * MIB as u64))
    })
    .await;
    let newer = network.write("newer", &new);
    network.node(0).succeed(&["update", "filme.bin", newer.to_str().unwrap()], "").await.unwrap();
    let ended = watched.await.unwrap().unwrap();
    assert_eq!((ended.state, ended.revision), (TransferState::Completed, Some(2)));
    assert!(ended.notice.as_deref().unwrap().contains("revision 2"), "{:?}", ended.notice);
    assert_eq!(fs::read(ended.path.as_deref().unwrap()).unwrap(), new);
    assert_eq!(reader.transfers().await.unwrap().len(), 1, "it went on under its number");
    assert_eq!(names_in(&network.node(1).data().join("partial")), [] as [&str; 0]);

    // Two updates at once are two revisions, and everybody ends with the later one.
    let [one, other] = [3, 4].map(|seed| bytes(seed, 300_000));
    let api = Api::of(network.node(0));
    let put = format!("PUT /api/v1/files/{}", file.id);
    let answers = join_all([&one, &other].map(|body| api.ask(&put, &[], body))).await;
    let mut revisions: Vec<(u64, &Vec<u8>)> = answers
        .iter()
        .zip([&one, &other])
        .map(|(answer, body)| (answer.json()["revision"].as_u64().unwrap(), body))
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions.iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), [3, 4]);
    let last = revisions[1].1;
    assert_eq!(&fs::read(network.node(0).data().join("library/filme.bin")).unwrap(), last);
    until_it_reads(Path::new(ended.path.as_deref().unwrap()), last).await;

    // A deletion ends a fetch, and nothing of it stays.
    let large = network.share(0, "outro.bin", &old).await;
    let watched = tokio::spawn({
        let (reader, id) = (reader.clone(), large.id.clone());
        async move { reader.fetched(&id).await }
    });
    eventually("some of it has arrived", async || {
        reader
            .transfers()
            .await
            .is_ok_and(|all| all.iter().any(|one| one.name == "outro.bin" && one.done_bytes > 0))
    })
    .await;
    network.node(0).succeed(&["rm", "outro.bin"], "").await.unwrap();
    let refused = watched.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("its owner has deleted the file"), "{refused}");
    eventually("nothing of it is left", async || {
        names_in(&network.node(1).data().join("partial")).is_empty()
    })
    .await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_its_owner_changes_a_file_by_any_way() {
    let network = Network::start(1, 2, SECOND).await;
    let file = network.share(0, "contrato.pdf", b"as agreed").await;
    network.fetch(1, &file).await;
    let (owner, other) = (network.name(0), network.node(1));
    let forged = network.write("forged", b"as wished");

    // By the command line and over HTTP of another branch.
    for command in [&["update", &file.id, forged.to_str().unwrap()][..], &["rm", &file.id]] {
        let output = other.run(command, "").await.unwrap();
        assert_fails(&output, 4, &[&owner, "only its owner", "hand the file over"]);
    }
    let api = Api::of(other);
    for (line, body) in [("PUT", &b"as wished"[..]), ("DELETE", b"")] {
        let answer = api.ask(&format!("{line} /api/v1/files/{}", encoded(&file.id)), &[], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "not-owner"));
    }
    let adopted = api.ask(&format!("POST /api/v1/files/{}/adopt", file.id), &[], b"").await;
    assert_eq!((adopted.status, adopted.code().as_str()), (403, "not-owner"));
    // Not even one's own machine changes what is unknown or deleted.
    let output = network.node(0).run(&["rm", "nada.pdf"], "").await.unwrap();
    assert_fails(&output, 5, &["nada.pdf"]);

    // By records made by hand: the owner's under another signature, and a hand-over that the owner did not sign.
    let invite = network.superpeer(0).superpeer().invite("node", 1, Duration::from_hours(1)).await.unwrap();
    let liar = Liar::join(Lie::NotHeld, &network.home.path().join("liar"), &invite.invite).await.unwrap();
    let request = Request::Resolve { reference: file.id.clone() };
    let genuine = match liar.network().call::<Index>(liar.superpeer(), request).await.unwrap() {
        Response::Files { files, .. } => files[0].record.clone(),
        other => panic!("{other:?}"),
    };
    let trust = &liar.identity().trust;
    let genuine = Record::verify(genuine, trust).unwrap();
    let (net, key) = (&trust.network, &liar.identity().keys.identity);
    let body = |change: &dyn Fn(&mut Body)| {
        let mut body = Body { revision: 2, ..genuine.body().clone() };
        change(&mut body);
        body
    };
    let deleted = body(&|body| body.state = State::Deleted);
    let changed = body(&|body| {
        if let State::Present(entry) = &mut body.state {
            entry.content = ContentId::from_bytes([7; 32]);
            entry.manifest = None;
        }
    });
    let stolen = body(&|body| {
        let link = Link {
            file: body.file,
            place: 0,
            from: genuine.owner(),
            to: key.public().to_peer_id(),
            previous: None,
            by_root: false,
            candidates: Vec::new(),
        };
        body.links.push(Signed::new(&link, net, key));
    });
    let mut by_root = stolen.clone();
    let mut link = by_root.links[0].peek().unwrap();
    link.by_root = true;
    by_root.links = vec![Signed::new(&link, net, key)];
    let records: Vec<SignedRecord> =
        [deleted, changed, stolen, by_root].iter().map(|body| SignedRecord::new(body, net, key)).collect();
    let hashes: Vec<RecordHash> = records.iter().map(|record| RecordHash::of(record.body())).collect();
    let sent = records.len();
    match liar.network().call::<Index>(liar.superpeer(), Request::Publish(records)).await.unwrap() {
        Response::Published(outcomes) => {
            assert_eq!(outcomes.len(), sent);
            for outcome in &outcomes {
                assert!(matches!(outcome, Publication::Invalid(_)), "{outcome:?}");
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(!hashes.contains(&genuine.hash()));

    // Nothing has changed anywhere: the owner's next word is the second revision.
    for member in [network.node(0), other] {
        let now = listed(member, &file.id).await.unwrap();
        assert_eq!((now.revision, &now.content), (1, &file.content));
    }
    assert_eq!(fs::read(copy_of(other, &owner, "contrato.pdf")).unwrap(), b"as agreed");
    let amended = network.write("amended", b"as amended");
    let said =
        network.node(0).succeed(&["update", "contrato.pdf", amended.to_str().unwrap()], "").await.unwrap();
    assert!(said.contains("revision 2"), "{said}");
    until_it_reads(&copy_of(other, &owner, "contrato.pdf"), b"as amended").await;
    drop(liar);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_changes_and_what_a_disk_loses_is_noticed_and_made_good() {
    let mut network = Network::start(1, 2, SECOND).await;
    let (first, edited) = (bytes(1, 700_000), bytes(2, 500_000));
    let plan = network.share(0, "plano.csv", &first).await;
    let card = network.share(0, "ficha.bin", &bytes(3, 900_000)).await;
    for file in [&plan, &card] {
        network.fetch(1, file).await;
    }
    let (owner, reader) = (network.name(0), network.name(1));

    // The owner edits its file where it lies: it is noticed, offered to nobody, and one command shares it.
    let own = network.node(0).data().join("library/plano.csv");
    fs::write(&own, &edited).unwrap();
    eventually("the owner's edit is noticed", async || {
        listed(network.node(0), &plan.id).await.is_some_and(|file| file.defect == Some(Defect::Changed))
    })
    .await;
    let status = network.node(0).node().status().await.unwrap();
    assert!(status.problems.iter().any(|why| why.contains("quarta update")), "{:?}", status.problems);
    let held = network.superpeer(0).superpeer().held(&owner).await.unwrap();
    assert!(held.iter().all(|entry| entry.name.as_deref() != Some("plano.csv")), "{held:?}");
    let said = network.node(0).succeed(&["update", "plano.csv"], "").await.unwrap();
    assert!(said.contains("revision 2"), "{said}");
    let copy = copy_of(network.node(1), &owner, "plano.csv");
    until_it_reads(&copy, &edited).await;
    eventually("the owner is well again", async || {
        network.node(0).node().status().await.is_ok_and(|status| status.healthy)
    })
    .await;

    // A reader's edit stays with the reader, and is no source.
    let card_copy = copy_of(network.node(1), &owner, "ficha.bin");
    fs::write(&card_copy, b"my own notes").unwrap();
    eventually("the reader's edit is noticed", async || {
        let held = network.superpeer(0).superpeer().held(&reader).await;
        held.is_ok_and(|held| held.iter().all(|entry| entry.name.as_deref() != Some("ficha.bin")))
    })
    .await;

    // A byte that the disk flips, with the file's date as it was, is found by reading and fetched from others.
    assert!(network.cluster.end(&reader).await.unwrap());
    set(network.node(1), "library_scrub_every_seconds", "0");
    let mut flipped = fs::OpenOptions::new().write(true).open(&copy).unwrap();
    let date = flipped.metadata().unwrap().modified().unwrap();
    flipped.seek(SeekFrom::Start(400_000)).unwrap();
    flipped.write_all(&[edited[400_000] ^ 1]).unwrap();
    flipped.set_modified(date).unwrap();
    drop(flipped);
    assert_ne!(fs::read(&copy).unwrap(), edited);
    network.cluster.restart(&reader).unwrap();
    network.cluster.ready(&reader).await.unwrap();
    until_it_reads(&copy, &edited).await;
    eventually("the damaged copy is in the trash", async || {
        trash(network.node(1)).await.iter().any(|entry| entry.reason == "damaged")
    })
    .await;
    assert_eq!(fs::read(&card_copy).unwrap(), b"my own notes", "what a person wrote stays");
    network.stop().await;
}

/// Changes a setting of a member that does not run.
fn set(member: &Member, key: &str, value: &str) {
    let path = member.data().join("settings.toml");
    let before = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = before.lines().filter(|line| !line.starts_with(key)).collect();
    let line = format!("{key} = {value}");
    // Before any table.
    lines.insert(0, &line);
    fs::write(&path, lines.join("\n")).unwrap();
}
