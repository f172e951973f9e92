//! The names that left lately, in the order of their departure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long a departed peer is remembered, so that a late message changes nothing and a return is a heal.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Remembers when each name left. One that is back since, or has left again, has another entry in the roster by now.
#[derive(Debug, Default)]
pub(super) struct Tombstones(VecDeque<(Instant, Arc<str>)>);

impl Tombstones {
    pub(super) fn push(&mut self, left: Instant, name: Arc<str>) {
        self.0.push_back((left, name));
    }

    /// The next name to forget, and when it left: it was remembered for long enough, or more are remembered than that.
    pub(super) fn pop(&mut self, now: Instant, bound: usize) -> Option<(Instant, Arc<str>)> {
        let (left, _) = self.0.front()?;
        let old = now.saturating_duration_since(*left) > REMEMBERED;
        (old || self.0.len() > bound)
            .then(|| self.0.pop_front())
            .flatten()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
