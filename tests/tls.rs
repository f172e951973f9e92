//! TLS by rustls, which is all Rust: it takes nothing of the machine. See `tests/openssl` for the others.

#[path = "tls/scenarios.rs"]
mod scenarios;
mod support;

use pg_peers::{Cluster, Config};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use scenarios::Trust;

const UNKNOWN_AUTHORITY: &str = "UnknownIssuer";
const EXPIRED: &str = "certificate expired";
const WRONG_NAME: &str = "not valid for name \"other.test\"";

fn join(config: Config, params: &str, trust: &Trust<'_>) -> Cluster {
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate(&trust.authority.pem()))
        .expect("an authority");
    let tls = ClientConfig::builder().with_root_certificates(roots);
    let tls = match trust.identity {
        None => tls.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
            tls.with_client_auth_cert(vec![certificate(&identity.certificate)], key)
                .expect("an identity")
        }
    };
    config
        .join_tls(params, MakeRustlsConnect::new(tls))
        .expect("a valid configuration")
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}
