//! PgBouncer goes away, or is in a mode that carries no notifications. More of it is in `tests/members/pooler.rs`.

use std::time::Instant;

use pg_peers::Event;

use super::*;

#[test]
fn a_pooler_that_restarts_is_one_offline_and_one_online() {
    let server = Server::start();
    let Some(mut pooler) = PgBouncer::start(&server, "session") else {
        return;
    };
    let direct = ["a", "b"].map(|name| online(Config::new(name), &server));
    let pooled = Config::new("c").join(&pooler.params()).expect("valid");
    let [a, b] = direct;
    let members = [a, b, pooled];
    expect(&members[2], "online");
    for member in &members {
        expect_joins(member, ["a", "b", "c"]);
    }
    let leavers = Leavers::join(&pooler.params());
    meanwhile(&members, || {
        pooler.stop();
        expect(&members[2], "offline");
        leavers.leave_in_time();
        pooler.start_again();
        let up = Instant::now();
        expect(&members[2], "online");
        within("online after the pooler accepts", up, RECOVERY);
    });
    expect_all_hear_all(&members);
}

#[test]
fn a_transaction_pooler_concerns_only_its_own_clients() {
    for mode in ["transaction", "statement"] {
        let server = Server::start();
        let Some(pooler) = PgBouncer::start(&server, mode) else {
            return;
        };
        let direct = acquainted(["a", "b"].map(Config::new), &server.params());
        let pooled = Config::new("c").join(&pooler.params()).expect("valid");
        meanwhile(&[&direct[0], &direct[1], &pooled], || {
            let Event::Offline(reason) = expect(&pooled, "offline") else {
                panic!("offline")
            };
            assert!(reason.is_pooler(), "{mode}: {reason}");
            Leavers::start(&pooler.params()).leave_in_time();
            let attempts = pooled.status().failed_attempts;
            eventually("it tries again", || {
                pooled.status().failed_attempts > attempts
            });
        });
        expect_all_hear_all(&direct);
        for member in direct.iter().chain([&pooled]) {
            expect_nothing(member);
        }
    }
}
