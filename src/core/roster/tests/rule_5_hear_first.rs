//! Rule 5: hear first, expire after.

use super::*;

#[test]
fn a_paused_process_hears_what_waits_before_anyone_expires() {
    let mut net = Net::new(1);
    let often = |name: &str, incarnation| Setup {
        heartbeat: ms(200),
        ..Setup::new(name, incarnation)
    };
    let a = net.start_as(often("a", 1));
    let b = net.start_as(often("b", 5));
    net.run(SETTLED);
    net.told(b);
    // Longer than b's grace, and too short to be noticed as a pause.
    net.pause(a);
    net.run(ms(900));
    net.wake(a);
    net.run(SETTLED);
    assert_eq!(net.told(a), ["join b.5"]);
    assert_eq!(net.told(b), ["leave a.1 Expired", "heal a.1"]);
}

#[test]
fn processes_that_were_paused_together_do_not_drop_each_other() {
    let mut net = Net::new(1);
    let ids = ["a", "b", "c"].map(|name| net.start(name, 1));
    net.run(SETTLED);
    for id in ids {
        net.told(id);
        net.pause(id);
    }
    net.run(secs(3_000));
    for id in ids {
        net.wake(id);
        net.run(ms(300));
    }
    net.run(SETTLED);
    for id in ids {
        assert!(net.told(id).is_empty());
    }
}

#[test]
fn after_a_pause_word_of_silence_is_not_believed_for_an_interval() {
    let now = Instant::now();
    let mut roster = Setup::new("a", 1).roster(1, Inbox::new(1));
    roster.handle_link_up(now, Pid::new(77));
    hear(&mut roster, now, &beat("b", 5, 1));
    roster.handle_pause(now);
    for (later, there) in [(HEARTBEAT - ms(1), vec!["b.5"]), (HEARTBEAT, vec![])] {
        let _ = roster.handle_timeout(now + later, now);
        let gone = "pg-peers/1 gone name=b inc=5 seq=1 why=silent;";
        hear(&mut roster, now + later, gone);
        assert_eq!(here(&roster), there, "{later:?}");
    }
}

#[test]
fn a_peer_that_died_during_the_pause_is_gone_a_grace_period_later() {
    let mut net = Net::new(1);
    let a = net.start_as(Setup {
        session_check: false,
        ..Setup::new("a", 1)
    });
    let b = net.start("b", 5);
    net.run(SETTLED);
    net.told(a);
    net.pause(a);
    net.run(secs(2));
    net.crash(b);
    net.run(secs(60));
    net.wake(a);
    net.run(ms(2_999));
    assert!(net.told(a).is_empty());
    net.run(ms(2));
    assert_eq!(net.told(a), ["leave b.5 Expired"]);
}

#[test]
fn a_newcomer_knows_peers_for_as_long_as_those_that_answer_it() {
    let mut net = Net::new(1);
    let setup = |name: &str, incarnation| Setup {
        heartbeat: secs(5),
        session_check: false,
        ..Setup::new(name, incarnation)
    };
    let a = net.start_as(setup("a", 1));
    net.run(SETTLED);
    net.inject(&beat("b", 5, 1));
    net.loud_until = net.now + secs(2);
    // Longer than b may be silent where little is said.
    net.run(ms(3_200));
    let c = net.start_as(setup("c", 9));
    net.run(ms(500));
    assert_eq!(net.told(c), ["join b.5", "join a.1"]);
    net.told(a);
    let mut gone = Vec::new();
    for at in 0..60 {
        net.run(ms(100));
        for id in [a, c] {
            let left = net.told(id).contains(&"leave b.5 Expired".to_owned());
            gone.extend(left.then_some((id, at)));
        }
    }
    let [(_, first), (_, second)] = gone[..] else {
        panic!("{gone:?}");
    };
    assert!(first >= 2 && second <= first + 1, "{gone:?}");
}

#[test]
fn a_peer_that_is_missing_at_a_pause_has_its_time_again() {
    let mut net = Net::new(1);
    let setup = |name: &str, incarnation, session_check| Setup {
        heartbeat: secs(60 * 60),
        session_check,
        ..Setup::new(name, incarnation)
    };
    let a = net.start_as(setup("a", 1, true));
    let b = net.start_as(setup("b", 5, false));
    net.run(SETTLED);
    net.told(a);
    net.crash(b);
    // It was missing once.
    net.run(ms(2_100));
    let now = net.clock();
    let roster = &mut net.processes[a].participant.roster;
    roster.handle_pause(now);
    net.run(wire::LEAST_BACK - ms(1));
    assert_eq!(net.told(a), [""; 0]);
    net.run(GONE - wire::LEAST_BACK);
    assert_eq!(net.told(a), ["leave b.5 SessionGone"]);
}

#[test]
fn on_a_loud_channel_an_unheard_peer_has_the_time_of_its_beats_more() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject("pg-peers/1 beat name=b inc=1 seq=1 due=10000 pid=7 beat=1000;");
    net.run(ms(10));
    let entries = &mut net.processes[a].participant.roster.entries;
    let entry = entries.get_mut("b").expect("a peer");
    let until = entry.until;
    for (confirmed, loud_for, more) in [
        (true, 1_000, 0),
        (true, 30_000, 0),
        (true, 70_000, 40_000),
        (true, 200_000, 60_000),
        (false, 55_750, 0),
        (false, 57_750, 2_000),
        (false, 200_000, 8_500),
    ] {
        entry.confirmed = confirmed;
        // A minute before it is overdue, and later.
        let loud_until = until - secs(60) + ms(loud_for);
        let overdue_at = entry.overdue_at(Some(loud_until), &Lull::default(), MISSED);
        assert_eq!(overdue_at - until, ms(more), "{confirmed} {loud_for}");
        assert_eq!(entry.overdue_at(None, &Lull::default(), MISSED), until);
    }
}

#[test]
fn on_a_loud_channel_a_late_answer_gives_no_more_time_than_hearing() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject("pg-peers/1 beat name=b inc=1 seq=1 due=100 pid=7 beat=100;");
    net.run(ms(10));
    net.disconnect(a);
    net.reconnect(a);
    net.loud_until = net.now + ms(10);
    // It looks when the grace period is over.
    net.run(ms(350));
    drop(net.told(a));
    let key = net.processes[a].key;
    net.send_to(
        key,
        "pg-peers/1 roster ask=1 part=1 parts=1; name=b inc=1 seq=1 due=100 age=90 pid=7 beat=100;",
    );
    net.run(ms(10));
    assert_eq!(net.told(a), [""; 0]);
    net.run(ms(1_000));
    assert_eq!(net.told(a), ["leave b.1 Expired"]);
}

#[test]
fn where_much_is_said_peers_have_longer_and_not_for_ever() {
    // If the channel is loud until this many milliseconds after that.
    let gone_after = |loud: u64| {
        gone_after(Setup::new("a", 1), |roster, heard, at| {
            // It is never known to be over in more than a second.
            roster.handle_loud(Some(heard + ms(loud.min(at + 1_000))));
        })
    };
    assert_eq!(gone_after(0), Some(3_000));
    assert_eq!(gone_after(2_000), Some(5_000), "a grace period after it");
    assert_eq!(gone_after(60_000), Some(9_000), "three at most");
}
