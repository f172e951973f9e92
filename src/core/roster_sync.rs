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
    /// How many payloads of the answer have come.
    parts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Without a link there is nobody to ask.
    Idle,
    /// This attempt is the next.
    Asking {
        attempt: u64,
        at: When,
    },
    /// Everybody was asked, and will have been heard then.
    Listening {
        until: When,
    },
    Settled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Some time after a question that was polled then. How long it took to go out, and so when to expect an answer, is
    /// known when we are polled next.
    AfterQuestion(Instant),
    /// At that time, if the question was out then.
    At { time: Instant, out: Instant },
}

impl When {
    fn time(self) -> Instant {
        match self {
            Self::AfterQuestion(time) | Self::At { time, .. } => time,
        }
    }
}

impl RosterSync {
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
        let at = When::At {
            time: now,
            out: now,
        };
        self.stage = Stage::Asking { attempt: 0, at };
        self.parts = 0;
    }

    /// The hello that goes out now is the first attempt.
    pub(crate) fn asked_by_hello(&mut self, now: Instant) {
        let at = When::AfterQuestion(now);
        self.stage = Stage::Asking { attempt: 1, at };
        self.parts = 0;
    }

    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Idle;
    }

    /// When [`poll`](Self::poll) next has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asking { at: when, .. } | Stage::Listening { until: when } => Some(when.time()),
            Stage::Idle | Stage::Settled => None,
        }
    }

    /// The attempt to make now, if one is due. After the last one everybody is heard within `spread`.
    pub(crate) fn poll(&mut self, now: Instant, spread: Duration) -> Option<u64> {
        let patience = match self.stage {
            Stage::Idle | Stage::Settled => return None,
            Stage::Asking { .. } => PATIENCE,
            // It may have grown: the more are heard, the longer they take.
            Stage::Listening { .. } => PATIENCE + spread,
        };
        let (Stage::Asking { at: when, .. } | Stage::Listening { until: when }) = &mut self.stage
        else {
            return None;
        };
        match *when {
            When::AfterQuestion(polled) if now > polled => {
                let time = now + patience;
                *when = When::At { time, out: now };
                return None;
            }
            When::At { time, .. } if now >= time => {}
            _ => return None,
        }
        match self.stage {
            Stage::Asking { attempt, .. } => {
                let at = When::AfterQuestion(now);
                self.stage = match attempt {
                    ASK_ALL => Stage::Listening { until: at },
                    _ => Stage::Asking {
                        attempt: attempt + 1,
                        at,
                    },
                };
                Some(attempt)
            }
            Stage::Listening {
                until: When::At { out, .. },
            } if out + patience > now => {
                let time = out + patience;
                self.stage = Stage::Listening {
                    until: When::At { time, out },
                };
                None
            }
            Stage::Listening { .. } => {
                self.stage = Stage::Settled;
                None
            }
            Stage::Idle | Stage::Settled => None,
        }
    }

    /// Somebody asked everybody: what they answer is all there is to know.
    pub(crate) fn overheard(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Asking { .. }) {
            let until = When::At {
                time: now,
                out: now,
            };
            self.stage = Stage::Listening { until };
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
