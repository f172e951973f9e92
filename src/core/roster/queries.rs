//! The queries of others that this participant has to answer (rule 6).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Roster;
use crate::core::roster_sync::ASK_ALL;
use crate::core::wire::{self, Announce, Body, Inbox, Message, WireTags};

/// This many queries may wait for an answer.
const MAX_WAITING: usize = 100;

/// The inboxes that await an answer from us, and since when.
#[derive(Debug, Default)]
pub(super) struct Queries(VecDeque<(Instant, Inbox)>);

impl Queries {
    /// Whether a query from there can be taken: there is room, and none from there waits.
    pub(super) fn takes(&self, inbox: Inbox) -> bool {
        self.0.len() < MAX_WAITING && self.0.iter().all(|(_, waiting)| *waiting != inbox)
    }

    pub(super) fn push(&mut self, now: Instant, inbox: Inbox) {
        self.0.push_back((now, inbox));
    }

    pub(super) fn pop(&mut self) -> Option<Inbox> {
        self.0.pop_front().map(|(_, inbox)| inbox)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Queries are to be answered at once.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|(since, _)| *since)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn is_bounded(&self) -> bool {
        self.0.len() <= MAX_WAITING
    }
}

impl Roster {
    /// Somebody asks who is there (rule 6). One member answers, and all pick the same, by hash.
    pub(super) fn handle_query(&mut self, now: Instant, asker: &str, inbox: Inbox, attempt: u64) {
        if attempt >= ASK_ALL {
            self.sync.handle_query_to_all(now);
            return self.announce_soon(now);
        }
        if !self.sync.is_settled() {
            // One that is new itself may be unknown to those who answer. One that asks again has heard it.
            if attempt == 0 {
                self.announce_soon(now);
            }
            return;
        }
        if self.queries.takes(inbox) && self.is_ranked(attempt, asker, inbox) {
            self.queries.push(now, inbox);
        }
    }

    /// Whether this member answers the attempt of that number: whether exactly as many peers come before it.
    pub(super) fn is_ranked(&self, rank: u64, asker: &str, inbox: Inbox) -> bool {
        let Some(presence) = self.presence.as_ref().filter(|presence| presence.speaks()) else {
            return false;
        };
        let Some(incarnation) = presence.incarnation() else {
            return false;
        };
        let own = inbox.rank(presence.name(), incarnation);
        let before = self.alive().filter(|entry| {
            let name = entry.peer.name();
            let known = entry.peer.incarnation().filter(|_| entry.confirmed);
            name != asker && known.is_some_and(|known| inbox.rank(name, known) < own)
        });
        // Most find somebody before them soon.
        let more_than_rank = rank as usize + 1;
        before.take(more_than_rank).count() == rank as usize
    }

    /// The payloads that answer the next query, and the inbox to which they are to be sent.
    pub(crate) fn poll_answer(&mut self, now: Instant) -> Option<(Inbox, Vec<String>)> {
        let inbox = self.queries.pop()?;
        let presence = self
            .presence
            .as_ref()
            .filter(|presence| presence.speaks())?;
        let encoded: Vec<_> = self
            .alive()
            .filter(|entry| entry.confirmed)
            .filter_map(|entry| Some((entry, entry.peer.incarnation()?)))
            .map(|(entry, incarnation)| {
                (entry, incarnation, wire::encode_tags(entry.peer.all_tags()))
            })
            .collect();
        let peers = encoded.iter().map(|(entry, incarnation, tags)| Message {
            name: entry.peer.name().into(),
            body: Body::Announce(Announce {
                hello: false,
                incarnation: *incarnation,
                seq: entry.seq,
                due: Duration::from_millis(entry.due.into()),
                pid: entry.pid,
                inbox: None,
                age: Some(entry.age(now, self.limits.missed)),
                back: entry.back(),
                tags: WireTags::encoded(tags),
            }),
        });
        let everybody = peers.chain([presence.last_announcement()]);
        Some((inbox, wire::encode_roster(everybody)))
    }
}
