//! How long the thread waits before it looks at what the host asks, and whether the whole process was stopped meanwhile.
//! Pure: time is a parameter.
//!
//! `postgres` cannot be woken from outside, so the thread looks every [`SLICE`]. With a link that works, and a host that asks
//! for little, it waits for longer, since [`wake`](super::wake()) wakes it: an idle member should cost nothing that can be
//! measured.

use std::time::{Duration, Instant};

/// The longest wait where nobody can wake the thread, and the longest that one duty may hold up the others.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// The longest wait where the host can wake the thread.
const LONG_SLICE: Duration = Duration::from_millis(800);

/// The longest wait while a host drains events of which more are pending.
const DRAINING_SLICE: Duration = Duration::from_millis(1);

/// For this long after a request the waits stay short: not each of many requests is worth a connection that wakes.
const ATTENTIVE: Duration = Duration::from_secs(2);

/// Waking takes a connection, some four round trips: not worth it if the server is farther away than this.
const NEAR: Duration = Duration::from_millis(20);

/// A look at the clock that comes this late means that the whole process was stopped.
const PAUSE: Duration = Duration::from_secs(1);

/// A time limit is waited for in this many steps.
pub(super) const STEPS: u32 = 15;

/// What is left of a time limit. Time in which this process was stopped for more than a moment, as by SIGSTOP, does not count.
#[derive(Debug)]
pub(super) struct TimeAwake {
    left: Duration,
    step: Duration,
}

impl TimeAwake {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            left: time,
            step: time / STEPS,
        }
    }

    /// For how long to wait before the next look at the clock; `None` when the time is over.
    pub(super) fn poll(&self) -> Option<Duration> {
        let step = self.step.min(self.left);
        Some(step).filter(|step| !step.is_zero())
    }

    /// The wait that was polled took so long. On a busy machine a wait ends late, too. What is waited for went on meanwhile, so that
    /// time counts. Returns whether this process was stopped meanwhile.
    pub(super) fn handle_wait(&mut self, took: Duration) -> bool {
        let step = self.step.min(self.left);
        let stopped = took > step + PAUSE;
        let awake = if stopped { step } else { took };
        self.left = self.left.saturating_sub(awake);
        stopped
    }
}

#[derive(Debug)]
pub(crate) struct Pace {
    /// When the thread last looked at the clock, or when what it waited for on purpose was there, if that is later.
    now: Instant,
    interval: Duration,
    /// Until then the waits stay short.
    short_poll_until: Instant,
}

/// Whether the host can wake the thread, and whether it takes events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// The link works, and how long the server took for its last answer, if that is known.
    pub(crate) link: Option<Option<Duration>>,
    /// A short silence is to be noticed.
    pub(crate) flooded: bool,
    /// Events wait for room at the host.
    pub(crate) pending: bool,
    /// The host takes events, and more are pending.
    pub(crate) draining: bool,
    /// The host may ask for something at any moment: to wake the thread each time would cost a connection.
    pub(crate) asking: bool,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            now,
            interval: SLICE,
            short_poll_until: now,
        }
    }

    /// When the thread last looked at the clock.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// The longest that this turn may wait.
    pub(crate) fn poll_interval(&self) -> Duration {
        self.interval
    }

    /// The thread looks at the clock after something that may take long.
    pub(crate) fn handle_progress(&mut self, now: Instant) {
        self.now = now;
    }

    /// The thread waited until then on purpose: that is no pause.
    pub(crate) fn handle_wait(&mut self, until: Instant) {
        self.now = self.now.max(until);
    }

    /// The thread looks at the clock, and has waited for nothing since the last look but what [`handle_wait`](Self::handle_wait)
    /// was told. Returns whether the whole process was stopped meanwhile.
    pub(crate) fn handle_look(&mut self, now: Instant) -> bool {
        let paused = now.saturating_duration_since(self.now) > PAUSE;
        self.now = now;
        paused
    }

    /// Whether the duty that began at `since` has held up the others for long enough.
    pub(crate) fn is_late(&self, since: Instant) -> bool {
        self.now.saturating_duration_since(since) > SLICE
    }

    /// Chooses how long this turn may wait; `requested`: the host has just asked for something. Returns whether the wait is so
    /// long that a host which asks for more must wake the thread.
    pub(crate) fn choose(&mut self, conditions: Conditions, requested: bool) -> bool {
        if requested {
            self.short_poll_until = self.now + ATTENTIVE;
        }
        let near = |round_trip: Option<Duration>| round_trip.is_none_or(|time| time < NEAR);
        let wakes = conditions.link.is_some_and(near) && !conditions.flooded;
        let busy = conditions.pending || conditions.asking;
        let asleep = wakes && !busy && self.short_poll_until <= self.now;
        self.interval = match asleep {
            true => LONG_SLICE,
            false if conditions.draining => DRAINING_SLICE,
            false => SLICE,
        };
        asleep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that works, and a host that asks for nothing.
    const IDLE: Conditions = Conditions {
        link: Some(Some(Duration::from_millis(1))),
        flooded: false,
        pending: false,
        draining: false,
        asking: false,
    };

    #[test]
    fn a_limit_counts_all_time_but_stops() {
        let time = Duration::from_millis(1_500);
        // How much later than it wants to each wait ends, and how many waits there are.
        for (late, waits) in [
            (0, 15),
            (1, 15),
            (50, 10),
            (200, 5),
            (1_000, 2),
            (1_001, 15),
        ] {
            let late = Duration::from_millis(late);
            let mut left = TimeAwake::new(time);
            let mut waited = Vec::new();
            while let Some(step) = left.poll() {
                waited.push(step);
                let stopped = left.handle_wait(step + late);
                assert_eq!(stopped, late > PAUSE);
            }
            assert_eq!(waited.len(), waits, "{late:?} late: {waited:?}");
        }
        assert_eq!(TimeAwake::new(Duration::ZERO).poll(), None);
    }

    #[test]
    fn it_sleeps_for_long_only_where_it_can_be_woken() {
        let mut pace = Pace::new(Instant::now());
        assert!(pace.choose(IDLE, false));
        assert_eq!(pace.poll_interval(), LONG_SLICE);
        let unknown = Some(None);
        assert!(pace.choose(
            Conditions {
                link: unknown,
                ..IDLE
            },
            false
        ));
        let far = Some(Some(NEAR));
        for conditions in [
            Conditions { link: None, ..IDLE },
            Conditions { link: far, ..IDLE },
            Conditions {
                flooded: true,
                ..IDLE
            },
            Conditions {
                pending: true,
                ..IDLE
            },
            Conditions {
                asking: true,
                ..IDLE
            },
        ] {
            assert!(!pace.choose(conditions, false), "{conditions:?}");
            assert_eq!(pace.poll_interval(), SLICE);
        }
    }

    #[test]
    fn a_host_that_drains_is_looked_at_soon() {
        let mut pace = Pace::new(Instant::now());
        assert!(!pace.choose(
            Conditions {
                pending: true,
                draining: true,
                ..IDLE
            },
            false
        ));
        assert_eq!(pace.poll_interval(), DRAINING_SLICE);
    }

    #[test]
    fn after_a_request_the_waits_stay_short_for_a_while() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(!pace.choose(IDLE, true));
        pace.handle_look(start + ATTENTIVE - Duration::from_millis(1));
        assert!(!pace.choose(IDLE, false));
        pace.handle_look(start + ATTENTIVE);
        assert!(pace.choose(IDLE, false));
    }

    #[test]
    fn a_duty_that_takes_longer_than_a_wait_is_late() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for (passed, late) in [
            (Duration::ZERO, false),
            (SLICE, false),
            (SLICE + Duration::from_millis(1), true),
        ] {
            pace.handle_progress(start + passed);
            assert_eq!(pace.is_late(start), late, "{passed:?}");
        }
    }

    #[test]
    fn a_look_that_comes_late_without_having_waited_was_paused() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(!pace.handle_look(start + PAUSE));
        pace.handle_wait(start + PAUSE * 10);
        assert!(!pace.handle_look(start + PAUSE * 11));
        assert!(pace.handle_look(start + PAUSE * 12 + Duration::from_millis(1)));
        pace.handle_progress(start + PAUSE * 20);
        assert!(!pace.handle_look(start + PAUSE * 20));
    }
}
