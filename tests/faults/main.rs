//! Members that stay together while things go wrong: one fault a test, on real servers, processes and networks.
//!
//! What takes long is left out unless the environment variable `PG_PEERS_LONG` is set.

#[path = "../support/mod.rs"]
mod support;

#[path = "../tls/client.rs"]
mod client;
mod clock;
mod credentials;
mod descriptors;
mod far;
mod held_up;
mod host;
mod hosts;
mod network;
mod noise;
mod pooler;
mod processes;
mod racks;
mod refusals;
mod server;
mod slow;
mod watched;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config};
use support::*;
// In place of the one that is not watched.
use watched::Server;

const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);

/// How soon everybody is back once the server accepts again.
const RECOVERY: Duration = Duration::from_secs(2);

/// How late an outage is noticed, after the heartbeat that meets it.
const NOTICE: Duration = Duration::from_secs(2);

#[test]
fn participant_process() {
    be_a_participant();
}

/// One test at a time has dozens of members: they are as many as a small machine can run beside what else goes on.
fn one_crowd() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::new(());
    CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn three(server: &Server) -> [Cluster; 3] {
    acquainted(["a", "b", "c"].map(Config::new), &server.params())
}

/// Whether the tests run that take long; says so if they do not.
fn long() -> bool {
    let long = std::env::var_os("PG_PEERS_LONG").is_some();
    if !long {
        eprintln!("skipped: PG_PEERS_LONG is not set");
    }
    long
}

/// The fault goes on.
fn last_until(end: Instant) {
    thread::sleep(end.saturating_duration_since(Instant::now()));
}

/// It came within the time that is promised; it is said, for the documentation.
#[track_caller]
fn within(what: &str, since: Instant, limit: Duration) {
    let elapsed = since.elapsed();
    println!("{what}: {elapsed:?}");
    assert!(elapsed < limit, "{what}: {elapsed:?}");
}

/// Runs the body of a test, which calls this first, in a separate process: it looks at what its process has.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "PG_PEERS_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        thread::spawn(|| {
            thread::sleep(Duration::from_secs(300));
            eprintln!("it hangs");
            std::process::abort();
        });
        return body();
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("a process");
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (words(&output.stdout), words(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "no test {test}: {out}");
}
