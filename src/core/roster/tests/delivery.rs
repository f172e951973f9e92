//! What a host is told, where no rule has a number.

use super::*;

#[test]
fn hearing_a_known_peer_that_has_not_changed_does_not_allocate() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&tagged_beat("b", 1, 1, "1"));
    net.run(ms(10));
    let payload = tagged_beat("b", 1, 2, "1");
    let now = net.clock();
    let roster = &mut net.processes[a].participant.roster;
    let mut heard = None;
    let allocated = allocation_counter::measure(|| {
        let message = wire::decode(&payload).expect("ours");
        heard = Some(roster.handle_message(now, STRANGER, &message));
    });
    assert_eq!(heard, Some(Outcome::News));
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn a_peer_that_is_heard_again_after_its_expiry_heals() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    net.pause(b);
    net.run(secs(600));
    net.wake(b);
    net.run(SETTLED);
    assert_eq!(net.told(a), ["join b.5", "leave b.5 Expired", "heal b.5"]);
    assert_eq!(net.told(b), ["join a.1"]);
}

#[test]
fn a_peer_that_was_away_for_longer_than_it_is_remembered_joins() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.processes[a].participant.host = Host::default().forgotten_peers_may_join_again();
    net.inject(&beat("b", 5, 1));
    net.run(secs(3_600));
    net.inject(&beat("b", 5, 2));
    net.run(secs(3_700));
    net.inject(&beat("b", 5, 3));
    net.run(ms(10));
    assert_eq!(
        net.told(a),
        [
            "join b.5",
            "leave b.5 Expired",
            "heal b.5",
            "leave b.5 Expired",
            "join b.5"
        ]
    );
}

#[test]
fn a_peer_that_left_twice_is_remembered_from_the_second_time() {
    let (mut net, a) = listener(Setup::new("a", 1));
    let minutes = |count: u64| secs(60 * count);
    net.inject(&beat("b", 1, 1));
    net.run(minutes(30));
    net.inject(&beat("b", 1, 2));
    // It is there while the first time is forgotten.
    net.inject(&beat_due("c", 1, 1, secs(1)));
    net.run(secs(10));
    net.inject(&beat_due("c", 1, 2, minutes(60)));
    net.run(ms(10));
    net.told(a);
    net.run(minutes(40));
    net.inject(&beat("b", 1, 3));
    net.run(ms(10));
    assert_eq!(net.told(a), ["heal b.1"]);
    assert_eq!(net.seen_by(a), ["b.1", "c.1"]);
}

#[test]
fn the_next_heartbeat_of_a_peer_reported_lost_is_a_heal_once() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    net.start("b", 5);
    net.run(SETTLED);
    net.report_unreachable(a, "b");
    assert_eq!(net.seen_by(a), ["b.5"], "it is there until it is not heard");
    net.run(HEARTBEAT + LATENCY);
    assert_eq!(net.told(a), ["join b.5", "heal b.5"]);
    net.run(SETTLED);
    assert!(net.told(a).is_empty());
}

#[test]
fn a_peer_reported_lost_that_is_never_heard_again_leaves() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    net.crash(b);
    net.report_unreachable(a, "b");
    net.run(SETTLED);
    // Neither has a meaning now.
    net.report_unreachable(a, "b");
    net.report_unreachable(a, "nobody");
    net.run(SETTLED);
    assert_eq!(net.told(a), ["join b.5", "leave b.5 SessionGone"]);
}

#[test]
fn a_peer_reported_lost_that_announces_other_tags_is_one_heal() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    net.report_unreachable(a, "b");
    net.set_tags(b, "2");
    net.run(LATENCY);
    assert_eq!(net.told(a), ["join b.5", "heal b.5 v=2"]);
}

#[test]
fn other_tags_are_an_update_at_once() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    net.set_tags(b, "2");
    net.run(LATENCY);
    assert_eq!(net.told(a), ["join b.5", "update b.5 v=2"]);
    net.set_tags(b, "2");
    net.run(SETTLED);
    assert!(net.told(a).is_empty(), "the same tags are no news");
}

#[test]
fn tags_that_were_set_while_offline_come_with_the_return() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    net.disconnect(b);
    net.set_tags(b, "2");
    net.run(ms(500));
    assert_eq!(net.told(a), ["join b.5"]);
    net.reconnect(b);
    net.run(LATENCY);
    assert_eq!(net.told(a), ["update b.5 v=2"]);
}

#[test]
fn a_host_that_slept_for_an_hour_wakes_to_what_is_true() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let b = net.start("b", 5);
    let c = net.start("c", 5);
    let d = net.start("d", 5);
    net.run(SETTLED);
    net.told(a);
    net.processes[a].participant.host_sleeps();
    net.disconnect(a);
    net.reconnect(a);
    net.crash(b);
    for incarnation in 6..9 {
        let id = net.start("b", incarnation);
        net.run(SETTLED);
        net.crash(id);
    }
    net.start("b", 9);
    net.leave(c);
    net.set_tags(d, "2");
    net.start("e", 5);
    net.run(secs(3_600));
    net.processes[a].participant.host_wakes();
    assert_eq!(
        net.told(a),
        [
            "leave b.5 Replaced",
            "leave c.5 Goodbye",
            "update d.5 v=2",
            "join b.9",
            "join e.5"
        ]
    );
}
