//! What the host program takes from the thread, and what it asks of it.
//!
//! [`delivery`] takes each change to the host: [`directory`] has the peers as the host sees them, [`outbox`] the events that it has
//! not taken yet, at most one for each peer. [`shared`] is where the handle and the thread meet, over what is [`published`]. Nothing
//! here waits for Postgres, and the host waits for nothing here but the thread's next look. It may use what the
//! [roster](crate::core::roster) tells of changes, and the nouns that the host sees, and never the link.

pub(crate) mod delivery;
pub(crate) mod directory;
pub(crate) mod outbox;
mod published;
pub(crate) mod shared;

/// What [`published`] is made of. The model in `tests/loom.rs` puts loom's in its place.
mod sync {
    pub(super) use std::hint::spin_loop;
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering};
    pub(super) use std::sync::{
        Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError,
    };
}
