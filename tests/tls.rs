//! TLS by rustls, which is all Rust: it takes nothing of the machine. See `tests/openssl` for the others.

#[path = "tls/impostor.rs"]
mod impostor;
#[path = "tls/scenarios.rs"]
mod scenarios;
mod support;

use std::sync::Arc;
use std::time::Duration;

use pg_peers::{Cluster, Config};
use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use impostor::Impostor;
use scenarios::{NAME, Trust, online, refusal, start};
use support::{Proxy, count_round_trips, expect};

const UNKNOWN_AUTHORITY: &str = "UnknownIssuer";
const EXPIRED: &str = "certificate expired";
const WRONG_NAME: &str = "not valid for name \"other.test\"";

fn join(config: Config, params: &str, trust: &Trust<'_>) -> Cluster {
    let mut provider = (**ClientConfig::builder().crypto_provider()).clone();
    // Postgres before 18 takes this one alone, unless told otherwise, and asks whoever begins with another to begin again.
    let is_other = |group: &&dyn SupportedKxGroup| group.name() != NamedGroup::secp256r1;
    provider.kx_groups.sort_by_key(is_other);
    let roots = roots(&trust.authority.pem());
    let tls = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
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

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(pem)).expect("an authority");
    roots
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

#[test]
fn a_bound_password_cannot_be_passed_on() {
    let Some((authority, server)) = start() else {
        return;
    };
    let trust = Trust::of(&authority);
    // As if the authority had been deceived.
    let identity = authority.server(NAME);
    let port = Impostor::start(&identity, &authority.pem(), NAME, server.server.port());
    let params = server.params("app", NAME);
    let params = params.replace(
        &format!("port={}", server.server.port()),
        &format!("port={port}"),
    );
    for binding in ["", " channel_binding=prefer", " channel_binding=require"] {
        let text = refusal(&format!("{params}{binding}"), &trust);
        assert!(text.contains("channel binding"), "{text}");
    }
    // Nothing else would have been noticed.
    let a = online(
        Config::new("a"),
        &format!("{params} channel_binding=disable"),
        &trust,
    );
    let b = online(Config::new("b"), &server.params("app", NAME), &trust);
    expect(&a, "join b");
    expect(&b, "join a");
}

#[test]
fn few_round_trips_lead_to_online() {
    let Some((authority, tls)) = start() else {
        return;
    };
    let proxy = Proxy::start(&tls.server, Duration::from_millis(75));
    let trust = Trust::of(&authority);
    let own = format!("port={}", tls.server.port());
    let params = tls.params("app", NAME);
    let far = |port| {
        let params = params.replace(&own, &format!("port={port}"));
        join(Config::new("far"), &params, &trust)
    };
    count_round_trips(&tls.server, &proxy, far, 15, 10);
}
