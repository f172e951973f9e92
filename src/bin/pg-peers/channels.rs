//! `pg-peers channels`: where somebody is, as far as Postgres tells.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pg_peers::Config;
use pg_peers::postgres::{Client, SimpleQueryMessage};
use serde::Serialize;

use crate::connection::{Arguments, Connection, Failure, describe};
use crate::deadline::within;
use crate::roster::{self, seconds};
use crate::sql::{self, Limits};
use crate::statements::{self, Said};
use crate::table::table;
use crate::{Ended, NOTES, json, text};

/// How often the statements of sessions are read. Between two announcements a member says other things.
const LOOK: Duration = Duration::from_millis(100);

/// The most channels that are listened to, each with a session.
const COUNTED: usize = 16;

/// A bare name is heard once in each interval, which is five seconds by default.
const BARE: Duration = Duration::from_secs(7);

const STATEMENT: Duration = Duration::from_secs(10);

const NAME: &str = "pg-peers channels";

/// Each session's process, name and last statement. Those of this program and of other observers are no members.
const SESSIONS: &str = "SELECT pid, application_name, query FROM pg_catalog.pg_stat_activity \
    WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \
    AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() \
    AND application_name OPERATOR(pg_catalog.<>) ALL (CAST(\
    '{pg_peers observer,pg-peers channels,pg-peers check,pg-peers ping}' AS pg_catalog.text[]))";

/// What is shown instead of a statement that this role may not see.
const HIDDEN: &str = "<insufficient privilege>";

const EXIT: &str = "\
Postgres does not show what a session listens to. So this command reads, for some
seconds, which channels sessions name in their last statements. Then it listens on
those channels, and asks who is there where it hears members of pg-peers. It never
speaks on a channel that has Elixir nodes only. Only superusers and members of
pg_read_all_stats see the statements of other roles. Channels of other databases are
not seen.

With --json it writes a line for each channel: channel, sessions (how many named it),
members and bare_names (null if not counted); and at the end hidden_sessions and
silent_sessions (of pg-peers, whose channel was not seen).

Ends with 0, also if no channel was found; with 1 on an error; with 2 on arguments that
are not valid.";

#[derive(clap::Args)]
#[command(after_help = format!("{NOTES}\n\n{EXIT}"))]
pub(crate) struct Channels {
    #[command(flatten)]
    connection: Arguments,
    /// How long to read what sessions say; members announce themselves every 5 s, or less often in a large cluster
    #[arg(long, value_name = "SECONDS", default_value = "6", value_parser = seconds)]
    wait: Duration,
    /// Write a line of JSON for each channel
    #[arg(long)]
    json: bool,
}

/// What sessions have said so far. Pure.
#[derive(Default)]
struct Survey {
    channels: BTreeMap<String, Seen>,
    /// The sessions of pg-peers, and those whose channel was seen.
    marked: BTreeSet<i32>,
    told: BTreeSet<i32>,
    hidden: BTreeSet<i32>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    sessions: BTreeSet<i32>,
    /// Whether a member of pg-peers announced itself there in full, so that a question does no harm.
    is_ours: bool,
}

/// A session as Postgres shows it.
struct Session {
    pid: i32,
    query: Option<String>,
}

/// How many are on a channel, and by which backends.
struct Count {
    members: usize,
    bare: usize,
    backends: BTreeSet<i32>,
}

type Counting = JoinHandle<Result<Count, Failure>>;

/// By the channel, and whether it is asked there or only listened. Of a channel with both the answers come last, and count.
type Countings = BTreeMap<(String, bool), Counting>;

#[derive(Serialize)]
struct Line<'a> {
    channel: &'a str,
    sessions: usize,
    members: Option<usize>,
    bare_names: Option<usize>,
}

#[derive(Serialize)]
struct Unknown {
    hidden_sessions: usize,
    silent_sessions: usize,
}

impl Channels {
    pub(crate) fn run(self) -> Ended {
        let connection = self.connection.resolve()?;
        let mut client = connection.open(NAME)?;
        if !self.json && io::stderr().is_terminal() {
            eprintln!(
                "reading what sessions say for {} ...",
                text::span(self.wait)
            );
        }
        let mut survey = Survey::default();
        let mut counting = Countings::new();
        let end = Instant::now() + self.wait;
        loop {
            let (sessions, back) = look(client)?;
            client = back;
            for session in sessions {
                survey.see(&session);
            }
            survey.start_counting(&connection, &mut counting)?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(LOOK.min(left));
        }
        let counts = counting
            .into_iter()
            .filter_map(|((channel, _), counting)| Some((channel, counting.join().ok()?.ok()?)))
            .collect();
        let text = match self.json {
            true => lines(&survey, &counts)?,
            false => self.page(&survey, &counts, &connection).into_bytes(),
        };
        let mut output = io::stdout().lock();
        json::unless_unread(output.write_all(&text).and_then(|()| output.flush()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn page(
        &self,
        survey: &Survey,
        counts: &BTreeMap<String, Count>,
        connection: &Connection,
    ) -> String {
        let mut page = match survey.channels.is_empty() {
            true => format!(
                "no channel found in {}: no session's last statement names one\n",
                text::plain(&connection.place())
            ),
            false => survey.table(counts),
        };
        let silent = survey.silent(counts);
        if silent > 0 {
            page.push_str(&format!(
                "{} of pg-peers did not name a channel within {}: look for longer with --wait\n",
                text::count(silent, "session"),
                text::span(self.wait)
            ));
        }
        let hidden = survey.hidden.len();
        if hidden > 0 {
            page.push_str(&format!(
                "{} of other roles, of which this one does not see what they say: connect as a superuser, as their role or as a \
                 member of pg_read_all_stats\n",
                text::count(hidden, "session")
            ));
        }
        page
    }
}

impl Survey {
    fn see(&mut self, session: &Session) {
        let pid = session.pid;
        let Some(query) = session.query.as_deref().filter(|query| *query != HIDDEN) else {
            self.hidden.insert(pid);
            return;
        };
        let is_marked = statements::is_marked(query);
        if is_marked {
            self.marked.insert(pid);
        }
        for said in statements::read(query) {
            let channel = said.channel();
            if channel.is_empty() || statements::is_private(channel) {
                continue;
            }
            let seen = self.channels.entry(channel.to_owned()).or_default();
            seen.sessions.insert(pid);
            self.told.insert(pid);
            let Said::Notify(_, payload) = &said else {
                continue;
            };
            let in_full = payload
                .as_deref()
                .is_some_and(|it| !statements::is_node_name(it));
            seen.is_ours |= is_marked && in_full;
        }
    }

    /// Listens to channels that are new. It is asked only where members of pg-peers are: to all others a question is a
    /// message that they do not know, and to Elixir nodes the name of a node.
    fn start_counting(
        &self,
        connection: &Connection,
        counting: &mut Countings,
    ) -> Result<(), Failure> {
        for (channel, seen) in &self.channels {
            let key = (channel.clone(), seen.is_ours);
            if counting.contains_key(&key) || counting.len() >= COUNTED {
                continue;
            }
            let (connection, name, in_full) = (connection.clone(), channel.clone(), seen.is_ours);
            let started = thread::Builder::new().spawn(move || count(&connection, &name, in_full));
            counting.insert(key, started?);
        }
        Ok(())
    }

    fn table(&self, counts: &BTreeMap<String, Count>) -> String {
        let number = |it: Option<usize>| it.map_or_else(|| "?".to_owned(), |it| it.to_string());
        let row = |(channel, seen): (&String, &Seen)| {
            let count = counts.get(channel);
            [
                channel.clone(),
                number(count.map(|it| it.members)),
                number(count.map(|it| it.bare)),
                seen.sessions.len().to_string(),
            ]
        };
        let rows: Vec<[String; 4]> = self.channels.iter().map(row).collect();
        table(["CHANNEL", "MEMBERS", "BARE NAMES", "SESSIONS"], &rows)
    }

    /// How many sessions of pg-peers are on a channel that is not known.
    fn silent(&self, counts: &BTreeMap<String, Count>) -> usize {
        let is_counted = |pid: &i32| counts.values().any(|count| count.backends.contains(pid));
        let unknown = self.marked.difference(&self.told);
        unknown.filter(|pid| !is_counted(pid)).count()
    }
}

/// What each session said last. The session goes to a thread, since the call may hang, and comes back.
fn look(mut client: Client) -> Result<(Vec<Session>, Client), Failure> {
    let query = sql::query(Limits::Seconds, SESSIONS);
    let (rows, client) = within("what sessions say", STATEMENT, move || {
        (client.simple_query(&query), client)
    })?;
    let rows = rows.map_err(|e| describe("cannot read pg_stat_activity", &e))?;
    let session = |row: SimpleQueryMessage| match row {
        SimpleQueryMessage::Row(row) => Some(Session {
            pid: row.get(0)?.parse().ok()?,
            query: row.get(2).map(str::to_owned),
        }),
        _ => None,
    };
    Ok((rows.into_iter().filter_map(session).collect(), client))
}

fn count(connection: &Connection, channel: &str, in_full: bool) -> Result<Count, Failure> {
    let observer = Config::observer().channel(channel).bare_name(!in_full);
    let cluster = ManuallyDrop::new(connection.join(observer)?);
    let found = roster::ask(&cluster, BARE)?;
    let is_bare = |info: &&pg_peers::PeerInfo| info.peer.incarnation().is_none();
    let bare = found.infos.iter().filter(is_bare).count();
    Ok(Count {
        members: found.infos.len() - bare,
        bare,
        backends: found.infos.iter().filter_map(|it| it.backend).collect(),
    })
}

fn lines(survey: &Survey, counts: &BTreeMap<String, Count>) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    for (channel, seen) in &survey.channels {
        let count = counts.get(channel);
        text.extend(json::to_line(&Line {
            channel,
            sessions: seen.sessions.len(),
            members: count.map(|it| it.members),
            bare_names: count.map(|it| it.bare),
        })?);
    }
    text.extend(json::to_line(&Unknown {
        hidden_sessions: survey.hidden.len(),
        silent_sessions: survey.silent(counts),
    })?);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(said: &[(i32, Option<&str>)]) -> Survey {
        let mut survey = Survey::default();
        for (pid, query) in said {
            survey.see(&Session {
                pid: *pid,
                query: query.map(str::to_owned),
            });
        }
        survey
    }

    #[test]
    fn only_where_members_announce_themselves_in_full_is_asked() {
        let survey = survey(&[
            (1, Some("LISTEN \"Cookie\"")),
            (2, Some("NOTIFY \"Cookie\", 'app@h'")),
            (
                3,
                Some("/* pg-peers */ SELECT pg_catalog.pg_notify(E'Cookie', E'b@h')"),
            ),
            (
                4,
                Some("/* pg-peers */ SELECT pg_catalog.pg_notify(E'c', E'pg-peers/1 beat')"),
            ),
            (5, Some("SELECT pg_notify('jobs', 'pg-peers/1 beat')")),
        ]);
        let asked: Vec<(&str, usize, bool)> = survey
            .channels
            .iter()
            .map(|(channel, seen)| (&**channel, seen.sessions.len(), seen.is_ours))
            .collect();
        assert_eq!(
            asked,
            [("Cookie", 3, false), ("c", 1, true), ("jobs", 1, false)]
        );
    }

    #[test]
    fn what_is_not_known_is_counted() {
        let survey = survey(&[
            (1, Some(HIDDEN)),
            (1, None),
            (2, Some("/* pg-peers */ ")),
            (3, Some("/* pg-peers */ ")),
            (3, Some("/* pg-peers */ LISTEN \"c\"")),
            (
                4,
                Some("/* pg-peers */ LISTEN \"pg_peers_0123456789abcdef\""),
            ),
            (5, Some("SELECT 1")),
        ]);
        assert_eq!(survey.hidden.len(), 1);
        assert_eq!(survey.silent(&BTreeMap::new()), 2);
        let count = Count {
            members: 1,
            bare: 0,
            backends: BTreeSet::from([4]),
        };
        let counts = BTreeMap::from([("c".to_owned(), count)]);
        assert_eq!(survey.silent(&counts), 1);
    }
}
