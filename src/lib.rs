//! Peer discovery and membership for blocking programs, over nothing but the Postgres that they already share.
//!
//! Every member LISTENs on one channel and NOTIFYs its presence there. A thread turns what it hears into events, and the host
//! program receives them from a [`crossbeam_channel`]. There is no async API (the `postgres` crate runs tokio inside), no further
//! service and no table.
//!
//! ```
//! use pg_peers::{Config, Event};
//!
//! fn follow_my_peers(database_url: &str) -> pg_peers::Result<()> {
//!     let cluster = Config::new("worker-1@10.0.0.1:7000")   // this member's name
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
//! # Guarantees
//!
//! - **A newcomer knows everybody within milliseconds** of its [`Online`](Event::Online) (0.2 s in a cluster of 400), and everybody
//!   knows the newcomer.
//! - **Events always add up to the roster.** Between the [`Join`](Event::Join) of a peer and its [`Leave`](Event::Leave) the peer is in
//!   [`peers`](Cluster::peers). A program that drains its events late loses nothing: what is pending coalesces, and its memory
//!   stays bounded. There is no `Join` of the member itself. [`Event`] says which may follow which.
//! - **A `Leave` has a reason**: the peer said goodbye, its session is gone, it was silent for too long, or a newer process of its
//!   name replaced it. See [`Reason`].
//! - **The cost stays flat**: announcements become rarer as the cluster grows, so that deliveries stay within the
//!   [`delivery_budget`](Config::delivery_budget).
//! - **An outage of Postgres is not an outage of the peers.** Postgres may be down at the start, restart, freeze, fail over or refuse:
//!   that is one [`Offline`](Event::Offline) with the reason, retries until it works, and one [`Online`](Event::Online). Nobody leaves
//!   because of it, and nobody expires while the link is down.
//! - **The host program never waits for Postgres**, unless a method's name says so. [`leave`](Cluster::leave) and dropping have
//!   bounds.
//! - **No secret is shown**: neither logs nor errors nor `Debug` output contain a password, a secret or a connection string.
//!
//! Each member has its own view, and two views can differ for some seconds, at worst until a peer expires. For agreement (never two
//! leaders, a lock) use Postgres's [advisory
//! locks](https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS), Consul or etcd. Without a Postgres that all
//! processes reach, or with thousands of them, use a gossip library such as [foca](https://docs.rs/foca) or
//! [chitchat](https://docs.rs/chitchat).
//!
//! # Where to go on
//!
//! - [`Config`]: every setting, and how to join. [`Cluster`]: what a member can ask and do. [`Event`], [`Status`], [`Error`].
//! - [`guide`]: deployment, the database, the program `pg-peers`, TLS, regions, faults, tuning and cost, signing, Elixir, logging,
//!   questions, the wire format.
//! - The README has the recipes, short programs to start from. `ARCHITECTURE.md` in the repository has the map of the code and the rules of membership.

#![cfg_attr(docsrs, feature(doc_cfg))]

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

#[cfg(any(doc, test))]
pub mod guide;

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
