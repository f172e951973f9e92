//! The queries of others that this participant has to answer (rule 6).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Roster;
use crate::core::roster_sync::ASK_ALL;
use crate::core::wire::{self, Announce, Body, Inbox, Message, WireTags};

/// This many queries may wait for an answer.
const MAX_WAITING: usize = 100;

/// The bytes of an answer that go out in one statement, signatures included. A statement must be done within a bounded time,
/// and an answer may have any length. Between two pieces there is time for everything else.
const PIECE: usize = 16_000;

/// The inboxes that await an answer from us.
#[derive(Debug, Default)]
pub(super) struct Queries {
    /// Those that have got nothing yet, and since when.
    waiting: VecDeque<(Instant, Inbox)>,
    /// The answer that is under way. There is one at a time, since it may be as large as the roster.
    answer: Option<Answer>,
}

/// What is still to be sent of an answer.
#[derive(Debug)]
struct Answer {
    asked: Instant,
    inbox: Inbox,
    payloads: VecDeque<String>,
}

/// As much of an answer as goes out in one statement.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) inbox: Inbox,
    pub(crate) payloads: Vec<String>,
    /// Whether the answer ends with it.
    pub(crate) is_last: bool,
}

impl Queries {
    /// Whether a query from there can be taken: there is room, and none from there waits or is being answered.
    pub(super) fn takes(&self, inbox: Inbox) -> bool {
        let mut waiting = self.waiting.iter().map(|(_, inbox)| *inbox);
        let answered = self.answer.as_ref().map(|answer| answer.inbox);
        self.waiting.len() < MAX_WAITING
            && answered != Some(inbox)
            && waiting.all(|other| other != inbox)
    }

    pub(super) fn push(&mut self, now: Instant, inbox: Inbox) {
        self.waiting.push_back((now, inbox));
    }

    /// Who is answered there asks anew. It may have missed a part, so what is left of the answer is of no use.
    fn restart(&mut self, inbox: Inbox) {
        self.answer.take_if(|answer| answer.inbox == inbox);
    }

    /// The next piece of the answer that is under way.
    fn pop_piece(&mut self) -> Option<Piece> {
        let answer = self.answer.as_mut()?;
        let inbox = answer.inbox;
        let (mut payloads, mut bytes) = (Vec::new(), 0);
        while let Some(payload) = answer.payloads.front() {
            bytes += payload.len() + wire::LONGEST_SIGNATURE;
            if bytes > PIECE && !payloads.is_empty() {
                break;
            }
            payloads.extend(answer.payloads.pop_front());
        }
        let is_last = answer.payloads.is_empty();
        self.answer.take_if(|_| is_last);
        Some(Piece {
            inbox,
            payloads,
            is_last,
        })
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Queries are to be answered at once.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let under_way = self.answer.as_ref().map(|answer| answer.asked);
        under_way.or_else(|| self.waiting.front().map(|(since, _)| *since))
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn is_bounded(&self) -> bool {
        self.waiting.len() <= MAX_WAITING
    }
}

impl Roster {
    /// Somebody asks who is there (rule 6). One member answers, and all pick the same, by hash.
    pub(super) fn handle_query(&mut self, now: Instant, asker: &str, inbox: Inbox, attempt: u64) {
        if attempt >= ASK_ALL {
            self.sync.handle_query_to_all(now);
            return self.announce_soon(now);
        }
        if attempt == 0 {
            self.queries.restart(inbox);
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

    /// The next piece of an answer, to be sent in one statement. The next question is answered after the last piece of the one
    /// before.
    pub(crate) fn poll_answer(&mut self, now: Instant) -> Option<Piece> {
        if self.queries.answer.is_none() {
            let (asked, inbox) = self.queries.waiting.pop_front()?;
            let payloads = self.write_answer(now)?.into();
            self.queries.answer = Some(Answer {
                asked,
                inbox,
                payloads,
            });
        }
        self.queries.pop_piece()
    }

    /// The payloads that say who is there now, all written at once, since each says how many there are.
    fn write_answer(&self, now: Instant) -> Option<Vec<String>> {
        let presence = self.presence.as_ref().filter(|p| p.speaks())?;
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
        Some(wire::encode_roster(everybody))
    }
}
