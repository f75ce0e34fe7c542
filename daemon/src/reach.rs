//! Where a member is reached: the addresses it listens at, and those it tells others.

use crate::cli::Failure;
use crate::identity::Identity;
use crate::observer::Recorder;
use crate::open_files::OpenFiles;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use quarta_protocols::credentials::Role;
use quarta_protocols::limits::ADDRESSES_MAX;
use quarta_protocols::members::Enrolment;
use quarta_protocols::network::limits::CONNECTIONS_MAX;
use quarta_protocols::network::{AddressPolicy, Config, Event, Network};
use std::net::SocketAddr;
use tokio::sync::mpsc;

/// Where a member is reached, as its settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Where it accepts members.
    pub listen: Vec<Multiaddr>,
    /// Under which addresses members reach it from elsewhere, e.g. behind a port forwarding.
    pub external: Vec<Multiaddr>,
}

/// All IPv4 interfaces, over TCP and QUIC.
///
/// # Panics
/// Never: the addresses are well formed for every port.
pub fn default_listen(port: u16) -> Vec<Multiaddr> {
    [format!("/ip4/0.0.0.0/tcp/{port}"), format!("/ip4/0.0.0.0/udp/{port}/quic-v1")]
        .iter()
        .map(|address| address.parse().expect("a fixed form with a port is an address"))
        .collect()
}

/// The HTTP address that settings hold as text; none where it is empty.
///
/// # Errors
/// A [`Failure`] that names the text.
pub fn http_address(text: &str) -> Result<Option<SocketAddr>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let why = format!("{text:?} is not an address with a port");
        Failure::new("cannot use the settings", why, "correct http in settings.toml, e.g. 127.0.0.1:7480")
    })
}

impl Reach {
    /// Which of others' addresses this member dials: loopback only where it listens there itself, as a cluster on one
    /// machine does.
    pub fn policy(&self) -> AddressPolicy {
        let loopback = |protocol| match protocol {
            Protocol::Ip4(ip) => ip.is_loopback(),
            Protocol::Ip6(ip) => ip.is_loopback(),
            _ => false,
        };
        let loopback = self.listen.iter().any(|address| address.iter().any(loopback));
        AddressPolicy { loopback, ..AddressPolicy::default() }
    }

    /// Starts the network as this member.
    ///
    /// # Errors
    /// A [`Failure`] where an address cannot be listened at.
    pub fn start(
        &self,
        identity: &Identity,
        role: Role,
        open_files: OpenFiles,
        recorder: Recorder,
    ) -> Result<(Network, mpsc::Receiver<Event>), Failure> {
        let config = Config {
            enrolment: Some(enrolment(identity)),
            listen: self.listen.clone(),
            external: self.external.clone(),
            addresses: self.policy(),
            connections: open_files.member_connections(CONNECTIONS_MAX),
            observer: Box::new(recorder),
            ..Config::new(
                identity.keys.identity.clone(),
                identity.trust.clone(),
                role,
                env!("CARGO_PKG_VERSION"),
            )
        };
        Network::start(config).map_err(|e| {
            let next = "stop the program that has the port, or change listen in settings.toml";
            Failure::new("cannot listen for members", e.to_string(), next)
        })
    }

    /// What this member tells others of where it is reached: first what the operator configured, then what it listens
    /// at, without addresses that mean nothing elsewhere.
    pub async fn advertised(&self, network: &Network) -> Vec<Multiaddr> {
        let own = network.local_peer();
        let listening = network.listen_addresses().await;
        let all: Vec<Multiaddr> = self.external.iter().cloned().chain(listening).collect();
        let mut chosen = self.policy().select(&own, all.clone());
        if chosen.is_empty() {
            // A machine without a network still takes part in a cluster on itself.
            chosen = AddressPolicy::ONE_MACHINE.select(&own, all);
        }
        chosen.truncate(ADDRESSES_MAX);
        chosen
    }
}

/// What a member shows of itself.
pub fn enrolment(identity: &Identity) -> Enrolment {
    Enrolment {
        peer: identity.keys.peer(),
        credential: identity.credential.clone(),
        sealing_key: identity.sealing_statement(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(listen: &str) -> Reach {
        Reach { listen: vec![listen.parse().unwrap()], external: Vec::new() }
    }

    #[test]
    fn loopback_addresses_of_others_are_dialled_only_by_who_listens_there() {
        assert!(reach("/ip4/127.0.0.1/tcp/0").policy().loopback);
        assert!(!reach("/ip4/0.0.0.0/tcp/7481").policy().loopback);
    }

    #[test]
    fn an_http_address_is_an_address_or_nothing() {
        assert_eq!(http_address("").unwrap(), None);
        assert_eq!(http_address("127.0.0.1:7480").unwrap(), Some(([127, 0, 0, 1], 7480).into()));
        let text = http_address("localhost").unwrap_err().to_string();
        assert!(text.contains("\"localhost\" is not an address with a port"), "{text}");
    }
}
