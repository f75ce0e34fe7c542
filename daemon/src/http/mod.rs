//! The local API's listener: one router, served on a Unix socket and on a TCP address.
//!
//! Guarantees: over TCP nothing but `/healthz`, `/readyz` and, where the operator opened it, `/metrics` is
//! answered without the bearer token, and nothing at all for a foreign `Host` or `Origin`, so that a web page
//! cannot reach the API by DNS rebinding or a forged form. The socket needs no token, because its mode 0600
//! and the folder around it let in exactly those who could read the token's file; that is what commands use,
//! and why another user who binds the TCP port while the daemon is down gets no token. Slow headers, stalled
//! bodies, oversized headers and too many connections are cut off. Every error body is a [`Problem`].
//!
//! `axum::serve` is not used: it has no header timeout and no limit on connections. Only HTTP/1.1 is spoken,
//! which is what local clients and scrapers speak and what has the fewest ways to be abused.

mod browser;
mod connections;
mod description;
mod guard;
mod headers;
mod problem;
mod sessions;
mod shapes;
mod swagger;
mod token;

pub use browser::LoginLink;
pub use description::{DESCRIPTION_PATH, documented};
pub use guard::Caller;
pub use problem::{PROBLEM_JSON, Problem};
pub use shapes::{Member, MemberPage, PAGE_MAX, Paging, Search, cursor, exposition};
pub use token::{TOKEN_FILE, Token, TokenError};

use crate::data_dir::{DataDir, Draft, Folder, Lock};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use browser::Browsers;
use connections::Acceptor;
use guard::Guard;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// The API's socket in the data folder.
pub const SOCKET_FILE: &str = "api.sock";

/// The longest body, in bytes, that axum's extractors take unless a route says otherwise. Requests are small
/// JSON; what is large is streamed, under its route's own limit.
pub const DEFAULT_BODY_BYTES: usize = 1024 * 1024;

/// Bounds on what strangers can occupy. The defaults fit every daemon; tests shorten the times.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a connection may take for a request's headers, which also bounds an idle kept-alive one.
    pub header_read: Duration,
    /// How long a body may pause between two pieces.
    pub body_pause: Duration,
    /// How long open requests may still run once the daemon stops.
    pub grace: Duration,
    /// Connections at once on the TCP address; more wait in the kernel's queue. The socket has as many of its
    /// own, so that strangers cannot lock out the operator.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A local client sends its headers in one piece.
            header_read: Duration::from_secs(10),
            // An upload from a branch over a bad link may stall for a while.
            body_pause: Duration::from_mins(1),
            // Shorter than the 10 s after which container runtimes kill.
            grace: Duration::from_secs(5),
            // A console tab takes up to six; each costs some 16 KiB here.
            connections: 256,
        }
    }
}

/// Where and for whom the API is served.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The TCP address, if any; port 0 picks a free one.
    pub tcp: Option<SocketAddr>,
    /// Further host names under which browsers and scripts reach the TCP address, without port, as behind a
    /// proxy.
    pub names: Vec<String>,
    /// Whether `/metrics` is answered without the token.
    pub open_metrics: bool,
    /// Bounds on connections.
    pub limits: Limits,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error(
        "cannot serve the API on {address}: the port is in use by another program; \
         stop that one, or choose another address with --http"
    )]
    PortInUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The address could not be bound for another reason.
    #[error("cannot serve the API on {address}: {cause}; choose another address with --http")]
    Tcp {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The socket could not be made.
    #[error("cannot serve the API on {}: {cause}; {}", path.display(), socket_next_step(path))]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The token could not be read or made.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// The kernel holds a socket's path in 108 bytes with its end.
const MAX_SOCKET_PATH_BYTES: usize = 107;

fn socket_next_step(path: &Path) -> &'static str {
    if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        "its path is too long for a socket: use a data folder with a shorter path"
    } else {
        "check the data folder and start again"
    }
}

/// A bound but not yet serving API. Dropping it removes the socket.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    socket_file: SocketFile,
    tcp: Option<(TcpListener, SocketAddr)>,
    guard: Option<Guard>,
    browsers: Browsers,
    limits: Limits,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds the TCP address, then the socket; makes the token where there is none.
    ///
    /// The lock proves that a socket that is there already is a leftover. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`BindError`]; nothing stays bound then.
    pub async fn bind(dir: &DataDir, _lock: &Lock, config: Config) -> Result<Self, BindError> {
        Self::bind_in(dir.folder(), config).await
    }

    /// As [`Listener::bind`], for a data folder in the making, which is locked as long as it is one. The token becomes the
    /// data folder's.
    ///
    /// # Errors
    /// [`BindError`]; nothing stays bound then.
    pub async fn bind_draft(draft: &Draft, config: Config) -> Result<Self, BindError> {
        Self::bind_in(draft.folder(), config).await
    }

    async fn bind_in(folder: &Folder, config: Config) -> Result<Self, BindError> {
        let mut tcp = None;
        let mut guard = None;
        let mut browsers = Browsers::default();
        if let Some(address) = config.tcp {
            let token = Token::load_or_create(folder)?;
            let listener = TcpListener::bind(address).await.map_err(|cause| match cause.kind() {
                io::ErrorKind::AddrInUse => BindError::PortInUse { address },
                _ => BindError::Tcp { address, cause },
            })?;
            let bound = listener.local_addr().map_err(|cause| BindError::Tcp { address, cause })?;
            if !bound.ip().is_loopback() {
                tracing::warn!(%bound, "the API is reachable from other machines without encryption; \
                    put a TLS proxy before it or serve it on 127.0.0.1");
            }
            browsers = Browsers::at(bound);
            let (names, open_metrics) = (config.names, config.open_metrics);
            guard = Some(Guard::new(token, bound.ip(), names, open_metrics, browsers.clone()));
            tcp = Some((listener, bound));
        }
        let path = folder.path().join(SOCKET_FILE);
        let (socket, socket_file) = bind_socket(&path).map_err(|cause| BindError::Socket { path, cause })?;
        Ok(Self { socket, socket_file, tcp, guard, browsers, limits: config.limits })
    }

    /// The TCP address with its actual port.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|(_, address)| *address)
    }

    /// Serves `router` until `stop` is cancelled and open requests are answered or their grace is over.
    ///
    /// `router` comes from [`documented`]. Handlers find a [`Caller`] among the request's extensions. Endless responses (event streams) should
    /// end by themselves when the daemon stops; those that do not are cut off.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let router = router
            .layer(DefaultBodyLimit::max(DEFAULT_BODY_BYTES))
            .layer(axum::Extension(self.browsers))
            .layer(axum::middleware::map_response(problem::unify));
        let local = headers::on_all(router.clone().layer(axum::Extension(Caller::Local)));
        let socket = connections::serve(self.socket, local, self.limits, stop.clone());
        match (self.tcp, self.guard) {
            (Some((listener, _)), Some(guard)) => {
                let remote = headers::on_all(guard.before(router.layer(axum::Extension(Caller::Remote))));
                tokio::join!(socket, connections::serve(listener, remote, self.limits, stop));
            }
            _ => socket.await,
        }
        drop(self.socket_file);
    }
}

fn bind_socket(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else is in its place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    // Between bind and here the folder's own mode 0700 keeps others out.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok((socket, file))
}

/// What the accept loop needs of a listener, so that both kinds share it.
impl Acceptor for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept_one(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

impl Acceptor for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept_one(&self) -> io::Result<Self::Stream> {
        let (stream, _) = self.accept().await?;
        // Small responses must not wait for the peer's delayed acknowledgement.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
