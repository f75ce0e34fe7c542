//! Which addresses are worth telling and worth dialling.
//!
//! What a peer advertises is its claim. Dialling it blindly lets a peer point others at their own loopback services
//! or flood a victim, so addresses that only mean something on one machine or one cable are dropped unless an operator
//! (or a test on one machine) wants them, and their count and length are bounded.

use std::net::{IpAddr, Ipv6Addr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use super::transport::Transport;
use crate::limits::ADDRESSES_MAX;

/// Longest address, in bytes of its binary form: a DNS name of 253 bytes with transport and two peer ids fits.
pub const ADDRESS_MAX_BYTES: usize = 384;

/// Which kinds of address may be told and dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    /// Loopback addresses, for members that share one machine.
    pub loopback: bool,
    /// Link-local addresses.
    pub link_local: bool,
}

impl AddressPolicy {
    /// Everything that can be dialled: for networks within one machine.
    pub const ONE_MACHINE: Self = Self { loopback: true, link_local: true };

    /// Whether an address is of a known shape and allowed.
    pub fn allows(self, address: &Multiaddr) -> bool {
        if address.as_ref().len() > ADDRESS_MAX_BYTES {
            return false;
        }
        let mut parts = address.iter();
        let host = match parts.next() {
            Some(Protocol::Ip4(ip)) => self.allows_ip(IpAddr::V4(ip)),
            Some(Protocol::Ip6(ip)) => self.allows_ip(IpAddr::V6(ip)),
            Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => {
                self.loopback || !(name.eq_ignore_ascii_case("localhost") || ends_with_localhost(&name))
            }
            _ => false,
        };
        let port = match parts.next() {
            Some(Protocol::Tcp(port)) => port != 0,
            Some(Protocol::Udp(port)) => port != 0 && matches!(parts.next(), Some(Protocol::QuicV1)),
            _ => false,
        };
        host && port && parts.all(|part| matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit))
    }

    fn allows_ip(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let nobody = ip.is_unspecified()
            || ip.is_multicast()
            || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
            || matches!(ip, IpAddr::V6(ip) if is_ipv4_compatible(ip) && !ip.is_loopback());
        !nobody && (self.loopback || !ip.is_loopback()) && (self.link_local || !link_local)
    }

    /// The allowed addresses of a peer in the order in which they are tried: TCP, QUIC, relayed; without duplicates,
    /// at most [`ADDRESSES_MAX`].
    ///
    /// A trailing `/p2p/<peer>` is removed; an address that names another peer is dropped.
    pub fn select(self, peer: &PeerId, advertised: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
        let mut chosen: Vec<Multiaddr> = Vec::new();
        // Bounds the work on a list that is nothing but duplicates.
        for address in advertised.into_iter().take(8 * ADDRESSES_MAX) {
            if chosen.len() == ADDRESSES_MAX {
                break;
            }
            let Some(address) = without_peer(peer, address) else { continue };
            if self.allows(&address) && !chosen.contains(&address) {
                chosen.push(address);
            }
        }
        chosen.sort_by_key(Transport::of);
        chosen
    }
}

/// `::a.b.c.d`, a deprecated spelling that would reach an IPv4 address past the checks above.
fn is_ipv4_compatible(ip: Ipv6Addr) -> bool {
    ip.segments()[..6] == [0; 6]
}

fn ends_with_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// The address without its final `/p2p/<peer>`; none where it ends in another peer's id.
fn without_peer(peer: &PeerId, mut address: Multiaddr) -> Option<Multiaddr> {
    match address.iter().last() {
        Some(Protocol::P2p(named)) if named == *peer => {
            address.pop();
            Some(address)
        }
        Some(Protocol::P2p(_)) => None,
        _ => Some(address),
    }
}

/// The peer that an address ends in, if it names one.
pub fn named_peer(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    const NOWHERE: [&str; 14] = [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.1/tcp/1",
        "/ip4/255.255.255.255/tcp/1",
        "/ip6/::/tcp/1",
        "/ip6/ff02::1/tcp/1",
        "/ip6/::10.0.0.1/tcp/1",
        "/ip4/10.0.0.1/tcp/0",
        "/ip4/10.0.0.1/udp/1",
        "/ip4/10.0.0.1/udp/0/quic-v1",
        "/ip4/10.0.0.1",
        "/tcp/1",
        "/memory/1",
        "/unix/tmp",
        "/ip4/10.0.0.1/tcp/1/ws",
    ];
    const THIS_MACHINE: [&str; 8] = [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/127.9.9.9/udp/1/quic-v1",
        "/ip6/::1/tcp/1",
        "/ip6/::ffff:127.0.0.1/tcp/1",
        "/dns/localhost/tcp/1",
        "/dns4/LOCALHOST/tcp/1",
        "/dns4/x.localhost./tcp/1",
        "/ip4/169.254.1.1/tcp/1",
    ];

    #[test]
    fn what_means_nothing_elsewhere_is_dropped_and_loopback_only_when_not_wanted() {
        for text in NOWHERE {
            assert!(!AddressPolicy::ONE_MACHINE.allows(&address(text)), "{text}");
        }
        for text in THIS_MACHINE {
            assert!(!AddressPolicy::default().allows(&address(text)), "{text}");
            assert!(AddressPolicy::ONE_MACHINE.allows(&address(text)), "{text}");
        }
        for text in ["/ip4/10.0.0.1/tcp/1", "/ip4/192.168.1.1/udp/1/quic-v1", "/dns/sp1.example.org/tcp/7400"]
        {
            assert!(AddressPolicy::default().allows(&address(text)), "{text}");
        }
    }

    #[test]
    fn tcp_is_tried_before_quic_and_before_a_relay() {
        let peer = PeerId::random();
        let advertised = [
            format!("/ip4/10.0.0.2/tcp/2/p2p/{}/p2p-circuit", PeerId::random()),
            "/ip4/10.0.0.1/udp/1/quic-v1".into(),
            format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}"),
            "/ip4/10.0.0.1/tcp/1".into(),
            format!("/ip4/10.0.0.1/tcp/9/p2p/{}", PeerId::random()),
        ];
        let chosen = AddressPolicy::default().select(&peer, advertised.iter().map(|text| address(text)));
        let expected = ["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1"].map(address);
        assert_eq!(chosen[..2], expected);
        assert_eq!(chosen.len(), 3, "the duplicate and another peer's are gone");
    }

    #[test]
    fn an_overlong_name_is_dropped() {
        let text = format!("/dns/{}/tcp/1", "a".repeat(ADDRESS_MAX_BYTES));
        assert!(!AddressPolicy::default().allows(&address(&text)));
    }

    proptest! {
        #[test]
        fn whatever_is_advertised_few_are_kept(ports in proptest::collection::vec(any::<u16>(), 0..400)) {
            let peer = PeerId::random();
            let advertised = ports.iter().map(|port| address(&format!("/ip4/10.0.0.1/tcp/{port}")));
            let chosen = AddressPolicy::default().select(&peer, advertised);
            prop_assert!(chosen.len() <= ADDRESSES_MAX);
            prop_assert!(chosen.iter().all(|address| AddressPolicy::default().allows(address)));
        }
    }
}
