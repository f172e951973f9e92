//! Attempts to open a link, each on a thread that can be left behind: connecting can hang for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use postgres::Client;

use super::Pid;
use super::connector::Connect;
use super::detached::{catch, close, spawn};
use super::patience::Patience;
use super::redial::{DIAL_TIMEOUT, Hosts, hosts, patience};
use super::session::{Link, SessionNames, hear_probe, listen_to_inbox, send_probe};
use crate::error::{Error, Kind, Result};

/// How long the second connection of an attempt may take to open, with its notification.
const SECOND_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens a link. What succeeds after the dialer is gone is closed by its own thread.
pub(crate) struct Dialer {
    connect: Connect,
    names: SessionNames,
    /// The backend of the link before, if that was given up. The next session ends it.
    given_up: Option<Pid>,
    patience: Patience,
    /// Each attempt sends what came of it: no link, if its first connection was taken away from it.
    finished: Receiver<(Arc<Slot>, Result<Option<Link>>)>,
    finish: Sender<(Arc<Slot>, Result<Option<Link>>)>,
    /// How many attempts run: the current one, and those that hang.
    running: u32,
    /// The newest attempt, until its outcome has come.
    current: Option<Attempt>,
}

struct Attempt {
    started: Instant,
    /// It was reported as hung; its outcome may still come.
    given_up: bool,
    slot: Arc<Slot>,
}

/// Where an attempt leaves its first connection while it opens the second: in a full pool that one waits for this one to
/// be given up, so it must be possible to take it away.
#[derive(Default)]
struct Slot(Mutex<Option<(Client, Instant)>>);

impl Slot {
    fn put(&self, client: Client) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((client, Instant::now()));
    }

    fn take(&self) -> Option<Client> {
        self.take_after(Duration::ZERO)
    }

    /// The client, if it has been there for this long.
    fn take_after(&self, time: Duration) -> Option<Client> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, _) = slot.take_if(|(_, since)| since.elapsed() >= time)?;
        Some(client)
    }
}

impl Dialer {
    pub(crate) fn new(
        connect: Connect,
        names: SessionNames,
        given_up: Option<Pid>,
        patience: Patience,
    ) -> Self {
        // Bounded by the attempts that run: each sends one result.
        let (finish, finished) = unbounded();
        Self {
            connect,
            names,
            given_up,
            patience,
            finished,
            finish,
            running: 0,
            current: None,
        }
    }

    /// Dials, if that is due and no attempt is under way, and waits for an outcome for at most `wait`. An attempt that takes
    /// too long is reported once as an error, and goes on: its outcome may still come.
    pub(crate) fn turn(&mut self, due_in: Duration, wait: Duration) -> Option<Result<Link>> {
        if self.is_dialing() {
            return self.wait(wait);
        }
        if due_in.is_zero() {
            return match self.dial() {
                Ok(()) => self.wait(wait),
                Err(error) => Some(Err(error)),
            };
        }
        self.wait(wait.min(due_in))
    }

    /// Whether an attempt is under way, other than those that hang.
    fn is_dialing(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|attempt| !attempt.given_up)
    }

    /// Starts an attempt.
    fn dial(&mut self) -> Result<()> {
        // What an attempt that hangs has left there since would hold a place in the pool for nothing.
        if let Some(first) = self.current.take().and_then(|hung| hung.slot.take()) {
            close(first);
        }
        let (connect, names) = (Arc::clone(&self.connect), self.names.clone());
        let (finish, given_up) = (self.finish.clone(), self.given_up);
        let patience = self.patience.clone();
        let hosts = hosts(self.running);
        let slot = Arc::<Slot>::default();
        let in_attempt = Arc::clone(&slot);
        spawn("dial", move || {
            let outcome = catch(|| open(&connect, hosts, &names, given_up, patience, &in_attempt));
            let _ = finish.send((in_attempt, outcome));
        })?;
        self.running += 1;
        self.current = Some(Attempt {
            started: Instant::now(),
            given_up: false,
            slot,
        });
        Ok(())
    }

    fn wait(&mut self, wait: Duration) -> Option<Result<Link>> {
        let Ok((slot, outcome)) = self.finished.recv_timeout(wait) else {
            return self.give_up().map(Err);
        };
        self.running -= 1;
        self.current
            .take_if(|current| Arc::ptr_eq(&current.slot, &slot));
        outcome.transpose()
    }

    /// Gives the current attempt up if it takes too long, and says why.
    fn give_up(&mut self) -> Option<Error> {
        let hung = self.running.saturating_sub(1);
        let current = self.current.as_mut().filter(|attempt| !attempt.given_up)?;
        let why = match current.slot.take_after(SECOND_TIMEOUT) {
            Some(first) => {
                close(first);
                format!(
                    "a second, short-lived connection, which proves that the first one carries notifications, could \
                     not be opened within {SECOND_TIMEOUT:?}: leave room for one more session in the pool and in \
                     max_connections"
                )
            }
            None if current.started.elapsed() > patience(hung) => {
                format!("connecting to Postgres takes longer than {DIAL_TIMEOUT:?}")
            }
            None => return None,
        };
        current.given_up = true;
        Some(Error::new(Kind::Timeout, why))
    }
}

/// Connects, proves that the connection carries notifications, and listens. May hang, and then the first connection is in
/// the slot; `None` if it was taken from there.
fn open(
    connect: &Connect,
    hosts: Hosts,
    names: &SessionNames,
    given_up: Option<Pid>,
    patience: Patience,
    slot: &Slot,
) -> Result<Option<Link>> {
    let mut client = connect(hosts)?;
    let pid = listen_to_inbox(&mut client, &names.inbox)?;
    slot.put(client);
    let probe = send_probe(connect, hosts, &names.inbox);
    let Some(mut client) = slot.take() else {
        return Ok(None);
    };
    hear_probe(&mut client, &names.inbox, probe)?;
    Link::set_up(client, pid, names, given_up, patience).map(Some)
}
