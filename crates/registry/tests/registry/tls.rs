//! HTTPS with a CA of one's own.

use std::sync::Arc;

use registry::{Client, ClientCertificate, Config, ConfigError, RegistryConfig, RegistryError};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;
use wire::Authorization;
use wire::control::{Access, Repository};

use crate::scripted::{Reply, Server, config};

fn certificate() -> (String, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert.pem(), TlsAcceptor::from(Arc::new(server)))
}

fn client(registry: &str, ca: &std::path::Path) -> Result<Client, ConfigError> {
    let ca_file = Some(ca.to_path_buf());
    let registries = [(
        registry.to_owned(),
        RegistryConfig {
            ca_file,
            ..RegistryConfig::default()
        },
    )]
    .into();
    Client::new(Config {
        registries,
        retries: 0,
        ..config()
    })
}

#[tokio::test]
async fn a_custom_ca_is_trusted_and_another_is_not() {
    let (pem, acceptor) = certificate();
    let server = Server::start_with(|_, _| Reply::new(200, "{}"), Some(acceptor)).await;
    let name = format!("localhost:{}", server.address.port());
    let repository = Repository {
        registry: name.clone(),
        name: "org/model".into(),
    };
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let read = client(&name, &ca).unwrap().manifest(&repository, "v1").await.unwrap();
    assert_eq!(read.body, b"{}");

    let (other, _) = certificate();
    std::fs::write(&ca, other).unwrap();
    let error = client(&name, &ca)
        .unwrap()
        .manifest(&repository, "v1")
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    assert_eq!(error.status(), 502);

    std::fs::write(&ca, "no PEM").unwrap();
    assert!(matches!(client(&name, &ca), Err(ConfigError::Ca { .. })));
}

#[tokio::test]
async fn a_client_certificate_says_who_we_are() {
    let (server_pair, own, other) = (pair(), pair(), pair());
    let mut known = rustls::RootCertStore::empty();
    known.add(own.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(known), Arc::clone(&provider));
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_pair.key_pair.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![server_pair.cert.der().clone()], key)
        .unwrap();
    let server = Server::start_with(|_, _| Reply::new(200, "{}"), Some(TlsAcceptor::from(Arc::new(tls)))).await;
    let name = format!("localhost:{}", server.address.port());
    let repository = Repository {
        registry: name.clone(),
        name: "org/model".into(),
    };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    let ca = file("ca.pem", &server_pair.cert.pem(), 0o644);
    let certificate = file("client.pem", &own.cert.pem(), 0o644);
    let with = |client_certificate| {
        let registry = RegistryConfig {
            ca_file: Some(ca.clone()),
            client_certificate,
            ..RegistryConfig::default()
        };
        Client::new(Config {
            registries: [(name.clone(), registry)].into(),
            retries: 0,
            ..config()
        })
    };
    let shown = |key| {
        let certificate = certificate.clone();
        with(Some(ClientCertificate { certificate, key }))
    };
    let key = file("client.key", &own.key_pair.serialize_pem(), 0o600);
    let read = shown(key.clone()).unwrap().manifest(&repository, "v1").await.unwrap();
    assert_eq!(read.body, b"{}");
    assert_eq!(
        read.access,
        Access::Private,
        "the registry has not been asked as anybody"
    );
    let shown_in_vain = Authorization::from_header("Bearer x").unwrap().unwrap();
    let node = shown(key).unwrap();
    for client in [node.on_behalf(shown_in_vain), node.as_stranger()] {
        let refused = client.manifest(&repository, "v1").await;
        assert!(refused.is_err(), "the node's certificate opens nothing to clients");
    }
    assert!(
        with(None).unwrap().manifest(&repository, "v1").await.is_err(),
        "who are we?"
    );

    let readable = file("readable.key", &own.key_pair.serialize_pem(), 0o644);
    let foreign = file("foreign.key", &other.key_pair.serialize_pem(), 0o600);
    for (key, reason) in [(readable, "chmod 600"), (foreign, "does not go with")] {
        let error = shown(key).unwrap_err();
        assert!(matches!(error, ConfigError::ClientCertificate { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

fn pair() -> rcgen::CertifiedKey {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}
