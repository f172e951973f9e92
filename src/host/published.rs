//! What one thread shows and all others may look at, at any moment, without ever waiting for it.
//!
//! A lock around the newest value (`Mutex<Arc<T>>`, or an `RwLock`) does not do. A busy machine may take the thread's core away
//! at any moment, and with it any lock that it holds, for tens of milliseconds: single calls of `peers()` took 10 to 25 ms
//! that way. So the thread writes into a slot that nobody is shown, and then shows that one. A reader finds a slot locked only
//! if another has been shown since, and looks there. The thread waits for a reader only if one has lost its core in each of the
//! hidden slots. With this the longest call in all tests of faults was held up for 0.5 ms.
//!
//! Its correctness rests on an order of steps that no test can force, so `tests/loom.rs` checks all orders. There
//! [`sync`](super::sync) is loom's.

use std::array;
use std::time::{Duration, Instant};

use super::sync::{
    AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError, RwLock, RwLockReadGuard,
    TryLockError, spin_loop,
};

/// One is shown, one is being written, and in the others a reader may have lost its core.
pub(crate) const SLOTS: usize = 4;

#[derive(Debug)]
pub(crate) struct Published<T> {
    pub(crate) slots: [RwLock<T>; SLOTS],
    /// The slot that is shown.
    pub(crate) shown: AtomicUsize,
    /// How many threads wait for a change.
    pub(crate) waiting: AtomicUsize,
    /// Held by those from their look until they wait.
    waits: Mutex<()>,
    changed: Condvar,
}

impl<T: Default> Default for Published<T> {
    fn default() -> Self {
        Self {
            slots: array::from_fn(|_| RwLock::new(T::default())),
            shown: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            waits: Mutex::new(()),
            changed: Condvar::new(),
        }
    }
}

impl<T: Clone> Published<T> {
    /// Looks at what is shown; more than once, if it changes meanwhile.
    pub(crate) fn look<S>(&self, look: impl Fn(&T) -> S) -> S {
        loop {
            let shown = self.shown.load(Ordering::SeqCst);
            if let Some(value) = reading(&self.slots[shown]) {
                let seen = look(&value);
                // What was written there since may not be shown yet, and who has seen it must not see an older one next.
                if self.shown.load(Ordering::SeqCst) == shown {
                    return seen;
                }
            }
            spin_loop();
        }
    }

    /// Shows this, and wakes those who wait for a change. Called by one thread alone.
    pub(crate) fn show(&self, value: &T) {
        let shown = self.shown.load(Ordering::SeqCst);
        let hidden = array::from_fn::<_, { SLOTS - 1 }, _>(|n| (shown + 1 + n) % SLOTS);
        let free = hidden
            .into_iter()
            .find_map(|at| Some((at, self.slots[at].try_write().ok()?)));
        // A reader has lost its core in each.
        let (at, mut slot) = free.unwrap_or_else(|| {
            let slot = &self.slots[hidden[0]];
            (
                hidden[0],
                slot.write().unwrap_or_else(PoisonError::into_inner),
            )
        });
        slot.clone_from(value);
        drop(slot);
        self.shown.store(at, Ordering::SeqCst);
        // A lock and a system call, on the way of every event to the host.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Those who have looked before this was shown wait by now.
            drop(self.waits());
            self.changed.notify_all();
        }
    }

    /// Waits until what is shown has what is wanted. `None` if it did not in time, or if `is_over` says that it never will.
    pub(crate) fn wait<S>(
        &self,
        timeout: Duration,
        wanted: impl Fn(&T) -> Option<S>,
        is_over: impl Fn(&T) -> bool,
    ) -> Option<S> {
        // A deadline too far for the clock is none.
        let deadline = Instant::now().checked_add(timeout);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _end = NoLongerWaiting(&self.waiting);
        let mut waits = self.waits();
        loop {
            let (found, over) = self.look(|value| (wanted(value), is_over(value)));
            if found.is_some() {
                return found;
            }
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() || over {
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

/// The value of a slot, at once; `None` if it is being written.
pub(crate) fn reading<T>(slot: &RwLock<T>) -> Option<RwLockReadGuard<'_, T>> {
    match slot.try_read() {
        Ok(value) => Some(value),
        Err(TryLockError::Poisoned(value)) => Some(value.into_inner()),
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
