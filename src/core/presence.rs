//! What this member announces of itself, and when. Pure: time is a parameter.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::digest::Digest;
use crate::core::wire::{
    self, Announce, Body, LEAST_BACK, MOST_BACK, Message, Pid, Question, WireTags,
};
use crate::event::Reason;
use crate::jitter::Jitter;
use crate::peer::Incarnation;

/// For this long after its first hello a member that hears a higher incarnation of its own name takes it for a
/// predecessor with a better clock, not for a successor.
const STARTING: Duration = Duration::from_secs(2);

/// A member supersedes another incarnation by up to this much, at random: two that supersede the same one must not get
/// the same incarnation.
const STEP: Duration = Duration::from_secs(1);

/// What a member said in this many sessions before is known as its own if it comes late.
const REMEMBERED_SESSIONS: usize = 16;

/// How a member names itself on the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// In full: incarnation, sequence, tags.
    Full,
    /// By its name alone, as libcluster_postgres does.
    Bare,
}

/// This member. An observer has none.
#[derive(Debug)]
pub(crate) struct Presence {
    name: Arc<str>,
    incarnation: Incarnation,
    style: Style,
    /// The tags, as they go into an announcement.
    tags: String,
    /// What it adds to the digest of those who know it.
    fingerprint: u64,
    /// What its next hello asks.
    question: Option<Question>,
    /// The backend of its session.
    pid: Option<Pid>,
    /// The backends of its sessions, the last of them. What comes from others is not its own.
    own_pids: VecDeque<Option<Pid>>,
    /// Within this time it would be back if its session ended.
    back: Duration,
    /// Whether it asks Postgres which sessions are gone.
    checks: bool,
    /// It makes a statement on its session at least this often; `None` if it may make none.
    beat: Option<Duration>,
    seq: u64,
    stage: Stage,
    schedule: Schedule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No hello has got out.
    New,
    /// The first hello is out. Until then a higher incarnation may be a predecessor's, see [`STARTING`].
    Starting {
        until: Instant,
    },
    Running,
    /// A newer process has our name, so this one never announces itself again.
    Replaced,
}

#[derive(Debug, Default)]
struct Schedule {
    /// When the next announcement is due; `None` while the link is down.
    next: Option<Instant>,
    /// When the next announcement is due if nothing brings it forward. What brings it forward must not move this time:
    /// members that start together, or answer together, should not go on in step.
    regular: Option<Instant>,
    /// The next announcement is a hello.
    hello: bool,
    /// What was polled, and is not known to have got out.
    in_flight: InFlight,
    /// When the last one went out.
    last: Option<Instant>,
    /// The time within which it promised the next one.
    due: Duration,
}

/// An announcement on its way to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum InFlight {
    #[default]
    Nothing,
    Beat,
    Hello,
}

/// What a message under our own name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnName {
    /// It is our own message, or we have dealt with it.
    Nothing,
    /// An older process of our name is still there, or we are taken for gone: we must be heard.
    Unseen,
    /// A newer process has taken our name.
    Taken,
}

impl Presence {
    pub(crate) fn new(
        name: Arc<str>,
        incarnation: Incarnation,
        style: Style,
        tags: String,
    ) -> Self {
        Self {
            fingerprint: wire::fingerprint(&name, incarnation, &tags),
            name,
            incarnation,
            style,
            tags,
            question: None,
            pid: None,
            own_pids: VecDeque::new(),
            back: LEAST_BACK,
            checks: true,
            beat: None,
            seq: 0,
            stage: Stage::New,
            schedule: Schedule::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// This process's start; `None` for a bare name, which announces none.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        match self.style {
            Style::Full => Some(self.incarnation),
            Style::Bare => None,
        }
    }

    /// What this member adds to the digest of those who know it; `None` for a bare name.
    pub(crate) fn fingerprint(&self) -> Option<u64> {
        self.incarnation().map(|_| self.fingerprint)
    }

    /// The link is up, with this backend, so a hello is due.
    pub(crate) fn handle_link_up(&mut self, now: Instant, pid: Option<Pid>) {
        self.pid = pid;
        if self.own_pids.back() != Some(&pid) {
            self.own_pids.push_back(pid);
        }
        if self.own_pids.len() > REMEMBERED_SESSIONS {
            self.own_pids.pop_front();
        }
        self.say_hello(now);
    }

    /// The link is down, so nothing is due.
    pub(crate) fn handle_link_down(&mut self) {
        self.schedule.next = None;
        self.schedule.in_flight = InFlight::Nothing;
    }

    /// Announces from now on that it would be back within this time if its session ended.
    pub(crate) fn set_back(&mut self, back: Duration) {
        self.back = back.clamp(LEAST_BACK, MOST_BACK);
    }

    /// Announces from now on whether it asks Postgres which sessions are gone.
    pub(crate) fn set_checks(&mut self, checks: bool) {
        self.checks = checks;
    }

    /// Announces from now on that it makes a statement on its session at least this often, or that it may make none.
    pub(crate) fn set_beat(&mut self, beat: Option<Duration>) {
        self.beat = beat;
    }

    /// The next hello asks this.
    pub(crate) fn set_question(&mut self, question: Question) {
        self.question = Some(question);
    }

    /// Announces other tags at once.
    pub(crate) fn set_tags(&mut self, tags: String, now: Instant) {
        self.tags = tags;
        self.fingerprint = wire::fingerprint(&self.name, self.incarnation, &self.tags);
        self.announce_by(now);
    }

    /// Announces this member within this time, and no more often than that: a crowd that starts at once must not make
    /// everybody answer everybody.
    pub(crate) fn announce_within(&mut self, now: Instant, spread: Duration, jitter: &mut Jitter) {
        let soon = now + jitter.between(0.0, spread);
        let earliest = self.schedule.last.map_or(soon, |last| last + spread);
        self.announce_by(soon.max(earliest));
    }

    /// Whether a newer process has our name.
    pub(crate) fn is_replaced(&self) -> bool {
        self.stage == Stage::Replaced
    }

    /// Whether this member has announced itself in full, and goes on to.
    pub(crate) fn speaks(&self) -> bool {
        let announced = matches!(self.stage, Stage::Starting { .. } | Stage::Running);
        announced && self.style == Style::Full && self.schedule.next.is_some()
    }

    /// Somebody else speaks under our name, or we hear ourselves (rule 1).
    pub(crate) fn handle_own_name(
        &mut self,
        now: Instant,
        body: &Body<'_>,
        jitter: &mut Jitter,
    ) -> OwnName {
        // Bare names have no incarnations, so no message of that name is newer than ours.
        if self.style == Style::Bare || self.stage == Stage::Replaced {
            return OwnName::Nothing;
        }
        match *body {
            Body::Announce(ref theirs) if theirs.incarnation > self.incarnation => {
                // A first hello comes from a process that started after us. Anything else, while we are starting, comes
                // from one that was there before: our clock went back.
                let predecessor = !theirs.newborn && self.is_starting(now);
                if predecessor && self.supersede(now, theirs.incarnation, jitter) {
                    return OwnName::Nothing;
                }
                self.stage = Stage::Replaced;
                self.schedule = Schedule::default();
                OwnName::Taken
            }
            Body::Announce(ref theirs) if theirs.incarnation < self.incarnation => OwnName::Unseen,
            // A twin: the clone of a machine, or another start in the same microsecond. Nobody could tell the two apart.
            Body::Announce(ref theirs) if !self.own_pids.contains(&theirs.pid) => {
                self.supersede(now, self.incarnation, jitter);
                OwnName::Nothing
            }
            // It is only remembered, or somebody has said goodbye for us; the name is ours.
            Body::Bye { incarnation, .. }
            | Body::Gone {
                incarnation,
                why: Reason::Goodbye,
                ..
            } if incarnation >= self.incarnation => {
                self.supersede(now, incarnation, jitter);
                OwnName::Nothing
            }
            Body::Newer { incarnation } if incarnation > self.incarnation => {
                self.supersede(now, incarnation, jitter);
                OwnName::Nothing
            }
            // Our session is taken for gone, but here we are.
            Body::Gone { incarnation, .. } if incarnation == self.incarnation => OwnName::Unseen,
            Body::Announce(_)
            | Body::Bye { .. }
            | Body::Newer { .. }
            | Body::Gone { .. }
            | Body::Query { .. }
            | Body::Bare => OwnName::Nothing,
        }
    }

    /// Takes an incarnation above that one, and starts anew with it. Returns `false` if there is none above it.
    fn supersede(&mut self, now: Instant, other: Incarnation, jitter: &mut Jitter) -> bool {
        let Some(higher) = other.later(jitter.between(0.0, STEP)) else {
            return false;
        };
        self.incarnation = higher;
        self.fingerprint = wire::fingerprint(&self.name, higher, &self.tags);
        self.seq = 0;
        self.stage = Stage::New;
        self.say_hello(now);
        true
    }

    fn is_starting(&self, now: Instant) -> bool {
        match self.stage {
            Stage::New => true,
            Stage::Starting { until } => now < until,
            Stage::Running | Stage::Replaced => false,
        }
    }

    /// Whether [`poll`](Self::poll) will return a hello that asks who is there. A bare name asks nothing.
    pub(crate) fn asks_when_polled(&self, now: Instant) -> bool {
        let due = self.deadline().is_some_and(|next| next <= now);
        due && self.schedule.hello && self.style == Style::Full
    }

    /// When [`poll`](Self::poll) next has something to say.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.schedule.next
    }

    /// The announcement that is due, if one is, with the time until the next, and the members that are known.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        interval: Duration,
        digest: Option<Digest>,
        jitter: &mut Jitter,
    ) -> Option<Message<'_>> {
        self.schedule.next.filter(|&next| next <= now)?;
        let hello = std::mem::take(&mut self.schedule.hello);
        let sent = if hello {
            InFlight::Hello
        } else {
            InFlight::Beat
        };
        self.schedule.in_flight = sent.max(self.schedule.in_flight);
        // After a hello, or with a longer interval, at any time within it: those that come to it together, as after a restart
        // of the server, should not go on in step.
        let apart = hello || interval > self.schedule.due.mul_f64(1.1);
        let least = if apart { 0.0 } else { 0.95 };
        let later = self.schedule.regular.filter(|&at| !apart && at > now);
        let regular = later.unwrap_or_else(|| now + jitter.between(least, interval));
        let regular = regular.min(now + interval);
        self.schedule.regular = Some(regular);
        self.schedule.next = Some(regular);
        self.schedule.last = Some(now);
        self.schedule.due = interval;
        self.seq += 1;
        Some(match self.style {
            Style::Bare => self.message(Body::Bare),
            Style::Full => self.announcement(hello, digest.filter(|_| !hello)),
        })
    }

    /// What was polled has got out.
    pub(crate) fn handle_sent(&mut self, now: Instant) {
        if std::mem::take(&mut self.schedule.in_flight) != InFlight::Hello {
            return;
        }
        self.stage = match self.stage {
            Stage::New => Stage::Starting {
                until: now + STARTING,
            },
            Stage::Starting { until } if now >= until => Stage::Running,
            same => same,
        };
    }

    /// What was polled has not got out: a hello, or a beat that may have had other tags, is due still.
    pub(crate) fn handle_not_sent(&mut self, now: Instant) {
        match std::mem::take(&mut self.schedule.in_flight) {
            InFlight::Hello if self.schedule.next.is_some() => self.say_hello(now),
            InFlight::Beat => self.announce_by(now),
            InFlight::Hello | InFlight::Nothing => {}
        }
    }

    /// The last announcement, as it goes into an answer.
    pub(crate) fn last_announcement(&self) -> Message<'_> {
        self.announcement(false, None)
    }

    fn announcement(&self, hello: bool, digest: Option<Digest>) -> Message<'_> {
        self.message(Body::Announce(Announce {
            hello,
            newborn: hello && self.stage == Stage::New,
            incarnation: self.incarnation,
            seq: self.seq,
            due: self.schedule.due,
            pid: self.pid,
            question: self.question.filter(|_| hello),
            age: None,
            back: self.back,
            checks: self.checks,
            beat: self.beat,
            digest,
            tags: WireTags::encoded(&self.tags),
        }))
    }

    /// The last message (rule 7). `None` if nothing was announced, or for a bare name, which cannot say goodbye.
    pub(crate) fn goodbye(&mut self) -> Option<Message<'_>> {
        if self.style == Style::Bare || matches!(self.stage, Stage::New | Stage::Replaced) {
            return None;
        }
        self.seq += 1;
        self.schedule = Schedule::default();
        Some(self.message(Body::Bye {
            incarnation: self.incarnation,
            seq: self.seq,
        }))
    }

    fn message<'a>(&'a self, body: Body<'a>) -> Message<'a> {
        Message {
            name: (&*self.name).into(),
            body,
        }
    }

    fn say_hello(&mut self, now: Instant) {
        if self.stage != Stage::Replaced {
            self.schedule.next = Some(now);
            self.schedule.hello = true;
        }
    }

    /// Brings the next announcement forward; while the link is down there is none.
    fn announce_by(&mut self, at: Instant) {
        if let Some(next) = &mut self.schedule.next {
            *next = at.min(*next);
        }
    }
}
