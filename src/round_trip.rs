//! How long the server takes to answer: the last time, smoothed, and how much that varies. Pure.

use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub(crate) struct RoundTrip {
    last: Duration,
    least: Option<Duration>,
    /// The longest of late: it comes a quarter nearer to the least with each answer.
    slowest: Duration,
    /// The smoothed round trip and its mean deviation (RFC 6298, 2). `None` before the first answer.
    estimate: Option<(Duration, Duration)>,
}

impl RoundTrip {
    /// The server took this long.
    pub(crate) fn handle(&mut self, took: Duration) {
        self.last = took;
        let least = self.least.map_or(took, |least| least.min(took));
        self.least = Some(least);
        self.slowest -= self.slowest.saturating_sub(least) / 4;
        self.slowest = self.slowest.max(took);
        self.estimate = Some(match self.estimate {
            None => (took, took / 2),
            Some((smoothed, deviation)) => (
                (smoothed * 7 + took) / 8,
                (deviation * 3 + smoothed.abs_diff(took)) / 4,
            ),
        });
    }

    /// Whether that is longer than an answer takes by all that is known: than twice the last one, and than the mean and four times
    /// what they vary (RFC 6298, 2.3). Before the first answer nothing is known.
    pub(crate) fn is_unusual(&self, took: Duration) -> bool {
        self.estimate.is_some_and(|(smoothed, deviation)| {
            took > (self.last * 2).max(smoothed + deviation * 4)
        })
    }

    /// The smoothed round trip, if there was an answer.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|(smoothed, _)| smoothed)
    }

    /// By how much it varies.
    pub(crate) fn deviation(&self) -> Duration {
        self.estimate.unwrap_or_default().1
    }

    /// How much longer than at best the server took of late. It is as busy for everybody; but on a busy machine one answer takes
    /// long and the next does not, so the last alone says little.
    pub(crate) fn excess(&self) -> Duration {
        self.slowest.saturating_sub(self.least.unwrap_or_default())
    }

    /// The least time that may be promised, or expected, of what takes a round trip.
    pub(crate) fn twice(&self) -> Duration {
        self.smoothed().unwrap_or_default() * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_excess_is_what_comes_on_top_of_the_distance() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.excess(), ms(0));
        for took in [150, 150, 190] {
            round_trip.handle(ms(took));
        }
        assert_eq!(round_trip.excess(), ms(40));
        for excess in [30, 22, 16, 12] {
            round_trip.handle(ms(150));
            assert_eq!(round_trip.excess().as_millis(), excess);
        }
        round_trip.handle(ms(100));
        assert_eq!(
            round_trip.excess().as_millis(),
            46,
            "it was far from its best"
        );
    }

    #[test]
    fn what_varies_much_is_rarely_unusual() {
        let mut round_trip = RoundTrip::default();
        assert!(!round_trip.is_unusual(ms(9_000)));
        round_trip.handle(ms(100));
        assert_eq!(round_trip.deviation(), ms(50));
        assert!(round_trip.is_unusual(ms(301)) && !round_trip.is_unusual(ms(300)));
        round_trip.handle(ms(200));
        assert_eq!(round_trip.deviation(), Duration::from_micros(62_500));
        assert_eq!(round_trip.smoothed(), Some(Duration::from_micros(112_500)));
        assert!(round_trip.is_unusual(ms(401)) && !round_trip.is_unusual(ms(400)));
    }

    #[test]
    fn one_slow_answer_says_little() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.twice(), ms(0));
        round_trip.handle(ms(100));
        assert_eq!(round_trip.twice(), ms(200));
        round_trip.handle(ms(900));
        assert_eq!(round_trip.twice(), ms(400));
        assert!(round_trip.is_unusual(ms(1_801)) && !round_trip.is_unusual(ms(1_800)));
        assert!(round_trip.deviation() > ms(200));
        for _ in 0..50 {
            round_trip.handle(ms(300));
        }
        assert!(round_trip.twice().abs_diff(ms(600)) < ms(1));
        assert!(round_trip.deviation() < ms(1));
    }
}
