//! The peers whose session Postgres does not have any more. [`session_check`](crate::core::session_check) says when to ask.

use std::collections::HashSet;
use std::time::Instant;

use super::Roster;
use crate::core::presence::Presence;
use crate::core::session_check::{Rank, SessionCheck};
use crate::core::wire::{Body, Message, Pid};
use crate::event::Reason;
use crate::peer::Incarnation;

impl Roster {
    /// The backends that Postgres is to be asked about now, if it is to be asked.
    pub(crate) fn poll_session_check(&mut self, now: Instant) -> Option<Vec<Pid>> {
        self.session_check.deadline().filter(|&at| at <= now)?;
        // Only now, since it takes a look at every peer.
        let rank = self.rank();
        self.session_check.restart(now, rank, &mut self.jitter);
        let pids: Vec<Pid> = self.alive().filter_map(|entry| entry.pid).collect();
        (!pids.is_empty()).then_some(pids)
    }

    /// Postgres was asked which backends it has, at the time `asked`, and did not have those in `missing`. To be called when
    /// everything that had arrived by then was heard.
    pub(crate) fn handle_session_check(
        &mut self,
        now: Instant,
        asked: Instant,
        missing: &HashSet<Pid>,
    ) {
        for name in self.session_check.suspects() {
            let pid = self.entries.get(&name).and_then(|entry| entry.pid);
            if !pid.is_some_and(|pid| missing.contains(&pid)) {
                self.session_check.clear(&name);
            }
        }
        if missing.is_empty() {
            return;
        }
        let others_look = SessionCheck::others_look(self.older(), missing);
        let missing = self
            .alive()
            .filter(|entry| entry.pid.is_some_and(|pid| missing.contains(&pid)));
        let missing: Vec<_> = missing
            .map(|entry| (entry.peer.shared_name(), entry.back()))
            .collect();
        for (name, back) in missing {
            if self.session_check.handle_missing(asked, &name, back) {
                self.depart(now, &name, Reason::SessionGone);
                self.gone_to_tell.push_back((now, name));
            }
        }
        if !others_look {
            self.session_check.confirm();
        }
    }

    /// Begins to ask Postgres for sessions, or to ask more often, if that falls to this member.
    pub(super) fn schedule_session_check(&mut self, now: Instant) {
        let speaks = self.presence.as_ref().is_some_and(Presence::speaks);
        if self.limits.session_check && speaks && self.sync.has_asked_all() {
            let rank = self.rank();
            self.session_check.schedule(now, rank, &mut self.jitter);
        }
    }

    /// The next peer of which all are to be told that its session is gone.
    pub(super) fn due_gone(&mut self) -> Option<Message<'static>> {
        let (_, name) = self.gone_to_tell.pop_front()?;
        let entry = self.entries.get(&name)?;
        let incarnation = entry.peer.incarnation()?;
        let body = Body::Gone {
            incarnation,
            seq: entry.seq,
        };
        let name = name.to_string().into();
        (!entry.standing.is_alive()).then_some(Message { name, body })
    }

    /// The peers that check sessions before this participant does: those that are older, and have a session.
    fn older(&self) -> impl Iterator<Item = (Incarnation, Pid)> {
        let own = self.incarnation();
        let checkers = self
            .alive()
            .filter_map(|entry| Some((entry.peer.incarnation()?, entry.pid?)));
        checkers.filter(move |(theirs, _)| Some(*theirs) < own)
    }

    /// How many are older, as far as that matters, and how many members there are.
    fn rank(&self) -> Rank {
        Rank {
            older: self.older().take(SessionCheck::OLDER).count(),
            members: self.present + 1,
        }
    }
}
