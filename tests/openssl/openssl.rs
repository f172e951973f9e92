//! TLS by OpenSSL.

#[path = "../tls/scenarios.rs"]
mod scenarios;
#[path = "../support/mod.rs"]
mod support;

use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use pg_peers::{Cluster, Config};
use postgres_openssl::MakeTlsConnector;

use scenarios::Trust;

const UNKNOWN_AUTHORITY: &str = "signed certificate in certificate chain";
const EXPIRED: &str = "certificate has expired";
const WRONG_NAME: &str = "hostname mismatch";

fn join(config: Config, params: &str, trust: &Trust<'_>) -> Cluster {
    let mut roots = X509StoreBuilder::new().expect("a store");
    let authority = X509::from_pem(trust.authority.pem().as_bytes()).expect("a certificate");
    roots.add_cert(authority).expect("an authority");
    let mut tls = SslConnector::builder(SslMethod::tls()).expect("a connector");
    tls.set_cert_store(roots.build());
    if let Some(identity) = trust.identity {
        let certificate = X509::from_pem(identity.certificate.as_bytes()).expect("a certificate");
        let key = PKey::private_key_from_pem(identity.key.as_bytes()).expect("a key");
        tls.set_certificate(&certificate).expect("a certificate");
        tls.set_private_key(&key).expect("its key");
    }
    let tls = MakeTlsConnector::new(tls.build());
    config.join_tls(params, tls).expect("a valid configuration")
}
