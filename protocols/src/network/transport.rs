//! The one recipe by which members reach each other: TCP with TLS 1.3 and yamux, and QUIC.
//!
//! Control runs over TCP. QUIC is the way through NATs and over long lossy paths. Host names resolve in both. QUIC's
//! TLS is libp2p's own, which cannot be configured from outside: it prefers ChaCha20-Poly1305 and writes its session
//! keys to the file named by `SSLKEYLOGFILE`, so QUIC is left out of a process that has this variable set.

use std::fmt;

use futures::future::Either;
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    multiaddr::Protocol,
    quic, tcp, yamux,
};

use super::{limits, tls};

/// What carried an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP with TLS.
    Tcp,
    /// QUIC over UDP.
    Quic,
    /// Another member in the middle, because neither side could reach the other.
    Relay,
}

impl Transport {
    /// The transport of a connection whose remote address this is.
    pub fn of(address: &Multiaddr) -> Self {
        let mut label = Self::Tcp;
        for part in address {
            match part {
                Protocol::P2pCircuit => return Self::Relay,
                Protocol::QuicV1 | Protocol::Udp(_) => label = Self::Quic,
                _ => {}
            }
        }
        label
    }

    /// The label used in logs and metrics: `tcp`, `quic` or `relay`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Relay => "relay",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

type Direct = Boxed<(PeerId, StreamMuxerBox)>;

/// Builds the transport that proves `identity`.
///
/// # Errors
/// [`tls::Error`] where this machine cannot make its certificate.
pub(super) fn build(identity: &Keypair) -> Result<Direct, tls::Error> {
    match dns::tokio::Transport::system(direct(identity)?) {
        Ok(resolving) => Ok(resolving.boxed()),
        Err(error) => {
            tracing::warn!(%error, "no DNS resolver is configured: only numeric addresses can be reached");
            direct(identity)
        }
    }
}

fn direct(identity: &Keypair) -> Result<Direct, tls::Error> {
    let mut multiplexer = yamux::Config::default();
    multiplexer.set_max_num_streams(limits::STREAMS_PER_CONNECTION_MAX);
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(tls::Upgrade::new(identity)?)
        .multiplex(multiplexer)
        .timeout(limits::UPGRADE_TIMEOUT)
        .boxed();
    if std::env::var_os("SSLKEYLOGFILE").is_some() {
        tracing::warn!("SSLKEYLOGFILE is set: QUIC is off, because its session keys would be written there");
        return Ok(tcp);
    }
    let mut config = quic::Config::new(identity);
    config.handshake_timeout = limits::UPGRADE_TIMEOUT;
    let quic = quic::tokio::Transport::new(config);
    Ok(OrTransport::new(quic, tcp)
        .map(|either, _| match either {
            Either::Left((peer, connection)) => (peer, StreamMuxerBox::new(connection)),
            Either::Right(upgraded) => upgraded,
        })
        .boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_follows_from_the_remote_address() {
        for (address, label) in [
            ("/ip4/10.0.0.1/tcp/7400", Transport::Tcp),
            ("/ip4/10.0.0.1/udp/7400/quic-v1", Transport::Quic),
            ("/ip4/10.0.0.1/udp/7400/quic-v1/p2p-circuit", Transport::Relay),
        ] {
            assert_eq!(Transport::of(&address.parse().unwrap()), label);
        }
    }
}
