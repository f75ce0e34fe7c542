//! What an operator decided for this super-peer: `settings.toml` in the data folder.

use std::{ops::RangeInclusive, time::Duration};

use libp2p::Multiaddr;
use quarta_daemon::{
    cli::Failure,
    reach::{Reach, default_listen},
};
use quarta_protocols::credentials::NODE_LIFETIME;
use serde::{Deserialize, Serialize};

/// The TCP and UDP port for members.
pub const DEFAULT_PORT: u16 = 7491;
/// The HTTP address.
pub const DEFAULT_HTTP: &str = "127.0.0.1:7490";
/// For how long a node's credential can be good. Shorter, and a super-peer's failure on a Friday night is everybody's by
/// Saturday; longer, and a stolen machine that nobody reports stays a member for a season.
pub const NODE_CREDENTIAL_HOURS: RangeInclusive<u64> = 1..=2160;
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
    /// For how long the credentials are good that it gives to nodes, in hours; within [`NODE_CREDENTIAL_HOURS`].
    pub node_credential_hours: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: default_listen(DEFAULT_PORT),
            external: Vec::new(),
            http: DEFAULT_HTTP.to_owned(),
            http_names: Vec::new(),
            open_metrics: false,
            node_credential_hours: NODE_LIFETIME.as_secs() / 3600,
            poll_interval_ms: u64::try_from(DEFAULT_POLL_INTERVAL.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Settings {
    /// Where the member is reached.
    pub fn reach(&self) -> Reach {
        Reach { listen: self.listen.clone(), external: self.external.clone() }
    }

    /// For how long the credentials are good that it gives to nodes.
    ///
    /// # Errors
    /// A [`Failure`] that names the bounds.
    pub fn node_lifetime(&self) -> Result<Duration, Failure> {
        if NODE_CREDENTIAL_HOURS.contains(&self.node_credential_hours) {
            return Ok(Duration::from_secs(self.node_credential_hours * 3600));
        }
        let (least, most) = (NODE_CREDENTIAL_HOURS.start(), NODE_CREDENTIAL_HOURS.end());
        Err(Failure::new(
            "cannot issue credentials as configured",
            format!(
                "node_credential_hours is {}, and {least} to {most} are possible",
                self.node_credential_hours
            ),
            "correct node_credential_hours in settings.toml",
        ))
    }

    /// How often nodes are polled.
    pub const fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }
}
