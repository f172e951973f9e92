//! Asking who is there: a newcomer, and whoever was away, is told by one member, not by all. Pure: time is a parameter.

use std::time::{Duration, Instant};

use crate::wire::Inbox;

/// How long an answer may take before the next in rank is asked.
const PATIENCE: Duration = Duration::from_millis(200);

/// The attempt that asks everybody. With those before it somebody else is asked each: one that died lately, or is busy.
pub(crate) const ASK_ALL: u64 = 3;

/// How far this participant is in learning who is there.
#[derive(Debug)]
pub(crate) struct Inquiry {
    inbox: Inbox,
    stage: Stage,
    /// How many payloads of the answer have come.
    parts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Without a link there is nobody to ask.
    Idle,
    /// The next attempt to make, and when.
    Asking {
        attempt: u64,
        at: Instant,
    },
    /// Everybody was asked, and will have been heard by then.
    Listening {
        until: Instant,
    },
    Settled,
}

impl Inquiry {
    pub(crate) fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            stage: Stage::Idle,
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

    /// Asks, beginning with this attempt at this time.
    pub(crate) fn begin(&mut self, attempt: u64, at: Instant) {
        self.stage = Stage::Asking { attempt, at };
        self.parts = 0;
    }

    /// The hello that goes out now is the first attempt.
    pub(crate) fn asked_by_hello(&mut self, now: Instant) {
        self.begin(1, now + PATIENCE);
    }

    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Idle;
    }

    /// When [`poll`](Self::poll) next has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asking { at, .. } => Some(at),
            Stage::Listening { until } => Some(until),
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
                    self.begin(attempt + 1, now + PATIENCE);
                }
                Some(attempt)
            }
            Stage::Listening { until } if until <= now => {
                self.stage = Stage::Settled;
                None
            }
            Stage::Idle | Stage::Asking { .. } | Stage::Listening { .. } | Stage::Settled => None,
        }
    }

    /// Somebody asked everybody: what they answer is all there is to know.
    pub(crate) fn overheard(&mut self, now: Instant, spread: Duration) {
        if matches!(self.stage, Stage::Asking { .. }) {
            self.listen(now, spread);
        }
    }

    /// A payload of an answer has come. They come in order, and those of one answer without others between.
    pub(crate) fn answered(&mut self, part: u64, parts: u64) {
        self.parts = match part {
            1 => 1,
            _ if part == self.parts + 1 => part,
            _ => 0,
        };
        if self.parts == parts && self.stage != Stage::Idle {
            self.stage = Stage::Settled;
        }
    }

    fn listen(&mut self, now: Instant, spread: Duration) {
        self.stage = Stage::Listening {
            until: now + spread + PATIENCE,
        };
    }
}
