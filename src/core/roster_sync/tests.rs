//! Asking, step by step, in virtual time.

use super::*;
use crate::core::wire::{self, Body};

const SPREAD: Duration = Duration::from_millis(50);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Whether the peer p, of incarnation 5, was said to have left after its message of that number.
fn has_departed(sync: &RosterSync, seq: u64) -> bool {
    let text = format!("pg-peers/1 beat name=p inc=5 seq={seq} due=1000;");
    match wire::decode(&text).expect("a message").body {
        Body::Announce(announce) => sync.has_departed("p", &announce),
        other => panic!("no announcement: {other:?}"),
    }
}

/// One that asks since `now`, by a query of its own, which has gone out.
fn asking() -> (RosterSync, Instant) {
    let now = Instant::now();
    let mut sync = RosterSync::new(Inbox::new(1));
    sync.begin(now);
    assert_eq!(sync.poll(now, SPREAD), Some(0));
    sync.handle_sent(now);
    (sync, now)
}

/// When it asks next, in milliseconds after that.
fn next(sync: &RosterSync, since: Instant) -> u128 {
    let at = sync.deadline().expect("a question, or an end of it");
    at.saturating_duration_since(since).as_millis()
}

/// What it asks if it is polled at these times, in milliseconds after that.
fn asks<const N: usize>(sync: &mut RosterSync, since: Instant, times: [u64; N]) -> Vec<u64> {
    let asked = times
        .into_iter()
        .filter_map(|at| sync.poll(since + ms(at), SPREAD));
    asked.collect()
}

#[test]
fn an_answer_is_awaited_while_it_asks_and_while_it_listens() {
    let (mut sync, now) = asking();
    assert!(sync.awaits(0) && !sync.awaits(1) && sync.is_open());
    assert_eq!(asks(&mut sync, now, [199, 200, 399, 400, 600]), [1, 2, 3]);
    assert!(sync.awaits(0) && sync.has_asked_all() && !sync.is_settled());
    sync.handle_heard(now + ms(600 + 200 + 49), SPREAD);
    assert!(!sync.is_settled());
    sync.handle_heard(now + ms(600 + 200 + 50), SPREAD);
    assert!(sync.is_settled() && !sync.is_open() && !sync.awaits(0));
    assert_eq!(sync.deadline(), None);
}

#[test]
fn an_answerer_has_two_round_trips_from_when_the_question_is_out() {
    let (mut sync, now) = asking();
    sync.set_patience(ms(1_000));
    assert_eq!(sync.poll(now + ms(200), SPREAD), Some(1));
    assert_eq!(next(&sync, now), 1_200);
    sync.handle_sent(now + ms(500));
    assert_eq!(next(&sync, now), 1_500);
    // Only for what was polled.
    sync.handle_sent(now + ms(900));
    assert_eq!(next(&sync, now), 1_500);
    // A near member is patient, too.
    sync.set_patience(ms(1));
    assert_eq!(asks(&mut sync, now, [1_500]), [2]);
    assert_eq!(next(&sync, now), 1_700);
}

#[test]
fn all_have_their_time_from_when_they_were_asked() {
    let (mut sync, now) = asking();
    assert_eq!(asks(&mut sync, now, [200, 400, 600]), [1, 2, 3]);
    assert_eq!(next(&sync, now), 600 + 200 + 50);
    sync.handle_sent(now + ms(700));
    assert_eq!(next(&sync, now), 700 + 200 + 50);
    // The more are heard, the longer they take.
    sync.handle_heard(now + ms(950), SPREAD * 2);
    assert_eq!(next(&sync, now), 700 + 200 + 100);
    sync.handle_heard(now + ms(1_000), SPREAD * 2);
    assert!(sync.is_settled());
}

#[test]
fn what_was_answered_may_take_another_at_once() {
    let (mut sync, now) = asking();
    sync.settle();
    assert!(sync.begin_review(now));
    assert!(sync.is_settled() && sync.is_open(), "it answers meanwhile");
    assert!(!sync.begin_review(now), "it reviews already");
    assert_eq!(asks(&mut sync, now, [0, 10]), [0]);
    sync.ask_another(now + ms(10));
    assert_eq!(asks(&mut sync, now, [10, 210]), [1, 2]);
    // All are not asked for the sake of one.
    assert_eq!(asks(&mut sync, now, [410]), [0; 0]);
    assert!(sync.is_settled() && !sync.is_open());
}

#[test]
fn departures_are_remembered_while_an_answer_is_awaited() {
    let (mut sync, now) = asking();
    let start = Incarnation::new(5);
    sync.note_departure("p", start, 7, 2);
    sync.note_departure("p", start, 3, 2);
    sync.note_departure("q", start, 1, 2);
    sync.note_departure("r", start, 1, 2);
    assert_eq!(sync.departures(), 2, "no more than the bound");
    assert!(has_departed(&sync, 7) && !has_departed(&sync, 8));
    sync.note_named(Arc::from("n"));
    let named = ["n", "p", "q", "r"].map(|name| sync.has_named(name, start));
    assert_eq!(named, [true, true, true, false]);
    let later = Incarnation::new(6);
    let earlier = Incarnation::new(4);
    assert!(sync.has_named("p", earlier) && !sync.has_named("p", later));
    // With the answer it is over.
    sync.settle();
    sync.note_departure("p", start, 7, 2);
    assert!(!has_departed(&sync, 7));
    assert!(!sync.has_named("p", start) && !sync.has_named("n", start));
    // A new question has new answers.
    sync.begin(now);
    sync.note_named(Arc::from("n"));
    sync.begin(now);
    assert!(!sync.has_named("n", start));
    sync.note_departure("p", start, 7, 2);
    sync.stop();
    assert_eq!(sync.departures(), 0);
}

#[test]
fn the_parts_of_an_answer_come_in_order() {
    let (mut sync, now) = asking();
    let [one, other] = [7, 8].map(|pid| Pid::new(pid).expect("a number"));
    // The second of the other has no first.
    let parts = [(one, 1), (other, 2), (one, 2), (other, 1), (one, 3)];
    let whole = parts.map(|(from, part)| sync.handle_part(now, from, part, 3));
    assert_eq!(whole, [false, false, false, false, true]);
    // Nor has one that was left out.
    let parts = [(other, 3), (other, 1), (other, 2), (other, 3)];
    let whole = parts.map(|(from, part)| sync.handle_part(now, from, part, 3));
    assert_eq!(whole, [false, false, false, true]);
}

#[test]
fn each_part_may_take_twice_as_long_as_the_slowest_before() {
    let (mut sync, now) = asking();
    let from = Pid::new(7).expect("a number");
    let mut at = 0;
    for (part, (took, patience)) in (1..).zip([(100, 200), (150, 300), (50, 300), (400, 800)]) {
        at += took;
        assert!(!sync.handle_part(now + ms(at), from, part, 9));
        assert_eq!(next(&sync, now), u128::from(at + patience), "{part}");
    }
}
