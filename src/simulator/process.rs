//! A participant on the simulated channel, with its clock, its session and what is on its way to it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::presence::Style;
use crate::core::stillness::Look;
use crate::core::wire::{self, Inbox, Pid};
use crate::peer::{Peer, Tags};
use crate::simulator::host::describe;
use crate::simulator::participant::Participant;
use crate::simulator::setup::Setup;
use crate::trust::seal::{Refusal, Seal};

/// The time of day at which virtual time begins.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_795_443_184);

/// A process of the simulated channel. One that is dead keeps its place.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) style: Option<Style>,
    pub(crate) tags: Tags,
    pub(crate) participant: Participant,
    pub(crate) seal: Seal,
    /// The time of day that it goes by.
    pub(crate) clock: Duration,
    /// How many seconds its clock is ahead of the right time.
    pub(crate) clock_is_ahead: i32,
    /// Why it refused what was not signed as it must be.
    pub(crate) refused: Vec<Refusal>,
    pub(crate) alive: bool,
    pub(crate) online: bool,
    /// It was online before it was last connected.
    pub(crate) reconnected: bool,
    pub(crate) paused_since: Option<Duration>,
    /// The backend of its session.
    pub(crate) pid: Option<Pid>,
    /// Where it is answered.
    pub(crate) key: Inbox,
    pub(crate) hears: bool,
    pub(super) arrivals: VecDeque<Arrival>,
    /// How much later than others it receives anything, its own notifications included, whose return it waits for.
    pub(crate) delay: Duration,
    /// The bytes a second that its link carries to it; `None` where that takes no time. What it says is not held up.
    pub(crate) rate: Option<u32>,
    /// Until then it waits for the return of its own notification.
    pub(super) busy_until: Duration,
    /// How many of the next payloads never reach it.
    pub(crate) deaf_to: usize,
    /// What it does in its session others do not see.
    pub(crate) hidden: bool,
    /// It says what it says on another session.
    pub(crate) stands_still: bool,
    /// When it last said something on its session, beats included.
    pub(super) last_statement: Duration,
    /// Its session ends before what it says next has gone out.
    pub(crate) loses_next: bool,
    /// When its next turn is planned.
    pub(super) next_turn: Option<Duration>,
}

pub(super) struct Arrival {
    pub(super) at: Duration,
    what: What,
}

#[derive(Clone)]
pub(super) enum What {
    Notification(Pid, Arc<str>),
    /// A notification on its own inbox.
    Answer(Pid, Arc<str>),
    /// When Postgres was asked for sessions, which of them it does not have, and what the others do, and whether they are
    /// told what this one does.
    Sessions(Look, HashSet<Pid>, HashMap<Pid, Option<Duration>>, bool),
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            Self::Notification(_, payload) | Self::Answer(_, payload) => payload.len(),
            Self::Sessions(..) => 0,
        }
    }
}

impl Process {
    pub(super) fn new(setup: Setup, seed: u64) -> Self {
        let random = Inbox::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let key = setup.inbox.unwrap_or(random);
        Self {
            participant: Participant::new(setup.roster(seed, key)),
            seal: Seal::new("cluster".to_owned(), setup.keys),
            clock: EPOCH,
            clock_is_ahead: 0,
            refused: Vec::new(),
            name: setup.name,
            style: setup.style,
            tags: setup.tags,
            alive: true,
            online: false,
            reconnected: false,
            paused_since: None,
            pid: None,
            key,
            hears: setup.hears,
            arrivals: VecDeque::new(),
            delay: Duration::ZERO,
            rate: None,
            busy_until: Duration::ZERO,
            deaf_to: 0,
            hidden: false,
            stands_still: false,
            last_statement: Duration::ZERO,
            loses_next: false,
            next_turn: None,
        }
    }

    /// Reads the clock, that long after virtual time began.
    pub(super) fn look_at_the_clock(&mut self, now: Duration) {
        let wrong = Duration::from_secs(self.clock_is_ahead.unsigned_abs().into());
        let right = EPOCH + now;
        self.clock = match self.clock_is_ahead >= 0 {
            true => right + wrong,
            false => right - wrong,
        };
    }

    /// Something is on its way and would be there at that time. Returns whether it gets there.
    pub(super) fn receive(&mut self, at: Duration, what: What) -> bool {
        if self.deaf_to > 0 && !matches!(what, What::Sessions(..)) {
            self.deaf_to -= 1;
            return false;
        }
        let at = at + self.delay;
        // What one session receives keeps its order, whatever delays it.
        let at = self.arrivals.back().map_or(at, |last| at.max(last.at));
        let carried = |rate| Duration::from_secs_f64(what.bytes() as f64 / f64::from(rate));
        let at = at + self.rate.map_or(Duration::ZERO, carried);
        self.arrivals.push_back(Arrival { at, what });
        true
    }

    /// Hears all that has arrived.
    pub(super) fn hear(&mut self, now: Instant, arrived_by: Duration) {
        while let Some(next) = self.arrivals.front().filter(|next| next.at <= arrived_by) {
            let what = next.what.clone();
            self.arrivals.pop_front();
            self.hear_one(now, &what);
        }
        self.seal.all_heard(self.clock);
    }

    fn hear_one(&mut self, now: Instant, what: &What) {
        match what {
            What::Notification(sender, payload) if self.verify(*sender, None, payload) => {
                if let Some(message) = wire::decode(payload) {
                    let roster = &mut self.participant.roster;
                    roster.handle_message(now, *sender, &message);
                }
            }
            What::Answer(sender, payload) if self.verify(*sender, Some(self.key), payload) => {
                if let Some(part) = wire::decode_roster(payload) {
                    self.participant
                        .roster
                        .handle_sync_part(now, *sender, &part);
                }
            }
            What::Notification(..) | What::Answer(..) => {}
            What::Sessions(look, missing, idle, seen) => {
                let roster = &mut self.participant.roster;
                roster.handle_session_check(now, *look, missing, idle, *seen);
            }
        }
        self.participant.settle();
    }

    /// Whether a payload is signed as it must be.
    pub(crate) fn verify(&mut self, sender: Pid, inbox: Option<Inbox>, payload: &str) -> bool {
        let inbox = inbox.map(Inbox::channel);
        let verdict = self
            .seal
            .verify(self.clock, sender, inbox.as_deref(), payload);
        self.refused.extend(verdict.err());
        verdict.is_ok()
    }

    /// Whether it announces itself on the channel.
    pub(crate) fn announces(&self) -> bool {
        self.style.is_some() && self.alive && !self.participant.silenced
    }

    /// How others see it, in words.
    pub(crate) fn describe(&self) -> String {
        let name = Arc::from(&*self.name);
        let incarnation = self.participant.roster.incarnation();
        describe(&Peer::new(name, incarnation, self.tags.clone()))
    }
}
