//! Rule 9: the roster has a bound.

use super::*;

#[test]
fn newcomers_past_the_bound_are_ignored_until_there_is_room() {
    let (mut net, a) = listener(Setup {
        max_peers: 3,
        ..Setup::new("a", 1)
    });
    for name in ["b", "c", "d", "e"] {
        net.inject(&beat(name, 5, 1));
    }
    net.run(ms(10));
    assert_eq!(net.seen_by(a), ["b.5", "c.5", "d.5"]);
    net.inject(&bye("b", 5, 2));
    net.inject(&beat("e", 5, 2));
    net.run(ms(10));
    assert_eq!(net.seen_by(a), ["c.5", "d.5", "e.5"]);
}

#[test]
fn a_full_roster_follows_those_it_has() {
    let (mut net, a) = listener(Setup {
        max_peers: 2,
        ..Setup::new("a", 1)
    });
    for payload in [
        beat("b", 5, 1),
        beat("c", 5, 1),
        tagged_beat("b", 5, 2, "2"),
    ] {
        net.inject(&payload);
    }
    net.inject(&beat("c", 7, 1));
    net.run(ms(10));
    assert_eq!(
        net.told(a),
        [
            "join b.5",
            "join c.5",
            "update b.5 v=2",
            "leave c.5 Replaced",
            "join c.7"
        ]
    );
}

#[test]
fn a_peer_that_lost_its_place_heals_when_there_is_room() {
    let (mut net, a) = listener(Setup {
        max_peers: 2,
        ..Setup::new("a", 1)
    });
    net.inject(&beat("b", 5, 1));
    net.run(SETTLED);
    for payload in [beat("c", 5, 1), beat("d", 5, 1), beat("b", 5, 2)] {
        net.inject(&payload);
    }
    net.run(ms(10));
    assert_eq!(net.seen_by(a), ["c.5", "d.5"]);
    net.inject(&bye("c", 5, 2));
    net.inject(&beat("b", 5, 3));
    net.run(ms(10));
    assert_eq!(
        net.told(a),
        [
            "join b.5",
            "leave b.5 Expired",
            "join c.5",
            "join d.5",
            "leave c.5 Goodbye",
            "heal b.5"
        ]
    );
}

#[test]
fn memory_stays_bounded_whatever_is_sent() {
    const BOUND: usize = 50;
    let mut net = Net::new(1);
    let a = net.start_as(Setup {
        max_peers: BOUND,
        ..Setup::new("a", 1)
    });
    net.processes[a].participant.host_sleeps();
    for n in 0..3_000_u64 {
        let name = format!("p{}", n % 977);
        let due = if n % 2 == 0 { ms(1) } else { secs(86_400) };
        net.inject(&beat_due("alternating", 5, n + 1, due));
        net.inject(&beat_due("restarting", n, 1, secs(86_400)));
        net.inject(&bye("leaving", n, 1));
        net.inject(&beat_due(&name, n, 1, due));
        net.inject(&hello(&name, n / 2, 1));
        net.inject(&bye(&name, n, 2));
        net.inject(&format!("{name}@host"));
        // The bounds are checked at the end of each turn.
        net.run(if n % 100 == 0 { secs(2) } else { ms(2) });
        let waiting = net.processes[a].participant.outbox.len();
        assert!(waiting <= 2 * BOUND + 1, "{waiting} events wait");
    }
    // Everything heard so far is forgotten in the end.
    net.run(secs(4 * 86_400));
    let roster = &net.processes[a].participant.roster;
    assert_eq!(roster.entries.len(), 0);
    assert_eq!(roster.expiry.deadline(), None);
    assert_eq!(roster.tombstones.len(), 0);
    assert_eq!(roster.corrections.len(), 0);
}

#[test]
fn a_flood_of_newcomers_with_long_tags_takes_bounded_memory() {
    const BOUND: usize = 100;
    let setup = Setup {
        max_peers: BOUND,
        ..Setup::new("a", 1)
    };
    let now = Instant::now();
    let tag = "x".repeat(7_000);
    let flood = || {
        let mut roster = setup.roster(1, Inbox::new(1));
        roster.handle_link_up(now, Some(STRANGER));
        for n in 0..5_000_u64 {
            let announcements = [
                tagged_beat(&format!("p{n}"), 1, 1, &tag),
                bye(&format!("p{n}"), 1, 2),
            ];
            for payload in &announcements[..1 + (n % 2) as usize] {
                let message = wire::decode(payload).expect("ours");
                roster.handle_message(now, STRANGER, &message);
            }
            while roster.poll_change().is_some() {}
        }
        check_bounds(&roster);
    };
    let taken = allocation_counter::measure(flood).bytes_max;
    let bound = BOUND as u64 * 8_000;
    assert!((bound / 2..bound * 3 / 2).contains(&taken), "{taken} bytes");
}

#[test]
fn a_member_that_does_not_know_all_does_not_answer() {
    for small_from_the_start in [true, false] {
        for seed in 0..40 {
            let mut net = Net::new(seed);
            let small = Setup {
                heartbeat: secs(24 * 60 * 60),
                max_peers: 3,
                ..Setup::new("small", 1)
            };
            let ids = quiet_crowd(&mut net, 19, |_| ms(20));
            let small = net.start_as(small);
            net.run(SETTLED);
            if !small_from_the_start {
                // One of the three that it knows leaves, so there is room.
                let known = net.seen_by(small)[0].clone();
                let is_known = |&&id: &&Id| net.processes[id].describe() == known;
                let id = *ids.iter().find(is_known).expect("one of them");
                net.leave(id);
                net.run(SETTLED);
            }
            let newcomer = net.start_as(Setup {
                heartbeat: secs(24 * 60 * 60),
                ..Setup::new("n", 100)
            });
            net.run(secs(2));
            assert_eq!(net.seen_by(newcomer), net.truth_for(newcomer), "{seed}");
        }
    }
}
