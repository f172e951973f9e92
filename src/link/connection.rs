//! The connection with Postgres, up or down: how one becomes the other, when to dial again, and what the operator is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connector::Connect;
use super::dialer::Dialer;
use super::hearing::Hearing;
use super::outage::OperatorLog;
use super::redial::Redial;
use super::session::{Link, SessionNames};
use super::side_channel::SideChannel;
use super::up::Up;
use crate::error::{Error, Kind, Result};
use crate::jitter::Jitter;

/// `M` is what marks carry; see [`Hearing::mark`].
pub(crate) struct Connection<M> {
    connect: Connect,
    names: SessionNames,
    heartbeat: Duration,
    /// Whether this participant announces itself.
    announces: bool,
    jitter: Jitter,
    redial: Redial,
    operator: OperatorLog,
    state: State<M>,
}

enum State<M> {
    Up(Box<Up<M>>),
    Down {
        dialer: Dialer,
        /// The link was lost in a flood.
        flooded: bool,
    },
}

impl<M> Connection<M> {
    /// A connection that is down; the first attempt is due at once.
    pub(crate) fn new(
        connect: Connect,
        names: SessionNames,
        heartbeat: Duration,
        announces: bool,
        jitter: Jitter,
    ) -> Self {
        Self {
            heartbeat,
            announces,
            jitter,
            redial: Redial::new(Instant::now(), heartbeat),
            operator: OperatorLog::new(names.channel.clone()),
            state: State::Down {
                dialer: Dialer::new(Arc::clone(&connect), names.clone(), None),
                flooded: false,
            },
            connect,
            names,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    pub(crate) fn up(&mut self) -> Result<&mut Up<M>> {
        match &mut self.state {
            State::Up(up) => Ok(up),
            State::Down { .. } => Err(Error::new(Kind::Link, "there is no session")),
        }
    }

    /// One turn without a link: dials when it is time, and waits for an outcome for at most `wait`.
    pub(crate) fn dial(&mut self, now: Instant, wait: Duration) -> Option<Result<Link>> {
        match &mut self.state {
            State::Up(_) => None,
            State::Down { dialer, .. } => dialer.turn(self.redial.wait(now), wait),
        }
    }

    /// Goes on with this link.
    pub(crate) fn open(&mut self, now: Instant, link: Link) {
        let flooded = matches!(self.state, State::Down { flooded: true, .. });
        let (connect, names) = (Arc::clone(&self.connect), self.names.clone());
        let hearing = Hearing::new(now, self.heartbeat, self.announces, flooded);
        let side_channel = SideChannel::new(connect, names, self.heartbeat);
        self.state = State::Up(Box::new(Up::new(now, link, hearing, side_channel)));
    }

    /// The link is up, and the hello is out.
    pub(crate) fn handle_hello(&mut self, now: Instant) {
        if let State::Up(up) = &self.state {
            self.operator.tell_online(now, up.link.unsafe_encoding());
        }
    }

    /// The link broke, for this reason. Returns what is left of it, whose closing can take a moment.
    #[must_use]
    pub(crate) fn handle_loss(&mut self, now: Instant, error: &Error) -> Option<Box<Up<M>>> {
        let up = self.hang_up(now);
        let lasted = up.as_ref().map_or(Duration::ZERO, |up| up.lasted(now));
        self.redial.handle_loss(now, lasted, &mut self.jitter);
        self.operator.tell_offline(now, error);
        up
    }

    /// An attempt to connect failed, for this reason, or the hello could not be said.
    pub(crate) fn handle_failure(&mut self, now: Instant, error: &Error) {
        if self.is_up() {
            drop(self.hang_up(now));
        }
        self.redial.handle_failure(now, &mut self.jitter);
        self.operator.tell_offline(now, error);
    }

    fn hang_up(&mut self, now: Instant) -> Option<Box<Up<M>>> {
        let up = self.up().ok();
        let given_up = up.as_ref().and_then(|up| up.link.given_up());
        let flooded = up.is_some_and(|up| up.hearing.is_flooded(now));
        let dialer = Dialer::new(Arc::clone(&self.connect), self.names.clone(), given_up);
        match std::mem::replace(&mut self.state, State::Down { dialer, flooded }) {
            State::Up(up) => Some(up),
            State::Down { .. } => None,
        }
    }
}
