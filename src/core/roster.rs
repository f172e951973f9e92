//! The membership core: what is heard goes in, changes and announcements come out. Pure state: time is a parameter, there
//! is no clock, no I/O, no thread.
//!
//! The contract, as of quinn-proto: feed what happened ([`handle_message`](Roster::handle_message),
//! [`handle_link_up`](Roster::handle_link_up), ...), drain
//! [`poll_change`](Roster::poll_change), send what [`poll_announcement`](Roster::poll_announcement) returns until it
//! returns nothing, and call [`handle_timeout`](Roster::handle_timeout) by [`poll_timeout`](Roster::poll_timeout). Calls that find nothing to do are
//! harmless.

mod expiry;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::expiry::Expiry;
use crate::core::presence::{OwnName, Presence};
use crate::core::roster_sync::{ASK_ALL, RosterSync};
use crate::core::session_check::{Rank, SessionCheck};
use crate::core::wire::{self, Announce, Body, Inbox, Message, Pid, RosterPart, WireTags};
use crate::event::Reason;
use crate::jitter::Jitter;
use crate::peer::{Incarnation, Peer, Sighting, Tags};

/// For how long a departed peer is remembered, so that a late message changes nothing and a return is a heal.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The latest that an announcement of a lower incarnation than the one remembered is put right; many members know, and the
/// first to say it spares the others.
const CORRECTION: Duration = Duration::from_millis(50);

/// When everybody announces itself at once, the cluster may spend this many times its delivery budget.
const BURST: f64 = 10.0;

/// A participant that others take for gone announces itself within this time.
const REAPPEAR_WITHIN: Duration = Duration::from_millis(50);

/// So many questions may wait for an answer.
const MAX_QUERIES: usize = 100;

/// The times and bounds that membership goes by.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The least time between this participant's announcements.
    pub(crate) heartbeat: Duration,
    /// The deliveries a second that all announcements of the cluster may cause together.
    pub(crate) delivery_budget: u32,
    /// Whether to ask Postgres whose session is gone.
    pub(crate) session_check: bool,
    /// Whether an observer asks who is there, which is all that it ever says.
    pub(crate) observer_asks: bool,
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
    /// Outcome again after it had left.
    Returned,
    /// Outcome again while it was there, after the host's own connection to it broke.
    Recovered,
    /// It has other tags.
    Updated,
    Left(Reason),
    /// It is a newer process of our own name.
    TookName,
}

/// What became of a message that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
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
    expiry: Expiry,
    /// In the order of their departure; those who came back since have other entries by now.
    tombstones: VecDeque<(Instant, Arc<str>)>,
    /// Names whose process must be told that a higher incarnation is remembered, and when.
    corrections: BTreeMap<Arc<str>, Instant>,
    /// What we have to learn of others, and they of us.
    sync: RosterSync,
    /// Who was said to be gone while an answer is awaited, of which start, and up to which of its messages: the answer may
    /// have been written before.
    departures_during_sync: HashMap<Arc<str>, (Incarnation, u64)>,
    /// Where answers are awaited from us, and since when.
    pending_queries: VecDeque<(Instant, Inbox)>,
    session_check: SessionCheck,
    /// Those whose session was found gone, and when, to be told to all.
    gone: VecDeque<(Instant, Arc<str>)>,
    changes: VecDeque<Change>,
    online: bool,
    /// How long the server took for its last answer.
    answer: Duration,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    standing: Standing,
    seq: u64,
    /// Within this time of each announcement the next comes; milliseconds, to keep an entry small.
    due: u32,
    /// Its session with our server, if it goes by one.
    pid: Option<Pid>,
    /// It was heard, or told of, since the link came up.
    confirmed: bool,
    /// When it expires, or, once it has gone, when that was.
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Alive,
    /// Alive, but the host's own connection to it broke.
    Unreachable,
    Left(Reason),
}

impl Entry {
    /// Takes in a sign of life. The peer now expires at [`until`](Self::until).
    fn refresh(&mut self, now: Instant, heartbeat: &Heartbeat<'_>, missed: u32) {
        self.seq = heartbeat.seq;
        self.due = u32::try_from(heartbeat.due.as_millis()).unwrap_or(u32::MAX);
        self.pid = heartbeat.pid;
        self.confirmed = true;
        let grace = grace(self.due, missed);
        self.until = now + grace.saturating_sub(heartbeat.age.unwrap_or_default());
    }

    /// When it was heard, or was given a new grace period.
    fn last_received(&self, missed: u32) -> Instant {
        // Before the first instant that the clock knows, if another heard it when this machine was not running yet.
        let heard = self.until.checked_sub(grace(self.due, missed));
        heard.unwrap_or(self.until)
    }

    /// How long ago it was heard, or was given a new grace period.
    fn age(&self, now: Instant, missed: u32) -> Duration {
        let left = self.until.saturating_duration_since(now);
        grace(self.due, missed).saturating_sub(left)
    }
}

impl Standing {
    fn is_alive(self) -> bool {
        match self {
            Self::Alive | Self::Unreachable => true,
            Self::Left(_) => false,
        }
    }
}

/// A sign of life: everything an announcement says but the name.
struct Heartbeat<'a> {
    incarnation: Option<Incarnation>,
    seq: u64,
    due: Duration,
    pid: Option<Pid>,
    /// How long ago it was heard, by who told us.
    age: Option<Duration>,
    tags: WireTags<'a>,
}

impl<'a> Heartbeat<'a> {
    fn of(announce: &Announce<'a>) -> Self {
        Self {
            incarnation: Some(announce.incarnation),
            seq: announce.seq,
            due: announce.due,
            pid: announce.pid,
            age: announce.age,
            tags: announce.tags,
        }
    }
}

impl Roster {
    /// `inbox` is where this participant is answered.
    pub(crate) fn new(
        presence: Option<Presence>,
        inbox: Inbox,
        limits: Limits,
        jitter: Jitter,
    ) -> Self {
        Self {
            presence,
            limits,
            jitter,
            entries: HashMap::new(),
            present: 0,
            expiry: Expiry::default(),
            tombstones: VecDeque::new(),
            corrections: BTreeMap::new(),
            sync: RosterSync::new(inbox),
            departures_during_sync: HashMap::new(),
            pending_queries: VecDeque::new(),
            session_check: SessionCheck::default(),
            gone: VecDeque::new(),
            changes: VecDeque::new(),
            online: false,
            answer: Duration::ZERO,
        }
    }

    /// This participant's incarnation, which may rise while it starts.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.presence.as_ref()?.incarnation()
    }

    /// Whether this participant is seen by nobody.
    pub(crate) fn is_observer(&self) -> bool {
        self.presence.is_none()
    }

    /// How often this participant announces itself now: every peer hears it, so that with ever more of them it must become
    /// rarer for the cost to the database to stay what it is (the idea of RFC 3550, 6.2).
    pub(crate) fn interval(&self) -> Duration {
        self.time_for_all(1.0)
            .clamp(self.limits.heartbeat, wire::MAX_DUE)
    }

    /// The link works, with this backend of the server: the hello is due, and everybody gets a full grace period to be
    /// heard (rule 4).
    pub(crate) fn handle_link_up(&mut self, now: Instant, pid: Option<Pid>) {
        self.online = true;
        self.grant_grace(now);
        match &mut self.presence {
            Some(presence) if !presence.is_replaced() => presence.link_up(now, pid),
            None if !self.limits.observer_asks => {}
            _ => self.sync.begin(now),
        }
    }

    /// The link is down: nobody expires until it is up again (rule 4).
    pub(crate) fn handle_link_down(&mut self) {
        self.online = false;
        self.drop_duties();
        for entry in self.entries.values_mut() {
            // The server that we find next may number its backends anew, and we will not hear who leaves until then.
            entry.pid = None;
            entry.confirmed = false;
        }
        if let Some(presence) = &mut self.presence {
            presence.link_down();
        }
    }

    /// There is nothing to ask, to answer or to tell any more.
    fn drop_duties(&mut self) {
        self.corrections.clear();
        self.sync.stop();
        self.departures_during_sync.clear();
        self.pending_queries.clear();
        self.session_check.stop();
        self.gone.clear();
    }

    /// Everybody gets a full grace period to be heard. Also for a process that finds it was paused (rule 5).
    pub(crate) fn grant_grace(&mut self, now: Instant) {
        self.expiry.restart();
        for entry in self.entries.values_mut() {
            if entry.standing.is_alive() {
                entry.until = now + grace(entry.due, self.limits.missed);
                self.expiry.expect(entry.until);
            }
        }
    }

    /// The server took so long to answer us. One that stood still for a whole heartbeat kept others silent for as long, and
    /// some of them have taken it for dead and must connect anew: everybody gets a full grace period. One that always takes so
    /// long is merely far away.
    pub(crate) fn handle_round_trip(&mut self, now: Instant, took: Duration) {
        if took >= self.limits.heartbeat && took > 2 * self.answer {
            self.grant_grace(now);
        }
        self.answer = took;
    }

    /// The host's own connection to this peer broke: its next sign of life is a heal.
    pub(crate) fn report_unreachable(&mut self, peer: &Peer) {
        match self.entries.get_mut(peer.name()) {
            Some(entry)
                if entry.standing == Standing::Alive
                    && entry.peer.incarnation() == peer.incarnation() =>
            {
                entry.standing = Standing::Unreachable;
            }
            _ => {}
        }
    }

    pub(crate) fn set_tags(&mut self, tags: String, now: Instant) {
        if let Some(presence) = &mut self.presence {
            presence.set_tags(tags, now);
        }
    }

    /// `sender` is the backend that the message came from.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        sender: Pid,
        message: &Message<'_>,
    ) -> Outcome {
        let name = &*message.name;
        if self.presence.as_ref().is_some_and(|p| p.name() == name) {
            self.handle_own_name(now, &message.body);
            return Outcome::Stale;
        }
        if let Body::Bye { incarnation, seq } | Body::Gone { incarnation, seq } = message.body {
            self.note_departure(name, incarnation, seq);
        }
        match message.body {
            Body::Announce(ref announce) => {
                let heartbeat = Heartbeat {
                    // One whose announcements come from elsewhere than its session may be there without that.
                    pid: announce.pid.filter(|&pid| pid == sender),
                    age: None,
                    ..Heartbeat::of(announce)
                };
                let heard = self.handle_heartbeat(now, name, &heartbeat);
                match (heard, announce.inbox) {
                    (Outcome::News, Some(inbox)) => self.handle_query(now, name, inbox, 0),
                    (Outcome::News, None) if announce.hello => self.announce_soon(now),
                    (Outcome::Stale, _) => self.correct(now, name, announce),
                    (Outcome::News | Outcome::Refused, _) => {}
                }
                heard
            }
            Body::Bare => {
                let stranger = !self
                    .entries
                    .get(name)
                    .is_some_and(|e| e.standing.is_alive());
                let heartbeat = Heartbeat {
                    incarnation: None,
                    seq: 0,
                    due: self.limits.bare_heartbeat,
                    pid: None,
                    age: None,
                    tags: WireTags::default(),
                };
                let heard = self.handle_heartbeat(now, name, &heartbeat);
                // A bare name has no hello; the first one stands for it.
                if stranger && heard == Outcome::News {
                    self.announce_soon(now);
                }
                heard
            }
            Body::Bye { incarnation, seq } => self.handle_bye(now, name, incarnation, seq),
            Body::Gone { incarnation, seq } => self.handle_gone(now, name, incarnation, seq),
            Body::Newer { incarnation } => {
                let known = self.entries.get(name).and_then(|e| e.peer.incarnation());
                if known.is_some_and(|known| known <= incarnation) {
                    self.corrections.remove(name);
                }
                Outcome::News
            }
            Body::Ask { inbox, attempt } => {
                self.handle_query(now, name, inbox, attempt);
                Outcome::News
            }
        }
    }

    /// A payload of an answer came to our inbox. One that comes too late may name those who have left since, unheeded.
    pub(crate) fn handle_sync_part(&mut self, now: Instant, part: &RosterPart<'_>) -> Outcome {
        if !self.sync.is_open() {
            return Outcome::Stale;
        }
        for message in &part.announcements {
            let own = self.presence.as_ref().map(Presence::name);
            match &message.body {
                Body::Announce(announce)
                    if own != Some(&*message.name)
                        && !self.departed_since(&message.name, announce) =>
                {
                    self.handle_heartbeat(now, &message.name, &Heartbeat::of(announce));
                    self.confirm(&message.name, announce);
                }
                _ => {}
            }
        }
        self.sync.answered(part.part, part.parts);
        if self.sync.is_settled() {
            self.departures_during_sync.clear();
        }
        self.watch_sessions(now);
        Outcome::News
    }

    fn note_departure(&mut self, name: &str, incarnation: Incarnation, seq: u64) {
        let room = self.departures_during_sync.len() < self.limits.max_departed;
        if self.sync.is_open() && room {
            let last = self.departures_during_sync.entry(Arc::from(name));
            let last = last.or_insert((incarnation, seq));
            *last = (incarnation, seq).max(*last);
        }
    }

    /// Whether it was said to be gone after it announced this.
    fn departed_since(&self, name: &str, announce: &Announce<'_>) -> bool {
        let last = self.departures_during_sync.get(name);
        last.is_some_and(|last| *last >= (announce.incarnation, announce.seq))
    }

    /// Whether it was news or not, this peer has a link.
    fn confirm(&mut self, name: &str, announce: &Announce<'_>) {
        if let Some(entry) = self.entries.get_mut(name) {
            if entry.standing.is_alive() && entry.peer.incarnation() == Some(announce.incarnation) {
                entry.confirmed = true;
                if entry.seq == announce.seq {
                    entry.pid = announce.pid;
                }
            }
        }
    }

    /// Postgres was asked at that time whose sessions it has, of these backends, and some it had not. Comes after
    /// everything that had arrived then was heard.
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
        let missing: Vec<_> = missing.map(|entry| entry.peer.shared_name()).collect();
        for name in missing {
            if self.session_check.missing(asked, &name) {
                self.depart(now, &name, Reason::SessionGone);
                self.gone.push_back((now, name));
            }
        }
        if !others_look {
            self.session_check.confirm();
        }
    }

    /// Everything that arrived before `now` has been heard, and the link is known to have worked at `proven`: whoever was
    /// overdue by then is gone (rules 4 and 5). Returns whether somebody is overdue for whom the link must be proven anew.
    #[must_use]
    pub(crate) fn handle_timeout(&mut self, now: Instant, proven: Instant) -> bool {
        self.forget_long_gone(now);
        let due = self.expiry.deadline().is_some_and(|at| at <= now);
        due && self.online && self.expire(now, proven)
    }

    /// Looks at all peers. Whoever was overdue when the link was last proven to work has left. Returns whether others are
    /// overdue by now.
    fn expire(&mut self, now: Instant, proven: Instant) -> bool {
        self.expiry.restart();
        let mut overdue = Vec::new();
        let mut unproven = false;
        for entry in self.entries.values() {
            if !entry.standing.is_alive() {
                continue;
            }
            if entry.until <= now.min(proven) {
                overdue.push((entry.until, entry.peer.shared_name()));
            } else {
                unproven |= entry.until <= now;
                self.expiry.expect(entry.until);
            }
        }
        if !unproven {
            self.expiry.rest(now, self.entries.len());
        }
        overdue.sort_unstable();
        for (_, name) in overdue {
            self.depart(now, &name, Reason::Expired);
        }
        unproven
    }

    /// When there is next something to do: to [`handle_timeout`](Self::handle_timeout), or to poll for.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if !self.online {
            return None;
        }
        let announcement = self.presence.as_ref().and_then(Presence::deadline);
        let correction = self.corrections.values().min().copied();
        let question = self.pending_queries.front().map(|(since, _)| *since);
        let gone = self.gone.front().map(|(since, _)| *since);
        [
            self.expiry.deadline(),
            announcement,
            correction,
            question,
            gone,
            self.sync.deadline(),
            self.session_check.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is to be announced now. To be asked again until there is nothing.
    pub(crate) fn poll_announcement(&mut self, now: Instant) -> Option<Message<'_>> {
        if let Some(message) = self.due_correction(now).or_else(|| self.due_gone()) {
            return Some(message);
        }
        if self
            .presence
            .as_ref()
            .is_some_and(|p| p.asks_when_polled(now))
        {
            self.sync.asked_by_hello(now);
        } else if let Some(question) = self.due_query(now) {
            return Some(question);
        }
        let interval = self.interval();
        let presence = self.presence.as_mut()?;
        presence.poll(now, interval, &mut self.jitter)
    }

    /// What [`poll_announcement`](Self::poll_announcement) returned has gone out: the patience with those who are to answer
    /// begins now. Without this report it began when the question was polled.
    pub(crate) fn handle_sent(&mut self, now: Instant) {
        self.sync.sent(now);
    }

    /// The answer to the next question, and where it is to be sent. To be asked again until there is none.
    pub(crate) fn poll_answer(&mut self, now: Instant) -> Option<(Inbox, Vec<String>)> {
        let (_, inbox) = self.pending_queries.pop_front()?;
        let presence = self
            .presence
            .as_ref()
            .filter(|presence| presence.speaks())?;
        let encoded: Vec<_> = self
            .alive()
            .filter(|entry| entry.confirmed)
            .filter_map(|entry| Some((entry, entry.peer.incarnation()?)))
            .map(|(entry, incarnation)| {
                (entry, incarnation, wire::encode_tags(entry.peer.all_tags()))
            })
            .collect();
        let peers = encoded.iter().map(|(entry, incarnation, tags)| Message {
            name: entry.peer.name().into(),
            body: Body::Announce(Announce {
                hello: false,
                incarnation: *incarnation,
                seq: entry.seq,
                due: Duration::from_millis(entry.due.into()),
                pid: entry.pid,
                inbox: None,
                age: Some(entry.age(now, self.limits.missed)),
                tags: WireTags::encoded(tags),
            }),
        });
        let everybody = peers.chain([presence.last_announcement()]);
        Some((inbox, wire::encode_roster(everybody)))
    }

    /// The backends that Postgres is to be asked for now, if it is.
    pub(crate) fn poll_session_check(&mut self, now: Instant) -> Option<Vec<Pid>> {
        self.session_check.deadline().filter(|&at| at <= now)?;
        // Only now, since it takes a look at every peer.
        let rank = self.rank();
        self.session_check.asked(now, rank, &mut self.jitter);
        let pids: Vec<Pid> = self.alive().filter_map(|entry| entry.pid).collect();
        (!pids.is_empty()).then_some(pids)
    }

    /// What is to be announced last.
    pub(crate) fn goodbye(&mut self) -> Option<Message<'_>> {
        self.presence.as_mut()?.goodbye()
    }

    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    fn handle_own_name(&mut self, now: Instant, body: &Body<'_>) {
        let Some(presence) = &mut self.presence else {
            return;
        };
        let meaning = presence.handle_own_name(now, body, &mut self.jitter);
        match (meaning, body) {
            (OwnName::Unseen, _) => {
                presence.announce_within(now, REAPPEAR_WITHIN, &mut self.jitter)
            }
            (OwnName::Taken, Body::Announce(theirs)) => {
                let name = Arc::from(presence.name());
                let peer = Peer::new(name, Some(theirs.incarnation), theirs.tags.to_tags());
                self.changed(peer, Kind::TookName);
                self.drop_duties();
            }
            (OwnName::Nothing | OwnName::Taken, _) => {}
        }
    }

    /// The one place that decides what a sign of life means (rules 1, 7 and 9).
    fn handle_heartbeat(&mut self, now: Instant, name: &str, heartbeat: &Heartbeat<'_>) -> Outcome {
        let full = self.present >= self.limits.max_peers;
        let Some(entry) = self.entries.get_mut(name) else {
            if full {
                return Outcome::Refused;
            }
            self.join(now, Arc::from(name), heartbeat);
            return Outcome::News;
        };
        let order = compare_incarnation(
            entry.standing,
            entry.peer.incarnation(),
            heartbeat.incarnation,
        );
        match (order, entry.standing) {
            (Ordering::Less, _) => return Outcome::Stale,
            (Ordering::Equal, Standing::Left(Reason::Goodbye | Reason::Replaced)) => {
                return Outcome::Stale;
            }
            // A bare name has no sequence: each is as good as the last.
            (Ordering::Equal, _)
                if heartbeat.incarnation.is_some() && heartbeat.seq <= entry.seq =>
            {
                return Outcome::Stale;
            }
            (Ordering::Equal | Ordering::Greater, Standing::Left(_)) if full => {
                return Outcome::Refused;
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
                if !before.is_alive() {
                    self.present += 1;
                }
                entry.refresh(now, heartbeat, self.limits.missed);
                self.expiry.expect(entry.until);
                self.session_check.clear(name);
            }
        }
        Outcome::News
    }

    fn handle_bye(
        &mut self,
        now: Instant,
        name: &str,
        incarnation: Incarnation,
        seq: u64,
    ) -> Outcome {
        let Some(entry) = self.entries.get_mut(name) else {
            return Outcome::Stale;
        };
        match compare_incarnation(entry.standing, entry.peer.incarnation(), Some(incarnation)) {
            Ordering::Less => Outcome::Stale,
            Ordering::Equal if seq <= entry.seq => Outcome::Stale,
            Ordering::Equal => {
                entry.seq = seq;
                match &mut entry.standing {
                    // It was given up for gone too early, and now it really is.
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
                entry.peer = Peer::new(old.shared_name(), Some(incarnation), Tags::default());
                entry.seq = seq;
                self.mark_departed(now, name, Reason::Goodbye);
                if was_here {
                    self.present -= 1;
                    self.changed(old, Kind::Left(Reason::Replaced));
                }
                Outcome::News
            }
        }
    }

    /// The session of a peer was found gone by another.
    fn handle_gone(
        &mut self,
        now: Instant,
        name: &str,
        incarnation: Incarnation,
        seq: u64,
    ) -> Outcome {
        match self.entries.get(name) {
            Some(entry)
                if entry.standing.is_alive()
                    && entry.peer.incarnation() == Some(incarnation)
                    && entry.seq <= seq =>
            {
                self.depart(now, name, Reason::SessionGone);
                Outcome::News
            }
            _ => Outcome::Stale,
        }
    }

    /// Those who are there, in the order of their names.
    pub(crate) fn sightings(&self) -> Vec<Sighting> {
        let sighting = |entry: &Entry| Sighting {
            peer: entry.peer.clone(),
            heard: entry.last_received(self.limits.missed),
            interval: entry
                .peer
                .incarnation()
                .map(|_| Duration::from_millis(entry.due.into())),
            backend: entry.pid.map(Pid::get),
        };
        let mut sightings: Vec<_> = self.alive().map(sighting).collect();
        sightings.sort_unstable_by(|a, b| a.peer.name().cmp(b.peer.name()));
        sightings
    }

    /// Puts a peer that was not there into the roster.
    fn join(&mut self, now: Instant, name: Arc<str>, heartbeat: &Heartbeat<'_>) {
        let peer = Peer::new(
            Arc::clone(&name),
            heartbeat.incarnation,
            heartbeat.tags.to_tags(),
        );
        self.present += 1;
        self.corrections.remove(&name);
        self.changed(peer.clone(), Kind::Joined);
        self.session_check.clear(&name);
        let mut entry = Entry {
            peer,
            standing: Standing::Alive,
            seq: heartbeat.seq,
            due: 0,
            pid: None,
            confirmed: true,
            until: now,
        };
        entry.refresh(now, heartbeat, self.limits.missed);
        self.expiry.expect(entry.until);
        self.entries.insert(name, entry);
    }

    /// Takes a peer that was there out of the roster, and remembers it as departed.
    fn depart(&mut self, now: Instant, name: &str, reason: Reason) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let peer = entry.peer.clone();
        let incarnation = peer.incarnation();
        self.present -= 1;
        self.changed(peer, Kind::Left(reason));
        self.mark_departed(now, name, reason);
        if incarnation < self.incarnation() {
            self.watch_sessions(now);
        }
    }

    /// Remembers a name as departed.
    fn mark_departed(&mut self, now: Instant, name: &str, reason: Reason) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.standing = Standing::Left(reason);
            entry.until = now;
            // Only its name and incarnation matter now; its tags may be as long as a payload.
            entry.peer = entry.peer.with_tags(Tags::default());
            self.tombstones.push_back((now, entry.peer.shared_name()));
        }
        self.session_check.clear(name);
        self.forget_long_gone(now);
    }

    fn forget_long_gone(&mut self, now: Instant) {
        let bound = self.limits.max_departed;
        while self.tombstones.front().is_some_and(|(at, _)| {
            self.tombstones.len() > bound || now.saturating_duration_since(*at) > REMEMBERED
        }) {
            let Some((left, name)) = self.tombstones.pop_front() else {
                break;
            };
            let Some(entry) = self.entries.get(&name) else {
                continue;
            };
            if !entry.standing.is_alive() && entry.until == left {
                self.entries.remove(&name);
            }
        }
    }

    fn changed(&mut self, peer: Peer, kind: Kind) {
        self.changes.push_back(Change { peer, kind });
    }

    /// Somebody asks who is there (rule 6). One member answers: the same by everybody's reckoning.
    fn handle_query(&mut self, now: Instant, asker: &str, inbox: Inbox, attempt: u64) {
        if attempt >= ASK_ALL {
            self.sync.overheard(now);
            return self.announce_soon(now);
        }
        if !self.sync.is_settled() {
            // Whoever is new itself may be unknown to those who answer; who asks again has heard it.
            if attempt == 0 {
                self.announce_soon(now);
            }
            return;
        }
        let waits = self
            .pending_queries
            .iter()
            .any(|(_, waiting)| *waiting == inbox);
        let room = self.pending_queries.len() < MAX_QUERIES;
        if room && !waits && self.is_ranked(attempt, asker, inbox) {
            self.pending_queries.push_back((now, inbox));
        }
    }

    /// Whether exactly so many peers are to be asked before us.
    fn is_ranked(&self, rank: u64, asker: &str, inbox: Inbox) -> bool {
        let Some(presence) = self.presence.as_ref().filter(|presence| presence.speaks()) else {
            return false;
        };
        let Some(incarnation) = presence.incarnation() else {
            return false;
        };
        let own = inbox.rank(presence.name(), incarnation);
        let before = self.alive().filter(|entry| {
            let name = entry.peer.name();
            let known = entry.peer.incarnation().filter(|_| entry.confirmed);
            name != asker && known.is_some_and(|known| inbox.rank(name, known) < own)
        });
        // Most find somebody before them soon.
        let more_than_rank = rank as usize + 1;
        before.take(more_than_rank).count() == rank as usize
    }

    fn due_query(&mut self, now: Instant) -> Option<Message<'static>> {
        let attempt = self.sync.poll(now, self.spread());
        if self.sync.is_settled() {
            self.departures_during_sync.clear();
        }
        if self.session_check.deadline().is_none() {
            self.watch_sessions(now);
        }
        let attempt = attempt?;
        if attempt == ASK_ALL {
            // Those who hear this ask no more, and expect everybody to announce itself.
            self.announce_soon(now);
        }
        let speaks = self.presence.as_ref().filter(|p| p.speaks());
        let name = speaks.map_or_else(String::new, |presence| presence.name().to_owned());
        let inbox = self.sync.inbox();
        Some(Message {
            name: name.into(),
            body: Body::Ask { inbox, attempt },
        })
    }

    /// Begins to ask for sessions, or to ask more often, if that falls to us.
    fn watch_sessions(&mut self, now: Instant) {
        let speaks = self.presence.as_ref().is_some_and(Presence::speaks);
        if self.limits.session_check && speaks && self.sync.has_asked_all() {
            let rank = self.rank();
            self.session_check.schedule(now, rank, &mut self.jitter);
        }
    }

    /// The peers that are there.
    fn alive(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.values();
        entries.filter(|entry| entry.standing.is_alive())
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

    fn due_gone(&mut self) -> Option<Message<'static>> {
        let (_, name) = self.gone.pop_front()?;
        let entry = self.entries.get(&name)?;
        let incarnation = entry.peer.incarnation()?;
        let body = Body::Gone {
            incarnation,
            seq: entry.seq,
        };
        let name = name.to_string().into();
        (!entry.standing.is_alive()).then_some(Message { name, body })
    }

    fn announce_soon(&mut self, now: Instant) {
        let spread = self.spread();
        if let Some(presence) = &mut self.presence {
            presence.announce_within(now, spread, &mut self.jitter);
        }
    }

    /// Within how much time everybody may announce itself once when there is reason to.
    fn spread(&self) -> Duration {
        let few = Duration::from_millis(self.present as u64);
        self.time_for_all(BURST).max(few)
    }

    /// How long everybody's announcement to everybody takes at so many times the delivery budget.
    fn time_for_all(&self, times: f64) -> Duration {
        let members = (self.present + 1) as f64;
        let seconds = members * members / f64::from(self.limits.delivery_budget) / times;
        Duration::from_secs_f64(seconds).min(wire::MAX_DUE)
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
        let silent = !self.presence.as_ref().is_some_and(Presence::speaks);
        let unheard = newborn || !entry.standing.is_alive();
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
fn compare_incarnation(
    standing: Standing,
    known: Option<Incarnation>,
    heard: Option<Incarnation>,
) -> Ordering {
    match (known, heard) {
        (Some(known), Some(heard)) => heard.cmp(&known),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        // A bare name says less than an incarnation that is there, but takes the name over from one that is gone.
        (Some(_), None) if standing.is_alive() => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod checks;

#[cfg(test)]
mod tests;
