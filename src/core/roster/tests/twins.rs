//! Two processes of one name and one incarnation part (rule 1), and words of others about one's own start never silence it.

use super::*;

/// The processes of these ids that a newer one has silenced.
fn silenced(net: &Net, ids: &[Id]) -> usize {
    let is_silenced = |id: &&Id| net.processes[**id].participant.silenced;
    ids.iter().filter(is_silenced).count()
}

#[test]
fn twins_part_and_one_of_them_is_told() {
    for gap in [ms(0), ms(1), ms(2), ms(500), secs(60)] {
        let mut net = Net::new(1);
        let watcher = net.start("w", 1);
        net.run(SETTLED);
        let one = net.start("b", 5);
        net.run(gap);
        let two = net.start("b", 5);
        net.run(HEARTBEAT);
        assert_eq!(silenced(&net, &[one, two]), 1, "{gap:?}");
        assert_eq!(net.seen_by(watcher), net.truth_for(watcher));
    }
}

#[test]
fn after_one_twin_leaves_the_other_is_seen() {
    for first in [true, false] {
        let mut net = Net::new(1);
        let watcher = net.start("w", 1);
        net.run(SETTLED);
        let (one, two) = (net.start("b", 5), net.start("b", 5));
        // Before either has heard the other.
        net.run(Duration::from_micros(500));
        let (leaves, stays) = if first { (one, two) } else { (two, one) };
        net.leave(leaves);
        net.run(SETTLED);
        assert_eq!(net.seen_by(watcher), net.truth_for(watcher));
        assert_eq!(silenced(&net, &[stays]), 0);
    }
}

#[test]
fn a_clone_of_a_machine_is_noticed_by_the_original() {
    let mut net = Net::new(1);
    let watcher = net.start("w", 1);
    let original = net.start("b", 5);
    net.run(secs(60));
    let clone = net.start("b", 5);
    // It had the same session, of which it finds that it has ended.
    let [pid, new] = [original, clone].map(|id| net.processes[id].pid);
    let now = net.clock();
    let roster = &mut net.processes[clone].participant.roster;
    roster.handle_link_down();
    roster.handle_link_up(now, pid);
    roster.handle_link_down();
    roster.handle_link_up(now, new);
    net.run(SETTLED);
    assert_eq!(silenced(&net, &[original, clone]), 1);
    assert_eq!(net.seen_by(watcher), net.truth_for(watcher));
}

#[test]
fn words_of_others_about_the_own_start_are_stepped_over() {
    for word in [
        bye("b", 5, 99),
        "pg-peers/1 gone name=b inc=5 seq=99 why=goodbye;".to_owned(),
        beat("b", 5, 99),
        "pg-peers/1 beat name=b inc=5 seq=99 due=1000 pid=77;".to_owned(),
    ] {
        let (mut net, a) = listener(Setup::new("a", 1));
        let b = net.start("b", 5);
        net.run(SETTLED);
        net.inject(&word);
        net.run(HEARTBEAT);
        assert_eq!(net.seen_by(a), net.truth_for(a), "{word}");
        assert!(net.incarnation(b) > 5, "{word}");
        assert_eq!(silenced(&net, &[b]), 0);
    }
}

#[test]
fn what_it_said_itself_it_does_not_step_over() {
    let mut net = Net::new(1);
    let b = net.start("b", 5);
    net.run(SETTLED);
    for _ in 0..3 {
        net.disconnect(b);
        net.run(ms(100));
        net.reconnect(b);
        net.run(SETTLED);
    }
    for sent in 0..net.sent.len() {
        let payload = Arc::clone(&net.sent[sent].payload);
        net.inject(&payload);
    }
    net.run(SETTLED);
    assert_eq!(net.incarnation(b), 5);
}

#[test]
fn a_first_hello_that_never_got_out_is_still_a_first_one() {
    let mut net = Net::new(1);
    net.start("a", 1);
    let old = net.start("b", 100);
    net.run(SETTLED);
    // The clock of the new one is behind.
    let new = net.start_offline(Setup::new("b", 5));
    let now = net.clock();
    let roster = &mut net.processes[new].participant.roster;
    roster.handle_link_up(now, Pid::new(77));
    assert!(roster.poll_announcement(now).is_some());
    roster.handle_link_down();
    net.run(secs(3));
    net.reconnect(new);
    net.run(SETTLED);
    assert!(
        net.processes[old].participant.silenced,
        "the younger keeps the name"
    );
    assert!(!net.processes[new].participant.silenced);
}

#[test]
fn a_process_that_is_replaced_while_it_asks_learns_all_the_same() {
    for gap in [ms(0), ms(1), ms(2), ms(5)] {
        let mut net = Net::new(1);
        quiet_crowd(&mut net, 10, |_| ms(20));
        net.run(SETTLED);
        let quiet = |name, incarnation| Setup {
            heartbeat: secs(24 * 60 * 60),
            ..Setup::new(name, incarnation)
        };
        let one = net.start_as(quiet("b", 5));
        net.run(gap);
        let two = net.start_as(quiet("b", 7));
        net.run(secs(2));
        assert!(net.processes[one].participant.silenced);
        for id in [one, two] {
            assert_eq!(net.seen_by(id).len(), 10, "{gap:?}");
        }
    }
}

#[test]
fn tags_that_have_not_gone_out_are_said_again() {
    let (mut roster, now) = asking();
    let now = now + ms(100);
    roster.set_tags("tag.v=2".to_owned(), now);
    for _ in 0..3 {
        let said = roster.poll_announcement(now).map(|it| wire::encode(&it));
        assert!(said.is_some_and(|it| it.contains(" beat ") && it.contains(" tag.v=2")));
        assert!(roster.poll_announcement(now).is_none());
        roster.handle_not_sent(now);
    }
}

#[test]
fn a_hello_that_has_not_gone_out_is_said_again() {
    let now = Instant::now();
    let mut roster = Setup::new("a", 1).roster(1, Inbox::new(1));
    roster.handle_link_up(now, Pid::new(77));
    for _ in 0..3 {
        let said = roster.poll_announcement(now).map(|it| wire::encode(&it));
        let said = said.expect("a hello");
        assert!(
            said.contains(" hello ") && said.contains(" new=1 "),
            "{said}"
        );
        roster.handle_not_sent(now);
    }
    roster.poll_announcement(now);
    roster.handle_sent(now);
    roster.handle_not_sent(now);
    assert_eq!(roster.poll_announcement(now), None);
}
