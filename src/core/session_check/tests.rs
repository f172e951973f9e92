use super::*;

fn checker(place: u32) -> Role {
    Role::Checker { place }
}

fn name() -> Arc<str> {
    Arc::from("b")
}

fn begun(now: Instant) -> SessionCheck {
    let mut check = SessionCheck::default();
    check.begin(now);
    check
}

const BEAT: Duration = Duration::from_secs(5);

/// One of many that are neither among the oldest nor among the youngest.
const OTHER: Role = Role::Other { others: 9 };

/// A check that would ask for nobody, to which a peer is reported now that makes a statement every [`BEAT`].
fn reported(now: Instant, jitter: &mut Jitter) -> SessionCheck {
    let mut check = begun(now);
    check.next = None;
    assert!(!check.has_unreachable());
    check.handle_unreachable(now, &name(), Some(BEAT), jitter);
    check
}

#[test]
fn the_two_oldest_and_the_two_youngest_ask() {
    let now = Instant::now();
    let check = begun(now);
    let late = now + ESTABLISHED;
    let role = |older, younger| check.role(late, older, younger, 64);
    assert_eq!(role(0, 2), checker(0));
    assert_eq!(role(1, 2), checker(1));
    assert_eq!(role(2, 2), Role::Other { others: 60 });
    assert_eq!(role(2, 1), checker(2));
    assert_eq!(role(2, 0), checker(3));
    assert_eq!(role(0, 0), checker(0), "who is alone is the oldest");
}

#[test]
fn a_newcomer_is_not_yet_the_youngest_but_may_be_the_oldest() {
    let now = Instant::now();
    let check = begun(now);
    assert_eq!(check.role(now, 2, 0, 10), Role::Other { others: 6 });
    assert_eq!(check.role(now, 1, 0, 2), checker(1));
}

#[test]
fn one_of_the_others_asks_about_every_four_seconds() {
    let mut jitter = Jitter::new(1);
    for others in [1, 10, 400] {
        let role = Role::Other { others };
        let rounds = 1_000 * others;
        let asked = (0..rounds).filter(|_| role.asks_for_all(&mut jitter));
        let each_round = asked.count() as f64 / 1_000.0;
        let expected = INTERVAL.as_secs_f64() / OTHERS.as_secs_f64();
        assert!((each_round / expected - 1.0).abs() < 0.2, "{each_round}");
    }
}

#[test]
fn a_missing_peer_is_asked_for_again_when_it_would_be_back() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let back = Duration::from_secs(3);
    for (role, earliest, latest) in [
        (checker(0), 0, 100),
        (checker(3), 300, 400),
        (Role::Other { others: 9 }, 400, 800),
    ] {
        let mut check = begun(now);
        assert!(!check.handle_missing(now, &name(), back, Duration::ZERO));
        check.confirm(role, &mut jitter);
        let due = check.confirm.expect("a question") - now - back;
        assert!((earliest..=latest).contains(&due.as_millis()), "{due:?}");
        let then = now + back + due;
        // Its own turn may come between, and asks for all.
        check.next = Some(then + INTERVAL);
        let only = HashSet::from([name()]);
        assert_eq!(check.poll(then, role, &mut jitter), Some(Scope::Only(only)));
        assert_eq!(check.deadline(), Some(then + INTERVAL), "asked once");
        assert!(check.handle_missing(then, &name(), back, Duration::ZERO));
    }
    let latest = (0..100).map(|_| Role::Other { others: 9 }.confirms_after(&mut jitter));
    assert!(latest.max() > Some(CONFIRMED_APART * 7));
}

#[test]
fn a_new_checker_asks_for_all_and_then_in_its_turn() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let rarely = Role::Other { others: 1_000_000 };
    let mut check = SessionCheck::default();
    assert!(!check.is_begun());
    assert!(check.begin(now) && !check.begin(now));
    assert!(check.is_begun());
    let first = now + INTERVAL;
    assert_eq!(check.poll(first, rarely, &mut jitter), Some(Scope::All));
    assert!(check.take_whole() && !check.take_whole());
    let second = first + INTERVAL;
    assert_eq!(check.deadline(), Some(second));
    assert_eq!(check.poll(second, rarely, &mut jitter), None);
    assert!(!check.take_whole());
    check.stop();
    assert!(!check.is_begun());
    assert_eq!(check.deadline(), None);
}

#[test]
fn a_question_for_all_takes_the_place_of_one_that_confirms() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let turn = now + INTERVAL;
    for back in [INTERVAL / 2, INTERVAL + CONFIRMED_APART] {
        let mut check = begun(now);
        assert!(!check.handle_missing(now, &name(), back, Duration::ZERO));
        check.confirm(checker(0), &mut jitter);
        assert_eq!(check.poll(turn, checker(0), &mut jitter), Some(Scope::All));
        assert_eq!(check.deadline(), Some(turn + INTERVAL), "{back:?}");
    }
}

#[test]
fn a_peer_that_seems_to_hang_is_looked_at_when_that_tells() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let mut check = begun(now);
    let at = now + INTERVAL / 2;
    check.look_again(&name(), at);
    assert_eq!(check.deadline(), Some(at));
    let before = at - Duration::from_millis(1);
    assert_eq!(check.poll(before, checker(0), &mut jitter), None);
    let only = Some(Scope::Only(HashSet::from([name()])));
    assert_eq!(check.poll(at, checker(0), &mut jitter), only);
    assert_eq!(check.deadline(), Some(now + INTERVAL), "once");
    // A question for all tells, too.
    check.look_again(&name(), now + INTERVAL * 2);
    assert_eq!(
        check.poll(now + INTERVAL, checker(0), &mut jitter),
        Some(Scope::All)
    );
    check.next = None;
    assert_eq!(check.deadline(), None);
}

#[test]
fn one_cleared_suspect_leaves_the_others_suspected() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let mut check = begun(now);
    let other: Arc<str> = Arc::from("c");
    for name in [name(), Arc::clone(&other)] {
        check.handle_missing(now, &name, INTERVAL / 2, Duration::ZERO);
    }
    check.confirm(checker(0), &mut jitter);
    check.clear("b");
    assert_eq!(check.suspects(), [other]);
    assert!(check.deadline() < Some(now + INTERVAL));
}

#[test]
fn a_silent_unreachable_peer_is_asked_for_once_in_its_interval() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let again = BEAT.mul_f64(AGAIN);
    let mut check = reported(now, &mut jitter);
    assert_eq!(check.unreachable_since("b"), Some(now));
    assert_eq!(check.unreachable(), 1);
    let mut at = check.deadline().expect("a question");
    assert!(at <= now + REPORTED_WITHIN);
    for n in 1..5 {
        assert!(check.poll(at, OTHER, &mut jitter).is_some());
        let next = now + again * n;
        assert_eq!(check.deadline(), Some(next), "{n}");
        at = next;
    }
    // It is heard, and may be reported again at any moment until it would have been asked for.
    check.clear("b");
    assert_eq!(check.unreachable_since("b"), None);
    assert_eq!(check.unreachable(), 1);
    for _ in 0..2 {
        assert!(check.has_unreachable());
        let before = at - Duration::from_millis(1);
        assert_eq!(check.poll(before, OTHER, &mut jitter), None);
    }
    assert!(check.has_unreachable());
    assert_eq!(check.poll(at, OTHER, &mut jitter), None);
    assert!(!check.has_unreachable());
    assert_eq!(check.unreachable(), 0);
}

#[test]
fn a_second_report_waits_its_turn_unless_the_peer_has_left() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let again = BEAT.mul_f64(AGAIN);
    let mut check = reported(now, &mut jitter);
    let asked = check.deadline().expect("a question");
    assert!(check.poll(asked, OTHER, &mut jitter).is_some());
    check.clear("b");
    let mut report_at = |check: &mut SessionCheck, at| {
        check.handle_unreachable(at, &name(), Some(BEAT), &mut jitter);
        let due = check.deadline().expect("a question") - at;
        check.clear("b");
        due
    };
    let soon = asked + REPORTED_APART;
    assert_eq!(report_at(&mut check, soon), again);
    let turn = asked + again;
    assert_eq!(report_at(&mut check, turn - REPORTED_WITHIN), again);
    assert!(report_at(&mut check, turn) <= REPORTED_WITHIN);
    check.forget("b");
    assert!(!check.has_unreachable());
    assert!(report_at(&mut check, soon) <= REPORTED_WITHIN);
}

#[test]
fn where_the_server_is_slow_a_peer_has_longer_to_be_back() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let excess = Duration::from_millis(100);
    let mut check = begun(now);
    // The longest holds that was seen since it is missing.
    for (at, excess, gone) in [
        (now, Duration::ZERO, false),
        (now + second, excess, false),
        (
            now + second + excess * (ANSWERS_TO_BE_BACK - 1),
            Duration::ZERO,
            false,
        ),
        (
            now + second + excess * ANSWERS_TO_BE_BACK,
            Duration::ZERO,
            true,
        ),
    ] {
        assert_eq!(check.handle_missing(at, &name(), second, excess), gone);
    }
    assert!(!check.handle_missing(now, &name(), second, second * 60));
    let latest = now + second + MOST_FOR_SLOWNESS;
    assert!(check.handle_missing(latest, &name(), second, second * 60));
}

#[test]
fn after_a_pause_whoever_is_missing_has_its_time_again() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let mut check = begun(now);
    check.next = None;
    for at in [now, now + INTERVAL] {
        check.handle_missing(at, &name(), INTERVAL, Duration::ZERO);
    }
    assert_eq!(check.gone_since("b"), Some(now + INTERVAL));
    check.confirm(checker(0), &mut jitter);
    assert_eq!(check.deadline(), None, "it is known to be gone");
    let later = now + INTERVAL * 2;
    check.grant_grace(later);
    assert_eq!(check.gone_since("b"), None);
    let again = later + INTERVAL;
    assert_eq!(check.deadline(), Some(again));
    let early = again - Duration::from_millis(1);
    assert!(!check.handle_missing(early, &name(), INTERVAL, Duration::ZERO));
    assert!(check.handle_missing(again, &name(), INTERVAL, Duration::ZERO));
    // What was seen before it counts from it.
    let mut check = begun(now);
    check.grant_grace(later);
    assert!(!check.handle_missing(now, &name(), INTERVAL, Duration::ZERO));
    assert!(!check.handle_missing(early, &name(), INTERVAL, Duration::ZERO));
    assert!(check.handle_missing(again, &name(), INTERVAL, Duration::ZERO));
}

#[test]
fn a_slow_answer_begins_the_time_to_be_back_anew() {
    let now = Instant::now();
    let late = now + INTERVAL;
    let least = INTERVAL / MATTERS;
    for (took, gone) in [(least - Duration::from_millis(1), true), (least, false)] {
        let mut check = begun(now);
        for at in [now, late] {
            check.handle_missing(at, &name(), INTERVAL, Duration::ZERO);
        }
        check.handle_slow_answer(late, took);
        assert_eq!(check.gone_since("b").is_some(), gone);
    }
}

#[test]
fn a_checker_that_hears_gone_asks_no_more() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let mut check = begun(now);
    check.handle_missing(now, &name(), INTERVAL / 2, Duration::ZERO);
    check.confirm(checker(0), &mut jitter);
    check.clear("b");
    assert_eq!(check.deadline(), Some(now + INTERVAL));
}

#[test]
fn an_unreachable_peer_is_asked_for_soon_and_once_a_second_at_most() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let other = Role::Other { others: 9 };
    let mut check = begun(now);
    check.handle_unreachable(now, &name(), None, &mut jitter);
    let first = check.deadline().expect("a question");
    assert!(first <= now + REPORTED_WITHIN);
    let only = Some(Scope::Only(HashSet::from([name()])));
    assert_eq!(check.poll(first, other, &mut jitter), only);
    check.handle_unreachable(first, &name(), None, &mut jitter);
    assert_eq!(check.deadline(), Some(first + REPORTED_APART));
    assert_eq!(
        check.poll(first + REPORTED_APART / 2, other, &mut jitter),
        None
    );
    let second = first + REPORTED_APART;
    assert_eq!(check.poll(second, other, &mut jitter), only);
}

#[test]
fn peers_reported_at_each_heal_are_asked_for_once_an_interval() {
    let (now, mut jitter) = (Instant::now(), Jitter::new(1));
    let other = Role::Other { others: 9 };
    let beat = Duration::from_secs(5);
    let names: Vec<Arc<str>> = (0..100).map(|n| format!("p{n}").into()).collect();
    let mut check = begun(now);
    check.next = None;
    let mut report = |check: &mut SessionCheck, at| {
        for name in &names {
            check.handle_unreachable(at, name, Some(beat), &mut jitter);
        }
    };
    report(&mut check, now);
    let mut asked = Vec::new();
    while asked.len() < 10 {
        let at = check.deadline().expect("a question");
        match check.poll(at, other, &mut Jitter::new(1)) {
            Some(Scope::Only(only)) => assert_eq!(only.len(), names.len()),
            scope => panic!("{scope:?}"),
        }
        asked.push(at);
        // By the first, nobody has made a statement since the report. By each after it all have, and heal.
        if asked.len() > 1 {
            names.iter().for_each(|name| check.clear(name));
            report(&mut check, at);
        }
    }
    assert!(asked[0] <= now + REPORTED_WITHIN);
    let apart: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(apart[1..].iter().all(|&apart| apart == beat.mul_f64(AGAIN)));
    assert!(
        apart[0] >= beat && apart[0] <= beat.mul_f64(AGAIN),
        "{apart:?}"
    );
}

#[test]
fn a_member_that_checks_nothing_does_not_ask_for_unreachable_peers() {
    let mut check = SessionCheck::default();
    check.handle_unreachable(Instant::now(), &name(), None, &mut Jitter::new(1));
    assert_eq!(check.deadline(), None);
}
