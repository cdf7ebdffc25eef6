//! TLS settings of one endpoint.
//!
//! The system's certificates are read once, and only when an https endpoint without a CA of its own
//! appears: a sidecar that delivers inside the cluster never pays for them.

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tidings_plan::Tls;

/// How many servers' sessions are kept to be resumed.
const SESSIONS: usize = 64;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
});

/// Why TLS material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA is no PEM certificate.
    #[error("tls.caSecretRef: no PEM certificate can be read")]
    Ca,
    /// The client's certificate or key is no PEM.
    #[error("tls.clientCertSecretRef: no PEM certificate with its key can be read")]
    ClientCert,
    /// There is a certificate without a key, or a key without a certificate.
    #[error("tls.clientCertSecretRef: certificate and key are needed together")]
    Incomplete,
    /// They do not fit each other.
    #[error("tls: {0}")]
    Unfit(#[from] rustls::Error),
    /// The server name is none.
    #[error("tls.serverName: this is no host name")]
    ServerName,
    /// There is nothing to trust.
    #[error(
        "the system has no certificates to trust: install its ca-certificates, or name a CA in tls.caSecretRef"
    )]
    NoRoots,
}

/// The settings for an endpoint. One that is not https gets empty ones.
pub(super) fn config(tls: &Tls, https: bool) -> Result<ClientConfig, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&PROVIDER)).with_safe_default_protocol_versions()?;
    let builder =
        builder.with_root_certificates(if https { roots(tls)? } else { Arc::new(RootCertStore::empty()) });
    let mut config = match (&tls.client_cert, &tls.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).collect::<Result<Vec<_>, _>>();
            let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes());
            let (Ok(chain), Ok(key)) = (chain, key) else { return Err(TlsError::ClientCert) };
            builder.with_client_auth_cert(chain, key)?
        }
        _ => return Err(TlsError::Incomplete),
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

fn roots(tls: &Tls) -> Result<Arc<RootCertStore>, TlsError> {
    let Some(ca) = &tls.ca else {
        return if SYSTEM.is_empty() { Err(TlsError::NoRoots) } else { Ok(Arc::clone(&SYSTEM)) };
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.map_err(|_| TlsError::Ca)?).map_err(|_| TlsError::Ca)?;
    }
    if roots.is_empty() { Err(TlsError::Ca) } else { Ok(Arc::new(roots)) }
}
