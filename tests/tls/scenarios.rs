//! What must hold over TLS, whichever connector secures it. The crate root has the connector: `join`, and the words in which
//! it refuses a server.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config, Event};

use crate::support::*;
use crate::{EXPIRED, UNKNOWN_AUTHORITY, WRONG_NAME, join};

const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const NAME: &str = "db.test";

/// What a client brings to the handshake.
pub(crate) struct Trust<'a> {
    pub(crate) authority: &'a Authority,
    pub(crate) identity: Option<&'a Identity>,
}

impl<'a> Trust<'a> {
    pub(crate) fn of(authority: &'a Authority) -> Self {
        Self {
            authority,
            identity: None,
        }
    }

    fn with(authority: &'a Authority, identity: &'a Identity) -> Self {
        Self {
            authority,
            identity: Some(identity),
        }
    }
}

/// An authority, and a server whose certificate is from there; `None` where there is no TLS.
pub(crate) fn start() -> Option<(Authority, TlsServer)> {
    let authority = Authority::new("ours");
    let server = TlsServer::start(&authority, &authority.server(NAME))?;
    Some((authority, server))
}

pub(crate) fn online(config: Config, params: &str, trust: &Trust<'_>) -> Cluster {
    let cluster = join(config, params, trust);
    expect(&cluster, "online");
    cluster
}

/// Why it is refused, which it stays.
pub(crate) fn refusal(params: &str, trust: &Trust<'_>) -> String {
    refused(&join(Config::new("a"), params, trust))
}

fn refused(cluster: &Cluster) -> String {
    let Event::Offline(reason) = expect(cluster, "offline") else {
        panic!("offline")
    };
    // What Postgres itself rejects is tried again after half a minute.
    let rejected = reason
        .code()
        .is_some_and(|code| code.code().starts_with("28"));
    let attempts = if rejected { 1 } else { 3 };
    eventually("attempts", || cluster.status().failed_attempts >= attempts);
    expect_nothing(cluster);
    assert!(reason.is_link());
    let text = reason.to_string();
    let shown = format!("{text} {reason:?} {cluster:?} {:?}", cluster.status());
    // Some connectors' errors repeat what their causes say.
    let mut parts: Vec<&str> = text.split(": ").collect();
    parts.sort_unstable();
    parts.dedup();
    assert_eq!(parts.len(), text.split(": ").count(), "{text}");
    assert!(!shown.contains(PASSWORD) && !text.contains('\n'), "{shown}");
    text
}

#[test]
fn members_find_each_other_over_tls_and_nothing_else() {
    let Some((authority, server)) = start() else {
        return;
    };
    let trust = Trust::of(&authority);
    let params = server.params("app", NAME);
    let _a = online(Config::new("a").tag("role", "leader"), &params, &trust);
    // An answer larger than a TLS record holds.
    let much = "x".repeat(7_000);
    let others: Vec<Cluster> = ["b", "c", "d"]
        .map(|name| online(Config::new(name).tag("much", &much), &params, &trust))
        .into();
    let e = online(Config::new("e"), &params, &trust);
    let peers = e.wait_for_peers(4, PATIENCE).expect("everybody");
    assert_eq!(peers[0].tag("role"), Some("leader"));
    assert!(peers[1..].iter().all(|p| p.tag("much") == Some(&much)));
    for other in &others {
        other.wait_for_peers(4, PATIENCE).expect("everybody");
    }
    let encrypted: i64 = server
        .server
        .client()
        .query_one(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'app'",
            &[],
        )
        .expect("a count")
        .get(0);
    assert_eq!(encrypted, 5);

    let plain = params.replace("require", "disable");
    let text = refused(&Config::new("plain").join(&plain).expect("valid"));
    assert!(text.contains("pg_hba.conf"), "{text}");
}

#[test]
fn a_password_can_be_bound_to_the_servers_certificate() {
    let Some((authority, server)) = start() else {
        return;
    };
    let trust = Trust::of(&authority);
    let bound = |role| format!("{} channel_binding=require", server.params(role, NAME));
    let a = online(Config::new("a"), &bound("app"), &trust);
    let b = online(Config::new("b"), &bound("app"), &trust);
    expect(&a, "join b");
    expect(&b, "join a");
    // A server that does not prove to know the password may be anybody.
    let text = refusal(&bound("trusted"), &trust);
    assert!(text.contains("channel binding"), "{text}");
}

#[test]
fn a_client_certificate_is_shown_where_the_server_wants_one() {
    let Some((authority, server)) = start() else {
        return;
    };
    let certified = server.params("certified", NAME);
    let both = server.params("doubly", NAME);
    let identities = ["certified", "doubly"].map(|role| authority.client(role));
    let trusts = identities.each_ref().map(|i| Trust::with(&authority, i));
    let a = online(Config::new("a"), &certified, &trusts[0]);
    let b = online(Config::new("b"), &both, &trusts[1]);
    expect(&a, "join b");
    expect(&b, "join a");
    fence(&a, &b);

    let none = Trust::of(&authority);
    for params in [&certified, &both] {
        let text = refusal(params, &none);
        assert!(text.contains("client certificate"), "{text}");
    }
    let text = refusal(&certified, &trusts[1]);
    assert!(
        text.contains("certificate authentication failed for user \"certified\""),
        "{text}"
    );
    let text = refusal(&both.replace(PASSWORD, "wrong"), &trusts[1]);
    assert!(text.contains("password authentication failed"), "{text}");
    // The server closes the connection at once, and its reason may be lost with it.
    let stranger = Authority::new("a stranger's").client("certified");
    refusal(&certified, &Trust::with(&authority, &stranger));
}

#[test]
fn an_untrusted_server_is_refused_and_the_text_says_why() {
    let Some((authority, server)) = start() else {
        return;
    };
    let trust = Trust::of(&authority);
    let text = refusal(
        &server.params("app", NAME),
        &Trust::of(&Authority::new("a stranger's")),
    );
    assert!(text.contains(UNKNOWN_AUTHORITY), "{text}");
    let text = refusal(&server.params("app", "other.test"), &trust);
    assert!(text.contains(WRONG_NAME), "{text}");
    let nameless = server.params("app", NAME).replace("host=db.test ", "");
    let text = refusal(&nameless, &trust);
    assert!(text.contains("no hostname"), "{text}");
    let expired = TlsServer::start(&authority, &authority.expired(NAME)).expect("as before");
    let text = refusal(&expired.params("app", NAME), &trust);
    assert!(text.contains(EXPIRED), "{text}");
    assert_eq!(expired.sessions("app") + server.sessions("app"), 0);
}

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn a_refusal_that_tells_the_time_is_logged_once() {
    log::set_logger(&Logger).expect("the only logger");
    log::set_max_level(log::LevelFilter::Warn);
    let authority = Authority::new("ours");
    let Some(server) = TlsServer::start(&authority, &authority.expired(NAME)) else {
        return;
    };
    let config = Config::new("a").channel("expired");
    let a = join(config, &server.params("app", NAME), &Trust::of(&authority));
    let start = Instant::now();
    refused(&a);
    eventually("attempts in more than one second", || {
        start.elapsed() > Duration::from_secs(2) && a.status().failed_attempts >= 5
    });
    drop(a);
    let warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = warnings.iter().filter(|w| w.starts_with("\"expired\""));
    assert_eq!(ours.count(), 1, "{warnings:?}");
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_required() {
    let server = Server::start();
    let authority = Authority::new("ours");
    let params = format!("{} sslmode=require", server.params());
    let text = refusal(&params, &Trust::of(&authority));
    assert!(text.contains("server does not support TLS"), "{text}");
}

#[test]
fn a_restart_over_tls_is_one_offline_and_one_online() {
    let Some((authority, mut server)) = start() else {
        return;
    };
    let trust = Trust::of(&authority);
    let params = server.params("app", NAME);
    let a = online(Config::new("a"), &params, &trust);
    let b = online(Config::new("b"), &params, &trust);
    expect(&a, "join b");
    expect(&b, "join a");
    for how in [Stop::Fast, Stop::Immediate] {
        server.server.restart(how);
        for member in [&a, &b] {
            expect(member, "offline");
            expect(member, "online");
        }
        fence(&a, &b);
        fence(&b, &a);
    }
    for member in [&a, &b] {
        expect_nothing(member);
    }
}

#[test]
fn tags_wake_a_sleeping_member_over_tls() {
    let Some((authority, server)) = start() else {
        return;
    };
    let trust = Trust::of(&authority);
    let params = server.params("app", NAME);
    let config = |name| Config::new(name).heartbeat_interval(HOUR);
    let watcher = online(config("watcher"), &params, &trust);
    // A server that is slow at the moment is not asked to wake anybody.
    eventually("a wake-up, over a new session", || {
        let a = online(config("a"), &params, &trust);
        expect(&watcher, "join a");
        let joined = Instant::now();
        eventually("it sleeps", || joined.elapsed() > Duration::from_secs(1));
        let before = server.sessions("app");
        let start = Instant::now();
        a.set_tags([("role", "leader")]).expect("valid");
        expect(&watcher, "update a");
        let elapsed = start.elapsed();
        let woken = server.sessions("app") > before;
        a.leave().expect("a goodbye");
        expect(&watcher, "leave a: Goodbye");
        woken && elapsed < Duration::from_millis(300)
    });
}

#[test]
fn leaving_and_dropping_over_tls_have_bounds() {
    let Some((authority, mut server)) = start() else {
        return;
    };
    let trust = Trust::of(&authority);
    let params = server.params("app", NAME);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|n| online(Config::new(n), &params, &trust));
    expect_all(&a, &["join b", "join c", "join d"]);
    drop(b);
    expect(&a, "leave b: Goodbye");
    server.server.freeze();
    let start = Instant::now();
    drop(c);
    let dropped = start.elapsed();
    d.leave().expect_err("nobody takes the goodbye");
    let left = start.elapsed() - dropped;
    server.server.thaw();
    assert!(dropped < Leavers::DROP, "{dropped:?}");
    assert!(left < Leavers::LEAVE, "{left:?}");
}
