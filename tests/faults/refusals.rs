//! The server is there and refuses: a standby, no room. Passwords are in `credentials.rs`, a role without login in
//! `tests/members/link.rs`.

use std::time::Instant;

use pg_peers::postgres::error::SqlState;
use pg_peers::postgres::{self, NoTls};
use pg_peers::{Error, Event};

use super::*;

fn expect_refusal(member: &Cluster) -> Error {
    match expect(member, "offline") {
        Event::Offline(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn on_a_standby_the_reason_is_said_until_it_is_promoted() {
    let primary = Server::start();
    let standby = primary.standby();
    let join = |name| Config::new(name).join(&standby.params()).expect("valid");
    let members = ["a", "b", "c"].map(join);
    meanwhile(&members, || {
        for member in &members {
            let reason = expect_refusal(member);
            let code = Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
            assert_eq!(reason.code(), code, "{reason}");
            assert!(reason.to_string().contains("recovery"), "{reason}");
        }
        Leavers::start(&standby.params()).leave_in_time();
        eventually("more attempts", || {
            members.iter().all(|m| m.status().failed_attempts >= 3)
        });
    });
    standby.promote();
    let promoted = Instant::now();
    expect_each(&members, "online");
    for member in &members {
        expect_joins(member, ["a", "b", "c"]);
    }
    within("everybody known after the promotion", promoted, RECOVERY);
}

#[test]
fn a_full_server_is_the_reason_until_there_is_room() {
    let server =
        Server::start_with(&["max_connections = 13", "superuser_reserved_connections = 0"]);
    let [a, b] = acquainted(["a", "b"].map(Config::new), &server.params());
    let mut others = Vec::new();
    let full = loop {
        match postgres::Client::connect(&server.params(), NoTls) {
            Ok(client) => others.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(full.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
    let c = Config::new("c").join(&server.params()).expect("valid");
    let reason = expect_refusal(&c);
    assert_eq!(
        reason.code(),
        Some(&SqlState::TOO_MANY_CONNECTIONS),
        "{reason}"
    );
    // Those who are in need no other connection to go on; a request only takes longer.
    a.set_tags([("n", "1")]).expect("tags");
    expect(&b, "update a");
    let members = [a, b, c];
    let [a, b, c] = &members;
    meanwhile(&members, || {
        Leavers::start(&server.params()).leave_in_time();
        eventually("more attempts", || c.status().failed_attempts >= 3);
    });
    drop(others);
    let free = Instant::now();
    expect(c, "online");
    expect_joins(c, ["a", "b"]);
    within("online once there is room", free, RECOVERY);
    for member in [a, b] {
        expect(member, "join c");
    }
    expect_all_hear_all(&members);
}
