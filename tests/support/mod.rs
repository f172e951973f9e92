//! What the tests share: servers, and waiting for events with a deadline.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "shared by tests that each use a part of it"
)]

mod intruder;
mod logs;
mod members;
mod network;
mod process;
mod raw;
mod rig;
#[cfg(feature = "auth")]
mod signer;
mod terminal;
mod tls;

use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config, Event, Reason};

pub use self::intruder::{Intruder, inbox};
pub use self::logs::{keep_logs, logged};
pub use self::members::*;
pub use self::network::Network;
pub use self::process::{Process, be_a_participant, be_a_participant_as, memory_of};
pub use self::raw::Raw;
pub use self::rig::*;
#[cfg(feature = "auth")]
pub use self::signer::{sign, sign_at};
pub use self::terminal::Terminal;
pub use self::tls::{Authority, Identity, PASSWORD, TlsServer};

/// A heartbeat for tests that wait for an expiry.
pub const SHORT: Duration = Duration::from_millis(200);

/// A participant on the server that is online.
pub fn join(server: &Server, name: &str) -> Cluster {
    online(Config::new(name), server)
}

/// A participant with a short heartbeat that is online.
pub fn join_short(server: &Server, name: &str) -> Cluster {
    online(Config::new(name).heartbeat_interval(SHORT), server)
}

/// Joins and waits for the first event, which is `Online`.
pub fn online(config: Config, server: &Server) -> Cluster {
    let cluster = config
        .join(&server.params())
        .expect("a valid configuration");
    expect(&cluster, "online");
    cluster
}

/// An event in words, such as `join a`, `leave a: Expired`, `offline`.
pub fn words(event: &Event) -> String {
    match event {
        Event::Join(peer) => format!("join {}", peer.name()),
        Event::Heal(peer) => format!("heal {}", peer.name()),
        Event::Update(peer) => format!("update {}", peer.name()),
        Event::Leave(peer, reason) => format!("leave {}: {reason:?}", peer.name()),
        Event::Online => "online".to_owned(),
        Event::Offline(_) => "offline".to_owned(),
        Event::NameTaken(peer) => format!("name taken: {}", peer.name()),
        other => format!("{other:?}"),
    }
}

/// The next event, which must be this one.
#[track_caller]
pub fn expect(cluster: &Cluster, expected: &str) -> Event {
    let event = next(cluster, expected);
    assert_eq!(words(&event), expected, "{event:?} at {cluster:?}");
    event
}

/// The next events, which must be these in any order.
#[track_caller]
pub fn expect_all(cluster: &Cluster, expected: &[&str]) {
    let mut seen: Vec<String> = (0..expected.len())
        .map(|_| words(&next(cluster, &expected.join(", "))))
        .collect();
    let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "at {cluster:?}");
}

/// The next event, whichever it is, where one was expected that is so described.
#[track_caller]
pub fn next(cluster: &Cluster, expected: &str) -> Event {
    match cluster.events().recv_timeout(PATIENCE) {
        Ok(event) => event,
        Err(e) => panic!(
            "{expected:?} did not come at {cluster:?}: {e}; {:?}",
            cluster.status()
        ),
    }
}

/// Nothing is waiting for the host. Only says something after a [`fence`] or another event that comes later.
#[track_caller]
pub fn expect_nothing(cluster: &Cluster) {
    let events: Vec<String> = cluster.events().try_iter().map(|e| words(&e)).collect();
    assert!(events.is_empty(), "{events:?} at {cluster:?}");
}

/// Everything that was announced before has been heard at `to`: a change of tags at `from` has come after it.
#[track_caller]
pub fn fence(from: &Cluster, to: &Cluster) {
    let name = from.name().expect("a member").to_owned();
    let nonce = format!("{:?}", Instant::now());
    from.set_tags([("fence", &nonce)]).expect("tags");
    let event = expect(to, &format!("update {name}"));
    let peer = event.peer().expect("a peer");
    assert_eq!(peer.tag("fence"), Some(&*nonce));
}

pub fn names(cluster: &Cluster) -> Vec<String> {
    cluster
        .peers()
        .iter()
        .map(|peer| peer.name().to_owned())
        .collect()
}

/// The pid of the backend that serves a participant, by the name it shows to operators. The session that proves that this one
/// works began later.
pub fn backend_of(server: &Server, name: &str) -> i32 {
    let mut client = server.client();
    let row = client
        .query_one(
            "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY backend_start LIMIT 1",
            &[&name],
        )
        .expect("one backend");
    row.get(0)
}

/// Expects a member behind a proxy to come online, within this many round trips of the first, and of the time when its session
/// ends; and to have heard of the only other one two round trips later.
pub fn count_round_trips(
    server: &Server,
    proxy: &Proxy,
    join: impl FnOnce(u16) -> Cluster,
    first: u64,
    again: u64,
) {
    let near = Config::new("near").join(&server.socket_params());
    let near = near.expect("valid");
    expect(&near, "online");
    let far = join(proxy.port());
    expect(&far, "online");
    let online = proxy.round_trips();
    expect(&far, "join near");
    let told = proxy.round_trips();
    println!("online after {online} round trips, and told after {told}");
    assert!(online <= first && told <= online + 2);
    expect(&near, "join far");

    wait_until_idle(server);
    let pid = backend_of(server, "far");
    server.run(&format!("SELECT pg_terminate_backend({pid})"));
    expect(&far, "offline");
    // Not sooner: a heartbeat may have been on its way when the session ended.
    let before = proxy.round_trips();
    expect(&far, "online");
    let online = proxy.round_trips() - before;
    println!("online again after {online} round trips");
    assert!(online <= again);
}

/// A participant that says nothing of its own accord for a minute. Where a statement is under way when Postgres ends a session,
/// the `postgres` crate tells of it only that the connection was closed.
pub fn reticent(config: Config) -> Config {
    config
        .heartbeat_interval(Duration::from_secs(60))
        .session_check(false)
}

/// Waits until no session has said anything for a while.
pub fn wait_until_idle(server: &Server) {
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
                AND application_name <> $1 AND (state <> 'idle' OR clock_timestamp() - state_change < interval '300 ms')";
    let mut client = server.client();
    eventually("idle sessions", || {
        let row = client.query_one(busy, &[&WATCH]).expect("a count");
        row.get::<_, i64>(0) == 0
    });
}

/// The reason in a `Leave`.
pub fn reason(event: &Event) -> Option<Reason> {
    match event {
        Event::Leave(_, reason) => Some(*reason),
        _ => None,
    }
}
