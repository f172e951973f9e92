//! Bare names say nothing of themselves, so how often they come is learned, and from which session (rule 8).

use std::time::{Duration, Instant};

use super::Roster;
use super::entry::{Entry, Standing};
use crate::core::wire::{MAX_DUE, Pid};
use crate::event::Reason;

/// A gap that is that much longer than the one before may still be the interval.
const STEADY: f64 = 1.5;

/// A gap of this part of the time after which it expires is too close to that.
const CLOSE: f64 = 0.9;

impl Roster {
    /// Within which time the next is expected of a bare name that is heard now: the longest of the last gaps, but at least what is
    /// assumed of a stranger. Notes the gap.
    pub(super) fn learn_interval(&mut self, now: Instant, name: &str) -> Duration {
        let (assumed, missed) = (self.limits.bare_heartbeat, self.limits.missed);
        match self.entries.get_mut(name) {
            Some(entry) if entry.peer.incarnation().is_none() => {
                entry.learn_interval(now, assumed, missed)
            }
            _ => assumed,
        }
    }

    /// The session of a bare name that was heard from this backend: that one, if the one before came from there, too. A pooler,
    /// or a connection that was renewed, serves it by another.
    pub(super) fn session_of_bare(&self, name: &str, sender: Pid) -> Option<Pid> {
        let before = self.entries.get(name).and_then(|entry| entry.said_by);
        before.filter(|&before| before == sender)
    }

    pub(super) fn note_session_of_bare(&mut self, name: &str, sender: Pid) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.said_by = Some(sender).filter(|_| entry.peer.incarnation().is_none());
        }
    }
}

impl Entry {
    fn learn_interval(&mut self, now: Instant, assumed: Duration, missed: u32) -> Duration {
        let known = Duration::from_millis(self.due.into());
        // What was not heard while the link was down says nothing, and neither does how long one was away whose session was gone.
        let was_gone = self.standing == Standing::Left(Reason::SessionGone);
        if !std::mem::replace(&mut self.confirmed, true) || was_gone {
            self.last_gap = 0;
            return known;
        }
        let gap = now.saturating_duration_since(self.last_received(missed));
        let before = Duration::from_millis(self.last_gap.into());
        self.last_gap = u32::try_from(gap.as_millis()).unwrap_or(u32::MAX);
        // One that is much longer than usual is an outage of that node, unless the next is as long.
        let is_usual = gap <= before.mul_f64(STEADY) || gap <= assumed * missed * 2;
        let learned = match is_usual {
            true if gap >= self.grace(missed).mul_f64(CLOSE) => gap,
            true => gap / 2,
            false => Duration::ZERO,
        };
        // One interval that was long is forgotten after some that are short.
        learned.max(known - known / 8).min(MAX_DUE).max(assumed)
    }
}
