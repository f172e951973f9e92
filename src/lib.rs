//! Peer discovery and membership for blocking programs, over nothing but the Postgres that they already share.
//!
//! Every participant LISTENs on one channel and NOTIFYs its presence there; a thread of its own turns what it hears into
//! events that the host program receives from a [`crossbeam_channel`]. No async, no further service, no table.
//!
//! # When to use something else
//!
//! - Without a Postgres that all processes reach, or with more processes than it should have sessions: a gossip library, such as
//!   [foca](https://docs.rs/foca) or [chitchat](https://docs.rs/chitchat), needs nothing but the network between them.
//! - For agreement: a leader of whom there are never two, a lock, a configuration that changes at one moment for all. Each
//!   participant has its own view here, and two views can differ for as long as an expiry takes. Postgres itself has
//!   [advisory locks](https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS); Consul, etcd and ZooKeeper
//!   are made for it.
//! - For addresses only, in Kubernetes: the DNS name of a headless service has those of all pods that are ready, as fresh as
//!   its probes and caches are.
//! - To find services of other teams, in other languages: a registry such as Consul.
//!
//! # A first program
//!
//! ```
//! use pg_peers::{Config, Event};
//!
//! fn follow_my_peers(database_url: &str) -> pg_peers::Result<()> {
//!     let cluster = Config::new("worker-1@10.0.0.1:7000")   // this participant's name
//!         .channel("my_app")                                // default "cluster"
//!         .tag("zone", "eu-1")
//!         .join(database_url)?;                             // host=... user=... or postgres://...
//!
//!     for event in cluster.events() {
//!         match event {
//!             Event::Join(peer) | Event::Heal(peer) => println!("connect to {}", peer.name()),
//!             Event::Leave(peer, why) => println!("disconnect from {}: it {why}", peer.name()),
//!             _ => {}
//!         }
//! #       if !cluster.peers().is_empty() { break; }
//!     }
//!     Ok(())
//! }
//! # #[allow(dead_code, unreachable_pub)]
//! # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
//! #
//! # let server = support::Server::start();
//! # let other = Config::new("worker-2").channel("my_app").join(&server.params()).unwrap();
//! # follow_my_peers(&server.params()).unwrap();
//! ```
//!
//! # Events, and what is promised
//!
//! [`Event`] says which may follow which; in short: between the [`Join`](Event::Join) of a peer and its
//! [`Leave`](Event::Leave) it is in [`peers`](Cluster::peers), and whatever a host missed, what it drains later leads to the
//! truth. There is no `Join` of the participant itself.
//!
//! - **A newcomer knows everybody at once**, and everybody knows the newcomer: within milliseconds of its start, not after
//!   a heartbeat.
//! - **Who left, and why**: said goodbye, lost its session, was not heard for too long, was replaced by a newer process of
//!   its name. See [`Event`] for what may follow what, and [`Reason`].
//! - **A cost that stays flat**: announcements become rarer as the cluster grows, so that the database delivers no more of
//!   them than the [`delivery_budget`](Config::delivery_budget).
//! - **Outages of Postgres are not outages of the peers.** The link may be down at start, be cut, fail over or be refused: that
//!   is one [`Offline`](Event::Offline) with the reason, retries without end, and one [`Online`](Event::Online). Nobody
//!   leaves because of it.
//! - **The host is never held up.** No method waits for Postgres unless its name says so, not even if the server is frozen;
//!   [`leave`](Cluster::leave) and dropping have bounds. A host that does not drain its events costs bounded memory and
//!   delays no heartbeat.
//!
//! # Configuration
//!
//! | setter | default |
//! |---|---|
//! | [`channel`](Config::channel) | `cluster` |
//! | [`tag`](Config::tag) | none |
//! | [`heartbeat_interval`](Config::heartbeat_interval) | 5 s |
//! | [`missed_heartbeats`](Config::missed_heartbeats) | 3 |
//! | [`delivery_budget`](Config::delivery_budget) | 200 a second |
//! | [`session_check`](Config::session_check) | `true` |
//! | [`max_peers`](Config::max_peers) | 10,000 |
//! | [`bare_name`](Config::bare_name) | `false` |
//! | [`bare_heartbeat_interval`](Config::bare_heartbeat_interval) | 5 s |
//! | `secret`, with the feature `auth` | none |
//!
//! # Tuning
//!
//! | what | when |
//! |---|---|
//! | `join`, `events`, `peers`, `status`, `peer_infos`, `report_unreachable`, `tags`, `set_tag` | return at once |
//! | a peer joins or says goodbye | known in milliseconds |
//! | tags, `leave` | take effect within milliseconds, or 100 ms when called often; within 0.8 s if the server is more than 20 ms away |
//! | a peer is killed | known within 3.7 seconds, or up to 5 later where the server is slow, by the [`session_check`](Config::session_check) |
//! | a peer's host dies | known in about ten seconds, as Postgres notices it |
//! | a peer hangs, or dies behind a pooler | [`missed_heartbeats`](Config::missed_heartbeats) (3) times its [`heartbeat_interval`](Config::heartbeat_interval) (5 s), and 2 seconds, at any size; or of its [interval](Status::interval), where sessions are not [seen](Status::judged_by_session) |
//! | Postgres dies | [`Offline`](Event::Offline) at once; if it freezes under a session, within two heartbeat intervals (3 s where those are shorter than 1.5 s); if it freezes while connecting, after 10 s |
//! | Postgres is back | [`Online`](Event::Online) within about a second |
//!
//! Whom the [`session_check`](Config::session_check) finds is known at the same speed whatever the interval is. What the
//! heartbeat interval decides is how soon a process that hangs has left, and one that died behind a pooler; and what it costs: N
//! participants cause N² deliveries in each, until the budget makes their announcements rarer, and a beat each, an empty statement
//! of some 100 us. With three missed heartbeats, and the default budget of 200 deliveries a second:
//!
//! | participants | `heartbeat_interval` 1 s | 5 s (the default) | 15 s |
//! |---|---|---|---|
//! | 10 | gone after 3 s, 100 deliveries/s, no beats | 15 s, 20/s | 45 s, 7/s |
//! | 50 | 5 s, 200/s, 50 beats/s | 17 s, 200/s, 10/s | 45 s, 167/s |
//! | 100 | 5 s, 200/s, 100/s | 17 s, 200/s, 20/s | 47 s, 200/s, 7/s |
//! | 400 | 5 s, 200/s, 400/s | 17 s, 200/s, 80/s | 47 s, 200/s, 27/s |
//!
//! A delivery takes 40 to 90 us of the server's CPU. Fewer [`missed_heartbeats`](Config::missed_heartbeats) make a peer leave
//! sooner that merely had a bad moment; it heals. The `scale` and `cost` benches measure it on a machine of yours.
//!
//! # Poolers
//!
//! PostgreSQL 12 or later, one session for each participant, and a role that may connect; no other right. The
//! session must be a session: directly with the primary, or through a pooler in session mode. A pooler in transaction mode
//! does not carry notifications; that is recognised and reported, see [`Error::is_pooler`].
//!
//! # A managed Postgres
//!
//! One that others run for you wants TLS, a password, and its provider's root certificate at your side: `sslmode=require` in
//! the connection string, and [`join_tls`](Config::join_tls) with any connector of the `postgres` crate, for rustls, OpenSSL or
//! the system's own. The README has such a program in full. Where passwords change, [`join_with`](Config::join_with) asks you
//! for every connection. Take the address of the primary itself, not that of the provider's pooler in transaction mode.
//!
//! # Security
//!
//! Whoever may connect to the database may announce anything: peers are as trustworthy as the roles of the database. With
//! the cargo feature `auth`, which adds no dependency that `postgres` has not, members share a secret (`Config::secret`),
//! and hear nobody who does not know it. A database of its own keeps others out; the README has the SQL, and `SECURITY.md` what
//! is defended and what is not. That database should have the encoding `UTF8`, which keeps out what is no text: in one with
//! the encoding `SQL_ASCII`, and some others, whoever may connect can end every participant's session, over and over, with
//! bytes that have no equivalent in UTF-8. That is logged as a warning.
//!
//! # Failure
//!
//! Postgres may be down, frozen, out of reach, full, failing over or refusing: that is an [`Offline`](Event::Offline) with the
//! reason, retries for ever, at most 0.75 seconds apart, and an [`Online`](Event::Online). Where the server rejects the login they
//! are 30 seconds apart, or 5 with [`join_with`](Config::join_with), since some providers ban addresses for it. Slow is not
//! dead: a statement may take as long as the heartbeat interval, from 1.5 to 5 seconds, and longer where the server is far. An
//! attempt to connect that hangs is left behind after ten seconds, one beside it after twenty, and so on up to five minutes. The
//! roster stays as it was, and after the return everybody has the time of its expiry to be heard again. The README has a table of
//! what happens when, with the times that were measured.
//!
//! # Logging
//!
//! Through [`log`], under three targets, all below `pg_peers`:
//!
//! | target | warn | info | debug |
//! |---|---|---|---|
//! | `pg_peers::link` | the link is down | it is up again, and after how long | each further attempt, what Postgres notes, a goodbye that could not be said, an announcement in a flood or a wake-up that failed, a session check that this role may not make |
//! | `pg_peers::peers` | a newer process has this name; the first newcomer without room in the roster | | who joins, changes and leaves |
//! | `pg_peers::trust` | payloads that are not signed as they must be, or at a wrong time, once for each cause, and again when it had been away for ten minutes; an encoding of the database that lets others end our sessions | | |
//!
//! Each line names the channel, but for the notes of Postgres. An outage is two lines: a warning when it begins, an info
//! when it is over, however many attempts fail. Where another reason keeps it up for longer than ten seconds, that is one more
//! warning, once for each reason and eight times at most.
//!
//! Neither logs nor errors nor `Debug` output contain a password, a secret or a connection string. Nothing that
//! others announce is shown with control characters in it, or with characters that are invisible or change the direction of
//! what is read: no name or tag can have them.
//!
//! # The wire format
//!
//! Text that can be read in `psql`, described in full in [`wire_format`], so that a program in another language can take part.
//! A payload that is nothing but a node name is what libcluster_postgres announces, and is heard as such.
//!
//! # How it is built
//!
//! `ARCHITECTURE.md` in the repository has the map of the code, the way of a notification and of a request, and the rules of
//! membership in full.
//!
//! # Questions
//!
//! - **Does it create anything in the database?** No table, function or extension. LISTEN and NOTIFY take no right.
//! - **Is a notification ever lost?** Not to a session that listens. Who was not connected asks when it is back, and is told
//!   who is there and who left meanwhile.
//! - **What does a NOTIFY cost besides its deliveries?** A transaction id and a short record in the write-ahead log, without a
//!   flush of its own. Transactions that notify commit one after another in the whole server.
//! - **Can I send messages of my own?** Not on this channel. Peers tell where they are by their names and
//!   [tags](Config::tag); send to that, or use another channel of Postgres's on a connection of your own.
//! - **What name should a process have?** One that no other has at the same time, and that it has again when it restarts:
//!   then its peers see a restart, not a death and a stranger. A pod's name, or `service@host:port`.
//! - **Two live processes have one name?** The younger keeps it, and the older is told by [`Event::NameTaken`] and
//!   [`Status::name_taken`].
//! - **Can clusters share a database?** Yes, by different [channels](Config::channel). One program may be in several.
//! - **Do clocks matter?** Only that of a process that restarts within its peers' memory (an hour), and even then it takes part
//!   once it has learned from them how far it is behind. With a secret, clocks may differ by 60 seconds.
//! - **What of a process that is stopped, or a laptop that sleeps?** The others see it leave and heal. It drops nobody when it
//!   wakes: everybody has the time of its expiry to be heard.
//! - **A host that forks?** A child has no thread: join after the fork, in each. With a handle from before the fork, what
//!   waits, changes tags or leaves fails at once and says so, `peers` and `status` show what was known then, and no events
//!   come.
//! - **How do I test a program that uses it?** With a server, and two [`Cluster`]s in one process: all but the names may be the
//!   same.
//! - **Async hosts?** The events come from a channel: forward them from a thread.

mod cluster;
mod config;
mod core;
mod error;
mod event;
mod host;
mod jitter;
mod link;
mod logging;
mod peer;
mod round_trip;
#[cfg(test)]
mod simulator;
mod status;
mod trust;
mod worker;

#[cfg(doc)]
#[doc = include_str!("guide/wire.md")]
pub mod wire_format {}

pub use crossbeam_channel;
pub use postgres;

pub use crate::cluster::Cluster;
pub use crate::config::Config;
pub use crate::error::{Error, Result};
pub use crate::event::{Event, Reason};
pub use crate::peer::{Incarnation, Peer, PeerInfo};
pub use crate::status::Status;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
