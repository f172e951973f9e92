//! Waking the thread: nothing but the server can end its wait in `postgres`, so that is what a host's request does.

use std::sync::Arc;

use postgres::Client;

use super::connector::Connect;
use super::detached::with_connection;
use super::session::{SessionNames, run};
use super::sql;
use crate::error::Result;
use crate::logging::LINK;

/// Makes [`Link::next`](super::Link::next) return, in a link of this session. Returns at once; `woken` is called when that was
/// done, or failed.
pub(crate) fn wake(
    connect: &Connect,
    names: &SessionNames,
    woken: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let statement = sql::notify_briefly(&names.inbox, "wake");
    let wake = move |client: &mut Client| run(client, &statement);
    let channel = names.channel.clone();
    with_connection("wake", Arc::clone(connect), wake, move |done| {
        if let Err(error) = done {
            log::debug!(target: LINK, "{channel:?}: a request waits for its turn: {error}");
        }
        woken();
    })
}
