//! Hostile names, everywhere that a name comes in: given by a person, found on a disk, sent by a lying member, asked for.

use crate::support::http::Api;
use crate::support::{Network, assert_fails};
use futures::stream::{self, StreamExt};
use quarta_daemon::client::{ClientError, Target};
use quarta_daemon::escape::is_deceptive;
use quarta_node::api::model::{File, FilePage};
use quarta_protocols::cbor;
use quarta_protocols::content::{ContentKey, Geometry, Manifest, chunk_hash};
use quarta_protocols::ids::{ContentId, FileId, Sha256};
use quarta_protocols::messages::index::{Index, Publication, Request, Response};
use quarta_protocols::names::{FileName, fold};
use quarta_protocols::records::{Access, Body, Origin, SignedRecord};
use quarta_protocols::signing::{Signed, Statement};
use quarta_testnet::hostile_names::{self, HostileName, Verdict};
use quarta_testnet::liar::{Liar, Lie};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use sha2::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Requests at a time: as many as a person's scripts would make.
const AT_ONCE: usize = 8;
/// What a component of a file system of Linux may have, in bytes.
const COMPONENT_MAX_BYTES: usize = 255;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_refused_or_kept_inside_the_library_wherever_they_come_in() {
    let network = Network::start(1, 4, Duration::from_secs(15)).await;
    let liar = join(&network).await;
    let before = surroundings(&network);
    let shared = added_by_name(&network).await;
    added_from_disk(&network).await;
    uploaded(&network).await;
    let published = published(&network, &liar).await;
    asked_for(&network).await;
    fetched(&network, &shared).await;
    printed_on_one_line_each(&network, shared.len() + published).await;
    assert_eq!(surroundings(&network), before, "nothing outside of the libraries came or went");
    drop(liar);
    logs_are_plain(&network);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_takes_the_place_of_its_twin() {
    let network = Network::start(1, 3, Duration::from_secs(15)).await;
    let liar = join(&network).await;
    let reader = network.node(2);
    // One owner cannot have both of a pair, and one that forges its records changes nothing of what others have.
    let groups = hostile_names::twins();
    let mut forged = Vec::new();
    for (seed, name) in (0_u8..).zip(groups.iter().flatten()) {
        let plain = format!("{seed}: {name}").into_bytes();
        forged.push((forge(&liar, name, seed, &plain), plain));
    }
    let records = forged.iter().map(|((_, record), _)| record.clone()).collect();
    assert!(publish(&liar, records).await.iter().all(|answer| *answer == Publication::Stored));
    for ((file, _), plain) in &forged {
        liar.claim(&file.to_string(), plain).await.unwrap();
    }
    let mut landed: BTreeMap<PathBuf, &[u8]> = BTreeMap::new();
    for ((file, _), plain) in &forged {
        let transfer = reader.node().fetched(&file.to_string()).await.unwrap();
        assert!(landed.insert(transfer.path.unwrap().into(), plain).is_none(), "each has a place of its own");
    }
    for group in &groups {
        let first = network.share(0, group[0], group[0].as_bytes()).await;
        let path = network.write("gemeo", b"twin");
        for twin in &group[1..] {
            let why =
                network.node(0).node().add(&path, Some((*twin).to_owned())).await.unwrap_err().to_string();
            assert!(why.contains("cannot share"), "{why}");
            let second = network.node(1).node().add(&path, Some((*twin).to_owned())).await;
            // The other branch has its own names; there too the group's later ones are twins.
            if let Ok(second) = second {
                let transfer = reader.node().fetched(&second.id).await.unwrap();
                landed.insert(transfer.path.unwrap().into(), b"twin");
            }
        }
        let transfer = reader.node().fetched(&first.id).await.unwrap();
        landed.insert(transfer.path.unwrap().into(), group[0].as_bytes());
    }
    // An own file where a fetched one wants to be.
    let own = format!("{}/plano.csv", network.name(0));
    let mine = network.share(2, &own, b"mine").await;
    let theirs = network.share(0, "PLANO.csv", b"theirs").await;
    let transfer = reader.node().fetched(&theirs.id).await.unwrap();
    landed.insert(transfer.path.unwrap().into(), b"theirs");
    landed.insert(reader.data().join("library").join(&mine.name), b"mine");

    let library = reader.data().join("library");
    for (path, plain) in &landed {
        assert_eq!(fs::read(path).unwrap(), *plain, "{}", path.display());
    }
    let found: BTreeSet<PathBuf> = files_below(&library).into_iter().collect();
    assert_eq!(found, landed.keys().cloned().collect());
    let folded: BTreeSet<String> =
        found.iter().map(|path| fold(path.strip_prefix(&library).unwrap().to_str().unwrap())).collect();
    assert_eq!(folded.len(), found.len(), "no two would be one on another system");
    drop(liar);
    network.stop().await;
}

/// A member whose chunks are right and whose names are not.
async fn join(network: &Network) -> Liar {
    let invite =
        network.superpeer(0).superpeer().invite("node", 1, Duration::from_hours(1)).await.unwrap().invite;
    Liar::join(Lie::OtherManifest, &network.home.path().join("liar"), &invite).await.unwrap()
}

/// Every name is given to the daemon as `add --name` gives it, and some through the command itself.
async fn added_by_name(network: &Network) -> Vec<File> {
    let path = network.write("fatura.txt", b"x");
    let owner = network.node(0);
    let add = |name: HostileName| {
        let path = &path;
        async move {
            let added = owner.node().add(path, Some(name.name.clone())).await;
            match (&name.verdict, added) {
                (Verdict::Accepted, Ok(file)) => {
                    assert_eq!(file.name, name.name);
                    Some(file)
                }
                (Verdict::Normalised(normal), Ok(file)) => {
                    assert_eq!(file.name, *normal);
                    Some(file)
                }
                (Verdict::Refused, Err(error)) => {
                    let said = error.to_string();
                    assert!(said.contains("cannot be shared") && !said.contains('\n'), "{said:?}");
                    None
                }
                (verdict, added) => panic!("{name:?} should be {verdict:?}: {added:?}"),
            }
        }
    };
    let names = hostile_names::all();
    println!("{} hostile names", names.len());
    let added: Vec<File> = stream::iter(names.clone())
        .map(add)
        .buffer_unordered(AT_ONCE)
        .filter_map(async |file| file)
        .collect()
        .await;
    assert_eq!(owner.node().files("").await.unwrap().len(), added.len(), "only those are listed");

    let bad: BTreeMap<&str, &HostileName> = names
        .iter()
        .filter(|name| name.verdict == Verdict::Refused && !name.name.contains('\0'))
        .map(|name| (name.category, name))
        .collect();
    for name in bad.values() {
        let argument = format!("--name={}", name.name);
        let output = owner.run(&["add", path.to_str().unwrap(), &argument], "").await.unwrap();
        assert_fails(&output, 1, &["cannot add"]);
        plain_but_for_lines(&String::from_utf8_lossy(&output.stderr));
    }
    added
}

/// A folder with a file of every name that a file can have here, shared as a whole.
async fn added_from_disk(network: &Network) {
    let folder = network.home.path().join("originals").join("pasta");
    let mut names: Vec<Vec<u8>> = hostile_names::not_unicode();
    names.extend(hostile_names::all().into_iter().map(|name| name.name.into_bytes()));
    let mut made = 0;
    for name in names {
        let possible = name.split(|byte| *byte == b'/').all(|part| {
            (1..=COMPONENT_MAX_BYTES).contains(&part.len())
                && part != b"."
                && part != b".."
                && !part.contains(&0)
        });
        // Two levels suffice: deeper ones differ from those in nothing that a disk knows.
        if !possible || name.split(|byte| *byte == b'/').nth(2).is_some() {
            continue;
        }
        let path = folder.join(OsString::from_vec(name));
        let parent = path.parent().unwrap();
        if parent.is_file() || path.is_dir() || fs::create_dir_all(parent).is_err() {
            continue;
        }
        fs::write(&path, b"y").unwrap();
        made += 1;
    }
    let sharer = network.node(1);
    let output = sharer.run(&["add", folder.to_str().unwrap(), "--json"], "").await.unwrap();
    assert_eq!(output.status.code(), Some(6), "some are shared, others not");
    let said = String::from_utf8_lossy(&output.stdout);
    plain_but_for_lines(&said);
    plain_but_for_lines(&String::from_utf8_lossy(&output.stderr));
    for file in sharer.node().files("").await.unwrap().iter().filter(|file| file.owner == sharer.name()) {
        assert!(FileName::new(&file.name).is_ok());
        assert!(sharer.data().join("library").join(&file.name).is_file(), "{}", file.name);
    }
    println!("{made} hostile names on a disk, {} lines", said.lines().count());
    assert!(made > 250, "{made}");
}

/// Every name is given to an upload over HTTP.
async fn uploaded(network: &Network) {
    let receiver = network.node(3);
    let api = Api::of(receiver);
    let upload = |name: HostileName| {
        let api = &api;
        async move {
            let answer = api.upload(&name.name, b"z").await;
            plain_but_for_lines(&answer.head.replace("\r\n", "\n"));
            let normal = match &name.verdict {
                Verdict::Accepted => &name.name,
                Verdict::Normalised(normal) => normal,
                Verdict::Refused => {
                    // 431: the name alone is longer than all headers may be.
                    assert!([400, 431].contains(&answer.status), "{name:?}: {}", answer.head);
                    return 0;
                }
            };
            // Of names that are normalised alike, and of twins, the first has it.
            if answer.status == 409 {
                return 0;
            }
            assert_eq!(answer.status, 201, "{name:?}: {}", answer.head);
            let file: File = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(file.name, *normal);
            assert_eq!(fs::read(receiver.data().join("library").join(normal)).unwrap(), b"z");
            1
        }
    };
    let names = stream::iter(hostile_names::all());
    let taken: Vec<usize> = names.map(upload).buffer_unordered(AT_ONCE).collect().await;
    let taken: usize = taken.into_iter().sum();
    assert_eq!(files_below(&receiver.data().join("library")).len(), taken, "and nothing else");
    assert!(taken > 50, "{taken}");
}

/// Every name stands in a well signed record of a lying member. Answers how many were taken.
async fn published(network: &Network, liar: &Liar) -> usize {
    let names = hostile_names::all();
    let mut taken = 0;
    for page in names.chunks(256) {
        let seeds = (0_u8..=255).cycle();
        let records =
            page.iter().zip(seeds).map(|(name, seed)| forge(liar, &name.name, seed, name.name.as_bytes()).1);
        let answers = publish(liar, records.collect()).await;
        assert_eq!(answers.len(), page.len());
        for (name, answer) in page.iter().zip(answers) {
            let as_it_must = match name.verdict {
                Verdict::Accepted => answer == Publication::Stored,
                Verdict::Normalised(_) | Verdict::Refused => matches!(answer, Publication::Invalid(_)),
            };
            assert!(as_it_must, "{name:?}: {answer:?}");
            taken += usize::from(name.verdict == Verdict::Accepted);
        }
    }
    let superpeer = network.superpeer(0).superpeer();
    let listed = superpeer.files().await.unwrap();
    assert!(listed.iter().all(|file| FileName::new(&file.name).is_ok()));
    assert_eq!(listed.iter().filter(|file| file.owner == liar.name()).count(), taken);
    taken
}

/// The API is asked for every name, as a path and as a search: it answers, and never fails.
async fn asked_for(network: &Network) {
    let client = network.node(2).client();
    let asked = |name: HostileName| {
        let client = client.clone();
        async move {
            let found: Result<File, _> = client.get(Target::new("/api/v1/files").segment(&name.name)).await;
            match found {
                // An id, or the beginning of one, in other digits.
                Ok(file) => assert!(FileName::new(&file.name).is_ok()),
                Err(ClientError::Problem(problem)) => {
                    assert!((400..500).contains(&problem.status), "{problem:?} to {name:?}");
                    plain_but_for_lines(&problem.to_string());
                }
                // No such path, which the router says in its own words.
                Err(ClientError::Unexpected { .. }) if name.name.is_empty() => {}
                Err(error) => panic!("{name:?}: {error}"),
            }
            let search = Target::new("/api/v1/files").query("query", &name.name);
            match client.get::<FilePage>(search).await {
                Ok(page) => assert!(page.files.iter().all(|file| FileName::new(&file.name).is_ok())),
                // Longer than a search may be.
                Err(error) => assert!(name.name.len() > 200, "{name:?}: {error}"),
            }
        }
    };
    stream::iter(hostile_names::all()).for_each_concurrent(AT_ONCE, asked).await;
}

/// What is shared under a hostile name lands under that name in the library of whoever fetches it.
async fn fetched(network: &Network, files: &[File]) {
    let reader = network.node(2);
    let library = reader.data().join("library");
    let fetch = |file: File| {
        let library = &library;
        async move {
            let path = PathBuf::from(reader.node().fetched(&file.id).await.unwrap().path.unwrap());
            assert_eq!(path, library.join(&file.owner).join(&file.name));
            assert_eq!(fs::read(&path).unwrap(), b"x");
        }
    };
    stream::iter(files.to_vec()).for_each_concurrent(AT_ONCE, fetch).await;
    assert_eq!(files_below(&library).len(), files.len(), "and nothing else");
}

async fn printed_on_one_line_each(network: &Network, at_least: usize) {
    let reader = network.node(2);
    let listed = reader.node().files("").await.unwrap().len();
    assert!(listed >= at_least, "{listed} of {at_least}");
    let json = reader.succeed(&["ls", "--json"], "").await.unwrap();
    plain_but_for_lines(&json);
    assert_eq!(json.lines().count(), listed);
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let text = reader.succeed(&["ls"], "").await.unwrap();
    plain_but_for_lines(&text);
    assert_eq!(text.trim_end().lines().count(), listed + 1, "a heading and a line for each file");
    let transfers = reader.succeed(&["transfers", "--json"], "").await.unwrap();
    plain_but_for_lines(&transfers);
}

/// A record as its owner would send it, but with any text for a name.
fn forge(liar: &Liar, name: &str, seed: u8, plain: &[u8]) -> (FileId, SignedRecord) {
    let identity = liar.identity();
    let key = ContentKey::from_bytes([seed; 32]);
    let mut chunk = plain.to_vec();
    key.cipher().seal(0, &mut chunk);
    let geometry = Geometry::for_size(plain.len() as u64).unwrap();
    let manifest = Manifest::new(geometry, vec![chunk_hash(&chunk)]).unwrap();
    let nonce: [u8; 16] = blake3::hash(name.as_bytes()).as_bytes()[..16].try_into().unwrap();
    let origin = Origin { owner: identity.keys.peer(), nonce: ByteArray::new(nonce) };
    let file = origin.file_id(&identity.trust.network);
    let forged = Forged {
        file,
        origin,
        links: Vec::new(),
        revision: 1,
        state: ForgedState::Present(ForgedEntry {
            name: name.to_owned(),
            size_bytes: plain.len() as u64,
            content: manifest.id(),
            manifest: Some(ByteBuf::from(manifest.to_bytes())),
            access: Access::Open {
                key,
                sha256: Sha256::from_bytes(sha2::Sha256::digest(plain).into()),
                media_type: None,
            },
        }),
    };
    let signed = Signed::new(&forged, &identity.trust.network, &identity.keys.identity);
    (file, cbor::from_slice(&cbor::to_vec(&signed)).unwrap())
}

/// [`Body`] with a name that nobody has validated.
#[derive(Serialize, Deserialize)]
struct Forged {
    file: FileId,
    origin: Origin,
    links: Vec<()>,
    revision: u64,
    state: ForgedState,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ForgedState {
    Present(ForgedEntry),
}

#[derive(Serialize, Deserialize)]
struct ForgedEntry {
    name: String,
    size_bytes: u64,
    content: ContentId,
    manifest: Option<ByteBuf>,
    access: Access,
}

impl Statement for Forged {
    const DOMAIN: &'static str = Body::DOMAIN;
    const MAX_BYTES: usize = Body::MAX_BYTES;
}

async fn publish(liar: &Liar, records: Vec<SignedRecord>) -> Vec<Publication> {
    match liar.network().call::<Index>(liar.superpeer(), Request::Publish(records)).await.unwrap() {
        Response::Published(answers) => answers,
        other => panic!("{other:?}"),
    }
}

fn plain_but_for_lines(text: &str) {
    let bad: Vec<char> = text.chars().filter(|c| *c != '\n' && is_deceptive(*c)).collect();
    assert!(bad.is_empty(), "{bad:?} in {text:?}");
}

fn logs_are_plain(network: &Network) {
    for member in network.cluster.members() {
        plain_but_for_lines(&fs::read_to_string(member.log()).unwrap());
    }
}

/// Everything around and in the data folders, but for what a library, a log or a database is for.
fn surroundings(network: &Network) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![network.home.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if ["library", "partial", "originals"].contains(&&*name) || name.contains(".db") {
                continue;
            }
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}
