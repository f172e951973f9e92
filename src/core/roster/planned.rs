//! What is to be said of some names, each at a different time. Many members know, and the first to say it spares the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::jitter::Jitter;

/// For each such name: when to say it.
#[derive(Debug, Default)]
pub(super) struct Planned(BTreeMap<Arc<str>, Instant>);

impl Planned {
    /// Plans to say it within that time, unless that is planned for the name.
    pub(super) fn plan(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        within: Duration,
        jitter: &mut Jitter,
    ) {
        if !self.0.contains_key(name) {
            let at = now + jitter.between(0.0, within);
            self.0.insert(Arc::clone(name), at);
        }
    }

    /// Whether it is planned for that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Another member said it, or it is not so any more.
    pub(super) fn cancel(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// A name of which it is to be said now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Arc<str>> {
        let due = self.0.iter().find(|&(_, &at)| at <= now);
        let name = Arc::clone(due?.0);
        self.0.remove(&name);
        Some(name)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_said_once_within_the_time() {
        const WITHIN: Duration = Duration::from_millis(200);
        let (now, mut jitter) = (Instant::now(), Jitter::new(1));
        let mut planned = Planned::default();
        assert_eq!((planned.len(), planned.deadline()), (0, None));
        let names: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        for name in &names {
            planned.plan(now, name, WITHIN, &mut jitter);
            assert!(planned.has(name));
        }
        // What is planned stays as it is.
        let first = planned.deadline();
        for name in &names {
            planned.plan(now - WITHIN, name, Duration::ZERO, &mut jitter);
        }
        assert_eq!((planned.len(), planned.deadline()), (3, first));
        planned.cancel("b");
        assert_eq!((planned.len(), planned.has("b")), (2, false));
        let first = first.expect("a name");
        assert!(first > now);
        assert_eq!(planned.pop(first - Duration::from_nanos(1)), None);
        let mut said: Vec<_> = std::iter::from_fn(|| planned.pop(now + WITHIN)).collect();
        said.sort_unstable();
        assert_eq!(said, [Arc::clone(&names[0]), Arc::clone(&names[2])]);
        planned.plan(now, &names[0], WITHIN, &mut jitter);
        planned.clear();
        assert_eq!(planned.len(), 0);
    }
}
