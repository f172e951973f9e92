//! Members that take long to connect, since they are far from the server or logging in is slow.

use super::*;

/// What a member announces to which connecting takes this long (`link/redial.rs`).
fn back_after(took: Duration) -> Duration {
    took.mul_f64(1.5) + ms(750)
}

/// A member whose session takes this long to be back.
fn start_far(net: &mut Net, name: &str, incarnation: u64, took: Duration) -> Id {
    let id = net.start_offline(Setup {
        heartbeat: secs(60 * 60),
        ..Setup::new(name, incarnation)
    });
    let roster = &mut net.processes[id].participant.roster;
    roster.set_back(back_after(took));
    net.reconnect(id);
    net.told(id);
    net.run(ms(20));
    id
}

#[test]
fn far_members_whose_sessions_end_are_never_gone() {
    for took in [ms(500), ms(1_200), secs(3), secs(6)] {
        let mut net = Net::new(1);
        let near = settled_crowd(&mut net, 4);
        let far = ["x", "y", "z"].map(|name| start_far(&mut net, name, 100, took));
        net.run(SETTLED);
        near.iter().for_each(|&id| drop(net.told(id)));
        for round in 0..20 {
            far.iter().for_each(|&id| net.disconnect(id));
            net.run(took + ms(37 * round));
            far.iter().for_each(|&id| net.reconnect(id));
            net.run(SETTLED);
        }
        for &id in &near {
            assert_eq!(net.told(id), [""; 0], "{took:?}");
        }
    }
}

#[test]
fn a_short_interval_leaves_the_time_to_be_back() {
    for took in [ms(500), ms(1_200), ms(2_400), secs(6)] {
        for phase in 0..10 {
            let mut net = Net::new(1);
            let near = ["a", "b", "c"].map(|name| net.start(name, 1));
            let far = net.start_offline(Setup::new("far", 100));
            let roster = &mut net.processes[far].participant.roster;
            roster.set_back(back_after(took));
            net.reconnect(far);
            net.run(SETTLED + ms(100 * phase));
            near.iter().for_each(|&id| drop(net.told(id)));
            net.disconnect(far);
            net.run(took);
            net.reconnect(far);
            net.run(SETTLED);
            for &id in &near {
                assert_eq!(net.told(id), [""; 0], "{took:?}, {phase}");
            }
        }
    }
}

/// All that the server does takes longer than when they said within what time they would be back.
#[test]
fn while_the_server_is_slow_those_that_connect_have_longer() {
    let slower = ms(150);
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 7);
    ids.iter().for_each(|&id| drop(net.told(id)));
    for &id in &ids {
        net.processes[id].delay = slower;
    }
    net.run(secs(10));
    for _ in 0..5 {
        ids[4..].iter().for_each(|&id| net.disconnect(id));
        net.run(slower * 15);
        ids[4..].iter().for_each(|&id| net.reconnect(id));
        net.run(SETTLED);
    }
    for &id in &ids {
        let told = net.told(id);
        assert!(!told.iter().any(|it| it.starts_with("leave")), "{told:?}");
    }
}

#[test]
fn far_checkers_are_as_patient() {
    let took = secs(3);
    let mut net = Net::new(1);
    // The oldest, which check sessions, are far themselves.
    let far = [1, 2].map(|n| start_far(&mut net, &format!("far{n}"), n, took));
    let near = settled_crowd(&mut net, 3);
    near.iter().for_each(|&id| drop(net.told(id)));
    for _ in 0..10 {
        net.disconnect(far[1]);
        net.run(took);
        net.reconnect(far[1]);
        net.run(SETTLED);
    }
    for &id in &near {
        assert_eq!(net.told(id), [""; 0]);
    }
}

#[test]
fn the_death_of_a_far_member_is_known_when_it_would_be_back() {
    for took in [ms(100), secs(1), secs(6)] {
        let back = back_after(took).max(ms(1_250));
        for phase in 0..10 {
            let mut net = Net::new(1);
            let near = settled_crowd(&mut net, 4);
            let far = start_far(&mut net, "far", 100, took);
            net.run(SETTLED + ms(200 * phase));
            net.crash(far);
            net.run(back - ms(1));
            assert!(net.seen_by(near[0]).contains(&"far.100".to_owned()));
            net.run(secs(2) + ms(50));
            for &id in &near {
                let told = net.told(id).pop();
                assert_eq!(told.as_deref(), Some("leave far.100 SessionGone"));
            }
        }
    }
}

#[test]
fn a_far_member_promises_no_more_than_the_distance_allows() {
    for heartbeat in [ms(5), ms(40), ms(200)] {
        let mut net = Net::new(1);
        let near = net.start("near", 1);
        net.run(SETTLED);
        net.told(near);
        let far = net.start_offline(Setup {
            heartbeat,
            delivery_budget: u32::MAX,
            ..Setup::new("far", 2)
        });
        net.processes[far].delay = ms(150);
        for round in 1..=5 {
            net.reconnect(far);
            net.run(secs(10));
            let told = net.told(near);
            let first = if round == 1 { &["join far.2"][..] } else { &[] };
            assert_eq!(told, first, "{heartbeat:?}, round {round}");
            net.disconnect(far);
            net.run(ms(200));
        }
    }
}

#[test]
fn the_interval_shows_the_distance() {
    let interval = |heartbeat, delay| {
        let mut net = Net::new(1);
        let id = net.start_offline(Setup {
            heartbeat,
            ..Setup::new("a", 1)
        });
        net.processes[id].delay = delay;
        net.reconnect(id);
        net.run(secs(10));
        net.processes[id].participant.roster.interval()
    };
    assert_eq!(interval(ms(40), ms(0)), ms(40));
    assert_eq!(interval(ms(40), ms(150)), (LATENCY + ms(150)) * 2);
    assert_eq!(interval(secs(5), ms(150)), secs(5));
    assert_eq!(interval(secs(1), ms(700)), (LATENCY + ms(700)) * 2);
}

#[test]
fn a_newcomer_is_told_how_long_a_far_member_takes() {
    let took = secs(5);
    let mut net = Net::new(1);
    settled_crowd(&mut net, 3);
    let far = start_far(&mut net, "far", 100, took);
    net.run(SETTLED);
    // The oldest by its clock, so that it checks sessions.
    let newcomer = net.start("n", 0);
    net.run(SETTLED);
    net.told(newcomer);
    net.disconnect(far);
    net.run(took);
    net.reconnect(far);
    net.run(ms(10));
    assert_eq!(net.told(newcomer), [""; 0]);
}

#[test]
fn a_forged_time_to_be_back_keeps_a_dead_peer_for_a_minute_at_most() {
    let mut net = Net::new(1);
    let near = settled_crowd(&mut net, 2);
    let pid = STRANGER;
    net.inject(&format!(
        "pg-peers/1 beat name=x inc=5 seq=1 due=86400000 back=86400000 pid={pid};"
    ));
    net.run(secs(59));
    assert!(net.seen_by(near[0]).contains(&"x.5".to_owned()));
    net.run(secs(4));
    assert!(!net.seen_by(near[0]).contains(&"x.5".to_owned()));
}
