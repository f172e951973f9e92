//! This process's session with Postgres: the only wing that calls `postgres`.
//!
//! It knows nothing of members or messages; to it a payload is a text. It may use `error`, `logging`, `jitter` and
//! `round_trip`, and never the core, the host or the hall. What decides is pure, with time as a parameter: [`hearing`] (how far
//! behind, is there a flood), [`patience`] (how long an answer may take), [`redial`] (when to dial again) and [`pace`] (how
//! long the thread waits). What acts is [`session`], [`proof`], [`dialer`], [`side_channel`] and [`wake`](wake()), with
//! statements of [`sql`] over connections of a [`connector`](mod@connector). [`Connection`] holds them together.
//!
//! # Calls that never return
//!
//! Every blocking call of the `postgres` crate but two can hang for ever. A frozen backend (a stopped process, a stuck
//! disk, a paused machine) still acknowledges what arrives, so no TCP setting ends the wait: `execute` hangs, connecting
//! hangs behind a frozen postmaster past `connect_timeout`, and even dropping a `Client` hangs if an answer is
//! outstanding. The exceptions are `is_valid`, which has a timeout but says nothing about the statement sent next, and
//! the notification iterators.
//!
//! So every call that can hang runs on a thread that can be left behind ([`detached`]): the [`dialer`] connects on one,
//! [`Link`] lends the client to one for a statement and closes it on one, [`wake`](wake()) and the [`side_channel`] have one
//! each. Each is waited for within a bound. What hangs keeps its thread and its socket until the server thaws or dies, or
//! until the next session ends it, as it does with a statement. A thread for a statement costs some 30 us, less than the round
//! trip of an `is_valid` before it.
//!
//! Where another attempt hangs, and where one of several addresses has not worked yet, a server is [asked](mod@knock) first
//! whether it answers. So a server that is frozen holds one attempt at most.
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
//! A session reads all that waits for it before it gets the answer to a statement, and keeps all of that in memory: where
//! strangers announce gigabytes, gigabytes. Reading alone takes a little at a time. So while there is a flood, which is
//! [`hearing`]'s to see, nothing is asked on the link, and the [`side_channel`] announces. A statement that was under way before
//! goes on reading when nobody waits for it any more, until the next session ends that one.
//!
//! # A NOTIFY that waits
//!
//! A commit that notifies takes one lock for the whole server, and keeps it until it is done. A transaction that has also written,
//! and waits in its commit for a standby that is away, thus holds every NOTIFY of the server up, for as long as that takes. A new
//! session would wait, too. So all that notifies runs with a `lock_timeout`; when that fails the session is kept, the
//! participant is offline for that reason, and tries again until it is through ([`Connection`]).
//!
//! # At most three sessions
//!
//! A server has room for a hundred sessions, and they are the application's. So each that we open takes one of three
//! [`seats`], and keeps it until it has ended, however long a call hangs in it.
//!
//! # The inbox
//!
//! Every session also listens to a channel that nobody else listens to, its inbox. The probe uses it, answers to newcomers
//! come there, and [`wake`](wake()) notifies it.

mod connection;
mod connector;
mod descriptors;
mod detached;
mod dialer;
pub(crate) mod hearing;
mod knock;
mod outage;
pub(crate) mod pace;
mod params;
pub(crate) mod patience;
mod proof;
mod quoting;
mod redial;
pub(crate) mod seats;
mod session;
mod side_channel;
mod sql;
mod targets;
pub(crate) mod up;
mod wake;

use std::num::NonZeroI32;

pub(crate) use self::connection::Connection;
pub(crate) use self::connector::{Connect, connector, custom_connector};
pub(crate) use self::session::{Link, Notice, SessionNames, Sessions};
pub(crate) use self::wake::wake;

/// A backend of the server. Postgres numbers them above zero.
type Pid = NonZeroI32;
