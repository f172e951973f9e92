//! A second or more in which no NOTIFY of anybody is known to have got through: something may have held them all up (rule 4).

use std::time::{Duration, Instant};

/// Nobody gives a statement up that waits for a lock sooner than that.
const SHORTEST: Duration = Duration::from_secs(1);

/// The most that a peer has after a lull to say what was held up. The next lull ends no sooner.
const MOST_AFTER: Duration = SHORTEST;

#[derive(Debug, Default)]
pub(super) struct Lull {
    /// When a NOTIFY last got through; `None` if none has since the link came up.
    last: Option<Instant>,
    /// The lull that ended last.
    ended: Option<(Instant, Instant)>,
}

impl Lull {
    /// A NOTIFY has got through by now, of whomever.
    pub(super) fn handle_notify(&mut self, now: Instant) {
        if let Some(last) = self.last.filter(|last| *last + SHORTEST <= now) {
            self.ended = Some((last, now));
        }
        self.last = self.last.max(Some(now));
    }

    /// Until when a peer is excused that was to say something at `next`, if that was in a lull: its statement may have been given up
    /// just before others got through, and it says it again within `moment`.
    pub(super) fn excuses_until(&self, next: Instant, moment: Duration) -> Option<Instant> {
        let (from, to) = self.ended?;
        (from <= next && next <= to).then(|| to + moment.min(MOST_AFTER))
    }

    /// Since then nobody is excused.
    #[cfg(any(test, fuzzing))]
    pub(super) fn over_at(&self) -> Option<Instant> {
        self.ended.map(|(_, to)| to + MOST_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_peer_that_was_due_in_a_lull_is_excused_for_a_moment() {
        let start = Instant::now();
        let mut lull = Lull::default();
        lull.handle_notify(start);
        assert_eq!(lull.excuses_until(start, ms(300)), None, "none has ended");
        lull.handle_notify(start + ms(2_000));
        for (next, moment, until) in [
            (0, 300, Some(2_300)),
            (1_000, 300, Some(2_300)),
            (2_000, 300, Some(2_300)),
            (2_001, 300, None),
            (1_000, 5_000, Some(3_000)),
        ] {
            let excused = lull.excuses_until(start + ms(next), ms(moment));
            assert_eq!(excused, until.map(|until| start + ms(until)), "{next}");
        }
    }

    #[test]
    fn only_a_time_in_which_somebody_may_give_up_is_a_lull() {
        let start = Instant::now();
        let mut lull = Lull::default();
        for at in [0, 2_000, 2_001, 3_000, 3_999] {
            lull.handle_notify(start + ms(at));
            // What is heard late changes nothing.
            lull.handle_notify(start);
        }
        assert!(lull.excuses_until(start + ms(1_000), ms(300)).is_some());
        assert_eq!(lull.excuses_until(start + ms(2_500), ms(300)), None);
        assert_eq!(lull.over_at(), Some(start + ms(3_000)));
        lull.handle_notify(start + ms(4_999));
        assert_eq!(lull.excuses_until(start + ms(1_000), ms(300)), None);
        assert_eq!(lull.over_at(), Some(start + ms(5_999)));
    }
}
