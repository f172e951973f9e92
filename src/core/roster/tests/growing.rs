//! Many members: the delivery budget and the session check.

use super::*;

#[test]
fn the_interval_grows_so_that_the_deliveries_do_not() {
    for (crowd, interval) in [(10, secs(1)), (50, ms(1_250)), (100, secs(5))] {
        let mut net = Net::new(1);
        let mut start = |n| net.start(&format!("p{n:02}"), 1 + n as u64);
        let ids: Vec<Id> = (0..crowd).map(&mut start).collect();
        net.run(interval * 2 + SETTLED);
        for &id in &ids {
            assert_eq!(net.processes[id].participant.roster.interval(), interval);
        }
        let before = net.deliveries;
        let time = interval * 10;
        net.run(time);
        let each_second = (net.deliveries - before) as f64 / time.as_secs_f64();
        let expected = (crowd * crowd) as f64 / interval.as_secs_f64();
        assert!(
            (0.99..1.07).contains(&(each_second / expected)),
            "{each_second} of {expected}"
        );
        for id in ids {
            assert_eq!(net.seen_by(id).len(), crowd - 1);
        }
    }
}

#[test]
fn processes_that_started_together_do_not_go_on_in_step() {
    let mut net = Net::new(1);
    for n in 0..100 {
        net.start(&format!("p{n:02}"), 1);
    }
    net.run(secs(5));
    // Once around, in tenths of the interval.
    for _ in 0..10 {
        let before = net.sent.len();
        net.run(ms(500));
        let count = net.sent.len() - before;
        assert!(
            (1..=30).contains(&count),
            "{count} of 100 announce themselves in a tenth of the time"
        );
    }
}

#[test]
fn all_know_within_seconds_that_a_process_was_killed() {
    for victim in [0, 1, 2, 7] {
        for phase in 0..20 {
            let mut net = Net::new(1);
            let ids = settled_crowd(&mut net, 8);
            net.run(ms(100 * phase));
            net.crash(ids[victim]);
            net.run(GONE);
            let told = format!("leave p{victim:02}.{} SessionGone", victim + 1);
            for (_, &id) in ids.iter().enumerate().filter(|(n, _)| *n != victim) {
                assert_eq!(net.told(id).pop().as_ref(), Some(&told));
            }
        }
    }
}

#[test]
fn others_check_sessions_when_the_checkers_are_killed() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 12);
    for &id in &ids[..7] {
        net.crash(id);
    }
    // One of the others asks some time.
    net.run(secs(30));
    for &id in &ids[7..] {
        assert_eq!(net.seen_by(id).len(), 4);
    }
}

#[test]
fn sessions_are_asked_for_twice_a_second_at_most() {
    for crowd in [2, 10, 60] {
        let mut net = Net::new(1);
        settled_crowd(&mut net, crowd);
        let before = net.checks;
        net.run(secs(60));
        let count = net.checks - before;
        assert!(
            (55..=120).contains(&count),
            "{count} in a minute by {crowd}"
        );
    }
    let mut net = Net::new(1);
    settled_crowd(&mut net, 1);
    net.run(secs(60));
    assert_eq!(net.checks, 0, "there is nobody to ask for");
}

#[test]
fn reconnecting_within_a_second_is_never_gone() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 5);
    for &id in &ids {
        net.told(id);
    }
    for round in 0..100 {
        // Also those that ask.
        let id = ids[round % ids.len()];
        net.disconnect(id);
        net.run(ms(1_100));
        net.reconnect(id);
        net.run(ms(137));
    }
    net.run(SETTLED);
    for id in ids {
        let told = net.told(id);
        assert!(
            told.iter()
                .all(|event| event == "online" || event.starts_with("offline")),
            "{told:?}"
        );
    }
}

#[test]
fn a_restart_of_the_server_costs_nobody_its_place() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 5);
    for round in 0..5 {
        for &id in &ids {
            net.disconnect(id);
        }
        net.run(ms(500));
        for &id in &ids {
            net.reconnect(id);
            net.run(ms(200 * round));
        }
        net.run(SETTLED);
        for &id in &ids {
            assert_eq!(net.seen_by(id).len(), 4);
        }
    }
    net.crash(ids[2]);
    net.run(GONE);
    assert!(
        net.told(ids[4])
            .contains(&"leave p02.3 SessionGone".to_owned())
    );
}

#[test]
fn who_is_wrongly_reported_gone_is_back_at_once() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 3);
    let (a, b) = (ids[0], ids[1]);
    net.told(a);
    net.inject("pg-peers/1 gone name=p01 inc=2 seq=99;");
    net.run(ms(50));
    assert_eq!(net.told(a), ["leave p01.2 SessionGone", "heal p01.2"]);
    assert_eq!(net.seen_by(b).len(), 2);
}

#[test]
fn an_outdated_session_check_changes_nothing() {
    let gone = |name: &str, inc, seq| format!("pg-peers/1 gone name={name} inc={inc} seq={seq};");
    let told = told_of([
        beat("b", 5, 7),
        gone("b", 5, 6),
        gone("b", 4, 9),
        gone("b", 6, 9),
        gone("nobody", 1, 1),
        gone("b", 5, 7),
        gone("b", 5, 7),
    ]);
    assert_eq!(told, ["join b.5", "leave b.5 SessionGone"]);
}

#[test]
fn a_session_counts_only_for_who_announces_from_it() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 2);
    // Neither of these backends is there; the second is not the speaker's either.
    net.inject(&beat_due("x", 5, 1, secs(600)));
    net.inject("pg-peers/1 beat name=y inc=5 seq=1 due=600000 pid=77;");
    net.inject(&format!(
        "pg-peers/1 beat name=z inc=5 seq=1 due=600000 pid={STRANGER};"
    ));
    net.run(SETTLED);
    assert_eq!(net.seen_by(ids[0]), ["p01.2", "x.5", "y.5"]);
    assert_eq!(net.seen_by(ids[1]), ["p00.1", "x.5", "y.5"]);
}

#[test]
fn members_that_do_not_ask_for_sessions_believe_those_that_do() {
    let setup = |name, session_check| Setup {
        heartbeat: secs(600),
        session_check,
        ..Setup::new(name, 1)
    };
    for (asks, left) in [
        (true, "leave c.1 SessionGone"),
        (false, "leave c.1 Expired"),
    ] {
        let mut net = Net::new(1);
        let a = net.start_as(setup("a", false));
        net.start_as(setup("b", asks));
        let c = net.start_as(setup("c", false));
        let observer = net.start_as(Setup::observer());
        net.run(SETTLED);
        net.crash(c);
        net.run(secs(4 * 600));
        assert_eq!(net.told(a).pop().as_deref(), Some(left));
        assert_eq!(net.told(observer).pop().as_deref(), Some(left));
        assert_eq!(net.checks > 0, asks);
    }
}

#[test]
fn session_checks_are_not_more_frequent_when_many_die() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 60);
    let before = net.checks;
    for &id in ids.iter().skip(10).take(40) {
        net.crash(id);
        net.run(secs(1));
    }
    let count = net.checks - before;
    assert!(count <= 2 * 40 + 2, "{count} questions in 40 seconds");
}

#[test]
fn a_peer_ended_by_a_later_goodbye_is_no_longer_looked_for() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.run(SETTLED);
    let beat = |name, seq| {
        let pid = STRANGER;
        format!("pg-peers/1 beat name={name} inc=5 seq={seq} due=600000 pid={pid};")
    };
    net.inject(&beat("b", 1));
    net.inject(&beat("c", 1));
    net.run(ms(2_100));
    // Both are missing by now; of c something is heard, and b is ended without ever having been heard again.
    net.inject(&beat("c", 2));
    net.inject(&bye("b", 6, 1));
    net.run(ms(10));
    let checks = net.checks;
    net.run(SETTLED);
    assert_eq!(
        net.told(a),
        [
            "join b.5",
            "join c.5",
            "leave b.5 Replaced",
            "leave c.5 SessionGone"
        ]
    );
    let count = net.checks - checks;
    assert!(count <= 4, "{count} questions");
}
