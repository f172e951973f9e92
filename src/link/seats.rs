//! How many sessions of a participant there are at a server: never more than three, however Postgres, the network or a lock
//! hangs. A server has room for a hundred by default, and they are the application's.
//!
//! The link has one, the proof that it works takes another for a moment, and so does an announcement aside or a wake-up. A
//! session that hangs keeps its own. A login that hangs is no session yet: it takes its seat when it is through, or gives up.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgres::Client;

use super::targets::Place;
use crate::error::{Error, Kind, Result};

/// The most sessions of a participant at a server.
const SEATS: usize = 3;

/// The seats of one participant; shared by all who open its connections.
#[derive(Debug, Default)]
pub(super) struct Seats {
    /// Where each session leads; `None` where a closure of the host's opened it.
    taken: Mutex<Vec<Option<Place>>>,
    freed: Condvar,
}

/// One of the seats, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    place: Option<Place>,
}

/// A client that has one. Its session ends first.
pub(super) struct Seated {
    client: Client,
    _seat: Seat,
}

impl Seated {
    pub(super) fn new(client: Client, seat: Seat) -> Self {
        Self {
            client,
            _seat: seat,
        }
    }
}

impl Deref for Seated {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Seated {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Seats {
    /// Takes a seat, if one is free within `wait`.
    pub(super) fn take(self: &Arc<Self>, place: Option<Place>, wait: Duration) -> Result<Seat> {
        let is_full = |taken: &mut Vec<_>| taken.iter().filter(|it| **it == place).count() >= SEATS;
        let waited = self.freed.wait_timeout_while(self.taken(), wait, is_full);
        let (mut taken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(Error::new(
                Kind::Link,
                format!("no further session is opened while {SEATS} are open or hang"),
            ));
        }
        taken.push(place);
        Ok(Seat {
            seats: Arc::clone(self),
            place,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Option<Place>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(at) = taken.iter().position(|it| *it == self.place) {
            taken.swap_remove(at);
        }
        self.seats.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_fourth_session_waits_until_one_has_ended() {
        let seats = Arc::new(Seats::default());
        let take = |wait| seats.take(None, wait);
        let [first, ..] = [(); SEATS].map(|()| take(Duration::ZERO).expect("a seat"));
        thread::scope(|scope| {
            let fourth = scope.spawn(|| take(WAIT).map(drop));
            drop(first);
            fourth
                .join()
                .expect("no panic")
                .expect("the seat of the first");
        });
    }

    #[test]
    fn while_all_hang_there_is_no_other() {
        let seats = Arc::new(Seats::default());
        let hung = [(); SEATS].map(|()| seats.take(None, Duration::ZERO).expect("a seat"));
        for wait in [Duration::ZERO, Duration::from_millis(20)] {
            let error = seats.take(None, wait).expect_err("no seat");
            assert!(error.to_string().contains("3 are open or hang"), "{error}");
        }
        drop(hung);
        seats.take(None, Duration::ZERO).expect("a seat");
    }

    #[test]
    fn each_server_has_its_own() {
        let seats = Arc::new(Seats::default());
        let places = [Place::of_host(0), Place::of_host(1)].map(Some);
        let _hung = [(); SEATS].map(|()| seats.take(places[0], Duration::ZERO).expect("a seat"));
        assert!(seats.take(places[0], Duration::ZERO).is_err());
        seats.take(places[1], Duration::ZERO).expect("a seat");
    }
}
