//! Every statement that the library ever says to Postgres, with names and texts as [`quoting`](super::quoting) writes them. Pure.
//!
//! All but [one](sessions) are simple queries: those leave no prepared statement behind, and one query of several statements is one
//! transaction. Functions, types and operators are qualified with their schema, since a `search_path` of the role's may lead
//! elsewhere. Each query begins with a [mark](MARK), by which an operator knows whose it is.
//!
//! Where there is a function for what is said, it is said by that: `pg_stat_statements` keeps each `NOTIFY` as a separate entry,
//! and before PostgreSQL 16 each `SET` of another value, but a function is one entry, whatever its arguments are. A role may have
//! lost the right to execute it, and then the statement does: [`Wording`] has both.

use std::num::NonZeroI32;
use std::time::Duration;

use super::quoting::{MARK, identifier, literal};

/// Set in each session that listens, after connecting, since poolers refuse start-up options. The server then gives up a
/// statement that nobody waits for, and notices a dead host: without both TCP settings its backend stays for a quarter of an
/// hour, and pins the notification queue.
const HARDEN: [(&str, &str); 5] = [
    ("statement_timeout", "5s"),
    ("tcp_user_timeout", "5s"),
    ("tcp_keepalives_idle", "5s"),
    ("tcp_keepalives_interval", "1s"),
    ("tcp_keepalives_count", "3"),
];

/// Says nothing: Postgres notes that the session does not stand still.
pub(super) fn beat() -> String {
    query([""])
}

/// Asks which backend serves this session. Takes a right that every role has unless it was revoked.
pub(super) fn own_backend() -> String {
    query(["SELECT pg_catalog.pg_backend_pid()"])
}

/// Asks when the server was started, to the microsecond, by which two are told apart. Takes a right that every role has unless
/// it was revoked.
pub(super) fn server() -> String {
    query(["SELECT pg_catalog.pg_postmaster_start_time()"])
}

/// Asks how full the queue of notifications is, which makes Postgres see that it no longer is (`asyncQueueAdvanceTail` in
/// its `async.c`).
pub(super) fn queue_usage() -> String {
    query(["SELECT pg_catalog.pg_notification_queue_usage()"])
}

/// Asks how many bytes a text takes in the database's encoding. Takes a right that every role has unless it was revoked.
pub(super) fn length(text: &str) -> String {
    let text = literal(text);
    query([format!(
        "SELECT pg_catalog.octet_length(CAST({text} AS pg_catalog.text))"
    )])
}

pub(super) fn listen(channel: &str) -> String {
    query([listening(channel)])
}

pub(super) fn unlisten(channel: &str) -> String {
    query([format!("UNLISTEN {}", identifier(channel))])
}

/// Which of the backends `$1` the server has, what each does, for how many seconds, and whose it is. What it does is NULL unless it is
/// this role's, or that may see those of all. Takes a right that every role has unless it was revoked. It is asked every two seconds for
/// as long as the session lasts, and is prepared: to parse and plan it takes almost half of what it costs a server that is otherwise idle.
pub(super) fn sessions() -> String {
    query([
        "SELECT pid, state, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) state_change), usesysid \
         FROM pg_catalog.pg_stat_get_activity(NULL) \
         WHERE pid OPERATOR(pg_catalog.=) ANY (CAST($1 AS pg_catalog.int4[]))",
    ])
}

/// How settings are made, and notifications sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wording {
    #[default]
    Functions,
    /// Where this role may not execute those.
    Statements,
}

/// For how long a setting is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Session,
    Transaction,
}

impl Wording {
    pub(super) fn notify(self, channel: &str, payload: &str) -> String {
        query([self.notifying(channel, payload)])
    }

    /// Notifies in a session that is not set up. It waits for a lock no longer than `lock`, so that where another transaction
    /// holds NOTIFY up it does not hold a place in the pool meanwhile.
    pub(super) fn notify_within(self, channel: &str, payload: &str, lock: Duration) -> String {
        query([
            self.setting(Scope::Transaction, &[("lock_timeout", &millis(lock))]),
            self.notifying(channel, payload),
        ])
    }

    /// Several notifications in one transaction, which wakes the listeners of the server once.
    pub(super) fn notify_all(self, channel: &str, payloads: &[String]) -> String {
        query(payloads.iter().map(|it| self.notifying(channel, it)))
    }

    /// Announces in a session that is for this alone.
    pub(super) fn notify_aside(self, channel: &str, payloads: &[String]) -> String {
        let limits = [("statement_timeout", "5s"), ("lock_timeout", "1s")];
        let limits = self.setting(Scope::Transaction, &limits);
        let notifying = payloads.iter().map(|it| self.notifying(channel, it));
        query(std::iter::once(limits).chain(notifying))
    }

    /// Makes a session that is known to carry notifications listen to the channel, and returns the database's encoding. A
    /// statement waits for a lock no longer than `lock`.
    pub(super) fn set_up(self, channel: &str, application_name: &str, lock: Duration) -> String {
        let lock = millis(lock);
        let mut settings = HARDEN.to_vec();
        settings.push(("lock_timeout", &lock));
        settings.push(("application_name", application_name));
        query([
            self.setting(Scope::Session, &settings),
            listening(channel),
            "SHOW server_encoding".to_owned(),
        ])
    }

    /// Keeps Postgres from ending the session for its idleness. Servers before 14 do not know the setting, and say so.
    pub(super) fn no_idle_timeout(self) -> String {
        query([self.setting(Scope::Session, &[("idle_session_timeout", "0")])])
    }

    /// Ends a session of ours. Takes a right that every role has unless it was revoked. This may be another server by now,
    /// which has given the number to somebody else, so the name must be ours, too; a server keeps of it what is ASCII.
    pub(super) fn end_session(self, pid: NonZeroI32, application_name: &str) -> String {
        query([
            self.setting(Scope::Session, &[("application_name", application_name)]),
            format!(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
                 WHERE pid OPERATOR(pg_catalog.=) {pid} \
                 AND application_name OPERATOR(pg_catalog.=) pg_catalog.current_setting('application_name') \
                 AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()"
            ),
        ])
    }

    fn notifying(self, channel: &str, payload: &str) -> String {
        let payload = literal(payload);
        match self {
            Self::Functions => {
                format!(
                    "SELECT pg_catalog.pg_notify({}, {payload})",
                    literal(channel)
                )
            }
            Self::Statements => format!("NOTIFY {}, {payload}", identifier(channel)),
        }
    }

    /// Makes these settings, each by a separate statement: functions in one statement would be another entry for each number of
    /// them.
    fn setting(self, scope: Scope, settings: &[(&str, &str)]) -> String {
        let local = scope == Scope::Transaction;
        let statements = settings.iter().map(|(name, value)| {
            let value = literal(value);
            match self {
                Self::Functions => {
                    format!("SELECT pg_catalog.set_config('{name}', {value}, {local})")
                }
                Self::Statements if local => format!("SET LOCAL {name} = {value}"),
                Self::Statements => format!("SET {name} = {value}"),
            }
        });
        statements.collect::<Vec<_>>().join("; ")
    }
}

/// One query of these statements.
fn query<T: AsRef<str>>(statements: impl IntoIterator<Item = T>) -> String {
    let mut query = String::from(MARK);
    for (at, statement) in statements.into_iter().enumerate() {
        query.push_str(if at == 0 { " " } else { "; " });
        query.push_str(statement.as_ref());
    }
    query
}

fn listening(channel: &str) -> String {
    format!("LISTEN {}", identifier(channel))
}

fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_broken_out_of() {
        assert_eq!(identifier(r#"a"b\"#), r#""a""b\""#);
        assert_eq!(literal(r"a'b\'"), r"E'a''b\\'''");
        assert_eq!(
            Wording::Statements.notify("c\"", "p'"),
            r#"/* pg-peers */ NOTIFY "c""", E'p'''"#
        );
        assert_eq!(
            Wording::Functions.notify("c'", r"p\"),
            r"/* pg-peers */ SELECT pg_catalog.pg_notify(E'c''', E'p\\')"
        );
    }

    #[test]
    fn an_answer_is_one_query() {
        let payloads = ["a".to_owned(), "b".to_owned()];
        assert_eq!(
            Wording::Statements.notify_all("c", &payloads),
            r#"/* pg-peers */ NOTIFY "c", E'a'; NOTIFY "c", E'b'"#
        );
    }

    #[test]
    fn what_is_set_is_the_same_in_both_wordings() {
        let lock = Duration::from_millis(40);
        assert_eq!(
            Wording::Functions.notify_within("c", "p", lock),
            "/* pg-peers */ SELECT pg_catalog.set_config('lock_timeout', E'40ms', true); \
             SELECT pg_catalog.pg_notify(E'c', E'p')"
        );
        assert_eq!(
            Wording::Statements.notify_within("c", "p", lock),
            r#"/* pg-peers */ SET LOCAL lock_timeout = E'40ms'; NOTIFY "c", E'p'"#
        );
    }
}
