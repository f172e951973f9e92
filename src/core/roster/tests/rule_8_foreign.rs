//! Rule 8: payloads of others are ignored, and a bare name is a heartbeat.

use super::*;

/// A member with the default interval, and a stranger whose session lasts.
fn beside_a_node() -> (Net, Id) {
    let (mut net, a) = listener(Setup {
        heartbeat: secs(5),
        ..Setup::new("a", 1)
    });
    net.begin_session(STRANGER);
    (net, a)
}

#[test]
fn a_bare_name_is_a_peer_without_incarnation_or_tags() {
    let (mut net, a) = beside_a_node();
    net.inject("realtime@10.0.0.1");
    net.run(secs(10));
    net.inject("realtime@10.0.0.1");
    net.run(secs(15));
    assert_eq!(net.told(a), ["join realtime@10.0.0.1"]);
    net.run(LATENCY);
    assert_eq!(net.told(a), ["leave realtime@10.0.0.1 Expired"]);
    net.inject("realtime@10.0.0.1");
    net.run(LATENCY);
    assert_eq!(net.told(a), ["heal realtime@10.0.0.1"]);
}

#[test]
fn bare_and_full_announcements_replace_each_other() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject("b@h");
    net.inject(&beat("b@h", 5, 1));
    // Says less than what is known.
    net.inject("b@h");
    net.inject(&bye("b@h", 5, 2));
    net.run(SETTLED);
    net.inject("b@h");
    net.run(ms(10));
    assert_eq!(
        net.told(a),
        [
            "join b@h",
            "leave b@h Replaced",
            "join b@h.5",
            "leave b@h.5 Goodbye",
            "join b@h"
        ]
    );
}

#[test]
fn a_bare_member_and_the_others_know_each_other_at_once() {
    let mut net = Net::new(1);
    let ids = quiet_crowd(&mut net, 20, |_| ms(100));
    net.run(SETTLED);
    let bare = net.start_as(Setup::bare("b@h"));
    net.run(ANSWERED_WITHIN);
    assert_eq!(net.seen_by(bare).len(), 20);
    for id in ids {
        assert!(net.seen_by(id).contains(&"b@h".to_owned()));
    }
}

#[test]
fn a_repeated_bare_name_is_not_answered() {
    let (mut net, a) = listener(Setup {
        heartbeat: secs(60 * 60),
        ..Setup::new("a", 1)
    });
    net.run(SETTLED);
    let before = net.count_sent_by(a);
    for _ in 0..20 {
        net.inject("b@h");
        net.run(secs(5));
    }
    assert_eq!(net.count_sent_by(a), before + 1, "when it came");
}

#[test]
fn a_bare_member_says_its_name_and_nothing_else() {
    let mut net = Net::new(1);
    let bare = net.start_as(Setup::bare("b@h"));
    let a = net.start("a", 1);
    net.run(SETTLED);
    net.inject(&beat("c", 100, 1));
    net.run(ms(10));
    net.inject(&hello("c", 5, 1));
    net.inject(&hello("b@h", 1_000, 1));
    net.inject(&hello("d", 5, 1));
    net.run(ms(500));
    net.disconnect(bare);
    net.reconnect(bare);
    net.run(SETTLED);
    net.leave(bare);
    net.run(LATENCY);
    assert!(net.sent_by(bare).all(|sent| &*sent.payload == "b@h"));
    assert!(!net.processes[bare].participant.silenced);
    assert!(net.processes[a].participant.host.peers.contains_key("b@h"));
}

#[test]
fn payloads_that_are_not_ours_change_nothing() {
    let told = told_of([
        String::new(),
        "hello world".to_owned(),
        "a@b c".to_owned(),
        "a@b@c".to_owned(),
        format!("a@{}", "b".repeat(254)),
        "a@b\u{7}".to_owned(),
        beat("b", 5, 1).replace("pg-peers/1", "pg-peers/2"),
        beat("b", 5, 1).replace(';', ""),
        beat("b", 5, 1).replace("beat", "roster"),
    ]);
    assert!(told.is_empty(), "{told:?}");
}

/// What is told of a bare name that two of our members hear every five seconds, from these backends in turn, and then no more;
/// and when.
fn end_of_bare(backends: &[Pid], ended: &[Pid]) -> (String, Duration) {
    let (mut net, a) = beside_a_node();
    backends.iter().for_each(|&pid| net.begin_session(pid));
    for n in 0..20 {
        net.send(None, backends[n % backends.len()], "node@h");
        net.run(secs(5));
    }
    net.send(None, backends[0], "node@h");
    net.told(a);
    for &pid in ended {
        net.end_session(pid);
    }
    let start = net.now;
    assert!(net.run_until(secs(30), |net| net.seen_by(a).is_empty()));
    (net.told(a).join(", "), net.now - start)
}

#[test]
fn the_session_of_a_bare_name_is_the_one_that_it_comes_from() {
    let [one, other] = [500, 501].map(|pid| Pid::new(pid).expect("a number"));
    let (told, after) = end_of_bare(&[one], &[one]);
    assert_eq!(told, "leave node@h SessionGone");
    assert!(after <= ms(8_650), "{after:?}");
    // It may be there without that session.
    let (told, after) = end_of_bare(&[one, other], &[one]);
    assert_eq!(
        (&*told, after),
        ("leave node@h Expired", secs(15) + LATENCY)
    );
}

#[test]
fn a_bare_name_whose_session_is_renewed_stays() {
    for interval in [secs(5) + ms(150), secs(7), secs(13), secs(20), secs(60)] {
        let (mut net, a) = beside_a_node();
        for _ in 0..20 {
            net.inject("node@h");
            net.run(interval);
        }
        net.told(a);
        for n in 0..100 {
            let pid = Pid::new(500 + n / 4).expect("a number");
            net.begin_session(pid);
            net.send(None, pid, "node@h");
            net.run(ms(100));
            // Which is found missing before it is heard again, by another.
            net.end_session(pid);
            net.run(interval - ms(100));
        }
        assert_eq!(net.told(a), [""; 0], "{interval:?}");
    }
}

#[test]
fn bare_names_may_share_a_session() {
    let (mut net, a) = beside_a_node();
    for _ in 0..20 {
        net.inject("one@h");
        net.run(secs(1));
        net.inject("other@h");
        net.run(secs(9));
    }
    assert_eq!(net.told(a), ["join one@h", "join other@h"]);
}

/// How many times a bare name that comes so often leaves within that time.
fn leaves(interval: Duration, time: Duration) -> usize {
    let (mut net, a) = beside_a_node();
    let end = net.now + time;
    while net.now < end {
        net.inject("node@h");
        net.run(interval);
    }
    let told = net.told(a);
    told.iter()
        .filter(|event| event.starts_with("leave"))
        .count()
}

#[test]
fn how_often_a_bare_name_comes_is_learned() {
    assert_eq!(leaves(secs(5), secs(600)), 0);
    assert_eq!(leaves(secs(14), secs(600)), 0);
    assert_eq!(leaves(secs(20), secs(600)), 1);
    assert_eq!(leaves(secs(60), secs(3_600)), 2);
    assert_eq!(leaves(secs(600), secs(36_000)), 2);
}

#[test]
fn the_interval_of_a_bare_name_follows_its_gaps() {
    let (mut net, a) = beside_a_node();
    // In milliseconds.
    for (gap, interval) in [
        (1_000, 5_000),
        (5_000, 5_000),
        (13_400, 6_700),
        // Almost too late.
        (20_000, 20_000),
        (20_000, 17_500),
        // Too long to be believed once.
        (60_000, 15_312),
        (60_000, 60_000),
        // It is forgotten slowly.
        (1_000, 52_500),
    ] {
        net.run(ms(gap) - LATENCY * 2);
        net.inject("node@h");
        net.run(LATENCY * 2);
        let due = net.processes[a].participant.roster.entries["node@h"].due;
        assert_eq!(due, interval, "{gap}");
    }
    // What was not heard while the link was down is no gap.
    net.disconnect(a);
    net.run(secs(1));
    net.reconnect(a);
    net.run(secs(100));
    net.inject("node@h");
    net.run(LATENCY * 2);
    let due = net.processes[a].participant.roster.entries["node@h"].due;
    assert_eq!(due, 52_500);
    // A member that says more has its interval from that.
    net.inject(&beat("node@h", 5, 1));
    net.run(secs(1));
    net.inject("node@h");
    net.run(LATENCY * 2);
    let entry = &net.processes[a].participant.roster.entries["node@h"];
    assert_eq!((entry.due, entry.last_gap), (1_000, 0));
}

#[test]
fn an_outage_of_a_bare_name_is_not_its_interval() {
    let (mut net, a) = beside_a_node();
    let speaks = |net: &mut Net| {
        for _ in 0..10 {
            net.inject("node@h");
            net.run(secs(5));
        }
    };
    speaks(&mut net);
    net.run(secs(3_600));
    speaks(&mut net);
    net.told(a);
    net.run(secs(12));
    assert_eq!(net.told(a), ["leave node@h Expired"]);
}

#[test]
fn an_outage_of_the_link_is_not_the_interval_of_a_bare_name() {
    let (mut net, a) = beside_a_node();
    net.inject("node@h");
    net.run(secs(5));
    net.inject("node@h");
    net.disconnect(a);
    net.run(secs(25));
    net.reconnect(a);
    net.inject("node@h");
    net.run(secs(16));
    assert!(net.told(a).contains(&"leave node@h Expired".to_owned()));
}
