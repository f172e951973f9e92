//! A member that was away learns who left meanwhile (rule 6): from the answer to its question, and where all were away at once,
//! so that nobody can answer, from those who heard it before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::{Entry, Standing};
use super::{Outcome, Roster};
use crate::core::presence::Presence;
use crate::core::wire::{Body, MOST_AWAY, Message};
use crate::event::Reason;
use crate::peer::Incarnation;

/// Departures are asked for from this much before the last that was heard: what was said then may still have been on its way.
pub(super) const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// Where all were away each tells what it knows within this time.
pub(super) const TOLD_WITHIN: Duration = Duration::from_millis(200);

/// At most this many departures are told to all at a time: more would cost the server more than they are worth.
const MOST_TOLD: usize = 100;

impl Roster {
    /// For how long this participant did not hear who leaves, if it ever did, or may not have.
    pub(super) fn away(&self, now: Instant) -> Option<Duration> {
        let since = self.sync.away_since();
        let missed = match since.map(|since| now.saturating_duration_since(since)) {
            None if self.review.is_some() => self.doubt.lasts(now),
            missed => missed,
        }?;
        Some((missed + ON_ITS_WAY + self.round_trip.twice()).min(MOST_AWAY))
    }

    /// Those that left within that time, as it is told to others.
    pub(super) fn departed_within(
        &self,
        now: Instant,
        time: Duration,
    ) -> impl Iterator<Item = (&Entry, Body<'static>)> {
        let since = now.checked_sub(time);
        self.entries.values().filter_map(move |entry| {
            let recent = since.is_none_or(|since| entry.until >= since);
            let departure = entry.departure().filter(|_| recent)?;
            Some((entry, departure))
        })
    }

    /// Somebody who was away for so long asks all, since nobody has answered. What this member heard before, others may have
    /// missed.
    pub(super) fn plan_departures(&mut self, now: Instant, away: Duration) {
        self.plan_to_tell(now, self.names_departed_within(now, away));
    }

    /// This member was away, and the answer to its question is whole. If the answer does not name a departure that is known here, the
    /// member that answered was away as well and missed it, and so may others.
    pub(super) fn plan_unnamed_departures(&mut self, now: Instant) {
        let Some(away) = self.away(now).filter(|_| self.review.is_none()) else {
            return;
        };
        let mut names = self.names_departed_within(now, away);
        let start = |name: &str| self.entries.get(name)?.peer.incarnation();
        names.retain(|name| !start(name).is_some_and(|start| self.sync.has_named(name, start)));
        self.plan_to_tell(now, names);
    }

    fn names_departed_within(&self, now: Instant, time: Duration) -> Vec<Arc<str>> {
        let departed = self.departed_within(now, time);
        departed
            .map(|(entry, _)| entry.peer.shared_name())
            .collect()
    }

    /// Tells these departures to all, unless others do.
    fn plan_to_tell(&mut self, now: Instant, mut names: Vec<Arc<str>>) {
        if !self.presence.as_ref().is_some_and(Presence::speaks) {
            return;
        }
        let room = MOST_TOLD.saturating_sub(self.departures.len());
        names.retain(|name| !self.departures.has(name));
        // All choose the same, so that one spares the others.
        names.sort_unstable();
        for name in names.into_iter().take(room) {
            self.departures
                .plan(now, &name, TOLD_WITHIN, &mut self.jitter);
        }
    }

    /// The departure that is to be told to all now. A peer that was heard since it was planned is passed over.
    pub(super) fn due_departure(&mut self, now: Instant) -> Option<Message<'static>> {
        while let Some(name) = self.departures.pop(now) {
            let told = self.departure_of(&name);
            if told.is_some() {
                return told;
            }
        }
        None
    }

    /// That this peer has left, as all are told; `None` if it has not, or nothing can be told of it.
    pub(super) fn departure_of(&self, name: &str) -> Option<Message<'static>> {
        let body = self.entries.get(name)?.departure()?;
        let name = name.to_owned().into();
        Some(Message { name, body })
    }

    /// Another member says that a peer has left, for this reason.
    pub(super) fn handle_departure(
        &mut self,
        now: Instant,
        name: &str,
        (incarnation, seq): (Incarnation, u64),
        why: Reason,
    ) -> Outcome {
        match why {
            Reason::Goodbye => self.handle_bye(now, name, incarnation, seq),
            Reason::Expired | Reason::SessionGone | Reason::Replaced => {
                self.handle_gone(now, name, incarnation, seq, why)
            }
        }
    }
}

impl Entry {
    /// What tells others that it has left. A bare name has no start that could be named.
    pub(super) fn departure(&self) -> Option<Body<'static>> {
        let Standing::Left(why) = self.standing else {
            return None;
        };
        Some(Body::Gone {
            incarnation: self.peer.incarnation()?,
            seq: self.seq,
            why,
        })
    }
}
