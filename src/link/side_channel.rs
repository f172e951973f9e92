//! Announcing over a connection of its own, while a flood makes it costly to ask anything on the link. One at a time.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::error::{Error, Kind, Result};

/// The least time between two looks at what there is to announce.
const REST: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct Aside {
    looked: Option<Instant>,
    last: Option<Announcing>,
}

struct Announcing {
    since: Instant,
    /// The last of its payloads, without what a signature adds.
    payload: String,
    announcements: u64,
    state: State,
}

enum State {
    Busy(Receiver<Result<()>>),
    Done,
    Failed,
}

impl Aside {
    /// Whether to look at what there is to announce, and announce it here.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        let busy = self.last.as_ref().is_some_and(Announcing::is_busy);
        let rests = self.looked.is_some_and(|at| now < at + REST);
        !busy && !rests
    }

    pub(crate) fn looked(&mut self, now: Instant) {
        self.looked = Some(now);
    }

    /// The outcome comes from who makes these announcements, of which `payload` is the last.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        payload: &str,
        announcements: u64,
        outcome: Receiver<Result<()>>,
    ) {
        self.last = Some(Announcing {
            since: now,
            payload: payload.trim_end_matches(';').to_owned(),
            announcements,
            state: State::Busy(outcome),
        });
    }

    /// What came of the last one, once: how many announcements were made.
    pub(crate) fn outcome(&mut self) -> Option<Result<u64>> {
        let last = self.last.as_mut()?;
        let State::Busy(outcome) = &last.state else {
            return None;
        };
        let outcome = match outcome.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(Error::new(Kind::Link, "a thread ended early")),
        };
        last.state = match outcome {
            Ok(()) => State::Done,
            Err(_) => State::Failed,
        };
        Some(outcome.map(|()| last.announcements))
    }

    /// Whether it is of no use here, so that the link must do: it failed, or has taken for so long.
    pub(crate) fn has_failed(&self, now: Instant, limit: Duration) -> bool {
        self.last.as_ref().is_some_and(|last| match last.state {
            State::Busy(_) => now.saturating_duration_since(last.since) > limit,
            State::Done => false,
            State::Failed => true,
        })
    }

    /// When the last one was started, if this is what it says: Postgres keeps the order, so all from before has been heard.
    pub(crate) fn is_heard(&self, payload: &str) -> Option<Instant> {
        let last = self.last.as_ref()?;
        let rest = payload.strip_prefix(&*last.payload)?;
        // A longer name or number begins with ours, too.
        let ends = rest.is_empty() || rest.starts_with([' ', ';']);
        ends.then_some(last.since)
    }

    /// The flood is over.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }
}

impl Announcing {
    fn is_busy(&self) -> bool {
        matches!(self.state, State::Busy(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_merely_begins_as_our_announcement_is_not_it() {
        let now = Instant::now();
        let is_heard = |payload, heard| {
            let mut aside = Aside::default();
            let (_outcome, never) = crossbeam_channel::bounded(1);
            aside.start(now, payload, 1, never);
            aside.is_heard(heard) == Some(now)
        };
        let beat = "pg-peers/1 beat name=a@h inc=7 seq=1 due=5000 pid=4;";
        let signed = "pg-peers/1 beat name=a@h inc=7 seq=1 due=5000 pid=4 time=9 sig=ab;";
        for (payload, heard) in [("a@h", "a@h"), (beat, beat), (beat, signed)] {
            assert!(is_heard(payload, heard), "{heard}");
        }
        let other = "pg-peers/1 beat name=a@h inc=7 seq=1 due=5000 pid=42;";
        for (payload, heard) in [
            ("a@h", "a@h2"),
            ("a@h", "a@"),
            ("a@h2", "a@h"),
            (beat, other),
            (beat, "a@h"),
        ] {
            assert!(!is_heard(payload, heard), "{heard}");
        }
    }
}
