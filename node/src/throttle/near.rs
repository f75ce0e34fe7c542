//! Which peers are on this branch's own network, where no line has to be spared.
//!
//! Near is a peer whose address, as the connection shows it, is this machine's own (loopback), or private or link-local
//! *and* in a subnet of one of this machine's interfaces. Private addresses alone do not suffice: an organisation's
//! branches often have private addresses for each other, over a line that is to be spared. Point-to-point interfaces do not
//! count for the same reason: their subnet is a tunnel's. Nor does a peer behind a relay.

use std::net::IpAddr;

use libp2p::{Multiaddr, multiaddr::Protocol};

/// A subnet that this machine has an address in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix_bits: u8,
}

impl Subnet {
    /// The subnet of an address. A prefix that is longer than the address is as long as the address.
    pub const fn new(address: IpAddr, prefix_bits: u8) -> Self {
        Self { address, prefix_bits }
    }

    fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = u32::from(own) ^ u32::from(other);
                differs.leading_zeros() >= u32::from(self.prefix_bits.min(32))
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = u128::from(own) ^ u128::from(other);
                differs.leading_zeros() >= u32::from(self.prefix_bits.min(128))
            }
            _ => false,
        }
    }
}

/// This machine's subnets, without tunnels. Asks the system; none where it does not tell.
pub fn own_subnets() -> Vec<Subnet> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let here = interfaces.into_iter().filter(|interface| !interface.is_p2p());
    here.map(|interface| match interface.addr {
        if_addrs::IfAddr::V4(v4) => Subnet::new(IpAddr::V4(v4.ip), v4.prefixlen),
        if_addrs::IfAddr::V6(v6) => Subnet::new(IpAddr::V6(v6.ip), v6.prefixlen),
    })
    .collect()
}

/// Whether the peer at the other end of a connection is near, given this machine's subnets.
pub fn is_near(remote: &Multiaddr, own: &[Subnet]) -> bool {
    if remote.iter().any(|part| part == Protocol::P2pCircuit) {
        return false;
    }
    let address = remote.iter().find_map(|part| match part {
        Protocol::Ip4(address) => Some(IpAddr::V4(address)),
        Protocol::Ip6(address) => Some(IpAddr::V6(address).to_canonical()),
        _ => None,
    });
    address.is_some_and(|address| {
        address.is_loopback() || (is_private(address) && own.iter().any(|subnet| subnet.contains(address)))
    })
}

const fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(remote: &str, own: &[(&str, u8)]) -> bool {
        let own: Vec<Subnet> =
            own.iter().map(|(address, bits)| Subnet::new(address.parse().unwrap(), *bits)).collect();
        is_near(&remote.parse().unwrap(), &own)
    }

    #[test]
    fn the_own_machine_and_private_neighbours_are_near() {
        let own = [("192.168.7.20", 24), ("fd00:7::20", 64), ("fe80::1", 64)];
        for remote in [
            "/ip4/127.0.0.1/tcp/7481",
            "/ip6/::1/udp/7481/quic-v1",
            "/ip4/192.168.7.99/tcp/50000",
            "/ip6/::ffff:192.168.7.99/tcp/50000",
            "/ip6/fd00:7::99/tcp/7481",
            "/ip6/fe80::99/tcp/7481",
        ] {
            assert!(near(remote, &own), "{remote}");
        }
    }

    #[test]
    fn other_branches_public_addresses_and_relayed_peers_are_not() {
        let own = [("192.168.7.20", 24), ("203.0.113.5", 24), ("fd00:7::20", 64)];
        for remote in [
            "/ip4/192.168.8.99/tcp/7481",
            "/ip4/10.0.0.1/tcp/7481",
            "/ip4/203.0.113.6/tcp/7481",
            "/ip6/fd00:8::99/tcp/7481",
            "/dns4/example.org/tcp/7481",
            "/ip4/192.168.7.99/tcp/7481/p2p-circuit",
        ] {
            assert!(!near(remote, &own), "{remote}");
        }
    }

    #[test]
    fn a_prefix_covers_what_it_says_at_its_edges() {
        assert!(near("/ip4/10.200.0.1/tcp/1", &[("10.0.0.1", 8)]));
        assert!(near("/ip4/10.0.0.1/tcp/1", &[("10.0.0.1", 32)]));
        assert!(near("/ip4/10.0.0.1/tcp/1", &[("10.0.0.1", 255)]));
        assert!(!near("/ip4/10.0.0.2/tcp/1", &[("10.0.0.1", 32)]));
        assert!(near("/ip4/192.168.0.1/tcp/1", &[("10.0.0.1", 0)]));
        assert!(!near("/ip4/192.168.0.1/tcp/1", &[]));
    }

    #[test]
    fn this_machine_names_its_subnets() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(own_subnets().iter().any(|subnet| subnet.contains(loopback)));
    }
}
