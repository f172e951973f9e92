//! How long the server takes to answer: the last time, smoothed, and how much that varies. Pure.

use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub(crate) struct RoundTrip {
    last: Duration,
    /// The smoothed round trip and its mean deviation (RFC 6298, 2). `None` before the first answer.
    estimate: Option<(Duration, Duration)>,
}

impl RoundTrip {
    /// The server took this long.
    pub(crate) fn handle(&mut self, took: Duration) {
        self.last = took;
        self.estimate = Some(match self.estimate {
            None => (took, took / 2),
            Some((smoothed, deviation)) => (
                (smoothed * 7 + took) / 8,
                (deviation * 3 + smoothed.abs_diff(took)) / 4,
            ),
        });
    }

    /// How long the last answer took.
    pub(crate) fn last(&self) -> Duration {
        self.last
    }

    /// The smoothed round trip, if there was an answer.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|(smoothed, _)| smoothed)
    }

    /// By how much it varies.
    pub(crate) fn deviation(&self) -> Duration {
        self.estimate.unwrap_or_default().1
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
    fn one_slow_answer_says_little() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.twice(), ms(0));
        round_trip.handle(ms(100));
        assert_eq!(round_trip.twice(), ms(200));
        round_trip.handle(ms(900));
        assert_eq!(round_trip.twice(), ms(400));
        assert_eq!(round_trip.last(), ms(900));
        assert!(round_trip.deviation() > ms(200));
        for _ in 0..50 {
            round_trip.handle(ms(300));
        }
        assert!(round_trip.twice().abs_diff(ms(600)) < ms(1));
        assert!(round_trip.deviation() < ms(1));
    }
}
