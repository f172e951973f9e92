//! A transaction that has written and notified, and waits in its commit for a standby that is away: meanwhile every NOTIFY of the
//! server waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::Client;

use super::{Server, eventually};

/// Only a transaction that asks for it waits for a standby, on a server that was started with this.
pub const NOBODY_WAITS: &str = "synchronous_commit = off";

const COMMIT: &str = "SET synchronous_commit = on; BEGIN; DROP TABLE IF EXISTS held; CREATE TABLE held (n int); \
    NOTIFY elsewhere; COMMIT";

/// Holds NOTIFY up until it is dropped.
pub struct Holder {
    admin: Client,
    transactions: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl Holder {
    /// By one transaction, of a server that was started with [`NOBODY_WAITS`].
    pub fn hold(server: &Server) -> Self {
        Self::start(server, None)
    }

    /// By one transaction after the other, each for so long.
    pub fn slow_down(server: &Server, time: Duration) -> Self {
        Self::start(server, Some(time))
    }

    fn start(server: &Server, time: Option<Duration>) -> Self {
        let mut admin = server.client();
        configure(
            &mut admin,
            "ALTER SYSTEM SET synchronous_standby_names = 'away'",
        );
        eventually("the setting", || {
            let row = admin.query_one("SHOW synchronous_standby_names", &[]);
            row.expect("a row").get::<_, String>(0) == "away"
        });
        let (mut client, mut other) = (server.client(), server.client());
        let pid = client.query_one("SELECT pg_backend_pid()", &[]);
        let pid: i32 = pid.expect("a row").get(0);
        let over = Arc::<AtomicBool>::default();
        let ends = Arc::clone(&over);
        let transactions = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                // Whoever ends the wait of a commit has committed it.
                client.batch_execute(COMMIT).expect("a commit in the end");
            }
        });
        let waits = |client: &mut Client| {
            let waits =
                "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
            let row = client.query_one(waits, &[&pid]);
            row.expect("a row").get::<_, i64>(0) == 1
        };
        eventually("a commit that waits", || waits(&mut admin));
        match time {
            None => over.store(true, Ordering::Relaxed),
            Some(time) => {
                let ends = Arc::clone(&over);
                thread::spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        thread::sleep(time);
                        let _ = other.execute("SELECT pg_cancel_backend($1)", &[&pid]);
                    }
                });
            }
        }
        Self {
            admin,
            transactions: Some(transactions),
            over,
        }
    }

    /// Lets go; returns when.
    pub fn release(mut self) -> Instant {
        let released = Instant::now();
        self.let_go();
        released
    }

    fn let_go(&mut self) {
        if let Some(transactions) = self.transactions.take() {
            self.over.store(true, Ordering::Relaxed);
            configure(
                &mut self.admin,
                "ALTER SYSTEM RESET synchronous_standby_names",
            );
            transactions.join().expect("no panic");
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn configure(admin: &mut Client, statement: &str) {
    // Not in a transaction.
    admin.batch_execute(statement).expect(statement);
    admin
        .batch_execute("SELECT pg_reload_conf()")
        .expect("a reload");
}
