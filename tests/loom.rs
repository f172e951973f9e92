//! All orders of the steps by which the thread shows what it knows and the host looks at it, by [loom](https://docs.rs/loom).
//!
//! `src/host/published.rs` is compiled here over loom's primitives, so nothing else need be built for loom. Only the order of
//! steps is tried: the fences here order more than the accesses in the library alone. As many preemptions
//! are tried as `LOOM_MAX_PREEMPTIONS` says; a plain run tries four, CI six.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of the library, of which a part is used here"
)]

#[path = "../src/host/published.rs"]
mod published;

mod sync {
    use std::sync::atomic::Ordering as Order;

    pub use std::sync::atomic::Ordering;
    pub use std::sync::{PoisonError, TryLockError};

    pub use loom::hint::spin_loop;
    pub use loom::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};

    /// Sequentially consistent by fences: loom takes `SeqCst` for less than it is at an access, and not at a fence.
    #[derive(Debug)]
    pub struct AtomicUsize(loom::sync::atomic::AtomicUsize);

    impl AtomicUsize {
        pub fn new(value: usize) -> Self {
            Self(loom::sync::atomic::AtomicUsize::new(value))
        }

        pub fn load(&self, order: Order) -> usize {
            fenced(order, || self.0.load(Order::Acquire))
        }

        pub fn store(&self, value: usize, order: Order) {
            fenced(order, || self.0.store(value, Order::Release));
        }

        pub fn fetch_add(&self, value: usize, order: Order) -> usize {
            fenced(order, || self.0.fetch_add(value, Order::AcqRel))
        }

        pub fn fetch_sub(&self, value: usize, order: Order) -> usize {
            fenced(order, || self.0.fetch_sub(value, Order::AcqRel))
        }
    }

    fn fenced<T>(order: Order, access: impl FnOnce() -> T) -> T {
        assert_eq!(order, Order::SeqCst);
        loom::sync::atomic::fence(Order::SeqCst);
        let value = access();
        loom::sync::atomic::fence(Order::SeqCst);
        value
    }
}

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;
use published::Published;

/// Two numbers that are the same where they are whole. They are written and read one after the other, so that others may come
/// between.
struct View(AtomicU64, AtomicU64);

fn view(number: u64) -> View {
    View(AtomicU64::new(number), AtomicU64::new(number))
}

impl View {
    fn numbers(&self) -> (u64, u64) {
        (self.0.load(Relaxed), self.1.load(Relaxed))
    }

    fn is(&self, number: u64) -> bool {
        self.numbers() == (number, number)
    }
}

impl Default for View {
    fn default() -> Self {
        view(0)
    }
}

impl Clone for View {
    fn clone(&self) -> Self {
        view(self.0.load(Relaxed))
    }

    fn clone_from(&mut self, source: &Self) {
        let (one, other) = source.numbers();
        self.0.store(one, Relaxed);
        self.1.store(other, Relaxed);
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(4));
    builder.check(check);
}

#[test]
fn what_is_seen_is_whole_and_never_older_than_before() {
    model(|| {
        let published = Arc::new(Published::<View>::default());
        let writer = Arc::clone(&published);
        let writer = thread::spawn(move || {
            for number in 1..=5 {
                writer.show(&view(number));
            }
        });
        let mut last = 0;
        for _ in 0..2 {
            let (one, other) = published.look(View::numbers);
            assert_eq!(one, other, "it is whole");
            assert!(one >= last, "{one} after {last}");
            last = one;
        }
        writer.join().expect("no panic");
        assert_eq!(published.look(View::numbers).0, 5);
    });
}

#[test]
fn a_waiter_is_woken_by_what_it_waits_for() {
    model(|| {
        let published = Arc::new(Published::<View>::default());
        let waiter = Arc::clone(&published);
        // Loom finds a deadlock where it sleeps for ever.
        let waiter = thread::spawn(move || {
            let wanted = |view: &View| view.is(1).then_some(());
            waiter.wait(Duration::MAX, wanted, |_| false)
        });
        published.show(&view(1));
        assert_eq!(waiter.join().expect("no panic"), Some(()));
    });
}

#[test]
fn a_waiter_is_woken_by_the_end() {
    model(|| {
        let published = Arc::new(Published::<View>::default());
        let waiter = Arc::clone(&published);
        let waiter =
            thread::spawn(move || waiter.wait(Duration::MAX, |_| None::<()>, |view| view.is(2)));
        published.show(&view(1));
        published.show(&view(2));
        assert_eq!(waiter.join().expect("no panic"), None);
    });
}
