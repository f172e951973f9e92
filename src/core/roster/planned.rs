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
