//! TLS by rustls, which is all Rust: it takes nothing of the machine. See `tests/openssl` for the others.

#[path = "tls/client.rs"]
mod client;
#[path = "tls/impostor.rs"]
mod impostor;
#[path = "tls/scenarios.rs"]
mod scenarios;
mod support;

use std::time::Duration;

use pg_peers::{Cluster, Config};

use impostor::Impostor;
use scenarios::{NAME, Trust, online, refusal, start};
use support::{Proxy, count_round_trips, expect};

const UNKNOWN_AUTHORITY: &str = "UnknownIssuer";
const EXPIRED: &str = "certificate expired";
const WRONG_NAME: &str = "not valid for name \"other.test\"";

fn join(config: Config, params: &str, trust: &Trust<'_>) -> Cluster {
    let tls = client::connector(&trust.authority.pem(), trust.identity);
    config.join_tls(params, tls).expect("a valid configuration")
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
