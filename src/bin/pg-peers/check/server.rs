//! What the server says of itself, in the session of a member's role.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use pg_peers::postgres::config::Host;

use super::Findings;
use super::finding::Finding;
use super::judge::{self, Encryption, Holder, Oldest, Rights};
use super::subject::{Row, Subject};
use crate::roster::Meeting;

/// How often the clock is read. The reading that took the least time is the best.
const CLOCK_LOOKS: usize = 5;

pub(super) fn version(subject: &mut Subject) -> Findings {
    let row = subject.row(
        "SELECT pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery()",
    )?;
    Ok(vec![judge::server(row.text(0), row.is_true(1))])
}

pub(super) fn encryption(subject: &mut Subject) -> Findings {
    let row = subject.row(
        "SELECT ssl, version FROM pg_catalog.pg_stat_ssl \
         WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()",
    )?;
    let roots = subject.connection.tls().map(|tls| tls.roots.clone());
    let encryption = match &roots {
        Some(roots) => Encryption::Verified { roots },
        None if is_local(subject) => Encryption::Local,
        None => Encryption::None,
    };
    let version = row.is_true(0).then(|| row.text(1));
    Ok(vec![judge::encryption(&encryption, version)])
}

/// Whether the server is on this machine, wherever it is of several hosts.
fn is_local(subject: &Subject) -> bool {
    let addresses = subject.connection.config().get_hostaddrs();
    if !addresses.is_empty() {
        // Then names are only names.
        return addresses.iter().all(IpAddr::is_loopback);
    }
    let mut hosts = subject.connection.hosts();
    hosts.all(|(host, _)| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|it: IpAddr| it.is_loopback())
        }
    })
}

pub(super) fn encoding(subject: &mut Subject) -> Findings {
    let row = subject.row("SELECT pg_catalog.current_setting('server_encoding')")?;
    Ok(vec![judge::encoding(row.text(0))])
}

/// What this role sees of the members' sessions.
pub(super) fn rights(subject: &mut Subject) -> Findings {
    let there = subject.roster(Duration::ZERO)?;
    let backends: Vec<i32> = there.iter().filter_map(|info| info.backend).collect();
    let row = subject.row(
        "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_stat_get_activity(integer)', 'EXECUTE'), \
         pg_catalog.current_setting('track_activities'), \
         pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')",
    )?;
    let may_ask = row.is_true(0);
    let (same, others) = match may_ask && !backends.is_empty() {
        true => roles(&subject.rows(&roles_query(&backends))?),
        false => (0, 0),
    };
    Ok(vec![judge::rights(&Rights {
        may_ask,
        tracks: row.text(1) == "on",
        sees_all: row.is_true(2),
        others,
        same,
    })])
}

fn roles_query(backends: &[i32]) -> String {
    let pids: Vec<String> = backends.iter().map(ToString::to_string).collect();
    format!(
        "SELECT usename OPERATOR(pg_catalog.=) current_user FROM pg_catalog.pg_stat_activity \
         WHERE pid OPERATOR(pg_catalog.=) ANY (CAST('{{{}}}' AS pg_catalog.int4[]))",
        pids.join(",")
    )
}

/// How many sessions have this role, and how many another.
fn roles(rows: &[Row]) -> (usize, usize) {
    let same = rows.iter().filter(|row| row.is_true(0)).count();
    (same, rows.len() - same)
}

pub(super) fn places(subject: &mut Subject) -> Findings {
    let server = subject.row(
        "SELECT pg_catalog.current_setting('max_connections'), \
         pg_catalog.current_setting('superuser_reserved_connections'), \
         pg_catalog.current_setting('reserved_connections', true), \
         (SELECT pg_catalog.sum(numbackends) FROM pg_catalog.pg_stat_database)",
    )?;
    let number = |column| server.number::<i64>(column).unwrap_or_default();
    let limit = number(0) - number(1) - number(2);
    // Those of this program are given back.
    let own = subject.sessions();
    let mut found = vec![judge::places("max_connections", limit, number(3) - own)];
    let limits = subject.row(
        "SELECT rolconnlimit, (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE usesysid OPERATOR(pg_catalog.=) r.oid), \
         datconnlimit, (SELECT numbackends FROM pg_catalog.pg_stat_database WHERE datid OPERATOR(pg_catalog.=) d.oid) \
         FROM pg_catalog.pg_roles r, pg_catalog.pg_database d \
         WHERE rolname OPERATOR(pg_catalog.=) current_user AND datname OPERATOR(pg_catalog.=) pg_catalog.current_database()",
    )?;
    for (what, column) in [
        ("CONNECTION LIMIT of the role", 0),
        ("CONNECTION LIMIT of the database", 2),
    ] {
        let limit = limits.number::<i64>(column).filter(|limit| *limit >= 0);
        let used: i64 = limits.number(column + 1).unwrap_or_default();
        found.extend(limit.map(|limit| judge::places(what, limit, used - own)));
    }
    Ok(found)
}

pub(super) fn queue(subject: &mut Subject) -> Findings {
    let row = subject.row("SELECT pg_catalog.pg_notification_queue_usage()")?;
    let usage = row.number(0).unwrap_or_default();
    let oldest = subject.rows(
        "SELECT pid, application_name, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) xact_start) \
         FROM pg_catalog.pg_stat_activity \
         WHERE xact_start IS NOT NULL AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() \
         ORDER BY xact_start LIMIT 1",
    )?;
    let oldest = oldest.first().and_then(|row| {
        Some(Oldest {
            pid: row.number(0)?,
            name: row.text(1).to_owned(),
            age: Duration::try_from_secs_f64(row.number(2)?).ok()?,
        })
    });
    Ok(vec![judge::queue(usage, oldest.as_ref())])
}

/// A commit that notifies locks "database 0" until it is done, waiting for a synchronous standby included (`PreCommit_Notify` in
/// PostgreSQL's `async.c`); 1262 is `pg_database`.
pub(super) fn notify_lock(subject: &mut Subject) -> Findings {
    let rows = subject.rows(
        "SELECT l.granted, l.pid, a.application_name, \
         pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.query_start) \
         FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid \
         WHERE l.locktype OPERATOR(pg_catalog.=) 'object' AND l.classid OPERATOR(pg_catalog.=) CAST(1262 AS pg_catalog.oid) \
         AND l.objid OPERATOR(pg_catalog.=) CAST(0 AS pg_catalog.oid) \
         AND l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock'",
    )?;
    let waiting = rows.iter().filter(|row| !row.is_true(0)).count();
    let holder = rows.iter().find(|row| row.is_true(0)).and_then(|row| {
        let since: Option<f64> = row.number(3);
        Some(Holder {
            pid: row.number(1)?,
            name: row.text(2).to_owned(),
            since: since.and_then(|it| Duration::try_from_secs_f64(it).ok()),
            waiting,
        })
    });
    Ok(vec![judge::notify_lock(holder.as_ref())])
}

pub(super) fn clock(subject: &mut Subject) -> Findings {
    let mut best: Option<(f64, f64)> = None;
    for _ in 0..CLOCK_LOOKS {
        let before = epoch();
        let row =
            subject.row("SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())")?;
        let after = epoch();
        let server: f64 = row.number(0).ok_or("the server tells no time")?;
        let margin = (after - before) / 2.0;
        if best.is_none_or(|(_, least)| margin < least) {
            best = Some((server - f64::midpoint(before, after), margin));
        }
    }
    let (ahead, margin) = best.unwrap_or_default();
    Ok(vec![judge::clock(ahead, margin)])
}

fn epoch() -> f64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_secs_f64()
}

pub(super) fn settings(subject: &mut Subject) -> Findings {
    let rows = subject.rows(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) ANY (CAST(\
         '{idle_session_timeout,transaction_timeout,search_path,log_statement}' AS pg_catalog.text[])) ORDER BY name",
    )?;
    let settings: HashMap<&str, &str> = rows.iter().map(|it| (it.text(0), it.text(1))).collect();
    let mut found: Vec<Finding> = settings
        .iter()
        .filter_map(|(name, value)| judge::setting(name, value))
        .collect();
    found.sort_by(|a, b| a.text.cmp(&b.text));
    if found.is_empty() {
        found.push(Finding::ok("none that does harm, for this role"));
    }
    Ok(found)
}

pub(super) fn members(subject: &mut Subject) -> Findings {
    let listening = subject.meeting.until_all_spoke();
    let there = subject.roster(listening)?;
    let bare = there.iter().filter(|it| it.peer.incarnation().is_none());
    let bare = bare.count();
    let Meeting {
        channel, bare_name, ..
    } = &subject.meeting;
    let members = there.len() - bare;
    Ok(judge::members(channel, members, bare, *bare_name))
}
