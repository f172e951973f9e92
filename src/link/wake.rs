//! Waking the thread: nothing but the server can end its wait in `postgres`, so that is what a host's request does.

use std::sync::Arc;
use std::time::Duration;

use super::connector::Connect;
use super::detached::{catch, spawn};
use super::session::{SessionNames, run};
use super::sql;
use crate::error::Result;
use crate::logging::LINK;

/// How long a wake-up waits for a lock. Without it the thread looks by itself in less time.
const LOCK: Duration = Duration::from_secs(1);

/// Makes [`Link::next`](super::Link::next) return, in a link of this session. Returns at once; `woken` is called when that was
/// done, or failed.
pub(crate) fn wake(
    connect: &Connect,
    names: &SessionNames,
    woken: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let statement = sql::notify_within(&names.inbox, "wake", LOCK);
    let (connect, channel) = (Arc::clone(connect), names.channel.clone());
    spawn("wake", move || {
        let mut client = None;
        let done = catch(|| {
            let client = client.insert(connect.open_aside(Duration::ZERO)?);
            run(client, &statement)
        });
        if let Err(error) = done {
            log::debug!(target: LINK, "{channel:?}: a request waits for its turn: {error}");
        }
        // Before the client is dropped, which may take long.
        woken();
    })
}
