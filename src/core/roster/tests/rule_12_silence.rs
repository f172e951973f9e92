//! Rule 12: a process that hangs is known by its session, which stands still, however rarely it would announce itself.

use super::*;
use crate::core::stillness::Look;

const BEAT: Duration = Duration::from_secs(5);

/// What a hung process may take to be known: three beats, and the time between two looks of a checker.
const HUNG: Duration = Duration::from_secs(17);

fn thrifty(name: &str, incarnation: u64) -> Setup {
    Setup {
        heartbeat: BEAT,
        delivery_budget: 200,
        ..Setup::new(name, incarnation)
    }
}

/// Starts `count` processes with the default settings, the oldest first, and waits until they announce themselves as rarely as
/// they will.
fn crowd(net: &mut Net, count: usize) -> Vec<Id> {
    let start = |n| {
        let id = net.start_as(thrifty(&format!("p{n:03}"), 1 + n as u64));
        net.run(ms(20));
        id
    };
    let ids: Vec<Id> = (0..count).map(start).collect();
    net.run(secs(30));
    ids
}

/// What each of these was told.
fn told(net: &mut Net, ids: &[Id]) -> Vec<String> {
    ids.iter().flat_map(|&id| net.told(id)).collect()
}

fn interval(net: &Net, id: Id) -> Duration {
    net.processes[id].participant.roster.interval()
}

/// Whether it is judged by its session, as it says itself.
fn is_judged(net: &Net, id: Id) -> bool {
    let roster = &net.processes[id].participant.roster;
    roster.is_judged_by_session()
}

fn assert_that_one_that_hangs_is_known(count: usize) {
    let mut net = Net::new(count as u64);
    let mut ids = crowd(&mut net, count);
    net.run(secs(120));
    assert!(told(&mut net, &ids).iter().all(|it| it.starts_with("join")));
    for n in [0, count / 2, count - 1] {
        let hung = ids.remove(n.min(ids.len() - 1));
        net.pause(hung);
        net.run(HUNG);
        let (name, incarnation) = (net.processes[hung].name.clone(), net.incarnation(hung));
        let expected = [format!("leave {name}.{incarnation} Expired")];
        for &id in &ids {
            assert_eq!(net.told(id), expected, "{id} of {count}");
        }
        net.wake(hung);
        net.run(ms(100));
        let expected = [format!("heal {name}.{incarnation}")];
        for &id in &ids {
            assert_eq!(net.told(id), expected, "{id} of {count}");
        }
        net.run(secs(20));
        assert_eq!(net.seen_by(hung).len(), count - 1);
        ids.insert(n.min(ids.len()), hung);
        assert!(told(&mut net, &ids).is_empty());
    }
}

#[test]
fn one_of_ten_that_hangs_is_known_in_seconds() {
    assert_that_one_that_hangs_is_known(10);
}

#[test]
fn one_of_100_that_hangs_is_known_in_seconds() {
    assert_that_one_that_hangs_is_known(100);
}

#[test]
fn one_of_400_that_hangs_is_known_in_seconds() {
    if large() {
        assert_that_one_that_hangs_is_known(400);
    }
}

#[test]
fn members_prove_themselves_without_a_word() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 100);
    net.run(secs(60));
    assert!(ids.iter().all(|&id| is_judged(&net, id)));
    let before = net.sent.len();
    net.run(secs(200));
    let each_second = (net.sent.len() - before) as f64 / 200.0;
    assert!(each_second < 2.5, "{each_second} commits a second");
    assert_eq!(interval(&net, ids[3]), secs(50));
}

#[test]
fn a_member_that_sees_no_sessions_speaks_ten_times_as_often() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 100);
    for &id in &ids {
        // As if each had a different role.
        net.processes[id].hidden = true;
        net.disconnect(id);
        net.reconnect(id);
    }
    net.run(secs(60));
    for &id in &ids {
        assert!(!is_judged(&net, id));
        assert_eq!(interval(&net, id), BEAT);
    }
    told(&mut net, &ids);
    net.pause(ids[0]);
    net.run(secs(9));
    assert!(told(&mut net, &ids[1..]).is_empty(), "nobody looks");
    net.run(secs(8));
    assert_eq!(told(&mut net, &ids[1..]).len(), 99, "by expiry");
}

#[test]
fn a_member_that_is_told_no_sessions_does_not_count_on_being_seen() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 100);
    assert!(is_judged(&net, ids[0]));
    let now = net.clock();
    let roster = &mut net.processes[ids[0]].participant.roster;
    roster.handle_no_right_to_check(now);
    assert!(!is_judged(&net, ids[0]));
}

#[test]
fn a_session_that_nobody_sees_is_not_judged() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 40);
    told(&mut net, &ids);
    // It tracks no activity, and hangs.
    net.processes[ids[7]].hidden = true;
    net.pause(ids[7]);
    net.run(secs(20));
    assert!(told(&mut net, &ids).is_empty());
}

#[test]
fn a_member_that_promises_no_beats_is_not_judged() {
    for (beat, told) in [("", vec![]), (" beat=5000", vec!["leave b.1 Expired"])] {
        let (mut net, a) = listener(thrifty("a", 1));
        // It says nothing on its session.
        let pid = STRANGER;
        net.begin_session(pid);
        net.inject(&format!(
            "pg-peers/1 beat name=b inc=1 seq=1 due=600000{beat} pid={pid};"
        ));
        net.run(ms(10));
        net.told(a);
        net.run(secs(60));
        assert_eq!(net.told(a), told);
    }
}

#[test]
fn in_a_flood_nobody_is_judged_by_an_idle_session() {
    // So that none is heard for long.
    let mut net = Net::new(1);
    let thrifty = |n: u64| Setup {
        delivery_budget: 20,
        ..thrifty(&format!("p{n:03}"), 1 + n)
    };
    let ids: Vec<Id> = (0..100).map(|n| net.start_as(thrifty(n))).collect();
    net.run(secs(60));
    told(&mut net, &ids);
    let now = net.clock();
    let drowned = ids[50];
    net.processes[drowned].participant.roster.handle_flood(now);
    net.run(secs(5));
    assert!(!is_judged(&net, drowned));
    let said = net.sent_by(drowned).last().expect("a word");
    assert!(!said.payload.contains(" beat="), "{}", said.payload);
    net.processes[drowned].stands_still = true;
    net.run(secs(54));
    assert!(told(&mut net, &ids).is_empty());
    net.processes[drowned].stands_still = false;
    net.run(secs(2));
    assert!(is_judged(&net, drowned));
    net.run(secs(100));
    assert!(told(&mut net, &ids).is_empty());
}

#[test]
fn a_server_that_sleeps_with_all_its_members_silences_nobody() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 100);
    net.run(secs(60));
    told(&mut net, &ids);
    for phase in 0..20 {
        net.server_is_ahead += secs(3_600);
        net.run(ms(10_000 + 250 * phase));
        assert_eq!(told(&mut net, &ids), [""; 0], "{phase}");
    }
}

#[test]
fn those_that_were_stopped_together_keep_each_other() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 64);
    told(&mut net, &ids);
    let (stopped, others) = ids.split_at(32);
    stopped.iter().for_each(|&id| net.pause(id));
    net.run(secs(30));
    let left = told(&mut net, others);
    assert_eq!(left.len(), 32 * 32, "{left:?}");
    assert!(left.iter().all(|it| it.ends_with("Expired")));
    stopped.iter().for_each(|&id| net.wake(id));
    net.run(secs(1));
    let healed = told(&mut net, others);
    assert_eq!(healed.len(), 32 * 32);
    assert!(healed.iter().all(|it| it.starts_with("heal")));
    net.run(secs(30));
    assert!(told(&mut net, &ids).is_empty());
}

#[test]
fn a_stop_during_a_statement_keeps_those_stopped_with_it() {
    let gone = "pg-peers/1 gone name=b inc=1 seq=1 why=silent;";
    for (took, told) in [(ms(1), vec!["leave b.1 Expired"]), (secs(10), vec![])] {
        let (mut net, a) = listener(thrifty("a", 1));
        net.inject(&beat_due("b", 1, 1, secs(600)));
        net.run(ms(10));
        net.told(a);
        net.inject(gone);
        let now = net.clock() + net.latency;
        let roster = &mut net.processes[a].participant.roster;
        roster.handle_round_trip(now, took);
        net.run(net.latency);
        assert_eq!(net.told(a), told);
        // Those that were stopped with it have an interval to say something.
        net.run(BEAT / 2);
        net.inject(gone);
        net.run(ms(10));
        assert!(net.told(a).is_empty());
        // What comes later is news.
        net.run(BEAT);
        net.inject(gone);
        net.run(ms(10));
        assert_eq!(net.told(a).len(), 1 - told.len());
    }
}

#[test]
fn where_all_that_look_hang_others_look_again() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 40);
    net.run(secs(60));
    told(&mut net, &ids);
    let hung = [0, 1, 38, 39].map(|n| ids[n]);
    hung.iter().for_each(|&id| net.pause(id));
    // One of the others looks every four seconds or so.
    net.run(HUNG + secs(25));
    let left = told(&mut net, &ids[2..38]);
    assert_eq!(left.len(), 4 * 36, "{left:?}");
}

#[test]
fn a_peer_that_died_while_the_link_was_down_is_not_kept_for_long() {
    for loud in [false, true] {
        let mut net = Net::new(1);
        let ids = crowd(&mut net, 100);
        net.run(secs(60));
        for &id in &ids {
            net.disconnect(id);
        }
        net.run(ms(300));
        for &id in &ids[1..] {
            net.reconnect(id);
        }
        told(&mut net, &ids);
        if loud {
            net.loud_until = net.now + secs(1);
            net.run(secs(1) + BEAT * MISSED);
        }
        net.run(secs(20));
        let left = told(&mut net, &ids[1..]);
        assert_eq!(left, vec!["leave p000.1 Expired"; 99]);
    }
}

#[test]
fn after_an_outage_a_silent_peer_has_its_time_from_the_answer_on() {
    // All may take seconds to announce themselves.
    let (mut net, a) = listener(Setup {
        delivery_budget: 1,
        ..thrifty("a", 1)
    });
    for n in 0..20 {
        net.inject(&format!(
            "pg-peers/1 beat name=b{n} inc=1 seq=1 due=600000 pid=7 beat=1000 back=2000;"
        ));
    }
    net.run(SETTLED);
    net.disconnect(a);
    net.run(ms(300));
    net.reconnect(a);
    let spread = net.processes[a].participant.roster.spread();
    assert!(spread > secs(4), "{spread:?}");
    let knows = |net: &Net| net.processes[a].participant.roster.sync.is_settled();
    assert!(net.run_until(secs(60), knows));
    let known = net.now;
    let none = |net: &Net| net.seen_by(a).is_empty();
    assert!(net.run_until(secs(60), none));
    let expected = secs(1) * MISSED + secs(2) + spread;
    let took = net.now - known;
    assert!(took.abs_diff(expected) < ms(50), "{took:?} {expected:?}");
}

#[test]
fn what_was_reported_before_the_link_was_lost_heals_after_it() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 100);
    net.run(secs(60));
    net.told(ids[0]);
    net.report_unreachable(ids[0], "p009");
    net.disconnect(ids[0]);
    net.run(ms(300));
    net.reconnect(ids[0]);
    net.run(BEAT.mul_f64(1.5));
    assert_eq!(net.told(ids[0]), ["offline", "online", "heal p009.10"]);
}

#[test]
fn what_the_host_cannot_reach_heals_by_its_session() {
    for count in [10, 100] {
        let mut net = Net::new(1);
        let ids = crowd(&mut net, count);
        net.run(secs(60));
        told(&mut net, &ids);
        for round in 0..5 {
            let lost = &ids[3 + round];
            let (name, incarnation) = (net.processes[*lost].name.clone(), net.incarnation(*lost));
            net.report_unreachable(ids[0], &name);
            net.run(BEAT.mul_f64(1.5));
            assert_eq!(net.told(ids[0]), [format!("heal {name}.{incarnation}")]);
        }
    }
}

#[test]
fn what_the_host_cannot_reach_and_hangs_does_not_heal() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 100);
    told(&mut net, &ids);
    net.pause(ids[9]);
    net.report_unreachable(ids[0], "p009");
    net.run(HUNG);
    assert_eq!(net.told(ids[0]), ["leave p009.10 Expired"]);
}

/// A member that knows p, of backend 9, which promises a beat each second, with these fields in its announcement.
fn beside_p(fields: &str) -> (Roster, Instant) {
    let (mut roster, now) = asking();
    let p = format!(" name=p inc=5 seq=1 due=600000 beat=1000{fields};");
    answer(&mut roster, now, &format!("part=1 parts=1;{p}"));
    (roster, now)
}

/// A look that takes no time, and finds the session of p idle for so long.
fn look(roster: &mut Roster, asked: Instant, idle: Option<Duration>, seen: bool) {
    let took = Duration::ZERO;
    let pid = Pid::new(9).expect("a number");
    let idle = idle.map(|idle| (pid, Some(idle))).into_iter().collect();
    let look = Look { asked, took };
    roster.handle_session_check(asked, look, &HashSet::new(), &idle, seen);
}

#[test]
fn a_session_is_still_for_too_long_after_the_missed_beats() {
    // In milliseconds before a look: the last statement, the last announcement, and when the channel was last loud.
    for (idle, silent, loud, late) in [
        (3_000, 100_000, None, false),
        (3_001, 100_000, None, true),
        (100_000, 3_000, None, false),
        (100_000, 3_001, None, true),
        (3_001, 100_000, Some(3_000), true),
        (9_000, 100_000, Some(2_999), false),
        (9_001, 100_000, Some(2_999), true),
    ] {
        let (mut roster, heard) = beside_p(" pid=9");
        let last = heard + ms(silent);
        roster.handle_loud(loud.map(|ago| last - ms(ago)));
        for before in [secs(2), ms(0)] {
            look(&mut roster, last - before, Some(ms(idle) - before), true);
        }
        let found = roster.stillness.overdue("p").is_some();
        assert_eq!(found, late, "{idle} {silent} {loud:?}");
    }
}

#[test]
fn an_unreachable_peer_heals_by_a_statement_after_the_report() {
    for (idle, heals) in [(4_999, true), (5_000, false), (5_001, false)] {
        let (mut roster, now) = beside_p(" pid=9");
        let peer = roster.entries["p"].peer.clone();
        assert!(!roster.has_unreachable());
        roster.report_unreachable(now, &peer);
        assert!(roster.has_unreachable());
        look(&mut roster, now + secs(5), Some(ms(idle)), true);
        let standing = roster.entries["p"].standing;
        assert_eq!(standing == Standing::Alive, heals, "{idle}");
    }
}

#[test]
fn a_member_that_no_checker_sees_is_not_judged_and_says_so_once() {
    for (fields, seen, judged) in [
        (" pid=9", true, true),
        (" pid=9", false, false),
        (" pid=9 check=0", true, false),
        ("", true, false),
    ] {
        let (mut roster, mut now) = beside_p(fields);
        let mut round = |roster: &mut Roster, seen| {
            now += secs(2);
            drain(roster, now);
            roster.poll_session_check(now);
            look(roster, now, None, seen);
            let said = drain(roster, now + ms(20));
            said.iter().any(|it| it.contains(" name=a inc="))
        };
        assert!(!round(&mut roster, seen), "it announces itself at {fields}");
        assert_eq!(roster.is_judged_by_session(), judged, "{fields} {seen}");
        assert_eq!(round(&mut roster, false), judged, "{fields} {seen}");
        assert!(!round(&mut roster, false));
        assert!(!roster.is_judged_by_session());
    }
}
