//! The proof that a session carries what others say (rule 3): a second connection says something to it. A pooler in transaction
//! mode takes LISTEN and NOTIFY, passes nothing on, and says nothing of it.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use postgres::Client;

use super::connector::{Connect, Connector};
use super::detached::{spawn, start};
use super::patience::Patience;
use super::seats::{NoSeat, Seated};
use super::session::{column, gone, receive, run, say};
use super::sql;
use super::targets::Place;
use crate::error::{Error, Kind, Result};
use crate::logging::LINK;

/// The least time within which the probe's notification comes or never does, once it was sent.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the second connection says to the first, to prove that notifications of others arrive.
pub(super) const PROBE: &str = "other";

/// Whether a session is known to carry what others say.
pub(super) enum Proof {
    Known,
    /// A second connection, to the same place, is still to say something.
    Owed(Connect),
    /// The second connection is being opened, or is about to say something.
    Asked(Connect, Receiver<Result<Seated>>),
    /// The second connection has said something. That is heard with all that arrives by then, or never. The connection is kept,
    /// where nothing else needs its seat, to be asked which server it reached.
    Due(Instant, Option<Box<Seated>>),
    /// What the second connection said was not heard.
    Failed,
}

impl Proof {
    /// Asks for it, if it is owed.
    pub(super) fn ask(
        &mut self,
        place: Option<Place>,
        inbox: &str,
        patience: &Patience,
    ) -> Result<()> {
        let Self::Owed(connect) = self else {
            return Ok(());
        };
        let (kept, connect) = (Arc::clone(connect), Arc::clone(connect));
        let (inbox, patience) = (inbox.to_owned(), patience.clone());
        let sent = start("probe", move || {
            probe(&connect, place, &inbox, &patience, None)
        })?;
        *self = Self::Asked(kept, sent);
        Ok(())
    }

    /// Notes how far it is, on this channel.
    pub(super) fn poll(&mut self, patience: &Patience, channel: &str) {
        let Self::Asked(connect, sent) = self else {
            return;
        };
        *self = match sent.try_recv() {
            Ok(Ok(second)) => Self::Due(Instant::now() + limit(patience), Some(Box::new(second))),
            Err(TryRecvError::Empty) => return,
            // It is asked again, until there is a seat. Each time waits for one.
            Ok(Err(error)) if is_without_seat(&error) => Self::Owed(Arc::clone(connect)),
            // There is no room for a second session, perhaps. The one before this was proven, over the same way.
            Ok(Err(error)) => {
                log::debug!(target: LINK, "{channel:?}: no second connection: {error}");
                Self::Known
            }
            Err(TryRecvError::Disconnected) => Self::Known,
        };
    }

    /// Whether all that arrived `until` then was heard, and what the second connection said was not.
    pub(super) fn is_overdue(&self, until: Instant) -> bool {
        matches!(self, Self::Due(by, _) if until >= *by)
    }

    /// The second connection, if it is open still.
    pub(super) fn take_second(&mut self) -> Option<Box<Seated>> {
        match self {
            Self::Due(_, second) => second.take(),
            _ => None,
        }
    }

    /// There is a flood. What the second connection said comes behind that, so it is waited for anew; and its seat is needed.
    pub(super) fn handle_flood(
        &mut self,
        now: Instant,
        patience: &Patience,
    ) -> Option<Box<Seated>> {
        if let Self::Due(by, _) = self {
            *by = now + limit(patience);
        }
        self.take_second()
    }

    /// It is needed no more, or there already. Closing the second connection can take long; without a thread it takes that long here.
    pub(super) fn end(&mut self) {
        let done = std::mem::replace(self, Self::Known);
        if matches!(done, Self::Asked(..) | Self::Due(..)) {
            let _ = spawn("close", move || drop(done));
        }
    }
}

/// How long what a second connection said takes at most.
fn limit(patience: &Patience) -> Duration {
    patience.statement(0).max(PROBE_TIMEOUT)
}

/// Opens a second connection, to where the first one leads, and notifies the inbox of the first over it, as soon as that
/// `listens`.
pub(super) fn probe(
    connect: &Connector,
    place: Option<Place>,
    inbox: &str,
    patience: &Patience,
    listens: Option<Receiver<()>>,
) -> Result<Seated> {
    let limit = patience.statement(0);
    let mut second = connect.open_at(place, limit)?;
    // What the first does meanwhile are two statements. If they hang, this must not keep a session for it.
    if listens.is_some_and(|listens| listens.recv_timeout(limit * 2).is_err()) {
        return Err(gone());
    }
    say(&mut second, |it| {
        it.notify_within(inbox, PROBE, patience.lock())
    })?;
    Ok(second)
}

/// Whether the first connection carries the notifications of others; returns the second one, which has done its work. If the first
/// does not, it stops listening: a pooler's connection to the server must not go on for nobody.
pub(super) fn hear_probe(
    client: &mut Client,
    inbox: &str,
    probe: Result<Seated>,
    patience: &Patience,
) -> Result<Seated> {
    let carried = probe.and_then(|mut second| {
        if receive(client, inbox, PROBE, limit(patience))?.is_some() {
            return Ok(second);
        }
        let same_server = is_same_server(client, &mut second);
        // The session may have stood still until it answered that.
        match receive(client, inbox, PROBE, Duration::ZERO)? {
            Some(_) => Ok(second),
            None => Err(not_carried(&Seen::Own { same_server })),
        }
    });
    if carried.is_err() {
        let _ = run(client, &sql::unlisten(inbox));
    }
    carried
}

/// Whether two connections lead to one server, if this role may know.
pub(super) fn is_same_server(first: &mut Client, second: &mut Client) -> Option<bool> {
    let [first, second] = [first, second].map(|client| {
        let rows = client.simple_query(&sql::server()).ok()?;
        column(&rows).next().map(str::to_owned)
    });
    Some(first? == second?)
}

/// Whether no connection was opened since three of ours are open or hang.
fn is_without_seat(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<NoSeat>())
}

/// What was seen of a connection that accepts LISTEN and does not carry notifications.
pub(super) enum Seen {
    /// Not even our own.
    Nothing,
    /// Our own, and not the one of a second connection; and whether both lead to one server, if that is known.
    Own { same_server: Option<bool> },
    /// What we said, said by another backend.
    OtherBackend,
}

/// Says what was seen, and what may be the cause, the likeliest first.
pub(super) fn not_carried(seen: &Seen) -> Error {
    const POOLER: &str =
        "a pooler in transaction or statement mode (such as PgBouncer's pool_mode=transaction)";
    const ADVICE: &str = "Connect to Postgres directly, or to a pool in session mode";
    const TWO_SERVERS: &str =
        "two servers, by a name with several addresses, or a balancer or proxy before them";
    let (kind, message) = match seen {
        Seen::Nothing => (
            Kind::Pooler,
            format!(
                "notifications do not arrive on this connection: LISTEN was accepted, and our own did not come back. It \
                 goes through {POOLER}, or through a proxy that passes none on. {ADVICE}"
            ),
        ),
        Seen::Own {
            same_server: Some(true),
        } => (
            Kind::Pooler,
            format!(
                "notifications do not arrive on this connection: our own came back, and the one of a second connection to the \
                 same server did not. It goes through {POOLER}. {ADVICE}"
            ),
        ),
        Seen::Own {
            same_server: Some(false),
        } => (
            Kind::Link,
            format!(
                "two connections lead to {TWO_SERVERS}: our own notification came back, and the one of the second connection, \
                 which reached another server, did not. Let all members connect to the same one, the primary"
            ),
        ),
        Seen::Own { same_server: None } => (
            Kind::Pooler,
            format!(
                "notifications do not arrive on this connection: our own came back, and the one of a second connection did \
                 not; whether that reached the same server is not known. It goes through {POOLER}, or the \
                 connections lead to {TWO_SERVERS}. {ADVICE}, and all members to the same server"
            ),
        ),
        Seen::OtherBackend => (
            Kind::Pooler,
            format!(
                "notifications do not arrive on this connection any more: what it announced was said by another backend. It \
                 goes through {POOLER}. {ADVICE}"
            ),
        ),
    };
    Error::new(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_a_flood_is_not_overdue_in_it() {
        let patience = Patience::new(Duration::from_secs(5));
        let now = Instant::now();
        let mut proof = Proof::Due(now, None);
        assert!(proof.is_overdue(now));
        proof.handle_flood(now, &patience);
        assert!(!proof.is_overdue(now + PROBE_TIMEOUT - Duration::from_millis(1)));
        assert!(proof.is_overdue(now + limit(&patience)));
    }
}
