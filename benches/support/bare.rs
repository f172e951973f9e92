//! The least that does the same as a member, and what libcluster_postgres does: everybody announces itself every 5 seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use postgres::{Client, NoTls};

const HEARTBEAT: Duration = Duration::from_secs(5);

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
