//! Asking Postgres which sessions it no longer has: a process that was killed is known within seconds, however long the
//! interval between heartbeats. Pure: time is a parameter.
//!
//! A few members ask for all, without an election: the two oldest every two seconds, the third every eight, and some one of
//! the others about every four, should those three be dead. That is less than two checks a second in the whole cluster, also
//! while somebody is found missing all the time. A peer that is missing twice, with nothing heard in between, is gone, if
//! between the two lies the time within which it announced that it would be back. One that merely reconnects was heard by then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::wire::Pid;
use crate::jitter::Jitter;
use crate::peer::Incarnation;

/// How often the two oldest members ask: two, since one may be among the dead. With
/// the time in which a peer announces that it would be back, it bounds how late a death is known.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often the third oldest asks.
const THIRD: Duration = Duration::from_secs(8);

/// How often one of all others asks, on average.
const OTHERS: Duration = Duration::from_secs(4);

/// When to ask, and which peers were missing.
#[derive(Debug, Default)]
pub(crate) struct SessionCheck {
    /// When to ask next.
    next: Option<Instant>,
    /// The peers that were missing, by name, and by when each is back or gone.
    suspects: HashMap<Arc<str>, Instant>,
}

/// Where a member stands among those that check sessions. It decides how often this one asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rank {
    /// How many are older; with [`SessionCheck::OLDER`] of them, how many more does not matter.
    pub(crate) older: usize,
    pub(crate) members: usize,
}

impl SessionCheck {
    /// With at least this many older members it does not matter how many there are.
    pub(crate) const OLDER: usize = 3;

    /// When to ask next; `None` if that does not fall to this member.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Nothing that was found holds any more.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// The next check comes no later than this rank demands.
    pub(crate) fn schedule(&mut self, now: Instant, rank: Rank, jitter: &mut Jitter) {
        if rank.older < Self::OLDER || self.next.is_none() {
            let due = now + rank.interval(jitter);
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
        }
    }

    /// The check that was due is made now.
    pub(crate) fn restart(&mut self, now: Instant, rank: Rank, jitter: &mut Jitter) {
        self.next = Some(now + rank.interval(jitter));
    }

    /// Whether the two oldest members are others, and one of them is there: it will see which sessions are gone.
    pub(crate) fn others_look(
        older: impl Iterator<Item = (Incarnation, Pid)>,
        missing: &HashSet<Pid>,
    ) -> bool {
        let mut older: Vec<_> = older.collect();
        older.sort_unstable();
        let mut oldest = older.iter().take(2);
        older.len() >= 2 && oldest.any(|(_, pid)| !missing.contains(pid))
    }

    /// This peer, which would be back within that time, was missing when Postgres was asked at `asked`. Returns whether it is
    /// gone.
    pub(crate) fn handle_missing(
        &mut self,
        asked: Instant,
        name: &Arc<str>,
        back: Duration,
    ) -> bool {
        let suspect = self
            .suspects
            .entry(Arc::clone(name))
            .or_insert(asked + back);
        let gone = asked >= *suspect;
        if gone {
            self.suspects.remove(name);
        }
        gone
    }

    /// Asks again as soon as that can confirm that a peer is gone.
    pub(crate) fn confirm(&mut self) {
        if let Some(&first) = self.suspects.values().min() {
            self.next = self.next.map(|next| next.min(first));
        }
    }

    /// This peer was heard, has left, or was there when Postgres was asked.
    pub(crate) fn clear(&mut self, name: &str) {
        if !self.suspects.is_empty() {
            self.suspects.remove(name);
        }
    }

    /// The names of the peers that were missing.
    pub(crate) fn suspects(&self) -> Vec<Arc<str>> {
        self.suspects.keys().cloned().collect()
    }
}

impl Rank {
    /// How long from one check to the next.
    fn interval(self, jitter: &mut Jitter) -> Duration {
        match self.older {
            0 | 1 => INTERVAL,
            2 => THIRD,
            // Twice as far apart at the most as on average: not in step, so that one of them asks soon at any time.
            _ => {
                let members = u32::try_from(self.members).unwrap_or(u32::MAX);
                jitter.between(0.0, OTHERS * 2 * members)
            }
        }
    }
}
