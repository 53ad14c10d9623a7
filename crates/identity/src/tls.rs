//! TLS 1.3 between nodes: both ends show a self-signed certificate that carries the node key (libp2p specs, "tls").
//!
//! rustls's own ways to load such a certificate refuse the critical extension that it carries, and libp2p's
//! configurations prefer ChaCha20 and write session keys to `SSLKEYLOGFILE`. So the configurations are ours: ring,
//! AES-128-GCM first, no TLS 1.2, no session resumption (each connection proves both identities afresh).

use std::sync::Arc;

use libp2p_tls::certificate;
use piece::NodeId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{cipher_suite, default_provider, sign};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use crate::{NodeKey, node_id};

/// The TLS alert with which a dialler turns away a node other than the one it dialled (RFC 8446, `access_denied`).
pub const WRONG_NODE_ALERT: u8 = 49;

/// Why a certificate or configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate can be made.
    #[error("cannot make this node's certificate: {0}")]
    Generate(#[from] certificate::GenError),
    /// rustls refuses the configuration.
    #[error("cannot set up TLS: {0}")]
    Config(#[from] rustls::Error),
}

/// This node's certificate, with the short-lived key it was made for.
#[derive(Debug, Clone)]
pub struct Certificate(Arc<SingleCertAndKey>);

impl Certificate {
    /// A new certificate that says: whoever holds this connection's key holds `key`.
    ///
    /// # Errors
    /// If the system cannot make one.
    pub fn generate(key: &NodeKey) -> Result<Self, TlsError> {
        let (certificate, private) = certificate::generate(&key.keypair())?;
        let certified = CertifiedKey::new(vec![certificate], sign::any_ecdsa_type(&private)?);
        Ok(Self(Arc::new(SingleCertAndKey::from(certified))))
    }

    /// The configuration to dial `expected` with, and nobody else.
    ///
    /// # Errors
    /// If rustls refuses it.
    pub fn client_config(&self, expected: NodeId, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NodeVerifier {
                expected: Some(expected),
            }))
            .with_client_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    /// The configuration to listen with, for any node that can prove its id.
    ///
    /// # Errors
    /// If rustls refuses it.
    pub fn server_config(&self, alpn: &[u8]) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(NodeVerifier { expected: None }))
            .with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// The node that a certificate chain names, once the handshake has verified it.
///
/// # Errors
/// If it is not exactly one certificate of a node.
pub fn node_of(chain: &[CertificateDer<'_>]) -> Result<NodeId, rustls::Error> {
    let [only] = chain else {
        return Err(refused(format!("{} certificates instead of one", chain.len())));
    };
    let certificate = certificate::parse(only).map_err(|e| refused(e.to_string()))?;
    node_id(&certificate.peer_id()).ok_or_else(|| refused("the node key is not Ed25519".to_owned()))
}

/// ring, with AES-128-GCM first: a quarter less CPU than ChaCha20 where AES is in hardware.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        // Not used: certificates and signatures are checked below. Empty, so that nothing can come to rely on it.
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        ..default_provider()
    })
}

fn refused(why: String) -> rustls::Error {
    rustls::Error::General(format!("not the certificate of a node: {why}"))
}

/// Accepts exactly one certificate, of the expected node if there is one.
#[derive(Debug)]
struct NodeVerifier {
    expected: Option<NodeId>,
}

impl NodeVerifier {
    fn verify(&self, first: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(refused(format!("{} certificates instead of one", 1 + others.len())));
        }
        let presented = node_of(std::slice::from_ref(first))?;
        if self.expected.is_some_and(|expected| expected != presented) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for NodeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// What our own certificates are signed with, and what libp2p's other implementations may use.
fn schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
}

/// webpki, behind rustls's helper for this, would refuse the critical extension.
fn verify_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    certificate::parse(cert)
        .map_err(|e| refused(e.to_string()))?
        .verify_signature(dss.scheme, message, dss.signature())
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadSignature))?;
    Ok(HandshakeSignatureValid::assertion())
}

#[cfg(test)]
mod tests;
