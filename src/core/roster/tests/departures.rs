//! A member that was away learns who left meanwhile (rule 6).

use super::*;
use crate::core::roster::departures::{ON_ITS_WAY, TOLD_WITHIN};

/// How soon a departure that was missed is known.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Members that announce themselves so rarely that no heartbeat, and no expiry, tells anything.
fn crowd(net: &mut Net, count: usize) -> Vec<Id> {
    let start = |n| {
        let id = net.start_as(Setup {
            heartbeat: secs(60 * 60),
            delivery_budget: 1_800,
            ..Setup::new(&format!("p{n:03}"), 1 + n as u64)
        });
        net.run(ms(20));
        id
    };
    let ids: Vec<_> = (0..count).map(start).collect();
    net.run(secs(10));
    for &id in &ids {
        assert_eq!(net.seen_by(id).len(), count - 1);
        net.told(id);
    }
    ids
}

fn expect_left(net: &mut Net, id: Id, expected: &[&str]) {
    let told = net.told(id);
    let left = told.iter().filter(|event| event.starts_with("leave"));
    assert_eq!(left.collect::<Vec<_>>(), expected, "at {id}: {told:?}");
}

/// Somebody says goodbye while the link of another is down.
fn a_goodbye_is_missed(net: &mut Net, ids: &[Id]) {
    let (away, leaver) = (ids[1], ids[3]);
    net.disconnect(away);
    net.run(ms(300));
    net.leave(leaver);
    net.run(ms(300));
    net.reconnect(away);
    net.run(KNOWN_WITHIN);
    expect_left(net, away, &["leave p003.4 Goodbye"]);
}

/// Somebody dies, and while that is found out the link of another is down.
fn a_death_is_missed(net: &mut Net, ids: &[Id]) {
    let (away, dead) = (ids[1], ids[2]);
    net.crash(dead);
    net.run(ms(1_000));
    net.disconnect(away);
    net.run(GONE);
    net.reconnect(away);
    net.run(KNOWN_WITHIN);
    expect_left(net, away, &["leave p002.3 SessionGone"]);
}

/// How all come back that were away.
#[derive(Clone, Copy, Debug)]
enum Return {
    AtOnce,
    /// One after the other, within three seconds.
    InTurn,
    /// Those that missed something first, also one after the other.
    IgnorantFirst,
}

/// As in a restart of the server while others are deployed: some have heard of a departure, and some have not.
fn all_are_away_and_some_missed_a_departure(net: &mut Net, ids: &[Id], way: Return, dies: bool) {
    let leaver = ids[4];
    let stay: Vec<Id> = ids
        .iter()
        .copied()
        .filter(|&id| net.processes[id].online)
        .collect();
    let stay: Vec<Id> = stay.into_iter().filter(|&id| id != leaver).collect();
    for &id in &stay {
        net.told(id);
    }
    for &id in stay.iter().step_by(2) {
        net.disconnect(id);
    }
    if dies {
        // One that looks after sessions has found out, and tells it just before its link ends, too.
        net.crash(leaver);
        net.inject("pg-peers/1 gone name=p004 inc=5 seq=99;");
    } else {
        net.leave(leaver);
    }
    net.run(ms(50));
    for &id in &stay {
        net.disconnect(id);
    }
    net.run(ms(700));
    let before = net.sent.len();
    let mut order = stay.clone();
    if matches!(way, Return::IgnorantFirst) {
        let ignorant = stay.iter().step_by(2);
        let others = stay.iter().skip(1).step_by(2);
        order = ignorant.chain(others).copied().collect();
    }
    let gap = match way {
        Return::AtOnce => Duration::ZERO,
        Return::InTurn | Return::IgnorantFirst => secs(3) / stay.len() as u32,
    };
    for &id in &order {
        net.reconnect(id);
        net.run(gap);
    }
    net.run(KNOWN_WITHIN);
    let said = net.sent[before..].iter();
    let said = said.filter(|sent| sent.payload.contains(" gone name=p004 "));
    let said = said.count();
    assert!((1..=20).contains(&said), "{said} say it");
    let why = if dies { "SessionGone" } else { "Goodbye" };
    for &id in &stay {
        expect_left(net, id, &[&format!("leave p004.5 {why}")]);
    }
}

fn departures_are_missed(seed: u64, count: usize) {
    let mut net = Net::new(seed);
    let ids = crowd(&mut net, count);
    a_goodbye_is_missed(&mut net, &ids);
    a_death_is_missed(&mut net, &ids);
}

fn departures_are_missed_by_all(seed: u64, count: usize, way: Return) {
    let mut net = Net::new(seed);
    let ids = crowd(&mut net, count);
    let dies = seed % 2 == 1;
    all_are_away_and_some_missed_a_departure(&mut net, &ids, way, dies);
}

#[test]
fn a_departure_that_was_missed_is_known_within_a_second() {
    for seed in 0..20 {
        departures_are_missed(seed, 8);
    }
}

#[test]
fn a_departure_that_was_missed_is_known_within_a_second_by_400() {
    if large() {
        departures_are_missed(1, 400);
    }
}

#[test]
fn a_departure_that_was_missed_is_known_when_all_are_back_at_once() {
    for seed in 0..20 {
        departures_are_missed_by_all(seed, 8, Return::AtOnce);
    }
}

#[test]
fn a_departure_that_was_missed_is_known_when_all_come_back_in_turn() {
    for seed in 0..20 {
        for way in [Return::InTurn, Return::IgnorantFirst] {
            departures_are_missed_by_all(seed, 8, way);
        }
    }
}

#[test]
fn a_departure_that_was_missed_is_known_by_400_that_are_back() {
    if large() {
        for seed in [1, 2] {
            for way in [Return::AtOnce, Return::IgnorantFirst] {
                departures_are_missed_by_all(seed, 400, way);
            }
        }
    }
}

#[test]
fn an_expiry_that_was_missed_is_known_with_its_reason() {
    for paused in [false, true] {
        an_expiry_is_missed(paused);
    }
}

/// By one that takes itself for paused, too: the call hung that found its link dead.
fn an_expiry_is_missed(paused: bool) {
    let mut net = Net::new(1);
    let setup = |name: &str, incarnation| Setup {
        heartbeat: secs(10),
        session_check: false,
        ..Setup::new(name, incarnation)
    };
    let a = net.start_as(setup("a", 1));
    let b = net.start_as(setup("b", 2));
    let c = net.start_as(setup("c", 3));
    net.run(secs(20));
    net.told(b);
    net.crash(c);
    net.run(secs(15));
    net.disconnect(b);
    net.run(secs(20));
    if paused {
        let now = net.clock();
        net.processes[b].participant.roster.handle_pause(now);
    }
    expect_left(&mut net, a, &["leave c.3 Expired"]);
    net.reconnect(b);
    net.run(KNOWN_WITHIN);
    expect_left(&mut net, b, &["leave c.3 Expired"]);
}

#[test]
fn an_observer_that_was_away_is_told_too() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 5);
    let observer = net.start_as(Setup::observer());
    net.run(SETTLED);
    net.told(observer);
    net.disconnect(observer);
    net.leave(ids[2]);
    net.run(secs(100));
    net.reconnect(observer);
    net.run(KNOWN_WITHIN);
    expect_left(&mut net, observer, &["leave p002.3 Goodbye"]);
}

#[test]
fn a_newcomer_is_not_told_who_left_before_it_came() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 5);
    net.leave(ids[2]);
    net.run(ms(10));
    let newcomer = net.start("n", 100);
    net.run(SETTLED);
    assert_eq!(net.seen_by(newcomer).len(), 4);
    assert!(
        net.answers
            .iter()
            .all(|(_, sent)| !sent.payload.contains("name=p002"))
    );
}

#[test]
fn a_member_that_left_and_is_back_is_not_taken_for_gone() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 5);
    let (away, other) = (ids[1], ids[3]);
    net.disconnect(away);
    net.inject("pg-peers/1 gone name=p003 inc=4 seq=99;");
    net.run(ms(200));
    net.reconnect(away);
    net.run(KNOWN_WITHIN);
    expect_left(&mut net, away, &[]);
    assert_eq!(net.seen_by(other).len(), 4);
}

#[test]
fn a_second_loss_before_the_answer_asks_for_the_whole_time() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 5);
    let (away, leaver) = (ids[1], ids[3]);
    net.disconnect(away);
    net.leave(leaver);
    net.run(secs(60));
    net.reconnect(away);
    // Before anybody can have answered.
    net.run(Duration::from_micros(1_500));
    net.disconnect(away);
    net.run(secs(1));
    net.reconnect(away);
    net.run(KNOWN_WITHIN);
    expect_left(&mut net, away, &["leave p003.4 Goodbye"]);
}

#[test]
fn an_answer_to_an_earlier_question_settles_nothing() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 5);
    let observer = net.start_as(Setup::observer());
    net.run(SETTLED);
    // Its statement hangs, and is carried out when the observer is back.
    let late: Vec<_> = net
        .answers
        .iter()
        .map(|(_, sent)| Arc::clone(&sent.payload))
        .collect();
    net.disconnect(observer);
    net.start_as(Setup {
        heartbeat: secs(60 * 60),
        ..Setup::new("n", 100)
    });
    net.leave(ids[4]);
    net.run(ms(500));
    let key = net.processes[observer].key;
    net.reconnect(observer);
    for payload in late {
        net.send_to(key, &payload);
    }
    net.run(SETTLED);
    assert_eq!(net.seen_by(observer), net.truth_for(observer));
}

#[test]
fn what_was_missed_in_one_outage_is_not_asked_for_in_the_next() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 5);
    for &id in &ids {
        net.disconnect(id);
    }
    net.run(ms(700));
    for &id in &ids {
        net.reconnect(id);
    }
    net.run(secs(60));
    net.disconnect(ids[0]);
    net.reconnect(ids[0]);
    net.run(KNOWN_WITHIN);
    let hellos = net.sent_by(ids[0]).filter_map(|sent| {
        let payload = sent.payload.split_once(" hello ")?.1;
        let (_, away) = payload.split_once(" away=")?;
        Some(away.trim_end_matches(';').parse().expect("a number"))
    });
    let away: Vec<u64> = hellos.collect();
    assert!(away.iter().all(|&away| away < 10_000), "{away:?}");
    assert_eq!(away.len(), 2);
}

/// A member that knows only `p`, was offline for `time`, and has said hello again. It heard `meanwhile` a second before it lost its link.
fn back_after(time: Duration, meanwhile: &str) -> (Roster, Instant) {
    let (mut roster, mut now) = asking();
    answer(
        &mut roster,
        now,
        "part=1 parts=1; name=p inc=5 seq=1 due=3600000 pid=9;",
    );
    hear(&mut roster, now, meanwhile);
    now += secs(1);
    let _ = roster.handle_timeout(now, now);
    roster.handle_link_down();
    now += time;
    roster.handle_link_up(now, Pid::new(78));
    drain(&mut roster, now);
    (roster, now)
}

/// How long after that there is no peer left.
fn gone_by_silence(roster: &mut Roster, from: Instant) -> Option<Duration> {
    let times = (0..1_000).map(|tenths| ms(100) * tenths);
    times.into_iter().find(|&time| {
        let now = from + time;
        let _ = roster.handle_timeout(now, now);
        here(roster).is_empty()
    })
}

fn tells(roster: &mut Roster, from: Instant) -> Vec<String> {
    let told = drain(roster, from + TOLD_WITHIN);
    told.into_iter()
        .filter(|it| it.contains(" gone "))
        .collect()
}

#[test]
fn a_member_that_was_away_asks_for_somewhat_longer_than_that() {
    let (mut roster, now) = back_after(secs(60), "");
    let away = secs(60) + ON_ITS_WAY;
    assert_eq!(roster.away(now), Some(away));
    roster.round_trip.handle(ms(300));
    let far = roster.round_trip.twice();
    assert_eq!(roster.away(now), Some(away + far));
    let (roster, now) = back_after(wire::MOST_AWAY, "");
    assert_eq!(roster.away(now), Some(wire::MOST_AWAY));
    let newcomer = Setup::new("a", 1).roster(1, Inbox::new(1));
    assert_eq!(newcomer.away(now), None);
}

const GOODBYE: &str = "pg-peers/1 bye name=p inc=5 seq=2;";

#[test]
fn a_departure_that_the_answer_names_is_not_told_again() {
    for (answered, told) in [
        ("name=q inc=6 seq=1 due=3600000 pid=10;", 1),
        ("name=p inc=5 seq=2 why=goodbye;", 0),
        ("name=p inc=4 seq=9 why=goodbye;", 1),
        // A member that answers with one that has left was told of that since.
        ("name=p inc=5 seq=1 due=3600000 pid=9;", 0),
        ("name=p inc=4 seq=1 due=3600000 pid=9;", 1),
    ] {
        let (mut roster, now) = back_after(secs(5), GOODBYE);
        answer(
            &mut roster,
            now,
            &format!("ask=1 part=1 parts=1; {answered}"),
        );
        assert_eq!(tells(&mut roster, now).len(), told, "{answered:?}");
    }
}

#[test]
fn a_departure_heard_before_the_answer_ends_is_not_told_again() {
    let without_p = "ask=1 part=2 parts=2; name=q inc=6 seq=1 due=3600000 pid=10;";
    let of_an_earlier_start = "pg-peers/1 bye name=p inc=4 seq=9;";
    for (meanwhile, heard, told) in [
        ("", GOODBYE, 0),
        (GOODBYE, "", 1),
        (GOODBYE, of_an_earlier_start, 1),
    ] {
        let (mut roster, now) = back_after(secs(5), meanwhile);
        answer(&mut roster, now, "ask=1 part=1 parts=2;");
        hear(&mut roster, now, heard);
        answer(&mut roster, now, without_p);
        assert_eq!(
            tells(&mut roster, now).len(),
            told,
            "{meanwhile:?}, {heard:?}"
        );
    }
}

#[test]
fn a_peer_that_is_named_after_all_has_the_rest_of_its_time() {
    let said = |incarnation: u64, age: u64| {
        format!(" name=p inc={incarnation} seq=1 due=20000 age={age} beat=1000 pid=9;")
    };
    for (named, gone) in [
        (said(5, 0), secs(60)),
        (said(5, 10_000), secs(50)),
        (said(4, 0), ms(4_300)),
        (String::new(), ms(4_300)),
    ] {
        let mut now = Instant::now();
        let mut roster = Setup::new("a", 1).roster(1, Inbox::new(1));
        for (number, members) in [said(5, 0), String::new(), named.clone()]
            .iter()
            .enumerate()
        {
            match number {
                0 | 1 => roster.handle_link_up(now, Pid::new(77)),
                _ => assert!(roster.sync.begin_review(now)),
            }
            drain(&mut roster, now);
            let part = format!("ask={number} part=1 parts=1;{members}");
            answer(&mut roster, now, &part);
            if number == 0 {
                roster.handle_link_down();
                now += secs(1);
            }
        }
        let took = gone_by_silence(&mut roster, now);
        assert_eq!(took, Some(gone), "{named:?}");
    }
}

#[test]
fn a_peer_said_to_be_silent_that_another_hears_heals() {
    let (mut roster, mut now) = asking();
    let p = " name=p inc=5 seq=1 due=3600000 pid=9;";
    answer(&mut roster, now, &format!("part=1 parts=1;{p}"));
    let gone = "pg-peers/1 gone name=p inc=5 seq=1 why=silent;";
    for (number, there) in [(1, vec!["p.5"]), (2, vec![])] {
        hear(&mut roster, now, gone);
        assert!(here(&roster).is_empty());
        roster.doubt.handle_same(now);
        two_differ(&mut roster, now);
        now += secs(100);
        assert_eq!(
            roster.away(now),
            None,
            "nothing was missed that is known of"
        );
        let asked = drain(&mut roster, now);
        // Since somebody knew the same.
        let away = secs(100) + ON_ITS_WAY;
        assert_eq!(roster.away(now), Some(away));
        let asks = format!(" away={} ", away.as_millis());
        assert!(asked.iter().any(|it| it.contains(&asks)), "{asked:?}");
        if there.is_empty() {
            // What is said meanwhile is newer than the answer may be.
            hear(&mut roster, now, gone);
        }
        answer(
            &mut roster,
            now,
            &format!("ask={number} part=1 parts=1;{p}"),
        );
        assert_eq!(here(&roster), there);
    }
}

#[test]
fn an_answer_tells_the_session_of_a_silent_member() {
    for (seq, session) in [
        (1, Session::Unknown),
        (2, Session::At(Pid::new(9).expect("a pid"))),
    ] {
        let (mut roster, now) = asking();
        hear(&mut roster, now, &beat("p", 5, 2));
        let part = format!("part=1 parts=1; name=p inc=5 seq={seq} due=1000 pid=9;");
        answer(&mut roster, now, &part);
        assert_eq!(roster.entries["p"].session, session, "{seq}");
    }
}

#[test]
fn what_another_tells_of_this_start_or_a_later_one_is_not_repeated() {
    for (incarnation, told) in [(4, 1), (5, 0), (6, 0)] {
        let (mut roster, now) = back_after(secs(5), GOODBYE);
        answer(&mut roster, now, "ask=1 part=1 parts=1;");
        let gone = format!("pg-peers/1 gone name=p inc={incarnation} seq=9 why=silent;");
        hear(&mut roster, now, &gone);
        assert_eq!(tells(&mut roster, now).len(), told, "{incarnation}");
    }
}

#[test]
fn a_question_to_all_settles_others_unless_they_were_away_longer() {
    for (away, settles) in [("", false), (" away=1000", false), (" away=63000", true)] {
        let (mut roster, mut now) = back_after(secs(60), GOODBYE);
        let to_all = format!("pg-peers/1 ask name=x inbox=00000000000000ff try=3{away};");
        hear(&mut roster, now, &to_all);
        let mut said = Vec::new();
        for _ in 0..10 {
            now += ms(100);
            said.extend(drain(&mut roster, now));
        }
        let count = |part: &str| said.iter().filter(|it| it.contains(part)).count();
        assert_eq!(count(" ask "), if settles { 0 } else { 3 }, "{away}");
        assert_eq!(
            count(" gone name=p "),
            1,
            "{away}: told with what it asks itself, or is asked"
        );
    }
}
