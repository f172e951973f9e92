//! Rule 1: name and incarnation are the identity.

use super::*;

#[test]
fn a_higher_incarnation_replaces_the_lower() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let old = net.start("b", 5);
    net.run(SETTLED);
    net.crash(old);
    net.start("b", 7);
    net.run(SETTLED);
    assert_eq!(net.told(a), ["join b.5", "leave b.5 Replaced", "join b.7"]);
}

#[test]
fn a_lower_incarnation_is_stale() {
    let told = told_of([
        beat("b", 5, 1),
        beat("b", 4, 9),
        hello("b", 4, 10),
        bye("b", 4, 11),
    ]);
    assert_eq!(told, ["join b.5"]);
}

#[test]
fn a_lower_incarnation_is_stale_after_the_higher_has_gone() {
    let told = told_of([beat("b", 5, 1), bye("b", 5, 2), beat("b", 4, 9)]);
    assert_eq!(told, ["join b.5", "leave b.5 Goodbye"]);
}

#[test]
fn a_clock_that_went_back_supersedes_a_living_predecessor() {
    for seed in 0..20 {
        let mut net = Net::new(seed);
        let a = net.start("a", 1);
        let old = net.start("b", 100);
        net.run(SETTLED);
        let new = net.start("b", 5);
        net.run(SETTLED);
        let risen = net.incarnation(new);
        assert!(risen > 100, "{risen}");
        assert_eq!(
            net.told(old),
            ["join a.1".to_owned(), format!("name taken by b.{risen}")]
        );
        assert_eq!(
            net.told(a),
            [
                "join b.100".to_owned(),
                "leave b.100 Replaced".to_owned(),
                format!("join b.{risen}")
            ]
        );
        assert_eq!(net.told(new), ["join a.1"]);
    }
}

#[test]
fn a_clock_that_went_back_supersedes_a_memory() {
    type Ending = fn(&mut Net, Id);
    let endings: [(Ending, &str); 3] = [
        (|net, old| net.crash(old), "leave b.100 Replaced"),
        (
            |net, old| {
                net.crash(old);
                net.run(SETTLED);
            },
            "leave b.100 Expired",
        ),
        (|net, old| net.leave(old), "leave b.100 Goodbye"),
    ];
    for (ending, left) in endings {
        let mut net = Net::new(1);
        let a = net.start("a", 1);
        let old = net.start("b", 100);
        net.run(SETTLED);
        ending(&mut net, old);
        let new = net.start("b", 5);
        net.run(ANSWERED_WITHIN);
        let risen = net.incarnation(new);
        assert!(risen > 100, "{risen}");
        let joined = format!("join b.{risen}");
        assert_eq!(net.told(a), ["join b.100", left, &joined]);
        net.run(SETTLED);
        assert!(!net.processes[new].participant.silenced);
        assert!(net.told(a).is_empty());
    }
}

#[test]
fn a_clock_that_went_back_needs_only_the_predecessor() {
    let rarely = |incarnation| Setup {
        heartbeat: secs(600),
        ..Setup::new("b", incarnation)
    };
    let mut net = Net::new(1);
    let old = net.start_as(rarely(100));
    net.run(SETTLED);
    let new = net.start_as(rarely(5));
    net.run(ANSWERED_WITHIN);
    assert!(net.incarnation(new) > 100);
    assert!(net.processes[old].participant.silenced);
    assert!(!net.processes[new].participant.silenced);
}

#[test]
fn a_repeated_hello_is_not_corrected() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject(&hello("b", 5, 1));
    net.run(SETTLED);
    net.inject(&hello("b", 5, 1));
    net.run(SETTLED);
    assert!(net.sent_by(a).all(|sent| !sent.payload.contains("newer")));
}

#[test]
fn the_memory_of_a_predecessor_is_told_by_few_of_many() {
    let mut net = Net::new(1);
    for n in 0..20 {
        net.start(&format!("p{n}"), 1);
    }
    let old = net.start("b", 100);
    net.run(SETTLED);
    net.crash(old);
    net.start("b", 5);
    net.run(SETTLED);
    let newer = net.sent.iter().filter(|s| s.payload.contains(" newer "));
    let count = newer.count();
    assert!((1..=5).contains(&count), "{count} corrections");
}

#[test]
fn two_that_supersede_the_same_process_stay_apart() {
    for seed in 0..20 {
        let mut net = Net::new(seed);
        net.start("a", 1);
        net.start("b", 100);
        net.run(SETTLED);
        let first = net.start("b", 7);
        net.run(LATENCY);
        let second = net.start("b", 5);
        net.run(SETTLED);
        let silenced = [first, second].map(|id| net.processes[id].participant.silenced);
        assert!(
            silenced == [true, false] || silenced == [false, true],
            "{} and {}, silenced: {silenced:?}, seed {seed}",
            net.incarnation(first),
            net.incarnation(second)
        );
    }
}

#[test]
fn a_process_that_supersedes_another_is_a_newborn_again() {
    let mut net = Net::new(1);
    net.start("a", 1);
    net.start("b", 100);
    net.run(SETTLED);
    let new = net.start("b", 5);
    net.run(SETTLED);
    let first = format!("hello name=b inc={} seq=1 ", net.incarnation(new));
    let mut said = net.sent_by(new);
    assert!(said.any(|sent| sent.payload.contains(&first)), "{first}");
}

#[test]
fn a_process_whose_clock_went_back_unseen_does_not_stay_unseen() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let old = net.start("b", 100);
    net.run(SETTLED);
    // Nobody who remembers the predecessor hears the hello of its successor.
    net.disconnect(a);
    net.crash(old);
    let new = net.start("b", 5);
    net.run(SETTLED);
    net.reconnect(a);
    net.run(secs(60));
    let seen = net.seen_by(a) == net.truth_for(a);
    let told = net.processes[new].participant.silenced;
    assert!(seen || told, "b announces itself, and nobody listens to it");
}

#[test]
fn a_running_process_that_is_replaced_falls_silent() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let old = net.start("b", 5);
    net.run(SETTLED);
    let new = net.start("b", 7);
    net.run(LATENCY * 2);
    assert_eq!(net.told(old), ["join a.1", "name taken by b.7"]);
    let said = net.count_sent_by(old);
    net.run(SETTLED);
    net.set_tags(old, "2");
    net.start("c", 1);
    net.run(SETTLED);
    net.disconnect(old);
    net.reconnect(old);
    net.run(SETTLED);
    assert_eq!(net.seen_by(old), ["a.1", "c.1"], "it still listens");
    net.leave(old);
    net.run(SETTLED);
    let of_itself = net
        .sent_by(old)
        .filter(|sent| sent.payload.contains(" name="));
    assert_eq!(
        of_itself.count(),
        said,
        "it asks who is there, and says nothing of itself"
    );
    assert_eq!(net.seen_by(a), ["b.7", "c.1"]);
    assert_eq!(net.seen_by(new), ["a.1", "c.1"]);
}

#[test]
fn a_replaced_process_whose_link_was_lost_asks_who_is_there() {
    let mut net = Net::new(1);
    let ids = quiet_crowd(&mut net, 10, |_| ms(20));
    let old = net.start("b", 5);
    net.run(SETTLED);
    net.start("b", 7);
    net.run(SETTLED);
    assert!(net.processes[old].participant.silenced);
    net.disconnect(old);
    net.leave(ids[3]);
    net.start_as(Setup {
        heartbeat: secs(24 * 60 * 60),
        ..Setup::new("q", 1)
    });
    net.run(ms(300));
    net.told(old);
    net.reconnect(old);
    net.run(LATENCY * 3);
    assert_eq!(net.told(old), ["online", "join q.1", "leave p03.1 Goodbye"]);
}

#[test]
fn a_replaced_process_does_not_correct_others_either() {
    let (mut net, b) = listener(Setup::new("b", 5));
    net.run(SETTLED);
    net.inject(&beat("c", 100, 1));
    net.run(ms(10));
    let said = net.count_sent_by(b);
    // Both arrive together: a correction is planned, and then there is nobody to say it.
    net.inject(&hello("c", 3, 1));
    net.inject(&hello("b", 7, 1));
    net.run(SETTLED);
    assert!(net.processes[b].participant.silenced);
    assert_eq!(net.count_sent_by(b), said);
}

#[test]
fn a_process_that_returns_to_find_itself_replaced_falls_silent() {
    let mut net = Net::new(1);
    net.start("a", 1);
    let old = net.start("b", 5);
    net.run(SETTLED);
    net.disconnect(old);
    net.start("b", 7);
    net.run(SETTLED);
    net.told(old);
    net.reconnect(old);
    net.run(SETTLED);
    assert_eq!(net.told(old), ["online", "name taken by b.7"]);
}

#[test]
fn a_slow_successor_is_not_superseded() {
    let mut net = Net::new(1);
    net.start("a", 1);
    let old = net.start("b", 5);
    net.run(SETTLED);
    net.disconnect(old);
    let new = net.start("b", 7);
    net.run(SETTLED);
    net.processes[new].delay = ms(500);
    net.reconnect(old);
    net.run(SETTLED);
    assert!(net.processes[old].participant.silenced);
    assert!(!net.processes[new].participant.silenced);
}

#[test]
fn a_correction_that_comes_too_late_is_not_said() {
    let (mut net, a) = listener(Setup::new("a", 1));
    for payload in [beat("b", 100, 1), hello("b", 5, 1), hello("b", 101, 1)] {
        net.inject(&payload);
    }
    net.run(SETTLED);
    assert!(net.sent_by(a).all(|sent| !sent.payload.contains("newer")));
}

#[test]
fn a_correction_that_another_has_said_is_not_repeated() {
    for (said, more) in [(99, 1), (100, 0), (101, 0)] {
        let (mut net, a) = listener(Setup::new("a", 1));
        for payload in [
            beat("b", 100, 1),
            hello("b", 5, 1),
            format!("pg-peers/1 newer name=b inc={said};"),
        ] {
            net.inject(&payload);
        }
        net.run(SETTLED);
        let corrections = net
            .sent_by(a)
            .filter(|sent| sent.payload.contains(" newer "));
        assert_eq!(corrections.count(), more, "{said}");
    }
}

#[test]
fn a_process_takes_its_name_back_from_a_successor_that_left() {
    let mut net = Net::new(1);
    let a = net.start("a", 1);
    let old = net.start("b", 5);
    net.run(SETTLED);
    net.disconnect(old);
    let new = net.start("b", 7);
    net.run(SETTLED);
    net.leave(new);
    net.run(SETTLED);
    net.told(old);
    net.reconnect(old);
    net.run(SETTLED);
    assert_eq!(net.told(old), ["online"]);
    assert!(net.incarnation(old) > 7);
    assert_eq!(net.seen_by(a), net.truth_for(a));
}

#[test]
fn of_two_processes_that_start_together_one_survives() {
    for gap in [0, 1, 2, 3, 10, 50, 249, 250, 251, 1_000, 2_500] {
        for (first, second) in [(5, 7), (7, 5)] {
            let mut net = Net::new(gap);
            let watcher = net.start("w", 1);
            net.run(SETTLED);
            let ids = [first, second].map(|incarnation| {
                let id = net.start("b", incarnation);
                net.run(ms(gap));
                id
            });
            net.run(SETTLED);
            let survivors: Vec<_> = ids
                .into_iter()
                .filter(|&id| !net.processes[id].participant.silenced)
                .map(|id| net.processes[id].describe())
                .collect();
            assert_eq!(survivors.len(), 1, "gap {gap} ms, {first} then {second}");
            assert_eq!(net.seen_by(watcher), survivors);
            let told = net.told(watcher);
            assert!(told.len() <= 3, "one replaces the other, once: {told:?}");
            net.run(secs(60));
            assert!(net.told(watcher).is_empty(), "it flaps");
        }
    }
}

#[test]
fn an_own_message_from_before_means_nothing() {
    let mut net = Net::new(1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    let said: Vec<_> = net.sent.iter().map(|s| Arc::clone(&s.payload)).collect();
    for payload in said {
        net.inject(&payload);
    }
    net.inject(&hello("b", 3, 1));
    net.inject(&bye("b", 5, 99));
    net.run(SETTLED);
    assert!(net.told(b).is_empty());
    assert!(net.seen_by(b).is_empty());
}
