use rustls::{CipherSuite, ClientConnection, Error, ServerConnection};

use super::*;

const ALPN: &[u8] = b"test";

fn key(byte: u8) -> NodeKey {
    NodeKey::from_seed([byte; 32])
}

/// Lets both ends talk until they are done or one of them fails.
fn handshake(client: ClientConfig, server: ServerConfig) -> Result<(ClientConnection, ServerConnection), Error> {
    let mut client = ClientConnection::new(Arc::new(client), "packswarm".try_into().unwrap())?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}

fn client(from: u8, to: u8) -> ClientConfig {
    Certificate::generate(&key(from))
        .unwrap()
        .client_config(key(to).node_id(), ALPN)
        .unwrap()
}

fn server(node: u8) -> ServerConfig {
    Certificate::generate(&key(node)).unwrap().server_config(ALPN).unwrap()
}

/// A certificate that nobody's node key has signed.
fn stranger() -> (CertificateDer<'static>, CertifiedKey) {
    let (certificate, private) = certificate::generate(&key(1).keypair()).unwrap();
    let certified = CertifiedKey::new(vec![certificate.clone()], sign::any_ecdsa_type(&private).unwrap());
    (certificate, certified)
}

#[test]
fn both_ends_learn_who_the_other_is() {
    let (client, server) = handshake(client(1, 2), server(2)).unwrap();
    assert_eq!(node_of(client.peer_certificates().unwrap()).unwrap(), key(2).node_id());
    assert_eq!(node_of(server.peer_certificates().unwrap()).unwrap(), key(1).node_id());
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn another_node_than_the_expected_one_is_refused_with_its_own_alert() {
    let error = handshake(client(1, 3), server(2)).unwrap_err();
    assert_eq!(
        error,
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    );
    assert_eq!(u8::from(rustls::AlertDescription::AccessDenied), WRONG_NODE_ALERT);
}

#[test]
fn a_dialler_without_a_certificate_is_refused() {
    let anonymous = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NodeVerifier { expected: None }))
        .with_no_client_auth();
    assert_eq!(
        handshake(anonymous, server(2)).unwrap_err(),
        Error::NoCertificatesPresented
    );
}

#[test]
fn two_certificates_are_refused() {
    let (certificate, certified) = stranger();
    let two = CertifiedKey::new(vec![certificate.clone(), certificate], certified.key);
    let mut config = client(1, 2);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(two));
    let error = handshake(config, server(2)).unwrap_err();
    assert!(error.to_string().contains("2 certificates instead of one"), "{error}");
}

#[test]
fn a_copied_certificate_is_useless_without_its_key() {
    // Whoever saw node 1's certificate shows it, but can only sign with a key of its own.
    let (copied, _) = stranger();
    let (_, own) = stranger();
    let mut config = client(3, 2);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![copied], own.key)));
    let error = handshake(config, server(2)).unwrap_err();
    assert_eq!(error, Error::InvalidCertificate(CertificateError::BadSignature));
}

#[test]
fn an_altered_certificate_names_nobody() {
    let (certificate, _) = stranger();
    let good = certificate.to_vec();
    assert_eq!(node_of(&[certificate]).unwrap(), key(1).node_id());
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(node_of(&[CertificateDer::from(bad)]).is_err(), "byte {at}");
    }
    assert!(node_of(&[]).is_err());
}
