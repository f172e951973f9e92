//! Threads that can be left behind: for what may hang, and must hold nobody up.

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::pace::{STEPS, TimeAwake};
use super::seats::Seated;
use crate::error::{Error, Kind, Result};

/// The longest that closing a client holds anybody up; a healthy one takes 0.1 ms.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

pub(super) fn spawn(what: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(format!("pg-peers-{what}"))
        .spawn(work)
        .map(drop)
        .map_err(|e| Error::caused(Kind::Link, "cannot start a thread", e))
}

/// Opens a connection, or does something with it, by a closure of the host's that may panic: that is a failure like others.
pub(super) fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let panicked = |_| Err(Error::new(Kind::Link, "connecting to Postgres panicked"));
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

/// Does some work on a detached thread; what came of it can be received.
pub(super) fn start<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Receiver<Result<T>>> {
    let (done, outcome) = bounded(1);
    spawn(what, move || {
        // Nobody may be waiting any more.
        let _ = done.send(catch(work));
    })?;
    Ok(outcome)
}

/// Receives within a time in which this process runs: while it is stopped, as by SIGSTOP, nobody can be late.
pub(super) fn receive_awake<T>(
    result: &Receiver<T>,
    timeout: Duration,
) -> std::result::Result<T, RecvTimeoutError> {
    let mut left = TimeAwake::new(timeout);
    let mut stopped = false;
    while let Some(step) = left.poll() {
        let start = Instant::now();
        match result.recv_timeout(step) {
            Err(RecvTimeoutError::Timeout) => stopped = left.handle_wait(start.elapsed()),
            received => return received,
        }
    }
    // After a stop what has arrived is still to be taken.
    let more = if stopped {
        timeout / STEPS
    } else {
        Duration::ZERO
    };
    result.recv_timeout(more)
}

/// Closes a client on a detached thread, and waits a moment for it.
pub(super) fn close(client: Seated) {
    let (done, dropped) = bounded::<()>(1);
    let spawned = spawn("close", move || {
        drop(client);
        drop(done);
    });
    if spawned.is_ok() {
        let _ = dropped.recv_timeout(CLOSE_TIMEOUT);
    }
}
