//! What this participant announces of itself, and when. Pure: time is a parameter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::jitter::Jitter;
use crate::peer::Incarnation;
use crate::wire::{Announce, Body, Message, WireTags};

/// After a hello the announcement is repeated this soon, whatever the interval: it closes the races of participants
/// that start at the same time.
const EARLY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// For this long after its first hello a participant that hears a higher incarnation of its own name takes it for a
/// predecessor with a better clock, not for a successor.
const STARTING: Duration = Duration::from_secs(2);

/// A participant steps over another incarnation by up to this much, at random: two that step over the same one must not
/// meet.
const STEP: Duration = Duration::from_secs(1);

/// A hello is answered within this much for each peer, up to [`MAX_ANSWER`], and no member answers more often than that: a
/// crowd that starts at once must not make everybody answer everybody.
const ANSWER_PER_PEER: Duration = Duration::from_millis(1);
const MAX_ANSWER: Duration = Duration::from_millis(250);

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
    /// As they go into an announcement.
    tags: String,
    heartbeat: Duration,
    seq: u64,
    stage: Stage,
    schedule: Schedule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the first hello.
    New,
    /// The first hello is out; until then, see [`STARTING`].
    Starting {
        until: Instant,
    },
    Running,
    /// A newer process has our name: never announce again.
    Replaced,
}

#[derive(Debug, Default)]
struct Schedule {
    /// When the next announcement is due; `None` while the link is down.
    next: Option<Instant>,
    /// The next announcement is a hello.
    hello: bool,
    /// When the last one went out.
    last: Option<Instant>,
    /// When the repetitions after the hello are due, the next one last.
    early: Vec<Instant>,
}

/// What a message under our own name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnName {
    /// Nothing new: it is ours, or we have dealt with it.
    Nothing,
    /// An older process of our name is still there, and must hear of us.
    Older,
    /// A newer process has taken it.
    Taken,
}

impl Presence {
    pub(crate) fn new(
        name: Arc<str>,
        incarnation: Incarnation,
        style: Style,
        tags: String,
        heartbeat: Duration,
    ) -> Self {
        Self {
            name,
            incarnation,
            style,
            tags,
            heartbeat,
            seq: 0,
            stage: Stage::New,
            schedule: Schedule::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `None` for a bare name, which announces none.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        match self.style {
            Style::Full => Some(self.incarnation),
            Style::Bare => None,
        }
    }

    pub(crate) fn link_up(&mut self, now: Instant) {
        self.say_hello(now);
    }

    pub(crate) fn link_down(&mut self) {
        self.schedule.next = None;
    }

    /// Announces other tags at once.
    pub(crate) fn set_tags(&mut self, tags: String, now: Instant) {
        self.tags = tags;
        self.announce_by(now);
    }

    /// Lets a newcomer know us, soon. `peers` is how many there are.
    pub(crate) fn answer(&mut self, now: Instant, peers: usize, jitter: &mut Jitter) {
        let window = ANSWER_PER_PEER
            .saturating_mul(u32::try_from(peers).unwrap_or(u32::MAX))
            .clamp(ANSWER_PER_PEER, MAX_ANSWER);
        let soon = now + jitter.between(0.0, window);
        let earliest = self.schedule.last.map_or(soon, |last| last + window);
        self.announce_by(soon.max(earliest));
    }

    /// Somebody else speaks under our name, or we hear ourselves (rule 1).
    pub(crate) fn heard_own_name(
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
                if predecessor && self.step_over(now, theirs.incarnation, jitter) {
                    return OwnName::Nothing;
                }
                self.stage = Stage::Replaced;
                self.schedule = Schedule::default();
                OwnName::Taken
            }
            Body::Announce(ref theirs) if theirs.incarnation < self.incarnation => OwnName::Older,
            // It is only remembered; the name is ours.
            Body::Bye { incarnation, .. } | Body::Newer { incarnation }
                if incarnation > self.incarnation =>
            {
                self.step_over(now, incarnation, jitter);
                OwnName::Nothing
            }
            Body::Announce(_) | Body::Bye { .. } | Body::Newer { .. } | Body::Bare => {
                OwnName::Nothing
            }
        }
    }

    /// Takes an incarnation above that one and starts anew with it; `false` if there is none.
    fn step_over(&mut self, now: Instant, other: Incarnation, jitter: &mut Jitter) -> bool {
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

    /// When [`poll`](Self::poll) next has something to say.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.schedule.next
    }

    /// The announcement that is due, if one is.
    pub(crate) fn poll(&mut self, now: Instant, jitter: &mut Jitter) -> Option<Message<'_>> {
        self.schedule.next.filter(|&next| next <= now)?;
        let hello = std::mem::take(&mut self.schedule.hello);
        if hello {
            self.schedule.early = EARLY.iter().rev().map(|&early| now + early).collect();
            self.stage = match self.stage {
                Stage::New => Stage::Starting {
                    until: now + STARTING,
                },
                Stage::Starting { until } if now >= until => Stage::Running,
                same => same,
            };
        }
        self.schedule.early.retain(|&early| early > now);
        let regular = now + jitter.between(0.95, self.heartbeat);
        let early = self.schedule.early.last().copied();
        self.schedule.next = Some(early.map_or(regular, |early| early.min(regular)));
        self.schedule.last = Some(now);
        self.seq += 1;
        let body = match self.style {
            Style::Bare => Body::Bare,
            Style::Full => Body::Announce(Announce {
                hello,
                incarnation: self.incarnation,
                seq: self.seq,
                due: self.heartbeat,
                tags: WireTags::encoded(&self.tags),
            }),
        };
        Some(self.message(body))
    }

    /// The last message; `None` if there is nothing to take back, or no way to (a bare name cannot say goodbye).
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
