//! The peers whose sessions stand still, as Postgres shows them. Pure: time is a parameter.
//!
//! Postgres tells by its own clock how long a session has been idle. That clock may jump, and a machine that sleeps takes server and
//! members with it. So what it tells is believed only where a peer had time to say something while it was watched, by our own
//! clock, for longer than it promised to be silent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Two looks by two clocks differ by this much, and a beat may come this much late.
const TOLERANCE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(crate) struct Stillness(HashMap<Arc<str>, Still>);

#[derive(Debug)]
struct Still {
    /// The first look that showed the session idle since its last statement, and the last one.
    first: Instant,
    last: Instant,
    /// For how long it had been idle then.
    idle: Duration,
    /// Since then it is overdue.
    overdue: Option<Instant>,
}

impl Stillness {
    /// At `asked` the session of this peer had been idle for so long. It promised a statement every `beat`. Returns whether it has
    /// been silent for longer than `limit`, so that it is overdue since then.
    pub(crate) fn handle_idle(
        &mut self,
        asked: Instant,
        name: &Arc<str>,
        idle: Duration,
        beat: Duration,
        limit: Duration,
    ) -> bool {
        if idle * 2 < beat {
            self.clear(name);
            return false;
        }
        let new = Still {
            first: asked,
            last: asked,
            idle,
            overdue: None,
        };
        let still = self.0.entry(Arc::clone(name)).or_insert(new);
        let elapsed = asked.saturating_duration_since(still.last);
        if idle + TOLERANCE < still.idle + elapsed {
            // It has said something meanwhile.
            (still.first, still.overdue) = (asked, None);
        }
        (still.last, still.idle) = (asked, idle);
        let watched = asked.saturating_duration_since(still.first);
        if idle > limit && watched >= beat + TOLERANCE {
            still.overdue.get_or_insert(asked);
        }
        still.overdue.is_some()
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

    /// Whether each look, at so many seconds, finds it silent that shows the session idle for so many.
    fn looks<const N: usize>(looks: [(f64, f64); N]) -> [bool; N] {
        let start = Instant::now();
        let mut stillness = Stillness::default();
        looks.map(|(at, idle)| {
            let at = start + seconds(at);
            stillness.handle_idle(at, &Arc::from("b"), seconds(idle), BEAT, LIMIT)
        })
    }

    #[test]
    fn who_says_nothing_for_the_limit_is_silent() {
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
    fn a_clock_that_jumps_silences_nobody() {
        let found = looks([(0.0, 3.0), (2.0, 3_605.0), (4.0, 3_607.0), (4.5, 0.2)]);
        assert_eq!(found, [false; 4]);
        // Who is silent then is found all the same.
        let found = looks([(0.0, 3.0), (2.0, 3_605.0), (6.0, 3_609.0)]);
        assert_eq!(found, [false, false, true]);
    }

    #[test]
    fn who_is_heard_is_not_overdue_any_more() {
        let (start, name) = (Instant::now(), Arc::from("b"));
        let mut stillness = Stillness::default();
        for at in [8, 16] {
            let idle = Duration::from_secs(at);
            stillness.handle_idle(start + idle, &name, idle, BEAT, LIMIT);
        }
        assert!(stillness.overdue("b").is_some());
        stillness.clear("b");
        assert_eq!(stillness.overdue("b"), None);
        let next = start + Duration::from_secs(18);
        assert!(!stillness.handle_idle(next, &name, Duration::from_secs(18), BEAT, LIMIT));
    }
}
