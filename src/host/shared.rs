//! Where the handle and the thread meet: what the thread shows, and what the host asks of it. Why a `Mutex<Arc<..>>` does not do
//! for what is shown, [`published`](super::published) says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::directory::Directory;
use super::published::Published;
use crate::peer::{Peer, PeerInfo};
use crate::status::Status;

/// Where the handle and the thread meet. Neither holds a lock while it waits for anything else.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    requests: Mutex<Requests>,
    published: Published<View>,
}

/// What the host asks of the thread. Bounded: each kind holds what is asked, not how often.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Peers that the host's own connection to broke, by name.
    pub(crate) unreachable: HashMap<String, Peer>,
    /// Tags to announce from now on, as they go into an announcement.
    pub(crate) tags: Option<String>,
    /// Where to tell what is known of each peer.
    pub(crate) peer_infos: Option<Sender<Vec<PeerInfo>>>,
    pub(crate) leave: bool,
    /// The thread has ended: nobody takes what is asked.
    pub(crate) ended: bool,
    /// The thread may wait for long: who asks for something wakes it.
    pub(crate) asleep: bool,
    /// Somebody is about to wake it.
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
        self.published.look(look)
    }

    /// Shows this to the host, and wakes those who wait for a change. Called by the thread alone.
    pub(crate) fn show(&self, view: &View) {
        self.published.show(view);
    }

    /// Whether the thread has ended: by a panic, or since the host left.
    pub(crate) fn has_ended(&self) -> bool {
        self.look(|view| view.ended)
    }

    /// The thread ends, perhaps by a panic.
    pub(crate) fn end(&self) {
        let mut view = self.look(View::clone);
        view.ended = true;
        view.status.online = false;
        self.show(&view);
        *self.requests() = Requests {
            ended: true,
            ..Requests::default()
        };
    }

    /// Waits until the view has what is wanted; `None` if it did not in time, or never will.
    pub(crate) fn wait<T>(
        &self,
        timeout: Duration,
        wanted: impl Fn(&View) -> Option<T>,
    ) -> Option<T> {
        self.published.wait(timeout, wanted, |view| view.ended)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hint;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::host::published::{SLOTS, reading};
    use crate::peer::Tags;

    fn peer(n: u64) -> Peer {
        Peer::new(format!("p{n}").into(), None, Tags::default())
    }

    /// A view that was published this many times, with as many peers.
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
            readers.push(
                reading(&shared.published.slots[shared.published.shown.load(Ordering::SeqCst)])
                    .expect("free"),
            );
        }
        for heard in 4..20 {
            shared.show(&view(heard));
            assert_eq!(shared.look(|view| view.status.heard), heard);
            // There is always one more; the last of them must be free, or it waits.
            readers.pop();
        }
    }

    #[test]
    fn a_long_write_holds_nobody_up() {
        let shared = Shared::default();
        shared.show(&view(1));
        let shown = shared.published.shown.load(Ordering::SeqCst);
        let hidden = (0..SLOTS).filter(|&at| at != shown);
        let _writing: Vec<_> = hidden
            .map(|at| shared.published.slots[at].write())
            .collect();
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
        let shown = shared.published.shown.load(Ordering::SeqCst);
        let hidden = (0..SLOTS).filter(|&at| at != shown);
        let readers: Vec<_> = hidden
            .map(|at| reading(&shared.published.slots[at]))
            .collect();
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
        assert_eq!(shared.published.waiting.into_inner(), 0);
    }
}
