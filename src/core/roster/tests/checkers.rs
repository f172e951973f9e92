//! Who asks Postgres for sessions: no matter who dies, a member that lives looks, and few do.

use super::*;

/// Starts `count` processes, the oldest first, and lets them settle; those that do not look for sessions are chosen.
pub(super) fn crowd(net: &mut Net, count: usize, looks: impl Fn(usize) -> bool) -> Vec<Id> {
    let start = |n| {
        let id = net.start_as(Setup {
            heartbeat: secs(60 * 60),
            session_check: looks(n),
            ..Setup::new(&format!("p{n:02}"), 1 + n as u64)
        });
        net.run(ms(20));
        id
    };
    let ids = (0..count).map(start).collect();
    net.run(SETTLED);
    ids
}

/// Asserts that each survivor is told of exactly the deaths, by their sessions, within that time.
fn assert_all_know(net: &mut Net, ids: &[Id], dead: &[usize], within: Duration) {
    for &id in ids {
        net.told(id);
    }
    for &n in dead {
        net.crash(ids[n]);
    }
    net.run(within);
    let mut expected: Vec<_> = dead
        .iter()
        .map(|n| format!("leave p{n:02}.{} SessionGone", n + 1))
        .collect();
    expected.sort();
    for (n, &id) in ids.iter().enumerate() {
        let survives = !dead.contains(&n) && net.processes[id].paused_since.is_none();
        let mut told = net.told(id);
        told.sort();
        assert!(!survives || told == expected, "{n}: {told:?}");
    }
}

#[test]
fn a_rack_that_dies_at_once_is_known_within_seconds() {
    let older: Vec<usize> = (0..32).collect();
    let younger: Vec<usize> = (32..64).collect();
    let middle: Vec<usize> = (1..63).collect();
    for dead in [older, younger, middle] {
        for phase in 0..4 {
            let mut net = Net::new(phase);
            let ids = crowd(&mut net, 64, |_| true);
            net.run(ms(500 * phase));
            assert_all_know(&mut net, &ids, &dead, GONE);
        }
    }
}

#[test]
fn the_oldest_need_not_look() {
    for count in [8, 30] {
        let mut net = Net::new(7);
        let ids = crowd(&mut net, count, |n| n > 2);
        assert_all_know(&mut net, &ids, &[count - 1], GONE);
    }
}

#[test]
fn the_oldest_may_be_stopped() {
    for count in [10, 30, 60] {
        let mut net = Net::new(7);
        let ids = crowd(&mut net, count, |_| true);
        for &id in &ids[..3] {
            net.pause(id);
        }
        assert_all_know(&mut net, &ids, &[count - 1], GONE);
    }
}

#[test]
fn a_member_that_may_not_look_says_so_and_another_looks() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 12, |_| true);
    let now = net.clock();
    for &id in ids[..2].iter().chain(&ids[10..]) {
        let roster = &mut net.processes[id].participant.roster;
        roster.handle_no_right_to_check(now);
    }
    net.run(SETTLED);
    let said = |id: Id| {
        net.sent_by(id)
            .last()
            .map(|sent| sent.payload.contains(" check=0"))
    };
    assert_eq!(said(ids[0]), Some(true));
    assert_eq!(said(ids[5]), Some(false));
    assert_all_know(&mut net, &ids, &[5], GONE);
}

#[test]
fn a_checker_without_the_right_tries_again_with_the_next_link() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 2, |n| n == 0);
    let now = net.clock();
    let roster = &mut net.processes[ids[0]].participant.roster;
    roster.handle_no_right_to_check(now);
    net.run(secs(10));
    let before = net.checks;
    net.run(secs(10));
    assert_eq!(net.checks, before);
    net.disconnect(ids[0]);
    net.run(ms(100));
    net.reconnect(ids[0]);
    net.run(SETTLED);
    assert!(net.checks > before);
}

#[test]
fn few_ask_however_many_there_are() {
    for count in [2, 10, 60, 200] {
        let mut net = Net::new(1);
        crowd(&mut net, count, |_| true);
        net.run(SETTLED);
        let before = net.checks;
        net.run(secs(60));
        let asked = net.checks - before;
        assert!((55..180).contains(&asked), "{asked} in a minute by {count}");
    }
}

#[test]
fn a_lone_member_asks_for_nobody() {
    let mut net = Net::new(1);
    crowd(&mut net, 1, |_| true);
    net.run(secs(60));
    assert_eq!(net.checks, 0);
}

#[test]
fn a_crowd_that_starts_at_once_does_not_ask_at_once() {
    let mut net = Net::new(1);
    for n in 0..100 {
        net.start(&format!("p{n:02}"), 1 + n);
        net.run(ms(10));
    }
    let before = net.checks;
    net.run(secs(20));
    // Each asks once, to know whether it sees the sessions of others.
    let asked = net.checks - before;
    assert!(asked <= 100 + 80, "{asked} in 20 seconds");
}

#[test]
fn a_death_is_confirmed_by_few_and_told_by_few() {
    let mut net = Net::new(3);
    let ids = crowd(&mut net, 60, |_| true);
    net.run(SETTLED);
    let (checks, sent) = (net.checks, net.sent.len());
    net.crash(ids[30]);
    net.run(secs(10));
    let asked = net.checks - checks;
    assert!(asked <= 33, "{asked} in ten seconds");
    let gone = net.sent[sent..].iter();
    let gone = gone.filter(|sent| sent.payload.contains(" gone "));
    assert_eq!(gone.count(), 1);
}

#[test]
fn a_peer_that_the_host_cannot_reach_is_asked_for_at_once() {
    for reporters in [1, 30] {
        let mut net = Net::new(5);
        let ids = crowd(&mut net, 60, |_| true);
        // Only those in the middle, which otherwise hardly ask.
        for &id in ids[..2].iter().chain(&ids[58..]) {
            net.pause(id);
        }
        net.crash(ids[40]);
        for &id in &ids[5..5 + reporters] {
            net.report_unreachable(id, "p40");
        }
        let died = net.now;
        let gone = |net: &Net| {
            net.seen_by(ids[3])
                .iter()
                .all(|peer| !peer.starts_with("p40"))
        };
        assert!(net.run_until(secs(30), gone));
        // In which time it could have been back, and a moment.
        let took = net.now - died;
        assert!(took < ms(1_250 + 250 + 850), "{took:?} with {reporters}");
    }
}

#[test]
fn unreachable_peers_are_asked_for_rarely() {
    let mut net = Net::new(5);
    let ids = crowd(&mut net, 30, |n| n == 15);
    net.run(SETTLED);
    let before = net.checks;
    for round in 0..100 {
        let name = format!("p{:02}", round % 10);
        net.report_unreachable(ids[15], &name);
        net.run(ms(100));
    }
    let asked = net.checks - before;
    // Soon after the first reports, and 1.25 intervals after them; the others are of reports in between, and for all.
    assert!((3..=9).contains(&asked), "{asked} in ten seconds");
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
fn a_session_counts_only_for_the_member_that_announces_from_it() {
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
    assert!(count <= 3 * 40, "{count} questions in 40 seconds");
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

#[test]
fn the_end_of_a_bare_name_takes_no_backend_from_another() {
    let (mut net, a) = listener(Setup::new("a", 1));
    let pid = Pid::new(9).expect("a number");
    let member = "pg-peers/1 beat name=q inc=6 seq=1 due=10000 pid=9;";
    for said in ["b@h", "b@h", member, "pg-peers/1 bye name=b@h inc=5 seq=1;"] {
        net.send(None, pid, said);
    }
    net.run(ms(10));
    assert_eq!(net.seen_by(a), ["q.6"]);
    let backends = &net.processes[a].participant.roster.backends;
    assert_eq!(backends.get(&pid).map(|name| &**name), Some("q"));
}
