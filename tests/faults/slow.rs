//! A server that is slow and healthy: slow is not dead.

use std::time::{Duration, Instant};

use pg_peers::Config;

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
    for either in [&newcomer, &member] {
        // Also where a reason came first.
        either.wait_online(PATIENCE).expect("online");
        within("online", start, time * 3 + Duration::from_secs(3));
        assert_eq!(either.status().failed_attempts, 0);
    }
}

#[test]
fn a_first_hello_that_hangs_leaves_room_for_the_next() {
    let server = Server::start();
    let proxy = Proxy::start(&server, Duration::ZERO);
    proxy.stall_at("hello name=");
    let a = Config::new("a").join(&proxy.params()).expect("valid");
    expect(&a, "offline");
    proxy.resume();
    expect(&a, "online");
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
