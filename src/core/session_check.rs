//! Asking Postgres which sessions it no longer has: a process that was killed is known within seconds, however long the
//! interval between heartbeats. Pure: time is a parameter.
//!
//! A few members ask for all, without an election: the two oldest and the two youngest every two seconds, and one of the others
//! about every four. What dies together started together, so the oldest may all be among the dead, and then the youngest are
//! not. That is less than three checks a second in the whole cluster.
//!
//! A peer that is missing twice, with nothing heard in between, is gone, if between the two lies the time within which it
//! announced that it would be back, and more where the server is slow at present. One that merely reconnects was heard by then,
//! unless NOTIFY was held up, so that must be known to work (rule 4).
//! A member that misses a peer asks the second time itself, but the younger the later, so that the first to know spares the
//! others the question.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::jitter::Jitter;

/// How often the oldest and the youngest ask. With the time in which a peer announces that it would be back, it bounds how late a
/// death is known.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

/// How often one of all others asks, on average.
const OTHERS: Duration = Duration::from_secs(4);

/// How many of the oldest members ask, and how many of the youngest: two, since one may be among the dead.
pub(crate) const AT_EACH_END: usize = 2;

/// A member is not among the youngest that ask before it has been there for this long: where many start, each of them is the
/// youngest for a moment.
const ESTABLISHED: Duration = Duration::from_secs(4);

/// To be back takes about this many answers of the server, TLS included. Where each takes longer than when that was announced, the
/// peer does, too.
pub(crate) const ANSWERS_TO_BE_BACK: u32 = 15;

/// The most that is added for this. A server, or a link to it, that stood still for seconds says nothing of how long the next
/// login takes.
pub(crate) const MOST_FOR_SLOWNESS: Duration = Duration::from_secs(5);

/// An answer may have held up a peer that connects if it took this part of the time within which the peer would be back.
const MATTERS: u32 = 4;

/// The members that ask, the older the sooner, confirm within this time of each other that a peer is gone.
const CONFIRMED_APART: Duration = Duration::from_millis(100);

/// A peer that the host program cannot reach is asked for within this time: many may report it.
const REPORTED_WITHIN: Duration = Duration::from_millis(250);

/// They are asked for again after this many of the intervals in which each promised a statement: by then it has made one.
const AGAIN: f64 = 1.25;

/// The least time between two questions for peers that the host program cannot reach.
const REPORTED_APART: Duration = Duration::from_secs(1);

/// When to ask, and which peers were missing.
#[derive(Debug, Default)]
pub(crate) struct SessionCheck {
    /// Since when this member asks, if it may.
    since: Option<Instant>,
    /// When it is next to see whether it asks for all.
    next: Option<Instant>,
    /// The peers that were missing, by name.
    suspects: HashMap<Arc<str>, Suspect>,
    /// When all were last given their whole time.
    granted: Option<Instant>,
    /// When to ask for the suspects again.
    confirm: Option<Instant>,
    /// The peers that seem to hang, and when a look tells.
    watched: HashMap<Arc<str>, Instant>,
    /// The first question for all of this link is still to be asked: it tells whether the sessions of peers are seen.
    first: bool,
    /// The question that is out is for all.
    whole: bool,
    /// The peers that the host program could not reach.
    reported: HashMap<Arc<str>, Reported>,
    /// No question for such peers before then.
    reported_rest: Option<Instant>,
    /// Peers that were asked for, and until when a new report of one waits: a mesh that is cut in half reports each peer whenever it
    /// heals.
    asked_lately: HashMap<Arc<str>, Instant>,
}

/// A peer that the host program could not reach.
#[derive(Clone, Copy, Debug)]
struct Reported {
    since: Instant,
    /// When to ask for it.
    due: Instant,
    /// How long after the report, and after each question, to ask for it again until it is heard; `None`: not again.
    again: Option<Duration>,
}

/// A peer that was missing.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    since: Instant,
    /// By then it is back or gone.
    until: Instant,
    /// It was missing at a look at that time, or after it.
    gone: bool,
}

/// Where a member stands among those that check sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of the oldest or the youngest, the oldest first.
    Checker { place: u32 },
    /// One of this many others.
    Other { others: usize },
}

/// Whose sessions are to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// Those of these peers.
    Only(HashSet<Arc<str>>),
}

impl SessionCheck {
    /// When to [`poll`](Self::poll) next; `None` if this member does not ask.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let watched = self.watched.values().min().copied();
        let due = [self.next, self.confirm, self.reported_deadline(), watched];
        due.into_iter().flatten().min()
    }

    fn reported_deadline(&self) -> Option<Instant> {
        let due = self.reported.values().map(|reported| reported.due).min()?;
        Some(due).max(self.reported_rest)
    }

    /// This member asks from now on. Returns `false` if it does already.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        if self.since.is_some() {
            return false;
        }
        self.since = Some(now);
        self.next = Some(now + INTERVAL);
        self.first = true;
        true
    }

    /// Whether this member asks.
    pub(crate) fn is_begun(&self) -> bool {
        self.since.is_some()
    }

    /// This member does not ask any more, and nothing that was found holds.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Whether a peer that is known since then has been there for long enough to be among the youngest that ask.
    pub(crate) fn is_established(since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= ESTABLISHED
    }

    /// The role of this member, if of those that ask this many are older and this many younger, as far as that matters.
    pub(crate) fn role(&self, now: Instant, older: usize, younger: usize, members: usize) -> Role {
        let established = self
            .since
            .is_some_and(|since| Self::is_established(since, now));
        let place = if older < AT_EACH_END {
            Some(older)
        } else if established && younger < AT_EACH_END {
            Some(2 * AT_EACH_END - 1 - younger)
        } else {
            None
        };
        match place {
            Some(place) => Role::Checker {
                place: place as u32,
            },
            None => Role::Other {
                others: members.saturating_sub(2 * AT_EACH_END).max(1),
            },
        }
    }

    /// Whose sessions to ask for now, if any are to be asked for.
    pub(crate) fn poll(&mut self, now: Instant, role: Role, jitter: &mut Jitter) -> Option<Scope> {
        self.asked_lately.retain(|_, until| *until > now);
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let all = is_due(self.next) && {
            self.next = Some(now + INTERVAL);
            std::mem::take(&mut self.first) || role.asks_for_all(jitter)
        };
        self.whole = all;
        let confirms = is_due(self.confirm);
        if all || confirms {
            // Planned anew by what comes of it.
            self.confirm = None;
        }
        let mut only = HashSet::new();
        // A question for all is not asked for their sake, and may come just before they prove themselves.
        if is_due(self.reported_deadline()) {
            only.extend(self.reported.keys().cloned());
            self.handle_asked_for_reported(now);
        }
        self.watched.retain(|name, at| {
            let due = all || *at <= now;
            only.extend(due.then(|| Arc::clone(name)));
            !due
        });
        if all {
            return Some(Scope::All);
        }
        if !confirms && only.is_empty() {
            return None;
        }
        // What is not asked for would count as there.
        only.extend(self.suspects.keys().cloned());
        (!only.is_empty()).then_some(Scope::Only(only))
    }

    /// All that the host program could not reach are asked for now.
    fn handle_asked_for_reported(&mut self, now: Instant) {
        self.reported_rest = Some(now + REPORTED_APART);
        self.reported.retain(|name, reported| {
            let Some(again) = reported.again else {
                return false;
            };
            self.asked_lately.insert(Arc::clone(name), now + again);
            let first = reported.since + again;
            if first > now {
                reported.due = first;
            } else if reported.due <= now {
                reported.due = now + again;
            }
            true
        });
    }

    /// Whether the question that is answered now was for all.
    pub(crate) fn take_whole(&mut self) -> bool {
        std::mem::take(&mut self.whole)
    }

    /// Since when the host program cannot reach this peer, if it is asked for until it is heard.
    pub(crate) fn unreachable_since(&self, name: &str) -> Option<Instant> {
        self.reported.get(name).map(|reported| reported.since)
    }

    /// The host program cannot reach this peer. It is asked for soon, unless it was asked for lately; and, if it promised a statement
    /// in each `beat`, again when it must have made one since.
    pub(crate) fn handle_unreachable(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        beat: Option<Duration>,
        jitter: &mut Jitter,
    ) {
        if self.since.is_none() || self.reported.contains_key(name) {
            return;
        }
        let again = beat.map(|beat| beat.mul_f64(AGAIN).max(REPORTED_APART));
        let was_asked_for = self
            .asked_lately
            .get(name)
            .is_some_and(|until| *until > now);
        let due = match again {
            Some(again) if was_asked_for => now + again,
            _ => now + jitter.between(0.0, REPORTED_WITHIN),
        };
        let since = now;
        self.reported
            .insert(Arc::clone(name), Reported { since, due, again });
    }

    /// Whether the host program cannot reach some peers, or could not lately, and so may report more at any moment.
    pub(crate) fn has_unreachable(&self) -> bool {
        !self.reported.is_empty() || !self.asked_lately.is_empty()
    }

    /// This peer seems to hang: a look at that time tells.
    pub(crate) fn look_again(&mut self, name: &Arc<str>, at: Instant) {
        self.watched.insert(Arc::clone(name), at);
    }

    /// This peer, which would be back within that time, was missing when Postgres was asked at `asked`, and the server takes so
    /// much longer than usual at present. Returns whether the peer is gone.
    pub(crate) fn handle_missing(
        &mut self,
        asked: Instant,
        name: &Arc<str>,
        back: Duration,
        excess: Duration,
    ) -> bool {
        // What was seen before a pause began a time that has started anew since.
        let since = self.granted.map_or(asked, |granted| asked.max(granted));
        let suspect = self.suspects.entry(Arc::clone(name)).or_insert(Suspect {
            since,
            until: since,
            gone: false,
        });
        let slower = (excess * ANSWERS_TO_BE_BACK).min(MOST_FOR_SLOWNESS);
        let until = suspect.since + back + slower;
        suspect.until = suspect.until.max(until);
        suspect.gone = asked >= suspect.until;
        suspect.gone
    }

    /// Since when this peer is gone, if it is.
    pub(crate) fn gone_since(&self, name: &str) -> Option<Instant> {
        let suspect = self.suspects.get(name)?;
        suspect.gone.then_some(suspect.until)
    }

    /// Every missing peer has its whole time to be back again, from now on.
    pub(crate) fn grant_grace(&mut self, now: Instant) {
        self.granted = Some(now);
        self.restart(now, |_| true);
    }

    /// The server took this long for an answer, unusually long. What held that up may have held up those that connect, and they need
    /// most of their time once it is over.
    pub(crate) fn handle_slow_answer(&mut self, now: Instant, took: Duration) {
        self.restart(now, |time| took >= time / MATTERS);
    }

    fn restart(&mut self, now: Instant, concerns: impl Fn(Duration) -> bool) {
        for suspect in self.suspects.values_mut() {
            let time = suspect.until.saturating_duration_since(suspect.since);
            if concerns(time) {
                *suspect = Suspect {
                    since: now,
                    until: now + time,
                    gone: false,
                };
                self.confirm = Some(
                    self.confirm
                        .map_or(suspect.until, |at| at.min(suspect.until)),
                );
            }
        }
    }

    /// Asks for the suspects again as soon as that can confirm that one is gone.
    pub(crate) fn confirm(&mut self, role: Role, jitter: &mut Jitter) {
        let suspects = self.suspects.values().filter(|suspect| !suspect.gone);
        let first = suspects.map(|suspect| suspect.until).min();
        self.confirm = first.map(|until| until + role.confirms_after(jitter));
    }

    /// This peer was heard, has left, or was there when Postgres was asked.
    pub(crate) fn clear(&mut self, name: &str) {
        self.watched.remove(name);
        self.reported.remove(name);
        if self.suspects.remove(name).is_some() && self.suspects.is_empty() {
            self.confirm = None;
        }
    }

    /// This peer has left.
    pub(crate) fn forget(&mut self, name: &str) {
        self.clear(name);
        self.asked_lately.remove(name);
    }

    /// How many peers something is known of because the host program could not reach them, at most.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn unreachable(&self) -> usize {
        self.reported.len().max(self.asked_lately.len())
    }

    /// The names of the peers that were missing.
    pub(crate) fn suspects(&self) -> Vec<Arc<str>> {
        self.suspects.keys().cloned().collect()
    }
}

impl Role {
    /// Whether a member asks for all this time. One of the others does now and then, at random: not in step, so that one of them
    /// asks soon at any time.
    fn asks_for_all(self, jitter: &mut Jitter) -> bool {
        match self {
            Self::Checker { .. } => true,
            Self::Other { others } => {
                let others = u32::try_from(others).unwrap_or(u32::MAX);
                jitter.between(0.0, OTHERS * others) < INTERVAL
            }
        }
    }

    fn confirms_after(self, jitter: &mut Jitter) -> Duration {
        let ends = 2 * AT_EACH_END as u32;
        let (place, spread) = match self {
            Self::Checker { place } => (place, 1),
            Self::Other { .. } => (ends, ends),
        };
        CONFIRMED_APART * place + jitter.between(0.0, CONFIRMED_APART * spread)
    }
}

#[cfg(test)]
mod tests;
