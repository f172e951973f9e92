//! What the handle and the thread share.
//!
//! Whoever looks at what the thread shows never waits for it, though a busy machine may take the thread's core away at any
//! moment, and with it any lock that it holds, for tens of milliseconds. So it writes into a slot that nobody is shown, and
//! then shows that one: a reader finds a slot locked only if another has been shown since, and looks there. The thread waits
//! for a reader only if one has lost its core in each of the hidden slots.

use std::array;
use std::collections::HashMap;
use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError,
};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::host::directory::Directory;
use crate::peer::{Peer, Sighting};
use crate::status::Status;

/// One is shown, one is being written, and in the others a reader may have lost its core.
const SLOTS: usize = 4;

/// Where the handle and the thread meet. Neither holds a lock while it waits for anything else.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    requests: Mutex<Requests>,
    views: [RwLock<View>; SLOTS],
    /// The one that is shown.
    shown: AtomicUsize,
    /// How many threads of the host wait for a change.
    waiting: AtomicUsize,
    /// Held by those from their look at the view until they wait.
    waits: Mutex<()>,
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
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) peers: Arc<Directory>,
    pub(crate) status: Status,
    /// The thread has ended: nothing changes any more.
    ended: bool,
}

impl Shared {
    pub(crate) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is shown; more than once, if it changes meanwhile.
    pub(crate) fn look<T>(&self, look: impl Fn(&View) -> T) -> T {
        loop {
            let shown = self.shown.load(Ordering::SeqCst);
            if let Some(view) = reading(&self.views[shown]) {
                let seen = look(&view);
                // What was written there since may not be shown yet, and who has seen it must not see an older one next.
                if self.shown.load(Ordering::SeqCst) == shown {
                    return seen;
                }
            }
            hint::spin_loop();
        }
    }

    /// Shows this to the host, and wakes those who wait for a change. By the thread alone.
    pub(crate) fn show(&self, view: &View) {
        let shown = self.shown.load(Ordering::SeqCst);
        let hidden = array::from_fn::<_, { SLOTS - 1 }, _>(|n| (shown + 1 + n) % SLOTS);
        let free = hidden
            .into_iter()
            .find_map(|at| Some((at, self.views[at].try_write().ok()?)));
        // A reader has lost its core in each.
        let (at, mut slot) = free.unwrap_or_else(|| {
            let slot = &self.views[hidden[0]];
            (
                hidden[0],
                slot.write().unwrap_or_else(PoisonError::into_inner),
            )
        });
        slot.clone_from(view);
        drop(slot);
        self.shown.store(at, Ordering::SeqCst);
        // A lock and a system call, on the way of every event to the host.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Whoever has looked before this was shown waits by now.
            drop(self.waits());
            self.changed.notify_all();
        }
    }

    /// Whether the thread has ended: by a panic, where nobody has left.
    pub(crate) fn has_ended(&self) -> bool {
        self.look(|view| view.ended)
    }

    /// The thread ends, perhaps by a panic.
    pub(crate) fn end(&self) {
        let mut view = self.look(View::clone);
        view.ended = true;
        view.status.online = false;
        self.show(&view);
        self.requests().sightings = None;
    }

    /// Waits until the view has what is wanted; `None` if it did not in time, or never will.
    pub(crate) fn wait<T>(
        &self,
        timeout: Duration,
        wanted: impl Fn(&View) -> Option<T>,
    ) -> Option<T> {
        // A deadline too far for the clock is none.
        let deadline = Instant::now().checked_add(timeout);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _end = NoLongerWaiting(&self.waiting);
        let mut waits = self.waits();
        loop {
            let (found, ended) = self.look(|view| (wanted(view), view.ended));
            if found.is_some() {
                return found;
            }
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() || ended {
                return None;
            }
            let woken = self.changed.wait_timeout(waits, left);
            waits = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn waits(&self) -> MutexGuard<'_, ()> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At once; `None` if it is being written.
fn reading(slot: &RwLock<View>) -> Option<RwLockReadGuard<'_, View>> {
    match slot.try_read() {
        Ok(view) => Some(view),
        Err(TryLockError::Poisoned(view)) => Some(view.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// However the wait ends.
struct NoLongerWaiting<'a>(&'a AtomicUsize);

impl Drop for NoLongerWaiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Tags;
    use std::cell::Cell;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    fn peer(n: u64) -> Peer {
        Peer::new(format!("p{n}").into(), None, Tags::default())
    }

    /// A view that was heard of so many times, of as many peers.
    fn view(heard: u64) -> View {
        let mut view = View::default();
        view.status.heard = heard;
        (0..heard).for_each(|n| Arc::make_mut(&mut view.peers).put(&peer(n)));
        view
    }

    #[test]
    fn a_slow_reader_delays_nobody_while_a_slot_is_left() {
        let shared = Shared::default();
        let mut readers = Vec::new();
        for heard in 1..SLOTS as u64 {
            shared.show(&view(heard));
            readers
                .push(reading(&shared.views[shared.shown.load(Ordering::SeqCst)]).expect("free"));
        }
        for heard in 4..20 {
            shared.show(&view(heard));
            assert_eq!(shared.look(|view| view.status.heard), heard);
            // There is always one more; the last of them must be free, or it waits.
            readers.pop();
        }
    }

    #[test]
    fn whoever_writes_for_long_holds_nobody_up() {
        let shared = Shared::default();
        shared.show(&view(1));
        let shown = shared.shown.load(Ordering::SeqCst);
        let hidden = (0..SLOTS).filter(|&at| at != shown);
        let _writing: Vec<_> = hidden.map(|at| shared.views[at].write()).collect();
        assert_eq!(shared.look(|view| view.status.heard), 1);
        assert!(
            shared
                .wait(Duration::from_millis(1), |_| None::<()>)
                .is_none()
        );
    }

    #[test]
    fn a_writer_waits_while_all_hidden_slots_are_read() {
        let shared = Shared::default();
        let shown = shared.shown.load(Ordering::SeqCst);
        let hidden = (0..SLOTS).filter(|&at| at != shown);
        let readers: Vec<_> = hidden.map(|at| reading(&shared.views[at])).collect();
        thread::scope(|scope| {
            let writer = scope.spawn(|| shared.show(&view(1)));
            let waits = Instant::now() + Duration::from_millis(20);
            while Instant::now() < waits {
                assert_eq!(shared.look(|view| view.status.heard), 0);
            }
            assert!(!writer.is_finished());
            drop(readers);
        });
        assert_eq!(shared.look(|view| view.status.heard), 1);
    }

    #[test]
    fn what_changed_under_a_look_is_looked_at_anew() {
        let shared = Shared::default();
        let looks = Cell::new(0);
        let seen = shared.look(|view| {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                shared.show(&self::view(1));
            }
            view.status.heard
        });
        assert_eq!((seen, looks.get()), (1, 2));
    }

    #[test]
    fn what_is_seen_is_whole_and_never_older_than_before() {
        const VIEWS: u64 = 2_000;
        let shared = Shared::default();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < VIEWS {
                        let seen = shared.look(View::clone);
                        assert_eq!(seen.status.peers, seen.peers.len());
                        assert!(
                            seen.status.heard >= last,
                            "{} after {last}",
                            seen.status.heard
                        );
                        last = seen.status.heard;
                    }
                });
            }
            let mut view = View::default();
            for heard in 1..=VIEWS {
                let peers = Arc::make_mut(&mut view.peers);
                peers.put(&peer(heard % 7));
                peers.remove(&format!("p{}", heard % 5));
                view.status.heard = heard;
                view.status.peers = view.peers.len();
                shared.show(&view);
            }
        });
    }

    #[test]
    fn waiting_ends_with_the_condition_or_the_thread() {
        const ROUNDS: u64 = 20_000;
        const LONG: Duration = Duration::from_secs(10);
        let shared = Shared::default();
        let heard = AtomicU64::new(0);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                for round in 1..=ROUNDS {
                    let wanted = |view: &View| (view.status.heard == round).then_some(());
                    let start = Instant::now();
                    assert_eq!(shared.wait(LONG, wanted), Some(()));
                    assert!(
                        start.elapsed() < LONG / 2,
                        "it was not woken in round {round}"
                    );
                    heard.store(round, Ordering::SeqCst);
                }
            });
            let mut view = View::default();
            for round in 1..=ROUNDS {
                view.status.heard = round;
                shared.show(&view);
                while heard.load(Ordering::SeqCst) < round && !waiter.is_finished() {
                    hint::spin_loop();
                }
                // The next comes at any moment of the waiter's way back to its wait.
                (0..3 * (round % 97)).for_each(|_| hint::spin_loop());
            }
        });
        thread::scope(|scope| {
            let waiter = scope.spawn(|| shared.wait(Duration::MAX, |_| None::<()>));
            shared.end();
            assert_eq!(waiter.join().expect("no panic"), None);
        });
        assert_eq!(shared.waiting.into_inner(), 0);
    }
}
