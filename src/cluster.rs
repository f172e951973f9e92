//! The handle that the host program holds.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::config::{Member, Settings};
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
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_millis(3_500);

/// The longest that dropping the handle takes.
pub(crate) const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// A member's or an observer's handle. A thread behind it announces the member and hears its peers.
///
/// Only [`leave`](Cluster::leave) and the methods whose names say so wait for Postgres, whatever state it is in. No method panics inside
/// an async runtime. Dropping the handle leaves the cluster as `leave` does, but waits at most a second and ignores failures. A program
/// may hold several, for several channels or servers. It is `Send` and `Sync`: put it in an `Arc` to use it from several threads.
///
/// ```
/// # #[allow(dead_code, unreachable_pub)]
/// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
/// # fn main() -> pg_peers::Result<()> {
/// # let server = support::Server::start();
/// # let params = server.params();
/// use std::time::Duration;
/// use pg_peers::{Config, Event};
///
/// let a = Config::new("a").tag("port", "7000").join(&params)?;
/// let b = Config::new("b").join(&params)?;
/// for peer in b.wait_for_peers(1, Duration::from_secs(10))? {
///     assert_eq!((peer.name(), peer.tag("port")), ("a", Some("7000")));
///     // Had the dial to it failed, it would heal, for another try:
///     b.report_unreachable(&peer);
/// }
/// let heal = b.events().iter().find(|event| matches!(event, Event::Heal(_)));
/// assert!(heal.is_some());
///
/// a.set_tag("port", "7001")?;
/// let update = b.events().iter().find_map(|event| match event {
///     Event::Update(peer) => Some(peer),
///     _ => None,
/// });
/// assert_eq!(update.unwrap().tag("port"), Some("7001"));
///
/// a.leave()?;
/// let leave = b.events().iter().find(|event| matches!(event, Event::Leave(..)));
/// assert!(leave.is_some() && b.peers().is_empty());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it leaves the cluster"]
pub struct Cluster {
    member: Option<Member>,
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

impl Cluster {
    pub(crate) fn start(settings: Settings, connect: Connect) -> Result<Self> {
        let application_name = settings.application_name().to_owned();
        let Settings {
            member,
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
        let presence = member.as_ref().map(|member| {
            Presence::new(
                Arc::clone(&member.name),
                incarnation_now(),
                member.style,
                wire::encode_tags(&member.tags),
            )
        });
        let in_full = member
            .as_ref()
            .map_or(observer_asks, |member| member.style == Style::Full);
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
        let mut worker = Worker::new(names.clone(), guard, roster, host, connection);
        // What is known from the start on is shown from the start on.
        worker.publish();
        let ended = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("pg-peers".to_owned())
            .spawn(move || {
                let _end = End(ended);
                // The handle keeps the receiver for as long as it may want to know.
                let _ = farewell.send(worker.run());
            })
            .map_err(|e| Error::caused(Kind::Link, "cannot start the pg-peers thread", e))?;
        let tags = member.as_ref().map(|it| it.tags.clone());
        Ok(Self {
            member,
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

    /// The events, in the order described at [`Event`].
    ///
    /// The channel is bounded. Events that do not fit wait and coalesce, so draining late is safe. After the cluster was left the channel
    /// ends once it is drained, and with it a `for` loop. Clones of the receiver share the events: each event goes to one of them.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// let member = pg_peers::Config::new("a").join("host=127.0.0.1 port=1")?; // nobody listens there
    /// let first = member.events().recv().expect("an event");
    /// assert!(matches!(first, pg_peers::Event::Offline(_)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// This member's name; `None` for an observer.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// assert_eq!(pg_peers::Config::new("a").join("host=localhost")?.name(), Some("a"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(&self) -> Option<&str> {
        Some(&self.member.as_ref()?.name)
    }

    /// The peers that are there now, sorted by name. A snapshot; returns at once, in every state.
    ///
    /// ```
    /// use pg_peers::Config;
    ///
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let database_url = server.params();
    /// # let other = Config::new("b").tag("zone", "eu-1").join(&database_url)?;
    /// let cluster = Config::new("a").join(&database_url)?;
    /// # cluster.wait_for_peers(1, std::time::Duration::from_secs(10))?;
    /// for peer in cluster.peers() {
    ///     println!("{} in {}", peer.name(), peer.tag("zone").unwrap_or("an unknown zone"));
    /// }
    /// # assert_eq!(cluster.peers()[0].tag("zone"), Some("eu-1"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn peers(&self) -> Vec<Peer> {
        let peers = self.shared.look(|view| Arc::clone(&view.peers));
        peers.to_vec()
    }

    /// The peer of that name, if it is there now. Returns at once, in every state.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// # let cluster = pg_peers::Config::new("a").join("host=localhost")?;
    /// assert!(cluster.peer("nobody").is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer(&self, name: &str) -> Option<Peer> {
        self.shared.look(|view| view.peers.get(name).cloned())
    }

    /// The state of the link, and the counters. A snapshot; returns at once, in every state.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// let member = pg_peers::Config::new("a").join("host=127.0.0.1 port=1")?; // nobody listens there
    /// let status = member.status();
    /// assert!(!status.online && status.peers == 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Status {
        self.shared.look(|view| view.status.clone())
    }

    /// Asks what is known of each peer besides its name and tags: when it was last heard, its interval, its backend, and within what time
    /// it would be back.
    ///
    /// Returns at once. The answer comes once, sorted by name: within a second, or, if the server does not answer, within six seconds
    /// and four round trips. It costs nothing if nobody asks. A second question before the answer takes the place of the first: the earlier
    /// receiver is disconnected. So is the receiver once this member has left, and in a fork of the process that joined.
    ///
    /// ```
    /// use pg_peers::Config;
    ///
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let database_url = server.params();
    /// # let other = Config::new("b").join(&database_url)?;
    /// let cluster = Config::new("a").join(&database_url)?;
    /// # cluster.wait_for_peers(1, std::time::Duration::from_secs(10))?;
    /// for info in cluster.peer_infos().recv().expect("an answer") {
    ///     println!("{}: heard {:?} ago", info.peer.name(), info.heard.elapsed());
    /// #   assert!(info.peer.name() == "b" && info.backend.is_some());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_infos(&self) -> Receiver<Vec<PeerInfo>> {
        let (answer, infos) = bounded(1);
        if self.check_process().is_ok() {
            let mut requests = self.shared.requests();
            if !requests.ended {
                requests.peer_infos = Some(answer);
            }
        }
        infos
    }

    /// Waits until this member hears and is heard.
    ///
    /// # Errors
    ///
    /// - [`is_name_taken`](Error::is_name_taken), at once: a newer process has its name, so it is not heard.
    /// - [`is_timeout`](Error::is_timeout): it was not online within `timeout`. The text and the [`source`](std::error::Error::source) have the
    ///   reason, if one is known. Attempts go on.
    /// - [`is_link`](Error::is_link), at once: this member has left; this process is a fork of the one that joined and has no thread; or
    ///   the thread panicked, which is a bug, and nothing goes on.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// use std::time::Duration;
    ///
    /// let member = pg_peers::Config::new("a").join("host=127.0.0.1 port=1")?; // nobody listens there
    /// let error = member.wait_online(Duration::from_millis(100)).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok(())
    /// # }
    /// ```
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

    /// Waits until there are at least `count` peers, and returns them. This member is not among them: three members have two peers each.
    ///
    /// # Errors
    ///
    /// - [`is_timeout`](Error::is_timeout): there were fewer within `timeout`.
    /// - [`is_link`](Error::is_link): as of [`wait_online`](Cluster::wait_online).
    ///
    /// ```
    /// use std::time::Duration;
    /// use pg_peers::Config;
    ///
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let database_url = server.params();
    /// let a = Config::new("a").join(&database_url)?;
    /// let b = Config::new("b").join(&database_url)?;
    /// let peers = a.wait_for_peers(1, Duration::from_secs(10))?;
    /// assert_eq!(peers[0].name(), "b");
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for_peers(&self, count: usize, timeout: Duration) -> Result<Vec<Peer>> {
        self.check_process()?;
        self.check_thread()?;
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

    /// Reports that this program's own connection to a peer broke, or that a dial to it failed. The peer's next sign of life is then an
    /// [`Event::Heal`]: try again.
    ///
    /// - **If the peer is there**, its `Heal` comes within 1.5 of its heartbeat intervals: with its next announcement, or, where
    ///   announcements are rare, when Postgres shows that its session does not stand still.
    /// - **If it has died**, its [`Event::Leave`] comes 1.25 seconds later or more, as soon as it could have been back.
    ///
    /// For both, this member asks Postgres for the peer's session: within a quarter of a second, then every 1.25 of its heartbeat intervals
    /// (at least a second) until it is heard. If it already asked within the last 1.25 intervals, the first question waits for that long.
    /// It is one question a second at most, for all such peers together. An observer, a member that announces its bare name, and one
    /// without the [`session_check`](crate::Config::session_check) do not ask, and so wait for an announcement.
    ///
    /// Takes the peer that an event gave. If that start of the peer is not there any more, nothing happens.
    ///
    /// ```
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    /// use pg_peers::{Config, Event};
    ///
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let database_url = server.params();
    /// let a = Config::new("a").join(&database_url)?;
    /// let b = Config::new("127.0.0.1:1") // nobody listens there
    ///     .heartbeat_interval(Duration::from_secs(1))
    ///     .join(&database_url)?;
    /// for peer in a.wait_for_peers(1, Duration::from_secs(10))? {
    ///     if TcpStream::connect(peer.name()).is_err() {
    ///         a.report_unreachable(&peer);
    ///     }
    /// }
    /// let again = a.events().iter().find(|event| matches!(event, Event::Heal(_)));
    /// assert_eq!(again.unwrap().peer().unwrap().name(), "127.0.0.1:1");
    /// # Ok(())
    /// # }
    /// ```
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

    /// The tags that this member announces, or will once its link is up. An observer has none, and a fork of the process that joined has
    /// none.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// let member = pg_peers::Config::new("a").tag("zone", "eu-1").join("host=localhost")?;
    /// assert_eq!(member.tags()["zone"], "eu-1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn tags(&self) -> BTreeMap<String, String> {
        if self.check_process().is_err() {
            return BTreeMap::new();
        }
        let tags = self.last_tags();
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        tags.iter().map(owned).collect()
    }

    /// Replaces all tags and announces them, unless they are the same.
    ///
    /// If the link is up they are announced [soon](crate::guide::tuning#how-fast), mostly within milliseconds; otherwise with the next hello.
    /// The rules are those of [`Config::tag`](crate::Config::tag).
    ///
    /// # Errors
    ///
    /// The tags stay as they were.
    ///
    /// - [`is_config`](Error::is_config): a tag breaks a rule, all together do not fit a payload, or this member announces no tags.
    /// - [`is_name_taken`](Error::is_name_taken): this member is not announced any more.
    /// - [`is_link`](Error::is_link): this member has left, or this process is a fork of the one that joined.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// # let cluster = pg_peers::Config::new("a").tag("zone", "eu-1").join("host=localhost")?;
    /// cluster.set_tags([("zone", "eu-2"), ("load", "low")])?;
    /// assert_eq!(cluster.tags().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_tags<K: AsRef<str>, V: AsRef<str>>(
        &self,
        tags: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        let tags: Vec<(K, V)> = tags.into_iter().collect();
        self.change_tags(|member, _| {
            member.check_tags(tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref())))
        })
    }

    /// Sets one tag and leaves the others as they are, also if several threads set tags. Otherwise as [`set_tags`](Cluster::set_tags).
    ///
    /// # Errors
    ///
    /// It fails as [`set_tags`](Cluster::set_tags) does.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// # let cluster = pg_peers::Config::new("a").tag("zone", "eu-1").join("host=localhost")?;
    /// cluster.set_tag("load", "low")?;
    /// assert_eq!(cluster.tags()["zone"], "eu-1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_tag(&self, key: &str, value: &str) -> Result<()> {
        self.change_tags(|member, tags| {
            let others = tags.iter().filter(|(other, _)| *other != key);
            member.check_tags(others.chain([(key, value)]))
        })
    }

    /// Removes one tag, if there is one with that key, and leaves the others as they are. Otherwise as [`set_tags`](Cluster::set_tags).
    ///
    /// # Errors
    ///
    /// It fails as [`set_tags`](Cluster::set_tags) does.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// # let cluster = pg_peers::Config::new("a").tag("zone", "eu-1").join("host=localhost")?;
    /// cluster.remove_tag("zone")?;
    /// assert!(cluster.tags().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove_tag(&self, key: &str) -> Result<()> {
        self.change_tags(|member, tags| {
            member.check_tags(tags.iter().filter(|(other, _)| *other != key))
        })
    }

    fn change_tags(&self, change: impl FnOnce(&Member, &Tags) -> Result<Tags>) -> Result<()> {
        let Some(member) = &self.member else {
            return Err(Error::config("an observer announces no tags"));
        };
        self.check_process()?;
        self.check_thread()?;
        if self.status().name_taken {
            return Err(self.name_taken());
        }
        // Until they are asked for, so that what one thread changes another one's change does not undo.
        let mut last = self.last_tags();
        let tags = change(member, &last)?;
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

    /// Says goodbye, so that every peer knows at once, and ends the thread.
    ///
    /// Takes milliseconds when all is well, and never more than 3.5 seconds. To leave again does nothing. Afterwards
    /// [`events`](Cluster::events) ends once it is drained, the methods that change something or wait return an error, and the others show
    /// what was known last.
    ///
    /// # Errors
    ///
    /// The goodbye could not be said, or not in time, for the reason given: peers will see this member leave some seconds later. It has left
    /// all the same. In a fork of the process that joined, at once: that process takes part, and goes on.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// let member = pg_peers::Config::new("a").join("host=127.0.0.1 port=1")?; // nobody listens there
    /// let _ = member.leave(); // nobody to tell
    /// assert!(member.events().iter().count() <= 1); // perhaps the `Offline`, and then no more
    /// # Ok(())
    /// # }
    /// ```
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

    fn check_thread(&self) -> Result<()> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        match *thread {
            None => Err(Error::new(
                Kind::Link,
                "this member has left the cluster: join again",
            )),
            // Nothing but a panic ends it before the host has left.
            Some(_) if self.shared.has_ended() => Err(panicked()),
            Some(_) => Ok(()),
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
        if requests.ended {
            return;
        }
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
