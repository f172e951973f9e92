//! A member whose roster differs from those of two peers asks who is there, and compares the answers with what it knows (rule 11).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::{Kind, Roster};
use crate::core::digest::Digest;
use crate::core::presence::Presence;
use crate::core::roster_sync::ASK_ALL;
use crate::core::wire::{self, Announce, Pid};
use crate::event::Reason;
use crate::peer::{Incarnation, Tags};

/// What was known this long ago, and some round trips before, others may still be about to hear.
const UNDER_WAY: Duration = Duration::from_secs(3);

/// What two members must agree on before it is believed against what is known here.
const WITNESSES: usize = 2;

/// Each question asks for one answer, and there are three.
const MOST_ANSWERS: usize = ASK_ALL as usize;

/// A question for this reason, and what has been answered.
#[derive(Debug)]
pub(super) struct Review {
    began: Instant,
    answers: Vec<Answer>,
}

/// What one member answers.
#[derive(Debug)]
struct Answer {
    from: Pid,
    is_whole: bool,
    /// The peers that are there, as it says.
    listed: HashSet<Arc<str>>,
    /// What others are said of the same announcement as is known here.
    other_tags: HashMap<Arc<str>, Otherwise>,
}

/// The tags that a peer is said to have, by which announcement of which start.
#[derive(Debug, PartialEq, Eq)]
struct Otherwise {
    incarnation: Incarnation,
    seq: u64,
    tags: Tags,
}

impl Review {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            answers: Vec::new(),
        }
    }

    fn answer_of(&mut self, from: Pid) -> &mut Answer {
        let known = self.answers.iter().position(|answer| answer.from == from);
        if known.is_none() && self.answers.len() == MOST_ANSWERS {
            self.answers.remove(0);
        }
        let at = known.unwrap_or_else(|| {
            self.answers.push(Answer {
                from,
                is_whole: false,
                listed: HashSet::new(),
                other_tags: HashMap::new(),
            });
            self.answers.len() - 1
        });
        &mut self.answers[at]
    }

    fn whole(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| answer.is_whole)
    }

    /// Whether nobody lists this peer, and it was not heard since.
    fn is_unlisted(&self, entry: &Entry, missed: u32) -> bool {
        let heard = entry.since.max(entry.last_received(missed));
        // A peer that was not heard since the link came up has its grace period, and nobody was told of it.
        entry.peer.incarnation().is_some()
            && entry.confirmed
            && heard < self.began
            && self
                .whole()
                .all(|answer| !answer.listed.contains(entry.peer.name()))
    }
}

impl Roster {
    /// The members that are known here, this one included.
    pub(super) fn digest(&self) -> Digest {
        match self.presence.as_ref().and_then(Presence::fingerprint) {
            Some(own) => self.peers_digest.with(own),
            None => self.peers_digest,
        }
    }

    /// The members that are known here have changed.
    pub(super) fn note_digest(&mut self, now: Instant) {
        let digest = self.digest();
        if self.digests.push(now, digest) {
            // What others said before may be what is known now.
            self.doubt.stop();
        }
    }

    /// A peer says which members it knows.
    pub(super) fn compare(&mut self, now: Instant, name: &str, theirs: Option<Digest>) {
        let replaced = self.presence.as_ref().is_some_and(Presence::is_replaced);
        let (Some(theirs), Some(entry)) = (theirs, self.entries.get(name)) else {
            return;
        };
        // While it asks, it is known that they differ.
        if replaced || !self.sync.is_settled() || self.review.is_some() {
            return;
        }
        let round_trip = self.round_trip.twice();
        match self.digests.had(now, UNDER_WAY + round_trip, theirs) {
            Some(true) => self.doubt.handle_same(now),
            Some(false) => {
                let name = entry.peer.shared_name();
                let has_second = self.peers_digest.members > 1;
                self.doubt
                    .handle_different(now, &name, has_second, round_trip);
            }
            None => {}
        }
    }

    /// Asks anew, if that is due. What others do not know may be this member, so it announces itself, too.
    pub(super) fn begin_review(&mut self, now: Instant) {
        if self.doubt.poll(now) && self.sync.begin_review(now) {
            self.review = Some(Review::new(now));
            self.announce_soon(now);
        }
    }

    /// An answer names this peer.
    pub(super) fn review(&mut self, from: Pid, name: &str, announce: &Announce<'_>) {
        let (Some(review), Some(entry)) = (&mut self.review, self.entries.get(name)) else {
            return;
        };
        if !entry.standing.is_alive() {
            return;
        }
        let answer = review.answer_of(from);
        let name = entry.peer.shared_name();
        if entry.peer.incarnation() != Some(announce.incarnation) {
            return;
        }
        let same = announce.tags.same_as(entry.peer.all_tags());
        if !same && announce.seq == entry.seq {
            let otherwise = Otherwise {
                incarnation: announce.incarnation,
                seq: announce.seq,
                tags: announce.tags.to_tags(),
            };
            answer.other_tags.insert(Arc::clone(&name), otherwise);
        }
        answer.listed.insert(name);
    }

    /// The answer of this backend is whole. Returns whether another one is wanted.
    pub(super) fn conclude_review(&mut self, now: Instant, from: Pid) -> bool {
        let Some(mut review) = self.review.take() else {
            return false;
        };
        review.answer_of(from).is_whole = true;
        let missed = self.limits.missed;
        let unlisted: Vec<_> = self
            .alive()
            .filter(|entry| review.is_unlisted(entry, missed))
            .map(|entry| entry.peer.shared_name())
            .collect();
        let differs = review.whole().any(|answer| !answer.other_tags.is_empty());
        if review.whole().count() < WITNESSES {
            let wants_another = differs || !unlisted.is_empty();
            self.review = wants_another.then_some(review);
            return wants_another;
        }
        for name in unlisted {
            self.depart(now, &name, Reason::Expired);
        }
        let mut whole = review.answers.into_iter().filter(|answer| answer.is_whole);
        if let (Some(one), Some(other)) = (whole.next(), whole.next()) {
            for (name, otherwise) in one.other_tags {
                if other.other_tags.get(&name) == Some(&otherwise) {
                    self.correct_tags(now, &name, otherwise);
                }
            }
        }
        false
    }

    /// Takes the tags over that two say, unless the peer has left or was heard again since they were said.
    fn correct_tags(&mut self, now: Instant, name: &str, otherwise: Otherwise) {
        let still = |entry: &&mut Entry| {
            entry.standing.is_alive()
                && entry.peer.incarnation() == Some(otherwise.incarnation)
                && entry.seq == otherwise.seq
        };
        let Some(entry) = self.entries.get_mut(name).filter(still) else {
            return;
        };
        let peer = entry.peer.with_tags(otherwise.tags);
        self.count_out(now, name);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.peer = peer.clone();
        }
        self.count_in(now, name);
        self.changed(peer, Kind::Updated);
    }
}

impl Entry {
    /// What this peer adds to the digest of those who know it; `None` for a bare name.
    pub(super) fn own_fingerprint(&self) -> Option<u64> {
        let incarnation = self.peer.incarnation()?;
        let tags = wire::encode_tags(self.peer.all_tags());
        Some(wire::fingerprint(self.peer.name(), incarnation, &tags))
    }
}
