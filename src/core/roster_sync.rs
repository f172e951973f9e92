//! Asking who is there (rule 6): a newcomer, and a participant that was away, is told by one member, not by all. Pure: time is a
//! parameter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::wire::{Announce, Inbox};
use crate::peer::Incarnation;

/// How long an answer may take before the next in rank is asked.
const PATIENCE: Duration = Duration::from_millis(200);

/// The attempt that asks everybody. Each one before it asks another member, since one may have died lately, or be busy.
pub(crate) const ASK_ALL: u64 = 3;

/// How far this participant is in learning who is there.
#[derive(Debug)]
pub(crate) struct RosterSync {
    inbox: Inbox,
    stage: Stage,
    /// A query was polled, and may not have gone out yet.
    in_flight: bool,
    /// How many payloads of the answer have come.
    parts: u64,
    /// The peers that were said to have left while an answer is awaited, which may have been written before: the start that
    /// left, and its last message.
    departures: HashMap<Arc<str>, (Incarnation, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Without a link there is nobody to ask.
    Idle,
    /// This attempt is the next, at the time `at`.
    Asking {
        attempt: u64,
        at: Instant,
    },
    /// Everybody was asked at the time `since`, and will have been heard at the time `until`.
    Listening {
        since: Instant,
        until: Instant,
    },
    Settled,
}

impl RosterSync {
    pub(crate) fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            stage: Stage::Idle,
            in_flight: false,
            parts: 0,
            departures: HashMap::new(),
        }
    }

    pub(crate) fn inbox(&self) -> Inbox {
        self.inbox
    }

    /// Whether this participant knows which peers are there, and so may answer others.
    pub(crate) fn is_settled(&self) -> bool {
        self.stage == Stage::Settled
    }

    /// Whether nobody is left to be asked, though not all may have been heard yet.
    pub(crate) fn has_asked_all(&self) -> bool {
        matches!(self.stage, Stage::Listening { .. } | Stage::Settled)
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Asking { .. } | Stage::Listening { .. })
    }

    /// Asks, as soon as it is polled.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.ask_next(0, now);
        self.parts = 0;
    }

    /// The hello that goes out now is the first attempt.
    pub(crate) fn asked_by_hello(&mut self, now: Instant) {
        self.ask_next(1, now + PATIENCE);
        self.in_flight = true;
        self.parts = 0;
    }

    fn ask_next(&mut self, attempt: u64, at: Instant) {
        self.stage = Stage::Asking { attempt, at };
    }

    /// The link is down, or this participant is not to ask any more.
    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Idle;
        self.in_flight = false;
        self.departures.clear();
    }

    fn settle(&mut self) {
        self.stage = Stage::Settled;
        self.departures.clear();
    }

    /// A peer was said to have left. No more than `bound` of them are remembered.
    pub(crate) fn note_departure(
        &mut self,
        name: &str,
        incarnation: Incarnation,
        seq: u64,
        bound: usize,
    ) {
        if self.is_open() && self.departures.len() < bound {
            let last = self.departures.entry(Arc::from(name));
            let last = last.or_insert((incarnation, seq));
            *last = (incarnation, seq).max(*last);
        }
    }

    /// Whether a peer was said to have left after it announced this.
    pub(crate) fn has_departed(&self, name: &str, announce: &Announce<'_>) -> bool {
        let last = self.departures.get(name);
        last.is_some_and(|last| *last >= (announce.incarnation, announce.seq))
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn departures(&self) -> usize {
        self.departures.len()
    }

    /// When [`poll`](Self::poll) next has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asking { at, .. } | Stage::Listening { until: at, .. } => Some(at),
            Stage::Idle | Stage::Settled => None,
        }
    }

    /// The attempt to make now, if one is due. After the last one everybody is heard within `spread`.
    pub(crate) fn poll(&mut self, now: Instant, spread: Duration) -> Option<u64> {
        match self.stage {
            Stage::Asking { attempt, at } if at <= now => {
                if attempt == ASK_ALL {
                    self.listen(now, spread);
                } else {
                    self.ask_next(attempt + 1, now + PATIENCE);
                }
                self.in_flight = true;
                return Some(attempt);
            }
            Stage::Listening { since, until } if until <= now => {
                // The spread may have grown: the more are heard, the longer they take.
                self.listen(since, spread);
                if self.deadline() <= Some(now) {
                    self.settle();
                }
            }
            Stage::Idle | Stage::Asking { .. } | Stage::Listening { .. } | Stage::Settled => {}
        }
        None
    }

    fn listen(&mut self, since: Instant, spread: Duration) {
        let until = since + PATIENCE + spread;
        self.stage = Stage::Listening { since, until };
    }

    /// What was polled has gone out. A query can be answered only from now on.
    pub(crate) fn handle_sent(&mut self, now: Instant) {
        if !std::mem::take(&mut self.in_flight) {
            return;
        }
        match &mut self.stage {
            Stage::Asking { at, .. } => *at = now + PATIENCE,
            Stage::Listening { since, until } => {
                *until += now.saturating_duration_since(*since);
                *since = now;
            }
            Stage::Idle | Stage::Settled => {}
        }
    }

    /// Somebody asked everybody: what they answer is all there is to know.
    pub(crate) fn handle_query_to_all(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Asking { .. }) {
            let (since, until) = (now, now);
            self.stage = Stage::Listening { since, until };
            self.in_flight = false;
        }
    }

    /// A payload of an answer has come. They come in order, and those of one answer without others between.
    pub(crate) fn handle_part(&mut self, part: u64, parts: u64) {
        self.parts = match part {
            1 => 1,
            _ if part == self.parts + 1 => part,
            _ => 0,
        };
        if self.parts == parts {
            self.settle();
        }
    }
}
