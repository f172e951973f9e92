//! This process's one session with Postgres: the only file that calls `postgres`.
//!
//! # Calls that never return
//!
//! Every blocking call of the `postgres` crate but two can hang for ever. A frozen backend (a stopped process, a stuck
//! disk, a paused machine) still acknowledges what arrives, so no TCP setting ends the wait: `execute` hangs, connecting
//! hangs behind a frozen postmaster past `connect_timeout`, and even dropping a `Client` hangs if an answer is
//! outstanding. The exceptions are `is_valid`, which has a timeout but says nothing about the statement sent next, and
//! the notification iterators.
//!
//! So every call that can hang runs on a thread that can be left behind: [`Dialer`] connects on one, [`Link::call`] lends
//! the client to one for a statement, [`dispose`] drops it on one, and [`wake`] and [`notify_aside`] have one of their own. Whoever waits, waits
//! for a bounded time; what hangs keeps its thread and its socket until the server thaws or dies, or the next session ends
//! it, as it does with a statement.
//! A thread for a statement costs some 30 us, less than the round trip of an `is_valid` before it.
//!
//! # What proves that a session works
//!
//! - A pooler in transaction mode answers LISTEN, and while it is quiet even brings back one's own notifications, but
//!   never those of others. Therefore the probe: a second connection notifies the inbox of the idle first one.
//! - One's own notification has always arrived when the NOTIFY returns, and its sender is one's own backend. Anything else
//!   means that this session is not what it was, so [`Link::notify`] checks it every time.
//!
//! # A flood
//!
//! A session reads whatever waits for it before it gets the answer to a statement, and keeps all of that in memory: where
//! strangers announce gigabytes, so much. Reading alone takes a little at a time. So while there is a flood, which is the
//! worker's to see, nothing is asked on the link, and [`notify_aside`] announces. A statement that was under way before goes
//! on reading when nobody waits for it any more, until the next session ends that one.
//!
//! # The inbox
//!
//! Every session also listens to a channel of its own, its inbox. The probe uses it, and [`wake`]: a thread that waits in
//! `postgres` can be woken by nothing but the server, so that is what the host's requests do.

pub(crate) mod outage;
pub(crate) mod side_channel;

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::num::NonZeroI32;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use fallible_iterator::FallibleIterator;
use postgres::config::{ChannelBinding, LoadBalanceHosts, SslMode};
use postgres::error::SqlState;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Client, Notification, SimpleQueryMessage, Socket};

use crate::error::{Error, Kind, Result};
use crate::jitter;
use crate::logging::LINK;

/// The longest a statement may take before the link counts as broken. With the heartbeat interval it bounds how late a
/// frozen server is noticed.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long the probe's second connection may take to open, and its notification to come, which it does within
/// milliseconds or never.
const SECOND_TIMEOUT: Duration = Duration::from_secs(3);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest that disposing of a client holds anybody up; a healthy one takes 0.1 ms.
const DISPOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// After this long an attempt to connect counts as hanging, and another may start beside it; with each that hangs, after
/// twice as long, up to five minutes.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_DOUBLINGS: u32 = 5;

/// Limits for a connection whose string sets none: the peer of a dead connection is given up within seconds, not the
/// system's hours. The server is asked for the same, in [`HARDEN`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVES_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVES_RETRIES: u32 = 3;

/// What `postgres` sets of itself for `keepalives_idle`, by which an unset one is known.
const DEFAULT_KEEPALIVES_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// Set in the session after connecting, since poolers refuse start-up options. The server then gives up a statement that
/// nobody waits for, and notices a dead host: without both TCP settings its backend stays for a quarter of an hour, and
/// pins the notification queue.
const HARDEN: &str = "SET statement_timeout = '5s'; SET tcp_user_timeout = '5s'; \
    SET tcp_keepalives_idle = '5s'; SET tcp_keepalives_interval = '1s'; SET tcp_keepalives_count = 3";

/// Opens a connection; called again at every attempt, possibly while an earlier call still hangs.
pub(crate) type Connect = Arc<dyn Fn(Hosts) -> Result<Client> + Send + Sync>;

/// In which order to try several hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    AsConfigured,
    /// An attempt that hangs may hang at the first host; another one should not follow it there every time.
    Shuffled,
}

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
pub(crate) struct Session {
    pub(crate) channel: String,
    /// A channel that nobody else listens to.
    pub(crate) inbox: String,
    pub(crate) application_name: String,
}

/// Parses a connection string into what opens connections, with limits on every wait that TCP knows.
pub(crate) fn connector<T>(params: &str, tls: Option<T>) -> Result<Connect>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::TlsConnect: Send,
    T::Stream: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let mut config: postgres::Config = params.parse().map_err(|e| unparsable(params, &e))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(Error::config(
            "the connection string names no host: add host=... (or a directory with the server's socket)",
        ));
    }
    if tls.is_none() && config.get_ssl_mode() == SslMode::Require {
        return Err(Error::config(
            "the connection string says sslmode=require, which `join` cannot do: use `join_tls`",
        ));
    }
    if tls.is_none() && config.get_channel_binding() == ChannelBinding::Require {
        return Err(Error::config(
            "the connection string says channel_binding=require, which takes TLS: use `join_tls`",
        ));
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    if config.get_keepalives_idle() == DEFAULT_KEEPALIVES_IDLE {
        config.keepalives_idle(KEEPALIVES_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVES_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVES_RETRIES);
    }
    config.notice_callback(|notice| log::debug!(target: LINK, "Postgres says: {notice}"));
    let mut shuffled = config.clone();
    shuffled.load_balance_hosts(LoadBalanceHosts::Random);
    Ok(Arc::new(move |hosts| {
        let config = match hosts {
            Hosts::AsConfigured => &config,
            Hosts::Shuffled => &shuffled,
        };
        let client = match &tls {
            Some(tls) => config.connect(tls.clone()),
            None => config.connect(postgres::NoTls),
        };
        client.map_err(|e| Error::caused(Kind::Link, "cannot connect to Postgres", e))
    }))
}

/// What opens connections by a closure of the host's.
pub(crate) fn custom_connector<F, E>(connect: F) -> Connect
where
    F: Fn() -> std::result::Result<Client, E> + Send + Sync + 'static,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    Arc::new(move |_| {
        connect().map_err(|e| Error::caused(Kind::Link, "cannot connect to Postgres", e))
    })
}

/// What else libpq can be told of TLS, and providers put into their URLs.
const OTHERS_TLS_OPTIONS: [&str; 14] = [
    "gssencmode",
    "requiressl",
    "ssl",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslsni",
];

/// The parser's own words can contain a part of the password (one with a space in it is taken for an option), so they are
/// only passed on if they name an option that exists, or if there is no password.
fn unparsable(params: &str, error: &postgres::Error) -> Error {
    let reason = error.source().map_or_else(String::new, ToString::to_string);
    let unknown = |option: &&str| reason == format!("unknown option `{option}`");
    let is_about_tls = OTHERS_TLS_OPTIONS.iter().any(unknown);
    let advice = if is_about_tls {
        "leave it out: certificates and what is verified are up to the connector that `join_tls` takes"
    } else if reason.contains("`sslmode`") {
        "sslmode may be disable, prefer or require; for verify-ca or verify-full write require, since what is verified is \
         up to the connector that `join_tls` takes"
    } else {
        "write host=... user=... dbname=... or postgres://user@host/dbname, \
         with special characters percent-encoded in a URL and in single quotes elsewhere"
    };
    let harmless = is_about_tls
        || reason.starts_with("invalid value for option")
        || !(params.contains('@') || params.to_ascii_lowercase().contains("pass"));
    let reason = match harmless {
        true => &reason,
        false => "the reason is not shown, since it may show the password",
    };
    Error::config(format!(
        "the connection string is not valid ({reason}): {advice}"
    ))
}

/// One notification, as it was received.
#[derive(Debug)]
pub(crate) struct Notice(Notification);

impl Notice {
    /// Not only ours: a session that the host opens may listen to more.
    pub(crate) fn channel(&self) -> &str {
        self.0.channel()
    }

    /// The backend that sent it.
    pub(crate) fn pid(&self) -> Option<NonZeroI32> {
        NonZeroI32::new(self.0.process_id())
    }

    pub(crate) fn payload(&self) -> &str {
        self.0.payload()
    }
}

/// A session that is known to carry notifications and listens to the channel.
pub(crate) struct Link {
    /// `None` once a call hung: the client is with the thread that was left behind.
    client: Option<Client>,
    channel: String,
    /// Our own backend.
    pid: i32,
    /// The database's, as Postgres names it.
    encoding: Option<String>,
    /// Received while looking for an echo.
    unread: VecDeque<Notice>,
}

impl Link {
    /// Connects, proves that the connection carries notifications, and listens. May hang, and then the first connection is
    /// in the slot; see [`Dialer`]. `None` if it was taken from there.
    fn open(
        connect: &Connect,
        hosts: Hosts,
        session: &Session,
        given_up: Option<NonZeroI32>,
        slot: &Slot,
    ) -> Result<Option<Self>> {
        let mut client = connect(hosts)?;
        let pid = listen_to_inbox(&mut client, session)?;
        slot.put(client);
        let second = connect(hosts).and_then(|mut second| run(&mut second, &probe(session)));
        let Some(mut client) = slot.take() else {
            return Ok(None);
        };
        if let Err(error) = second.and_then(|()| hear_probe(&mut client, session)) {
            // A pooler's server connection must not go on listening for nobody.
            let unlisten = format!("UNLISTEN {}", identifier(&session.inbox));
            let _ = run(&mut client, &unlisten);
            return Err(error);
        }
        if let Some(pid) = given_up {
            // Takes a right that every role has unless it was revoked.
            let _ = run(&mut client, &end_of(pid, session));
        }
        // Servers before 14 do not know it, and say so.
        let _ = run(&mut client, "SET idle_session_timeout = 0");
        let listen = format!(
            "{HARDEN}; SET application_name = {}; LISTEN {}; SHOW server_encoding",
            literal(&session.application_name),
            identifier(&session.channel)
        );
        let shown = client.simple_query(&listen).map_err(broken)?;
        let encoding = column(&shown).next().map(str::to_owned);
        Ok(Some(Self {
            client: Some(client),
            channel: session.channel.clone(),
            pid,
            encoding,
            unread: VecDeque::new(),
        }))
    }

    /// The next notification. `None` means that everything which arrived before `until` has been returned.
    pub(crate) fn next(&mut self, until: Instant) -> Result<Option<Notice>> {
        if let Some(notice) = self.unread.pop_front() {
            return Ok(Some(notice));
        }
        let client = self.client.as_mut().ok_or_else(gone)?;
        // Not even what is waiting is read without a moment's wait, in which the socket is looked at.
        let wait = until.saturating_duration_since(Instant::now());
        let wait = wait.max(Duration::from_millis(1));
        // An iterator's delay starts anew at every notification, so each call gets an iterator of its own.
        let received = client.notifications().timeout_iter(wait).next();
        match received.map_err(broken)? {
            Some(notification) => Ok(Some(Notice(notification))),
            // The end of the iterator also stands for the end of the connection, at once and every time.
            None if client.is_closed() => Err(gone()),
            None => Ok(None),
        }
    }

    /// The pid of our own backend.
    pub(crate) fn pid(&self) -> Option<NonZeroI32> {
        NonZeroI32::new(self.pid)
    }

    /// The same, if a call hung: it goes on, and reads whatever the server sends.
    pub(crate) fn given_up(&self) -> Option<NonZeroI32> {
        self.pid().filter(|_| self.client.is_none())
    }

    /// The database's encoding, if others can end our sessions there by what they announce.
    pub(crate) fn unsafe_encoding(&self) -> Option<&str> {
        let encoding = self.encoding.as_deref();
        encoding.filter(|encoding| !SAFE_ENCODINGS.contains(encoding))
    }

    /// Sends an answer, all its payloads at once.
    pub(crate) fn answer(&mut self, channel: &str, payloads: &[String]) -> Result<()> {
        let channel = identifier(channel);
        let statements = payloads
            .iter()
            .map(|p| format!("NOTIFY {channel}, {}", literal(p)));
        // One query is one transaction, and so wakes the server's listeners once.
        let statements = statements.collect::<Vec<_>>().join("; ");
        self.call(move |client| run(client, &statements))
    }

    /// Which of these backends the server has; `None` if it does not tell this role.
    pub(crate) fn sessions(&mut self, pids: &[NonZeroI32]) -> Result<Option<Vec<NonZeroI32>>> {
        let pids = pids
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let query = format!(
            "SELECT pid FROM pg_catalog.pg_stat_get_activity(NULL) WHERE pid = ANY ('{{{pids}}}')"
        );
        self.call(move |client| {
            // A simple query leaves no statement behind.
            let rows = match client.simple_query(&query) {
                Ok(rows) => rows,
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    return Ok(None);
                }
                Err(error) => return Err(broken(error)),
            };
            Ok(Some(
                column(&rows).filter_map(|pid| pid.parse().ok()).collect(),
            ))
        })
    }

    /// How many notifications have arrived that were not returned yet.
    pub(crate) fn waiting(&mut self) -> usize {
        let buffered = |client: &mut Client| client.notifications().len();
        self.unread.len() + self.client.as_mut().map_or(0, buffered)
    }

    /// Announces, and returns how long it took until our own notification was back.
    pub(crate) fn notify(&mut self, payload: &str) -> Result<Duration> {
        let statement = format!("NOTIFY {}, {}", identifier(&self.channel), literal(payload));
        let start = Instant::now();
        self.call(move |client| run(client, &statement))?;
        let echo = start.elapsed();
        let client = self.client.as_mut().ok_or_else(gone)?;
        // Others may say the very same: a bare name, or that they know a newer incarnation.
        let mut said_by_others = false;
        while let Some(notification) = client.notifications().iter().next().map_err(broken)? {
            let notice = Notice(notification);
            let same = notice.channel() == self.channel && notice.payload() == payload;
            if same && notice.0.process_id() == self.pid {
                return Ok(echo);
            }
            said_by_others |= same;
            self.unread.push_back(notice);
        }
        if said_by_others {
            return Err(not_carried());
        }
        Err(Error::new(
            Kind::Link,
            "our own notification did not come back: this session does not listen any more",
        ))
    }

    /// Whether the server still answers: for a session that announces nothing, and before anybody is declared gone.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.call(|client| run(client, "SELECT 1"))
    }

    /// Runs what can hang on a thread that can be left behind, with the client.
    fn call<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut client = self.client.take().ok_or_else(gone)?;
        let (done, result) = bounded(1);
        spawn("call", move || {
            let outcome = work(&mut client);
            // Nobody waits any more: the client is dropped here, however long that takes.
            let _ = done.send((client, outcome));
        })?;
        match receive_awake(&result, CALL_TIMEOUT) {
            Ok((client, outcome)) => {
                self.client = Some(client);
                outcome
            }
            Err(RecvTimeoutError::Timeout) => Err(Error::new(
                Kind::Timeout,
                format!("Postgres did not answer within {CALL_TIMEOUT:?}"),
            )),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            dispose(client);
        }
    }
}

/// Attempts to open a link, each on a thread that can be left behind. What succeeds after the dialer is gone is closed by
/// its own thread.
pub(crate) struct Dialer {
    connect: Connect,
    session: Session,
    /// The backend of the link before, if that was given up.
    given_up: Option<NonZeroI32>,
    /// The number of an attempt, and what came of it: nothing, if it was given up.
    finished: Receiver<(u64, Result<Option<Link>>)>,
    finish: Sender<(u64, Result<Option<Link>>)>,
    running: u32,
    /// The number of the newest attempt, when it started, and whether it is still under way. Older ones hang.
    newest: u64,
    started: Instant,
    dialing: bool,
    slot: Arc<Slot>,
}

/// Where an attempt leaves its first connection while it opens the second: in a full pool that one waits for this one to
/// be given up, so whoever waits for the attempt must be able to.
#[derive(Default)]
struct Slot(Mutex<Option<(Client, Instant)>>);

impl Slot {
    fn put(&self, client: Client) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((client, Instant::now()));
    }

    fn take(&self) -> Option<Client> {
        self.take_after(Duration::ZERO)
    }

    /// What has been there for so long.
    fn take_after(&self, time: Duration) -> Option<Client> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, _) = slot.take_if(|(_, since)| since.elapsed() >= time)?;
        Some(client)
    }
}

impl Dialer {
    /// A session that was given up is ended by the next.
    pub(crate) fn new(connect: Connect, session: Session, given_up: Option<NonZeroI32>) -> Self {
        // Each attempt sends one result.
        let (finish, finished) = unbounded();
        Self {
            connect,
            session,
            given_up,
            finished,
            finish,
            running: 0,
            newest: 0,
            started: Instant::now(),
            dialing: false,
            slot: Arc::default(),
        }
    }

    /// Whether an attempt is under way, other than those that hang.
    pub(crate) fn is_dialing(&self) -> bool {
        self.dialing
    }

    /// Starts an attempt.
    pub(crate) fn dial(&mut self) -> Result<()> {
        let (connect, session) = (Arc::clone(&self.connect), self.session.clone());
        let (finish, given_up) = (self.finish.clone(), self.given_up);
        let hosts = match self.running {
            0 => Hosts::AsConfigured,
            _ => Hosts::Shuffled,
        };
        // What an attempt that hangs left there late would hold a place in the pool for nothing.
        if let Some(first) = self.slot.take() {
            dispose(first);
        }
        self.slot = Arc::default();
        let slot = Arc::clone(&self.slot);
        self.newest += 1;
        self.started = Instant::now();
        self.dialing = false;
        let number = self.newest;
        spawn("dial", move || {
            // A host's closure may panic; that must count as an attempt that failed.
            let open = AssertUnwindSafe(|| Link::open(&connect, hosts, &session, given_up, &slot));
            let panicked = |_| Err(Error::new(Kind::Link, "connecting to Postgres panicked"));
            let outcome = panic::catch_unwind(open).unwrap_or_else(panicked);
            let _ = finish.send((number, outcome));
        })?;
        self.running += 1;
        self.dialing = true;
        Ok(())
    }

    /// The outcome of an attempt, if one comes within `wait`. An attempt that takes too long is reported once as an error,
    /// and goes on: its outcome may still come.
    pub(crate) fn wait(&mut self, wait: Duration) -> Option<Result<Link>> {
        let error = match self.finished.recv_timeout(wait) {
            Ok((number, outcome)) => {
                self.running -= 1;
                self.dialing &= number != self.newest;
                return outcome.transpose();
            }
            Err(_) if !self.dialing => return None,
            Err(_) => match self.slot.take_after(SECOND_TIMEOUT) {
                Some(first) => {
                    dispose(first);
                    format!(
                        "a second, short-lived connection, which proves that the first one carries notifications, could \
                         not be opened within {SECOND_TIMEOUT:?}: leave room for one more session in the pool and in \
                         max_connections"
                    )
                }
                None if self.is_overdue() => {
                    format!("connecting to Postgres takes longer than {DIAL_TIMEOUT:?}")
                }
                None => return None,
            },
        };
        self.dialing = false;
        Some(Err(Error::new(Kind::Timeout, error)))
    }

    /// Whether the newest attempt hangs, too. The more there are, the longer the next is waited for, so that they stay few.
    fn is_overdue(&self) -> bool {
        let doublings = self.running.saturating_sub(1).min(MAX_DOUBLINGS);
        self.started.elapsed() > DIAL_TIMEOUT * 2u32.pow(doublings)
    }
}

/// Makes [`Link::next`] return, in a link of this session. Returns at once; `woken` is called when that was done, or failed.
pub(crate) fn wake(
    connect: Connect,
    session: &Session,
    woken: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let statement = format!("NOTIFY {}, 'wake'", identifier(&session.inbox));
    let wake = move |client: &mut Client| run(client, &statement);
    let channel = session.channel.clone();
    aside("wake", connect, wake, move |done| {
        if let Err(error) = done {
            log::debug!(target: LINK, "{channel:?}: a request waits for its turn: {error}");
        }
        woken();
    })
}

/// Announces over a connection of its own, which hears nothing and so has nothing to read first. Returns at once. What to
/// announce may depend on the backend that does.
pub(crate) fn notify_aside(
    connect: Connect,
    session: &Session,
    write: impl FnOnce(Option<NonZeroI32>) -> Vec<String> + Send + 'static,
) -> Result<Receiver<Result<()>>> {
    let channel = identifier(&session.channel);
    let notify = move |client: &mut Client| {
        let payloads = write(backend(client));
        let notify = |payload: &String| format!("; NOTIFY {channel}, {}", literal(payload));
        let statements: String = payloads.iter().map(notify).collect();
        run(client, &format!("SET statement_timeout = '5s'{statements}"))
    };
    let (done, outcome) = bounded(1);
    aside("notify", connect, notify, move |result| {
        // Nobody may be waiting any more.
        let _ = done.send(result);
    })?;
    Ok(outcome)
}

/// The backend that serves a session which listens to nothing. Takes a right that every role has unless it was revoked.
fn backend(client: &mut Client) -> Option<NonZeroI32> {
    let rows = client.simple_query("SELECT pg_catalog.pg_backend_pid()");
    rows.ok()?.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    })
}

/// Does some work on a thread that can be left behind, with a connection for this alone.
fn aside(
    what: &str,
    connect: Connect,
    work: impl FnOnce(&mut Client) -> Result<()> + Send + 'static,
    done: impl FnOnce(Result<()>) + Send + 'static,
) -> Result<()> {
    spawn(what, move || {
        let mut client = None;
        let work = || work(client.insert(connect(Hosts::AsConfigured)?));
        let panicked = |_| Err(Error::new(Kind::Link, "connecting to Postgres panicked"));
        // Before the client is dropped, which may take long.
        done(panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked));
    })
}

/// Receives within a time in which this process runs: while it is stopped, as by SIGSTOP, nobody can be late.
fn receive_awake<T>(
    result: &Receiver<T>,
    timeout: Duration,
) -> std::result::Result<T, RecvTimeoutError> {
    const STEPS: u32 = 15;
    for _ in 1..STEPS {
        match result.recv_timeout(timeout / STEPS) {
            Err(RecvTimeoutError::Timeout) => {}
            received => return received,
        }
    }
    result.recv_timeout(timeout / STEPS)
}

/// Drops a client on a thread that can be left behind.
fn dispose(client: Client) {
    let (done, dropped) = bounded::<()>(1);
    let spawned = spawn("close", move || {
        drop(client);
        drop(done);
    });
    if spawned.is_ok() {
        let _ = dropped.recv_timeout(DISPOSE_TIMEOUT);
    }
}

fn spawn(what: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(format!("pg-peers-{what}"))
        .spawn(work)
        .map(drop)
        .map_err(|e| Error::caused(Kind::Link, "cannot start a thread", e))
}

fn run(client: &mut Client, statements: &str) -> Result<()> {
    client.batch_execute(statements).map_err(broken)
}

/// What a simple query returned in its first column.
fn column(messages: &[SimpleQueryMessage]) -> impl Iterator<Item = &str> {
    messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    })
}

/// Listens to the inbox, and returns the pid of our own backend. Comes before anything is set in the session: behind a
/// pooler in transaction mode the settings would land in somebody else's.
fn listen_to_inbox(client: &mut Client, session: &Session) -> Result<i32> {
    let inbox = identifier(&session.inbox);
    run(client, &format!("LISTEN {inbox}"))?;
    // Our own notification tells our backend's pid, without the right to execute any function. Nobody else can say the same
    // before us: not another attempt, which has the same inbox, nor a stranger who has learnt of it.
    let own = format!("own {:016x}", jitter::random());
    let notify = format!("NOTIFY {inbox}, {}", literal(&own));
    run(client, &notify).or_else(|error| retry_if_full(client, &notify, error))?;
    receive(client, session, &own, Duration::ZERO)?.ok_or_else(not_carried)
}

/// A queue of notifications that was full stays full, though everybody has read them since, until somebody asks how full it
/// is: only then, and when one is added, does Postgres look (`asyncQueueAdvanceTail` in its `async.c`).
fn retry_if_full(client: &mut Client, notify: &str, error: Error) -> Result<()> {
    if error.code() != Some(&SqlState::PROGRAM_LIMIT_EXCEEDED) {
        return Err(error);
    }
    match run(client, "SELECT pg_catalog.pg_notification_queue_usage()") {
        Ok(()) => run(client, notify),
        Err(_) => Err(error),
    }
}

/// Ends a session of ours. This may be another server by now, which has given the number to somebody else; and a server
/// keeps of a name what is ASCII.
fn end_of(pid: NonZeroI32, session: &Session) -> String {
    let name = literal(&session.application_name);
    format!(
        "SET application_name = {name}; \
         SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
         WHERE pid = {pid} AND application_name = pg_catalog.current_setting('application_name') \
         AND pid <> pg_catalog.pg_backend_pid()"
    )
}

/// What the second connection says to the first.
fn probe(session: &Session) -> String {
    format!("NOTIFY {}, 'other'", identifier(&session.inbox))
}

/// Whether this connection carries the notifications of others.
fn hear_probe(client: &mut Client, session: &Session) -> Result<()> {
    let heard = receive(client, session, "other", PROBE_TIMEOUT)?;
    heard.map(drop).ok_or_else(not_carried)
}

/// The pid of who sent this, if it comes within `wait`.
fn receive(
    client: &mut Client,
    session: &Session,
    payload: &str,
    wait: Duration,
) -> Result<Option<i32>> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let received = client.notifications().timeout_iter(left).next();
        match received.map_err(broken)? {
            Some(found) if found.channel() == session.inbox && found.payload() == payload => {
                return Ok(Some(found.process_id()));
            }
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

fn broken(error: postgres::Error) -> Error {
    Error::caused(Kind::Link, "the session with Postgres failed", error)
}

fn gone() -> Error {
    Error::new(Kind::Link, "Postgres closed the session")
}

fn not_carried() -> Error {
    Error::new(
        Kind::Pooler,
        "notifications do not arrive on this connection: it goes through a pooler in transaction or statement mode \
         (such as PgBouncer's pool_mode=transaction). Connect to Postgres directly, or to a pool in session mode",
    )
}

/// Quotes an SQL identifier (PostgreSQL manual, 4.1.1). Postgres folds the case of unquoted ones.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes an SQL string so that it reads the same whatever `standard_conforming_strings` is (manual, 4.1.2.2).
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_broken_out_of() {
        assert_eq!(identifier(r#"a"b\"#), r#""a""b\""#);
        assert_eq!(literal(r"a'b\'"), r"E'a''b\\'''");
    }

    #[test]
    fn a_bad_connection_string_is_refused_without_showing_its_password() {
        let tls = || None::<postgres::NoTls>;
        for params in [
            "host=h password=hun ter2=x",
            "host=h passwort=hunter2",
            "postgres://u:hunter2@h:port/db",
            "postgres://u:hunter2@h/db?hunter2=1",
        ] {
            let error = connector(params, tls()).err().expect(params);
            let shown = format!("{error} {error:?} {:?}", StdError::source(&error));
            assert!(error.is_config(), "{params}");
            assert!(!shown.contains("ter2"), "{shown}");
        }
        let error = connector("host=h password=hunter2 port=x", tls())
            .err()
            .expect("an error");
        assert!(error.to_string().contains("option `port`"), "{error}");
        let error = connector("hots=localhost", tls()).err().expect("an error");
        assert!(error.to_string().contains("hots"), "{error}");
        for (option, advice) in [
            ("sslrootcert=system", "leave it out"),
            (
                "sslmode=verify-full",
                "for verify-ca or verify-full write require",
            ),
        ] {
            let url = format!("postgres://u:hunter2@h/db?{option}");
            let error = connector(&url, tls()).err().expect("an error").to_string();
            assert!(error.contains(advice), "{error}");
            assert!(
                error.contains(option.split('=').next().unwrap_or_default()),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = connector("user=u", tls()).err().expect("an error");
        assert!(error.to_string().contains("no host"), "{error}");
        for option in ["sslmode=require", "channel_binding=require"] {
            let error = connector(&format!("host=h {option}"), tls()).err();
            let error = error.expect("one").to_string();
            assert!(
                error.contains("join_tls") && error.contains(option),
                "{error}"
            );
        }
    }
}
