//! What a sign of life, a goodbye and a silence mean for the peer that it is about.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Instant;

use super::entry::{Entry, Heartbeat, Session, Standing};
use super::{Change, Kind, Outcome, Roster};
use crate::core::wire::Announce;
use crate::event::Reason;
use crate::peer::{Incarnation, Peer, Tags};

impl Roster {
    /// The one place that decides what a sign of life means (rules 1, 7 and 9).
    pub(super) fn handle_heartbeat(
        &mut self,
        now: Instant,
        name: &str,
        heartbeat: &Heartbeat<'_>,
    ) -> Outcome {
        let full = self.present >= self.limits.max_peers;
        let Some(entry) = self.entries.get_mut(name) else {
            if full {
                return self.refuse();
            }
            self.join(now, Arc::from(name), heartbeat);
            return Outcome::News;
        };
        let order = entry.compare_incarnation(heartbeat.incarnation);
        match (order, entry.standing) {
            (Ordering::Less, _) => return Outcome::Stale,
            (Ordering::Equal, Standing::Left(Reason::Goodbye | Reason::Replaced)) => {
                return Outcome::Stale;
            }
            // A bare name has no sequence: each is as good as the last.
            (Ordering::Equal, _) if heartbeat.incarnation.is_some() && entry.is_old(heartbeat) => {
                return Outcome::Stale;
            }
            (Ordering::Equal | Ordering::Greater, Standing::Left(_)) if full => {
                return self.refuse();
            }
            (Ordering::Greater, Standing::Left(_)) => self.join(now, Arc::from(name), heartbeat),
            (Ordering::Greater, Standing::Alive | Standing::Unreachable) => {
                self.depart(now, name, Reason::Replaced);
                self.join(now, Arc::from(name), heartbeat);
            }
            (Ordering::Equal, before) => {
                let updated = !heartbeat.tags.same_as(entry.peer.all_tags());
                if updated {
                    entry.peer = entry.peer.with_tags(heartbeat.tags.to_tags());
                }
                entry.standing = Standing::Alive;
                let kind = match before {
                    Standing::Left(_) => Some(Kind::Returned),
                    Standing::Unreachable => Some(Kind::Recovered),
                    Standing::Alive => updated.then_some(Kind::Updated),
                };
                if let Some(kind) = kind {
                    let peer = entry.peer.clone();
                    self.changes.push_back(Change { peer, kind });
                }
                entry.refresh(now, heartbeat, self.limits.missed);
                self.expiry.expect(entry.until);
                self.clear_suspicion(name);
                self.set_backend(name, heartbeat.pid);
                if before.is_alive() && updated {
                    self.count_out(now, name);
                }
                if !before.is_alive() || updated {
                    self.count_in(now, name);
                }
            }
        }
        Outcome::News
    }

    /// A peer said goodbye (rule 7).
    pub(super) fn handle_bye(
        &mut self,
        now: Instant,
        name: &str,
        incarnation: Incarnation,
        seq: u64,
    ) -> Outcome {
        let Some(entry) = self.entries.get_mut(name) else {
            return Outcome::Stale;
        };
        match entry.compare_incarnation(Some(incarnation)) {
            Ordering::Less => Outcome::Stale,
            Ordering::Equal if seq <= entry.seq => Outcome::Stale,
            Ordering::Equal => {
                entry.seq = seq;
                match &mut entry.standing {
                    // It had been given up already, and now it says so itself.
                    Standing::Left(reason) => *reason = Reason::Goodbye,
                    Standing::Alive | Standing::Unreachable => {
                        self.depart(now, name, Reason::Goodbye)
                    }
                }
                Outcome::News
            }
            // A newer start of it came and went unheard.
            Ordering::Greater => {
                let old = entry.peer.clone();
                let was_here = entry.standing.is_alive();
                if was_here {
                    self.count_out(now, name);
                }
                let Some(entry) = self.entries.get_mut(name) else {
                    return Outcome::Stale;
                };
                entry.peer = Peer::new(old.shared_name(), Some(incarnation), Tags::default());
                entry.seq = seq;
                self.mark_departed(now, name, Reason::Goodbye);
                if was_here {
                    self.changed(old, Kind::Left(Reason::Replaced));
                }
                Outcome::News
            }
        }
    }

    /// Another member found that a peer has left without a goodbye.
    pub(super) fn handle_gone(
        &mut self,
        now: Instant,
        name: &str,
        incarnation: Incarnation,
        seq: u64,
        why: Reason,
    ) -> Outcome {
        // A peer that stood still with it may not have heard it either.
        if why == Reason::Expired && self.paused.is_some() {
            return Outcome::Stale;
        }
        match self.entries.get(name) {
            Some(entry)
                if entry.standing.is_alive()
                    && entry.peer.incarnation() == Some(incarnation)
                    && entry.seq <= seq =>
            {
                self.depart(now, name, why);
                Outcome::News
            }
            _ => Outcome::Stale,
        }
    }

    /// There is no room for a newcomer (rule 9).
    fn refuse(&mut self) -> Outcome {
        self.incomplete = true;
        Outcome::Refused
    }

    /// Puts a peer that was not there into the roster.
    fn join(&mut self, now: Instant, name: Arc<str>, heartbeat: &Heartbeat<'_>) {
        let peer = Peer::new(
            Arc::clone(&name),
            heartbeat.incarnation,
            heartbeat.tags.to_tags(),
        );
        self.corrections.cancel(&name);
        self.changed(peer.clone(), Kind::Joined);
        self.clear_suspicion(&name);
        let mut entry = Entry {
            peer,
            standing: Standing::Alive,
            seq: heartbeat.seq,
            due: 0,
            back: 0,
            session: Session::Unknown,
            checks: false,
            beat: 0,
            confirmed: true,
            last_gap: 0,
            said_by: None,
            fingerprint: 0,
            since: now,
            until: now,
        };
        entry.refresh(now, heartbeat, self.limits.missed);
        self.expiry.expect(entry.until);
        self.entries.insert(Arc::clone(&name), entry);
        self.set_backend(&name, heartbeat.pid);
        self.count_in(now, &name);
    }

    /// Takes a peer that was there out of the roster, and remembers it as departed.
    pub(super) fn depart(&mut self, now: Instant, name: &str, reason: Reason) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let peer = entry.peer.clone();
        self.count_out(now, name);
        self.changed(peer, Kind::Left(reason));
        self.mark_departed(now, name, reason);
    }

    /// Counts a peer among those that are there.
    pub(super) fn count_in(&mut self, now: Instant, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            self.present += 1;
            if let Some(fingerprint) = entry.own_fingerprint() {
                entry.fingerprint = fingerprint;
                self.peers_digest = self.peers_digest.with(fingerprint);
            }
        }
        self.note_digest(now);
    }

    /// Does not count a peer any more that was counted.
    pub(super) fn count_out(&mut self, now: Instant, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            self.present -= 1;
            if entry.peer.incarnation().is_some() {
                self.peers_digest = self.peers_digest.without(entry.fingerprint);
            }
        }
        self.note_digest(now);
    }

    /// Remembers a name as departed.
    fn mark_departed(&mut self, now: Instant, name: &str, reason: Reason) {
        self.set_backend(name, None);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.standing = Standing::Left(reason);
            entry.until = now;
            // Only its name and incarnation matter now; its tags may be as long as a payload.
            entry.peer = entry.peer.with_tags(Tags::default());
            self.tombstones.push(now, entry.peer.shared_name());
        }
        self.clear_suspicion(name);
        self.session_check.forget(name);
        self.forget_long_gone(now);
    }

    /// This peer was heard, or has left.
    pub(super) fn clear_suspicion(&mut self, name: &str) {
        self.session_check.clear(name);
        self.stillness.clear(name);
    }

    /// An answer names this peer, so it has a link, whether its announcement was news or not.
    pub(super) fn confirm(&mut self, now: Instant, name: &str, announce: &Announce<'_>) {
        let entry = self.entries.get_mut(name).filter(|entry| {
            entry.standing.is_alive() && entry.peer.incarnation() == Some(announce.incarnation)
        });
        let Some(entry) = entry else { return };
        if !std::mem::replace(&mut entry.confirmed, true) {
            let age = announce.age.unwrap_or_default();
            let left = entry.grace(self.limits.missed).saturating_sub(age);
            entry.until = entry.until.max(now + left);
            // On a loud channel that may be sooner than the next look was planned for.
            self.expiry.expect(entry.until);
        }
        if entry.seq == announce.seq && entry.session == Session::Unknown {
            self.set_backend(name, announce.pid);
        }
    }

    /// A NOTIFY of this participant that announced nothing has got through.
    pub(crate) fn handle_notify(&mut self, now: Instant) {
        self.lull.handle_notify(now);
    }

    /// Looks at all peers. Those that were overdue, or gone, when the link was last proven to work have left. Returns whether
    /// others are by now.
    pub(super) fn expire(&mut self, now: Instant, proven: Instant) -> bool {
        self.expiry.restart();
        let mut overdue = Vec::new();
        let mut unproven = false;
        for entry in self.entries.values() {
            if !entry.standing.is_alive() {
                continue;
            }
            let name = entry.peer.name();
            let by_silence = entry.overdue_at(self.loud_until, &self.lull, self.limits.missed);
            let by_stillness = self.stillness.overdue(name);
            let by_session = self.session_check.gone_since(name);
            let found = by_stillness.into_iter().chain(by_session).min();
            let overdue_at = found.map_or(by_silence, |at| at.min(by_silence));
            let is_proven = |at: Option<Instant>| at.is_some_and(|at| at <= now.min(proven));
            if is_proven(Some(overdue_at)) {
                let name = entry.peer.shared_name();
                if is_proven(found) {
                    // Not everybody looks.
                    self.gone_to_tell.push_back((now, Arc::clone(&name)));
                }
                let why = match is_proven(by_session) {
                    true => Reason::SessionGone,
                    false => Reason::Expired,
                };
                overdue.push((overdue_at, name, why));
            } else {
                unproven |= overdue_at <= now;
                self.expiry.expect(overdue_at);
            }
        }
        if !unproven {
            self.expiry.rest(now, self.entries.len());
        }
        overdue.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (_, name, why) in overdue {
            self.depart(now, &name, why);
        }
        unproven
    }

    /// Forgets the departed that were remembered for long enough, or are too many.
    pub(super) fn forget_long_gone(&mut self, now: Instant) {
        while let Some((left, name)) = self.tombstones.pop(now, self.limits.max_departed) {
            let entry = self.entries.get(&name);
            if entry.is_some_and(|entry| !entry.standing.is_alive() && entry.until == left) {
                self.entries.remove(&name);
            }
        }
    }

    pub(super) fn changed(&mut self, peer: Peer, kind: Kind) {
        self.changes.push_back(Change { peer, kind });
    }
}
