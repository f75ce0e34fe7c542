//! The HTTP API of both services over real processes: who is let in, files up and down, events, and what is cut off.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use crate::support::http::{Api, PATIENCE, read};
use crate::support::{MIB, Network, eventually, outsider};
use quarta_daemon::Role;
use quarta_testnet::process::Process;
use rustix::process::Signal;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const POLLS: Duration = Duration::from_secs(15);
const BUSY_MAX_BYTES: u64 = 150 << 20;

/// The files of a library and of what is in the making.
fn held(data: &Path) -> Vec<String> {
    ["library", "partial"].iter().flat_map(|folder| crate::support::names_in(&data.join(folder))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_described_route_asks_for_the_token_and_refuses_foreign_hosts_and_pages() {
    let network = Network::start(1, 1, POLLS).await;
    for member in [network.node(0), network.superpeer(0)] {
        let api = Api::of(member);
        let description = api.get("/api/openapi.json").await.json();
        let mut tried = 0;
        for (path, operations) in description["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let target = ["{file}", "{member}", "{invite}", "{name}"]
                    .iter()
                    .fold(path.clone(), |path, part| path.replace(part, "x"));
                let line = format!("{} {target}", method.to_uppercase());
                let open = operation["security"] == serde_json::json!([{}]);
                let (host, token) = (format!("Host: {}", api.address), api.authorization());
                let alone = api.raw(&line, &[&host], b"").await;
                if open {
                    assert_eq!(alone.status, 200, "{line} without a token");
                } else {
                    assert_eq!((alone.status, alone.code().as_str()), (401, "no-token"), "{line}");
                    assert!(alone.header("www-authenticate").starts_with("Bearer"), "{line}");
                    let wrong = api.raw(&line, &[&host, "Authorization: Bearer guess"], b"").await;
                    assert_eq!((wrong.status, wrong.code().as_str()), (401, "wrong-token"), "{line}");
                }
                let foreign = api.raw(&line, &["Host: evil.example", &token], b"").await;
                assert_eq!((foreign.status, foreign.code().as_str()), (421, "foreign-host"), "{line}");
                let origin = "Origin: http://evil.example";
                let foreign = api.raw(&line, &[&host, &token, origin], b"").await;
                assert_eq!((foreign.status, foreign.code().as_str()), (403, "foreign-origin"), "{line}");
                for answer in [&alone, &foreign] {
                    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{line}");
                    assert!(
                        answer.header("content-security-policy").contains("default-src 'none'"),
                        "{line}"
                    );
                    assert_eq!(answer.header("access-control-allow-origin"), "", "{line}");
                }
                tried += 1;
            }
        }
        assert!(tried >= 12, "only {tried} operations of {} are described", member.name());
        for path in ["/docs/", "/docs/swagger-ui-bundle.js", "/nowhere"] {
            let alone = api.raw(&format!("GET {path}"), &[&format!("Host: {}", api.address)], b"").await;
            assert_eq!(alone.status, 401, "{path}");
        }
        assert_eq!(api.get("/docs/").await.status, 200);
        assert_eq!(api.get("/nowhere").await.code(), "not-found");
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_time_link_lets_one_browser_in_and_its_cookie_changes_nothing_for_other_pages() {
    let network = Network::start(1, 1, POLLS).await;
    for member in [network.node(0), network.superpeer(0)] {
        let api = Api::of(member);
        let host = format!("Host: {}", api.address);
        let link = member.succeed(&["browse"], "").await.unwrap();
        let target = link.trim().strip_prefix(&format!("http://{}", api.address)).unwrap().to_owned();
        let login = api.raw(&format!("GET {target}"), &[&host], b"").await;
        assert_eq!(login.status, 200, "{}", login.head);
        let set = login.header("set-cookie");
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
        let cookie = format!("Cookie: {}", set.split(';').next().unwrap());
        let again = api.raw(&format!("GET {target}"), &[&host], b"").await;
        assert_eq!((again.status, again.code().as_str()), (401, "used-link"));

        assert_eq!(api.raw("GET /docs/", &[&host, &cookie], b"").await.status, 200);
        let status = "GET /api/v1/status";
        assert_eq!(api.raw(status, &[&host, &cookie], b"").await.status, 200);
        let cross = "Sec-Fetch-Site: same-site";
        assert_eq!(api.raw(status, &[&host, &cookie, cross], b"").await.code(), "foreign-origin");
        assert_eq!(api.raw("POST /logout", &[&host, &cookie], b"").await.code(), "foreign-origin");
        let origin = format!("Origin: http://{}", api.address);
        assert_eq!(api.raw("POST /logout", &[&host, &cookie, &origin], b"").await.status, 204);
        assert_eq!(api.raw(status, &[&host, &cookie], b"").await.code(), "no-token");
        let page = api.raw("GET /docs/", &[&host, "Accept: text/html,*/*"], b"").await;
        assert!(page.status == 401 && String::from_utf8(page.body).unwrap().contains("browse"));
        // No page and no program gets a link over TCP.
        assert_eq!(api.ask("POST /api/v1/local/login", &[], b"").await.code(), "local-only");
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_file_are_its_bytes() {
    let network = Network::start(1, 2, POLLS).await;
    let api = Api::of(network.node(0));
    // Several chunks, and an end within one.
    let bytes: Vec<u8> = (0..u32::try_from(MIB).unwrap()).flat_map(|n| (n % 251).to_le_bytes()).collect();
    let bytes = &bytes[..3 * MIB + 17];
    let uploaded = api.upload("pasta/verão \u{201c}1\u{201d}.csv", bytes).await;
    assert_eq!(uploaded.status, 201, "{}", uploaded.head);
    let file = uploaded.json();
    assert_eq!(uploaded.header("location"), format!("/api/v1/files/{}", file["id"].as_str().unwrap()));
    let path = format!("{}/content", uploaded.header("location"));
    let part = async |range: &str| api.ask(&format!("GET {path}"), &[&format!("Range: {range}")], b"").await;

    let whole = api.get(&path).await;
    assert!(whole.status == 200 && whole.body == bytes, "{}", whole.head);
    let etag = format!("\"{}\"", file["sha256"].as_str().unwrap());
    assert_eq!(whole.header("etag"), etag);
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("content-type"), "text/csv");
    let disposition =
        "attachment; filename=\"ver_o _1_.csv\"; filename*=UTF-8''ver%C3%A3o%20%E2%80%9C1%E2%80%9D.csv";
    assert_eq!(whole.header("content-disposition"), disposition);
    assert!(whole.header("content-security-policy").contains("sandbox"));

    let size = bytes.len();
    let chunk = 256 << 10;
    for (first, last) in
        [(0, 0), (0, chunk - 1), (chunk - 1, chunk), (chunk, 2 * chunk), (5, size - 1), (size - 1, size - 1)]
    {
        let answer = part(&format!("bytes={first}-{last}")).await;
        assert_eq!(answer.status, 206, "{first}-{last}");
        assert!(answer.body == bytes[first..=last], "{first}-{last}");
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/{size}"));
    }
    assert!(part("bytes=-1000").await.body == bytes[size - 1000..]);
    assert!(part(&format!("bytes={chunk}-")).await.body == bytes[chunk..]);
    assert!(part("bytes=-99999999999").await.body == bytes);
    let beyond = part(&format!("bytes={size}-")).await;
    assert_eq!((beyond.status, beyond.code().as_str()), (416, "beyond-end"));
    assert_eq!(beyond.header("content-range"), format!("bytes */{size}"));
    for ignored in ["bytes=2-1", "bytes=0-1,5-6", "lines=1-2", "nonsense"] {
        assert_eq!(part(ignored).await.status, 200, "{ignored}");
    }
    let line = format!("GET {path}");
    let with = async |headers: &[&str]| api.ask(&line, headers, b"").await;
    assert_eq!(with(&[&format!("If-None-Match: {etag}")]).await.status, 304);
    assert_eq!(with(&["If-Match: \"other\""]).await.code(), "other-content");
    assert_eq!(with(&["Range: bytes=0-1", &format!("If-Range: {etag}")]).await.status, 206);
    assert_eq!(with(&["Range: bytes=0-1", "If-Range: \"other\""]).await.status, 200);
    let head = api.ask(&format!("HEAD {path}"), &["Range: bytes=0-1"], b"").await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, size.to_string().as_str(), 0)
    );

    // Elsewhere it has to be fetched first, and the answer says so.
    let other = Api::of(network.node(1));
    eventually("the file is listed", async || other.get(uploaded.header("location")).await.status == 200)
        .await;
    assert_eq!(other.get(&path).await.code(), "not-here");

    // Never a byte that was not shared, also where size and time tell nothing.
    let copy = network.node(0).data().join("library/pasta/verão \u{201c}1\u{201d}.csv");
    let stamp = fs::metadata(&copy).unwrap().modified().unwrap();
    let mut edited = bytes.to_vec();
    edited[2 * MIB] ^= 1;
    fs::write(&copy, &edited).unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_modified(stamp).unwrap();
    let begun = part("bytes=0-9").await;
    assert!(begun.status == 206 && begun.body == bytes[..10], "a chunk that is whole is sent");
    assert_eq!(part(&format!("bytes={}-", 2 * MIB)).await.code(), "changed-on-disk");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_is_shared_whole_or_leaves_nothing() {
    let network = Network::start(1, 1, POLLS).await;
    let api = Api::of(network.node(0));
    let data = network.node(0).data().to_owned();
    for hostile in [
        "../a",
        "/etc/passwd",
        "a/../b",
        "a//b",
        "a\0b",
        "CON",
        "a\u{202e}b",
        "a\r\nSet-Cookie: x=y",
        "a\"b",
        "a\\b",
        "",
        ".",
        "a ",
        "a.",
        "a:b",
        "x".repeat(1025).as_str(),
    ] {
        let refused = api.upload(hostile, b"x").await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad-name"), "{hostile:?}");
    }
    assert_eq!(held(&data), [] as [&str; 0]);

    assert_eq!(api.upload("Plano.csv", b"1").await.status, 201);
    assert_eq!(api.upload("empty", b"").await.json()["size_bytes"], 0);
    for taken in ["Plano.csv", "plano.CSV", "Plano.csv/x"] {
        let refused = api.upload(taken, b"2").await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "name-taken"), "{taken}");
    }
    let before = held(&data);

    // Broken off in the middle, with and without a length said before.
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        let head = format!(
            "POST /api/v1/files?name=half HTTP/1.1\r\nHost: {}\r\n{}\r\n{framing}\r\n\r\n5\r\nhello\r\n",
            api.address,
            api.authorization()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        eventually("the upload has begun", async || held(&data).len() > before.len()).await;
        drop(stream);
        eventually("the half is gone", async || held(&data) == before).await;
    }
    // More than any disk has: told before anything is sent.
    let (host, token) = (format!("Host: {}", api.address), api.authorization());
    let said = [host.as_str(), &token, "Content-Length: 1099511627776"];
    let huge = api.raw("POST /api/v1/files?name=huge", &said, b"").await;
    assert_eq!((huge.status, huge.code().as_str()), (507, "disk-full"));
    let said = [host.as_str(), &token, "Content-Length: 5", "Expect: 100-continue"];
    let taken = api.raw("POST /api/v1/files?name=Plano.csv", &said, b"").await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "name-taken"), "no leave to send was given");
    assert_eq!(held(&data), before);

    // A form with two files, sent in pieces.
    let form = "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nno file\r\n\
        --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"um.txt\"\r\n\r\nfirst\r\n\
        --b\r\nContent-Disposition: form-data; name=\"g\"; filename=\"dois.txt\"\r\n\r\nsecond\r\n--b--\r\n";
    let content_type = "Content-Type: multipart/form-data; boundary=b";
    let sent = api.ask("POST /api/v1/files", &[content_type], form.as_bytes()).await;
    assert_eq!(sent.status, 201, "{}", sent.head);
    let names: Vec<_> = sent.json()["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["um.txt", "dois.txt"]);
    assert_eq!(api.get("/api/v1/files/dois.txt/content").await.body, b"second");
    let broken = api.ask("POST /api/v1/files", &[content_type], &form.as_bytes()[..120]).await;
    assert_eq!(broken.code(), "bad-form");
    assert_eq!(api.ask("POST /api/v1/files", &[content_type], b"--b--\r\n").await.code(), "bad-form");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_go_up_and_down_in_flat_memory() {
    let size = 256 * MIB as u64;
    let network = Network::start_changed(1, 1, POLLS, |plan| plan.files_bytes = size).await;
    let node = network.node(0);
    let api = Api::of(node);
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "POST /api/v1/files?name=big HTTP/1.1\r\nHost: {}\r\n{}\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n",
        api.address,
        api.authorization()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece: Vec<u8> = (0..MIB).map(|n| u8::try_from(n % 253).unwrap()).collect();
    for _ in 0..256 {
        stream.write_all(&piece).await.unwrap();
    }
    let uploaded = read(&mut stream).await;
    assert_eq!(uploaded.status, 201, "{}", uploaded.head);

    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "GET /api/v1/files/big/content HTTP/1.1\r\nHost: {}\r\n{}\r\nConnection: close\r\n\r\n",
        api.address,
        api.authorization()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let mut received = vec![0; MIB];
    for number in 0..256 {
        stream.read_exact(&mut received).await.unwrap();
        assert!(received == piece, "MiB {number}");
    }
    let most = crate::support::memory(node.pid().unwrap(), "VmHWM:");
    println!("at most {} KiB", most / 1024);
    assert!(most < BUSY_MAX_BYTES, "the node took {most} bytes");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_was_away_goes_on_after_the_last_event_it_saw() {
    let network = Network::start(1, 1, POLLS).await;
    let api = Api::of(network.node(0));
    let watch = async |last: Option<&str>, events: usize| {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\n{}\r\n{last}\r\n",
            api.address,
            api.authorization()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        let reading = async {
            while text.matches("\nid: ").count() < events {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "the stream ended: {text}");
                text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the events come");
        text
    };
    let ids = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
    };
    let ready = watch(None, 1).await;
    assert!(ready.contains("event: ready"), "{ready}");
    let begin = ids(&ready)[0].clone();
    for name in ["um", "dois \u{2028} linhas", "três"] {
        // A line separator is no name; the others are.
        let status = api.upload(name, name.as_bytes()).await.status;
        assert!(status == 201 || name.contains('\u{2028}') && status == 400, "{name:?}: {status}");
    }
    let both = watch(Some(&begin), 2).await;
    assert_eq!(both.matches("event: file_added").count(), 2, "{both}");
    assert!(both.contains("\"name\":\"um\"") && both.contains("\"name\":\"três\""), "{both}");
    let first = ids(&both)[0].clone();
    let later = watch(Some(&first), 1).await;
    assert!(!later.contains("\"name\":\"um\"") && later.contains("\"name\":\"três\""), "{later}");
    for unknown in ["", "x", "00000000-1", "ffffffff-18446744073709551615"] {
        let reset = watch(Some(unknown), 1).await;
        assert!(reset.contains("event: reset"), "{unknown:?}: {reset}");
    }
    // The stream ends with the node, in order.
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_come_in_pages_and_odd_requests_are_refused_in_words() {
    let network = Network::start(1, 1, POLLS).await;
    let api = Api::of(network.node(0));
    for number in 0..5 {
        assert_eq!(api.upload(&format!("f{number}"), b"x").await.status, 201);
    }
    eventually("all are listed", async || {
        api.get("/api/v1/files").await.json()["files"].as_array().unwrap().len() == 5
    })
    .await;
    let (mut names, mut target) = (Vec::new(), "/api/v1/files?limit=2".to_owned());
    let cursor = loop {
        let page = api.get(&target).await.json();
        names
            .extend(page["files"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break target };
        target = format!("/api/v1/files?limit=2&cursor={next}");
        // New ones before the place change nothing for the pages to come.
        if names.len() == 2 {
            assert_eq!(api.upload("a-new", b"x").await.status, 201);
        }
    };
    assert_eq!(names, ["f0", "f1", "f2", "f3", "f4"]);
    assert!(cursor.contains("cursor="));
    for (path, status, code) in [
        ("/api/v1/files?limit=0", 400, "bad-limit"),
        ("/api/v1/files?limit=501", 400, "bad-limit"),
        ("/api/v1/files?limit=x", 400, "bad-request"),
        ("/api/v1/files?cursor=zzz", 400, "bad-cursor"),
        ("/api/v1/transfers?cursor=zzz", 400, "bad-cursor"),
        ("/api/v1/members?limit=0", 400, "bad-limit"),
        ("/api/v1/files/nothing", 404, "unknown-file"),
        ("/api/v1/files/%FF", 400, "bad-request"),
    ] {
        let refused = api.get(path).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{path}");
    }
    let options = api.ask("OPTIONS /api/v1/files", &[], b"").await;
    assert_eq!((options.status, options.header("allow")), (405, "GET,HEAD,POST"));
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_with_headers_is_cut_off_and_keeps_nobody_from_their_answer() {
    let network = Network::start(1, 1, POLLS).await;
    let api = Api::of(network.node(0));
    let mut slow = TcpStream::connect(api.address).await.unwrap();
    slow.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: ").await.unwrap();
    assert_eq!(api.get("/api/v1/status").await.status, 200);
    // The ten seconds for headers are the daemon's own.
    let answer = read(&mut slow).await;
    assert_ne!(answer.status, 200, "{}", answer.head);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_network_joins_when_it_is_told_of_an_invite_over_http() {
    let network = Network::start(1, 1, POLLS).await;
    let plan = outsider("filial-nova", Role::Node);
    let joiner = network.cluster.outsider(plan).unwrap();
    let mut serve = std::process::Command::new(crate::support::program("quarta"));
    serve.args(["--data".as_ref(), joiner.data().as_os_str(), "serve".as_ref(), "--await-invite".as_ref()]);
    serve.args(["--http", &joiner.http().to_string()]).stdout(fs::File::create("/dev/null").unwrap());
    let log = network.home.path().join("joiner.log");
    serve.stderr(fs::File::create(&log).unwrap());
    let process = Process::spawn(serve).unwrap();
    eventually("it waits for an invite", async || joiner.token().is_ok() && is_open(joiner.http()).await)
        .await;

    let api = Api::of(&joiner);
    assert_eq!(api.raw("GET /healthz", &[&format!("Host: {}", api.address)], b"").await.status, 200);
    assert_eq!(api.get("/readyz").await.code(), "unavailable");
    let register = async |invite: &str, name: &str, headers: &[&str]| {
        let listen = format!("/ip4/127.0.0.1/tcp/{}", joiner.peer_port());
        let body = json!({ "invite": invite, "name": name, "listen": [listen] }).to_string();
        api.ask("POST /api/v1/register", headers, body.as_bytes()).await
    };
    let json_body = ["Content-Type: application/json"];
    let issue = async || {
        let issued = network.superpeer(0).superpeer().invite("node", 1, Duration::from_mins(10)).await;
        issued.unwrap().invite
    };
    let invite = issue().await;
    let foreign = [json_body[0], "Origin: http://evil.example"];
    assert_eq!(register(&invite, "filial-nova", &foreign).await.code(), "foreign-origin");
    assert_eq!(register("quarta1nonsense", "filial-nova", &json_body).await.code(), "bad-invite");
    assert_eq!(register(&invite, "../filial", &json_body).await.code(), "bad-name");
    // A refusal leaves everything as it was, for another try with another name.
    assert_eq!(register(&invite, network.node(0).name(), &json_body).await.code(), "not-admitted");

    let joined = register(&invite, "filial-nova", &json_body).await;
    assert_eq!(joined.status, 200, "{}", joined.head);
    assert_eq!(joined.json()["name"], "filial-nova");
    eventually("it serves as a member", async || api.is_ready().await).await;
    // With the token that it had before.
    let status = api.get("/api/v1/status").await.json();
    assert_eq!((&status["name"], &status["healthy"]), (&json!("filial-nova"), &json!(true)), "{status}");
    assert_eq!(api.get("/api/v1/files").await.status, 200);
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains(&invite) && !log.contains(&api.token), "{log}");
    process.signal(Signal::TERM).unwrap();
    assert!(process.wait().await.success());
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_told_of_no_invite_leaves_nothing_behind() {
    let home = crate::support::home();
    let data = home.path().join("data");
    let mut serve = std::process::Command::new(crate::support::program("quarta"));
    serve.args(["--data".as_ref(), data.as_os_str(), "serve".as_ref(), "--await-invite".as_ref()]);
    serve.args(["--http", "127.0.0.1:0"]).stderr(fs::File::create("/dev/null").unwrap());
    let process = Process::spawn(serve).unwrap();
    eventually("it waits for an invite", async || data.join("api.sock").exists()).await;
    process.signal(Signal::TERM).unwrap();
    assert!(process.wait().await.success());
    assert!(!data.exists(), "{data:?} is still there");
}

async fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}
