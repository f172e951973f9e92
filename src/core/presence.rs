//! What this participant announces of itself, and when. Pure: time is a parameter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::wire::{Announce, Body, Inbox, LEAST_BACK, MOST_BACK, Message, Pid, WireTags};
use crate::jitter::Jitter;
use crate::peer::Incarnation;

/// For this long after its first hello a participant that hears a higher incarnation of its own name takes it for a
/// predecessor with a better clock, not for a successor.
const STARTING: Duration = Duration::from_secs(2);

/// A participant supersedes another incarnation by up to this much, at random: two that supersede the same one must not get
/// the same incarnation.
const STEP: Duration = Duration::from_secs(1);

/// How a participant names itself on the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// In full: incarnation, sequence, tags.
    Full,
    /// By its name alone, as libcluster_postgres does.
    Bare,
}

/// This participant. An observer has none.
#[derive(Debug)]
pub(crate) struct Presence {
    name: Arc<str>,
    incarnation: Incarnation,
    style: Style,
    /// The tags, as they go into an announcement.
    tags: String,
    /// Where it is answered.
    inbox: Inbox,
    /// The backend of its session.
    pid: Option<Pid>,
    /// Within this time it would be back if its session ended.
    back: Duration,
    seq: u64,
    stage: Stage,
    schedule: Schedule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first hello.
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
    /// participants that start together, or answer together, should not go on in step.
    regular: Option<Instant>,
    /// The next announcement is a hello.
    hello: bool,
    /// When the last one went out.
    last: Option<Instant>,
    /// The time within which it promised the next one.
    due: Duration,
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
        inbox: Inbox,
    ) -> Self {
        Self {
            name,
            incarnation,
            style,
            tags,
            inbox,
            pid: None,
            back: LEAST_BACK,
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

    /// The link is up, with this backend, so a hello is due.
    pub(crate) fn handle_link_up(&mut self, now: Instant, pid: Option<Pid>) {
        self.pid = pid;
        self.say_hello(now);
    }

    /// The link is down, so nothing is due.
    pub(crate) fn handle_link_down(&mut self) {
        self.schedule.next = None;
    }

    /// Announces from now on that it would be back within this time if its session ended.
    pub(crate) fn set_back(&mut self, back: Duration) {
        self.back = back.clamp(LEAST_BACK, MOST_BACK);
    }

    /// Announces other tags at once.
    pub(crate) fn set_tags(&mut self, tags: String, now: Instant) {
        self.tags = tags;
        self.announce_by(now);
    }

    /// Announces this participant within this time, and no more often than that: a crowd that starts at once must not make
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

    /// Whether this participant has announced itself in full, and goes on to.
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
                let newborn = theirs.hello && theirs.seq == 1;
                let predecessor = !newborn && self.is_starting(now);
                if predecessor && self.supersede(now, theirs.incarnation, jitter) {
                    return OwnName::Nothing;
                }
                self.stage = Stage::Replaced;
                self.schedule = Schedule::default();
                OwnName::Taken
            }
            Body::Announce(ref theirs) if theirs.incarnation < self.incarnation => OwnName::Unseen,
            // It is only remembered; the name is ours.
            Body::Bye { incarnation, .. } | Body::Newer { incarnation }
                if incarnation > self.incarnation =>
            {
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
        self.seq = 0;
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

    /// The announcement that is due, if one is, with the time until the next.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        interval: Duration,
        jitter: &mut Jitter,
    ) -> Option<Message<'_>> {
        self.schedule.next.filter(|&next| next <= now)?;
        let hello = std::mem::take(&mut self.schedule.hello);
        if hello {
            self.stage = match self.stage {
                Stage::New => Stage::Starting {
                    until: now + STARTING,
                },
                Stage::Starting { until } if now >= until => Stage::Running,
                same => same,
            };
        }
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
            Style::Full => self.announcement(hello),
        })
    }

    /// The last announcement, as it goes into an answer.
    pub(crate) fn last_announcement(&self) -> Message<'_> {
        self.announcement(false)
    }

    fn announcement(&self, hello: bool) -> Message<'_> {
        self.message(Body::Announce(Announce {
            hello,
            incarnation: self.incarnation,
            seq: self.seq,
            due: self.schedule.due,
            pid: self.pid,
            inbox: hello.then_some(self.inbox),
            age: None,
            back: self.back,
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
