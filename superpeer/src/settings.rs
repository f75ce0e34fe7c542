//! What an operator decided for this super-peer: `settings.toml` in the data folder.

use std::{ops::RangeInclusive, time::Duration};

use libp2p::Multiaddr;
use quarta_daemon::{
    cli::Failure,
    reach::{Reach, default_listen},
};
use quarta_protocols::credentials::NODE_LIFETIME;
use serde::{Deserialize, Serialize};

use crate::{
    placement::{CEILING, Copies, FLOOR, NODES_PER_COPY},
    replication::Config,
};

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
    /// How many copies of each file there are.
    pub replication: Replication,
}

/// How copies of files are kept: the table `[replication]`. All super-peers of a network should have the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replication {
    /// One copy for so many nodes: 3 gives each file a copy on a third of them.
    pub nodes_per_copy: u32,
    /// Copies that a file has at least, where there are as many nodes.
    pub floor: u32,
    /// Copies that a file has at most, those in libraries left aside; 1 for no replicas.
    pub ceiling: u32,
    /// How long a node may be away before its copies are made anew, in seconds; within [`GRACE_SECONDS`].
    pub grace_seconds: u64,
    /// How much is copied over the whole network, in bytes a second; 0 for no bound. A fetch by a person goes first anyway.
    pub bytes_per_second: u64,
}

/// How long a node may be away before its copies are made anew, in seconds. Shorter, and a lost packet moves gigabytes;
/// longer, and files are in danger for more than a week.
pub const GRACE_SECONDS: RangeInclusive<u64> = 1..=604_800;
/// A machine that restarts after an update is back by then.
const DEFAULT_GRACE: Duration = Duration::from_mins(15);
/// A quarter of a fast line, for all branches together.
const DEFAULT_BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;

impl Default for Replication {
    fn default() -> Self {
        Self {
            nodes_per_copy: NODES_PER_COPY,
            floor: FLOOR,
            ceiling: CEILING,
            grace_seconds: DEFAULT_GRACE.as_secs(),
            bytes_per_second: DEFAULT_BYTES_PER_SECOND,
        }
    }
}

impl Replication {
    /// The settings, checked.
    ///
    /// # Errors
    /// A [`Failure`] that names what contradicts itself, or the bounds.
    pub fn config(&self) -> Result<Config, Failure> {
        let fail = |why: String| {
            Failure::new(
                "cannot keep copies as configured",
                why,
                "correct the table [replication] in settings.toml",
            )
        };
        let copies =
            Copies::new(self.nodes_per_copy, self.floor, self.ceiling).map_err(|e| fail(e.to_string()))?;
        if !GRACE_SECONDS.contains(&self.grace_seconds) {
            let (least, most) = (GRACE_SECONDS.start(), GRACE_SECONDS.end());
            return Err(fail(format!(
                "grace_seconds is {}, and {least} to {most} are possible",
                self.grace_seconds
            )));
        }
        Ok(Config {
            copies,
            grace: Duration::from_secs(self.grace_seconds),
            rate_bytes_per_second: (self.bytes_per_second > 0).then_some(self.bytes_per_second),
        })
    }
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
            replication: Replication::default(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_kept_as_the_design_says_unless_an_operator_decides_otherwise() {
        let config = Replication::default().config().unwrap();
        assert_eq!(config.copies, Copies::default());
        assert_eq!((config.copies.target(12), config.copies.floor(12), config.copies.target(2)), (4, 3, 2));
        let none = Replication { floor: 1, ceiling: 1, bytes_per_second: 0, ..Replication::default() };
        let config = none.config().unwrap();
        assert_eq!((config.copies.target(70), config.rate_bytes_per_second), (1, None));
        for wrong in [
            Replication { nodes_per_copy: 0, ..Replication::default() },
            Replication { floor: 0, ..Replication::default() },
            Replication { ceiling: 2, ..Replication::default() },
            Replication { grace_seconds: 0, ..Replication::default() },
            Replication { grace_seconds: *GRACE_SECONDS.end() + 1, ..Replication::default() },
        ] {
            assert!(wrong.config().is_err(), "{wrong:?}");
        }
    }
}
