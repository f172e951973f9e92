//! Asking Postgres whose session it no longer has: a process that was killed is known within seconds, however long the
//! interval between heartbeats. Pure: time is a parameter.
//!
//! A few members ask for all: the two oldest every two seconds, and each younger one half as often as the one before it,
//! which is one and a half queries a second in the whole cluster, and needs no election. Whoever is missing twice, with
//! nothing heard in between, is gone; one that merely reconnects has been heard by then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the two oldest members ask: two, since one may be among the dead. With [`CONFIRMED`] it bounds how late a death
/// is known.
const INTERVAL: Duration = Duration::from_secs(2);

/// Missing for this long means gone. Longer than reconnecting takes: the longest back-off, and a moment to connect.
const CONFIRMED: Duration = Duration::from_millis(1_250);

#[derive(Debug, Default)]
pub(crate) struct SessionCheck {
    /// When to ask next; `None` if others do.
    next: Option<Instant>,
    /// Those that were missing, by name, and since when.
    suspects: HashMap<Arc<str>, Instant>,
}

impl SessionCheck {
    /// Members with more older ones than this do not ask: by the time they would, others have.
    pub(crate) const LAST_RANK: usize = 6;

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Nothing that was found holds any more.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// It is known how many members are older: the next question comes no later than their number demands.
    pub(crate) fn schedule(&mut self, now: Instant, older: usize) {
        let due = Self::interval(older).map(|interval| now + interval);
        self.next = match (self.next, due) {
            (Some(next), Some(due)) => Some(next.min(due)),
            (next, due) => next.or(due),
        };
    }

    /// Whether to ask now.
    pub(crate) fn poll(&mut self, now: Instant, older: usize) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        let interval = Self::interval(older);
        self.next = interval.map(|interval| now + interval);
        interval.is_some()
    }

    /// It was missing when Postgres was asked at that time. Returns whether it is gone.
    pub(crate) fn missing(&mut self, asked: Instant, name: &Arc<str>) -> bool {
        let since = *self.suspects.entry(Arc::clone(name)).or_insert(asked);
        let confirmed = since + CONFIRMED;
        if asked >= confirmed {
            self.suspects.remove(name);
            return true;
        }
        self.next = self.next.map(|next| next.min(confirmed));
        false
    }

    /// It was heard, has left, or was there when Postgres was asked.
    pub(crate) fn clear(&mut self, name: &str) {
        if !self.suspects.is_empty() {
            self.suspects.remove(name);
        }
    }

    pub(crate) fn suspects(&self) -> Vec<Arc<str>> {
        self.suspects.keys().cloned().collect()
    }

    /// `None` for those that do not ask.
    fn interval(older: usize) -> Option<Duration> {
        (older <= Self::LAST_RANK).then(|| INTERVAL * (1 << older.saturating_sub(1)))
    }
}
