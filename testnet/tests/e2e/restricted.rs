//! Files that not everybody may see: hidden at once and from all sides, opened by their readers and by nobody else.

use crate::support::http::Api;
use crate::support::{MIB, Network, TWO_SECONDS, assert_fails, bytes, eventually, outsider};
use bytes::Bytes;
use libp2p::PeerId;
use quarta_daemon::Role;
use quarta_daemon::data_dir::{DataDir, Role as DataRole};
use quarta_daemon::identity::Identity;
use quarta_daemon::reach::enrolment;
use quarta_node::api::model::{Blacklist, File};
use quarta_node::database::{Database, FILE_NAME};
use quarta_protocols::content::{ContentKey, MANIFEST_MAX_BYTES, Manifest, SEALED_CHUNK_MAX_BYTES};
use quarta_protocols::credentials;
use quarta_protocols::ids::{ContentId, FileId};
use quarta_protocols::messages::changes::{Change, Changes, Request as Follow, Response as Followed};
use quarta_protocols::messages::chunk::{Head, Purpose, Refusal, Request as ChunkRequest};
use quarta_protocols::messages::index::{Index, Request, Response};
use quarta_protocols::messages::sync::Kind;
use quarta_protocols::network::{AddressPolicy, Config, Network as Overlay};
use quarta_protocols::records::{Access, Record};
use quarta_testnet::cluster::Member;
use std::cell::Cell;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_secs(15);

/// The file as a node shows it; none where to this node there is no such file.
async fn seen(member: &Member, file: &FileId) -> Option<File> {
    let files = member.node().files("").await.unwrap();
    files.into_iter().find(|listed| listed.id == file.to_string())
}

/// What a node prints with `--json`.
async fn told<T: serde::de::DeserializeOwned>(member: &Member, args: &[&str]) -> T {
    let args = [&["--json"], args].concat();
    let printed = member.succeed(&args, "").await.unwrap_or_else(|error| panic!("{args:?}: {error}"));
    serde_json::from_str(printed.trim()).unwrap()
}

/// Shares a file with these options.
async fn added(owner: &Member, path: &std::path::Path, options: &[&str]) -> File {
    let args = [&["--json", "add", path.to_str().unwrap()], options].concat();
    let printed = owner.succeed(&args, "").await.unwrap();
    let line: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    serde_json::from_value(line["file"].clone()).unwrap()
}

/// Everything that a node's API says, in one text.
async fn all_that_is_said(member: &Member) -> String {
    let api = Api::of(member);
    let mut said = String::new();
    for path in
        ["/api/v1/files", "/api/v1/transfers", "/api/v1/status", "/api/v1/members", "/api/v1/files/blacklist"]
    {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        said += &String::from_utf8_lossy(&answer.body);
    }
    said
}

/// A member that keeps to no rule: it has a node's keys and its memory, and asks whom it likes what it likes.
struct Raw {
    network: Overlay,
    trust: credentials::Trust,
}

impl Raw {
    /// In place of a node, whose daemon has ended.
    async fn in_place_of(node: &Member, others: &[&Member]) -> Self {
        let data = DataDir::open(node.data(), DataRole::Node).unwrap();
        let identity = Identity::load(&data).unwrap();
        let trust = identity.trust.clone();
        let config = Config {
            addresses: AddressPolicy::ONE_MACHINE,
            enrolment: Some(enrolment(&identity)),
            ..Config::new(identity.keys.identity.clone(), trust.clone(), credentials::Role::Node, "raw")
        };
        let (network, mut events) = Overlay::start(config).unwrap();
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        for other in others {
            let address = format!("/ip4/127.0.0.1/tcp/{}", other.peer_port()).parse().unwrap();
            network.connect(peer_id(other).await, vec![address]).await.unwrap();
        }
        Self { network, trust }
    }

    async fn ask(&self, holder: PeerId, request: ChunkRequest) -> Result<Vec<Bytes>, Refusal> {
        let most = MANIFEST_MAX_BYTES.max(SEALED_CHUNK_MAX_BYTES);
        let mut incoming = self.network.fetch(holder, request, most).await.unwrap();
        if let Head::Refused(refusal) = incoming.head {
            return Err(refusal);
        }
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = incoming.body.next().await {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Files, audiences and wraps that a super-peer's feed gives from its beginning.
    async fn feed(&self, superpeer: PeerId) -> Vec<(Kind, [u8; 32])> {
        let (mut all, mut since) = (Vec::new(), None);
        loop {
            let asked = self.network.call::<Changes>(superpeer, Follow::Follow { since, wait_ms: 0 }).await;
            let Followed::Page { cursor, changes, more, .. } = asked.unwrap() else {
                panic!("it is followed")
            };
            all.extend(changes.into_iter().filter_map(|change| match change {
                Change::Put { kind, id, .. } => Some((kind, *id)),
                Change::Forget { .. } => None,
            }));
            since = Some(cursor);
            if !more {
                return all;
            }
        }
    }
}

async fn peer_id(member: &Member) -> PeerId {
    let id = match member.role() {
        Role::Node => member.node().status().await.unwrap().peer_id,
        Role::Superpeer => member.superpeer().status().await.unwrap().peer_id,
    };
    id.parse().unwrap()
}

fn trust_of(node: &Member) -> credentials::Trust {
    Identity::load(&DataDir::open(node.data(), DataRole::Node).unwrap()).unwrap().trust
}

/// The content and key that a node's own database has of a file.
fn remembered(member: &Member, file: &FileId, trust: &credentials::Trust) -> (ContentId, ContentKey) {
    let database = Database::open(&member.data().join(FILE_NAME)).unwrap();
    let record = Record::verify(database.record(file).unwrap().unwrap(), trust).unwrap();
    let entry = record.entry().unwrap();
    let Access::Open { key, .. } = &entry.access else { panic!("it is open") };
    (entry.content, key.clone())
}

/// Holds once a node has a whole copy of the present content, and answers with the file as it shows it.
async fn copy_follows(member: &Member, content: &str, file: &FileId) {
    eventually("the copy has the new content", async || {
        let file = seen(member, file).await;
        file.is_some_and(|file| file.content == content && file.path.is_some() && file.defect.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_file_is_hidden_from_sees_nothing_of_it_and_gets_nothing_that_it_can_open() {
    let mut network = Network::start(1, 3, POLL).await;
    let name = "campanha/orçamento.csv";
    let original = bytes(7, MIB);
    let shared = network.share(0, name, &original).await;
    let file: FileId = shared.id.parse().unwrap();
    for reader in [1, 2] {
        network.fetch(reader, &shared).await;
    }
    let listed = network.name(2);
    let copy = seen(network.node(2), &file).await.unwrap().path.unwrap();
    let trust =
        Identity::load(&DataDir::open(network.node(2).data(), DataRole::Node).unwrap()).unwrap().trust;
    let (old_content, old_key) = remembered(network.node(2), &file, &trust);

    let list: Blacklist = told(network.node(0), &["blacklist", "add", name, &listed]).await;
    let changed = Instant::now();
    assert!(!list.only && list.members.len() == 1 && list.members[0].name == listed, "{list:?}");
    let hidden = eventually("the file is gone at the listed member", async || {
        seen(network.node(2), &file).await.is_none()
    })
    .await;
    let after = hidden.saturating_duration_since(changed);
    println!("a restricted file is gone from the listing after {:.2} s", after.as_secs_f64());
    assert!(after <= TWO_SECONDS, "{after:?}");
    eventually("its copy is erased", async || !std::path::Path::new(&copy).exists()).await;
    eventually("nothing speaks of it", async || {
        let said = all_that_is_said(network.node(2)).await;
        !said.contains("orçamento") && !said.contains(&shared.id)
    })
    .await;
    for args in
        [["info", shared.id.as_str()], ["info", name], ["get", shared.id.as_str()], ["blacklist", "ls"]]
    {
        let output = network.node(2).run(&args, "").await.unwrap();
        if args[0] == "blacklist" {
            assert!(
                output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("orçamento")
            );
        } else {
            assert_fails(&output, 5, &["no file is called"]);
        }
    }

    // The readers go on, with the new content; a reader is not shown the list.
    let now = seen(network.node(0), &file).await.unwrap();
    assert!(now.restricted && now.sha256 == shared.sha256 && now.content != shared.content, "{now:?}");
    copy_follows(network.node(1), &now.content, &file).await;
    let reader = seen(network.node(1), &file).await.unwrap();
    assert!(reader.restricted && reader.sha256 == shared.sha256, "{reader:?}");
    let output = network.node(1).run(&["blacklist", "ls", name], "").await.unwrap();
    assert_fails(&output, 4, &["belongs to"]);

    // A listed member that asks by itself, with all that it ever knew, and more.
    network.cluster.kill(&listed).await.unwrap();
    let raw =
        Raw::in_place_of(network.node(2), &[network.node(0), network.node(1), network.superpeer(0)]).await;
    let new_content: ContentId = now.content.parse().unwrap();
    for holder in [0, 1] {
        let holder = peer_id(network.node(holder)).await;
        let run = |content| ChunkRequest::Run { content, first: 0, count: 1, purpose: Purpose::Person };
        for request in [
            ChunkRequest::Manifest { content: old_content },
            ChunkRequest::Availability { content: old_content },
            run(old_content),
        ] {
            assert_eq!(raw.ask(holder, request).await, Err(Refusal::NotHeld));
        }
        // Sealed bytes are no secret; what opens them is.
        let frames = raw.ask(holder, ChunkRequest::Manifest { content: new_content }).await.unwrap();
        let manifest = Manifest::verify(&frames[0], &new_content).unwrap();
        let sealed = raw.ask(holder, run(new_content)).await.unwrap();
        assert!(manifest.check(0, &sealed[0]).is_ok());
        assert!(old_key.cipher().open(0, &mut sealed[0].to_vec()).is_err(), "the old key opens nothing new");
    }
    let superpeer = peer_id(network.superpeer(0)).await;
    let call = async |request| raw.network.call::<Index>(superpeer, request).await.unwrap();
    let search = Request::Search { query: String::new(), owner: None, after: None, limit: 100 };
    for request in [search, Request::Resolve { reference: shared.id.clone() }] {
        assert!(matches!(call(request).await, Response::Files { files, .. } if files.is_empty()));
    }
    let locate = Request::Locate { content: old_content, wanted_bytes: 1, except: Vec::new() };
    assert!(matches!(call(locate).await, Response::Sources(sources) if sources.is_empty()));
    let holders = call(Request::Holders { file }).await;
    assert!(matches!(holders, Response::Holders { holders, .. } if holders.is_empty()));
    let fed = raw.feed(superpeer).await;
    assert!(fed.iter().any(|(kind, _)| *kind == Kind::MEMBER), "{fed:?}");
    assert!(
        !fed.iter().any(|(kind, id)| *id == *file.as_bytes() || [Kind::AUDIENCE, Kind::WRAP].contains(kind))
    );
    assert_eq!(raw.trust.network, trust.network);
    raw.network.shutdown().await;

    // Off the list, it has the file again.
    network.cluster.restart(&listed).unwrap();
    network.cluster.ready(&listed).await.unwrap();
    let list: Blacklist = told(network.node(0), &["blacklist", "rm", name, &listed]).await;
    let changed = Instant::now();
    assert!(list.members.is_empty(), "{list:?}");
    let shown =
        eventually("the file is there again", async || seen(network.node(2), &file).await.is_some()).await;
    let after = shown.saturating_duration_since(changed);
    println!("it is shown again after {:.2} s", after.as_secs_f64());
    network.fetch(2, &seen(network.node(2), &file).await.unwrap()).await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_hidden_from_the_first_moment_is_read_by_all_others_also_by_those_that_join_later() {
    let mut network = Network::start(2, 3, POLL).await;
    let (owner, reader, listed) = (network.node(0), network.node(1), network.node(2));
    let original = bytes(3, 3 * MIB / 2);
    let path = network.write("salários.csv", &original);
    let but = added(owner, &path, &["--hide-from", listed.name()]).await;
    let only = added(owner, &path, &["--name", "somente.csv", "--only", reader.name()]).await;
    let mine = added(owner, &path, &["--name", "meu.csv", "--only", reader.name()]).await;
    let output = owner.run(&["blacklist", "set", "meu.csv", "--only"], "").await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("nobody else"), "{output:?}");
    let id = |file: &File| file.id.parse::<FileId>().unwrap();
    for file in [&but, &only] {
        assert!(file.restricted && file.sha256.is_some(), "{file:?}");
        eventually("the reader sees it", async || seen(reader, &id(file)).await.is_some()).await;
    }
    let sha256 = but.sha256.clone().unwrap();
    for file in [&but, &only] {
        let transfer = reader.node().fetched(&file.id).await.unwrap();
        assert_eq!(transfer.sha256.as_deref(), Some(sha256.as_str()));
        assert_eq!(std::fs::read(transfer.path.unwrap()).unwrap(), original);
    }
    eventually("what is for nobody is seen by nobody", async || seen(reader, &id(&mine)).await.is_none())
        .await;
    for file in [&but, &only, &mine] {
        assert_eq!(seen(listed, &id(file)).await, None);
        let output = listed.run(&["get", &file.id], "").await.unwrap();
        assert_fails(&output, 5, &[]);
    }

    // Bad input, at every entry point.
    let superpeer = network.superpeer(0).name();
    for (member, exit_code, says) in [
        (owner.name(), 2, "owns the file"),
        (superpeer, 2, "super-peer"),
        ("ninguém-aqui", 5, "no member is called"),
    ] {
        for args in [
            vec!["blacklist", "add", "salários.csv", member],
            vec!["blacklist", "set", "salários.csv", member, "--only"],
        ] {
            assert_fails(&owner.run(&args, "").await.unwrap(), exit_code, &[says]);
        }
        let args = ["add", path.to_str().unwrap(), "--name", "x.csv", "--hide-from", member];
        assert_fails(&owner.run(&args, "").await.unwrap(), exit_code, &[says]);
    }
    let output = reader.run(&["blacklist", "add", &but.id, listed.name()], "").await.unwrap();
    assert_fails(&output, 4, &["belongs to"]);

    // Who joins later reads what is hidden from others, once its owner has sealed the keys for it, and nothing else.
    let invite =
        network.superpeer(0).superpeer().invite("node", 1, Duration::from_hours(1)).await.unwrap().invite;
    network.cluster.join(outsider("filial-nova", Role::Node), &invite).await.unwrap();
    let late = network.cluster.member("filial-nova").unwrap();
    eventually("the new member can open it", async || {
        let files = late.node().files("").await.unwrap_or_default();
        files.iter().any(|file| file.id == but.id && file.sha256.is_some())
    })
    .await;
    let transfer = late.node().fetched(&but.id).await.unwrap();
    assert_eq!(std::fs::read(transfer.path.unwrap()).unwrap(), original);
    for file in [&only, &mine] {
        assert_eq!(seen(late, &id(file)).await, None);
    }

    // A reader is expelled: what it kept opens nothing that is restricted from now on.
    let (expelled, listed) = (network.name(1), network.name(2));
    network.superpeer(0).succeed(&["revoke", &expelled], "").await.unwrap();
    let database = Database::open(&network.node(0).data().join(FILE_NAME)).unwrap();
    eventually("the audience has another key", async || {
        database.own_audiences().unwrap().iter().any(|own| own.audience.epoch == 2 && own.keys.0.len() == 2)
    })
    .await;
    let after = added(network.node(0), &path, &["--name", "depois.csv", "--hide-from", &listed]).await;
    let record =
        Record::verify(database.record(&id(&after)).unwrap().unwrap(), &trust_of(network.node(0))).unwrap();
    assert!(matches!(record.entry().unwrap().access, Access::Restricted { epoch: 2, .. }));
    let late = network.cluster.member("filial-nova").unwrap();
    eventually("the others can open what comes after", async || {
        seen(late, &id(&after)).await.is_some_and(|file| file.sha256.is_some())
    })
    .await;
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_off_hands_out_nothing_of_what_was_hidden_meanwhile() {
    let mut network = Network::start(1, 3, POLL).await;
    let name = "contrato.pdf";
    let shared = network.share(0, name, &bytes(5, MIB)).await;
    let file: FileId = shared.id.parse().unwrap();
    network.fetch(1, &shared).await;
    network.fetch(2, &shared).await;
    let (old_content, _) = remembered(network.node(2), &file, &trust_of(network.node(2)));
    let (away, listed) = (network.name(1), network.name(2));
    let holder = peer_id(network.node(1)).await;
    let address = format!("/ip4/127.0.0.1/tcp/{}", network.node(1).peer_port());
    for name in [&away, &listed] {
        network.cluster.kill(name).await.unwrap();
    }
    let list: Blacklist = told(network.node(0), &["blacklist", "add", name, &listed]).await;
    assert_eq!(list.members.len(), 1);
    let now = seen(network.node(0), &file).await.unwrap();

    // It is asked from the first moment in which it can be, until it has caught up and sealed its copy anew.
    let raw = Raw::in_place_of(network.node(2), &[]).await;
    network.cluster.restart(&away).unwrap();
    let (answers, last) = (Cell::new(0), Cell::new(false));
    eventually("it has the new content", async || {
        if raw.network.connect(holder, vec![address.parse().unwrap()]).await.is_err() {
            return false;
        }
        let request =
            ChunkRequest::Run { content: old_content, first: 0, count: 1, purpose: Purpose::Person };
        if let Ok(incoming) = raw.network.fetch(holder, request, SEALED_CHUNK_MAX_BYTES).await {
            assert!(matches!(incoming.head, Head::Refused(_)), "{:?}", incoming.head);
            answers.set(answers.get() + 1);
        }
        // Once more after the end, so that the last answer is of one that has caught up.
        last.replace(network.node(1).node().files("").await.is_ok_and(|files| {
            files.iter().any(|listed| listed.content == now.content && listed.path.is_some())
        }))
    })
    .await;
    let answers = answers.get();
    println!("{answers} answers, and no byte");
    assert!(answers >= 2, "{answers}");
    raw.network.shutdown().await;
    network.stop().await;
}
