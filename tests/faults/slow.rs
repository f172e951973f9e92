//! A server that is slow and healthy: slow is not dead.

use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config};

use super::*;

/// From now on, logging in takes this long.
fn slow_logins(server: &Server, time: Duration) {
    let seconds = time.as_secs();
    server.run(&format!("ALTER SYSTEM SET post_auth_delay = {seconds}"));
    server.run("SELECT pg_reload_conf()");
    eventually("a slow login", || {
        let start = Instant::now();
        drop(server.client());
        start.elapsed() >= time
    });
}

fn logins_take(time: Duration) {
    let server = Server::start();
    let member = join(&server, "a");
    let backend = backend_of(&server, "a");
    let mut client = server.client();
    slow_logins(&server, time);
    let start = Instant::now();
    let newcomer = Config::new("b").join(&server.params()).expect("valid");
    client
        .execute("SELECT pg_terminate_backend($1)", &[&backend])
        .expect("to end a session");
    expect(&member, "offline");
    for participant in [&newcomer, &member] {
        // Also where a reason came first.
        participant.wait_online(PATIENCE).expect("online");
        within("online", start, time * 3 + Duration::from_secs(3));
        assert_eq!(participant.status().failed_attempts, 0);
    }
}

#[test]
fn logins_that_take_a_second() {
    logins_take(Duration::from_secs(1));
}

#[test]
fn logins_that_take_four_seconds() {
    logins_take(Duration::from_secs(4));
}

#[test]
fn logins_that_take_eight_seconds() {
    if long() {
        logins_take(Duration::from_secs(8));
    }
}

/// The sessions of three far members are ended again and again. Those that are near see nothing of it.
fn far_sessions_end(round_trip: Duration, rounds: usize) {
    let server = Server::start();
    let proxy = Proxy::start(&server, round_trip / 2);
    let join = |name: &str, params: &str| Config::new(name).join(params).expect("valid");
    let near = ["a", "b", "c", "d"].map(|name| join(name, &server.params()));
    let far = ["x", "y", "z"].map(|name| join(name, &proxy.params()));
    for member in near.iter().chain(&far) {
        member.wait_for_peers(6, PATIENCE).expect("everybody");
    }
    for member in near.iter().chain(&far) {
        // Online, and six that joined.
        (0..7).for_each(|_| drop(next(member, "online, or a join")));
    }
    for _ in 0..rounds {
        server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('x', 'y', 'z')",
        );
        for member in &far {
            expect(member, "offline");
        }
        for member in &far {
            expect(member, "online");
        }
    }
    for speaker in &far {
        for listener in &near {
            fence_past_updates(speaker, listener);
        }
    }
}

/// Everything that was announced before has been heard at `to`, and none of it was a leave or a heal.
#[track_caller]
fn fence_past_updates(from: &Cluster, to: &Cluster) {
    let nonce = format!("{:?}", Instant::now());
    from.set_tags([("fence", &nonce)]).expect("tags");
    loop {
        let event = next(to, "an update");
        assert!(words(&event).starts_with("update"), "{event:?} at {to:?}");
        if event.peer().and_then(|peer| peer.tag("fence")) == Some(&*nonce) {
            return;
        }
    }
}

#[test]
fn sessions_of_members_150_ms_away_end() {
    far_sessions_end(Duration::from_millis(150), 3);
}

#[test]
fn sessions_of_members_300_ms_away_end_twenty_times() {
    if long() {
        far_sessions_end(Duration::from_millis(300), 20);
    }
}

/// A far member that is killed is known to be gone as soon as it could have been back.
#[test]
fn a_far_member_is_killed() {
    let server = Server::start();
    let near = ["a", "b"].map(|name| join(&server, name));
    let round_trip = Duration::from_millis(300);
    let proxy = Proxy::start(&server, round_trip / 2);
    let far = Process::join_at(&proxy.params(), "far", Duration::from_secs(5));
    for member in &near {
        member.wait_for_peers(2, PATIENCE).expect("everybody");
    }
    let start = Instant::now();
    far.kill();
    let is_there = |member: &Cluster| names(member).contains(&"far".to_owned());
    eventually("far is gone", || !near.iter().any(is_there));
    // Logging in takes no password here.
    let reconnect = round_trip * 6;
    let back = reconnect.mul_f64(1.5) + Duration::from_millis(750);
    within("known", start, Duration::from_secs(2) + back);
}

#[test]
fn few_round_trips_lead_to_online() {
    let server = Server::start();
    server.run(&format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"));
    server.require_password("app");
    let proxy = Proxy::start(&server, Duration::from_millis(75));
    let join = |port| {
        let user = format!("user=app password={PASSWORD} dbname=postgres");
        let params = format!("host=127.0.0.1 port={port} {user}");
        Config::new("far").join(&params).expect("valid")
    };
    count_round_trips(&server, &proxy, join, 11, 8);
}
