//! The least that does the same as a member, and what libcluster_postgres does: everybody announces itself every 5 seconds. And
//! what most write by hand instead: a table of heartbeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use postgres::{Client, NoTls};

const HEARTBEAT: Duration = Duration::from_secs(5);

/// The table of heartbeats, anew.
pub const TABLE: &str = "DROP TABLE IF EXISTS members; \
    CREATE TABLE members (name text PRIMARY KEY, seen timestamptz NOT NULL)";

/// A thread, a session, and every heartbeat an update of its row in the [`TABLE`] and a look at who is there, the first after
/// `offset`.
pub fn row_of_table(params: &str, name: String, offset: Duration) {
    let mut client = Client::connect(params, NoTls).expect("a session");
    let insert = "INSERT INTO members VALUES ($1, now())";
    client.execute(insert, &[&name]).expect("INSERT");
    let update = client
        .prepare("UPDATE members SET seen = now() WHERE name = $1")
        .expect("UPDATE");
    let select = client
        .prepare("SELECT name FROM members WHERE seen > now() - interval '15 seconds'")
        .expect("SELECT");
    let mut next = Instant::now() + offset;
    thread::spawn(move || {
        loop {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            client.execute(&update, &[&name]).expect("UPDATE");
            client.query(&select, &[]).expect("SELECT");
            next += HEARTBEAT;
        }
    });
}

/// A thread, a session, a notification every heartbeat, the first after `offset`; counts what it hears.
pub fn member(params: &str, offset: Duration, heard: Arc<AtomicU64>) {
    let mut client = Client::connect(params, NoTls).expect("a session");
    client.batch_execute("LISTEN cluster").expect("LISTEN");
    let statement = "NOTIFY cluster, 'pg-peers/1 beat name=worker-000@10.0.0.1:7000 inc=1795443184000000 seq=1 due=5000;'";
    let mut next = Instant::now() + offset;
    thread::spawn(move || {
        loop {
            while let Some(wait) = next.checked_duration_since(Instant::now()) {
                let mut notifications = client.notifications();
                let received = notifications.timeout_iter(wait).next();
                if received.expect("a session").is_some() {
                    heard.fetch_add(1, Ordering::Relaxed);
                }
            }
            client.batch_execute(statement).expect("NOTIFY");
            next += HEARTBEAT;
        }
    });
}
