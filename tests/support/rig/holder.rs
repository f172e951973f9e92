//! Transactions that have written and notified, and wait in their commit for a standby that is away: meanwhile every NOTIFY of
//! the server waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::Client;

use super::{Server, eventually};

/// Only a transaction that asks for it waits for a standby, on a server that was started with this.
pub const NOBODY_WAITS: &str = "synchronous_commit = off";

/// What a session calls itself that is none of those that are looked at.
pub const WATCH: &str = "watch";

const COMMIT: &str = "SET synchronous_commit = on; BEGIN; DROP TABLE IF EXISTS held; CREATE TABLE held (n int); \
    NOTIFY elsewhere; COMMIT";

const WAITS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";

const CANCEL: &str =
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";

/// Holds NOTIFY up until it is dropped.
pub struct Holder {
    admin: Client,
    threads: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl Holder {
    /// By one transaction, of a server that was started with [`NOBODY_WAITS`].
    pub fn hold(server: &Server) -> Self {
        let mut holder = Self::new(server);
        let pid = holder.commit_again_and_again(server);
        holder.wait_until_it_waits(pid);
        holder
    }

    /// By one transaction after the other, each for so long.
    pub fn slow_down(server: &Server, time: Duration) -> Self {
        let mut holder = Self::new(server);
        let pid = holder.commit_again_and_again(server);
        let (mut other, _) = watching(server);
        let over = Arc::clone(&holder.over);
        holder.threads.push(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(time);
                // A commit whose wait for the standby is cancelled is made all the same.
                other.execute(CANCEL, &[&pid]).expect("to cancel");
            }
        }));
        holder.wait_until_it_waits(pid);
        holder
    }

    fn new(server: &Server) -> Self {
        let (mut admin, _) = watching(server);
        let away = "ALTER SYSTEM SET synchronous_standby_names = 'away'";
        configure(&mut admin, away).expect(away);
        eventually("the setting", || {
            let row = admin.query_one("SHOW synchronous_standby_names", &[]);
            row.expect("a row").get::<_, String>(0) == "away"
        });
        Self {
            admin,
            threads: Vec::new(),
            over: Arc::default(),
        }
    }

    /// The backend that does. Until the checkpointer, too, has read the setting, a commit does not wait for the standby.
    fn commit_again_and_again(&mut self, server: &Server) -> i32 {
        let (mut client, pid) = watching(server);
        let over = Arc::clone(&self.over);
        self.threads.push(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                client.batch_execute(COMMIT).expect("a commit in the end");
            }
        }));
        pid
    }

    fn wait_until_it_waits(&mut self, pid: i32) {
        eventually("a commit that waits", || {
            let row = self.admin.query_one(WAITS, &[&pid]);
            row.expect("a row").get::<_, i64>(0) == 1
        });
    }

    /// Lets go; returns when.
    pub fn release(mut self) -> Instant {
        let released = Instant::now();
        self.let_go();
        released
    }

    /// Also of a server that is gone.
    fn let_go(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let reset = "ALTER SYSTEM RESET synchronous_standby_names";
        let let_go = configure(&mut self.admin, reset);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(let_go.is_err() || ended.is_ok(), "it commits");
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.let_go();
        }
    }
}

/// A session that is none of those that are looked at, and its backend.
fn watching(server: &Server) -> (Client, i32) {
    let mut client = server.client();
    let name = format!("SET application_name = '{WATCH}'");
    client.batch_execute(&name).expect("a name");
    let row = client.query_one("SELECT pg_backend_pid()", &[]);
    let pid = row.expect("a row").get(0);
    (client, pid)
}

/// By two queries, since the first must not be in a transaction.
fn configure(admin: &mut Client, statement: &str) -> Result<(), postgres::Error> {
    admin.batch_execute(statement)?;
    admin.batch_execute("SELECT pg_reload_conf()")
}
