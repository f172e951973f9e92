//! Rule 4: while the link is down nobody expires.

use super::*;
use crate::core::session_check::MOST_FOR_SLOWNESS;

/// It announces itself rarely, and learns of others only by what they say.
fn rare(name: &str, incarnation: u64) -> Setup {
    Setup {
        heartbeat: secs(60),
        session_check: false,
        ..Setup::new(name, incarnation)
    }
}

/// NOTIFY is held up for so long. Just before the end the member gives up, and is back later.
fn give_up_just_before_the_end(net: &mut Net, member: Id, held_up: u64, late: u64) {
    net.hold_up(ms(held_up));
    net.run(ms(held_up - 10));
    net.disconnect(member);
    net.run(ms(late));
    net.reconnect(member);
    net.run(SETTLED);
}

/// It was given up waiting just before it would have got through, and is said again a moment later. Others were in the queue, and get
/// through at once.
#[test]
fn a_statement_given_up_at_the_end_of_a_lull_is_excused() {
    for (others, late) in [0, 1, 3]
        .into_iter()
        .flat_map(|n| [(n, 0), (n, 100), (n, 300)])
    {
        // When it would expire it is held up still, or not any more.
        for held_up in [2_700, 2_950, 2_990, 3_020, 3_300] {
            let mut net = Net::new(1);
            let watchers = ["v", "w"].map(|name| net.start_as(rare(name, 1)));
            for n in 0..others {
                net.start(&format!("other{n}"), 3);
            }
            let b = net.start("b", 2);
            net.run(SETTLED);
            let said = net.count_sent_by(b);
            net.run_until(secs(2), |net| net.count_sent_by(b) > said);
            watchers.iter().for_each(|&id| drop(net.told(id)));
            give_up_just_before_the_end(&mut net, b, held_up, late);
            for id in watchers {
                assert_eq!(net.told(id), [""; 0], "{held_up}, {late}, {others}");
            }
            net.crash(b);
            net.run(secs(3) + wire::LEAST_BACK / 4 + ms(10));
            for id in watchers {
                assert_eq!(net.told(id), ["leave b.2 Expired"], "{held_up}");
            }
        }
    }
}

/// The same where the watchers have just come back, and have not heard of it since.
#[test]
fn a_statement_given_up_in_a_lull_is_excused_to_new_peers_too() {
    for late in [0, 100, 300] {
        for held_up in [2_950, 2_990, 3_020, 3_300] {
            let mut net = Net::new(1);
            let b = net.start("b", 2);
            net.run(SETTLED);
            let watchers = ["v", "w"].map(|name| net.start_as(rare(name, 3)));
            net.run(SETTLED);
            let said = net.count_sent_by(b);
            net.run_until(secs(2), |net| net.count_sent_by(b) > said);
            for id in watchers {
                net.disconnect(id);
                net.reconnect(id);
                let said = net.count_sent_by(id);
                net.run_until(secs(1), |net| net.count_sent_by(id) > said);
                drop(net.told(id));
            }
            give_up_just_before_the_end(&mut net, b, held_up, late);
            for id in watchers {
                assert_eq!(net.told(id), [""; 0], "{held_up}, {late}");
            }
        }
    }
}

#[test]
fn a_hello_that_took_long_gives_everybody_the_time_that_it_took() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&beat_due("b", 1, 1, secs(1)));
    net.run(ms(10));
    net.disconnect(a);
    let now = net.clock();
    let roster = &mut net.processes[a].participant.roster;
    roster.handle_link_up(now, None);
    let said = roster
        .poll_announcement(now)
        .map(|hello| wire::encode(&hello));
    assert!(said.is_some_and(|said| said.contains(" hello ")));
    let sent = now + ms(900);
    roster.handle_sent(sent);
    let late = sent + secs(3);
    assert!(!roster.handle_timeout(late - ms(10), late));
    assert_eq!(here(roster), ["b.1"]);
    assert!(!roster.handle_timeout(late, late));
    assert!(here(roster).is_empty());
}

#[test]
fn nobody_expires_while_the_link_is_down_or_at_once_after() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    net.disconnect(a);
    net.crash(b);
    net.run(secs(600));
    assert_eq!(net.told(a), ["join b.5", "offline"]);
    net.reconnect(a);
    net.run(HEARTBEAT * MISSED - ms(1));
    assert_eq!(net.told(a), ["online"]);
    // From when the hello is through.
    net.run(ms(1) + LATENCY);
    assert_eq!(net.told(a), ["leave b.5 Expired"]);
}

#[test]
fn nothing_is_due_while_the_link_is_down() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&beat("b", 100, 1));
    net.inject(&hello("b", 5, 1));
    net.run(LATENCY);
    // A correction is planned, b's expiry and the next heartbeat are near, and the tags are new.
    net.disconnect(a);
    net.set_tags(a, "2");
    let said = net.count_sent_by(a);
    for _ in 0..10 {
        // Each time it is asserted that nothing is due.
        net.run(secs(1));
    }
    assert_eq!(net.count_sent_by(a), said);
}

#[test]
fn a_server_that_stood_still_gives_everybody_a_grace_period() {
    // If the server gave such answers: when, and how long it took.
    let gone_after = |answers: &[(u64, u64)]| {
        let setup = Setup {
            heartbeat: secs(1),
            ..Setup::new("a", 1)
        };
        gone_after(setup, |roster, heard, at| {
            for (_, took) in answers.iter().filter(|(answered, _)| *answered == at) {
                roster.handle_round_trip(heard + ms(at), ms(*took));
            }
        })
    };
    assert_eq!(gone_after(&[(1_000, 1), (2_500, 900)]), Some(3_000));
    assert_eq!(gone_after(&[(1_000, 1), (2_500, 1_000)]), Some(5_500));
    // A server that is merely far away does not keep the dead alive, nor does one that is unsteady.
    let far = [1_000, 2_100, 3_300, 4_500].map(|at| (at, 1_100));
    assert_eq!(gone_after(&far), Some(4_000));
    let unsteady: Vec<_> = (0..15)
        .map(|n| (n * 1_000, [400, 1_200][n as usize % 2]))
        .collect();
    assert!(gone_after(&unsteady) < Some(8_000));
}

#[test]
fn nobody_is_gone_while_notify_is_held_up() {
    for held_up in [secs(2), secs(4), secs(8), secs(30)] {
        let mut net = Net::new(1);
        let mut ids = settled_crowd(&mut net, 7);
        ids.iter().for_each(|&id| drop(net.told(id)));
        net.hold_up(held_up);
        for &id in &ids[2..4] {
            net.disconnect(id);
        }
        net.crash(ids[4]);
        // One has its session by then, and the other needs some round trips more, the first of them for a NOTIFY to itself.
        net.run(ms(300));
        net.reconnect(ids[2]);
        net.run(held_up - ms(300) + LATENCY * 4);
        net.reconnect(ids[3]);
        net.run(GONE + MOST_FOR_SLOWNESS);
        ids.remove(4);
        for id in ids {
            let told = net.told(id);
            let told: Vec<_> = told.iter().filter(|it| !it.ends_with("line")).collect();
            assert_eq!(told, ["leave p04.5 SessionGone"], "{held_up:?}");
        }
    }
}

#[test]
fn nobody_expires_on_the_word_of_a_link_that_may_be_dead() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&beat_due("b", 1, 1, ms(100)));
    net.run(ms(10));
    let proven = net.clock();
    let overdue = proven + secs(1);
    let roster = &mut net.processes[a].participant.roster;
    assert!(roster.handle_timeout(overdue, proven), "ask first");
    assert_eq!(here(roster), ["b.1"]);
    assert!(
        roster.handle_timeout(overdue, proven),
        "the answer is still out"
    );
    // The link answered, and b was not heard in what it brought.
    assert!(!roster.handle_timeout(overdue, overdue));
    assert_eq!(here(roster), [""; 0]);
}

#[test]
fn a_database_restart_is_one_offline_and_one_online() {
    let mut net = Net::new(1);
    let ids: Vec<_> = ["a", "b", "c", "d", "e"]
        .map(|name| net.start(name, 1))
        .into();
    net.run(SETTLED);
    for &id in &ids {
        net.disconnect(id);
        net.told(id);
    }
    net.run(secs(600));
    for &id in &ids {
        net.reconnect(id);
        net.run(ms(500));
    }
    net.run(secs(60));
    for id in ids {
        assert_eq!(net.told(id), ["online"]);
    }
}

#[test]
fn a_process_that_returns_is_known_again_at_once() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    net.disconnect(b);
    net.run(SETTLED);
    net.told(a);
    net.reconnect(b);
    net.run(LATENCY);
    assert_eq!(net.told(a), ["heal b.5"]);
}
