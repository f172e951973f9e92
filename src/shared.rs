//! What the handle and the thread share.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::peer::{Peer, Sighting};
use crate::status::Status;

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
