//! The queries of others that this participant has to answer (rule 6).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Roster;
use super::departures::ON_ITS_WAY;
use crate::core::roster_sync::ASK_ALL;
use crate::core::wire::{self, Announce, Body, Inbox, Message, Question, WireTags};

/// This many queries may wait for an answer.
const MAX_WAITING: usize = 100;

/// The bytes that go out in one statement, signatures included; what is said to all may have one payload more. A statement must be done
/// within a bounded time, and an answer, or what there is to tell of others, may have any length. Between two statements there is time
/// for everything else.
pub(crate) const PIECE: usize = 16_000;

/// The inboxes that await an answer from us.
#[derive(Debug, Default)]
pub(super) struct Queries {
    /// The questions to which nothing was sent yet, and since when.
    waiting: VecDeque<(Instant, Question)>,
    /// The answer that is under way. There is one at a time, since it may be as large as the roster.
    answer: Option<Answer>,
}

/// What is to be said to all in one statement.
pub(crate) struct Announcements {
    pub(crate) payloads: Vec<String>,
    /// The places of those that announce this member.
    pub(crate) own: Vec<usize>,
}

/// What is still to be sent of an answer.
#[derive(Debug)]
struct Answer {
    asked: Instant,
    question: Question,
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
    /// Takes a question, if there is room and it is not being answered. One from there that waits gives way to it.
    pub(super) fn push(&mut self, now: Instant, question: Question) {
        let from_there = |other: Question| other.inbox == question.inbox;
        let mut waiting = self.waiting.iter_mut();
        if let Some((_, other)) = waiting.find(|(_, other)| from_there(*other)) {
            *other = question;
            return;
        }
        let is_same = |answer: &Answer| {
            from_there(answer.question) && answer.question.number == question.number
        };
        if self.waiting.len() < MAX_WAITING && !self.answer.as_ref().is_some_and(is_same) {
            self.waiting.push_back((now, question));
        }
    }

    /// The member that is answered there asks anew. It may have missed a part, so what is left of the answer is of no use.
    fn restart(&mut self, inbox: Inbox) {
        self.answer.take_if(|answer| answer.question.inbox == inbox);
    }

    /// Somebody asked everybody, which settles it for all that ask at that time. What waits needs no answer any more, unless it is
    /// also about those who left.
    fn handle_query_to_all(&mut self) {
        self.waiting.retain(|(_, question)| question.away.is_some());
    }

    /// The next piece of the answer that is under way.
    fn pop_piece(&mut self) -> Option<Piece> {
        let answer = self.answer.as_mut()?;
        let inbox = answer.question.inbox;
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
    /// What [`poll_announcement`](Self::poll_announcement) returns, until it fills a statement.
    pub(crate) fn poll_announcements(&mut self, now: Instant) -> Announcements {
        let (mut payloads, mut own, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < PIECE {
            let Some(message) = self.poll_announcement(now) else {
                break;
            };
            if matches!(message.body, Body::Announce(_) | Body::Bare) {
                own.push(payloads.len());
            }
            let payload = wire::encode(&message);
            bytes += payload.len() + wire::LONGEST_SIGNATURE;
            payloads.push(payload);
        }
        Announcements { payloads, own }
    }

    /// Somebody asks who is there (rule 6). One member answers, and all pick the same, by hash.
    pub(super) fn handle_query(
        &mut self,
        now: Instant,
        asker: &str,
        question: Question,
        attempt: u64,
    ) {
        if attempt >= ASK_ALL {
            // A member that was away for longer than the one that asks still has to ask who left before that.
            if self.away(now) <= question.away.map(|away| away + ON_ITS_WAY) {
                self.sync.handle_query_to_all(now);
            }
            self.queries.handle_query_to_all();
            if let Some(away) = question.away {
                self.plan_departures(now, away);
            }
            return self.announce_soon(now);
        }
        if attempt == 0 {
            self.queries.restart(question.inbox);
        }
        if !self.sync.is_settled() {
            // One that is new itself may be unknown to those who answer. One that asks again has heard it.
            if attempt == 0 {
                self.announce_soon(now);
            }
            return;
        }
        // What this member does not know the one that asks would miss.
        if !self.incomplete && self.is_ranked(attempt, asker, question) {
            self.queries.push(now, question);
        }
    }

    /// Whether this member answers the attempt of that number: whether exactly as many peers come before it.
    pub(super) fn is_ranked(&self, rank: u64, asker: &str, question: Question) -> bool {
        let Some(presence) = self.presence.as_ref().filter(|presence| presence.speaks()) else {
            return false;
        };
        let Some(incarnation) = presence.incarnation() else {
            return false;
        };
        let own = question.rank(presence.name(), incarnation);
        let before = self.alive().filter(|entry| {
            let name = entry.peer.name();
            let known = entry.peer.incarnation().filter(|_| entry.confirmed);
            name != asker && known.is_some_and(|known| question.rank(name, known) < own)
        });
        // Most find somebody before them soon.
        let more_than_rank = rank as usize + 1;
        before.take(more_than_rank).count() == rank as usize
    }

    /// The next piece of an answer, to be sent in one statement. The next question is answered after the last piece of the one
    /// before.
    pub(crate) fn poll_answer(&mut self, now: Instant) -> Option<Piece> {
        if self.queries.answer.is_none() {
            let (asked, question) = self.queries.waiting.pop_front()?;
            let payloads = self.write_answer(now, question)?.into();
            self.queries.answer = Some(Answer {
                asked,
                question,
                payloads,
            });
        }
        self.queries.pop_piece()
    }

    /// The payloads that say who is there now, and who left while the one that asks was away; all written at once, since each says
    /// how many there are.
    fn write_answer(&self, now: Instant, question: Question) -> Option<Vec<String>> {
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
                newborn: false,
                incarnation: *incarnation,
                seq: entry.seq,
                due: Duration::from_millis(entry.due.into()),
                pid: entry.session.pid(),
                question: None,
                age: Some(entry.age(now, self.loud_until, &self.lull, self.limits.missed)),
                back: entry.back(),
                checks: entry.checks,
                beat: entry.beat(),
                digest: None,
                tags: WireTags::encoded(tags),
            }),
        });
        let away = question.away.map(|away| self.departed_within(now, away));
        let departed = away.into_iter().flatten().map(|(entry, body)| Message {
            name: entry.peer.name().into(),
            body,
        });
        let everybody = peers.chain([presence.last_announcement()]);
        let all = everybody.chain(departed);
        Some(wire::encode_roster(question.number, all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(inbox: u64, number: u64) -> Question {
        Question {
            number,
            ..Question::at(Inbox::new(inbox))
        }
    }

    fn waiting(queries: &Queries) -> Vec<(Inbox, u64)> {
        let waiting = queries.waiting.iter();
        waiting.map(|(_, it)| (it.inbox, it.number)).collect()
    }

    /// One that answers this question.
    fn answering(now: Instant, question: Question, payloads: &[usize]) -> Queries {
        Queries {
            answer: Some(Answer {
                asked: now,
                question,
                payloads: payloads.iter().map(|&bytes| "x".repeat(bytes)).collect(),
            }),
            ..Queries::default()
        }
    }

    #[test]
    fn the_last_question_from_an_inbox_is_the_one_that_waits() {
        let now = Instant::now();
        let mut queries = answering(now, question(7, 3), &[1]);
        queries.push(now, question(7, 3));
        assert_eq!(waiting(&queries), [], "it is being answered");
        for asked in [question(7, 4), question(8, 3), question(7, 5)] {
            queries.push(now, asked);
        }
        let expected = [(Inbox::new(7), 5), (Inbox::new(8), 3)];
        assert_eq!(waiting(&queries), expected);
        queries.restart(Inbox::new(8));
        assert_eq!(queries.deadline(), Some(now));
        assert!(queries.answer.is_some(), "of another");
        queries.restart(Inbox::new(7));
        assert!(queries.answer.is_none());
        queries.clear();
        assert_eq!(queries.deadline(), None);
    }

    #[test]
    fn no_more_than_the_bound_wait() {
        let now = Instant::now();
        let mut queries = Queries::default();
        for inbox in 1..=MAX_WAITING as u64 + 1 {
            queries.push(now, question(inbox, 0));
        }
        assert_eq!(waiting(&queries).len(), MAX_WAITING);
        assert!(queries.is_bounded());
        queries.waiting.push_back((now, question(0, 0)));
        assert!(!queries.is_bounded());
    }

    #[test]
    fn a_question_to_all_leaves_those_about_departures() {
        let now = Instant::now();
        let mut queries = Queries::default();
        let away = Question {
            away: Some(Duration::from_secs(5)),
            ..question(8, 0)
        };
        for asked in [question(7, 0), away] {
            queries.push(now, asked);
        }
        queries.handle_query_to_all();
        assert_eq!(waiting(&queries), [(Inbox::new(8), 0)]);
    }

    #[test]
    fn a_statement_has_as_much_as_fits_and_at_least_one_payload() {
        let now = Instant::now();
        let half = PIECE / 2 - wire::LONGEST_SIGNATURE;
        let mut queries = answering(now, question(7, 0), &[half, half, 1, PIECE, half]);
        let pieces = std::iter::from_fn(|| queries.pop_piece());
        let pieces: Vec<_> = pieces.map(|it| (it.payloads.len(), it.is_last)).collect();
        let expected = [(2, false), (1, false), (1, false), (1, true)];
        assert_eq!(pieces, expected);
    }
}
