//! Whether sessions carry notifications, as a member finds out: another session says something, and this one hears it.

use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use pg_peers::postgres::Client;
use pg_peers::postgres::error::SqlState;

use super::Findings;
use super::judge;
use super::subject::{NAME, Subject};
use crate::connection::{Failure, Opened, describe, notify, private_channel};
use crate::deadline::within;
use crate::latency::Latencies;
use crate::quoting::MARK;
use crate::sql::{self, Limits};

const ROUNDS: usize = 100;

/// Where the server is so far that fewer fit into this time, fewer will do.
const ENOUGH: Duration = Duration::from_secs(10);

/// A notification takes no longer, or does not come.
const PATIENCE: Duration = Duration::from_secs(2);

/// All rounds, at the slowest that is worth waiting for.
const LIMIT: Duration = Duration::from_secs(45);

/// A start-up option that changes nothing here. A server takes it, and PgBouncer refuses it.
const OPTION: &str = "-c geqo=on";

/// A pooler is known by what it refuses, and by a backend that changes.
pub(super) fn pooler(subject: &mut Subject) -> Findings {
    let backend = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.inet_server_port()";
    let has_options = subject.connection.config().get_options().is_some();
    let is_pgbouncer = !has_options
        && match subject.connection.open_with(NAME, Some(OPTION))? {
            Opened::Client(_) => false,
            Opened::Refused(code, _) => code == Some(SqlState::PROTOCOL_VIOLATION),
        };
    let first = subject.row(backend)?;
    // While another transaction is open, a pooler in transaction mode gives the next one another backend.
    let mut other = subject.connection.open(NAME)?;
    let began = within("a transaction", PATIENCE, move || {
        other
            .batch_execute(&format!("{MARK} BEGIN; SELECT 1"))
            .map(|()| other)
    })?;
    let _other = began.map_err(|e| describe("cannot begin a transaction", &e))?;
    let second = subject.row(backend)?;
    let written = subject.connection.hosts().next().and_then(|it| it.1);
    Ok(vec![judge::pooler(
        is_pgbouncer,
        first.text(0) != second.text(0),
        written,
        second.number(1),
    )])
}

/// Notifications from one session to another, one after the other.
pub(super) fn round_trips(subject: &mut Subject) -> Findings {
    let channel = private_channel();
    let mut listener = subject.connection.open(NAME)?;
    let mut speaker = subject.connection.open(NAME)?;
    let heard = within("notifications", LIMIT, move || {
        listen(&mut listener, &channel)?;
        measure(&mut listener, &mut speaker, &channel)
    })??;
    let sent = heard.sent;
    let summary = heard.latencies.summary();
    Ok(vec![judge::round_trips(
        heard.latencies.count(),
        sent,
        summary,
    )])
}

struct Heard {
    sent: usize,
    latencies: Latencies,
}

fn listen(listener: &mut Client, channel: &str) -> Result<(), Failure> {
    let listening = listener.batch_execute(&sql::listen(channel));
    Ok(listening.map_err(|e| describe("cannot LISTEN", &e))?)
}

fn measure(listener: &mut Client, speaker: &mut Client, channel: &str) -> Result<Heard, Failure> {
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    let mut sent = 0;
    while sent < ROUNDS && begun.elapsed() < ENOUGH {
        sent += 1;
        // Where NOTIFY is held up the first one says so. The others are measured as a member sends them.
        let limits = match sent {
            1 => Limits::Seconds,
            _ => Limits::None,
        };
        let start = Instant::now();
        let payload = format!("pg-peers check {sent}");
        notify(speaker, limits, channel, &payload)?;
        let mut notifications = listener.notifications();
        let next = notifications.timeout_iter(PATIENCE).next();
        let next = next.map_err(|e| describe("the session that listens has ended", &e))?;
        if next.is_none() {
            // The others would not come either.
            return Ok(Heard { sent, latencies });
        }
        latencies.add(start.elapsed());
    }
    Ok(Heard { sent, latencies })
}
