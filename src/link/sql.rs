//! Every statement that this crate ever says to Postgres, and how names and texts are quoted in it. Pure.
//!
//! All are simple queries: those leave no prepared statement behind, and one query of several statements is one
//! transaction. Functions are qualified with their schema, since a `search_path` of the role's may lead elsewhere.

use std::num::NonZeroI32;
use std::time::Duration;

/// Set in each session that listens, after connecting, since poolers refuse start-up options. The server then gives up a
/// statement that nobody waits for, and notices a dead host: without both TCP settings its backend stays for a quarter of an
/// hour, and pins the notification queue.
const HARDEN: &str = "SET statement_timeout = '5s'; SET tcp_user_timeout = '5s'; \
    SET tcp_keepalives_idle = '5s'; SET tcp_keepalives_interval = '1s'; SET tcp_keepalives_count = 3";

/// Keeps Postgres from ending the session for its idleness. Servers before 14 do not know the setting, and say so.
pub(super) const NO_IDLE_TIMEOUT: &str = "SET idle_session_timeout = 0";

/// Asks which backend serves this session. Takes a right that every role has unless it was revoked.
pub(super) const OWN_BACKEND: &str = "SELECT pg_catalog.pg_backend_pid()";

/// Asks when the server was started, to the microsecond, by which two are told apart. Takes a right that every role has unless
/// it was revoked.
pub(super) const SERVER: &str = "SELECT pg_catalog.pg_postmaster_start_time()";

/// Asks how full the queue of notifications is, which makes Postgres see that it no longer is (`asyncQueueAdvanceTail` in
/// its `async.c`).
pub(super) const QUEUE_USAGE: &str = "SELECT pg_catalog.pg_notification_queue_usage()";

/// Asks how many bytes a text takes in the database's encoding. Takes a right that every role has unless it was revoked.
pub(super) fn length(text: &str) -> String {
    let text = literal(text);
    format!("SELECT pg_catalog.octet_length(CAST({text} AS pg_catalog.text))")
}

pub(super) fn listen(channel: &str) -> String {
    format!("LISTEN {}", identifier(channel))
}

pub(super) fn unlisten(channel: &str) -> String {
    format!("UNLISTEN {}", identifier(channel))
}

pub(super) fn notify(channel: &str, payload: &str) -> String {
    format!("NOTIFY {}, {}", identifier(channel), literal(payload))
}

/// Notifies in a session that is not set up. It waits for a lock no longer than `lock`, so that where another transaction holds
/// NOTIFY up it does not hold a place in the pool meanwhile.
pub(super) fn notify_within(channel: &str, payload: &str, lock: Duration) -> String {
    format!(
        "SET LOCAL lock_timeout = '{}ms'; {}",
        lock.as_millis(),
        notify(channel, payload)
    )
}

/// Several notifications in one transaction, which wakes the listeners of the server once.
pub(super) fn notify_all(channel: &str, payloads: &[String]) -> String {
    let statements = payloads.iter().map(|payload| notify(channel, payload));
    statements.collect::<Vec<_>>().join("; ")
}

/// Announces in a session that is for this alone.
pub(super) fn notify_aside(channel: &str, payloads: &[String]) -> String {
    let statements = notify_all(channel, payloads);
    format!("SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '1s'; {statements}")
}

/// Makes a session that is known to carry notifications listen to the channel, and returns the database's encoding. A statement
/// waits for a lock no longer than `lock`.
pub(super) fn set_up(channel: &str, application_name: &str, lock: Duration) -> String {
    format!(
        "{HARDEN}; SET lock_timeout = '{}ms'; SET application_name = {}; {}; SHOW server_encoding",
        lock.as_millis(),
        literal(application_name),
        listen(channel)
    )
}

/// Which of these backends the server has. Takes a right that every role has unless it was revoked.
pub(super) fn sessions(pids: &[NonZeroI32]) -> String {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let pids = pids.join(",");
    format!("SELECT pid FROM pg_catalog.pg_stat_get_activity(NULL) WHERE pid = ANY ('{{{pids}}}')")
}

/// Ends a session of ours. Takes a right that every role has unless it was revoked. This may be another server by now,
/// which has given the number to somebody else, so the name must be ours, too; a server keeps of it what is ASCII.
pub(super) fn end_session(pid: NonZeroI32, application_name: &str) -> String {
    let name = literal(application_name);
    format!(
        "SET application_name = {name}; \
         SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
         WHERE pid = {pid} AND application_name = pg_catalog.current_setting('application_name') \
         AND pid <> pg_catalog.pg_backend_pid()"
    )
}

/// Quotes an SQL identifier (PostgreSQL manual, 4.1.1). Postgres folds the case of unquoted ones.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes an SQL string so that it reads the same whatever `standard_conforming_strings` is (manual, 4.1.2.2).
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_broken_out_of() {
        assert_eq!(identifier(r#"a"b\"#), r#""a""b\""#);
        assert_eq!(literal(r"a'b\'"), r"E'a''b\\'''");
        assert_eq!(notify("c\"", "p'"), r#"NOTIFY "c""", E'p'''"#);
    }

    #[test]
    fn an_answer_is_one_query() {
        let payloads = ["a".to_owned(), "b".to_owned()];
        assert_eq!(
            notify_all("c", &payloads),
            r#"NOTIFY "c", E'a'; NOTIFY "c", E'b'"#
        );
    }
}
