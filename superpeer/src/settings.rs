//! What an operator decided for this super-peer: `settings.toml` in the data folder.

use std::{net::SocketAddr, time::Duration};

use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

/// The TCP and UDP port for members.
pub const DEFAULT_PORT: u16 = 7491;
/// The HTTP address.
pub const DEFAULT_HTTP: &str = "127.0.0.1:7490";
/// How often nodes are polled.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(15);

/// The settings; every key may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where members connect to.
    pub listen: Vec<Multiaddr>,
    /// Under which addresses members reach it from elsewhere, e.g. behind a port forwarding.
    pub external: Vec<Multiaddr>,
    /// Where the HTTP API is served; empty for nowhere but the local socket.
    pub http: String,
    /// Further host names under which the HTTP API is reached, e.g. behind a proxy.
    pub http_names: Vec<String>,
    /// Whether `/metrics` is answered without the token.
    pub open_metrics: bool,
    /// How often nodes are polled, in milliseconds.
    pub poll_interval_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: quarta_daemon::joining::default_listen(DEFAULT_PORT),
            external: Vec::new(),
            http: DEFAULT_HTTP.to_owned(),
            http_names: Vec::new(),
            open_metrics: false,
            poll_interval_ms: u64::try_from(DEFAULT_POLL_INTERVAL.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Settings {
    /// The HTTP address, if one is set.
    ///
    /// # Errors
    /// The text that is not an address.
    pub fn http_address(&self) -> Result<Option<SocketAddr>, String> {
        if self.http.is_empty() {
            return Ok(None);
        }
        self.http.parse().map(Some).map_err(|_| self.http.clone())
    }

    /// How often nodes are polled.
    pub const fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }
}
