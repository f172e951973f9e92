//! When to look for peers that are overdue.
//!
//! There is no timer for each peer: a look at all of them, when the first may be overdue, finds who is. Hearing a peer only
//! moves the end of its grace period, so where peers are heard in time, a look is due about once in two of their intervals.

use std::time::{Duration, Instant};

/// Looks are at least this far apart for each peer that is looked at. That is some hundred times of what a look takes, so
/// that forged peers, which expire at once, cannot make it take long. A peer among ten thousand may expire 10 ms late.
const SPACING: Duration = Duration::from_micros(1);

#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// Nobody expires before then; `None` if there is nobody.
    next: Option<Instant>,
    /// No look before then.
    rest_until: Option<Instant>,
}

impl Expiry {
    /// When to look at all peers.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
            .max(self.rest_until.filter(|_| self.next.is_some()))
    }

    /// A peer expires then, if it is not heard before.
    pub(super) fn expect(&mut self, until: Instant) {
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
    }

    /// All peers are looked at now. To be told of each that stays when it expires.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// All of this many peers were looked at.
    pub(super) fn rest(&mut self, now: Instant, peers: usize) {
        let peers = u32::try_from(peers).unwrap_or(u32::MAX);
        self.rest_until = Some(now + SPACING * peers);
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn is_expected(&self, until: Instant) -> bool {
        self.next.is_some_and(|next| next <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_expire_at_once_cannot_force_frequent_looks() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let mut expiry = Expiry::default();
        expiry.rest(now, 10_000);
        assert_eq!(expiry.deadline(), None, "there is nobody to look for");
        expiry.expect(after(500));
        assert_eq!(expiry.deadline(), Some(after(500)));
        expiry.expect(after(1));
        assert_eq!(expiry.deadline(), Some(after(10)));
        expiry.restart();
        expiry.expect(after(1));
        assert_eq!(expiry.deadline(), Some(after(1)), "there was no look");
    }
}
