//! How many sessions of a participant there are at a server: never more than three, however Postgres, the network or a lock
//! hangs. A server has room for a hundred by default, and they are the application's.
//!
//! The link has one, the proof that it works takes another for a moment, and so does an announcement aside or a wake-up. What
//! hangs keeps its seat, and so does a login that hangs, until it fails or is through.

use std::error::Error as StdError;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgres::{Client, Statement};

use super::sql::Wording;

/// The most sessions of a participant at a server.
pub(crate) const SEATS: usize = 3;

/// A server, as far as it can be told from others: a host of the connection string, whatever its addresses are. `None`: wherever
/// a closure of the host's leads to.
pub(super) type At = Option<usize>;

/// The seats of one participant; shared by all who open its connections.
#[derive(Debug, Default)]
pub(super) struct Seats {
    /// Where each session is.
    taken: Mutex<Vec<At>>,
    freed: Condvar,
}

/// One of the seats, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    at: At,
}

/// A client that has one, and how things are said to it. Its session ends first.
pub(super) struct Seated {
    client: Client,
    pub(super) wording: Wording,
    /// The question for [sessions](super::sql::sessions), once it was asked.
    pub(super) sessions: Option<Statement>,
    _seat: Seat,
}

/// Why none was taken.
#[derive(Debug)]
pub(super) struct NoSeat;

impl Seats {
    /// Takes one seat, if within `wait` there are this many free ones.
    pub(super) fn take(
        self: &Arc<Self>,
        at: At,
        free: usize,
        wait: Duration,
    ) -> Result<Seat, NoSeat> {
        let is_full =
            |taken: &mut Vec<At>| taken.iter().filter(|it| **it == at).count() + free > SEATS;
        let waited = self.freed.wait_timeout_while(self.taken(), wait, is_full);
        let (mut taken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(NoSeat);
        }
        taken.push(at);
        Ok(Seat {
            seats: Arc::clone(self),
            at,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<At>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(index) = taken.iter().position(|it| *it == self.at) {
            taken.swap_remove(index);
        }
        self.seats.freed.notify_all();
    }
}

impl Seated {
    pub(super) fn new(client: Client, seat: Seat) -> Self {
        Self {
            client,
            wording: Wording::default(),
            sessions: None,
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

impl fmt::Display for NoSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SEATS} of its sessions are there or hang there, and no further one is opened until one of them has ended"
        )
    }
}

impl StdError for NoSeat {}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn take(seats: &Arc<Seats>, at: usize, free: usize) -> Result<Seat, NoSeat> {
        seats.take(Some(at), free, Duration::ZERO)
    }

    fn full(at: usize) -> (Arc<Seats>, Vec<Seat>) {
        let seats = Arc::default();
        let taken = (0..SEATS).map(|_| take(&seats, at, 1).expect("a seat"));
        let taken = taken.collect();
        (seats, taken)
    }

    #[test]
    fn a_fourth_session_waits_until_one_has_ended() {
        let (seats, mut taken) = full(0);
        assert!(seats.take(Some(0), 1, Duration::from_millis(20)).is_err());
        thread::scope(|scope| {
            let fourth = scope.spawn(|| seats.take(Some(0), 1, LONG).map(drop));
            thread::sleep(Duration::from_millis(20));
            assert!(!fourth.is_finished());
            taken.pop();
            fourth.join().expect("no panic").expect("a seat");
        });
    }

    #[test]
    fn an_attempt_that_needs_two_seats_leaves_one_for_its_proof() {
        let seats = Arc::default();
        let first = take(&seats, 0, 2).expect("a seat");
        let _second = take(&seats, 0, 2).expect("a seat");
        assert!(take(&seats, 0, 2).is_err());
        let proof = take(&seats, 0, 1).expect("a seat");
        drop((first, proof));
        take(&seats, 0, 2).expect("a seat");
    }

    #[test]
    fn each_server_has_its_own() {
        let (seats, _taken) = full(0);
        assert!(take(&seats, 0, 1).is_err());
        take(&seats, 1, 1).expect("a seat");
        seats.take(None, 1, Duration::ZERO).expect("a seat");
    }
}
