//! Peer discovery and membership for blocking programs, over nothing but the Postgres that they already share.
//!
//! Every participant LISTENs on one channel and NOTIFYs its presence there; a thread of its own turns what it hears into
//! events that the host program receives from a [`crossbeam_channel`]. No async, no further service, no table.
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
//! # What it promises
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
//! What it does not promise: agreement. Each participant has its own view, and two views can differ for as long as an
//! expiry takes. For a lock or a leader use Postgres itself, such as its advisory locks.
//!
//! # What it needs
//!
//! Any PostgreSQL that is supported today, one session for each participant, and a role that may connect; no other right. The
//! session must be a session: directly with the primary, or through a pooler in session mode. A pooler in transaction mode
//! does not carry notifications; that is recognised and reported, see [`Error::is_pooler`].
//!
//! Whoever may connect to the database may announce anything: peers are as trustworthy as the roles of the database. With
//! the cargo feature `auth`, which adds no dependency that `postgres` has not, members share a secret (`Config::secret`),
//! and hear nobody who does not know it. A database of its own keeps others out; the README has the SQL. It should have the
//! encoding `UTF8`, which keeps out what is no text: in one with the encoding `SQL_ASCII`, and some others, whoever may
//! connect can end every participant's session, over and over, with bytes that have no equivalent in UTF-8. That is logged
//! as a warning.
//!
//! For TLS see [`Config::join_tls`].
//!
//! # Times
//!
//! | what | when |
//! |---|---|
//! | `join`, `events`, `peers`, `status`, `lost`, `set_tags` | return at once |
//! | a peer joins or says goodbye | known in milliseconds |
//! | tags, `leave` | take effect within milliseconds, or 100 ms when called often |
//! | a peer is killed | known within 3.3 seconds, by the [`session_check`](Config::session_check) |
//! | a peer's host dies | known in about ten seconds, as Postgres notices it |
//! | a peer hangs, or dies behind a pooler | [`missed_heartbeats`](Config::missed_heartbeats) (3) times its [interval](Status::interval) (5 s; longer past 100 participants) |
//! | Postgres dies | [`Offline`](Event::Offline) at once; if it freezes under a session, within a heartbeat interval and 1.5 s; if it freezes while connecting, after 10 s |
//! | Postgres is back | [`Online`](Event::Online) within about a second |
//!
//! # Logging
//!
//! Through [`log`]: info when the link comes up, warnings when it goes down (once for each reason), when the roster is full,
//! when payloads are not signed as they must be, and when the database's encoding lets others end our sessions, debug for
//! the rest. Neither logs nor errors nor `Debug` output contain a password, a secret or a connection string. Nothing that
//! others announce is shown with control characters in it, or with characters that are invisible or change the direction of
//! what is read: no name or tag can have them.

mod aside;
mod cluster;
mod config;
mod error;
mod event;
mod inquiry;
mod jitter;
mod link;
mod outbox;
mod peer;
mod presence;
mod refusals;
mod roster;
mod seal;
mod session_check;
mod status;
mod wire;
mod worker;

pub use crossbeam_channel;
pub use postgres;

pub use crate::cluster::Cluster;
pub use crate::config::Config;
pub use crate::error::{Error, Result};
pub use crate::event::{Event, Reason};
pub use crate::peer::{Incarnation, Peer};
pub use crate::status::Status;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
