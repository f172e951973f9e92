//! Attempts to open a link, each on a thread that can be left behind: connecting can hang for ever.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::Pid;
use super::connector::Connect;
use super::detached::{catch, close, spawn, start};
use super::patience::Patience;
use super::proof::{hear_probe, probe};
use super::redial::{Choice, Step, limit};
use super::seats::Seated;
use super::session::{Link, SessionNames, listen_to_inbox};
use crate::error::{Error, Kind, Result};

/// Opens a link. What succeeds after the dialer is gone is closed by its own thread.
pub(crate) struct Dialer {
    connect: Connect,
    names: SessionNames,
    /// The backend of the link before, if that was given up. The next session ends it.
    given_up: Option<Pid>,
    patience: Patience,
    way: Way,
    /// Each attempt sends what came of it: no link, if its first connection was taken away from it.
    finished: Receiver<(Arc<Progress>, Result<Option<Link>>)>,
    finish: Sender<(Arc<Progress>, Result<Option<Link>>)>,
    /// How many attempts run: the current one, and those that hang.
    running: u32,
    /// The newest attempt, until its outcome has come.
    current: Option<Attempt>,
}

/// The way that notifications take to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Perhaps they take none, and a pooler in transaction mode answers (rule 3).
    Unknown,
    /// A session before was proven to carry them, so the proof of the next can wait until it is of use.
    Proven,
}

struct Attempt {
    /// It was reported as hung; its outcome may still come.
    given_up: bool,
    progress: Arc<Progress>,
}

/// How far an attempt is. Between its two connections it leaves the first one here: in a full pool the second waits for the
/// first to be given up, so it must be possible to take that away.
struct Progress(Mutex<(Step, Instant, Option<Seated>)>);

impl Progress {
    fn new() -> Self {
        Self(Mutex::new((Step::First, Instant::now(), None)))
    }

    /// The first connection is open, and listens to its inbox.
    fn handle_first(&self, client: Seated, lock: Duration) {
        let mut progress = self.lock();
        let first = progress.1.elapsed();
        *progress = (Step::Second { first, lock }, Instant::now(), Some(client));
    }

    /// The second connection has done its work. `None` if the first was taken away.
    fn handle_second(&self) -> Option<Seated> {
        let mut progress = self.lock();
        let client = progress.2.take()?;
        (progress.0, progress.1) = (Step::SetUp, Instant::now());
        Some(client)
    }

    /// Another address is tried, or has answered.
    fn handle_address(&self, step: Step) {
        let mut progress = self.lock();
        (progress.0, progress.1) = (step, Instant::now());
    }

    /// The step that takes longer than it may, with the first connection if it is there.
    fn overdue(&self, hung: u32, choice: Choice) -> Option<(Step, Option<Seated>)> {
        let mut progress = self.lock();
        let overdue = progress.1.elapsed() > limit(progress.0, hung, choice);
        overdue.then(|| (progress.0, progress.2.take()))
    }

    fn take(&self) -> Option<Seated> {
        self.lock().2.take()
    }

    fn lock(&self) -> MutexGuard<'_, (Step, Instant, Option<Seated>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialer {
    pub(crate) fn new(
        connect: Connect,
        names: SessionNames,
        given_up: Option<Pid>,
        patience: Patience,
        way: Way,
    ) -> Self {
        // Bounded by the attempts that run: each sends one result.
        let (finish, finished) = unbounded();
        Self {
            connect,
            names,
            given_up,
            patience,
            way,
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
        if let Some(first) = self.current.take().and_then(|hung| hung.progress.take()) {
            close(first);
        }
        let (connect, names) = (Arc::clone(&self.connect), self.names.clone());
        let (finish, given_up) = (self.finish.clone(), self.given_up);
        let (patience, way) = (self.patience.clone(), self.way);
        let progress = Arc::new(Progress::new());
        let of_attempt = Arc::clone(&progress);
        spawn("dial", move || {
            let open = || open(&connect, &names, given_up, patience, way, &of_attempt);
            let outcome = catch(open);
            let _ = finish.send((of_attempt, outcome));
        })?;
        self.running += 1;
        self.current = Some(Attempt {
            given_up: false,
            progress,
        });
        Ok(())
    }

    fn wait(&mut self, wait: Duration) -> Option<Result<Link>> {
        let Ok((progress, outcome)) = self.finished.recv_timeout(wait) else {
            return self.give_up().map(Err);
        };
        self.running -= 1;
        let is_its = |current: &mut Attempt| Arc::ptr_eq(&current.progress, &progress);
        let finished = self.current.take_if(is_its);
        let mut outcome = outcome.transpose()?;
        if let (Ok(link), true) = (&mut outcome, finished.is_none_or(|it| it.given_up)) {
            // Where it hung says nothing about the next.
            link.took = None;
        }
        Some(outcome)
    }

    /// Gives the current attempt up if a step of it takes too long, and says why.
    fn give_up(&mut self) -> Option<Error> {
        let hung = self.running.saturating_sub(1);
        let current = self.current.as_mut().filter(|attempt| !attempt.given_up)?;
        let choice = self.connect.choice();
        let (step, first) = current.progress.overdue(hung, choice)?;
        current.given_up = true;
        if let Some(first) = first {
            close(first);
        }
        let limit = limit(step, hung, choice);
        let why = match step {
            Step::First | Step::Answered => {
                format!("connecting to Postgres takes longer than {limit:.0?}")
            }
            Step::Second { first, .. } => format!(
                "a second, short-lived connection, which proves that the first one carries notifications, could not be \
                 opened within {limit:.1?}, though the first one took {first:.1?}: leave room for one more session in the \
                 pool and in max_connections"
            ),
            Step::SetUp => format!("preparing the session takes longer than {limit:.0?}"),
        };
        Some(Error::new(Kind::Timeout, why))
    }
}

/// Connects, proves that the connection carries notifications, and listens. May hang. `None` if its first connection was
/// taken away from it.
fn open(
    connect: &Connect,
    names: &SessionNames,
    given_up: Option<Pid>,
    patience: Patience,
    way: Way,
    progress: &Progress,
) -> Result<Option<Link>> {
    let begun = Instant::now();
    // The second connection takes a seat, too.
    let free = match way {
        Way::Unknown => 2,
        Way::Proven => 1,
    };
    let (mut client, place) = connect.open(free, |step| progress.handle_address(step))?;
    let (listening, listens) = bounded(1);
    // Not before the first has logged in, so that a wrong password is rejected once.
    let probe = match way {
        Way::Proven => None,
        Way::Unknown => {
            let (connect, inbox) = (Arc::clone(connect), names.inbox.clone());
            let patience = patience.clone();
            Some(start("probe", move || {
                probe(&connect, place, &inbox, &patience, Some(listens))
            })?)
        }
    };
    let pid = listen_to_inbox(&mut client, &names.inbox, patience.lock())?;
    // If the other side does not listen any more, it has failed, which is told below.
    let _ = listening.send(());
    let listened = begun.elapsed();
    progress.handle_first(client, patience.lock());
    let probe = probe.map(|probe| probe.recv());
    let Some(mut client) = progress.handle_second() else {
        return Ok(None);
    };
    let prepare = Instant::now();
    let mut link = match probe {
        None => {
            let mut link = Link::set_up(client, pid, names, given_up, patience)?;
            link.owe_proof(connect);
            link
        }
        Some(probe) => {
            let ended = |_| Err(Error::new(Kind::Link, "the second connection ended early"));
            let probe = probe.unwrap_or_else(ended);
            let second = hear_probe(&mut client, &names.inbox, probe, &patience)?;
            let mut link = Link::set_up(client, pid, names, given_up, patience)?;
            link.spent = Some(second);
            link
        }
    };
    link.place = place;
    link.took = Some(listened + prepare.elapsed());
    Ok(Some(link))
}
