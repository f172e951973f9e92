//! Waking the thread: nothing but the server can end its wait in `postgres`, so that is what a host's request does.

use std::sync::Arc;
use std::time::Duration;

use super::connector::Connect;
use super::detached::{catch, spawn};
use super::session::{SessionNames, say};
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
    let (connect, names) = (Arc::clone(connect), names.clone());
    spawn("wake", move || {
        let mut client = None;
        let done = catch(|| {
            let client = client.insert(connect.open_aside(Duration::ZERO)?);
            say(client, |it| it.notify_within(&names.inbox, "wake", LOCK)).map(drop)
        });
        if let Err(error) = done {
            log::debug!(target: LINK, "{:?}: a request waits for its turn: {error}", names.channel);
        }
        // Before the client is dropped, which may take long.
        woken();
    })
}
