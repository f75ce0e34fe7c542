//! Ports for members: free on TCP and UDP, and given to one member only.
//!
//! Port 0 will not do: a member that is killed must find its port again, and what the system hands out for port 0
//! comes from the range that it also takes for outgoing connections, so another member's connection could have it by
//! then. The ports here lie below that range.

use rand::RngExt;
use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Above the ports of usual services, below what Linux (32768) and others take for outgoing connections.
const PORTS: Range<u16> = 20_000..32_000;

/// Ports given away in this process and not returned: clusters of one test program run side by side.
static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that no other holder of this type in this process has. Returned when dropped.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Port(u16);

impl Port {
    /// Takes a port that is free on every address of this machine now, for TCP and UDP. None where all are in use.
    pub(crate) fn free() -> Option<Self> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = taken.get_or_insert_default();
        // Other programs begin to look elsewhere.
        let first = rand::rng().random_range(PORTS);
        (first..PORTS.end)
            .chain(PORTS.start..first)
            .find(|port| !taken.contains(port) && is_free(*port) && taken.insert(*port))
            .map(Self)
    }

    /// The port's number.
    pub(crate) fn get(&self) -> u16 {
        self.0
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(taken) = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            taken.remove(&self.0);
        }
    }
}

fn is_free(port: u16) -> bool {
    let any = Ipv4Addr::UNSPECIFIED;
    TcpListener::bind((any, port)).is_ok() && UdpSocket::bind((any, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_returned_ones_are_given_again() {
        let ports: Vec<Port> = (0..200).map(|_| Port::free().unwrap()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
        let number = ports[0].get();
        drop(ports);
        assert!(!TAKEN.lock().unwrap().as_ref().unwrap().contains(&number));
    }

    #[test]
    fn a_port_in_use_on_either_protocol_is_not_free() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(tcp.local_addr().unwrap().port()));
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(udp.local_addr().unwrap().port()));
    }
}
