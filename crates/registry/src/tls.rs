//! TLS towards registries: whom we trust, and who we say that we are.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::config::{ClientCertificate, ConfigError, RegistryConfig};
use crate::credentials;

/// For registries that have nothing of their own.
pub(crate) fn general(system: RootCertStore) -> Result<ClientConfig, ConfigError> {
    Ok(trusting(system)?.with_no_client_auth())
}

/// For one registry, with its CA.
pub(crate) fn particular(
    system: &RootCertStore,
    name: &str,
    registry: &RegistryConfig,
) -> Result<ClientConfig, ConfigError> {
    Ok(trusting(roots(system, name, registry)?)?.with_no_client_auth())
}

/// The same with our certificate for it, if there is one.
pub(crate) fn certified(
    system: &RootCertStore,
    name: &str,
    registry: &RegistryConfig,
) -> Result<Option<ClientConfig>, ConfigError> {
    let Some(ClientCertificate { certificate, key }) = &registry.client_certificate else {
        return Ok(None);
    };
    let wrong = |path: &Path, reason: String| ConfigError::ClientCertificate {
        registry: name.to_owned(),
        path: path.to_owned(),
        reason,
    };
    let chain = chain(certificate).map_err(|reason| wrong(certificate, reason))?;
    let secret = credentials::private(key).and_then(|()| PrivateKeyDer::from_pem_file(key).map_err(|e| e.to_string()));
    let secret = secret.map_err(|reason| wrong(key, reason))?;
    let tls = trusting(roots(system, name, registry)?)?.with_client_auth_cert(chain, secret);
    let fits = tls.map_err(|error| wrong(key, format!("it does not go with {}: {error}", certificate.display())));
    fits.map(Some)
}

fn roots(system: &RootCertStore, name: &str, registry: &RegistryConfig) -> Result<RootCertStore, ConfigError> {
    let mut roots = system.clone();
    if let Some(path) = &registry.ca_file {
        add_ca(&mut roots, path).map_err(|reason| ConfigError::Ca {
            registry: name.to_owned(),
            path: path.clone(),
            reason,
        })?;
    }
    Ok(roots)
}

/// The roots that the system trusts.
pub(crate) fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(loaded.certs);
    if good == 0 {
        tracing::warn!(errors = ?loaded.errors, "no system CA certificates: HTTPS registries need a `ca_file`");
    }
    roots
}

fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, ConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| ConfigError::Http(error.to_string()))?;
    Ok(builder.with_root_certificates(roots))
}

fn add_ca(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| e.to_string())?;
    let chain: Vec<_> = read.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    if chain.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    Ok(chain)
}
