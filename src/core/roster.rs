//! The membership core: what is heard goes in, changes and announcements come out. It is pure state. Time is a parameter;
//! there is no clock, no I/O, no thread.
//!
//! # What a driver calls, and in which order
//!
//! The verbs are those of quinn-proto: `handle_*` takes what happened, `poll_*` gives what to do next.
//!
//! 1. [`handle_link_up`](Roster::handle_link_up) when LISTEN is in place (rule 3), then
//!    [`handle_round_trip`](Roster::handle_round_trip) if it is known how far the server is, so that the hello promises no more
//!    than that allows (rule 2), and [`handle_link_down`](Roster::handle_link_down) when the link is lost. While it is down
//!    only the host's requests and [`poll_change`](Roster::poll_change) have a meaning; the other polls return nothing.
//! 2. When it is time by [`poll_timeout`](Roster::poll_timeout): [`poll_announcement`](Roster::poll_announcement) until it
//!    returns nothing, each time with the same `now`, or [`poll_announcements`](Roster::poll_announcements). Each message is
//!    sent to all, and [`handle_sent`](Roster::handle_sent) says when it has gone out. A message that was polled is not
//!    returned again, but for an announcement of which [`handle_not_sent`](Roster::handle_not_sent) says that it has not gone out.
//! 3. [`poll_answer`](Roster::poll_answer) until it returns nothing, or until there is something else to do; each piece of an
//!    answer is sent to its inbox, in one statement (rule 6).
//! 4. If [`poll_beat`](Roster::poll_beat) says so, an empty statement (rule 12).
//!    [`poll_session_check`](Roster::poll_session_check). If Postgres is to be asked, its answer goes to
//!    [`handle_session_check`](Roster::handle_session_check) once everything that arrived before it was heard, or
//!    [`handle_no_right_to_check`](Roster::handle_no_right_to_check) says that there is none.
//! 5. [`handle_message`](Roster::handle_message) for each notification on the channel, and
//!    [`handle_sync_part`](Roster::handle_sync_part) for each on the inbox.
//! 6. [`handle_loud`](Roster::handle_loud) for a channel that carries much, then
//!    [`handle_timeout`](Roster::handle_timeout), only when everything that had arrived by `now` was heard (rule 5). If it
//!    returns `true`, ask the server for a sign of life and call it again (rule 4).
//! 7. [`poll_change`](Roster::poll_change) until it returns nothing, after any of these.
//!
//! [`set_back`](Roster::set_back) comes before a link is up, when it is known how long connecting takes. The host's requests
//! ([`set_tags`](Roster::set_tags), [`report_unreachable`](Roster::report_unreachable)) may come at any
//! time, and so may [`handle_pause`](Roster::handle_pause) for a process that was paused,
//! [`handle_flood`](Roster::handle_flood) for a link on which nothing can be said and
//! [`handle_round_trip`](Roster::handle_round_trip) for each answer of the server, and
//! [`handle_notify`](Roster::handle_notify) for each to a NOTIFY. [`peer_infos`](Roster::peer_infos) tells what is known of each
//! peer, and [`goodbye`](Roster::goodbye) is the last call. What the roster is made of has a `deadline` where the roster has
//! `poll_timeout`.
//!
//! A call that finds nothing to do is harmless, and so is one that comes early. One that comes late delays what it would do. Time
//! never goes back. The rules are those of `ARCHITECTURE.md`, "Rules of membership".

mod bare;
mod corrections;
mod departures;
mod entry;
mod expiry;
mod lull;
mod membership;
mod planned;
pub(crate) mod queries;
mod review;
mod sessions;
mod tombstones;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::entry::{Entry, Heartbeat, Session, Standing};
use self::expiry::Expiry;
use self::lull::Lull;
use self::planned::Planned;
use self::queries::Queries;
use self::review::Review;
use self::tombstones::Tombstones;
use crate::core::beats::Beats;
use crate::core::digest::{Digest, History};
use crate::core::doubt::Doubt;
use crate::core::presence::{OwnName, Presence};
use crate::core::roster_sync::{ASK_ALL, RosterSync};
use crate::core::session_check::SessionCheck;
use crate::core::stillness::Stillness;
use crate::core::wire::{self, Body, Inbox, Message, Pid, RosterPart};
use crate::event::Reason;
use crate::jitter::Jitter;
use crate::peer::{Incarnation, Peer, PeerInfo};
use crate::round_trip::RoundTrip;

/// When everybody announces itself at once, the cluster may spend this many times its delivery budget.
pub(crate) const BURST: f64 = 90.0;

/// A member that is not known to be judged by its session may spend this many times the delivery budget: its announcements alone
/// tell that it is there.
pub(crate) const UNSEEN: f64 = 10.0;

/// A member that others take for gone announces itself within this time.
const REAPPEAR_WITHIN: Duration = Duration::from_millis(50);

/// The times and bounds that membership goes by.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The least time between this member's announcements.
    pub(crate) heartbeat: Duration,
    /// The deliveries a second that all announcements of the cluster may cause together.
    pub(crate) delivery_budget: u32,
    /// Whether to ask Postgres which sessions are gone.
    pub(crate) session_check: bool,
    /// Whether an observer asks who is there, which is all that it ever says.
    pub(crate) observer_asks: bool,
    /// The interval assumed of peers that announce none.
    pub(crate) bare_heartbeat: Duration,
    /// A peer expires after this many of its intervals.
    pub(crate) missed: u32,
    /// The most peers there can be.
    pub(crate) max_peers: usize,
    /// The most departed peers that are remembered.
    pub(crate) max_departed: usize,
}

/// What became different about a peer: exactly one event's worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) peer: Peer,
    pub(crate) kind: Kind,
}

/// What kind of change it is, and so which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was not there before, or was forgotten since.
    Joined,
    /// It is heard again after it had left.
    Returned,
    /// It is heard again after the host's own connection to it broke, and was there all the time.
    Recovered,
    /// It has other tags.
    Updated,
    /// It is not there any more.
    Left(Reason),
    /// It is a newer process of our own name.
    TookName,
}

/// What became of a message that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It told something about a peer, if only that it is still there.
    News,
    /// It is older than what is known, or about ourselves.
    Stale,
    /// It is about a newcomer, for which there is no room.
    Refused,
}

/// Who is there, as this participant sees it, and what it has to say.
#[derive(Debug)]
pub(crate) struct Roster {
    /// This participant as a member; `None` for an observer.
    presence: Option<Presence>,
    limits: Limits,
    jitter: Jitter,
    /// The peers that are there and those that left lately, by name.
    entries: HashMap<Arc<str>, Entry>,
    /// How many peers are there.
    present: usize,
    /// Those of them that announce themselves in full (rule 11).
    peers_digest: Digest,
    /// The members that were known lately.
    digests: History,
    /// Whether others know the same.
    doubt: Doubt,
    review: Option<Review>,
    /// The peer that each backend serves (rule 10).
    backends: HashMap<Pid, Arc<str>>,
    expiry: Expiry,
    /// Whether NOTIFY may have been held up lately.
    lull: Lull,
    /// Until then so much is said on the channel that some cannot keep up.
    loud_until: Option<Instant>,
    tombstones: Tombstones,
    corrections: Planned,
    /// The departures that those may have missed who were away.
    departures: Planned,
    /// All was heard that had arrived by then; `None` before the first link.
    heard_until: Option<Instant>,
    /// How far this participant is in learning who is there.
    sync: RosterSync,
    /// The queries of others that it has to answer.
    queries: Queries,
    session_check: SessionCheck,
    /// The peers whose sessions stand still (rule 12).
    stillness: Stillness,
    /// How it proves that its own session does not.
    beats: Beats,
    /// Whether those that look after sessions see what its own does, as far as it can tell.
    is_seen: bool,
    /// The whole process was stopped. Until what came by then was heard, peers that were stopped with it may have to say something
    /// still.
    paused: Option<Instant>,
    /// Some newcomer was refused since the link came up, so this participant does not know everybody (rule 9).
    incomplete: bool,
    /// Whether it may ask for sessions and wants to.
    may_check: bool,
    /// The peers that it found without a session, and when, which it has to tell all.
    gone_to_tell: VecDeque<(Instant, Arc<str>)>,
    changes: VecDeque<Change>,
    online: bool,
    /// The link is up, but nothing was said on it yet.
    new_link: bool,
    /// How long the server takes to answer, since the link came up.
    round_trip: RoundTrip,
}

impl Roster {
    /// A roster without a link, and with nobody in it. This participant is answered at `inbox`.
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
            peers_digest: Digest::default(),
            digests: History::default(),
            doubt: Doubt::default(),
            review: None,
            backends: HashMap::new(),
            expiry: Expiry::default(),
            lull: Lull::default(),
            tombstones: Tombstones::default(),
            corrections: Planned::default(),
            departures: Planned::default(),
            heard_until: None,
            sync: RosterSync::new(inbox),
            queries: Queries::default(),
            session_check: SessionCheck::default(),
            stillness: Stillness::default(),
            beats: Beats::default(),
            is_seen: false,
            paused: None,
            incomplete: false,
            may_check: false,
            gone_to_tell: VecDeque::new(),
            changes: VecDeque::new(),
            online: false,
            new_link: false,
            round_trip: RoundTrip::default(),
            loud_until: None,
        }
    }

    /// This member's incarnation, which may rise while it starts.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.presence.as_ref()?.incarnation()
    }

    /// Whether this participant announces nothing, and so is seen by nobody.
    pub(crate) fn is_observer(&self) -> bool {
        self.presence.is_none()
    }

    /// How often this member announces itself now. Every peer hears it, so with more peers it becomes rarer, and the
    /// cost to the database stays what it is (the idea of RFC 3550, 6.2). An announcement takes a round trip, and the next one
    /// goes out after it, so with a server that is far away it cannot be more frequent than that (rule 2).
    pub(crate) fn interval(&self) -> Duration {
        let times = if self.is_judged_by_session() {
            1.0
        } else {
            UNSEEN
        };
        self.time_for_all(times)
            .max(self.round_trip.twice())
            .clamp(self.limits.heartbeat, wire::MAX_DUE)
    }

    /// Whether others know by its session that this member is there, however rarely it announces itself (rule 12). Where
    /// they have other roles, this one cannot know, and assumes that they do not.
    pub(crate) fn is_judged_by_session(&self) -> bool {
        self.is_seen && self.promises_beats()
    }

    fn promises_beats(&self) -> bool {
        self.incarnation().is_some() && self.beats.are_kept()
    }

    /// How often this member makes a statement on its session at least.
    fn beat_interval(&self) -> Duration {
        self.limits.heartbeat.max(self.round_trip.twice())
    }

    /// The link works, with this backend of the server: the hello is due, and everybody gets a full grace period to be
    /// heard (rule 4).
    pub(crate) fn handle_link_up(&mut self, now: Instant, pid: Option<Pid>) {
        self.online = true;
        self.new_link = true;
        self.is_seen = false;
        // Connecting may have taken so long that it looked like a pause. It was none.
        self.paused = None;
        self.beats.handle_link_up(now);
        self.sync.set_away_since(self.heard_until);
        // This server may be nearer than the last, or farther.
        self.round_trip = RoundTrip::default();
        self.sync.set_patience(self.round_trip.twice());
        self.lull = Lull::default();
        self.grant_grace(now);
        self.set_may_check(true);
        self.incomplete = false;
        match &mut self.presence {
            Some(presence) if !presence.is_replaced() => presence.handle_link_up(now, pid),
            None if !self.limits.observer_asks => {}
            _ => self.sync.begin(now),
        }
    }

    /// The link is down: nobody expires until it is up again (rule 4).
    pub(crate) fn handle_link_down(&mut self) {
        self.online = false;
        self.beats.handle_link_down();
        self.sync.stop();
        self.doubt.stop();
        self.review = None;
        self.drop_duties();
        for entry in self.entries.values_mut() {
            // The server that we find next may number its backends anew, and we will not hear who leaves until then.
            entry.session = Session::Unknown;
            entry.said_by = None;
            entry.confirmed = false;
        }
        self.backends.clear();
        if let Some(presence) = &mut self.presence {
            presence.handle_link_down();
        }
    }

    /// Forgets what was to be done for others.
    fn drop_duties(&mut self) {
        self.corrections.clear();
        self.departures.clear();
        self.queries.clear();
        self.session_check.stop();
        self.stillness.stop();
        self.gone_to_tell.clear();
    }

    /// The whole process was stopped for a while: everybody gets a full grace period to be heard (rule 5). Peers may have been stopped
    /// with it, and go on a little later, so what others say of their silence is not believed for a heartbeat interval. Two members
    /// may say it of the same peer, the second only after this process went on.
    pub(crate) fn handle_pause(&mut self, now: Instant) {
        self.paused = Some(now + self.limits.heartbeat);
        self.grant_grace(now);
    }

    /// Everybody gets a full grace period to be heard.
    fn grant_grace(&mut self, now: Instant) {
        self.expiry.restart();
        self.stillness.stop();
        self.session_check.grant_grace(now);
        for entry in self.entries.values_mut() {
            if entry.standing.is_alive() {
                entry.until = now + entry.grace(self.limits.missed);
                self.expiry.expect(entry.until);
            }
        }
        self.limit_unconfirmed(now);
    }

    /// Shortens the grace period of each peer that was not heard, or told of, since the link came up, once it is known who is there.
    /// Its session is not known, so nobody would see that it has none, and its next announcement may be far off. If it promised
    /// beats it has as long as one that hangs, and the time to be back.
    fn limit_unconfirmed(&mut self, now: Instant) {
        if !self.sync.is_settled() {
            return;
        }
        let (missed, spread) = (self.limits.missed, self.spread());
        for entry in self.entries.values_mut() {
            if !entry.standing.is_alive() || entry.confirmed {
                continue;
            }
            if let Some(beat) = entry.beat() {
                let within = beat * missed + entry.back() + spread;
                entry.until = entry.until.min(now + within);
                self.expiry.expect(entry.until);
            }
        }
    }

    /// The server took this long to answer. One that stood still for a whole heartbeat kept others silent for as long, and
    /// some of them took their link for dead and must connect anew, so everybody gets a full grace period (rule 4). One that
    /// always takes as long is merely far away.
    pub(crate) fn handle_round_trip(&mut self, now: Instant, took: Duration) {
        if self.round_trip.is_unusual(took) {
            self.session_check.handle_slow_answer(now, took);
            if took >= self.limits.heartbeat {
                // Or this process was stopped in the middle of it.
                self.handle_pause(now);
            }
        }
        self.round_trip.handle(took);
        self.beats
            .handle_statement(now.checked_sub(took).unwrap_or(now));
        self.sync.set_patience(self.round_trip.twice());
    }

    /// Nothing can be said on the link now, since a flood waits in it: others must not judge this member by its session.
    pub(crate) fn handle_flood(&mut self, now: Instant) {
        if self.beats.withhold(now) {
            // In time for those who would miss a beat.
            self.announce_within(now, self.spread().min(self.limits.heartbeat));
        }
    }

    /// Whether an empty statement is due, because no other was made (rule 12).
    pub(crate) fn poll_beat(&self, now: Instant) -> bool {
        self.beat_deadline().is_some_and(|at| at <= now)
    }

    fn beat_deadline(&self) -> Option<Instant> {
        let speaks = self.presence.as_ref().is_some_and(Presence::speaks);
        let deadline = self.beats.deadline(self.beat_interval());
        deadline.filter(|_| speaks)
    }

    /// The host's own connection to this peer broke: its next sign of life is a heal, and its session's not standing still is one.
    /// It is also asked for soon whether its session is gone, and again until it is heard.
    pub(crate) fn report_unreachable(&mut self, now: Instant, peer: &Peer) {
        let Some(entry) = self.entries.get_mut(peer.name()) else {
            return;
        };
        if !entry.standing.is_alive() || entry.peer.incarnation() != peer.incarnation() {
            return;
        }
        entry.standing = Standing::Unreachable;
        let name = entry.peer.shared_name();
        let again = entry.beat();
        self.session_check
            .handle_unreachable(now, &name, again, &mut self.jitter);
    }

    /// This member would be back within this time if its session ended. Checkers wait for that long before they take a
    /// missing session for a death.
    pub(crate) fn set_back(&mut self, back: Duration) {
        if let Some(presence) = &mut self.presence {
            presence.set_back(back);
        }
    }

    /// The host wants other tags, as [`wire::encode_tags`] writes them. They are announced at once.
    pub(crate) fn set_tags(&mut self, tags: String, now: Instant) {
        if let Some(presence) = &mut self.presence {
            presence.set_tags(tags, now);
        }
        self.note_digest(now);
    }

    /// A message was heard on the channel, which came from the backend `sender`.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        sender: Pid,
        message: &Message<'_>,
    ) -> Outcome {
        let name = &*message.name;
        self.lull.handle_notify(now);
        if self.presence.as_ref().is_some_and(|p| p.name() == name) {
            self.handle_own_name(now, &message.body);
            return Outcome::Stale;
        }
        if let Body::Bye { incarnation, seq }
        | Body::Gone {
            incarnation, seq, ..
        } = message.body
        {
            let bound = self.limits.max_departed;
            self.sync.note_departure(name, incarnation, seq, bound);
            if self.knows_none_later(name, incarnation) {
                self.departures.cancel(name);
            }
        }
        match message.body {
            Body::Announce(ref announce) => {
                let heartbeat = Heartbeat {
                    // One whose announcements come from elsewhere than its session may be there without that.
                    pid: announce.pid.filter(|&pid| pid == sender),
                    age: None,
                    ..Heartbeat::of(announce)
                };
                let outcome = self.handle_heartbeat(now, name, &heartbeat);
                if outcome == Outcome::News {
                    self.compare(now, name, announce.digest);
                }
                match (outcome, announce.question) {
                    (Outcome::News, Some(question)) => self.handle_query(now, name, question, 0),
                    (Outcome::News, None) if announce.hello => self.announce_soon(now),
                    (Outcome::Stale, _) => self.correct(now, name, announce),
                    (Outcome::News | Outcome::Refused, _) => {}
                }
                outcome
            }
            Body::Bare => {
                let stranger = !self
                    .entries
                    .get(name)
                    .is_some_and(|e| e.standing.is_alive());
                let heartbeat = Heartbeat {
                    pid: self.session_of_bare(name, sender),
                    ..Heartbeat::bare(self.learn_interval(now, name))
                };
                let outcome = self.handle_heartbeat(now, name, &heartbeat);
                self.note_session_of_bare(name, sender);
                // A bare name has no hello; the first one stands for it.
                if stranger && outcome == Outcome::News {
                    self.announce_soon(now);
                }
                outcome
            }
            Body::Bye { incarnation, seq } => self.handle_bye(now, name, incarnation, seq),
            Body::Gone {
                incarnation,
                seq,
                why,
            } => self.handle_departure(now, name, (incarnation, seq), why),
            Body::Newer { incarnation } => {
                if self.knows_none_later(name, incarnation) {
                    self.corrections.cancel(name);
                }
                Outcome::News
            }
            Body::Query { question, attempt } => {
                self.handle_query(now, name, question, attempt);
                Outcome::News
            }
        }
    }

    /// A payload of an answer came to our inbox, from the backend `sender` (rule 6). One that nobody waits for any more, or that
    /// answers an earlier question, may name peers that have left since, and is ignored.
    pub(crate) fn handle_sync_part(
        &mut self,
        now: Instant,
        sender: Pid,
        part: &RosterPart<'_>,
    ) -> Outcome {
        self.lull.handle_notify(now);
        if !self.sync.awaits(part.question) {
            return Outcome::Stale;
        }
        for message in &part.members {
            let name = &*message.name;
            if self.presence.as_ref().is_some_and(|own| own.name() == name) {
                continue;
            }
            match message.body {
                Body::Announce(ref announce) if !self.sync.has_departed(name, announce) => {
                    let heartbeat = Heartbeat {
                        revives: self.review.is_some(),
                        ..Heartbeat::of(announce)
                    };
                    self.handle_heartbeat(now, name, &heartbeat);
                    self.confirm(now, name, announce);
                    self.review(sender, name, announce);
                }
                // A member that reviews was here all the time. What it did not hear itself it does not take from one witness.
                Body::Gone { why, .. } if self.review.is_some() && why != Reason::Goodbye => {}
                Body::Gone {
                    incarnation,
                    seq,
                    why,
                } => {
                    self.handle_departure(now, name, (incarnation, seq), why);
                }
                _ => {}
            }
            if let (Some(entry), Some(named)) = (self.entries.get(name), message.incarnation()) {
                if !entry.standing.is_alive() && entry.peer.incarnation() <= Some(named) {
                    self.sync.note_named(entry.peer.shared_name());
                }
            }
        }
        if self.sync.handle_part(now, sender, part.part, part.parts) {
            self.plan_unnamed_departures(now);
            match self.conclude_review(now, sender) {
                true => self.sync.ask_another(now),
                false => self.sync.settle(),
            }
            self.limit_unconfirmed(now);
        }
        self.begin_session_check(now);
        Outcome::News
    }

    /// Until then so much is said on the channel that some of those who hear it cannot keep up, and speak late (rule 5); `None` if
    /// it is not.
    pub(crate) fn handle_loud(&mut self, until: Option<Instant>) {
        self.loud_until = self.loud_until.max(until);
    }

    /// Everything that arrived before `now` was heard, and the link is known to have worked at `proven`. Peers that were
    /// overdue by then have left (rules 4 and 5). Returns whether others are overdue, so that the link must be proven anew.
    #[must_use]
    pub(crate) fn handle_timeout(&mut self, now: Instant, proven: Instant) -> bool {
        self.forget_long_gone(now);
        self.beats.handle_timeout(now);
        self.paused = self.paused.filter(|&paused| now < paused);
        if self.online {
            self.heard_until = self.heard_until.max(Some(now));
            let was_settled = self.sync.is_settled();
            self.sync.handle_heard(now, self.spread());
            if !was_settled {
                self.limit_unconfirmed(now);
            }
        }
        let due = self.expiry.deadline().is_some_and(|at| at <= now);
        due && self.online && self.expire(now, proven)
    }

    /// When there is next something to poll for, or a [`handle_timeout`](Self::handle_timeout) to call. `None` while the link
    /// is down.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if !self.online {
            return None;
        }
        let announcement = self.presence.as_ref().and_then(Presence::deadline);
        let gone = self.gone_to_tell.front().map(|(since, _)| *since);
        [
            self.expiry.deadline(),
            announcement,
            self.corrections.deadline(),
            self.departures.deadline(),
            self.queries.deadline(),
            gone,
            self.sync.deadline(),
            self.session_check.deadline(),
            self.beat_deadline(),
            self.doubt.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next message that is to be sent to all now.
    pub(crate) fn poll_announcement(&mut self, now: Instant) -> Option<Message<'_>> {
        // First, since what does not fit into this statement waits for the next, and peers wait for this.
        if self.is_announcement_due(now) {
            let (interval, away) = (self.interval(), self.away(now));
            // A member that does not know everybody yet says no digest.
            let digest = Some(self.digest()).filter(|_| self.sync.is_settled());
            let beat = self.promises_beats().then(|| self.beat_interval());
            let presence = self.presence.as_mut()?;
            presence.set_beat(beat);
            if presence.asks_when_polled(now) {
                self.review = None;
                let question = self.sync.ask_by_hello(now, away);
                presence.set_question(question);
            }
            return presence.poll(now, interval, digest, &mut self.jitter);
        }
        self.due_correction(now)
            .or_else(|| self.due_gone())
            .or_else(|| self.due_departure(now))
            .or_else(|| self.due_query(now))
    }

    fn is_announcement_due(&self, now: Instant) -> bool {
        let deadline = self.presence.as_ref().and_then(Presence::deadline);
        deadline.is_some_and(|at| at <= now)
    }

    /// What [`poll_announcement`](Self::poll_announcement) returned has gone out, so a query in it may be answered from now on, and
    /// others know this member. What was polled and is not reported may have gone out or not.
    pub(crate) fn handle_sent(&mut self, now: Instant) {
        self.lull.handle_notify(now);
        self.sync.handle_sent(now);
        if let Some(presence) = &mut self.presence {
            presence.handle_sent(now);
        }
        // What held the hello up, such as another transaction, held up others, too (rule 4).
        if std::mem::take(&mut self.new_link) {
            self.grant_grace(now);
        }
    }

    /// What was polled has not gone out. What it said of this member is to be said again. What it said of others is left to the other
    /// members that know it.
    pub(crate) fn handle_not_sent(&mut self, now: Instant) {
        if let Some(presence) = &mut self.presence {
            presence.handle_not_sent(now);
        }
    }

    /// The message that is to be sent last, if there is one (rule 7).
    pub(crate) fn goodbye(&mut self) -> Option<Message<'_>> {
        self.presence.as_mut()?.goodbye()
    }

    /// The next change, in the order in which they happened.
    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    fn handle_own_name(&mut self, now: Instant, body: &Body<'_>) {
        let Some(presence) = &mut self.presence else {
            return;
        };
        let meaning = presence.handle_own_name(now, body, &mut self.jitter);
        self.note_digest(now);
        match (meaning, body) {
            (OwnName::Unseen, _) => self.announce_within(now, REAPPEAR_WITHIN),
            (OwnName::Taken, Body::Announce(theirs)) => {
                let Some(name) = self.presence.as_ref().map(|own| Arc::from(own.name())) else {
                    return;
                };
                let peer = Peer::new(name, Some(theirs.incarnation), theirs.tags.to_tags());
                self.changed(peer, Kind::TookName);
                self.drop_duties();
            }
            (OwnName::Nothing | OwnName::Taken, _) => {}
        }
    }

    /// The peers that are there, with what is known of each, in the order of their names.
    pub(crate) fn peer_infos(&self) -> Vec<PeerInfo> {
        let info = |entry: &Entry| PeerInfo {
            peer: entry.peer.clone(),
            heard: entry.last_received(self.limits.missed),
            interval: Duration::from_millis(entry.due.into()),
            backend: entry.session.pid().map(Pid::get),
            back: entry.peer.incarnation().map(|_| entry.back()),
        };
        let mut infos: Vec<_> = self.alive().map(info).collect();
        infos.sort_unstable_by(|a, b| a.peer.name().cmp(b.peer.name()));
        infos
    }

    fn due_query(&mut self, now: Instant) -> Option<Message<'static>> {
        self.begin_review(now);
        let attempt = self.sync.poll(now, self.spread());
        if !self.sync.is_open() {
            self.review = None;
        }
        self.begin_session_check(now);
        let attempt = attempt?;
        if attempt == ASK_ALL {
            // Those who hear this ask no more, and expect everybody to announce itself.
            self.announce_soon(now);
        }
        let away = self.away(now);
        if let (ASK_ALL, Some(away)) = (attempt, away) {
            self.plan_departures(now, away);
        }
        let speaks = self.presence.as_ref().filter(|p| p.speaks());
        let name = speaks.map_or_else(String::new, |presence| presence.name().to_owned());
        let question = self.sync.question(away);
        Some(Message {
            name: name.into(),
            body: Body::Query { question, attempt },
        })
    }

    /// The peers that are there.
    fn alive(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.values();
        entries.filter(|entry| entry.standing.is_alive())
    }

    /// Announces this member soon, but not all at once with the others.
    fn announce_soon(&mut self, now: Instant) {
        self.announce_within(now, self.spread());
    }

    fn announce_within(&mut self, now: Instant, time: Duration) {
        if let Some(presence) = &mut self.presence {
            presence.announce_within(now, time, &mut self.jitter);
        }
    }

    /// The time within which everybody may announce itself once when there is reason to.
    fn spread(&self) -> Duration {
        let few = Duration::from_millis(self.present as u64);
        self.time_for_all(BURST).max(few)
    }

    /// How long it takes to deliver an announcement of each to each, at this many times the delivery budget.
    fn time_for_all(&self, times: f64) -> Duration {
        let members = (self.present + 1) as f64;
        let seconds = members * members / f64::from(self.limits.delivery_budget) / times;
        Duration::from_secs_f64(seconds).min(wire::MAX_DUE)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod checks;

#[cfg(test)]
mod tests;
