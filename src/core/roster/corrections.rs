//! The names whose process must be told that a higher incarnation is remembered (rule 1).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Roster;
use crate::core::presence::Presence;
use crate::core::wire::{Announce, Body, Message};
use crate::jitter::Jitter;

/// A correction is said within this time. Many members know, and the first to say it spares the others.
const SAID_WITHIN: Duration = Duration::from_millis(50);

/// For each such name: when to say so.
#[derive(Debug, Default)]
pub(super) struct Corrections(BTreeMap<Arc<str>, Instant>);

impl Corrections {
    /// Plans a correction, unless one is planned for that name.
    pub(super) fn plan(&mut self, now: Instant, name: &Arc<str>, jitter: &mut Jitter) {
        if !self.0.contains_key(name) {
            let at = now + jitter.between(0.0, SAID_WITHIN);
            self.0.insert(Arc::clone(name), at);
        }
    }

    /// Another member said it, or the name has a newer process.
    pub(super) fn cancel(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// A name whose correction is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Arc<str>> {
        let due = self.0.iter().find(|&(_, &at)| at <= now);
        let name = Arc::clone(due?.0);
        self.0.remove(&name);
        Some(name)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Roster {
    /// A process announces a lower incarnation than is remembered of its name (rule 1). If the higher one is there, it speaks
    /// for itself, unless this is a newborn's first hello. Otherwise somebody must tell the process to step over it.
    pub(super) fn correct(&mut self, now: Instant, name: &str, heard: &Announce<'_>) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        let lower = entry
            .peer
            .incarnation()
            .is_some_and(|known| heard.incarnation < known);
        let newborn = heard.hello && heard.seq == 1;
        let silent = !self.presence.as_ref().is_some_and(Presence::speaks);
        let unheard = newborn || !entry.standing.is_alive();
        if lower && unheard && !silent {
            let name = entry.peer.shared_name();
            self.corrections.plan(now, &name, &mut self.jitter);
        }
    }

    /// The correction that is due, if one is.
    pub(super) fn due_correction(&mut self, now: Instant) -> Option<Message<'static>> {
        let name = self.corrections.pop(now)?;
        let incarnation = self.entries.get(&name)?.peer.incarnation()?;
        Some(Message {
            name: name.to_string().into(),
            body: Body::Newer { incarnation },
        })
    }
}
