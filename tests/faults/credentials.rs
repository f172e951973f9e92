//! The server rejects the login: a password that changed, and one that is wrong.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pg_peers::postgres::error::SqlState;
use pg_peers::postgres::{self, NoTls};

use super::*;

/// How long a login that was rejected is not tried again, with a connection string and with a closure.
const REJECTED_FIXED: Duration = Duration::from_secs(30);
const REJECTED_SUPPLIED: Duration = Duration::from_secs(5);

/// A session of a role that has a password.
fn log_in(port: u16, password: &str) -> Result<postgres::Client, postgres::Error> {
    postgres::Config::new()
        .host("127.0.0.1")
        .port(port)
        .user("app")
        .dbname("postgres")
        .password(password)
        .connect(NoTls)
}

#[test]
fn a_password_that_changes_while_members_run_is_supplied_anew() {
    let server = Server::start();
    server.run("CREATE ROLE app LOGIN PASSWORD 'before'");
    server.require_password("app");
    let password = Arc::new(Mutex::new("before"));
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        let (port, password) = (server.port(), Arc::clone(&password));
        let connect = move || log_in(port, *password.lock().expect("a lock"));
        let member = Config::new(name).join_with(connect).expect("valid");
        expect(&member, "online");
        member
    });
    let members = [a, b, c];
    for member in &members {
        expect_joins(member, ["a", "b", "c"]);
    }
    server.run("ALTER ROLE app PASSWORD 'after'");
    let pid = backend_of(&server, "b");
    server.run(&format!("SELECT pg_terminate_backend({pid})"));
    expect(&members[1], "offline");
    meanwhile(&members, || {
        eventually("the old password is refused", || {
            let status = members[1].status();
            let code = status.last_error.and_then(|e| e.code().cloned());
            code == Some(SqlState::INVALID_PASSWORD)
        });
        let params = server
            .params()
            .replace("postgres", "app password=before dbname=postgres");
        Leavers::start(&params).leave_in_time();
    });
    // After this long without a session, a session check misses it.
    for member in [&members[0], &members[2]] {
        expect(member, "leave b: SessionGone");
    }
    *password.lock().expect("a lock") = "after";
    let supplied = Instant::now();
    expect(&members[1], "online");
    let limit = REJECTED_SUPPLIED + RECOVERY;
    within("online with the new password", supplied, limit);
    for member in [&members[0], &members[2]] {
        expect(member, "heal b");
    }
    expect_all_hear_all(&members);
}

/// How many logins the server has rejected for a wrong password.
fn rejected(server: &Server) -> usize {
    let log = server.log();
    log.matches("password authentication failed").count()
}

#[test]
fn an_address_that_may_have_been_banned_is_said_to_be() {
    let server = Server::start();
    server.run("CREATE ROLE app LOGIN PASSWORD 'right'");
    server.require_password("app");
    let way = Proxy::start(&server, Duration::ZERO);
    let port = way.port();
    let a = Config::new("a").join_with(move || log_in(port, "wrong"));
    let a = a.expect("valid");
    expect(&a, "offline");
    let why = |part: &str| {
        eventually(part, || {
            let error = a.status().last_error;
            error.is_some_and(|it| it.to_string().contains(part))
        });
    };
    why("rejects the login");
    // From then on nobody answers there.
    way.lead_to(1);
    why("may have banned this address");
    let error = a.status().last_error.expect("a reason").to_string();
    assert!(error.contains("every 5 s"), "{error}");
}

#[test]
fn a_password_that_is_wrong_for_good_is_rarely_tried_again() {
    let server = Server::start();
    server.run("CREATE ROLE app LOGIN PASSWORD 'before'");
    server.require_password("app");
    let port = server.port();
    // Two addresses, as `localhost` has.
    let params = format!(
        "host=127.0.0.1,127.0.0.1 port={port},{port} user=app password=before dbname=postgres"
    );
    let a = Config::new("a").join(&params).expect("valid");
    expect(&a, "online");
    server.run("ALTER ROLE app PASSWORD 'after'");
    // Its session lives on; a request that wakes it takes another, unless it is awake, as on a busy machine.
    for n in 0..10 {
        a.set_tags([("n", n.to_string())]).expect("tags");
        thread::sleep(Duration::from_millis(200));
    }
    let woken = rejected(&server);
    assert!(woken <= 1, "{woken} rejected logins");
    let pid = backend_of(&server, "a");
    server.run(&format!("SELECT pg_terminate_backend({pid})"));
    expect(&a, "offline");
    eventually("the old password is rejected", || rejected(&server) > woken);
    last_until(Instant::now() + Duration::from_secs(8));
    assert_eq!(rejected(&server), woken + 1);
    let status = a.status();
    assert_eq!(status.failed_attempts, 1);
    let reason = status.last_error.expect("a reason");
    assert_eq!(reason.code(), Some(&SqlState::INVALID_PASSWORD));
    assert!(reason.to_string().contains("every 30 s"), "{reason}");
    expect_nothing(&a);
    server.run("ALTER ROLE app PASSWORD 'before'");
    let accepted = Instant::now();
    a.wait_online(REJECTED_FIXED + RECOVERY).expect("online");
    within(
        "online once the password is right",
        accepted,
        REJECTED_FIXED + RECOVERY,
    );
    expect(&a, "online");
}
