//! What is checked: a way to the database, a session by it, and who is on the channel.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use pg_peers::postgres::{Client, SimpleQueryMessage};
use pg_peers::{Cluster, PeerInfo};

use crate::connection::{Connection, Failure, describe};
use crate::deadline::within;
use crate::roster::{self, Meeting};
use crate::sql::{self, Limits};

/// More than the server gives each statement.
const STATEMENT: Duration = Duration::from_secs(10);

pub(super) const NAME: &str = "pg-peers check";

pub(crate) struct Subject {
    pub(super) connection: Connection,
    pub(super) meeting: Meeting,
    client: Option<Client>,
    /// Who listens on the channel while other things are looked at: bare names are heard when each says its name.
    observer: Option<Result<Observer, String>>,
}

struct Observer {
    cluster: ManuallyDrop<Cluster>,
    since: Instant,
}

/// The columns of a row, as text. What is NULL is `None`.
pub(super) struct Row(Vec<Option<String>>);

impl Subject {
    pub(super) fn new(connection: Connection, meeting: Meeting) -> Self {
        Self {
            connection,
            meeting,
            client: None,
            observer: None,
        }
    }

    pub(super) fn connect(&mut self) -> Result<(), Failure> {
        self.client = Some(self.connection.open(NAME)?);
        Ok(())
    }

    /// Listens on the channel from now on.
    pub(super) fn listen(&mut self) {
        let joined = self.connection.join(self.meeting.observer());
        let observer = joined.map(|cluster| Observer {
            cluster: ManuallyDrop::new(cluster),
            since: Instant::now(),
        });
        self.observer = Some(observer.map_err(|error| error.to_string()));
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// The rows that a query returns. The session goes to a thread, since a call may hang, and comes back if it does not.
    pub(super) fn rows(&mut self, query: &str) -> Result<Vec<Row>, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            // The one before hangs, or was closed.
            None => self.connection.open(NAME)?,
        };
        let query = sql::query(Limits::Seconds, query);
        let (answer, client) = within("a query", STATEMENT, move || {
            (client.simple_query(&query), client)
        })?;
        self.client = (!client.is_closed()).then_some(client);
        let answer = answer.map_err(|e| describe("the server refuses a query", &e))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                let columns = (0..row.len()).map(|n| row.get(n).map(str::to_owned));
                Some(Row(columns.collect()))
            }
            _ => None,
        };
        Ok(answer.into_iter().filter_map(row).collect())
    }

    pub(super) fn row(&mut self, query: &str) -> Result<Row, Failure> {
        let first = self.rows(query)?.into_iter().next();
        first.ok_or_else(|| "the server returns nothing where it should".into())
    }

    /// Who is on the channel, where it was listened for that long.
    pub(super) fn roster(&self, listening: Duration) -> Result<Vec<PeerInfo>, Failure> {
        let observer = self.observer.as_ref();
        let observer = observer.ok_or("nobody listens on the channel")?;
        let Observer { cluster, since } = observer.as_ref().map_err(String::clone)?;
        let still = listening.saturating_sub(since.elapsed());
        Ok(roster::ask(cluster, still)?.infos)
    }

    /// How many sessions this program has at the server between two checks.
    pub(super) fn sessions(&self) -> i64 {
        let observer = self.observer.iter().flatten();
        let online = observer.filter(|it| it.cluster.status().online).count();
        i64::from(self.client.is_some()) + online as i64
    }
}

impl Row {
    pub(super) fn text(&self, column: usize) -> &str {
        self.0
            .get(column)
            .and_then(Option::as_deref)
            .unwrap_or_default()
    }

    /// `None` for NULL, and for what is no number.
    pub(super) fn number<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.text(column).parse().ok()
    }

    pub(super) fn is_true(&self, column: usize) -> bool {
        self.text(column) == "t"
    }
}
