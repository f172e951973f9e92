//! When a member asks anew who is there, since others know other members than it does (rule 11). Pure: time is a parameter.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// For this long after the first that differs, and some round trips, a change may be under way.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// The least time between two questions for this reason. A difference may stay: where rosters have different bounds, or different
/// secrets, or one member alone has found a peer silent. So the pause doubles for as long as it does.
const LEAST_PAUSE: Duration = Duration::from_secs(5);
const MOST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Doubt {
    /// The first of those in a row that say they know other members, and when it did.
    first: Option<(Arc<str>, Instant)>,
    /// When to ask.
    ask: Option<Instant>,
    /// When it was last asked, and the pause that followed.
    asked: Option<(Instant, Duration)>,
    /// When somebody knew the same last.
    agreed: Option<Instant>,
}

impl Doubt {
    /// Nobody is compared with any more.
    pub(crate) fn stop(&mut self) {
        (self.first, self.ask) = (None, None);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ask
    }

    /// A peer knows the same members.
    pub(crate) fn handle_same(&mut self, now: Instant) {
        self.agreed = Some(now);
        self.stop();
    }

    /// This peer knows other members. One alone may be wrong, so it takes two in a row, or, where there is no second, the same one
    /// twice. The two need not know the same: where many rosters are wrong, each in its way, hardly any two do.
    pub(crate) fn handle_different(
        &mut self,
        now: Instant,
        peer: &Arc<str>,
        has_second: bool,
        round_trips: Duration,
    ) {
        let Some((first, since)) = &self.first else {
            self.first = Some((Arc::clone(peer), now));
            return;
        };
        if self.ask.is_some() || (has_second && first == peer) {
            return;
        }
        let rested = self.asked.map(|(at, pause)| at + pause);
        let settled = *since + UNDER_WAY + round_trips;
        self.ask = Some(settled.max(now)).max(rested);
    }

    /// Whether to ask now.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        if self.ask.is_none_or(|at| at > now) {
            return false;
        }
        let pause = match self.asked {
            Some((at, pause)) if now < at + (pause + MOST_PAUSE) => pause * 2,
            _ => LEAST_PAUSE,
        };
        self.asked = Some((now, pause.min(MOST_PAUSE)));
        self.stop();
        true
    }

    /// For how long nobody has known the same.
    pub(crate) fn lasts(&self, now: Instant) -> Option<Duration> {
        self.agreed.map(|at| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    fn name(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    /// Two peers say something else at that time; returns when it is asked.
    fn differ(doubt: &mut Doubt, at: Instant) -> Instant {
        doubt.handle_different(at, &name("a"), true, ROUND_TRIP);
        doubt.handle_different(at, &name("b"), true, ROUND_TRIP);
        doubt.deadline().expect("a question")
    }

    #[test]
    fn it_takes_two_peers_and_the_time_of_a_change() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        doubt.handle_different(now, &name("a"), true, ROUND_TRIP);
        doubt.handle_different(now, &name("a"), true, ROUND_TRIP);
        assert_eq!(doubt.deadline(), None);
        let due = now + UNDER_WAY + ROUND_TRIP;
        doubt.handle_different(now, &name("b"), true, ROUND_TRIP);
        assert_eq!(doubt.deadline(), Some(due));
        assert!(!doubt.poll(now));
        assert!(doubt.poll(due));
        assert!(!doubt.poll(due));
    }

    #[test]
    fn one_that_is_wrong_among_many_is_not_followed() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        for peer in ["a", "b", "a", "b"] {
            doubt.handle_different(now, &name(peer), true, ROUND_TRIP);
            assert_eq!(doubt.deadline(), None);
            doubt.handle_same(now);
        }
    }

    #[test]
    fn where_there_is_no_second_peer_the_first_says_it_twice() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        for _ in 0..2 {
            doubt.handle_different(now, &name("a"), false, ROUND_TRIP);
        }
        assert!(doubt.deadline().is_some());
    }

    #[test]
    fn one_that_knows_the_same_ends_it() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        differ(&mut doubt, now);
        doubt.handle_same(now);
        assert_eq!(doubt.deadline(), None);
        assert_eq!(doubt.lasts(now + ROUND_TRIP), Some(ROUND_TRIP));
    }

    #[test]
    fn a_difference_that_stays_costs_a_question_a_minute() {
        let start = Instant::now();
        let mut now = start;
        let mut doubt = Doubt::default();
        let mut times = Vec::new();
        while now < start + Duration::from_secs(600) {
            now = differ(&mut doubt, now);
            assert!(doubt.poll(now));
            times.push(now);
        }
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs());
        let gaps: Vec<_> = gaps.collect();
        assert_eq!(gaps[..6], [5, 10, 20, 40, 60, 60]);
        // A new one, later than two pauses, is not held up by that.
        let later = now + MOST_PAUSE * 2 - UNDER_WAY - ROUND_TRIP;
        let due = differ(&mut doubt, later);
        assert!(due - later < UNDER_WAY * 2);
        assert!(doubt.poll(due));
        assert!(differ(&mut doubt, due) - due <= LEAST_PAUSE);
    }
}
