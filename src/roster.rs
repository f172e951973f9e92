//! The membership core: what is heard goes in, changes and announcements come out. Pure state: time is a parameter, there
//! is no clock, no I/O, no thread.
//!
//! The contract, as of quinn-proto: feed what happened ([`heard`](Roster::heard), [`link_up`](Roster::link_up), ...), drain
//! [`poll_change`](Roster::poll_change), send what [`poll_announcement`](Roster::poll_announcement) returns until it
//! returns nothing, and call [`tick`](Roster::tick) by [`deadline`](Roster::deadline). Calls that find nothing to do are
//! harmless.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Reason;
use crate::jitter::Jitter;
use crate::peer::{Incarnation, Peer, Tags};
use crate::presence::{OwnName, Presence};
use crate::wire::{Announce, Body, Message, WireTags};

/// For how long a departed peer is remembered, so that a late message changes nothing and a return is a heal.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The latest that an announcement of a lower incarnation than the one remembered is put right; many members know, and the
/// first to say it spares the others.
const CORRECTION: Duration = Duration::from_millis(50);

/// The times and bounds that membership goes by.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The interval assumed of peers that announce none.
    pub(crate) bare_heartbeat: Duration,
    /// A peer expires after this many of its intervals.
    pub(crate) missed: u32,
    /// The most peers there can be.
    pub(crate) max_peers: usize,
    /// The most departed ones that are remembered.
    pub(crate) max_departed: usize,
}

/// What became different about a peer: exactly one event's worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) peer: Peer,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Joined,
    /// Heard again after it had left.
    Returned,
    /// Heard again while it was there, after the host's own connection to it broke.
    Recovered,
    /// It has other tags.
    Updated,
    Left(Reason),
    /// It is a newer process of our own name.
    TookName,
}

/// What became of a message that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It told something about a peer, if only that it is still there.
    News,
    /// Older than what is known, or about ourselves.
    Stale,
    /// A newcomer for whom there is no room.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Roster {
    presence: Option<Presence>,
    limits: Limits,
    jitter: Jitter,
    /// Those who are there and those who left lately.
    entries: HashMap<Arc<str>, Entry>,
    present: usize,
    /// One timer a name, at or before the time its peer expires: hearing a peer only moves [`Entry::until`], and the
    /// timer follows when it runs out.
    timers: BTreeSet<(Instant, Arc<str>)>,
    /// In the order of their departure; those who came back since have other entries by now.
    departed: VecDeque<(Instant, Arc<str>)>,
    /// Names whose process must be told that a higher incarnation is remembered, and when.
    corrections: BTreeMap<Arc<str>, Instant>,
    changes: VecDeque<Change>,
    online: bool,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    standing: Standing,
    seq: u64,
    /// Within this time of each announcement the next comes; milliseconds, to keep an entry small.
    due: u32,
    /// When it expires, or, once it has gone, when that was.
    until: Instant,
    /// Where its name stands in [`Roster::timers`].
    timer: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Here,
    /// Here, but the host's own connection to it broke.
    Lost,
    Gone(Reason),
}

impl Standing {
    fn is_here(self) -> bool {
        match self {
            Self::Here | Self::Lost => true,
            Self::Gone(_) => false,
        }
    }
}

/// A sign of life: everything an announcement says but the name.
struct Sign<'a> {
    incarnation: Option<Incarnation>,
    seq: u64,
    due: Duration,
    tags: WireTags<'a>,
}

impl Roster {
    pub(crate) fn new(presence: Option<Presence>, limits: Limits, jitter: Jitter) -> Self {
        Self {
            presence,
            limits,
            jitter,
            entries: HashMap::new(),
            present: 0,
            timers: BTreeSet::new(),
            departed: VecDeque::new(),
            corrections: BTreeMap::new(),
            changes: VecDeque::new(),
            online: false,
        }
    }

    /// This participant's incarnation, which may rise while it starts.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.presence.as_ref()?.incarnation()
    }

    /// The link works: the hello is due, and everybody gets a full grace period to be heard (rule 4).
    pub(crate) fn link_up(&mut self, now: Instant) {
        self.online = true;
        self.grant_grace(now);
        if let Some(presence) = &mut self.presence {
            presence.link_up(now);
        }
    }

    /// The link is down: nobody expires until it is up again (rule 4).
    pub(crate) fn link_down(&mut self) {
        self.online = false;
        self.corrections.clear();
        if let Some(presence) = &mut self.presence {
            presence.link_down();
        }
    }

    /// Everybody gets a full grace period to be heard. Also for a process that finds it was paused (rule 5).
    pub(crate) fn grant_grace(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            if entry.standing.is_here() {
                entry.until = now + grace(entry.due, self.limits.missed);
            }
        }
    }

    /// The host's own connection to this peer broke: its next sign of life is a heal.
    pub(crate) fn lost(&mut self, peer: &Peer) {
        match self.entries.get_mut(peer.name()) {
            Some(entry)
                if entry.standing == Standing::Here
                    && entry.peer.incarnation() == peer.incarnation() =>
            {
                entry.standing = Standing::Lost;
            }
            _ => {}
        }
    }

    pub(crate) fn set_tags(&mut self, tags: String, now: Instant) {
        if let Some(presence) = &mut self.presence {
            presence.set_tags(tags, now);
        }
    }

    pub(crate) fn heard(&mut self, now: Instant, message: &Message<'_>) -> Heard {
        let name = &*message.name;
        if self.presence.as_ref().is_some_and(|p| p.name() == name) {
            self.heard_own_name(now, &message.body);
            return Heard::Stale;
        }
        match message.body {
            Body::Announce(ref announce) => {
                let sign = Sign {
                    incarnation: Some(announce.incarnation),
                    seq: announce.seq,
                    due: announce.due,
                    tags: announce.tags,
                };
                let heard = self.heard_sign(now, name, &sign);
                match heard {
                    Heard::News if announce.hello => self.answer(now),
                    Heard::Stale => self.correct(now, name, announce),
                    Heard::News | Heard::Refused => {}
                }
                heard
            }
            Body::Bare => {
                let stranger = !self.entries.get(name).is_some_and(|e| e.standing.is_here());
                let sign = Sign {
                    incarnation: None,
                    seq: 0,
                    due: self.limits.bare_heartbeat,
                    tags: WireTags::default(),
                };
                let heard = self.heard_sign(now, name, &sign);
                // A bare name has no hello; the first one stands for it.
                if stranger && heard == Heard::News {
                    self.answer(now);
                }
                heard
            }
            Body::Bye { incarnation, seq } => self.heard_bye(now, name, incarnation, seq),
            Body::Newer { incarnation } => {
                let known = self.entries.get(name).and_then(|e| e.peer.incarnation());
                if known.is_some_and(|known| known <= incarnation) {
                    self.corrections.remove(name);
                }
                Heard::News
            }
        }
    }

    /// Everything that arrived before `now` has been heard, and the link is known to have worked at `proven`: whoever was
    /// overdue by then is gone (rules 4 and 5). Returns whether somebody is overdue for whom the link must be proven anew.
    #[must_use]
    pub(crate) fn tick(&mut self, now: Instant, proven: Instant) -> bool {
        self.forget_long_gone(now);
        while self.online && self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, name)) = self.timers.pop_first() else {
                break;
            };
            let Some(entry) = self.entries.get_mut(&name) else {
                continue;
            };
            entry.timer = None;
            if !entry.standing.is_here() {
                continue;
            }
            if entry.until > now {
                entry.timer = Some(entry.until);
                self.timers.insert((entry.until, name));
            } else if entry.until > proven {
                entry.timer = Some(at);
                self.timers.insert((at, name));
                return true;
            } else {
                self.depart(now, &name, Reason::Expired);
            }
        }
        false
    }

    /// When [`tick`](Self::tick) or [`poll_announcement`](Self::poll_announcement) next have something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let expiry = self
            .timers
            .first()
            .filter(|_| self.online)
            .map(|(at, _)| *at);
        let announcement = self.presence.as_ref().and_then(Presence::deadline);
        let correction = self.corrections.values().min().copied();
        [expiry, announcement, correction]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is to be announced now. To be asked again until there is nothing.
    pub(crate) fn poll_announcement(&mut self, now: Instant) -> Option<Message<'_>> {
        if let Some(correction) = self.due_correction(now) {
            return Some(correction);
        }
        self.presence.as_mut()?.poll(now, &mut self.jitter)
    }

    /// What is to be announced last.
    pub(crate) fn goodbye(&mut self) -> Option<Message<'_>> {
        self.presence.as_mut()?.goodbye()
    }

    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    fn heard_own_name(&mut self, now: Instant, body: &Body<'_>) {
        let Some(presence) = &mut self.presence else {
            return;
        };
        let meaning = presence.heard_own_name(now, body, &mut self.jitter);
        match (meaning, body) {
            (OwnName::Older, _) => self.answer(now),
            (OwnName::Taken, Body::Announce(theirs)) => {
                let name = Arc::from(presence.name());
                let peer = Peer::new(name, Some(theirs.incarnation), theirs.tags.to_tags());
                self.changed(peer, Kind::TookName);
                self.corrections.clear();
            }
            (OwnName::Nothing | OwnName::Taken, _) => {}
        }
    }

    /// The one place that decides what a sign of life means (rules 1, 7 and 9).
    fn heard_sign(&mut self, now: Instant, name: &str, sign: &Sign<'_>) -> Heard {
        let full = self.present >= self.limits.max_peers;
        let Some(entry) = self.entries.get_mut(name) else {
            if full {
                return Heard::Refused;
            }
            self.join(now, Arc::from(name), sign);
            return Heard::News;
        };
        let age = age(entry.standing, entry.peer.incarnation(), sign.incarnation);
        match (age, entry.standing) {
            (Ordering::Less, _) => return Heard::Stale,
            (Ordering::Equal, Standing::Gone(Reason::Goodbye | Reason::Replaced)) => {
                return Heard::Stale;
            }
            // A bare name has no sequence: each is as good as the last.
            (Ordering::Equal, _) if sign.incarnation.is_some() && sign.seq <= entry.seq => {
                return Heard::Stale;
            }
            (Ordering::Equal | Ordering::Greater, Standing::Gone(_)) if full => {
                return Heard::Refused;
            }
            (Ordering::Greater, Standing::Gone(_)) => self.join(now, Arc::from(name), sign),
            (Ordering::Greater, Standing::Here | Standing::Lost) => {
                self.depart(now, name, Reason::Replaced);
                self.join(now, Arc::from(name), sign);
            }
            (Ordering::Equal, before) => {
                let updated = !sign.tags.same_as(entry.peer.all_tags());
                if updated {
                    entry.peer = entry.peer.with_tags(sign.tags.to_tags());
                }
                entry.standing = Standing::Here;
                let kind = match before {
                    Standing::Gone(_) => Some(Kind::Returned),
                    Standing::Lost => Some(Kind::Recovered),
                    Standing::Here => updated.then_some(Kind::Updated),
                };
                if let Some(kind) = kind {
                    let peer = entry.peer.clone();
                    self.changed(peer, kind);
                }
                if !before.is_here() {
                    self.present += 1;
                }
                self.refresh(now, name, sign);
            }
        }
        Heard::News
    }

    fn heard_bye(&mut self, now: Instant, name: &str, incarnation: Incarnation, seq: u64) -> Heard {
        let Some(entry) = self.entries.get_mut(name) else {
            return Heard::Stale;
        };
        match age(entry.standing, entry.peer.incarnation(), Some(incarnation)) {
            Ordering::Less => Heard::Stale,
            Ordering::Equal if seq <= entry.seq => Heard::Stale,
            Ordering::Equal => {
                entry.seq = seq;
                match &mut entry.standing {
                    // It was given up for gone too early, and now it really is.
                    Standing::Gone(reason) => *reason = Reason::Goodbye,
                    Standing::Here | Standing::Lost => self.depart(now, name, Reason::Goodbye),
                }
                Heard::News
            }
            // A newer start of it came and went unheard.
            Ordering::Greater => {
                let old = entry.peer.clone();
                let was_here = entry.standing.is_here();
                entry.peer = Peer::new(old.shared_name(), Some(incarnation), Tags::default());
                entry.seq = seq;
                self.bury(now, name, Reason::Goodbye);
                if was_here {
                    self.present -= 1;
                    self.changed(old, Kind::Left(Reason::Replaced));
                }
                Heard::News
            }
        }
    }

    /// Puts a peer that was not there into the roster.
    fn join(&mut self, now: Instant, name: Arc<str>, sign: &Sign<'_>) {
        let peer = Peer::new(Arc::clone(&name), sign.incarnation, sign.tags.to_tags());
        self.present += 1;
        self.corrections.remove(&name);
        self.changed(peer.clone(), Kind::Joined);
        let timer = self.entries.get(&name).and_then(|entry| entry.timer);
        let entry = Entry {
            peer,
            standing: Standing::Here,
            seq: sign.seq,
            due: 0,
            until: now,
            timer,
        };
        self.entries.insert(Arc::clone(&name), entry);
        self.refresh(now, &name, sign);
    }

    /// Takes a peer that was there out of the roster, and remembers it as departed.
    fn depart(&mut self, now: Instant, name: &str, reason: Reason) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let peer = entry.peer.clone();
        self.present -= 1;
        self.changed(peer, Kind::Left(reason));
        self.bury(now, name, reason);
    }

    /// Remembers a name as departed.
    fn bury(&mut self, now: Instant, name: &str, reason: Reason) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.standing = Standing::Gone(reason);
            entry.until = now;
            self.departed.push_back((now, entry.peer.shared_name()));
        }
        self.forget_long_gone(now);
    }

    fn refresh(&mut self, now: Instant, name: &str, sign: &Sign<'_>) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        entry.seq = sign.seq;
        entry.due = u32::try_from(sign.due.as_millis()).unwrap_or(u32::MAX);
        entry.until = now + grace(entry.due, self.limits.missed);
        if entry.timer.is_none_or(|timer| timer > entry.until) {
            let name = entry.peer.shared_name();
            if let Some(later) = entry.timer.replace(entry.until) {
                self.timers.remove(&(later, Arc::clone(&name)));
            }
            self.timers.insert((entry.until, name));
        }
    }

    fn forget_long_gone(&mut self, now: Instant) {
        let bound = self.limits.max_departed;
        while self.departed.front().is_some_and(|(at, _)| {
            self.departed.len() > bound || now.saturating_duration_since(*at) > REMEMBERED
        }) {
            let Some((left, name)) = self.departed.pop_front() else {
                break;
            };
            let Some(entry) = self.entries.get(&name) else {
                continue;
            };
            if !entry.standing.is_here() && entry.until == left {
                if let Some(timer) = entry.timer {
                    self.timers.remove(&(timer, Arc::clone(&name)));
                }
                self.entries.remove(&name);
            }
        }
    }

    fn changed(&mut self, peer: Peer, kind: Kind) {
        self.changes.push_back(Change { peer, kind });
    }

    fn answer(&mut self, now: Instant) {
        if let Some(presence) = &mut self.presence {
            presence.answer(now, self.present, &mut self.jitter);
        }
    }

    /// A process announces a lower incarnation than we remember of its name. If the higher one is there, it speaks for
    /// itself, unless this is a newborn's first hello; otherwise somebody must tell the process to step over it.
    fn correct(&mut self, now: Instant, name: &str, heard: &Announce<'_>) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        let lower = entry
            .peer
            .incarnation()
            .is_some_and(|known| heard.incarnation < known);
        let newborn = heard.hello && heard.seq == 1;
        let silent = self
            .presence
            .as_ref()
            .is_none_or(|p| p.deadline().is_none() || p.incarnation().is_none());
        let unheard = newborn || !entry.standing.is_here();
        if lower && unheard && !silent && !self.corrections.contains_key(name) {
            let at = now + self.jitter.between(0.0, CORRECTION);
            self.corrections.insert(entry.peer.shared_name(), at);
        }
    }

    fn due_correction(&mut self, now: Instant) -> Option<Message<'static>> {
        let due = self.corrections.iter().find(|&(_, &at)| at <= now);
        let name = Arc::clone(due?.0);
        self.corrections.remove(&name);
        let incarnation = self.entries.get(&name)?.peer.incarnation()?;
        Some(Message {
            name: name.to_string().into(),
            body: Body::Newer { incarnation },
        })
    }
}

/// How long a peer may be silent that announces itself every so many milliseconds (rule 2).
fn grace(due: u32, missed: u32) -> Duration {
    Duration::from_millis(due.into()) * missed
}

/// How what is heard relates to what is known of a name (rule 1): `Less` is stale, `Equal` the same start of it, `Greater`
/// a newer one.
fn age(standing: Standing, known: Option<Incarnation>, heard: Option<Incarnation>) -> Ordering {
    match (known, heard) {
        (Some(known), Some(heard)) => heard.cmp(&known),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        // A bare name says less than an incarnation that is there, but takes the name over from one that is gone.
        (Some(_), None) if standing.is_here() => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
    }
}

#[cfg(test)]
#[path = "roster/tests.rs"] // also where a bench includes this file
mod tests;
