//! How a participant is doing, and what its handle and its thread share.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::error::Error;
use crate::peer::{Incarnation, Peer, Sighting};

/// How a participant is doing: its link to Postgres and its counts since it joined. A snapshot, as of what the thread did
/// last; as old as a call that waits for a server which does not answer (1.5 seconds).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// Whether the link to Postgres works, as far as is known.
    pub online: bool,
    /// The newest reason for which the link failed or could not be had; it stays when the link is back.
    pub last_error: Option<Error>,
    /// This participant's own incarnation; `None` for an observer and for one that announces its bare name.
    pub incarnation: Option<Incarnation>,
    /// How many peers there are.
    pub peers: usize,
    /// How long the last announcement took until it came back to this participant: to Postgres and back.
    pub echo: Option<Duration>,
    /// How often this participant announces itself now: its
    /// [`heartbeat_interval`](crate::Config::heartbeat_interval), or longer in a large cluster; see
    /// [`Config::delivery_budget`](crate::Config::delivery_budget).
    pub interval: Duration,
    /// How many announcements went out.
    pub announced: u64,
    /// How many newcomers this participant answered with the roster.
    pub answered: u64,
    /// How many times this participant asked Postgres whose session is gone; see
    /// [`Config::session_check`](crate::Config::session_check).
    pub checked: u64,
    /// How many payloads told something about a peer, if only that it is still there.
    pub heard: u64,
    /// How many payloads were ignored: not in this crate's format, cut short, of another version, repeated, out of order.
    pub ignored: u64,
    /// How many payloads were ignored since they are not signed with a secret of this participant, or were sent by another
    /// backend than signed them. See `Config::secret`, of the cargo feature `auth`; without a secret none are.
    pub forged: u64,
    /// How many payloads were ignored though they are well signed: more than 60 seconds before they came, or in the future by
    /// as much. A member's clock is wrong, or this one's; the log names it.
    pub untimely: u64,
    /// How many announcements of newcomers were ignored for want of room; see [`Config::max_peers`](crate::Config::max_peers).
    pub refused: u64,
    /// How many times the link came up.
    pub connected: u64,
    /// How many attempts to connect failed.
    pub failed_attempts: u64,
    /// How many events wait for the host to drain those before them.
    pub undelivered: usize,
}

/// Where the handle and the thread meet. Neither holds a lock while it waits for anything else.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    requests: Mutex<Requests>,
    view: Mutex<View>,
    changed: Condvar,
}

/// What the host asks of the thread. Bounded: each kind holds what is asked, not how often.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Peers that the host's own connection to broke, by name.
    pub(crate) lost: HashMap<String, Peer>,
    /// Tags to announce from now on, as they go into an announcement.
    pub(crate) tags: Option<String>,
    /// Where to tell what is known of each peer.
    pub(crate) sightings: Option<Sender<Vec<Sighting>>>,
    pub(crate) leave: bool,
    /// The thread may wait for long: whoever asks for something wakes it.
    pub(crate) asleep: bool,
    /// Somebody is about to.
    pub(crate) waking: bool,
}

/// What the host sees of the thread's work.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// In the order of their names.
    pub(crate) peers: Arc<Vec<Peer>>,
    pub(crate) status: Status,
    /// The thread has ended: nothing changes any more.
    pub(crate) ended: bool,
    /// How many threads of the host wait for a change.
    waiting: usize,
}

impl View {
    pub(crate) fn put(&mut self, peer: &Peer) {
        let peers = Arc::make_mut(&mut self.peers);
        match peers.binary_search_by(|known| known.name().cmp(peer.name())) {
            Ok(at) => peers[at] = peer.clone(),
            Err(at) => peers.insert(at, peer.clone()),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let peers = Arc::make_mut(&mut self.peers);
        if let Ok(at) = peers.binary_search_by(|known| known.name().cmp(name)) {
            peers.remove(at);
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Peer> {
        let at = self.peers.binary_search_by(|known| known.name().cmp(name));
        at.ok().map(|at| &self.peers[at])
    }
}

impl Shared {
    pub(crate) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the host sees, and wakes those who wait for it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view();
        change(&mut view);
        let waiting = view.waiting > 0;
        drop(view);
        // A system call, on the way of every event to the host.
        if waiting {
            self.changed.notify_all();
        }
    }

    /// Waits until the view has what is wanted; `None` if it did not in time, or never will.
    pub(crate) fn wait<T>(
        &self,
        timeout: Duration,
        wanted: impl Fn(&View) -> Option<T>,
    ) -> Option<T> {
        // A deadline too far for the clock is none.
        let deadline = Instant::now().checked_add(timeout);
        let mut view = self.view();
        loop {
            if let Some(found) = wanted(&view) {
                return Some(found);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() || view.ended {
                return None;
            }
            view.waiting += 1;
            let woken = self.changed.wait_timeout(view, left);
            view = woken.unwrap_or_else(PoisonError::into_inner).0;
            view.waiting -= 1;
        }
    }
}
