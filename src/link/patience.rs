//! How long an answer of the server may take: each limit derives from what was measured. Pure.
//!
//! Slow is not dead. A server that takes two seconds for a NOTIFY, since others wait for the same lock or for a slow
//! standby, serves a participant with a heartbeat of five seconds well enough, and one that is far away takes as long as it is
//! far. So a statement may take as long as the heartbeat interval allows, and on top of that four round trips, with what they
//! deviate: a lock is waited for at the server, and the answer is still to come.

use std::time::Duration;

use crate::round_trip::RoundTrip;

/// The least that a statement may take, however short the heartbeat interval is.
const LEAST: Duration = Duration::from_millis(1_500);

/// The most that the heartbeat interval makes of it. Beyond this a server that is frozen would be noticed late.
const MOST: Duration = Duration::from_secs(5);

/// A statement that waits for a lock gives up this much before it counts as hung.
const OF_LIMIT_FOR_LOCK: f64 = 0.8;

/// The pace of a slow link, bytes a second.
const SLOW_LINK: f64 = 32_000.0;

#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// What a statement may take by the heartbeat interval alone.
    base: Duration,
    round_trip: RoundTrip,
}

impl Patience {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self {
            base: heartbeat.clamp(LEAST, MOST),
            round_trip: RoundTrip::default(),
        }
    }

    /// A statement took this long.
    pub(crate) fn handle_round_trip(&mut self, took: Duration) {
        self.round_trip.handle(took);
    }

    /// The smoothed round trip, if one was measured.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// How long a statement of this many bytes may take before the link counts as broken.
    pub(crate) fn statement(&self, bytes: usize) -> Duration {
        let measured = self.round_trip.twice() * 2 + self.round_trip.deviation();
        let transfer = Duration::from_secs_f64(bytes as f64 / SLOW_LINK);
        // On top of what it may wait for a lock, so that far away, too, it gives up before it counts as hung.
        self.base + measured + transfer
    }

    /// How long a statement may wait for a lock at the server: it then fails by itself, and the session stays.
    pub(crate) fn lock(&self) -> Duration {
        self.base.mul_f64(OF_LIMIT_FOR_LOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// After statements that took this many milliseconds.
    fn after(heartbeat: Duration, round_trips: &[u64]) -> Patience {
        let mut patience = Patience::new(heartbeat);
        for &took in round_trips {
            patience.handle_round_trip(ms(took));
        }
        patience
    }

    #[test]
    fn near_by_the_heartbeat_interval_decides() {
        for (heartbeat, limit) in [
            (40, 1_500),
            (1_500, 1_500),
            (3_000, 3_000),
            (5_000, 5_000),
            (3_600_000, 5_000),
        ] {
            let patience = after(ms(heartbeat), &[1, 2, 1]);
            let more = patience.statement(100) - ms(limit);
            assert!(more < ms(20), "{more:?} more");
        }
    }

    #[test]
    fn a_server_far_away_has_four_round_trips() {
        let patience = after(ms(1_000), &[700; 20]);
        let limit = patience.statement(0);
        assert!((ms(4_300)..ms(4_500)).contains(&limit), "{limit:?}");
        // One that is unsteady has more.
        let unsteady = after(ms(1_000), &[300, 1_100].repeat(10));
        assert!(unsteady.statement(0) > limit);
    }

    #[test]
    fn what_was_measured_is_told() {
        assert_eq!(after(ms(1_000), &[]).round_trip(), None);
        assert_eq!(after(ms(1_000), &[70; 3]).round_trip(), Some(ms(70)));
    }

    #[test]
    fn what_is_long_takes_longer() {
        let patience = after(ms(1_000), &[300; 20]);
        let limit = patience.statement(64_000);
        assert!((ms(4_700)..ms(4_900)).contains(&limit), "{limit:?}");
    }

    #[test]
    fn a_stall_is_forgotten() {
        let mut patience = after(ms(1_000), &[1; 20]);
        patience.handle_round_trip(ms(3_000));
        assert!(patience.statement(0) > ms(3_000));
        for _ in 0..40 {
            patience.handle_round_trip(ms(1));
        }
        assert!(patience.statement(0) < ms(1_600));
    }

    #[test]
    fn a_lock_is_given_up_before_the_link_is() {
        assert_eq!(after(ms(5_000), &[700]).lock(), ms(4_000));
        for heartbeat in [40, 1_500, 5_000, 60_000] {
            for round_trip in [1, 50, 150, 300, 400, 700] {
                let patience = after(ms(heartbeat), &[round_trip; 20]);
                let gives_up = patience.lock() + ms(round_trip);
                // A busy machine adds to it.
                let limit = patience.statement(0);
                assert!(gives_up + ms(290) <= limit, "{gives_up:?} of {limit:?}");
            }
        }
    }
}
