//! The local API over real sockets: who is let in, and what is cut off.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use axum::extract::Json;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Router};
use quarta_daemon::client::{Client, ClientError, Target};
use quarta_daemon::http::{BindError, Caller, Config, Limits, Listener, Problem, SOCKET_FILE, TOKEN_FILE};
use quarta_daemon::{DataDir, Lock, Marker, Role};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Far above what any step takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(10);

struct Api {
    _place: tempfile::TempDir,
    dir: DataDir,
    address: SocketAddr,
    stop: CancellationToken,
    /// Told when a slow or an endless request has reached its handler.
    entered: Arc<Notify>,
    served: tokio::task::JoinHandle<()>,
}

fn data_dir() -> (tempfile::TempDir, DataDir, Lock) {
    let place = tempfile::tempdir().unwrap();
    let marker = Marker { role: Role::Node, network: "00".into(), name: "filial".into() };
    let dir = DataDir::create(&place.path().join("data"), marker).unwrap();
    let lock = dir.lock().unwrap();
    (place, dir, lock)
}

fn free_port() -> Config {
    Config { tcp: Some(([127, 0, 0, 1], 0).into()), ..Config::default() }
}

fn router(entered: Arc<Notify>) -> Router {
    let also_entered = Arc::clone(&entered);
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route(
            "/caller",
            get(|Extension(caller): Extension<Caller>| async move { format!("\"{caller:?}\"") }),
        )
        .route("/echo", post(|Json(value): Json<Value>| async move { Json(value) }))
        .route("/upload", post(|body: axum::body::Body| async move { count(body).await }))
        .route("/lines", get(|| async { "{\"n\":1}\n{\"n\":2}\n" }))
        .route(
            "/slow",
            get(async move || {
                entered.notify_one();
                tokio::time::sleep(Duration::from_millis(300)).await;
                "\"done\""
            }),
        )
        .route(
            "/endless",
            get(async move || {
                also_entered.notify_one();
                std::future::pending::<()>().await;
            }),
        )
        .route(
            "/denied",
            get(|| async {
                Problem::new(
                    StatusCode::FORBIDDEN,
                    "not-owner",
                    "only the owner may do this",
                    "ask the owner",
                )
            }),
        )
}

async fn count(body: axum::body::Body) -> Result<String, StatusCode> {
    use futures::TryStreamExt;
    let pieces = body.into_data_stream().try_fold(0, |sum, piece| async move { Ok(sum + piece.len()) });
    pieces.await.map(|sum| sum.to_string()).map_err(|_| StatusCode::REQUEST_TIMEOUT)
}

async fn serve(config: Config) -> Api {
    let (place, dir, lock) = data_dir();
    let listener = Listener::bind(&dir, &lock, config).await.unwrap();
    let address = listener.tcp_address().unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let entered = Arc::new(Notify::new());
    let handlers = Arc::clone(&entered);
    let served = tokio::spawn(async move {
        listener.serve(router(handlers), stopped).await;
        drop(lock);
    });
    Api { _place: place, dir, address, stop, entered, served }
}

impl Api {
    fn token(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(TOKEN_FILE)).unwrap().trim().to_owned()
    }

    fn client(&self) -> Client {
        Client::new(self.dir.path())
    }

    /// Sends raw bytes over TCP and returns all that comes back until the connection closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        rest(&mut stream).await
    }

    async fn ask(&self, line: &str, headers: &[&str]) -> String {
        let mut request = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            request.extend([header, "\r\n"]);
        }
        self.raw(&(request + "\r\n")).await
    }

    async fn authorized(&self, line: &str) -> String {
        self.ask(line, &["Host: localhost", &format!("Authorization: Bearer {}", self.token())]).await
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an end.
    let _ =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    String::from_utf8(bytes).unwrap()
}

fn problem(response: &str) -> Problem {
    assert!(response.contains("content-type: application/problem+json"), "{response}");
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn without_or_with_a_wrong_token_nothing_but_health_is_answered_over_tcp() {
    let api = serve(free_port()).await;
    assert!(api.ask("GET /healthz", &["Host: localhost"]).await.starts_with("HTTP/1.1 200"));
    for path in ["/caller", "/metrics", "/", "/nowhere"] {
        let response = api.ask(&format!("GET {path}"), &["Host: localhost"]).await;
        assert!(response.starts_with("HTTP/1.1 401"), "{response}");
        assert!(response.contains("www-authenticate: Bearer"), "{response}");
        assert_eq!(problem(&response).code, "no-token");
    }
    let wrong = api.ask("GET /caller", &["Host: localhost", "Authorization: Bearer wrong"]).await;
    assert_eq!(problem(&wrong).code, "wrong-token");
    let right = api.authorized("GET /caller").await;
    assert!(right.starts_with("HTTP/1.1 200") && right.ends_with("\"Remote\""), "{right}");
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_even_with_the_token() {
    let api = serve(free_port()).await;
    let token = format!("Authorization: Bearer {}", api.token());
    let host = api.ask("GET /caller", &["Host: evil.example", &token]).await;
    assert!(host.starts_with("HTTP/1.1 421"), "{host}");
    assert_eq!(problem(&host).code, "foreign-host");
    let origin = api.ask("GET /caller", &["Host: localhost", "Origin: http://evil.example", &token]).await;
    assert!(origin.starts_with("HTTP/1.1 403"), "{origin}");
    assert_eq!(problem(&origin).code, "foreign-origin");
    assert_eq!(problem(&api.ask("GET /healthz", &[]).await).code, "bad-host");
}

#[tokio::test]
async fn metrics_need_no_token_where_the_operator_opened_them() {
    let api = serve(Config { open_metrics: true, ..free_port() }).await;
    let response = api.ask("GET /metrics", &["Host: localhost"]).await;
    assert!(response.starts_with("HTTP/1.1 404"), "let through to the router, which has none: {response}");
}

#[tokio::test]
async fn the_sockets_owner_needs_no_token() {
    let api = serve(free_port()).await;
    let mode = std::fs::metadata(api.dir.path().join(SOCKET_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(api.client().get::<String>("/caller").await.unwrap(), "Local");
}

#[tokio::test]
async fn every_error_is_a_problem_with_a_next_step() {
    let api = serve(free_port()).await;
    for (line, status, code) in [
        ("GET /nowhere", 404, "not-found"),
        ("DELETE /echo", 405, "method-not-allowed"),
        ("POST /echo", 415, "unsupported-media-type"),
    ] {
        let problem = problem(&api.authorized(line).await);
        assert_eq!((problem.status, problem.code.as_str()), (status, code));
        assert!(!problem.detail.is_empty() && !problem.next_step.is_empty());
    }
    let allow = api.authorized("DELETE /echo").await;
    assert!(allow.contains("allow: POST"), "{allow}");
}

#[tokio::test]
async fn a_body_beyond_the_default_limit_is_refused() {
    let api = serve(free_port()).await;
    let big = "x".repeat(2 * 1024 * 1024);
    let error = api.client().post::<Value>("/echo", &big).await.unwrap_err();
    assert!(matches!(&error, ClientError::Problem(problem) if problem.status == 413), "{error}");
}

#[tokio::test]
async fn a_connection_that_trickles_or_withholds_its_headers_is_closed() {
    let limits = Limits { header_read: Duration::from_millis(200), ..Limits::default() };
    let api = serve(Config { limits, ..free_port() }).await;
    let begun = Instant::now();
    assert!(!api.raw("GET /healthz HTTP/1.1\r\nHost: local").await.starts_with("HTTP/1.1 200"));
    api.raw("").await;
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let limits = Limits { body_pause: Duration::from_millis(200), ..Limits::default() };
    let api = serve(Config { limits, ..free_port() }).await;
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 9\r\n\r\nabc",
        api.token()
    );
    assert_eq!(problem(&api.raw(&head).await).code, "timeout");
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let api = serve(free_port()).await;
    let long = format!("X-Long: {}", "x".repeat(20 * 1024));
    assert!(api.ask("GET /healthz", &["Host: localhost", &long]).await.starts_with("HTTP/1.1 431"));
    let many: Vec<String> = (0..100).map(|n| format!("X-{n}: 1")).collect();
    let many: Vec<&str> = std::iter::once("Host: localhost").chain(many.iter().map(String::as_str)).collect();
    assert!(api.ask("GET /healthz", &many).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn idle_strangers_can_fill_the_port_but_not_lock_out_the_operator() {
    let limits = Limits { connections: 2, header_read: Duration::from_millis(500), ..Limits::default() };
    let api = serve(Config { limits, ..free_port() }).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(api.address).await.unwrap());
    }
    assert_eq!(api.client().get::<String>("/caller").await.unwrap(), "Local");
    // They are dropped in turn, and then the port answers again.
    assert!(api.ask("GET /healthz", &["Host: localhost"]).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_port_in_use_says_so_and_leaves_no_socket() {
    let api = serve(free_port()).await;
    let (_place, dir, lock) = data_dir();
    let config = Config { tcp: Some(api.address), ..Config::default() };
    let error = Listener::bind(&dir, &lock, config).await.unwrap_err();
    assert!(matches!(error, BindError::PortInUse { address } if address == api.address));
    let text = error.to_string();
    assert!(text.contains(&api.address.to_string()) && text.contains("--http"), "{text}");
    assert!(!dir.path().join(SOCKET_FILE).exists());
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced_but_nothing_else_is() {
    let (_place, dir, lock) = data_dir();
    let path = dir.path().join(SOCKET_FILE);
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Listener::bind(&dir, &lock, Config::default()).await.unwrap());
    assert!(!path.exists(), "removed when the listener goes");
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(Listener::bind(&dir, &lock, Config::default()).await, Err(BindError::Socket { .. })));
    assert!(path.is_file());
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_explained() {
    let place = tempfile::tempdir().unwrap();
    let marker = Marker { role: Role::Node, network: "00".into(), name: "n".into() };
    let dir = DataDir::create(&place.path().join("x".repeat(120)), marker).unwrap();
    let lock = dir.lock().unwrap();
    let text = Listener::bind(&dir, &lock, Config::default()).await.unwrap_err().to_string();
    assert!(text.contains("shorter path"), "{text}");
}

#[tokio::test]
async fn stopping_answers_open_requests_and_refuses_new_ones() {
    let api = serve(free_port()).await;
    let client = api.client();
    let open = tokio::spawn(async move { client.get::<String>("/slow").await });
    tokio::time::timeout(PATIENCE, api.entered.notified()).await.expect("the request arrives");
    api.stop.cancel();
    assert_eq!(open.await.unwrap().unwrap(), "done");
    api.served.await.unwrap();
    assert!(TcpStream::connect(api.address).await.is_err());
    let client = Client::new(api.dir.path());
    assert!(matches!(client.get::<String>("/caller").await, Err(ClientError::NotRunning { .. })));
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_keep_the_daemon() {
    let limits = Limits { grace: Duration::from_millis(100), ..Limits::default() };
    let api = serve(Config { limits, ..free_port() }).await;
    let client = api.client();
    let open = tokio::spawn(async move { client.get::<()>("/endless").await });
    tokio::time::timeout(PATIENCE, api.entered.notified()).await.expect("the request arrives");
    api.stop.cancel();
    tokio::time::timeout(PATIENCE, api.served).await.expect("the daemon stops").unwrap();
    assert!(matches!(open.await.unwrap(), Err(ClientError::Broken { .. })));
}

#[tokio::test]
async fn a_client_sends_json_and_streams_and_reads_lines() {
    use futures::{StreamExt, TryStreamExt, stream};
    let api = serve(free_port()).await;
    let client = api.client();
    let sent = json!({"name": "relatório", "hide_from": ["a"]});
    assert_eq!(client.post::<Value>("/echo", &sent).await.unwrap(), sent);
    let pieces = stream::repeat_with(|| Ok(vec![7_u8; 64 * 1024].into())).take(64);
    let counted: u64 = client.upload(axum::http::Method::POST, "/upload", pieces).await.unwrap();
    assert_eq!(counted, 4 * 1024 * 1024);
    let lines: Vec<Value> = client.lines("/lines").await.unwrap().try_collect().await.unwrap();
    assert_eq!(lines, [json!({"n": 1}), json!({"n": 2})]);
    let raw: Vec<bytes::Bytes> = client.download("/lines").await.unwrap().try_collect().await.unwrap();
    assert_eq!(raw.concat(), b"{\"n\":1}\n{\"n\":2}\n");
}

#[tokio::test]
async fn a_client_tells_a_refusal_a_missing_path_and_a_missing_daemon_apart() {
    let api = serve(free_port()).await;
    let denied = api.client().get::<()>("/denied").await.unwrap_err();
    assert!(matches!(&denied, ClientError::Problem(problem) if problem.code == "not-owner"), "{denied}");
    let missing = api.client().get::<()>(Target::new("/files").segment("no such")).await.unwrap_err();
    assert!(matches!(&missing, ClientError::Problem(problem) if problem.status == 404), "{missing}");
    let nobody = Client::new("/nonexistent").get::<()>("/caller").await.unwrap_err();
    assert!(matches!(nobody, ClientError::NotRunning { .. }), "{nobody}");
}

#[tokio::test]
async fn an_upload_whose_source_fails_says_why() {
    use futures::stream;
    let api = serve(free_port()).await;
    let pieces = stream::iter([
        Ok(bytes::Bytes::from_static(b"abc")),
        Err(std::io::Error::other("the file vanished")),
    ]);
    let result = api.client().upload::<u64>(axum::http::Method::POST, "/upload", pieces).await;
    let error = result.unwrap_err();
    assert!(matches!(&error, ClientError::Broken { why } if why.contains("the file vanished")), "{error}");
}
