//! TLS 1.3 as libp2p speaks it (`/tls/1.0.0`), with the cipher that is fast on this machine first.
//!
//! Wire compatible with `libp2p-tls`, whose certificates it makes and checks. Two things differ. `libp2p-tls` lists
//! ChaCha20-Poly1305 first; where the CPU has AES instructions AES-GCM carries two thirds more at half the CPU time,
//! so here the side that accepts chooses by its own CPU. And no session key is ever written to `SSLKEYLOGFILE`.
//!
//! The peer id is proven by the handshake: exactly one self-signed certificate per side, whose libp2p extension binds
//! its key to the peer's identity key. A peer that presents none, or several, is refused with an error.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::{
    PeerId,
    core::{
        UpgradeInfo,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    identity::Keypair,
};
use libp2p_tls::certificate;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error as TlsError,
    NoKeyLog, ServerConfig, SignatureScheme, SupportedCipherSuite,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs::{
        self,
        cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

const PROTOCOL: &str = "/tls/1.0.0";
const ALPN: &[u8] = b"libp2p";

/// Why TLS cannot be set up or a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine could not make its own certificate.
    #[error("cannot make a TLS certificate: {0}")]
    Certificate(#[from] certificate::GenError),
    /// The TLS library refused the configuration.
    #[error("cannot configure TLS: {0}")]
    Configuration(#[from] TlsError),
    /// The handshake did not complete.
    #[error("TLS handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    /// The peer proved no identity.
    #[error("the peer presented no usable certificate")]
    NoIdentity,
}

/// The security upgrade of TCP connections.
#[derive(Clone)]
pub(super) struct Upgrade {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Upgrade {
    /// The upgrade that proves `identity`. Its certificate is made anew at each start of the process.
    ///
    /// # Errors
    /// [`Error::Certificate`] and [`Error::Configuration`].
    pub(super) fn new(identity: &Keypair) -> Result<Self, Error> {
        let (server, client) = configurations(identity)?;
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }
}

/// Cipher suites in order of preference: AES-GCM first where the CPU computes it.
fn cipher_suites() -> Vec<SupportedCipherSuite> {
    let aes = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    let chacha = TLS13_CHACHA20_POLY1305_SHA256;
    if cpu_has_aes() { vec![aes[0], aes[1], chacha] } else { vec![chacha, aes[0], aes[1]] }
}

/// Whether the CPU has instructions for AES and for the multiplication in GCM.
pub fn cpu_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn configurations(identity: &Keypair) -> Result<(ServerConfig, ClientConfig), Error> {
    let (certificate, key) = certificate::generate(identity)?;
    let key = aws_lc_rs::sign::any_ecdsa_type(&key)?;
    let own = Arc::new(OwnCertificate(Arc::new(CertifiedKey::new(vec![certificate], key))));
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = cipher_suites();
    let provider = Arc::new(provider);

    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(PeerCertificate))
        .with_cert_resolver(own.clone());
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.key_log = Arc::new(NoKeyLog);
    server.ignore_client_order = true;
    // Resumption would spare a round trip of CPU, and would carry an identity proven earlier into a new connection.
    server.send_tls13_tickets = 0;

    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerCertificate))
        .with_client_cert_resolver(own);
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.key_log = Arc::new(NoKeyLog);
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;
    Ok((server, client))
}

fn peer_of(state: &CommonState) -> Result<PeerId, Error> {
    let Some([certificate]) = state.peer_certificates() else { return Err(Error::NoIdentity) };
    Ok(certificate::parse(certificate).map_err(|_| Error::NoIdentity)?.peer_id())
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL)
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Upgrade {
    type Output = (PeerId, TlsStream<C>);
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Output, Error>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let stream = self.acceptor.accept(socket).await?;
            Ok((peer_of(stream.get_ref().1)?, stream.into()))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Upgrade {
    type Output = (PeerId, TlsStream<C>);
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Output, Error>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            // An address instead of a name keeps the SNI extension out, as libp2p's specification asks.
            let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
            let stream = self.connector.connect(nobody, socket).await?;
            Ok((peer_of(stream.get_ref().1)?, stream.into()))
        }
        .boxed()
    }
}

/// Always answers with this member's one certificate.
#[derive(Debug)]
struct OwnCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Accepts exactly one certificate that proves a libp2p identity. Which identity is wanted is checked by the swarm.
#[derive(Debug)]
struct PeerCertificate;

impl PeerCertificate {
    fn check(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        if !intermediates.is_empty() {
            return Err(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        certificate::parse(end_entity)?;
        Ok(())
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn no_tls12() -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("only TLS 1.3 is spoken".into()))
    }

    fn schemes() -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
        ]
    }
}

impl ServerCertVerifier for PeerCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Self::check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Self::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for PeerCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Self::check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Self::no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Self::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CipherSuite, ClientConnection, ServerConnection};

    use super::*;

    /// Runs both sides of a handshake in memory to its end or the first error.
    fn handshake(
        server: ServerConfig,
        client: ClientConfig,
    ) -> Result<(ServerConnection, ClientConnection), TlsError> {
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let mut server = ServerConnection::new(Arc::new(server))?;
        let mut client = ClientConnection::new(Arc::new(client), nobody)?;
        while server.is_handshaking() || client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok((server, client))
    }

    fn ours(identity: &Keypair) -> (ServerConfig, ClientConfig) {
        configurations(identity).unwrap()
    }

    #[test]
    fn both_sides_learn_who_the_other_is() {
        let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (server, client) = handshake(ours(&a).0, ours(&b).1).unwrap();
        assert_eq!(peer_of(&server).unwrap(), b.public().to_peer_id());
        assert_eq!(peer_of(&client).unwrap(), a.public().to_peer_id());
    }

    #[test]
    fn aes_gcm_is_negotiated_where_the_cpu_has_aes_also_with_a_peer_that_lists_chacha_first() {
        let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let expected = if cpu_has_aes() {
            CipherSuite::TLS13_AES_128_GCM_SHA256
        } else {
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        };
        for client in [ours(&b).1, libp2p_tls::make_client_config(&b, None).unwrap()] {
            let (server, _) = handshake(ours(&a).0, client).unwrap();
            assert_eq!(server.negotiated_cipher_suite().unwrap().suite(), expected);
        }
    }

    #[test]
    fn libp2p_tls_understands_us_in_both_roles() {
        let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (server, _) = handshake(libp2p_tls::make_server_config(&a).unwrap(), ours(&b).1).unwrap();
        assert_eq!(peer_of(&server).unwrap(), b.public().to_peer_id());
        let (_, client) = handshake(ours(&b).0, libp2p_tls::make_client_config(&a, None).unwrap()).unwrap();
        assert_eq!(peer_of(&client).unwrap(), b.public().to_peer_id());
    }

    #[test]
    fn a_peer_without_a_certificate_is_refused_with_an_error() {
        let mut client = ours(&Keypair::generate_ed25519()).1;
        client.client_auth_cert_resolver = Arc::new(NoCertificate);
        assert!(handshake(ours(&Keypair::generate_ed25519()).0, client).is_err());
    }

    #[derive(Debug)]
    struct NoCertificate;
    impl ResolvesClientCert for NoCertificate {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }
        fn has_certs(&self) -> bool {
            false
        }
    }
}
