//! Rule 2: each announcement says within which time the next is due.

use proptest::prelude::*;

use super::*;

#[test]
fn expiry_follows_the_announced_interval() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&beat_due("b", 5, 1, secs(1)));
    net.inject(&beat_due("c", 5, 1, secs(10)));
    net.run(LATENCY);
    assert_eq!(net.told(a), ["join b.5", "join c.5"]);
    net.run(ms(2_999));
    assert!(net.told(a).is_empty());
    net.run(ms(1));
    assert_eq!(net.told(a), ["leave b.5 Expired"]);
    net.run(ms(26_999));
    assert!(net.told(a).is_empty());
    net.run(ms(1));
    assert_eq!(net.told(a), ["leave c.5 Expired"]);
}

#[test]
fn a_peer_with_a_long_back_expires_no_sooner_than_due_and_back() {
    for (due, back, silent) in [
        (1_000, "", 3_000),
        (100, " back=1250", 300),
        (100, " back=1251", 1_351),
        (1_000, " back=2001", 3_001),
        (1_000, " back=70000", 61_000),
        (10_000, " back=5000", 30_000),
    ] {
        let (mut net, a) = listener(Setup::new("a", 1));
        net.inject(&format!(
            "pg-peers/1 beat name=b inc=5 seq=1 due={due}{back};"
        ));
        net.run(LATENCY + ms(silent - 1));
        assert_eq!(net.told(a), ["join b.5"], "{due}{back}");
        net.run(ms(1));
        assert_eq!(net.told(a), ["leave b.5 Expired"], "{due}{back}");
    }
}

#[test]
fn what_is_heard_is_new_whatever_age_it_claims() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject("pg-peers/1 beat name=b inc=1 seq=1 due=1000 age=60000;");
    net.run(secs(2));
    assert_eq!(net.seen_by(a), ["b.1"]);
}

#[test]
fn the_latest_announcement_decides() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&beat_due("b", 5, 1, secs(1_000)));
    net.inject(&beat_due("c", 5, 1, secs(1)));
    net.run(secs(2));
    net.inject(&beat_due("b", 5, 2, secs(1)));
    net.inject(&beat_due("c", 5, 2, secs(100)));
    net.run(ms(3_000));
    assert_eq!(net.seen_by(a), ["b.5", "c.5"]);
    net.run(LATENCY);
    assert_eq!(net.seen_by(a), ["c.5"]);
    net.run(ms(297_000));
    assert!(net.seen_by(a).is_empty());
}

#[test]
fn every_announcement_keeps_the_promise_of_the_last() {
    for heartbeat in [ms(10), ms(300), secs(1), secs(60)] {
        let (mut net, a) = listener(Setup {
            heartbeat,
            ..Setup::new("a", 1)
        });
        net.run(heartbeat * 50);
        let times: Vec<_> = net.sent_by(a).map(|sent| sent.at).collect();
        assert!(times.len() >= 50);
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap <= heartbeat, "{gap:?} of {heartbeat:?}");
        }
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let regular = &gaps[gaps.len() - 10..];
        assert!(regular.iter().all(|gap| *gap >= heartbeat * 9 / 10));
        assert!(regular.iter().any(|gap| *gap != regular[0]), "in step");
    }
}

#[test]
fn a_stream_of_hellos_postpones_no_announcement() {
    let heartbeat = ms(20);
    let (mut net, a) = listener(Setup {
        heartbeat,
        delivery_budget: u32::MAX,
        ..Setup::new("a", 1)
    });
    for n in 0..200 {
        net.inject(&beat_due(&format!("p{n}"), 1, 1, secs(600)));
    }
    for seq in 0..500 {
        net.inject(&hello("b", 1, seq + 1));
        net.run(ms(1));
    }
    let times: Vec<_> = net.sent_by(a).map(|sent| sent.at).collect();
    assert!(times.len() >= 25, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= heartbeat));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_peer_is_there_exactly_until_its_grace_is_over(
        steps in prop::collection::vec((0..4u8, 1..5_000u64), 1..60)
    ) {
        let mut net = Net::new(1);
        let a = net.start_as(Setup::observer());
        // The truth: when b was last granted a grace, and how long it is.
        let mut granted = None;
        let mut due = Duration::ZERO;
        let mut online = true;
        for (seq, (step, time)) in steps.into_iter().enumerate() {
            let was_here = !net.seen_by(a).is_empty();
            match step {
                0 if online => {
                    due = ms(time);
                    net.inject(&beat_due("b", 5, seq as u64 + 1, due));
                    net.run(LATENCY);
                    granted = Some(net.now);
                }
                1 => {
                    online = !online;
                    if online {
                        net.reconnect(a);
                        // Until its question is through.
                        net.run(LATENCY);
                        granted = granted.filter(|_| was_here).map(|_| net.now);
                    } else {
                        net.disconnect(a);
                    }
                }
                _ => net.run(ms(time)),
            }
            let is_here = !net.seen_by(a).is_empty();
            // After a lull it has a moment more.
            let moment = if is_here { wire::LEAST_BACK / 4 } else { Duration::ZERO };
            let overdue = granted.is_some_and(|at| net.now >= at + due * MISSED + moment);
            if online && overdue {
                granted = None;
            }
            prop_assert_eq!(is_here, granted.is_some());
        }
    }
}

#[test]
fn what_there_is_to_tell_of_others_waits_for_the_own_announcement() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.run(SETTLED);
    for n in 0..8 {
        net.inject(&hello(&format!("p{n}"), 2, 1));
    }
    net.run(ms(10));
    for n in 0..8 {
        net.inject(&hello(&format!("p{n}"), 1, 1));
    }
    net.run(ms(1));
    // Later than all that is due by now.
    let now = net.clock() + secs(1);
    let roster = &mut net.processes[a].participant.roster;
    let mut polled = Vec::new();
    while let Some(message) = roster.poll_announcement(now) {
        polled.push(wire::encode(&message));
    }
    assert!(polled.len() > 8, "{polled:?}");
    assert!(polled[0].contains(" name=a "), "{polled:?}");
    assert!(
        polled[1..].iter().all(|it| it.contains(" newer ")),
        "{polled:?}"
    );
}
