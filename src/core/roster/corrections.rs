//! The names whose process must be told that a higher incarnation is remembered (rule 1).

use std::time::{Duration, Instant};

use super::Roster;
use crate::core::presence::Presence;
use crate::core::wire::{Announce, Body, Message};
use crate::peer::Incarnation;

/// A correction is said within this time.
const SAID_WITHIN: Duration = Duration::from_millis(50);

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
        let silent = !self.presence.as_ref().is_some_and(Presence::speaks);
        let unheard = heard.newborn || !entry.standing.is_alive();
        if lower && unheard && !silent {
            let name = entry.peer.shared_name();
            self.corrections
                .plan(now, &name, SAID_WITHIN, &mut self.jitter);
        }
    }

    /// The correction that is due, if one is. Whose incarnation is not known any more is passed over.
    pub(super) fn due_correction(&mut self, now: Instant) -> Option<Message<'static>> {
        while let Some(name) = self.corrections.pop(now) {
            let entry = self.entries.get(&name);
            if let Some(incarnation) = entry.and_then(|entry| entry.peer.incarnation()) {
                return Some(Message {
                    name: name.to_string().into(),
                    body: Body::Newer { incarnation },
                });
            }
        }
        None
    }

    /// Whether no later start of this name than that is known.
    pub(super) fn knows_none_later(&self, name: &str, incarnation: Incarnation) -> bool {
        let known = self
            .entries
            .get(name)
            .and_then(|entry| entry.peer.incarnation());
        known <= Some(incarnation)
    }
}
