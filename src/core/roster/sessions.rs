//! The peers whose session Postgres does not have any more. [`session_check`](crate::core::session_check) says when to ask.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::{Entry, Session, Standing};
use super::{Kind, Roster};
use crate::core::presence::Presence;
use crate::core::session_check::{AT_EACH_END, Role, Scope, SessionCheck};
use crate::core::stillness::{Look, Verdict};
use crate::core::wire::{Message, Pid};

impl Roster {
    /// The backends that Postgres is to be asked about now, if it is to be asked.
    pub(crate) fn poll_session_check(&mut self, now: Instant) -> Option<Vec<Pid>> {
        self.session_check.deadline().filter(|&at| at <= now)?;
        let role = self.role(now);
        let scope = self.session_check.poll(now, role, &mut self.jitter)?;
        let asked: Vec<_> = match scope {
            Scope::All => self.alive().map(|entry| entry.session).collect(),
            Scope::Only(names) => {
                let entries = names.iter().filter_map(|name| self.entries.get(name));
                entries.map(|entry| entry.session).collect()
            }
        };
        // The answer for those whose session is over is known, but not yet when.
        let asks = asked.iter().any(|session| *session != Session::Unknown);
        asks.then(|| asked.into_iter().filter_map(Session::pid).collect())
    }

    /// Postgres was asked which backends it has, at this look. It did not have those in `missing`; the others have been idle
    /// for the time in `idle`, zero with a statement under way, or it does not tell this role. `seen`: it tells all of them what
    /// this session does. To be called when everything that had arrived by then was heard.
    pub(crate) fn handle_session_check(
        &mut self,
        now: Instant,
        look: Look,
        missing: &HashSet<Pid>,
        idle: &HashMap<Pid, Option<Duration>>,
        seen: bool,
    ) {
        if !self.session_check.is_begun() {
            // The question was asked before this member stopped to ask.
            return;
        }
        let is_missing = |entry: &Entry| match entry.session {
            Session::Unknown => false,
            Session::At(pid) => missing.contains(&pid),
            Session::Over => true,
        };
        for name in self.session_check.suspects() {
            if !self.entries.get(&name).is_some_and(is_missing) {
                self.session_check.clear(&name);
            }
        }
        let missing: Vec<_> = self
            .alive()
            .filter(|entry| is_missing(entry))
            .map(|entry| (entry.peer.shared_name(), entry.back()))
            .collect();
        let excess = self.round_trip.excess();
        for (name, back) in missing {
            let check = &mut self.session_check;
            if check.handle_missing(look.asked, &name, back, excess) {
                // It leaves once NOTIFY is known to have worked since (rule 4).
                self.expiry.expect(look.asked);
            }
        }
        let role = self.role(now);
        self.session_check.confirm(role, &mut self.jitter);
        for (pid, idle) in idle {
            if let Some(name) = self.backends.get(pid).map(Arc::clone) {
                self.handle_idle(look, &name, *idle);
            }
        }
        if self.session_check.take_whole() {
            let was_judged = self.is_judged_by_session();
            let looks = |entry: &Entry| entry.checks && entry.session.pid().is_some();
            self.is_seen = seen && self.alive().any(looks);
            if was_judged && !self.is_judged_by_session() {
                self.announce_soon(now);
            }
        }
    }

    /// The session of this peer had been idle for so long at this look, as far as that is told (rule 12).
    fn handle_idle(&mut self, look: Look, name: &Arc<str>, idle: Option<Duration>) {
        let asked = look.asked;
        let missed = self.limits.missed;
        let (Some(entry), Some(idle)) = (self.entries.get_mut(name), idle) else {
            self.stillness.clear(name);
            return;
        };
        // It has said something since the host program could not reach it.
        let since = self.session_check.unreachable_since(name);
        let heals = since.is_some_and(|since| asked.saturating_duration_since(since) > idle);
        if heals && entry.standing == Standing::Unreachable {
            entry.standing = Standing::Alive;
            let peer = entry.peer.clone();
            self.clear_suspicion(name);
            self.changed(peer, Kind::Recovered);
            return;
        }
        let Some(beat) = entry.beat() else {
            self.stillness.clear(name);
            return;
        };
        let limit = beat * missed;
        // Where much is said some cannot keep up, and speak over another session (rule 5).
        let is_loud = self.loud_until.is_some_and(|until| until + limit > asked);
        let limit = if is_loud { limit * 3 } else { limit };
        // One that was heard in that time says nothing on its session, and is there.
        let silent = asked.saturating_duration_since(entry.last_received(missed));
        let is_late = idle.min(silent) > limit;
        let stillness = &mut self.stillness;
        match stillness.handle_idle(look, name, idle, beat, is_late) {
            Verdict::Speaks => {}
            Verdict::LookAgain(at) => self.session_check.look_again(name, at),
            Verdict::Silent => self.expiry.expect(asked),
        }
    }

    /// This role may not ask Postgres for sessions, so others must.
    pub(crate) fn handle_no_right_to_check(&mut self, now: Instant) {
        self.session_check.stop();
        self.stillness.stop();
        // It is not told any more what others see of its session.
        self.is_seen = false;
        self.set_may_check(false);
        self.announce_soon(now);
    }

    /// Whether the host program may report at any moment that it cannot reach a peer.
    pub(crate) fn has_unreachable(&self) -> bool {
        self.session_check.has_unreachable()
    }

    /// Whether this role may ask Postgres for sessions, as far as is known.
    pub(super) fn set_may_check(&mut self, may: bool) {
        self.may_check = may && self.limits.session_check;
        if let Some(presence) = &mut self.presence {
            presence.set_checks(self.may_check);
        }
    }

    /// Begins to ask Postgres for sessions, if this member may and has asked all who is there.
    pub(super) fn begin_session_check(&mut self, now: Instant) {
        let speaks = self.presence.as_ref().is_some_and(Presence::speaks);
        let may = self.may_check && speaks && self.sync.has_asked_all();
        if !may || !self.session_check.begin(now) {
            return;
        }
        // What the host cannot reach may have been reported before, or on an earlier link.
        for entry in self.entries.values() {
            if entry.standing == Standing::Unreachable {
                let name = entry.peer.shared_name();
                self.session_check
                    .handle_unreachable(now, &name, entry.beat(), &mut self.jitter);
            }
        }
    }

    /// The next peer of which all are to be told that its session is gone. Of a bare name nothing could be told, and one that was
    /// heard meanwhile is there: both are passed over.
    pub(super) fn due_gone(&mut self) -> Option<Message<'static>> {
        while let Some((_, name)) = self.gone_to_tell.pop_front() {
            let told = self.departure_of(&name);
            if told.is_some() {
                return told;
            }
        }
        None
    }

    /// This backend serves that peer. If it served another, that one's session is over (rule 10).
    pub(super) fn set_backend(&mut self, name: &str, pid: Option<Pid>) {
        let missed = self.limits.missed;
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let session = pid.map_or(Session::Unknown, Session::At);
        if entry.session == session {
            return;
        }
        if entry.peer.incarnation().is_none() {
            // A pooler's session serves several nodes.
            entry.session = session;
            return;
        }
        if let Session::At(before) = std::mem::replace(&mut entry.session, session) {
            // That of a bare name is nobody's, and may serve another by now.
            if self.backends.get(&before).is_some_and(|of| **of == *name) {
                self.backends.remove(&before);
            }
        }
        let Some(pid) = pid else {
            return;
        };
        let (shared, heard) = (entry.peer.shared_name(), entry.last_received(missed));
        let Some(other) = self.backends.insert(pid, Arc::clone(&shared)) else {
            return;
        };
        // An answer may tell of one that was heard before the other.
        let Some(rival) = self.entries.get_mut(&other) else {
            return;
        };
        let loser = if rival.last_received(missed) > heard {
            self.backends.insert(pid, other);
            self.entries.get_mut(&shared)
        } else {
            Some(rival)
        };
        if let Some(loser) = loser {
            loser.session = Session::Over;
        }
    }

    /// Where this member stands among those that check sessions. It takes a look at a few peers, at all of them only for who is
    /// among the oldest or the youngest.
    fn role(&self, now: Instant) -> Role {
        let own = self.incarnation();
        let (mut older, mut younger) = (0, 0);
        for entry in self.alive() {
            if !entry.checks || entry.session.pid().is_none() {
                continue;
            }
            if entry.peer.incarnation() < own {
                older += 1;
            } else if SessionCheck::is_established(entry.since, now) {
                younger += 1;
            }
            if older.min(younger) == AT_EACH_END {
                break;
            }
        }
        self.session_check
            .role(now, older, younger, self.present + 1)
    }
}
