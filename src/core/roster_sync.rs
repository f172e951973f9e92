//! Asking who is there: a newcomer, and whoever was away, is told by one member, not by all. Pure: time is a parameter.

use std::time::{Duration, Instant};

use crate::core::wire::Inbox;

/// How long an answer may take before the next in rank is asked.
const PATIENCE: Duration = Duration::from_millis(200);

/// The attempt that asks everybody. With those before it somebody else is asked each: one that died lately, or is busy.
pub(crate) const ASK_ALL: u64 = 3;

/// How far this participant is in learning who is there.
#[derive(Debug)]
pub(crate) struct RosterSync {
    inbox: Inbox,
    stage: Stage,
    /// A question was polled, and may not have gone out yet.
    in_flight: bool,
    /// How many payloads of the answer have come.
    parts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Without a link there is nobody to ask.
    Idle,
    /// This attempt is the next, at that time.
    Asking {
        attempt: u64,
        at: Instant,
    },
    /// Everybody was asked then, and will have been heard by the other time.
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
        }
    }

    pub(crate) fn inbox(&self) -> Inbox {
        self.inbox
    }

    /// Whether this participant knows whom an answer should name, and so may answer others.
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

    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Idle;
        self.in_flight = false;
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
                    self.stage = Stage::Settled;
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

    /// What was polled has gone out. Only from now on can a question be answered.
    pub(crate) fn sent(&mut self, now: Instant) {
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
    pub(crate) fn overheard(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Asking { .. }) {
            let (since, until) = (now, now);
            self.stage = Stage::Listening { since, until };
            self.in_flight = false;
        }
    }

    /// A payload of an answer has come. They come in order, and those of one answer without others between.
    pub(crate) fn answered(&mut self, part: u64, parts: u64) {
        self.parts = match part {
            1 => 1,
            _ if part == self.parts + 1 => part,
            _ => 0,
        };
        if self.parts == parts {
            self.stage = Stage::Settled;
        }
    }
}
