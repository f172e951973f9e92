//! One session with Postgres that is known to carry notifications: listen, announce, ask, wait.
//!
//! Every call but the wait runs on a thread that can be left behind; the essay in [`link`](super) says why.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use fallible_iterator::FallibleIterator;
use postgres::error::SqlState;
use postgres::{Client, Notification, Row, SimpleQueryMessage};

use super::Pid;
use super::connector::Connect;
use super::detached::{close, receive_awake, spawn};
use super::hearing::{FLOOD, Received};
use super::pace::SLICE;
use super::patience::Patience;
use super::proof::{PROBE, Proof, Seen, is_same_server, not_carried};
use super::seats::Seated;
use super::sql::{self, Wording};
use super::targets::Place;
use crate::error::{Error, Kind, Result};
use crate::jitter;
use crate::logging::LINK;

/// The most bytes of a channel that Postgres keeps, in the encoding of the database (manual, 4.1.1).
const MAX_CHANNEL: usize = 63;

/// What a session says to its own inbox, to prove that it can notify.
const CHECK: &str = "check";

/// The encodings of a database in which Postgres takes nothing for text that it cannot convert for a session of ours, which
/// wants UTF-8. In others there may be such a text, and if somebody announces it, Postgres ends every session that listens.
const SAFE_ENCODINGS: [&str; 15] = [
    "ISO_8859_5",
    "KOI8R",
    "KOI8U",
    "LATIN1",
    "LATIN10",
    "LATIN2",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "UTF8",
    "WIN1256",
    "WIN866",
];

/// What a session listens to, and how it is shown to operators.
#[derive(Clone, Debug)]
pub(crate) struct SessionNames {
    pub(crate) channel: String,
    /// A channel that nobody else listens to.
    pub(crate) inbox: String,
    pub(crate) application_name: String,
}

/// One notification, as it was received.
#[derive(Debug)]
pub(crate) struct Notice(Notification);

impl Notice {
    /// The channel that it came on, which need not be one of ours: a session that the host opens may listen to more.
    pub(crate) fn channel(&self) -> &str {
        self.0.channel()
    }

    /// The backend that sent it.
    pub(crate) fn pid(&self) -> Option<Pid> {
        Pid::new(self.0.process_id())
    }

    pub(crate) fn payload(&self) -> &str {
        self.0.payload()
    }
}

/// What Postgres tells of backends.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Those that it has not.
    pub(crate) missing: HashSet<Pid>,
    /// For how long each other has been idle, zero with a statement under way; `None` if this role is not told.
    pub(crate) idle: HashMap<Pid, Option<Duration>>,
    /// Whether they belong to the role of this session, which tracks what it does: then they are told that.
    pub(crate) seen: bool,
}

/// Where the client of a call that hung is left when the call returns. As long as this is kept its session stays, and nobody finds
/// it missing.
pub(super) type Hung = Receiver<Seated>;

/// A session that is known to carry notifications and listens to the channel.
pub(crate) struct Link {
    /// `None` once a call hung: the client is with the thread that was left behind.
    client: Option<Seated>,
    hung: Option<Hung>,
    names: SessionNames,
    patience: Patience,
    /// Our own backend.
    pid: Pid,
    /// The database's encoding, as Postgres names it.
    encoding: Option<String>,
    /// What was received while looking for an echo.
    unread: VecDeque<Notice>,
    /// Where it leads, if that is known.
    pub(super) place: Option<Place>,
    /// How long it took to open, without the proof, if nothing hung.
    pub(super) took: Option<Duration>,
    proof: Proof,
    /// The second connection, which has proven it. It is closed after the hello: a backend that ends keeps the server busy for as
    /// long as one that starts.
    pub(super) spent: Option<Seated>,
    /// Whether all was done that the hello did not wait for.
    settled: bool,
}

impl Link {
    /// Makes a link of a connection that listens to its inbox and has been probed, and ends the session that was given up
    /// before it.
    pub(super) fn set_up(
        mut client: Seated,
        pid: Pid,
        names: &SessionNames,
        given_up: Option<Pid>,
        mut patience: Patience,
    ) -> Result<Self> {
        if let Some(pid) = given_up {
            // A role may have lost the right to; then that backend reads on until its client is gone.
            let _ = say(&mut client, |it| {
                it.end_session(pid, &names.application_name)
            });
        }
        let lock = patience.lock();
        let start = Instant::now();
        let shown = say(&mut client, |it| {
            it.set_up(&names.channel, &names.application_name, lock)
        })?;
        // The hello, which comes next, promises no more than the distance allows.
        patience.handle_round_trip(start.elapsed());
        let encoding = column(&shown).last().map(str::to_owned);
        check_length(&mut client, &names.channel, encoding.as_deref())?;
        Ok(Self {
            client: Some(client),
            hung: None,
            names: names.clone(),
            patience,
            pid,
            encoding,
            unread: VecDeque::new(),
            place: None,
            took: None,
            proof: Proof::Known,
            spent: None,
            settled: false,
        })
    }

    /// This session is like one that carried notifications, so the proof that it does may come after the hello.
    pub(super) fn owe_proof(&mut self, connect: &Connect) {
        self.proof = Proof::Owed(Arc::clone(connect));
    }

    /// Closes the second connection, if it has done its work.
    pub(super) fn close_second(&mut self) -> Result<()> {
        match self.spent.take() {
            Some(second) => spawn("close", move || drop(second)),
            None => Ok(()),
        }
    }

    /// There is a flood: closes what else is open at the server, since that takes another connection.
    pub(super) fn handle_flood(&mut self, now: Instant) {
        if let Some(second) = self.proof.handle_flood(now, &self.patience) {
            let _ = spawn("close", move || drop(second));
        }
    }

    /// Does what nobody should wait for: it comes after the hello.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.proof
            .ask(self.place, &self.names.inbox, &self.patience)?;
        if std::mem::replace(&mut self.settled, true) {
            return Ok(());
        }
        self.call(0, |client| {
            // Servers before 14 do not know the setting.
            let _ = say(client, Wording::no_idle_timeout);
            Ok(())
        })
    }

    /// The next notification. `None` means that everything which arrived before `until` has been returned.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Option<Notice>> {
        if let Some(notice) = self.unread.pop_front() {
            self.note_proof(&notice);
            return Ok(Some(notice));
        }
        self.proof.poll(&self.patience, &self.names.channel);
        let client = self.client.as_mut().ok_or_else(gone)?;
        // Not even what is waiting is read without a moment's wait, in which the socket is looked at.
        let wait = until.saturating_duration_since(Instant::now());
        let wait = wait.max(Duration::from_millis(1));
        // An iterator's delay starts anew at every notification, so each call gets a new iterator.
        let received = client.notifications().timeout_iter(wait).next();
        match received.map_err(broken)? {
            Some(notification) => {
                let notice = Notice(notification);
                self.note_proof(&notice);
                Ok(Some(notice))
            }
            // The end of the iterator also stands for the end of the connection, at once and every time.
            None if client.is_closed() => Err(gone()),
            None if self.proof.is_overdue(until) => self.look_again(),
            None => Ok(None),
        }
    }

    /// Listens for a moment; returns whether more comes than should come before an answer.
    pub(super) fn hears_a_flood(&mut self) -> bool {
        let end = Instant::now() + SLICE;
        let mut bytes = 0;
        while let (Some(client), true) = (&mut self.client, bytes <= FLOOD) {
            let left = end.saturating_duration_since(Instant::now());
            let received = client.notifications().timeout_iter(left).next();
            let Ok(Some(notification)) = received else {
                return false;
            };
            let notice = Notice(notification);
            bytes += notice.payload().len();
            self.unread.push_back(notice);
        }
        bytes > FLOOD
    }

    fn note_proof(&mut self, notice: &Notice) {
        if self.is_probe(notice) {
            self.proof.end();
        }
    }

    /// What the second connection said has not arrived. The session may have stood still, so it is asked something, and what had
    /// arrived by then is returned; or the second connection reached another server.
    fn look_again(&mut self) -> Result<Option<Notice>> {
        let second = self.proof.take_second();
        self.proof = Proof::Failed;
        let same_server = self.call(0, move |client| match second {
            Some(mut second) => Ok(is_same_server(client, &mut second)),
            None => run(client, &sql::beat()).map(|()| None),
        })?;
        let client = self.client.as_mut().ok_or_else(gone)?;
        while let Some(notification) = client.notifications().iter().next().map_err(broken)? {
            self.unread.push_back(Notice(notification));
        }
        if !self.unread.iter().any(|notice| self.is_probe(notice)) {
            return Err(not_carried(&Seen::Own { same_server }));
        }
        self.proof = Proof::Known;
        Ok(self.unread.pop_front())
    }

    fn is_probe(&self, notice: &Notice) -> bool {
        notice.channel() == self.names.inbox && notice.payload() == PROBE
    }

    /// The pid of our own backend.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// What hangs of it.
    pub(super) fn take_hung(&mut self) -> Option<Hung> {
        self.hung.take()
    }

    /// Whether it was found that it does not carry what others say.
    pub(super) fn is_disproven(&self) -> bool {
        matches!(self.proof, Proof::Failed)
    }

    /// The pid of our own backend, if a call hung: it goes on, and reads whatever the server sends.
    pub(crate) fn given_up(&self) -> Option<Pid> {
        self.client.is_none().then_some(self.pid)
    }

    /// The database's encoding, if others can end our sessions there by what they announce.
    pub(crate) fn unsafe_encoding(&self) -> Option<&str> {
        let encoding = self.encoding.as_deref();
        encoding.filter(|encoding| !SAFE_ENCODINGS.contains(encoding))
    }

    /// What was received and not returned yet.
    pub(crate) fn received(&mut self) -> Received {
        if let Some(client) = &mut self.client {
            let buffered = client.notifications().len();
            // No more than that: the next is looked for in the socket.
            for _ in 0..buffered {
                let next = client.notifications().iter().next();
                self.unread.extend(next.ok().flatten().map(Notice));
            }
        }
        let bytes = self.unread.iter().map(|notice| notice.payload().len());
        Received {
            count: self.unread.len(),
            bytes: bytes.sum(),
        }
    }

    /// Announces, all in one statement, and takes our own notifications, which must be back by now (rule 3).
    pub(crate) fn notify(&mut self, payloads: Vec<String>) -> Result<()> {
        let said = Arc::new(payloads);
        let (channel, saying) = (self.names.channel.clone(), Arc::clone(&said));
        self.say(move |it| it.notify_all(&channel, &saying))?;
        let client = self.client.as_mut().ok_or_else(gone)?;
        // Others may say the very same: a bare name, or that they know a newer incarnation.
        let mut said_by_others = false;
        while let Some(notification) = client.notifications().iter().next().map_err(broken)? {
            let notice = Notice(notification);
            let is_last = said.last().is_some_and(|last| notice.payload() == last);
            let on_channel = notice.channel() == self.names.channel;
            if notice.pid() != Some(self.pid) || !on_channel {
                said_by_others |= is_last && on_channel;
                self.unread.push_back(notice);
            } else if is_last {
                return Ok(());
            }
        }
        if said_by_others {
            return Err(not_carried(&Seen::OtherBackend));
        }
        Err(Error::new(
            Kind::Link,
            "our own notification did not come back: this session does not listen any more",
        ))
    }

    /// Sends a piece of an answer to an inbox, all its payloads at once.
    pub(crate) fn answer(&mut self, inbox: &str, payloads: Vec<String>) -> Result<()> {
        let inbox = inbox.to_owned();
        self.say(move |it| it.notify_all(&inbox, &payloads))
    }

    /// What these backends do; `None` if the server does not tell this role, or if another server answered.
    pub(crate) fn sessions(&mut self, pids: Vec<Pid>) -> Result<Option<Sessions>> {
        let own = self.pid;
        let asked: Vec<i32> = pids.iter().chain([&own]).map(|pid| pid.get()).collect();
        let rows = self.call(
            size_of_val(&asked[..]),
            move |client| match ask_for_sessions(client, &asked) {
                Ok(rows) => Ok(Some(rows)),
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
                Err(error) => Err(broken(error)),
            },
        )?;
        let Some(rows) = rows else {
            log::debug!(target: LINK, "{:?}: no right to see sessions", self.names.channel);
            return Ok(None);
        };
        let roles: HashSet<_> = rows.iter().filter_map(role).collect();
        let mut idle: HashMap<Pid, Option<Duration>> = rows.iter().filter_map(idle).collect();
        let Some(own) = idle.remove(&own) else {
            // A pooler that spreads statements over several servers has asked one that does not have our session, and so has not
            // those of the peers.
            log::debug!(target: LINK, "{:?}: another server than ours told of sessions", self.names.channel);
            return Ok(None);
        };
        let mut missing: HashSet<Pid> = pids.into_iter().collect();
        missing.retain(|pid| !idle.contains_key(pid));
        Ok(Some(Sessions {
            missing,
            idle,
            seen: own.is_some() && roles.len() == 1,
        }))
    }

    /// An empty statement: peers that look at our session see that it does not stand still.
    pub(crate) fn beat(&mut self) -> Result<()> {
        self.call(0, |client| run(client, &sql::beat()))
    }

    /// Asks whether the server still answers, and lets this session notify: for one that announces nothing, and before anybody
    /// is declared gone. It goes the way that announcements go, since what holds those up must hold up the judgement, too.
    pub(crate) fn check(&mut self) -> Result<()> {
        let inbox = self.names.inbox.clone();
        self.say(move |it| it.notify(&inbox, CHECK))
    }

    /// What was learned of the server's pace.
    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    fn say(&mut self, words: impl Fn(Wording) -> String + Send + 'static) -> Result<()> {
        let bytes = words(Wording::default()).len();
        self.call(bytes, move |client| say(client, words).map(drop))
    }

    /// Runs what can hang on a thread that can be left behind, with the client, and measures how long it takes.
    fn call<T: Send + 'static>(
        &mut self,
        bytes: usize,
        work: impl FnOnce(&mut Seated) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut client = self.client.take().ok_or_else(gone)?;
        let (done, result) = bounded(1);
        let (give_back, returned) = bounded(1);
        let limit = self.patience.statement(bytes);
        let start = Instant::now();
        spawn("call", move || {
            let outcome = work(&mut client);
            // Where nobody keeps it any more the client is dropped here, however long that takes.
            let _ = give_back.send(client);
            let _ = done.send(outcome);
        })?;
        match receive_awake(&result, limit) {
            Ok(outcome) => {
                self.client = returned.try_recv().ok();
                if outcome.is_ok() {
                    // More was not waited: this process was stopped meanwhile.
                    self.patience.handle_round_trip(start.elapsed().min(limit));
                }
                outcome
            }
            Err(RecvTimeoutError::Timeout) => {
                self.hung = Some(returned);
                Err(Error::new(
                    Kind::Timeout,
                    format!("Postgres did not answer within {limit:.1?}"),
                ))
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let hung = self.hung.take().and_then(|hung| hung.try_recv().ok());
        for client in [self.client.take().or(hung), self.spent.take()] {
            client.into_iter().for_each(close);
        }
        self.proof.end();
    }
}

/// Listens to the inbox, and returns the pid of our own backend. Comes before anything is set in the session: behind a
/// pooler in transaction mode the settings would land in somebody else's.
pub(super) fn listen_to_inbox(client: &mut Seated, inbox: &str, lock: Duration) -> Result<Pid> {
    run(client, &sql::listen(inbox))?;
    // Our own notification tells our backend's pid, without the right to execute any function. Nobody else can say the same
    // before us: not another attempt, which has the same inbox, nor a stranger who has learnt of it.
    let own = format!("own {:016x}", jitter::random());
    let notify = |it: Wording| it.notify_within(inbox, &own, lock);
    say(client, notify).or_else(|error| retry_if_full(client, notify, error))?;
    let pid = receive(client, inbox, &own, Duration::ZERO)?;
    pid.ok_or_else(|| not_carried(&Seen::Nothing))
}

/// A queue of notifications that was full stays full, though everybody has read them since, until somebody asks how full it
/// is.
fn retry_if_full(
    client: &mut Seated,
    notify: impl Fn(Wording) -> String,
    error: Error,
) -> Result<Vec<SimpleQueryMessage>> {
    if error.code() != Some(&SqlState::PROGRAM_LIMIT_EXCEEDED) {
        return Err(error);
    }
    match run(client, &sql::queue_usage()) {
        Ok(()) => say(client, notify),
        Err(_) => Err(error),
    }
}

/// Fails if Postgres, which counts in the database's encoding, cuts the name of the channel. It does so without a word.
fn check_length(client: &mut Client, channel: &str, encoding: Option<&str>) -> Result<()> {
    let encoding = encoding.unwrap_or_default();
    if channel.is_ascii() || encoding == "UTF8" || encoding == "SQL_ASCII" {
        return Ok(());
    }
    // Where this role may not ask, an announcement that does not come back tells.
    let Ok(rows) = client.simple_query(&sql::length(channel)) else {
        return Ok(());
    };
    let bytes = column(&rows).find_map(|bytes| bytes.parse::<usize>().ok());
    match bytes.filter(|bytes| *bytes > MAX_CHANNEL) {
        None => Ok(()),
        Some(bytes) => Err(Error::new(
            Kind::Link,
            format!(
                "the channel {channel:?} takes {bytes} bytes in the encoding of this database, {encoding}, and Postgres cuts \
                 it after {MAX_CHANNEL}: choose a shorter one, or a database with the encoding UTF8"
            ),
        )),
    }
}

/// The backend that serves a session which listens to nothing.
pub(super) fn own_backend(client: &mut Client) -> Option<Pid> {
    let rows = client.simple_query(&sql::own_backend()).ok()?;
    column(&rows).find_map(|pid| pid.parse().ok())
}

pub(super) fn run(client: &mut Client, statements: &str) -> Result<()> {
    client.batch_execute(statements).map_err(broken)
}

/// Says it by functions, or, where this role may not execute one of them, by statements from then on.
pub(super) fn say(
    client: &mut Seated,
    words: impl Fn(Wording) -> String,
) -> Result<Vec<SimpleQueryMessage>> {
    let wording = client.wording;
    let said = client.simple_query(&words(wording));
    let refused = said.as_ref().err().and_then(postgres::Error::code);
    if refused != Some(&SqlState::INSUFFICIENT_PRIVILEGE) || wording == Wording::Statements {
        return said.map_err(broken);
    }
    let said = client.simple_query(&words(Wording::Statements));
    if said.is_ok() {
        client.wording = Wording::Statements;
    }
    said.map_err(broken)
}

/// What a simple query returned in its first column.
pub(super) fn column(messages: &[SimpleQueryMessage]) -> impl Iterator<Item = &str> {
    messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    })
}

/// Asks what these backends do, by a statement that is prepared the first time.
fn ask_for_sessions(
    client: &mut Seated,
    pids: &[i32],
) -> std::result::Result<Vec<Row>, postgres::Error> {
    let statement = match client.sessions.take() {
        Some(statement) => statement,
        None => client.prepare(&sql::sessions())?,
    };
    let rows = client.query(&statement, &[&pids]);
    client.sessions = Some(statement);
    rows
}

/// The role of a backend.
fn role(row: &Row) -> Option<u32> {
    row.try_get(3).ok()
}

/// A backend, and for how long it has been idle, as [`Sessions`] has it.
fn idle(row: &Row) -> Option<(Pid, Option<Duration>)> {
    let pid = row.try_get(0).ok().and_then(Pid::new)?;
    let state: Option<&str> = row.try_get(1).ok().flatten();
    let idle = match state {
        Some("idle") => row.try_get(2).ok().and_then(|seconds: f64| {
            // Whatever the server's clock says, it can be reckoned with.
            Duration::try_from_secs_f64(seconds.clamp(0.0, 1e9)).ok()
        }),
        // It belongs to another role, or does not track what it does.
        None | Some("disabled") => None,
        Some(_) => Some(Duration::ZERO),
    };
    Some((pid, idle))
}

/// The pid of the backend that sent this payload to the inbox, if it comes within `wait`.
pub(super) fn receive(
    client: &mut Client,
    inbox: &str,
    payload: &str,
    wait: Duration,
) -> Result<Option<Pid>> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let received = client.notifications().timeout_iter(left).next();
        match received.map_err(broken)?.map(Notice) {
            Some(notice) if notice.channel() == inbox && notice.payload() == payload => {
                return Ok(notice.pid());
            }
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

fn broken(error: postgres::Error) -> Error {
    let what = match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            "another transaction holds up every NOTIFY of this server: it has notified, and waits in its commit, perhaps for a \
             standby. Find it with SELECT pg_blocking_pids(pid), * FROM pg_locks WHERE NOT granted"
        }
        _ => "the session with Postgres failed",
    };
    Error::caused(Kind::Link, what, error)
}

/// Whether a statement failed since another transaction holds NOTIFY up. The session is as good as before.
pub(super) fn is_held_up(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

pub(super) fn gone() -> Error {
    Error::new(Kind::Link, "Postgres closed the session")
}
