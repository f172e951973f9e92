//! What numbers and settings mean. Pure: each function judges what a check has read.

use std::time::Duration;

use super::finding::Finding;
use crate::latency::{Summary, milliseconds};
use crate::text::{count, span};

/// Members refuse what was signed more than a minute before it came, or after.
const CLOCK_FAILS: f64 = 60.0;
const CLOCK_WARNS: f64 = 5.0;

/// A member has one session, and another for a moment whenever it connects.
const PLACES_FAIL: i64 = 2;
const PLACES_WARN: i64 = 10;

/// A queue that is full refuses every NOTIFY of the server.
const QUEUE_FAILS: f64 = 0.5;
const QUEUE_WARNS: f64 = 0.01;

/// A lock that is held for longer holds up every NOTIFY of the server.
const LOCK_FAILS: Duration = Duration::from_secs(1);

/// The oldest PostgreSQL that is supported.
const OLDEST: u32 = 12;

/// A notification that takes longer on the way is noticed by people.
const SLOW: Duration = Duration::from_millis(500);

pub(super) fn server(version: &str, is_standby: bool) -> Finding {
    if is_standby {
        return Finding::failure(
            format!("PostgreSQL {version}, standby: it takes no LISTEN and no NOTIFY"),
            "connect to the primary: write all hosts and target_session_attrs=read-write",
        );
    }
    let major = version.split(|it: char| !it.is_ascii_digit()).next();
    match major.and_then(|it| it.parse().ok()) {
        Some(..OLDEST) => Finding::warning(
            format!("PostgreSQL {version}, primary: older than any that pg-peers is made for"),
            format!("PostgreSQL {OLDEST} or later is supported"),
        ),
        _ => Finding::ok(format!("PostgreSQL {version}, primary")),
    }
}

/// How a session is encrypted.
pub(super) enum Encryption<'a> {
    /// The server, or a pooler before it, was verified by these.
    Verified {
        roots: &'a str,
    },
    None,
    /// A socket, or a loopback address.
    Local,
}

/// `version`: what the server itself says of this session.
pub(super) fn encryption(encryption: &Encryption<'_>, version: Option<&str>) -> Finding {
    match (encryption, version) {
        (Encryption::Verified { roots }, Some(version)) => Finding::ok(format!(
            "{version}, certificate and host name verified by {roots}"
        )),
        (Encryption::Verified { roots }, None) => Finding::warning(
            format!(
                "encrypted as far as a pooler or proxy, which was verified by {roots}; the server says that from there on it is not"
            ),
            "see that the network between them is yours",
        ),
        (Encryption::Local, _) => Finding::ok("not encrypted, and on this machine"),
        (Encryption::None, _) => Finding::warning(
            "not encrypted: others on the way can read all, and announce members",
            "write sslmode=require, and --root-cert FILE if the certificate is not by a public authority",
        ),
    }
}

pub(super) fn round_trips(heard: usize, sent: usize, summary: Option<Summary>) -> Finding {
    let Some(summary) = summary.filter(|_| heard == sent) else {
        return Finding::failure(
            format!("{heard} of {sent} notifications of a second session were heard"),
            "connect to the server itself, or to a pooler in session mode",
        );
    };
    let text = format!("{sent} of {sent} heard: {}", summary.words());
    match summary.p50 > SLOW {
        false => Finding::ok(text),
        true => Finding::warning(text, "put the database nearer, or give it more processors"),
    }
}

pub(super) fn encoding(encoding: &str) -> Finding {
    match encoding {
        "UTF8" => Finding::ok("UTF8"),
        "SQL_ASCII" => Finding::warning(
            "SQL_ASCII: a client that notifies bytes that are not UTF-8 ends every session that listens",
            "let the cluster meet in a database with the encoding UTF8",
        ),
        other => Finding::warning(
            format!(
                "{other}: a name may take more bytes there than here, and some texts cannot be read"
            ),
            "keep to ASCII in names and tags, or let the cluster meet in a database with the encoding UTF8",
        ),
    }
}

/// What a role may see of other sessions.
pub(super) struct Rights {
    pub(super) may_ask: bool,
    pub(super) tracks: bool,
    pub(super) sees_all: bool,
    /// Members on the channel whose session belongs to another role, and to the same.
    pub(super) others: usize,
    pub(super) same: usize,
}

pub(super) fn rights(rights: &Rights) -> Finding {
    const SLOWER: &str = "members that die are noticed by missing heartbeats, after 15 s or more, not within seconds";
    let Rights { others, same, .. } = rights;
    if !rights.may_ask {
        return Finding::warning(
            format!("this role cannot see which sessions exist: {SLOWER}"),
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_get_activity(integer) to it",
        );
    }
    if !rights.tracks {
        return Finding::warning(
            "track_activities is off: members announce themselves more often than they had to",
            "set track_activities = on for the role",
        );
    }
    if *others > 0 && !rights.sees_all {
        return Finding::warning(
            format!(
                "{others} of {} members have another role than this one, which does not see what their sessions do",
                others + same
            ),
            "give all members the same role, or GRANT pg_read_all_stats to each",
        );
    }
    match same + others {
        0 => Finding::ok("this role can see which sessions exist"),
        _ => Finding::ok(format!(
            "this role can see which sessions exist; {} of this role, {others} of another",
            count(*same, "member")
        )),
    }
}

/// How many more sessions fit. `what` limits them.
pub(super) fn places(what: &str, limit: i64, used: i64) -> Finding {
    let left = limit - used;
    let text = format!("{what}: {used} of {limit} used, {left} left");
    let advice = "raise it, or let idle clients of others go: a member needs one, and a second while it connects";
    match left {
        ..PLACES_FAIL => Finding::failure(text, advice),
        PLACES_FAIL..PLACES_WARN => Finding::warning(text, advice),
        _ => Finding::ok(text),
    }
}

/// A session in a transaction, and for how long.
pub(super) struct Oldest {
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) age: Duration,
}

pub(super) fn queue(usage: f64, oldest: Option<&Oldest>) -> Finding {
    let percent = usage * 100.0;
    let text = format!("the queue of notifications is {percent:.1} % full");
    if usage < QUEUE_WARNS {
        return Finding::ok(text);
    }
    // Postgres tells nobody which session has not read it.
    let text = format!("{text}: a session that listens does not read");
    let advice = match oldest {
        Some(Oldest { pid, name, age }) => format!(
            "look for a session that listens and stays in a transaction, or whose program stands still; the oldest \
             transaction that this role sees is of backend {pid} ({name}), for {}; the server's log names another",
            span(*age)
        ),
        None => "look for a program that listens and stands still: the server's log names its backend once the queue is half full"
            .to_owned(),
    };
    match usage < QUEUE_FAILS {
        true => Finding::warning(text, advice),
        false => Finding::failure(text, advice),
    }
}

/// Who has the lock that every NOTIFY takes when it commits.
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) name: String,
    /// `None` if this role is not told.
    pub(super) since: Option<Duration>,
    pub(super) waiting: usize,
}

pub(super) fn notify_lock(holder: Option<&Holder>) -> Finding {
    let Some(holder) = holder else {
        return Finding::ok("nobody holds up NOTIFY");
    };
    let Holder {
        pid,
        name,
        since,
        waiting,
    } = holder;
    let text = format!("backend {pid} ({name}) commits a notification, and {waiting} wait for it");
    match since {
        Some(since) if *since >= LOCK_FAILS => Finding::failure(
            format!("{text}, for {}", span(*since)),
            format!(
                "see what it waits for (a synchronous standby, perhaps), or end it: SELECT pg_terminate_backend({pid})"
            ),
        ),
        _ if *waiting > 0 => {
            Finding::warning(text, "run this again: it should be over in milliseconds")
        }
        _ => Finding::ok(text),
    }
}

/// How many seconds the server's clock is ahead of this machine's, give or take `margin`.
pub(super) fn clock(ahead: f64, margin: f64) -> Finding {
    let certain = ahead.abs() - margin;
    let direction = if ahead < 0.0 { "behind" } else { "ahead" };
    let size = ahead.abs();
    let text = match size {
        ..1.0 => format!(
            "the server's clock and this one differ by {:.0} ms, give or take {:.0} ms",
            size * 1e3,
            margin * 1e3
        ),
        _ => format!("the server's clock is {size:.1} s {direction} of this one"),
    };
    let advice = "run a time daemon (NTP) on both machines: members refuse what was signed a minute before or after";
    if certain > CLOCK_FAILS {
        Finding::failure(text, advice)
    } else if certain > CLOCK_WARNS {
        Finding::warning(text, advice)
    } else {
        Finding::ok(text)
    }
}

/// A setting as it is for this role in this database. `None` if it does no harm.
pub(super) fn setting(name: &str, value: &str) -> Option<Finding> {
    let is_off = matches!(value, "0" | "" | "none" | "-1");
    match name {
        "idle_session_timeout" if !is_off => Some(Finding::warning(
            format!("idle_session_timeout is {value} ms: it ends sessions that only listen"),
            "set it to 0 for the role of Elixir nodes; members of pg-peers turn it off for themselves",
        )),
        "transaction_timeout" if value.parse().is_ok_and(|it: u64| (1..5_000).contains(&it)) => {
            Some(Finding::warning(
                format!("transaction_timeout is {value} ms: it ends sessions while NOTIFY waits"),
                "set it to 0, or to 5 s and more, for the role",
            ))
        }
        "search_path" if is_pg_catalog_late(value) => Some(Finding::warning(
            format!(
                "search_path is {value}: functions and operators of other schemas come before Postgres' own"
            ),
            "put pg_catalog first, or leave it out; pg-peers itself names the schema of all that it uses",
        )),
        "log_statement" if value == "all" => Some(Finding::warning(
            "log_statement is all: the log gets a line for each heartbeat of each member",
            "set it to ddl or none for the role",
        )),
        _ => None,
    }
}

fn is_pg_catalog_late(search_path: &str) -> bool {
    let mut schemas = search_path.split(',').map(|it| it.trim().trim_matches('"'));
    schemas.position(|it| it == "pg_catalog").unwrap_or(0) > 0
}

/// `None` where no port is written, or the server cannot tell its own.
pub(super) fn pooler(
    is_pgbouncer: bool,
    backend_changed: bool,
    written: Option<u16>,
    actual: Option<u16>,
) -> Finding {
    if backend_changed {
        return Finding::failure(
            "a pooler in transaction or statement mode: the backend of one session changes",
            "connect to the server itself, or to a pooler in session mode",
        );
    }
    if is_pgbouncer {
        return Finding::warning(
            "a pooler, since it refuses a start-up option as PgBouncer does",
            "session mode works (see notify); but a member that is killed is noticed after 15 s or more, not within seconds, so connect to the server itself if you can",
        );
    }
    match (written, actual) {
        (Some(written), Some(actual)) if written != actual => Finding::ok(format!(
            "the server takes start-up options, so it is no PgBouncer; its own port is {actual}, not {written}: a proxy or a mapped port is between"
        )),
        _ => Finding::ok(
            "none seen: the server takes start-up options, and the backend stays the same",
        ),
    }
}

pub(super) fn members(channel: &str, members: usize, bare: usize, silent: bool) -> Vec<Finding> {
    if members + bare == 0 {
        return vec![Finding::warning(
            format!("nobody is on channel {channel}"),
            "see where somebody is with pg-peers channels, and name it with --channel",
        )];
    }
    let mut found = vec![Finding::ok(format!(
        "{} on channel {channel}, and {}",
        count(members, "member"),
        count(bare, "bare name")
    ))];
    if bare > 0 && !silent {
        found.push(bare_names());
    }
    found
}

fn bare_names() -> Finding {
    Finding::warning(
        "some peers announce only a bare name, as Elixir nodes do; they take every message for the name of a node",
        "use --bare-name here, and Config::bare_name in members that meet them",
    )
}

/// Times of one address.
pub(super) struct Times {
    pub(super) tcp: Duration,
    /// `None` where it is not asked for.
    pub(super) tls: Option<Duration>,
}

pub(super) fn address(place: &str, resolved: Option<Duration>, times: &Times) -> Finding {
    let mut text = format!("{place}: ");
    if let Some(resolved) = resolved {
        text.push_str(&format!("name {}, ", milliseconds(resolved)));
    }
    text.push_str(&format!("TCP {}", milliseconds(times.tcp)));
    if let Some(tls) = times.tls {
        text.push_str(&format!(", TLS {}", milliseconds(tls)));
    }
    let slow = Duration::from_secs(1);
    match resolved.max(Some(times.tcp)).max(times.tls) {
        Some(longest) if longest > slow => Finding::warning(
            text,
            "look at the name servers and the network: each member that joins waits for this",
        ),
        _ => Finding::ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const OK: Level = Level::Ok;
    const WARNING: Level = Level::Warning;
    const FAILURE: Level = Level::Failure;

    #[test]
    fn a_clock_is_judged_by_what_is_certain() {
        for (ahead, margin, level) in [
            (0.001, 0.0002, OK),
            (-4.9, 0.0, OK),
            (5.1, 0.0, WARNING),
            (5.1, 0.2, OK),
            (-61.0, 0.5, FAILURE),
            (86_400.0, 0.1, FAILURE),
        ] {
            assert_eq!(clock(ahead, margin).level, level, "{ahead}");
        }
        assert!(clock(-61.0, 0.0).text.contains("61.0 s behind"));
    }

    #[test]
    fn places_end_before_the_last_is_taken() {
        for (used, level) in [
            (10, OK),
            (91, WARNING),
            (98, WARNING),
            (99, FAILURE),
            (100, FAILURE),
        ] {
            assert_eq!(places("max_connections", 100, used).level, level, "{used}");
        }
    }

    #[test]
    fn a_queue_that_fills_is_said_in_time() {
        for (usage, level) in [(0.0, OK), (0.009, OK), (0.02, WARNING), (0.6, FAILURE)] {
            assert_eq!(queue(usage, None).level, level, "{usage}");
        }
        let oldest = Oldest {
            pid: 7,
            name: "batch".to_owned(),
            age: Duration::from_secs(90),
        };
        let advice = queue(0.02, Some(&oldest)).advice.expect("some");
        assert!(advice.contains("backend 7 (batch), for 1m30s"), "{advice}");
    }

    #[test]
    fn the_holder_of_notify_is_named() {
        let holder = |since, waiting| Holder {
            pid: 7,
            name: "batch".to_owned(),
            since,
            waiting,
        };
        let long = Some(Duration::from_secs(3));
        for (holder, level) in [
            (None, OK),
            (Some(holder(Some(Duration::ZERO), 0)), OK),
            (Some(holder(None, 2)), WARNING),
            (Some(holder(long, 0)), FAILURE),
        ] {
            assert_eq!(notify_lock(holder.as_ref()).level, level);
        }
        assert!(
            notify_lock(Some(&holder(long, 5)))
                .text
                .contains("backend 7 (batch)")
        );
    }

    #[test]
    fn settings_that_hurt_are_named() {
        for (name, value, hurts) in [
            ("idle_session_timeout", "0", false),
            ("idle_session_timeout", "60000", true),
            ("transaction_timeout", "0", false),
            ("transaction_timeout", "1000", true),
            ("transaction_timeout", "60000", false),
            ("search_path", "\"$user\", public", false),
            ("search_path", "pg_catalog, public", false),
            ("search_path", "public, \"pg_catalog\"", true),
            ("log_statement", "ddl", false),
            ("log_statement", "all", true),
            ("work_mem", "1", false),
        ] {
            assert_eq!(setting(name, value).is_some(), hurts, "{name} {value}");
        }
    }

    #[test]
    fn roles_that_do_not_see_each_other_are_said() {
        let of = |may_ask, tracks, sees_all, others| {
            rights(&Rights {
                may_ask,
                tracks,
                sees_all,
                others,
                same: 2,
            })
            .level
        };
        assert_eq!(of(true, true, false, 0), OK);
        assert_eq!(of(true, true, true, 3), OK);
        assert_eq!(of(true, true, false, 3), WARNING);
        assert_eq!(of(true, false, true, 0), WARNING);
        assert_eq!(of(false, true, true, 0), WARNING);
    }

    #[test]
    fn a_pooler_is_known_by_what_it_does() {
        assert_eq!(pooler(false, true, None, None).level, FAILURE);
        assert_eq!(pooler(true, false, None, None).level, WARNING);
        assert_eq!(pooler(false, false, Some(6432), Some(5432)).level, OK);
        assert_eq!(round_trips(0, 1, None).level, FAILURE);
        assert_eq!(server("15", true).level, FAILURE);
        for (version, level) in [
            ("11.22", WARNING),
            ("12.1 (Debian)", OK),
            ("19beta1", OK),
            ("", OK),
        ] {
            assert_eq!(server(version, false).level, level, "{version}");
        }
        assert_eq!(encoding("SQL_ASCII").level, WARNING);
    }

    #[test]
    fn what_is_not_encrypted_is_said_unless_it_is_local() {
        let roots = Encryption::Verified { roots: "r" };
        assert_eq!(encryption(&roots, Some("TLSv1.3")).level, OK);
        assert_eq!(encryption(&roots, None).level, WARNING);
        assert_eq!(encryption(&Encryption::Local, None).level, OK);
        assert_eq!(encryption(&Encryption::None, None).level, WARNING);
    }

    #[test]
    fn bare_names_without_the_option_are_a_warning() {
        assert_eq!(members("c", 2, 0, false).len(), 1);
        assert_eq!(members("c", 2, 1, true).len(), 1);
        assert_eq!(members("c", 2, 1, false)[1].level, WARNING);
        assert_eq!(members("c", 0, 0, false)[0].level, WARNING);
    }
}
