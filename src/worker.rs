//! The thread: link to wire to roster to outbox to events, and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::event::Event;
use crate::jitter::Jitter;
use crate::link::{Connect, Dialer, Link, Notice, Session};
use crate::outbox::Outbox;
use crate::roster::{Change, Heard, Kind, Roster};
use crate::status::{Shared, Status};
use crate::wire;

/// The longest the thread waits before it looks at what the host asks: `postgres` cannot be woken from outside.
const SLICE: Duration = Duration::from_millis(100);

/// How soon it looks again while a host drains events of which more are pending.
const DRAINING_SLICE: Duration = Duration::from_millis(1);

/// A turn that comes this late means that the whole process was paused.
const PAUSE: Duration = Duration::from_secs(1);

/// Reconnecting backs off from the one to the other, by doubling (and never beyond the heartbeat interval).
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    connect: Connect,
    session: Session,
    /// How often the link must have been proven to work.
    heartbeat: Duration,
    roster: Roster,
    outbox: Outbox,
    events: Sender<Event>,
    shared: Arc<Shared>,
    status: Status,
    jitter: Jitter,
    connection: Connection,
    slice: Duration,
    last_turn: Instant,
    /// When the host's view last got the status.
    published: Instant,
}

enum Connection {
    Down(Retry),
    Up {
        link: Link,
        /// When the server last answered.
        proven: Instant,
    },
}

/// The way back to a link.
struct Retry {
    dialer: Dialer,
    at: Instant,
    backoff: Duration,
    /// The failure that was last logged at warning level.
    said: Option<String>,
}

impl Worker {
    pub(crate) fn new(
        connect: Connect,
        session: Session,
        heartbeat: Duration,
        roster: Roster,
        events: Sender<Event>,
        shared: Arc<Shared>,
        jitter: Jitter,
    ) -> Self {
        let now = Instant::now();
        let dialer = Dialer::new(Arc::clone(&connect), session.clone());
        Self {
            connect,
            session,
            heartbeat,
            roster,
            outbox: Outbox::default(),
            events,
            shared,
            status: Status::default(),
            jitter,
            connection: Connection::Down(Retry::new(dialer, now)),
            slice: SLICE,
            last_turn: now,
            published: now,
        }
    }

    /// Runs until the host leaves; returns whether the goodbye was said.
    pub(crate) fn run(mut self) -> Result<()> {
        while !self.obey() {
            self.notice_pause();
            match self.connection {
                Connection::Up { .. } => {
                    if let Err(error) = self.turn() {
                        self.go_offline(error);
                    }
                }
                Connection::Down(_) => self.reconnect(),
            }
            self.deliver();
            if self.last_turn - self.published >= SLICE {
                self.publish();
            }
        }
        let farewell = self.say_goodbye();
        self.status.online = false;
        self.publish();
        farewell
    }

    /// One turn with a link: announce what is due, then hear one notification, or wait until something is due.
    fn turn(&mut self) -> Result<()> {
        self.announce()?;
        let slice = self.last_turn + self.slice;
        let until = self.roster.deadline().map_or(slice, |due| due.min(slice));
        let Connection::Up { link, .. } = &mut self.connection else {
            return Ok(());
        };
        match link.next(until)? {
            Some(notice) => self.hear(&notice),
            // Everything that came before `until` was heard, so whoever is overdue by then is gone.
            None => self.roster.tick(until),
        }
        self.take_changes();
        Ok(())
    }

    fn announce(&mut self) -> Result<()> {
        let Connection::Up { link, proven } = &mut self.connection else {
            return Ok(());
        };
        while let Some(message) = self.roster.poll_announcement(Instant::now()) {
            self.status.echo = Some(link.notify(&wire::encode(&message))?);
            self.status.announced += 1;
            *proven = Instant::now();
        }
        if proven.elapsed() > self.heartbeat {
            link.check()?;
            *proven = Instant::now();
        }
        Ok(())
    }

    fn hear(&mut self, notice: &Notice) {
        let Some(message) = wire::decode(notice.payload()) else {
            self.status.ignored += 1;
            return;
        };
        match self.roster.heard(Instant::now(), &message) {
            Heard::News => self.status.heard += 1,
            Heard::Stale => self.status.ignored += 1,
            Heard::Refused => {
                if self.status.refused == 0 {
                    let count = self.status.peers;
                    log::warn!(
                        "ignoring newcomers, first {:?}: {count} peers are all that max_peers allows",
                        message.name
                    );
                }
                self.status.refused += 1;
            }
        }
    }

    /// Brings changes to the host's view, then into the outbox: what an event says, `peers` already shows.
    fn take_changes(&mut self) {
        while let Some(change) = self.roster.poll_change() {
            log::debug!("{}: {:?}", change.peer.name(), change.kind);
            self.shared.update(|view| apply(&change, view));
            self.outbox.push(change);
        }
    }

    /// Never waits for the host: what does not fit stays in the outbox.
    fn deliver(&mut self) {
        self.slice = SLICE;
        while !self.events.is_full() {
            let Some(event) = self.outbox.pop() else {
                return;
            };
            // The one sender found room, so this does not block; that nobody receives any more is the host's choice.
            let _ = self.events.send(event);
            self.slice = DRAINING_SLICE;
        }
    }

    fn publish(&mut self) {
        self.published = self.last_turn;
        self.status.incarnation = self.roster.incarnation();
        self.status.undelivered = self.outbox.len();
        let status = &mut self.status;
        self.shared.update(|view| {
            status.peers = view.peers.len();
            view.status.clone_from(status);
        });
    }

    /// Does what the host asked for; `true` if that is to leave.
    fn obey(&mut self) -> bool {
        let requests = std::mem::take(&mut *self.shared.requests());
        for name in &requests.lost {
            self.roster.lost(name);
        }
        if let Some(tags) = requests.tags {
            self.roster.set_tags(tags, Instant::now());
        }
        requests.leave
    }

    /// A process that was stopped for a while may find its peers overdue that it merely did not hear (rule 5).
    fn notice_pause(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.last_turn) > PAUSE {
            self.roster.grant_grace(now);
        }
        self.last_turn = now;
    }

    fn reconnect(&mut self) {
        let Connection::Down(retry) = &mut self.connection else {
            return;
        };
        let outcome = retry.poll(self.slice);
        match outcome {
            None => {}
            Some(Ok(link)) => self.go_online(link),
            Some(Err(error)) => self.retry_later(error),
        }
    }

    fn go_online(&mut self, link: Link) {
        let now = Instant::now();
        let up = Connection::Up { link, proven: now };
        let down = std::mem::replace(&mut self.connection, up);
        self.roster.link_up(now);
        if let Err(error) = self.announce() {
            self.roster.link_down();
            self.connection = down;
            return self.retry_later(error);
        }
        self.status.online = true;
        self.status.connected += 1;
        log::info!("{:?}: online", self.session.channel);
        self.publish();
        self.outbox.push_online();
    }

    fn go_offline(&mut self, error: Error) {
        self.roster.link_down();
        self.status.online = false;
        let dialer = Dialer::new(Arc::clone(&self.connect), self.session.clone());
        self.connection = Connection::Down(Retry::new(dialer, Instant::now()));
        self.failed(&error);
        self.publish();
        self.outbox.push_offline(error);
    }

    fn retry_later(&mut self, error: Error) {
        self.status.failed_attempts += 1;
        let first = self.status.connected == 0 && self.status.failed_attempts == 1;
        if let Connection::Down(retry) = &mut self.connection {
            let most = LAST_BACKOFF.min(self.heartbeat.max(FIRST_BACKOFF));
            retry.backoff = (retry.backoff * 2).clamp(FIRST_BACKOFF, most);
            retry.at = Instant::now() + self.jitter.between(0.5, retry.backoff);
        }
        self.failed(&error);
        if first {
            self.publish();
            self.outbox.push_offline(error);
        }
    }

    /// Logs a failure once at its change, not once an attempt.
    fn failed(&mut self, error: &Error) {
        let Connection::Down(retry) = &mut self.connection else {
            return;
        };
        let text = error.to_string();
        if retry.said.as_ref() == Some(&text) {
            log::debug!("{:?}: still offline: {text}", self.session.channel);
        } else {
            log::warn!("{:?}: offline: {text}", self.session.channel);
            retry.said = Some(text);
        }
        self.status.last_error = Some(error.clone());
    }

    fn say_goodbye(&mut self) -> Result<()> {
        let Some(message) = self.roster.goodbye() else {
            return Ok(());
        };
        let payload = wire::encode(&message);
        match &mut self.connection {
            Connection::Up { link, .. } => link.notify(&payload).map(drop),
            Connection::Down(_) => Err(Error::new(
                ErrorKind::Link,
                "left without a goodbye, since Postgres cannot be reached: peers will see this participant expire",
            )),
        }
    }
}

impl Retry {
    fn new(dialer: Dialer, at: Instant) -> Self {
        Self {
            dialer,
            at,
            backoff: Duration::ZERO,
            said: None,
        }
    }

    /// Dials when it is time, and waits for an outcome, `slice` at most.
    fn poll(&mut self, slice: Duration) -> Option<Result<Link>> {
        let mut wait = slice;
        if !self.dialer.is_dialing() {
            let left = self.at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if let Err(error) = self.dialer.dial() {
                    return Some(Err(error));
                }
            }
            wait = if left.is_zero() {
                slice
            } else {
                slice.min(left)
            };
        }
        self.dialer.wait(wait)
    }
}

fn apply(change: &Change, view: &mut crate::status::View) {
    match change.kind {
        Kind::Joined | Kind::Returned | Kind::Recovered | Kind::Updated => view.put(&change.peer),
        Kind::Left(_) => view.remove(change.peer.name()),
        Kind::TookName => {}
    }
}
