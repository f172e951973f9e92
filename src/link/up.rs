//! A link that is up: the session, what is known of how far it was heard, and the way around it in a flood.

use std::time::{Duration, Instant};

use super::hearing::{Hearing, Speak};
use super::session::{Link, Notice};
use super::side_channel::SideChannel;
use crate::error::Result;

/// All that is of one session, and goes with it. `M` is what marks carry; see [`Hearing::mark`].
pub(crate) struct Up<M> {
    pub(crate) link: Link,
    pub(crate) hearing: Hearing<M>,
    pub(crate) side_channel: SideChannel,
    since: Instant,
}

/// What a wait brought.
pub(crate) struct Next {
    /// `None` if nothing more had arrived by `until`.
    pub(crate) notice: Option<Notice>,
    /// Until then it was to last at most.
    pub(crate) until: Instant,
}

/// By what the server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Road {
    /// The one that announcements go.
    Notify,
    /// Any other statement.
    Other,
}

/// What the server answered, and when.
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    /// How many notifications were received with it that are still to be heard.
    pub(crate) waiting: usize,
}

impl<T> Answer<T> {
    pub(crate) fn round_trip(&self) -> Duration {
        self.answered - self.asked
    }
}

impl<M> Up<M> {
    pub(crate) fn new(
        now: Instant,
        link: Link,
        hearing: Hearing<M>,
        side_channel: SideChannel,
    ) -> Self {
        Self {
            link,
            hearing,
            side_channel,
            since: now,
        }
    }

    /// How long it has been up.
    pub(crate) fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether to speak now, and where, when the next thing to say is due at `due`.
    pub(crate) fn speak(&self, now: Instant, due: Option<Instant>) -> Speak {
        self.hearing.speak(now, due, self.side_channel.state(now))
    }

    /// Whether nothing is to be said on the link, and announcing aside may do.
    pub(crate) fn goes_aside(&self, now: Instant) -> bool {
        self.hearing.goes_aside(now, self.side_channel.state(now))
    }

    /// Waits for the next notification for at most `interval`, or until the next thing to say is due at `due`.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        due: Option<Instant>,
        interval: Duration,
    ) -> Result<Next> {
        self.link.close_second()?;
        match self.hearing.is_flooded(now) {
            true => {
                self.link.handle_flood(now);
                self.side_channel.prepare(now)?;
            }
            false => {
                self.side_channel.stop();
                self.link.settle()?;
            }
        }
        // That may have taken a round trip.
        let now = Instant::now();
        let aside = self.side_channel.state(now);
        let until = self.hearing.until(now, due, aside, interval);
        let notice = self.link.next(until)?;
        if notice.is_none() {
            self.hearing.handle_silence(until);
        }
        Ok(Next { notice, until })
    }

    /// Asks something of the server, by that road.
    pub(crate) fn ask<T>(
        &mut self,
        road: Road,
        question: impl FnOnce(&mut Link) -> Result<T>,
    ) -> Result<Answer<T>> {
        let asked = Instant::now();
        let value = question(&mut self.link)?;
        let answered = Instant::now();
        let received = self.link.received();
        match road {
            Road::Notify => self.hearing.handle_answer(asked, answered, received),
            Road::Other => self.hearing.handle_statement(asked, answered, received),
        }
        Ok(Answer {
            value,
            asked,
            answered,
            waiting: received.count,
        })
    }
}
