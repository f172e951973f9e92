//! TLS by native-tls: what the system has, which is OpenSSL on Linux.

#[path = "../tls/scenarios.rs"]
mod scenarios;
#[path = "../support/mod.rs"]
mod support;

use native_tls::{Certificate, TlsConnector};
use pg_peers::{Cluster, Config};
use postgres_native_tls::MakeTlsConnector;

use scenarios::Trust;

const UNKNOWN_AUTHORITY: &str = "signed certificate in certificate chain";
const EXPIRED: &str = "certificate has expired";
const WRONG_NAME: &str = "hostname mismatch";

fn join(config: Config, params: &str, trust: &Trust<'_>) -> Cluster {
    let authority = Certificate::from_pem(trust.authority.pem().as_bytes());
    let mut tls = TlsConnector::builder();
    tls.disable_built_in_roots(true)
        .add_root_certificate(authority.expect("a certificate"));
    if let Some(identity) = trust.identity {
        let (certificate, key) = (identity.certificate.as_bytes(), identity.key.as_bytes());
        tls.identity(native_tls::Identity::from_pkcs8(certificate, key).expect("an identity"));
    }
    let tls = MakeTlsConnector::new(tls.build().expect("a connector"));
    config.join_tls(params, tls).expect("a valid configuration")
}
