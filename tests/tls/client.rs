//! A client's side of TLS, by rustls.

use std::sync::Arc;

use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::support::Identity;

/// Trusts this authority, and presents this identity.
pub(crate) fn connector(authority: &str, identity: Option<&Identity>) -> MakeRustlsConnect {
    let mut provider = (**ClientConfig::builder().crypto_provider()).clone();
    // Postgres before 18 takes this one alone, unless told otherwise, and asks a client that begins with another to begin again.
    let is_other = |group: &&dyn SupportedKxGroup| group.name() != NamedGroup::secp256r1;
    provider.kx_groups.sort_by_key(is_other);
    let tls = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(authority));
    let tls = match identity {
        None => tls.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
            tls.with_client_auth_cert(vec![certificate(&identity.certificate)], key)
                .expect("an identity")
        }
    };
    MakeRustlsConnect::new(tls)
}

pub(crate) fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(pem)).expect("an authority");
    roots
}

pub(crate) fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}
