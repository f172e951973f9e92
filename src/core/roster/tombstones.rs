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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_forgotten_after_an_hour_or_beyond_the_bound() {
        let now = Instant::now();
        let mut tombstones = Tombstones::default();
        for (name, after) in [("a", 0), ("b", 1), ("c", 2)] {
            tombstones.push(now + Duration::from_secs(after), Arc::from(name));
        }
        let mut pop = |at, bound| tombstones.pop(at, bound).map(|(_, name)| name.to_string());
        assert_eq!(pop(now + REMEMBERED, 3), None);
        assert_eq!(pop(now, 2).as_deref(), Some("a"));
        assert_eq!(pop(now + REMEMBERED, 2), None);
        let hour_after_b = now + REMEMBERED + Duration::from_secs(1);
        assert_eq!(pop(hour_after_b, 2), None);
        let more = Duration::from_millis(1);
        assert_eq!(pop(hour_after_b + more, 2).as_deref(), Some("b"));
        assert_eq!(pop(hour_after_b + more, 2), None);
    }
}
