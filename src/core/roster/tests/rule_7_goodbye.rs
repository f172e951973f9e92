//! Rule 7: a goodbye is immediate, and what arrives late changes nothing.

use super::*;

#[test]
fn a_goodbye_is_immediate_at_every_peer() {
    let mut net = Net::new(1);
    let ids = ["a", "b", "c"].map(|name| net.start(name, 1));
    net.run(SETTLED);
    for id in ids {
        net.told(id);
    }
    net.leave(ids[0]);
    net.run(LATENCY);
    for id in &ids[1..] {
        assert_eq!(net.told(*id), ["leave a.1 Goodbye"]);
    }
}

#[test]
fn what_comes_after_a_goodbye_changes_nothing() {
    let told = told_of([
        beat("b", 5, 8),
        bye("b", 5, 9),
        beat("b", 5, 7),
        bye("b", 5, 9),
        bye("b", 5, 8),
        beat("b", 5, 10),
        hello("b", 5, 11),
    ]);
    assert_eq!(told, ["join b.5", "leave b.5 Goodbye"]);
}

#[test]
fn a_goodbye_from_before_the_last_announcement_changes_nothing() {
    let told = told_of([beat("b", 5, 8), bye("b", 5, 7)]);
    assert_eq!(told, ["join b.5"]);
}

#[test]
fn a_goodbye_after_the_expiry_is_final() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&beat("b", 5, 1));
    net.run(SETTLED);
    assert_eq!(net.told(a), ["join b.5", "leave b.5 Expired"]);
    net.inject(&bye("b", 5, 3));
    net.inject(&beat("b", 5, 2));
    net.inject(&beat("b", 5, 4));
    net.run(SETTLED);
    assert!(net.told(a).is_empty());
}

#[test]
fn the_goodbye_of_an_unheard_start_ends_those_before_it() {
    let told = told_of([
        beat("b", 5, 1),
        bye("b", 7, 2),
        beat("b", 5, 2),
        beat("b", 6, 1),
        beat("b", 7, 1),
        beat("b", 8, 1),
    ]);
    assert_eq!(told, ["join b.5", "leave b.5 Replaced", "join b.8"]);
}

#[test]
fn a_recording_changes_nothing_if_the_original_was_heard() {
    let mut net = Net::new(1);
    let [a, b, c] = ["a", "b", "c"].map(|name| net.start(name, 1));
    net.run(SETTLED);
    net.leave(b);
    net.crash(c);
    net.start("c", 2);
    net.run(SETTLED);
    net.told(a);
    let recorded: Vec<_> = net
        .sent
        .iter()
        .map(|s| (s.from, Arc::clone(&s.payload)))
        .collect();
    for (from, payload) in recorded {
        net.send(None, from, &payload);
        net.run(ms(2));
    }
    assert!(net.told(a).is_empty());
    assert_eq!(net.seen_by(a), net.truth_for(a));
}

#[test]
fn what_is_repeated_or_out_of_order_is_stale() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&tagged_beat("b", 5, 3, "3"));
    net.run(secs(1));
    net.inject(&tagged_beat("b", 5, 2, "2"));
    net.inject(&tagged_beat("b", 5, 3, "3"));
    net.run(secs(1));
    net.inject(&tagged_beat("b", 5, 3, "3"));
    net.run(ms(1_002));
    // It is not kept alive by them either.
    assert_eq!(net.told(a), ["join b.5 v=3", "leave b.5 v=3 Expired"]);
    net.inject(&tagged_beat("b", 5, 3, "3"));
    net.run(SETTLED);
    assert!(net.told(a).is_empty());
}
