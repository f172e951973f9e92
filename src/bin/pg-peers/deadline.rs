//! Calls that may hang: a server that is frozen answers nothing, and no timeout of the driver's ends that.

use std::thread;
use std::time::Duration;

use pg_peers::crossbeam_channel::{RecvTimeoutError, bounded};

/// Calls on another thread, which is left behind when the call takes longer. It ends with the program.
pub(crate) fn within<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (done, result) = bounded(1);
    let worker = thread::Builder::new().name("call".to_owned());
    let started = worker.spawn(move || drop(done.send(work())));
    started.map_err(|e| format!("cannot start a thread: {e}"))?;
    result.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => {
            format!("Postgres did not answer within {limit:.0?} ({what}): is the server frozen?")
        }
        RecvTimeoutError::Disconnected => format!("{what} failed: this is a bug of pg-peers"),
    })
}
