//! How far behind the channel a session is, what its silence proves, whether the channel is flooded, and so when and where
//! to speak. Pure: time is a parameter.
//!
//! A session is a queue: notifications arrive in the order of their commits, and the answer to a statement comes after all
//! that had arrived before it. From that follows all that is decided here.
//!
//! - **Heard up to.** The [horizon](Hearing::horizon) is the latest time by which all that had arrived is known to have been
//!   heard. It moves when nothing more had arrived ([`handle_silence`](Hearing::handle_silence)), and when a barrier is
//!   reached.
//! - **Barrier, mark.** An answer leaves a barrier in the queue, behind the notifications that were received with it. When
//!   those are heard, so is all that had arrived when the question was asked. A [mark](Hearing::mark) is something to do at
//!   that place in the queue.
//! - **Proven.** Silence proves nothing, since a link that is dead is silent, too. The answer to a NOTIFY proves that the link
//!   worked when it was sent; that to another statement does not, since what holds up NOTIFY keeps all others silent.
//! - **Loud.** A channel that carries much. A member that hears all of it in time sees no flood, but others may not keep up, and
//!   then they speak late.
//! - **Flood.** Where more arrives than can be heard, or much while a statement is under way, it is not known what a statement
//!   would have to read before its answer: perhaps gigabytes, all of which would stay in memory. So nothing is asked on the link
//!   then, unless announcing over another connection fails.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pace::SLICE;

/// This many bytes within [`FLOOD_COOLDOWN`], with no moment in which nothing more had arrived, are a flood. So are as many
/// that come with an answer, or in the time that a statement takes: a long way, or one that carries little at a time, has such
/// moments while much is under way.
pub(crate) const FLOOD: usize = 1 << 18;

/// This many bytes within [`FLOOD_COOLDOWN`] may be more than some can hear, behind a slow link, or a pooler that serves many.
const LOUD: usize = 4 * FLOOD;

/// A flood goes on until it was not seen for this long. A moment in which nothing arrives may be between two of its waves.
const FLOOD_COOLDOWN: Duration = Duration::from_secs(1);

/// For this long the last statement tells how long the next one would take. Otherwise a server that was slow once would not be asked
/// again before the channel is quiet.
const TELLING: Duration = Duration::from_secs(10);

/// Whether announcing aside is possible now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    Ready,
    /// The last announcement is under way, or was made just now.
    Busy,
    /// The last announcement failed, and none has succeeded since, or one takes too long: the link must do.
    Failed,
}

/// What a session has heard, and what waits in it.
#[derive(Debug)]
pub(crate) struct Hearing<M> {
    /// How often the link must have given a sign of life.
    heartbeat: Duration,
    /// Whether this participant announces itself, and so learns from each announcement that the link works.
    announces: bool,
    /// All that had arrived by then was heard.
    horizon: Instant,
    /// Whether the horizon moved since it was last polled.
    moved: bool,
    /// What was asked then by NOTIFY was answered.
    proven: Instant,
    /// What was asked then by any statement was answered.
    answered: Instant,
    /// When the link last gave a sign of life.
    last_received: Instant,
    /// A question failed, and none was answered since.
    doubted: bool,
    /// Whether all was heard that had arrived at the last look.
    caught_up: bool,
    /// Until then, what waits is heard before anything is said.
    read_first_until: Instant,
    /// How many notifications were heard in this session.
    heard: u64,
    /// What is to come back when as many notifications were heard as the number says, in that order.
    queue: VecDeque<(u64, Waiting<M>)>,
    /// What has come back and was not polled yet.
    reached: VecDeque<M>,
    /// The bytes heard since `backlog_since`, or since nothing more had arrived.
    backlog_bytes: usize,
    backlog_since: Instant,
    /// Until then the flood that was last seen is not over; `None` if none was.
    flooded_until: Option<Instant>,
    /// When the last statement was answered, and how long that took.
    last_answer: Instant,
    took: Duration,
    /// The bytes heard since `loud_since`, whether all was heard meanwhile or not.
    loud_bytes: usize,
    loud_since: Instant,
    /// Until then so much is said that some may not keep up, though we do; `None` if it never was.
    loud_until: Option<Instant>,
}

#[derive(Debug)]
enum Waiting<M> {
    /// All that had arrived by then is heard.
    Barrier(Instant),
    Mark(M),
}

/// What was received with an answer and is still to be heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// How many notifications.
    pub(crate) count: usize,
    /// How long their payloads are together.
    pub(crate) bytes: usize,
}

/// What to do now about what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speak {
    No,
    /// Announce on the link; or, if nothing is due, ask it for a sign of life.
    OnLink,
    /// Announce over a separate connection.
    Aside,
}

impl<M> Hearing<M> {
    /// A session that was opened just now, and so has worked and hears nothing old. `flooded`: the one before it was lost in
    /// a flood, which goes on until the contrary is seen.
    pub(crate) fn new(now: Instant, heartbeat: Duration, announces: bool, flooded: bool) -> Self {
        Self {
            heartbeat,
            announces,
            horizon: now,
            moved: true,
            proven: now,
            answered: now,
            last_received: now,
            doubted: false,
            caught_up: true,
            read_first_until: now,
            heard: 0,
            queue: VecDeque::new(),
            reached: VecDeque::new(),
            backlog_bytes: 0,
            backlog_since: now,
            flooded_until: flooded.then(|| now + FLOOD_COOLDOWN),
            last_answer: now,
            took: Duration::ZERO,
            loud_bytes: 0,
            loud_since: now,
            loud_until: None,
        }
    }

    /// A notification with a payload of this many bytes was heard.
    pub(crate) fn handle_notification(&mut self, now: Instant, bytes: usize) {
        self.heard += 1;
        self.caught_up = false;
        self.last_received = now;
        if self.backlog_since + FLOOD_COOLDOWN <= now {
            (self.backlog_bytes, self.backlog_since) = (0, now);
        }
        self.backlog_bytes += bytes;
        if self.loud_since + FLOOD_COOLDOWN <= now {
            (self.loud_bytes, self.loud_since) = (0, now);
        }
        self.loud_bytes += bytes;
        if self.loud_bytes > LOUD {
            self.loud_until = Some(now + FLOOD_COOLDOWN);
        }
        if self.backlog_bytes > FLOOD || self.comes_during_a_statement(now) > FLOOD as f64 {
            self.flooded_until = Some(now + FLOOD_COOLDOWN);
        }
        self.pass(self.heard);
    }

    /// All that had arrived by `until` was heard (rule 5).
    pub(crate) fn handle_silence(&mut self, until: Instant) {
        self.caught_up = true;
        self.backlog_bytes = 0;
        self.pass(u64::MAX);
        self.move_horizon(until);
    }

    /// A NOTIFY that was sent at `asked` was answered at `now`, and this was received with the answer.
    pub(crate) fn handle_answer(&mut self, asked: Instant, now: Instant, received: Received) {
        self.proven = self.proven.max(asked);
        self.doubted = false;
        self.handle_statement(asked, now, received);
    }

    /// Another statement, sent at `asked`, was answered at `now`, and this was received with the answer. It proves that the server
    /// answers, but not that what others announce gets through.
    pub(crate) fn handle_statement(&mut self, asked: Instant, now: Instant, received: Received) {
        self.answered = self.answered.max(asked);
        (self.last_answer, self.took) = (now, now.saturating_duration_since(asked));
        self.last_received = now;
        // On a channel that never falls silent the next answer may come before this barrier is reached. One is enough.
        if self.barrier().is_none() {
            self.enqueue(received.count, Waiting::Barrier(asked));
        }
        if received.bytes > FLOOD {
            self.flooded_until = Some(now + FLOOD_COOLDOWN);
        }
    }

    /// A question was not answered, since something else holds it up: whatever is heard, the next one must be.
    pub(crate) fn handle_held_up(&mut self) {
        self.doubted = true;
    }

    /// Our own announcement, made over another connection at `sent`, was heard: so was all from before it.
    pub(crate) fn handle_own(&mut self, sent: Instant) {
        self.proven = self.proven.max(sent);
        self.move_horizon(sent);
    }

    /// This process was stopped for a while: much may wait, and is heard first, if that is soon done.
    pub(crate) fn handle_pause(&mut self, now: Instant) {
        self.caught_up = false;
        self.read_first_until = now + SLICE;
    }

    /// Puts a mark behind this many notifications that are still to be heard: [`poll_mark`](Self::poll_mark) gives it back when
    /// they are.
    pub(crate) fn mark(&mut self, waiting: usize, mark: M) {
        self.enqueue(waiting, Waiting::Mark(mark));
    }

    /// The next mark that was reached, in their order, each once.
    pub(crate) fn poll_mark(&mut self) -> Option<M> {
        self.reached.pop_front()
    }

    /// Whether a mark is out.
    pub(crate) fn awaits_mark(&self) -> bool {
        let is_mark = |(_, waiting): &(_, Waiting<M>)| matches!(waiting, Waiting::Mark(_));
        !self.reached.is_empty() || self.queue.iter().any(is_mark)
    }

    /// The horizon, once after each time it moved.
    pub(crate) fn poll_horizon(&mut self) -> Option<Instant> {
        std::mem::take(&mut self.moved).then_some(self.horizon)
    }

    /// The link is known to have worked then (rule 4): whatever had been sent to us by then has been received, if not heard.
    pub(crate) fn proven(&self) -> Instant {
        self.proven
    }

    /// Whether far more may have arrived than was heard, or is about to.
    pub(crate) fn is_flooded(&self, now: Instant) -> bool {
        self.flooded_until.is_some_and(|until| now < until)
    }

    /// Until then so much is said that others may not keep up, if it was ever so much: those that hear of a flood only that it is
    /// one, too.
    pub(crate) fn loud_until(&self) -> Option<Instant> {
        self.loud_until.max(self.flooded_until)
    }

    /// Whether the link gave no sign of life for so long that it must be asked for one.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        // What is heard on a channel that never falls silent does not prove that the rest arrives. For a participant that
        // announces nothing, nothing else does.
        let sign = match (self.announces, self.is_behind()) {
            (false, _) => self.proven,
            (true, true) => self.answered,
            (true, false) => self.last_received,
        };
        self.doubted || now.saturating_duration_since(sign) >= self.heartbeat
    }

    /// Whether to speak now, and where: the next thing to say is due at `due`, and announcing aside is in that state.
    pub(crate) fn speak(&self, now: Instant, due: Option<Instant>, aside: Aside) -> Speak {
        let is_due = |patience| due.is_some_and(|due| due + patience <= now);
        if self.goes_aside(now, aside) {
            return match aside == Aside::Ready && is_due(Duration::ZERO) {
                true => Speak::Aside,
                false => Speak::No,
            };
        }
        if !self.caught_up && now < self.read_first_until {
            return Speak::No;
        }
        // A NOTIFY returns only after everything before it was received, so a backlog is heard first, if that is soon done. So is
        // what came with the last answer: who has much to say, far from the server, would fall behind, and others may have said it.
        let patience = if self.is_behind() {
            SLICE
        } else {
            Duration::ZERO
        };
        let has_listened = self.last_answer + patience <= now;
        match (is_due(patience) && has_listened) || self.is_silent(now) {
            true => Speak::OnLink,
            false => Speak::No,
        }
    }

    /// Until when to wait for the next notification, for at most `interval`, when nothing was to be said at `now`.
    pub(crate) fn until(
        &self,
        now: Instant,
        due: Option<Instant>,
        aside: Aside,
        interval: Duration,
    ) -> Instant {
        if !self.reached.is_empty() {
            // What came back is to be seen to first: who is gone is told to all.
            return now;
        }
        let end = now + interval;
        if self.goes_aside(now, aside) && aside != Aside::Ready {
            // What is due waits for its turn.
            return end;
        }
        let silent_at = self.last_received + self.heartbeat;
        let until = end.min(silent_at).max(now);
        // What is overdue is known to be only when all was heard that has arrived by now.
        due.map_or(until, |due| due.clamp(now, until))
    }

    /// Whether nothing is to be said on the link, and announcing aside may do.
    pub(crate) fn goes_aside(&self, now: Instant, aside: Aside) -> bool {
        self.is_flooded(now) && aside != Aside::Failed
    }

    /// The bytes that come while a statement is under way, which takes as long as the last one, if as many come as of late.
    fn comes_during_a_statement(&self, now: Instant) -> f64 {
        if self.last_answer + TELLING <= now {
            return 0.0;
        }
        let took = self.took.min(FLOOD_COOLDOWN);
        self.loud_bytes as f64 * took.as_secs_f64() / FLOOD_COOLDOWN.as_secs_f64()
    }

    /// Whether more may have arrived than was heard.
    fn is_behind(&self) -> bool {
        !self.caught_up || self.barrier().is_some()
    }

    /// The barrier that is out.
    fn barrier(&self) -> Option<Instant> {
        self.queue.iter().find_map(|(_, waiting)| match waiting {
            Waiting::Barrier(asked) => Some(*asked),
            Waiting::Mark(_) => None,
        })
    }

    fn enqueue(&mut self, waiting: usize, what: Waiting<M>) {
        // Never before what stands in the queue: what was received does not become less.
        let last = self.queue.back().map_or(0, |(at, _)| *at);
        let at = (self.heard + waiting as u64).max(last);
        self.queue.push_back((at, what));
        self.pass(self.heard);
    }

    /// This many notifications were heard.
    fn pass(&mut self, heard: u64) {
        while self.queue.front().is_some_and(|(at, _)| *at <= heard) {
            match self.queue.pop_front() {
                Some((_, Waiting::Barrier(asked))) => self.move_horizon(asked),
                Some((_, Waiting::Mark(mark))) => self.reached.push_back(mark),
                None => {}
            }
        }
    }

    fn move_horizon(&mut self, to: Instant) {
        if to >= self.horizon {
            self.horizon = to;
            self.moved = true;
        }
    }
}

#[cfg(test)]
mod tests;
