//! Mutual TLS 1.3 by pinned keys: no names, no authorities, no dates.
//!
//! Both sides show a self-signed certificate of their ed25519 key. The client takes exactly the key that is
//! pinned for the node it dials. The server lets anybody prove a key (so that a stranger's is proven before
//! it is told), and the overlay closes the connection of an unpinned one before it reads a byte.

use std::sync::Arc;

use quinn::Connection;
use quinn::crypto::rustls::{
    HandshakeData, NoInitialCipherSuite, QuicClientConfig, QuicServerConfig,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

use super::identity::Identity;

/// The name of messages' protocol in the handshake. Another one than ours ends it.
const ALPN: &[u8] = b"discovery/1";
/// The name of tunnels' protocol.
const TUNNEL_ALPN: &[u8] = b"discovery-tunnel/1";

/// An ed25519 public key's SubjectPublicKeyInfo is these bytes and the key (RFC 8410).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why TLS cannot be set up: our own configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key or a setting.
    #[error("TLS: {0}")]
    Rustls(#[from] Error),
    /// QUIC's own first keys need a cipher that is missing.
    #[error("TLS: {0}")]
    Cipher(#[from] NoInitialCipherSuite),
}

/// The ed25519 key in a certificate, if it is one.
#[must_use]
pub fn key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let spki = parsed.subject_public_key_info();
    spki.as_ref().strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// TLS for accepted connections.
///
/// # Errors
/// When the identity's key does not fit; our own bug.
pub fn server(identity: &Identity) -> Result<QuicServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(ProvenKey { algorithms: provider.signature_verification_algorithms });
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate()], identity.private())?;
    config.alpn_protocols = vec![ALPN.to_vec(), TUNNEL_ALPN.to_vec()];
    // No resumption: each connection proves its key anew, so that a revoked one is out at once.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(QuicServerConfig::try_from(config)?)
}

/// Whether the handshake agreed on tunnels.
#[must_use]
pub fn is_tunnel(connection: &Connection) -> bool {
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(TUNNEL_ALPN))
}

/// TLS for dialling the holder of `key`, and nobody else, for messages.
///
/// # Errors
/// When the identity's key does not fit; our own bug.
pub fn client(identity: &Identity, key: [u8; 32]) -> Result<QuicClientConfig, TlsError> {
    dialling(identity, key, ALPN)
}

/// The same for tunnels.
///
/// # Errors
/// When the identity's key does not fit; our own bug.
pub fn tunnel_client(identity: &Identity, key: [u8; 32]) -> Result<QuicClientConfig, TlsError> {
    dialling(identity, key, TUNNEL_ALPN)
}

fn dialling(
    identity: &Identity,
    key: [u8; 32],
    protocol: &[u8],
) -> Result<QuicClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        Arc::new(PinnedKey { key, algorithms: provider.signature_verification_algorithms });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate()], identity.private())?;
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(QuicClientConfig::try_from(config)?)
}

/// A client must prove the ed25519 key that it shows. Whether it is pinned is decided afterwards.
#[derive(Debug)]
struct ProvenKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for ProvenKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match key_of(end_entity) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// A server must show and prove exactly this key.
#[derive(Debug)]
struct PinnedKey {
    key: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match key_of(end_entity) {
            Some(key) if key == self.key => Ok(ServerCertVerified::assertion()),
            Some(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
