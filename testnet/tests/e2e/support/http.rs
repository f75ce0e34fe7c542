//! A member's HTTP API, spoken to by hand, so that anything at all can be sent and every byte of the answer is seen.

use std::net::SocketAddr;
use std::time::Duration;

use quarta_testnet::cluster::Member;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Far above what any answer takes, so that a test that hangs fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An answer as it came.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next_back()
            .unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.head))
    }

    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.head);
        let problem = self.json();
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
        assert!(!problem["next_step"].as_str().unwrap().is_empty(), "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

/// A member's API over TCP, spoken to by hand, so that anything at all can be sent.
pub struct Api {
    pub address: SocketAddr,
    pub token: String,
}

impl Api {
    pub fn of(member: &Member) -> Self {
        Self { address: member.http(), token: member.token().unwrap() }
    }

    pub fn authorization(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// Sends a request with exactly these headers, and reads the answer until the connection closes.
    pub async fn raw(&self, line: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.exchange(line, headers, body).await.unwrap()
    }

    /// Whether it is there and says that it is ready, also while it is starting or changing what it serves.
    pub async fn is_ready(&self) -> bool {
        let host = format!("Host: {}", self.address);
        self.exchange("GET /readyz", &[&host], b"").await.is_ok_and(|answer| answer.status == 200)
    }

    async fn exchange(&self, line: &str, headers: &[&str], body: &[u8]) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address).await?;
        let mut request = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            request.extend([header, "\r\n"]);
        }
        stream.write_all((request + "\r\n").as_bytes()).await?;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(body).await;
        Ok(read(&mut stream).await)
    }

    /// A request as a program of this member's user sends it.
    pub async fn ask(&self, line: &str, headers: &[&str], body: &[u8]) -> Answer {
        let (host, token) = (format!("Host: {}", self.address), self.authorization());
        let length = format!("Content-Length: {}", body.len());
        let mut all = vec![host.as_str(), &token];
        if !body.is_empty() || line.starts_with("POST") {
            all.push(&length);
        }
        all.extend_from_slice(headers);
        self.raw(line, &all, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], b"").await
    }

    pub async fn upload(&self, name: &str, bytes: &[u8]) -> Answer {
        self.ask(&format!("POST /api/v1/files?name={}", encoded(name)), &[], bytes).await
    }
}

pub async fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the answer ends");
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Answer { status, head, body: bytes.split_off(end) }
}

pub fn encoded(text: &str) -> String {
    text.bytes().flat_map(|byte| ['%', digit(byte >> 4), digit(byte & 15)]).collect()
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap()
}
