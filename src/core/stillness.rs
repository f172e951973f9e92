//! The peers whose sessions stand still, as Postgres shows them. Pure: time is a parameter.
//!
//! Postgres tells by its own clock how long a session has been idle. That clock may jump, and a machine that sleeps takes server and
//! members with it. So what it tells is believed only where a peer had time to say something while it was watched, by our own
//! clock, for longer than it promised to be silent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The clocks of the server and of this machine may drift apart by this much at most between two looks, and a beat may come this
/// much late.
const TOLERANCE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(crate) struct Stillness(HashMap<Arc<str>, Still>);

/// What a look at a session tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is not known to be silent for too long.
    Speaks,
    /// It seems to be silent for too long. A look then tells.
    LookAgain(Instant),
    /// It is overdue.
    Silent,
}

/// When Postgres was asked what sessions do, and how long it took to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) asked: Instant,
    pub(crate) took: Duration,
}

#[derive(Debug)]
struct Still {
    /// The first look that showed the session idle since its last statement, and the last one.
    first: Instant,
    last: Instant,
    /// How long the last one took. The server looked at some time within it.
    took: Duration,
    /// For how long it had been idle then.
    idle: Duration,
    /// Since then it is overdue.
    overdue: Option<Instant>,
}

impl Stillness {
    /// At a look, the session of this peer had been idle for so long. It promised a statement every `beat`. `is_late`: that is too
    /// long, and it was not heard for as long.
    pub(crate) fn handle_idle(
        &mut self,
        look: Look,
        name: &Arc<str>,
        idle: Duration,
        beat: Duration,
        is_late: bool,
    ) -> Verdict {
        let Look { asked, took } = look;
        if idle * 2 < beat {
            self.clear(name);
            return Verdict::Speaks;
        }
        let new = Still {
            first: asked,
            last: asked,
            took,
            idle,
            overdue: None,
        };
        let still = self.0.entry(Arc::clone(name)).or_insert(new);
        let passed = asked.saturating_duration_since(still.last);
        let expected = still.idle + passed;
        let has_jumped =
            idle > expected + took + TOLERANCE || idle + still.took + TOLERANCE < expected;
        if has_jumped || idle <= passed + took {
            // It has said something meanwhile, or the server's clock has jumped, and hides whether it has.
            (still.first, still.overdue) = (asked, None);
        }
        (still.last, still.took, still.idle) = (asked, took, idle);
        let watched_for_long = still.first + beat + TOLERANCE;
        if is_late && asked >= watched_for_long {
            still.overdue.get_or_insert(asked);
        }
        match still.overdue {
            Some(_) => Verdict::Silent,
            None if is_late => Verdict::LookAgain(watched_for_long),
            None => Verdict::Speaks,
        }
    }

    /// This peer was heard, has left, or is not seen.
    pub(crate) fn clear(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Nothing that was seen holds any more.
    pub(crate) fn stop(&mut self) {
        self.0.clear();
    }

    /// Since when this peer is overdue, if it is.
    pub(crate) fn overdue(&self, name: &str) -> Option<Instant> {
        self.0.get(name)?.overdue
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(5);
    const LIMIT: Duration = Duration::from_secs(15);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn at(asked: Instant) -> Look {
        let took = Duration::ZERO;
        Look { asked, took }
    }

    /// Whether each look finds the session silent: at which second, and for how many seconds it was idle.
    fn looks<const N: usize>(looks: [(f64, f64); N]) -> [bool; N] {
        looks_that_take(looks.map(|(at, idle)| (at, 0.0, idle)))
    }

    /// The same, with how many seconds each takes.
    fn looks_that_take<const N: usize>(looks: [(f64, f64, f64); N]) -> [bool; N] {
        let start = Instant::now();
        let mut stillness = Stillness::default();
        looks.map(|(asked, took, idle)| {
            let (asked, took) = (start + seconds(asked), seconds(took));
            let idle = seconds(idle);
            let look = Look { asked, took };
            let verdict = stillness.handle_idle(look, &Arc::from("b"), idle, BEAT, idle > LIMIT);
            verdict == Verdict::Silent
        })
    }

    #[test]
    fn a_member_that_says_nothing_for_the_limit_is_silent() {
        let found = looks([(3.0, 3.0), (9.0, 9.0), (14.9, 14.9), (15.1, 15.1)]);
        assert_eq!(found, [false, false, false, true]);
    }

    #[test]
    fn a_statement_begins_it_anew() {
        let found = looks([(9.0, 9.0), (14.0, 4.0), (24.0, 14.0), (26.0, 16.0)]);
        assert_eq!(found, [false, false, false, true]);
        let found = looks([(9.0, 9.0), (14.0, 2.0), (27.0, 15.0), (27.2, 15.2)]);
        assert_eq!(found, [false; 4], "it was not watched since");
    }

    #[test]
    fn a_peer_that_was_idle_for_half_a_beat_is_watched() {
        let (now, name) = (Instant::now(), Arc::from("b"));
        let mut stillness = Stillness::default();
        let less = BEAT / 2 - Duration::from_millis(1);
        for (idle, watched) in [(less, 0), (BEAT / 2, 1)] {
            let verdict = stillness.handle_idle(at(now), &name, idle, BEAT, false);
            assert_eq!(verdict, Verdict::Speaks);
            assert_eq!(stillness.names().count(), watched, "{idle:?}");
        }
        stillness.stop();
        assert_eq!(stillness.names().count(), 0);
    }

    #[test]
    fn two_clocks_may_differ_a_little() {
        assert_eq!(looks([(3.0, 3.0), (16.0, 16.25)]), [false, true]);
        assert_eq!(looks([(3.0, 3.0), (16.0, 16.26)]), [false, false]);
    }

    /// The server looks at the beginning of a question that takes long, or at its end.
    #[test]
    fn the_server_may_take_long_to_look() {
        let found = looks_that_take([(3.0, 0.0, 3.0), (16.0, 1.0, 17.0), (18.0, 0.0, 18.0)]);
        assert_eq!(found, [false, true, true]);
        let found = looks_that_take([(3.0, 1.0, 4.0), (16.0, 0.0, 16.0)]);
        assert_eq!(found, [false, true]);
        let found = looks_that_take([(3.0, 1.0, 4.0), (16.0, 1.0, 18.26)]);
        assert_eq!(found, [false, false], "longer than it took");
        // Whether it said something since is not known where a look takes as long as it was idle before.
        let found = looks_that_take([(3.0, 0.0, 3.0), (16.0, 2.9, 16.0)]);
        assert_eq!(found, [false, true]);
        let found = looks_that_take([(3.0, 0.0, 3.0), (16.0, 3.0, 16.0)]);
        assert_eq!(found, [false, false]);
    }

    #[test]
    fn a_clock_that_jumps_silences_nobody() {
        let found = looks([(0.0, 3.0), (2.0, 3_605.0), (4.0, 3_607.0), (4.5, 0.2)]);
        assert_eq!(found, [false; 4]);
        // A beat came between two looks, and the jump hides it.
        let found = looks([(2.6, 2.6), (4.6, 4.6), (6.6, 3_601.6), (8.6, 3_603.6)]);
        assert_eq!(found, [false; 4]);
        // A peer that is silent then is found all the same.
        let found = looks([(0.0, 3.0), (2.0, 3_605.0), (6.0, 3_609.0), (8.0, 3_611.0)]);
        assert_eq!(found, [false, false, false, true]);
    }

    #[test]
    fn a_first_look_is_followed_by_another() {
        let now = Instant::now();
        let mut stillness = Stillness::default();
        let again = now + BEAT + TOLERANCE;
        let mut look = |asked: Instant| {
            let idle = LIMIT * 2 + (asked - now);
            stillness.handle_idle(at(asked), &Arc::from("b"), idle, BEAT, true)
        };
        assert_eq!(look(now), Verdict::LookAgain(again));
        assert_eq!(look(again), Verdict::Silent);
    }

    #[test]
    fn a_peer_that_is_heard_is_not_overdue_any_more() {
        let (start, name) = (Instant::now(), Arc::from("b"));
        let mut stillness = Stillness::default();
        for second in [8, 16] {
            let idle = Duration::from_secs(second);
            stillness.handle_idle(at(start + idle), &name, idle, BEAT, idle > LIMIT);
        }
        assert!(stillness.overdue("b").is_some());
        stillness.clear("b");
        assert_eq!(stillness.overdue("b"), None);
        let next = at(start + Duration::from_secs(18));
        let verdict = stillness.handle_idle(next, &name, Duration::from_secs(18), BEAT, true);
        assert_ne!(verdict, Verdict::Silent);
    }
}
