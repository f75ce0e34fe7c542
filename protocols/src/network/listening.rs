//! Finding out at the start that an address cannot be listened on, and why.
//!
//! libp2p shares its listening TCP ports (`SO_REUSEPORT`), so that outgoing connections can leave from them. Two daemons
//! of one user would so both start on a port, and the system would deal its connections out between them. Asking for
//! the port once without sharing it tells.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
};

use libp2p::{Multiaddr, TransportError, multiaddr::Protocol};

/// Fails where another socket of this machine listens on this TCP address. Other errors are left to the listening
/// itself; of other transports nothing need be known, since their sockets are not shared.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`].
pub(super) fn check_free(address: &Multiaddr) -> io::Result<()> {
    let Some(socket) = tcp_socket(address) else { return Ok(()) };
    match TcpListener::bind(socket) {
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => Err(cause),
        _ => Ok(()),
    }
}

/// Why an address cannot be listened on. [`TransportError`] itself does not say: its text for a failed socket is empty.
pub(super) fn cause(error: TransportError<io::Error>) -> io::Error {
    match error {
        TransportError::Other(cause) => cause,
        TransportError::MultiaddrNotSupported(_) => {
            io::Error::new(io::ErrorKind::Unsupported, "not an address of TCP or QUIC")
        }
    }
}

/// The socket address to ask for; none for a port that the system chooses, which is free.
fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        // The standard library's listener would take IPv4 along and find it taken by somebody who does not disturb.
        Protocol::Ip6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) if port != 0 => Some((ip, port).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_while_somebody_listens_and_free_afterwards() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "0.0.0.0"] {
            let address: Multiaddr = format!("/ip4/{ip}/tcp/{port}").parse().unwrap();
            assert_eq!(check_free(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{ip}");
        }
        drop(taken);
        check_free(&format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()).unwrap();
    }

    #[test]
    fn only_tcp_with_a_port_of_its_own_is_asked_for() {
        for (address, socket) in [
            ("/ip4/127.0.0.1/tcp/7481", Some("127.0.0.1:7481")),
            ("/ip6/::/tcp/7481", Some("[::1]:7481")),
            ("/ip4/127.0.0.1/tcp/0", None),
            ("/ip4/127.0.0.1/udp/7481/quic-v1", None),
            ("/dns4/host.example/tcp/7481", None),
        ] {
            let expected = socket.map(|socket| socket.parse().unwrap());
            assert_eq!(tcp_socket(&address.parse().unwrap()), expected, "{address}");
        }
    }
}
