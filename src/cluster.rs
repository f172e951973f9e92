//! The handle that the host holds, and the ways to get one.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::mem;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Client, NoTls, Socket};

use crate::config::{Config, Participant, Settings};
use crate::core::presence::{Presence, Style};
use crate::core::roster::{Limits, Roster};
use crate::core::wire::{self, Inbox};
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::host::delivery::Delivery;
use crate::host::shared::{Requests, Shared, View};
use crate::jitter::{Jitter, random};
use crate::link::{self, Connect, Connection, SessionNames};
use crate::logging::LINK;
use crate::peer::{Incarnation, Peer, PeerInfo, Tags};
use crate::status::Status;
use crate::trust::guard::Guard;
use crate::worker::Worker;

/// How many events the channel to the host holds; more wait in the outbox, where they coalesce.
const EVENTS: usize = 256;

/// The least number of departed peers that are remembered, however few peers there may be.
const LEAST_REMEMBERED: usize = 1_000;

/// The longest that `leave` takes: the rest of a slice, a statement in progress that times out, and some.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(3_500);

/// The longest that dropping the handle takes.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// Taking part in a cluster: the handle to a thread that announces this participant and hears its peers.
///
/// No method waits for Postgres unless its name says so, whatever state Postgres is in, and none panics inside an async
/// runtime. Dropping the handle leaves the cluster, as [`leave`](Cluster::leave) does, but waits at most a second and
/// ignores failures. A program may hold several, for several channels or servers.
#[must_use = "dropping it leaves the cluster"]
pub struct Cluster {
    participant: Option<Participant>,
    /// The tags that were asked for last.
    tags: Mutex<Tags>,
    /// The process that joined, and so has the thread.
    process: u32,
    connect: Connect,
    names: SessionNames,
    events: Receiver<Event>,
    shared: Arc<Shared>,
    /// Until it was asked to end.
    thread: Mutex<Option<JoinHandle<()>>>,
    left: Receiver<Result<()>>,
}

impl Config {
    /// Joins over a connection without TLS. `params` is a connection string, `host=localhost user=postgres` or
    /// `postgres://user@host/dbname`, as [`postgres::Config`] reads it; several hosts with
    /// `target_session_attrs=read-write` follow a failover. Where it sets no `connect_timeout`, `keepalives_*` or
    /// `tcp_user_timeout`, limits of seconds are set.
    ///
    /// Returns at once: a Postgres that cannot be reached is an [`Event::Offline`] and a retry, not an error. A login that
    /// the server rejects (SQLSTATE of class 28, such as a wrong password) is tried again every 30 seconds, so at most 20
    /// times in ten minutes: some providers ban addresses that go on. An attempt ends at the first address that rejects the
    /// login, and the next one tries the others first.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config): a value of this configuration or the connection string is not valid.
    pub fn join(self, params: &str) -> Result<Cluster> {
        let settings = Settings::parse(&self)?;
        let connect = link::connector(params, None::<NoTls>, settings.application_name())?;
        Cluster::start(settings, connect)
    }

    /// Joins over connections that `tls` secures: a connector of `tokio-postgres-rustls`,
    /// `postgres-native-tls` or `postgres-openssl`. The README has an example.
    ///
    /// Whether TLS is required is up to the connection string: with `sslmode=require` it is. The default, `prefer`, goes on
    /// without, if the server says that it has none, or somebody between who says so. What is verified is up to
    /// the connector, and the three verify the chain and the host name, as libpq does with `verify-full`.
    /// `channel_binding=require` binds a SCRAM password to the server's certificate.
    ///
    /// A server that is refused is an [`Event::Offline`] with the connector's reason.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config): a value of this configuration or the connection string is not valid.
    pub fn join_tls<T>(self, params: &str, tls: T) -> Result<Cluster>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let settings = Settings::parse(&self)?;
        let connect = link::connector(params, Some(tls), settings.application_name())?;
        Cluster::start(settings, connect)
    }

    /// Joins over connections that a closure opens: for passwords that change, and set-ups of their
    /// own. It is called twice at every attempt (the second connection is short-lived and proves that the first carries
    /// notifications), and for a moment's connection when the thread must be woken, as by [`set_tag`](Cluster::set_tag) or leaving;
    /// always on a thread where it may block. While one call hangs, another may be made. What it returns must
    /// be a session of its own with the primary.
    ///
    /// A login that the server rejects is tried again after one second, and then less and less often, down to every 5
    /// seconds; what the closure supplies then may be right.
    ///
    /// Set `connect_timeout`, `keepalives_idle` and `tcp_user_timeout` in it; the server-side settings are made here.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config): a value of this configuration is not valid. What the closure fails with becomes an
    /// [`Event::Offline`]; keep secrets out of it.
    pub fn join_with<F, E>(self, connect: F) -> Result<Cluster>
    where
        F: Fn() -> std::result::Result<Client, E> + Send + Sync + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let settings = Settings::parse(&self)?;
        Cluster::start(settings, link::custom_connector(connect))
    }
}

impl Cluster {
    fn start(settings: Settings, connect: Connect) -> Result<Self> {
        let application_name = settings.application_name().to_owned();
        let Settings {
            participant,
            channel,
            heartbeat,
            bare_heartbeat,
            missed,
            max_peers,
            delivery_budget,
            session_check,
            observer_asks,
            keys,
        } = settings;
        let inbox = Inbox::new(random());
        let presence = participant.as_ref().map(|participant| {
            Presence::new(
                Arc::clone(&participant.name),
                incarnation_now(),
                participant.style,
                wire::encode_tags(&participant.tags),
            )
        });
        let in_full = participant.as_ref().map_or(observer_asks, |participant| {
            participant.style == Style::Full
        });
        let limits = Limits {
            heartbeat,
            delivery_budget,
            session_check,
            observer_asks,
            bare_heartbeat,
            missed,
            max_peers,
            max_departed: max_peers.max(LEAST_REMEMBERED),
        };
        let guard = Guard::new(channel.clone(), keys);
        let names = SessionNames {
            channel,
            inbox: inbox.channel(),
            application_name,
        };
        let shared = Arc::new(Shared::default());
        let (events_in, events) = bounded(EVENTS);
        let (farewell, left) = bounded(1);
        let roster = Roster::new(presence, inbox, limits, Jitter::new(random()));
        let host = Delivery::new(
            names.channel.clone(),
            Arc::clone(&shared),
            events_in,
            in_full,
        );
        let connection = Connection::new(
            Arc::clone(&connect),
            names.clone(),
            heartbeat,
            !roster.is_observer(),
            Jitter::new(random()),
        );
        let worker = Worker::new(names.clone(), guard, roster, host, connection);
        let ended = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("pg-peers".to_owned())
            .spawn(move || {
                let _end = End(ended);
                // The handle keeps the receiver for as long as it may want to know.
                let _ = farewell.send(worker.run());
            })
            .map_err(|e| Error::caused(Kind::Link, "cannot start the pg-peers thread", e))?;
        let tags = participant.as_ref().map(|it| it.tags.clone());
        Ok(Self {
            participant,
            tags: Mutex::new(tags.unwrap_or_default()),
            process: process::id(),
            connect,
            names,
            events,
            shared,
            thread: Mutex::new(Some(thread)),
            left,
        })
    }

    /// What happened, in the order described at [`Event`]. The channel is bounded; events that do not fit wait and coalesce,
    /// so draining late is safe. Disconnected after the cluster was left, which ends a `for` loop over it.
    ///
    /// Clones of the receiver share the events: each event goes to one of them.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// This participant's name; `None` for an observer.
    pub fn name(&self) -> Option<&str> {
        Some(&self.participant.as_ref()?.name)
    }

    /// The peers that are there now, in the order of their names. A snapshot; answers at once, in every state.
    pub fn peers(&self) -> Vec<Peer> {
        let peers = self.shared.look(|view| Arc::clone(&view.peers));
        peers.to_vec()
    }

    /// The peer of that name, if it is there now. Answers at once, in every state.
    pub fn peer(&self, name: &str) -> Option<Peer> {
        self.shared.look(|view| view.peers.get(name).cloned())
    }

    /// The link and the counters. Answers at once, in every state.
    pub fn status(&self) -> Status {
        self.shared.look(|view| view.status.clone())
    }

    /// Asks what is known of each peer that is there besides what it announces: when it was last heard, how often it will be,
    /// and by which backend. In the order of their names. Returns at once; the answer comes, once, within a second, or with
    /// a server that does not answer within six. It costs nothing to those who do not ask.
    ///
    /// A second question before the answer to the first takes its place: the earlier receiver is disconnected. So is the receiver
    /// in a fork of the process that joined.
    pub fn peer_infos(&self) -> Receiver<Vec<PeerInfo>> {
        let (answer, infos) = bounded(1);
        if self.check_process().is_ok() {
            self.shared.requests().peer_infos = Some(answer);
        }
        infos
    }

    /// Waits until this participant hears and is heard.
    ///
    /// # Errors
    ///
    /// [`is_name_taken`](Error::is_name_taken), at once: it hears, but a newer process has its name, so it is not heard.
    /// [`is_timeout`](Error::is_timeout): it was not online within `timeout`; the text and the
    /// [`source`](StdError::source) have the reason, if one is known. Attempts go on.
    /// [`is_link`](Error::is_link), at once: this process is a fork of the one that joined, and has not its thread; or the thread
    /// panicked, which is a bug, and nothing goes on.
    pub fn wait_online(&self, timeout: Duration) -> Result<()> {
        self.check_process()?;
        let online = |view: &View| match view.status.name_taken {
            true => Some(Err(self.name_taken())),
            false => view.status.online.then_some(Ok(())),
        };
        if let Some(outcome) = self.shared.wait(timeout, online) {
            return outcome;
        }
        self.check_thread()?;
        let message = format!("not online within {timeout:?}");
        Err(match self.status().last_error {
            Some(reason) => Error::caused(Kind::Timeout, message, reason),
            None => Error::new(Kind::Timeout, message),
        })
    }

    /// Waits until there are at least `count` peers, and returns them. This process is not among them: three processes
    /// have two peers each.
    ///
    /// # Errors
    ///
    /// [`is_timeout`](Error::is_timeout): there were fewer within `timeout`. [`is_link`](Error::is_link): as of
    /// [`wait_online`](Cluster::wait_online).
    pub fn wait_for_peers(&self, count: usize, timeout: Duration) -> Result<Vec<Peer>> {
        self.check_process()?;
        let enough = |view: &View| (view.peers.len() >= count).then(|| Arc::clone(&view.peers));
        if let Some(peers) = self.shared.wait(timeout, enough) {
            return Ok(peers.to_vec());
        }
        self.check_thread()?;
        let there = self.peers().len();
        let message = format!("{there} of {count} peers within {timeout:?}");
        Err(match self.status() {
            status if status.online => Error::new(Kind::Timeout, message),
            Status {
                last_error: Some(reason),
                ..
            } => Error::caused(Kind::Timeout, message, reason),
            _ => Error::new(Kind::Timeout, format!("{message}: not online yet")),
        })
    }

    /// Tells that this program's own connection to a peer broke, or that a dial to it failed: the peer's next sign of life is
    /// an [`Event::Heal`], the occasion to try again. That is its next announcement, or, where those are rare, that its session
    /// does not stand still, which is known within 1.5 of its heartbeat intervals. Postgres is asked within a quarter of a second
    /// whether the peer's session is gone, and then every 1.25 of these intervals until it is heard; but at most once a second,
    /// and not by an observer, by one that announces its bare name or by one without the
    /// [`session_check`](Config::session_check): if its process has died, its [`Event::Leave`] comes as soon as it could have
    /// been back, after 1.25 seconds or more (see [`Config::session_check`]).
    ///
    /// Takes the peer that an event gave, and has no effect when that start of it is not there any more.
    pub fn report_unreachable(&self, peer: &Peer) {
        // Only what is there, so that the request stays as small as the roster.
        let is_there = |known: &Peer| known.incarnation() == peer.incarnation();
        let is_known = self.peer(peer.name()).is_some_and(|known| is_there(&known));
        // In a fork of the process there is nobody to tell.
        if is_known && self.check_process().is_ok() {
            let name = peer.name().to_owned();
            self.ask(|requests| drop(requests.unreachable.insert(name, peer.clone())));
        }
    }

    /// The tags that this participant announces, or will once its link is up. An observer has none, and a fork of the process that
    /// joined has none.
    pub fn tags(&self) -> BTreeMap<String, String> {
        if self.check_process().is_err() {
            return BTreeMap::new();
        }
        let tags = self.last_tags();
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        tags.iter().map(owned).collect()
    }

    /// Replaces all tags by these and announces them, unless they are the same: if the link is up, within milliseconds, within a
    /// tenth of a second when called often, or within most of a second if no further connection can be had; else with the next
    /// hello. The rules are those of [`Config::tag`].
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config): a tag breaks a rule, all together do not fit a payload, or this participant
    /// announces none. [`is_name_taken`](Error::is_name_taken): it is not announced any more. [`is_link`](Error::is_link): this
    /// process is a fork of the one that joined. The tags stay as they were.
    pub fn set_tags<K: AsRef<str>, V: AsRef<str>>(
        &self,
        tags: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        let tags: Vec<(K, V)> = tags.into_iter().collect();
        self.change_tags(|participant, _| {
            participant.check_tags(tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref())))
        })
    }

    /// Sets one tag and leaves the others as they are, also where several threads set tags. Otherwise as
    /// [`set_tags`](Cluster::set_tags).
    ///
    /// # Errors
    ///
    /// Those of [`set_tags`](Cluster::set_tags).
    pub fn set_tag(&self, key: &str, value: &str) -> Result<()> {
        self.change_tags(|participant, tags| {
            let others = tags.iter().filter(|(other, _)| *other != key);
            participant.check_tags(others.chain([(key, value)]))
        })
    }

    /// Removes one tag, if there is one of that key, and leaves the others as they are. Otherwise as
    /// [`set_tags`](Cluster::set_tags).
    ///
    /// # Errors
    ///
    /// Those of [`set_tags`](Cluster::set_tags).
    pub fn remove_tag(&self, key: &str) -> Result<()> {
        self.change_tags(|participant, tags| {
            participant.check_tags(tags.iter().filter(|(other, _)| *other != key))
        })
    }

    fn change_tags(&self, change: impl FnOnce(&Participant, &Tags) -> Result<Tags>) -> Result<()> {
        let Some(participant) = &self.participant else {
            return Err(Error::config("an observer announces no tags"));
        };
        self.check_process()?;
        if self.status().name_taken {
            return Err(self.name_taken());
        }
        // Until they are asked for, so that what one thread changes another one's change does not undo.
        let mut last = self.last_tags();
        let tags = change(participant, &last)?;
        if *last != tags {
            let text = wire::encode_tags(&tags);
            *last = tags;
            self.ask(|requests| requests.tags = Some(text));
        }
        Ok(())
    }

    fn last_tags(&self) -> MutexGuard<'_, Tags> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says goodbye, so that every peer knows at once, and ends the thread. Takes milliseconds when all is well, and never more
    /// than 3.5 seconds. To leave again does nothing. After it [`events`](Cluster::events) ends once what waits in it was
    /// taken, and the other methods show what was known last.
    ///
    /// # Errors
    ///
    /// The goodbye could not be said, or not in time, for the reason given: peers will see this participant expire. It
    /// has left all the same. In a fork of the process that joined, at once: it is that process which takes part, and it goes on.
    pub fn leave(&self) -> Result<()> {
        self.leave_within(LEAVE_TIMEOUT)
    }

    fn name_taken(&self) -> Error {
        let name = self.name().unwrap_or_default();
        Error::new(
            Kind::NameTaken,
            format!(
                "a newer process has the name {name:?}, so this one is not announced any more: join under another name, or end"
            ),
        )
    }

    /// While the handle is there, nothing but a panic ends the thread.
    fn check_thread(&self) -> Result<()> {
        match self.shared.has_ended() {
            true => Err(panicked()),
            false => Ok(()),
        }
    }

    /// A process that was forked has the handle, but not the thread; and what the thread held locked at that moment stays locked.
    fn check_process(&self) -> Result<()> {
        let this = process::id();
        if this == self.process {
            return Ok(());
        }
        Err(Error::new(
            Kind::Link,
            format!(
                "this process, {this}, is a fork of {}, which joined: join in this one, too",
                self.process
            ),
        ))
    }

    /// Asks something of the thread, and wakes it if it waits for long.
    fn ask(&self, request: impl FnOnce(&mut Requests)) {
        let mut requests = self.shared.requests();
        request(&mut requests);
        if !requests.asleep || requests.waking {
            return;
        }
        requests.waking = true;
        drop(requests);
        let shared = Arc::clone(&self.shared);
        let woken = move || shared.requests().waking = false;
        if link::wake(&self.connect, &self.names, woken).is_err() {
            // It sees the request at the end of its slice.
            self.shared.requests().waking = false;
        }
    }

    fn leave_within(&self, timeout: Duration) -> Result<()> {
        self.check_process()?;
        let mut kept = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = kept.take();
        drop(kept);
        let Some(thread) = taken else {
            return Ok(());
        };
        self.ask(|requests| requests.leave = true);
        let farewell = match self.left.recv_timeout(timeout) {
            Ok(farewell) => farewell,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error::new(
                    Kind::Timeout,
                    format!("Postgres did not take the goodbye within {timeout:?}"),
                ));
            }
            Err(RecvTimeoutError::Disconnected) => Err(panicked()),
        };
        // It has nothing left to do. If it panicked, the farewell says so.
        let _ = thread.join();
        farewell
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // In a fork of the process whatever the thread had locked stays locked: the log, perhaps, and what the last receiver of a
        // channel locks when it goes. So neither is the last. The thread is not there, and another may have its number.
        if self.check_process().is_err() {
            let thread = self.thread.get_mut().map(Option::take);
            mem::forget((self.events.clone(), self.left.clone(), thread));
            return;
        }
        if let Err(error) = self.leave_within(DROP_TIMEOUT) {
            log::debug!(target: LINK, "{:?}: {error}", self.names.channel);
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Cluster")
            .field("name", &self.name())
            .field("channel", &self.names.channel)
            .field("online", &status.online)
            .field("peers", &status.peers)
            .finish_non_exhaustive()
    }
}

/// Tells those who wait that the thread has ended, also if it panicked.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn panicked() -> Error {
    Error::new(Kind::Link, "the pg-peers thread panicked")
}

/// An incarnation for a process that starts now: higher than those of its predecessors, if the clock did not go back.
fn incarnation_now() -> Incarnation {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Incarnation::new(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
}
