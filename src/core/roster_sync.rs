//! Asking who is there (rule 6): a newcomer, and a participant that was away, is told by one member, not by all. Pure: time is a
//! parameter.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::wire::{Announce, Inbox, Pid, Question};
use crate::peer::Incarnation;

/// The least time that an answer may take before the next in rank is asked.
pub(crate) const LEAST_PATIENCE: Duration = Duration::from_millis(200);

/// The most answers that are followed at a time. Each question but the one to all asks for one.
const ANSWERS: usize = ASK_ALL as usize;

/// The attempt that asks everybody. Each one before it asks another member, since one may have died lately, or be busy.
pub(crate) const ASK_ALL: u64 = 3;

/// How far this participant is in learning who is there.
#[derive(Debug)]
pub(crate) struct RosterSync {
    inbox: Inbox,
    /// The number of the question that is under way, or was last.
    number: Option<u64>,
    /// Until then it heard who leaves, and has not been told who left since; `None` for a newcomer, and once its question is settled.
    away_since: Option<Instant>,
    stage: Stage,
    /// It knew who is there, and asks since others know other members.
    review: bool,
    /// A query was polled, and may not have gone out yet.
    in_flight: bool,
    /// How long an answer may take before the next in rank is asked.
    patience: Duration,
    /// When the first question went out, or, since one was heard, the last part of an answer.
    progress: Option<Instant>,
    /// The longest time without progress that an answer has taken. The answerer may be far away, or this link slow.
    slowest: Duration,
    /// How many parts of each answer have come, one after the other, by the backend that it comes from: they may alternate.
    answers: Vec<(Pid, u64)>,
    /// The peers that were said to have left while an answer is awaited, which may have been written before: the start that
    /// left, and its last message.
    departures: HashMap<Arc<str>, (Incarnation, u64)>,
    /// The peers that have left, as far as is known here, and that an answer names, whatever it says of them.
    named: HashSet<Arc<str>>,
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
            number: None,
            away_since: None,
            stage: Stage::Idle,
            review: false,
            in_flight: false,
            patience: LEAST_PATIENCE,
            progress: None,
            slowest: Duration::ZERO,
            answers: Vec::new(),
            departures: HashMap::new(),
            named: HashSet::new(),
        }
    }

    /// The question that is under way, by who was away for that long.
    pub(crate) fn question(&self, away: Option<Duration>) -> Question {
        Question {
            inbox: self.inbox,
            number: self.number.unwrap_or_default(),
            away,
        }
    }

    /// Since when this participant has not been told who leaves.
    pub(crate) fn away_since(&self) -> Option<Instant> {
        self.away_since
    }

    /// The link is up anew, and nothing was heard since then. What was missed before that, and is not known yet, is missed still.
    pub(crate) fn set_away_since(&mut self, heard_until: Option<Instant>) {
        self.away_since = self.away_since.or(heard_until);
    }

    /// Whether an answer to the question of that number is awaited.
    pub(crate) fn awaits(&self, number: u64) -> bool {
        self.is_open() && self.number == Some(number)
    }

    /// Whether this participant knows which peers are there, and so may answer others.
    pub(crate) fn is_settled(&self) -> bool {
        self.stage == Stage::Settled || self.review
    }

    /// Whether nobody is left to be asked, though not all may have been heard yet.
    pub(crate) fn has_asked_all(&self) -> bool {
        matches!(self.stage, Stage::Listening { .. } | Stage::Settled)
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Asking { .. } | Stage::Listening { .. })
    }

    /// This participant's link is so slow that twice a round trip takes that long. No answer can come sooner than in one.
    pub(crate) fn set_patience(&mut self, twice_a_round_trip: Duration) {
        self.patience = twice_a_round_trip.max(LEAST_PATIENCE);
    }

    /// Asks, as soon as it is polled.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.ask_next(0, now);
        self.begin_question(now);
    }

    /// The hello that goes out now is the first attempt. Returns what it asks.
    pub(crate) fn ask_by_hello(&mut self, now: Instant, away: Option<Duration>) -> Question {
        self.ask_next(1, now + self.patience);
        self.in_flight = true;
        self.review = false;
        self.begin_question(now);
        self.question(away)
    }

    /// Asks anew, as soon as it is polled, unless it asks already, or has not even learned who is there. Returns whether it does.
    pub(crate) fn begin_review(&mut self, now: Instant) -> bool {
        let settled = self.stage == Stage::Settled;
        if settled {
            self.review = true;
            self.begin(now);
        }
        settled
    }

    /// One has answered, and what it said takes another one.
    pub(crate) fn ask_another(&mut self, now: Instant) {
        if let Stage::Asking { at, .. } = &mut self.stage {
            *at = now;
        }
    }

    /// Nothing of an answer has come, and one to an earlier question does not count.
    fn begin_question(&mut self, now: Instant) {
        self.number = Some(self.number.map_or(0, |last| last.wrapping_add(1)));
        self.progress = Some(now);
        self.slowest = Duration::ZERO;
        self.answers.clear();
        self.named.clear();
    }

    fn ask_next(&mut self, attempt: u64, at: Instant) {
        self.stage = Stage::Asking { attempt, at };
    }

    /// The link is down, or this participant is not to ask any more.
    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Idle;
        self.review = false;
        self.in_flight = false;
        self.forget_answers();
    }

    /// Who is there is known, and who left meanwhile, as far as anybody could tell.
    pub(crate) fn settle(&mut self) {
        self.away_since = None;
        self.stage = Stage::Settled;
        self.review = false;
        self.forget_answers();
    }

    fn forget_answers(&mut self) {
        self.answers.clear();
        self.departures.clear();
        self.named.clear();
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

    /// An answer names a peer that has left, as far as is known here, by the start that has left or a later one.
    pub(crate) fn note_named(&mut self, name: Arc<str>) {
        self.named.insert(name);
    }

    /// Whether an answer named this peer, which has left as far as is known here, or this start of it, or a later one, was said to have
    /// left meanwhile.
    pub(crate) fn has_named(&self, name: &str, incarnation: Incarnation) -> bool {
        let heard = self.departures.get(name).map(|(start, _)| *start);
        self.named.contains(name) || heard >= Some(incarnation)
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

    /// When [`poll`](Self::poll) next has something to do, or [`handle_heard`](Self::handle_heard).
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asking { at, .. } | Stage::Listening { until: at, .. } => Some(at),
            Stage::Idle | Stage::Settled => None,
        }
    }

    /// The attempt to make now, if one is due. After the last one everybody is heard within `spread`, which
    /// [`handle_heard`](Self::handle_heard) waits for.
    pub(crate) fn poll(&mut self, now: Instant, spread: Duration) -> Option<u64> {
        match self.stage {
            Stage::Asking { attempt, at } if at <= now => {
                if attempt == ASK_ALL && self.review {
                    // To have everybody announce itself would cost more than this is worth.
                    self.settle();
                    return None;
                }
                if attempt == ASK_ALL {
                    self.listen(now, spread);
                } else {
                    self.ask_next(attempt + 1, now + self.patience);
                }
                self.in_flight = true;
                Some(attempt)
            }
            Stage::Idle | Stage::Asking { .. } | Stage::Listening { .. } | Stage::Settled => None,
        }
    }

    /// All that had arrived by `horizon` was heard. Everybody is heard within `spread` of the question to all; one that is behind
    /// has still to hear them.
    pub(crate) fn handle_heard(&mut self, horizon: Instant, spread: Duration) {
        let Stage::Listening { since, until } = self.stage else {
            return;
        };
        if until <= horizon {
            // The spread may have grown: the more are heard, the longer they take.
            self.listen(since, spread);
            if self.deadline() <= Some(horizon) {
                self.settle();
            }
        }
    }

    fn listen(&mut self, since: Instant, spread: Duration) {
        let until = since + self.patience + spread;
        self.stage = Stage::Listening { since, until };
    }

    /// What was polled has gone out. A query can be answered only from now on.
    pub(crate) fn handle_sent(&mut self, now: Instant) {
        if !std::mem::take(&mut self.in_flight) {
            return;
        }
        match &mut self.stage {
            Stage::Asking { attempt, at } => {
                *at = (*at).max(now + self.patience);
                if *attempt == 1 {
                    self.progress = self.progress.max(Some(now));
                }
            }
            Stage::Listening { since, until } => {
                *until += now.saturating_duration_since(*since);
                *since = now;
            }
            Stage::Idle | Stage::Settled => {}
        }
    }

    /// Somebody asked everybody: what they answer is all there is to know.
    pub(crate) fn handle_query_to_all(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Asking { .. }) && !self.review {
            let (since, until) = (now, now);
            self.stage = Stage::Listening { since, until };
            self.in_flight = false;
        }
    }

    /// A payload of an answer has come from this backend. Those of one answer come in order, and answers may alternate. Returns
    /// whether that answer is whole now.
    #[must_use]
    pub(crate) fn handle_part(&mut self, now: Instant, sender: Pid, part: u64, parts: u64) -> bool {
        let known = self.answers.iter().position(|(from, _)| *from == sender);
        let came = known.map_or(0, |place| self.answers.remove(place).1);
        if part != 1 && part != came + 1 {
            // One is missing, or it belongs to an answer from before. The answer will not be whole.
            return false;
        }
        if part == parts {
            return true;
        }
        if self.answers.len() == ANSWERS {
            self.answers.remove(0);
        }
        self.answers.push((sender, part));
        self.extend_patience(now);
        false
    }

    /// A part of an answer was heard, so the next one is worth waiting for. It may take as long as those before, and as long
    /// again.
    fn extend_patience(&mut self, now: Instant) {
        let took = self.progress.map(|at| now.saturating_duration_since(at));
        self.slowest = self.slowest.max(took.unwrap_or_default());
        self.progress = Some(now);
        let patience = self.patience.max(self.slowest * 2);
        match &mut self.stage {
            Stage::Asking { at, .. } | Stage::Listening { until: at, .. } => {
                *at = (*at).max(now + patience);
            }
            Stage::Idle | Stage::Settled => {}
        }
    }
}

#[cfg(test)]
mod tests;
