//! The connection with Postgres, up or down: how one becomes the other, when to dial again, and what the operator is told.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Pid;
use super::connector::Connect;
use super::detached::spawn;
use super::dialer::{Dialer, Way};
use super::hearing::Hearing;
use super::outage::OperatorLog;
use super::patience::Patience;
use super::redial::Redial;
use super::session::{Hung, Link, SessionNames, is_held_up};
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
    patience: Patience,
    way: Way,
    state: State<M>,
    /// The client of the link before, if a call hung. Its session stays until the next hello is out, so that nobody finds it missing.
    previous: Option<Hung>,
}

enum State<M> {
    Up(Box<Up<M>>),
    /// Another transaction holds NOTIFY up for the whole server. The session is kept, since a new one would wait, too. It tries
    /// again at once: each try waits for the lock, and a session that is not in the queue when it is given away may
    /// wait for the next time.
    HeldUp(Box<Up<M>>),
    Down {
        dialer: Box<Dialer>,
        /// The link was lost in a flood.
        flooded: bool,
    },
}

impl<M: Send + 'static> Connection<M> {
    /// A connection that is down; the first attempt is due at once.
    pub(crate) fn new(
        connect: Connect,
        names: SessionNames,
        heartbeat: Duration,
        announces: bool,
        jitter: Jitter,
    ) -> Self {
        let patience = Patience::new(heartbeat);
        let (of_dialer, way) = (Arc::clone(&connect), Way::Unknown);
        let dialer = Dialer::new(of_dialer, names.clone(), None, patience.clone(), way);
        let dialer = Box::new(dialer);
        Self {
            heartbeat,
            announces,
            jitter,
            redial: Redial::new(Instant::now(), heartbeat, connect.credentials()),
            operator: OperatorLog::new(names.channel.clone()),
            patience,
            way: Way::Unknown,
            state: State::Down {
                dialer,
                flooded: false,
            },
            previous: None,
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
            State::HeldUp(_) | State::Down { .. } => {
                Err(Error::new(Kind::Link, "there is no session"))
            }
        }
    }

    /// One turn without a link that works: dials when it is time, and waits for an outcome for at most `wait`. Returns the backend
    /// of the session when there is one. That may be the one that was held up; its hello finds out whether it still is.
    pub(crate) fn reconnect(&mut self, now: Instant, wait: Duration) -> Option<Result<Pid>> {
        match &mut self.state {
            State::Up(_) => None,
            State::HeldUp(_) => self.resume().map(Ok),
            State::Down { dialer, .. } => {
                let outcome = dialer.turn(self.redial.wait(now), wait)?;
                Some(outcome.map(|link| self.open(link)))
            }
        }
    }

    /// Within how much time a link would be back if its session ended.
    pub(crate) fn back(&self) -> Duration {
        self.redial.back()
    }

    /// The hello of this link is out.
    pub(crate) fn handle_hello(&mut self, now: Instant) {
        if let State::Up(up) = &self.state {
            self.operator.tell_online(now, up.link.unsafe_encoding());
            self.way = Way::Proven;
        }
        self.previous.take().into_iter().for_each(forget);
    }

    /// The link broke, for this reason. Returns what is left of it, whose closing can take a moment.
    #[must_use]
    pub(crate) fn handle_loss(&mut self, now: Instant, error: &Error) -> Option<Box<Up<M>>> {
        if error.is_pooler() || self.up().is_ok_and(|up| up.link.is_disproven()) {
            self.way = Way::Unknown;
        }
        let mut up = self.take_up(now)?;
        self.operator.tell_offline(now, error);
        if is_held_up(error) {
            self.state = State::HeldUp(up);
            return None;
        }
        self.redial
            .handle_loss(now, up.lasted(now), &mut self.jitter);
        self.keep_if_hung(&mut up);
        Some(up)
    }

    /// An attempt to connect failed, for this reason, or a link was of no use.
    pub(crate) fn handle_failure(&mut self, now: Instant, error: &Error) {
        self.operator.tell_offline(now, error);
        if let Some(mut up) = self.take_up(now) {
            if is_held_up(error) {
                self.state = State::HeldUp(up);
                return;
            }
            self.keep_if_hung(&mut up);
        }
        self.redial
            .handle_failure(now, self.connect.failure(), &mut self.jitter);
    }

    /// Goes on with this link.
    fn open(&mut self, mut link: Link) -> Pid {
        let (now, pid) = (Instant::now(), link.pid());
        self.connect.set_link(link.place);
        if let Some(took) = link.took {
            self.redial.handle_open(took);
        }
        // Where the link before hung in a call, a flood may have been why.
        let flooded = matches!(self.state, State::Down { flooded: true, .. })
            || (self.previous.is_some() && link.hears_a_flood());
        let hearing = Hearing::new(now, self.heartbeat, self.announces, flooded);
        let (connect, names) = (Arc::clone(&self.connect), self.names.clone());
        let side_channel = SideChannel::new(connect, names, self.heartbeat, self.back());
        self.state = State::Up(Box::new(Up::new(now, link, hearing, side_channel)));
        pid
    }

    /// Goes on with the session that was held up.
    fn resume(&mut self) -> Option<Pid> {
        let mut up = self.take_up(Instant::now())?;
        // However long it lasts, this is not needed. Without a thread it stays until there is one.
        let _ = up.link.close_second();
        // The hello says anew what it may still be about to say.
        up.side_channel.stop();
        up.hearing.handle_held_up();
        let pid = up.link.pid();
        self.state = State::Up(up);
        Some(pid)
    }

    /// Takes the session out, if there is one, and leaves a dialer in its place.
    fn take_up(&mut self, now: Instant) -> Option<Box<Up<M>>> {
        let (State::Up(up) | State::HeldUp(up)) = &self.state else {
            return None;
        };
        self.patience = up.link.patience().clone();
        let flooded = up.hearing.is_flooded(now);
        let dialer = Box::new(Dialer::new(
            Arc::clone(&self.connect),
            self.names.clone(),
            up.link.given_up(),
            self.patience.clone(),
            self.way,
        ));
        match mem::replace(&mut self.state, State::Down { dialer, flooded }) {
            State::Up(up) | State::HeldUp(up) => Some(up),
            State::Down { .. } => None,
        }
    }

    /// Keeps of a link what hangs, and nothing else: the next one needs the other seats.
    fn keep_if_hung(&mut self, up: &mut Up<M>) {
        if let Some(hung) = up.link.take_hung() {
            // The one before that was to be ended by the link that hangs now.
            self.previous.replace(hung).into_iter().for_each(forget);
        }
    }
}

impl<M> Drop for Connection<M> {
    fn drop(&mut self) {
        self.previous.take().into_iter().for_each(forget);
    }
}

/// Closes the client, if its call has returned, which can take long. Without a thread it takes that long here.
fn forget(hung: Hung) {
    let _ = spawn("close", move || drop(hung));
}
