//! Wall clocks that went back, and two processes with one name.

use pg_peers::Event;

use super::*;

#[test]
fn a_restart_with_the_clock_a_day_back_replaces() {
    let server = Server::start();
    let members = acquainted(["a", "b"].map(Config::new), &server.params());
    let first = Process::join(&server, "c");
    let before = members
        .each_ref()
        .map(|member| incarnation(&expect(member, "join c")));
    first.kill();
    let Some(mut second) = Process::join_a_day_back(&server, "c") else {
        return;
    };
    meanwhile(&members, || {
        for (member, before) in members.iter().zip(before) {
            // Its death may be known before it is back.
            let event = next(member, "leave c");
            assert!(words(&event).starts_with("leave c: "), "{event:?}");
            assert!(incarnation(&expect(member, "join c")) > before);
        }
    });
    second.expect_all(&["join a", "join b"]);
    expect_all_hear_all(&members);
    second.expect_all(&["update a", "update b"]);
    second.expect_nothing();
}

#[test]
fn the_later_of_two_stays_though_its_clock_is_a_day_back() {
    let server = Server::start();
    let [a, b] = acquainted(["a", "b"].map(Config::new), &server.params());
    let old = online(Config::new("c").heartbeat_interval(SHORT), &server);
    for member in [&a, &b] {
        expect(member, "join c");
    }
    expect_joins(&old, ["a", "b"]);
    let Some(mut new) = Process::join_a_day_back(&server, "c") else {
        return;
    };
    meanwhile(&[&a, &b, &old], || {
        expect(&old, "name taken: c");
        for member in [&a, &b] {
            expect(member, "leave c: Replaced");
            expect(member, "join c");
        }
        new.expect_all(&["join a", "join b"]);
    });
    let announced = old.status().announced;
    // Several heartbeats of either later, nothing has changed.
    for round in 0..5 {
        a.set_tags([("round", round.to_string())]).expect("tags");
        for hearer in [&b, &old] {
            expect(hearer, "update a");
        }
        new.expect("update a");
    }
    assert_eq!(old.status().announced, announced);
    for member in [&a, &b, &old] {
        expect_nothing(member);
    }
    new.expect_nothing();
}

fn incarnation(event: &Event) -> Option<pg_peers::Incarnation> {
    event.peer().expect("a peer").incarnation()
}
