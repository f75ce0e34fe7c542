//! What must stay secret shows nowhere: not in a log at any level, a metric, a command line, a command's output or a
//! record. And nobody else on the machine can read what members store.

use crate::support::canaries::{Canaries, files_in};
use crate::support::{DEADLINE, MIB, Network, bytes, eventually, home, outsider};
use data_encoding::BASE64URL_NOPAD;
use quarta_daemon::Role;
use quarta_protocols::cbor;
use quarta_protocols::invites::Invite;
use quarta_protocols::records::{Access, SignedRecord, State};
use quarta_testnet::cluster::{Cluster, Member};
use quarta_testnet::process::Process;
use quarta_testnet::stranger::{Answer, MEMBERS_PROTOCOLS, knock};
use quarta_testnet::up::Testnet;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const TESTNET: &str = env!("CARGO_BIN_EXE_quarta-testnet");
/// Right in length and characters, and nobody's.
const WRONG_TOKEN: &str = "d3JvbmctdG9rZW4td3JvbmctdG9rZW4td3JvbmctdG8";

/// What a run said, by where.
type Said = Vec<(String, Vec<u8>)>;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_logged_at_any_level_nor_shown_anywhere() {
    let network = Network::start_changed(2, 3, Duration::from_secs(1), |plan| {
        for (index, member) in plan.members.iter_mut().enumerate() {
            let format = if index % 2 == 0 { "json" } else { "human" };
            member.serve_args.extend(["--log-level", "trace", "--log", format].map(OsString::from));
        }
    })
    .await;
    let mut canaries = Canaries::default();
    canaries.text("a wrong API token", WRONG_TOKEN);
    let mut said = Said::new();
    share_and_fetch(&network, &mut said).await;
    join_and_be_refused(&network, &mut canaries, &mut said).await;
    use_the_api(&network, &mut said).await;

    for member in network.cluster.members() {
        keys_of(member, &mut canaries);
        said.push((
            format!("metrics of {}", member.name()),
            member.scrape("/metrics").await.unwrap().into_bytes(),
        ));
        for part in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{part}", member.pid().unwrap());
            said.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    let contents = content_keys(&network.cluster, &mut canaries);
    assert!(contents >= 2, "the keys of the shared files are known here: {contents}");
    let logs: Vec<_> = network.cluster.members().iter().map(|member| member.log().to_owned()).collect();
    for member in network.cluster.members() {
        assert_private(member.data());
    }
    assert_eq!(network.cluster.stop().await.unwrap(), [] as [&str; 0], "did not stop in order");

    let mut search = canaries.search();
    for log in logs {
        let log_bytes = fs::read(&log).unwrap();
        assert!(contains(&log_bytes, b"TRACE"), "{} is at level trace", log.display());
        search.look(&log.display().to_string(), &log_bytes);
    }
    for (place, bytes) in said {
        search.look(&place, &bytes);
    }
    assert!(search.searched_bytes > 1 << 18, "only {} bytes were searched", search.searched_bytes);
    assert_eq!(search.found, [] as [&str; 0], "in {} bytes", search.searched_bytes);
    drop(network.home);
}

/// Files are shared, found, fetched and shown.
async fn share_and_fetch(network: &Network, said: &mut Said) {
    let one = network.share(0, "um.bin", &bytes(1, 2 * MIB)).await;
    let two = network.share(1, "dois.txt", b"dois").await;
    for (index, file) in [(1, &one), (2, &one), (2, &two)] {
        eventually("the file is listed", async || {
            network
                .node(index)
                .node()
                .files("")
                .await
                .is_ok_and(|files| files.iter().any(|f| f.id == file.id))
        })
        .await;
        network.fetch(index, file).await;
    }
    let commands: [&[&str]; 5] = [&["status"], &["members"], &["ls"], &["transfers"], &["ls", "--json"]];
    for args in commands {
        keep(said, network.node(2), args, network.node(2).run(args, "").await.unwrap());
    }
    for args in [&["status"][..], &["members", "--json"], &["files"], &["status", "--json"]] {
        keep(said, network.superpeer(0), args, network.superpeer(0).run(args, "").await.unwrap());
    }
}

/// Somebody joins with a good invite, others are refused with a forged and a spent one and without any.
async fn join_and_be_refused(network: &Network, canaries: &mut Canaries, said: &mut Said) {
    let superpeer = network.superpeer(0);
    let spent = network.cluster.spent_invite().to_owned();
    let good = superpeer.superpeer().invite("node", 1, Duration::from_hours(1)).await.unwrap().invite;
    let parsed = Invite::parse(&good).unwrap();
    let forged = Invite::new(
        &parsed.trust().unwrap().root,
        parsed.issuer,
        parsed.addresses.clone(),
        parsed.role,
        parsed.expires,
        *b"a forged secret!",
    )
    .to_text();
    for (name, invite, admitted) in [("bom", &good, true), ("mau", &forged, false), ("tarde", &spent, false)]
    {
        canaries.text(format!("the invite of {name}"), invite);
        canaries.bytes(format!("the secret of {name}"), Invite::parse(invite).unwrap().secret().as_slice());
        let joiner = network.cluster.outsider(outsider(name, Role::Node)).unwrap();
        let output = joiner.run(&["join", "-", "--name", name], invite).await.unwrap();
        assert_eq!(output.status.success(), admitted, "{output:?}");
        keep(said, &joiner, &["join"], output);
        if admitted {
            keys_of(&joiner, canaries);
            assert_private(joiner.data());
        }
    }
    let id = superpeer.superpeer().status().await.unwrap().network.parse().unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", superpeer.peer_port()).parse().unwrap();
    let answer = knock(address, &id, MEMBERS_PROTOCOLS[0]).await.unwrap();
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
}

/// The API is used with the right and with a wrong token.
async fn use_the_api(network: &Network, said: &mut Said) {
    for member in [network.superpeer(0), network.node(0)] {
        for (token, admitted) in [(member.token().unwrap(), true), (WRONG_TOKEN.to_owned(), false)] {
            let http = member.http();
            let answer = tokio::task::spawn_blocking(move || ask(http, &token)).await.unwrap();
            assert_eq!(answer.starts_with("HTTP/1.1 200"), admitted, "{answer}");
            said.push((format!("an answer of {}", member.name()), answer.into_bytes()));
        }
    }
}

fn ask(http: std::net::SocketAddr, token: &str) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    write!(
        stream,
        "GET /api/v1/status HTTP/1.1\r\nHost: {http}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn keep(said: &mut Said, member: &Member, args: &[&str], output: Output) {
    let place = format!("what `{}` at {} prints", args.join(" "), member.name());
    said.push((place, [output.stdout, output.stderr].concat()));
}

/// What a member keeps to itself: its private keys, its token, its credential.
fn keys_of(member: &Member, canaries: &mut Canaries) {
    let name = member.name();
    if let Ok(token) = member.token() {
        canaries.text(format!("the API token of {name}"), &token);
    }
    let mut keys = 0;
    for path in files_in(member.data()) {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".key") else { continue };
        let bytes = fs::read(&path).unwrap();
        // libp2p's encoding is a header of four bytes, the private key of 32 and the public one.
        let private = if bytes.len() == 68 { &bytes[4..36] } else { &bytes[..] };
        assert_eq!(private.len(), 32, "{}", path.display());
        canaries.bytes(format!("the {stem} key of {name}"), private);
        keys += 1;
    }
    assert!(keys >= 2, "{name} has {keys} keys");
    let credential = fs::read(member.data().join("credential.cbor")).unwrap();
    let tokens = jwts(&credential);
    assert!(!tokens.is_empty(), "{name} has a credential");
    for token in tokens {
        canaries.text(format!("a credential of {name}"), &token);
        let signature = token.rsplit('.').next().unwrap();
        canaries.text(format!("the signature of a credential of {name}"), signature);
        canaries.bytes(
            format!("the signature of a credential of {name}"),
            &BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap(),
        );
    }
}

/// The JSON web tokens in an encoded credential: a map of the member's own and, for a node, its issuer's.
fn jwts(credential: &[u8]) -> Vec<String> {
    let tokens: BTreeMap<String, Option<String>> = cbor::from_slice(credential).unwrap();
    let tokens: Vec<String> = tokens.into_values().flatten().collect();
    assert!(
        tokens.iter().all(|token| token.starts_with("eyJ") && token.matches('.').count() == 2),
        "{tokens:?}"
    );
    tokens
}

/// The keys of all shared files' contents, from the nodes' own databases; answers how many.
fn content_keys(cluster: &Cluster, canaries: &mut Canaries) -> usize {
    let mut seen = BTreeSet::new();
    for node in cluster.nodes() {
        let path = node.data().join(quarta_node::database::FILE_NAME);
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut records = database.prepare("SELECT record FROM copies").unwrap();
        let records = records.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        for record in records {
            let record: SignedRecord = cbor::from_slice(&record.unwrap()).unwrap();
            let body = record.peek().unwrap();
            let State::Present(entry) = body.state else { continue };
            let Access::Open { key, .. } = entry.access else { continue };
            if seen.insert(*key.as_bytes()) {
                canaries.bytes(format!("the key of {}", entry.name), key.as_bytes());
            }
        }
    }
    seen.len()
}

/// Everything in a data folder is its owner's alone.
fn assert_private(data: &Path) {
    let open = readable_by_others(data);
    assert_eq!(open, [] as [&str; 0]);
}

/// What in a folder others than its owner have any right to, the folder itself included.
fn readable_by_others(folder: &Path) -> Vec<String> {
    let mut open = Vec::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.permissions().mode() & 0o077 != 0 && !metadata.is_symlink() {
            open.push(format!("{} has mode {:04o}", path.display(), metadata.permissions().mode() & 0o7777));
        }
        if metadata.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    open
}

#[test]
fn a_record_of_a_run_at_level_trace_holds_no_secret() {
    let home = home();
    let (dir, report) = (home.path().join("net"), home.path().join("report"));
    let mut command = Command::new(TESTNET);
    command.args(["up", "--superpeers", "1", "--nodes", "2", "--poll-interval", "1s", "--dir"]).arg(&dir);
    command.arg("--report").arg(&report).env("QUARTA_LOG", "trace").stdout(Stdio::null());
    command.stderr(fs::File::create(home.path().join("said")).unwrap());
    let up = Process::spawn(command).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut canaries = Canaries::default();
    runtime.block_on(async {
        eventually("the cluster runs", async || dir.join("testnet.json").exists()).await;
        let testnet: Testnet = serde_json::from_slice(&fs::read(dir.join("testnet.json")).unwrap()).unwrap();
        for member in &testnet.members {
            canaries.text(format!("the API token of {}", member.name), &member.token);
            let bytes = fs::read(member.data.join("sealing.key")).unwrap();
            canaries.bytes(format!("the sealing key of {}", member.name), &bytes);
            let credential = fs::read(member.data.join("credential.cbor")).unwrap();
            for token in jwts(&credential) {
                canaries.text(format!("a credential of {}", member.name), &token);
            }
        }
        let output = Command::new(crate::support::program("quarta-superpeer"))
            .args(["invite", "--json", "--data"])
            .arg(&testnet.members[0].data)
            .output()
            .unwrap();
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        canaries.text("an invite", printed["invite"].as_str().unwrap());
        let status = up.end(DEADLINE).await.unwrap();
        assert!(status.success(), "{status}: {}", fs::read_to_string(home.path().join("said")).unwrap());
    });
    let mut search = canaries.search();
    search.folder(&report);
    search.look("what `up` says", &fs::read(home.path().join("said")).unwrap());
    assert_eq!(search.found, [] as [&str; 0]);
    let page = fs::read_to_string(report.join("index.html")).unwrap();
    assert!(page.contains("Ended by the person"), "{page}");
    assert!(!page.contains(home.path().to_str().unwrap()), "it names no folder of this machine");
}

#[test]
fn a_planted_secret_is_found_in_whatever_form_it_shows() {
    let secret: Vec<u8> = (0..32_u8).map(|byte| byte.wrapping_mul(37).wrapping_add(200)).collect();
    let mut canaries = Canaries::default();
    canaries.bytes("the key", &secret);
    canaries.text("the token", "0123456789abcdefghijklmnop");
    let base64 =
        |before: usize| BASE64URL_NOPAD.encode(&[vec![9; before], secret.clone(), vec![7; 5]].concat());
    let base32 = |before: usize| {
        data_encoding::BASE32_NOPAD
            .encode(&[vec![9; before], secret.clone(), vec![7; 5]].concat())
            .to_lowercase()
    };
    let shown = [
        format!("{secret:?}"),
        format!("{secret:02x?}"),
        data_encoding::HEXLOWER.encode(&secret),
        data_encoding::HEXUPPER.encode(&secret),
        format!("z{}", bs58::encode(&secret).into_string()),
        base64(0),
        base64(1),
        base64(2),
        base32(0),
        base32(3),
        "Bearer 0123456789abcdefghijklmnop".to_owned(),
    ];
    let raw = [b"around ".to_vec(), secret.clone(), b" it".to_vec()].concat();
    for text in shown.iter().map(String::as_bytes).chain([&raw[..]]) {
        let mut search = canaries.search();
        search.look("a log", &[b"2026 TRACE x: ", text, b" y=1\n"].concat());
        assert_eq!(search.found.len(), 1, "{}", String::from_utf8_lossy(text));
    }
    let mut search = canaries.search();
    search.look("a log", b"nothing of the kind");
    assert!(search.found.is_empty());
}

#[test]
fn a_file_that_others_may_read_is_told() {
    let home = home();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(home.path().join("x"), "").unwrap();
    fs::set_permissions(home.path().join("x"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(readable_by_others(home.path()), [] as [&str; 0]);
    fs::set_permissions(home.path().join("x"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(readable_by_others(home.path()).len(), 1);
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
