//! When this member proves itself by a beat: any statement on its own session, an empty one where nothing else was to be said. It
//! wakes nobody and takes no lock, and Postgres then knows how long the session has stood still (rule 12). Pure: time is a parameter.

use std::time::{Duration, Instant};

/// For this long after a flood was last seen no beats are promised. Nothing is said on the link in a flood, and it may come back.
const WITHHELD: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Beats {
    /// When the last statement was sent; `None` without a link.
    last: Option<Instant>,
    /// Until then there may be none, so none is promised.
    withheld_until: Option<Instant>,
}

impl Beats {
    pub(crate) fn handle_link_up(&mut self, now: Instant) {
        self.last = Some(now);
    }

    pub(crate) fn handle_link_down(&mut self) {
        self.last = None;
    }

    /// A statement that was sent then was answered.
    pub(crate) fn handle_statement(&mut self, sent: Instant) {
        self.last = self.last.map(|last| last.max(sent));
    }

    /// Nothing is said on the link now. Returns whether that is new.
    pub(crate) fn withhold(&mut self, now: Instant) -> bool {
        self.withheld_until.replace(now + WITHHELD).is_none()
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.withheld_until = self.withheld_until.filter(|&until| now < until);
    }

    /// Whether there is one at least every interval, so that it can be promised.
    pub(crate) fn are_kept(&self) -> bool {
        self.withheld_until.is_none()
    }

    /// When the next one is due, if there is to be one every `interval`.
    pub(crate) fn deadline(&self, interval: Duration) -> Option<Instant> {
        let last = self.last.filter(|_| self.are_kept());
        last.map(|last| last + interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn any_statement_is_one() {
        let now = Instant::now();
        let mut beats = Beats::default();
        assert_eq!(beats.deadline(INTERVAL), None, "there is no link");
        beats.handle_link_up(now);
        assert_eq!(beats.deadline(INTERVAL), Some(now + INTERVAL));
        beats.handle_statement(now + INTERVAL / 2);
        assert_eq!(
            beats.deadline(INTERVAL),
            Some(now + INTERVAL / 2 + INTERVAL)
        );
        beats.handle_link_down();
        beats.handle_statement(now + INTERVAL);
        assert_eq!(beats.deadline(INTERVAL), None);
    }

    #[test]
    fn none_is_promised_in_a_flood_and_for_a_minute() {
        let now = Instant::now();
        let mut beats = Beats::default();
        beats.handle_link_up(now);
        assert!(beats.withhold(now));
        assert!(!beats.withhold(now + INTERVAL));
        assert_eq!(beats.deadline(INTERVAL), None);
        let over = now + INTERVAL + WITHHELD;
        beats.handle_timeout(over - INTERVAL);
        assert!(!beats.are_kept());
        beats.handle_timeout(over);
        assert!(beats.are_kept());
        assert!(beats.deadline(INTERVAL).is_some());
    }
}
