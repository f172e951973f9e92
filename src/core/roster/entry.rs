//! What is known of one peer, and what a sign of life says about it.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::lull::Lull;
use crate::core::wire::{Announce, LEAST_BACK, Pid, WireTags};
use crate::event::Reason;
use crate::peer::{Incarnation, Peer};

/// A peer that is there, or that left lately.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) peer: Peer,
    pub(super) standing: Standing,
    pub(super) seq: u64,
    /// Within this time of each announcement the next comes; milliseconds, to keep an entry small.
    pub(super) due: u32,
    /// Within this time it is back if its session ends; milliseconds.
    pub(super) back: u16,
    pub(super) session: Session,
    /// Whether it asks Postgres which sessions are gone.
    pub(super) checks: bool,
    /// It makes a statement on its session at least this often; milliseconds, zero if it may make none.
    pub(super) beat: u32,
    /// It was heard, or told of, since the link came up.
    pub(super) confirmed: bool,
    /// How long it was silent before it was heard last, if it announces its bare name; milliseconds.
    pub(super) last_gap: u32,
    /// The backend that its bare name came from last, since the link came up.
    pub(super) said_by: Option<Pid>,
    /// What it adds to the digest.
    pub(super) fingerprint: u64,
    /// Since when it is there.
    pub(super) since: Instant,
    /// When it expires, or, once it has left, when that was.
    pub(super) until: Instant,
}

/// The session of a peer with our server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// It announces itself from none that we could ask for.
    Unknown,
    /// This backend serves it.
    At(Pid),
    /// Its backend serves another peer by now (rule 10).
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Alive,
    /// Alive, but the host's own connection to it broke.
    Unreachable,
    Left(Reason),
}

/// Everything that an announcement says but the name.
pub(super) struct Heartbeat<'a> {
    pub(super) incarnation: Option<Incarnation>,
    pub(super) seq: u64,
    pub(super) due: Duration,
    pub(super) pid: Option<Pid>,
    /// How long ago it was heard, where another member tells us.
    pub(super) age: Option<Duration>,
    pub(super) back: Duration,
    pub(super) checks: bool,
    pub(super) beat: Option<Duration>,
    /// Another member says that it is there, so it may have been given up by mistake.
    pub(super) revives: bool,
    pub(super) tags: WireTags<'a>,
}

impl Entry {
    /// Takes in a sign of life. The peer now expires at [`until`](Self::until).
    pub(super) fn refresh(&mut self, now: Instant, heartbeat: &Heartbeat<'_>, missed: u32) {
        self.seq = heartbeat.seq;
        self.due = u32::try_from(heartbeat.due.as_millis()).unwrap_or(u32::MAX);
        self.back = u16::try_from(heartbeat.back.as_millis()).unwrap_or(u16::MAX);
        self.checks = heartbeat.checks;
        let beat = heartbeat.beat.unwrap_or_default().as_millis();
        self.beat = u32::try_from(beat).unwrap_or(u32::MAX);
        self.confirmed = true;
        let age = heartbeat.age.unwrap_or_default();
        self.until = now + self.grace(missed).saturating_sub(age);
    }

    fn due(&self) -> Duration {
        Duration::from_millis(self.due.into())
    }

    /// What it announces as that, or what is assumed.
    fn announced_back(&self) -> Duration {
        Duration::from_millis(self.back.into())
    }

    /// How long it may be silent (rule 2). If its reconnect takes long, its session may have ended just before an announcement was due.
    pub(super) fn grace(&self, missed: u32) -> Duration {
        let (due, back) = (self.due(), self.announced_back());
        match back > LEAST_BACK {
            true => (due * missed).max(due + back),
            false => due * missed,
        }
    }

    /// How often it makes a statement on its session, if it promised to.
    pub(super) fn beat(&self) -> Option<Duration> {
        (self.beat > 0).then(|| Duration::from_millis(self.beat.into()))
    }

    /// When it has been silent for too long. That is at [`until`](Self::until), or, if the channel was loud, a grace period after
    /// it no longer was, but no later than two grace periods after `until` (rule 5). For one that is not known to
    /// be there since the link came up, the time of the beats that it may miss, and to be back, stands for the grace period. One that was
    /// to announce itself in a lull, for the first time since it was heard or the link came up, has a moment after that, in which it says
    /// again what it gave up: far away that takes a round trip, of which `back` has some ten (rule 4).
    pub(super) fn overdue_at(
        &self,
        loud_until: Option<Instant>,
        lull: &Lull,
        missed: u32,
    ) -> Instant {
        let (due, grace) = match self.beat() {
            Some(beat) if !self.confirmed => (beat, beat * missed + self.back()),
            _ => (self.due(), self.grace(missed)),
        };
        let after = loud_until.map_or(self.until, |loud_until| loud_until + grace);
        let overdue_at = after.clamp(self.until, self.until + grace * 2);
        let silent = grace.min(self.grace(missed));
        let next = self.until.checked_sub(silent.saturating_sub(due));
        let excused = next.and_then(|next| lull.excuses_until(next, self.announced_back() / 4));
        excused.map_or(overdue_at, |until| overdue_at.max(until))
    }

    /// How long its session may be missing before it has left. One that announces its bare name may have another session by now,
    /// so it must also be silent for longer than it was before.
    pub(super) fn back(&self) -> Duration {
        let back = self.announced_back();
        match self.peer.incarnation() {
            Some(_) => back,
            None => back + Duration::from_millis(self.due.max(self.last_gap).into()),
        }
    }

    /// When it was heard, or was given a new grace period.
    pub(super) fn last_received(&self, missed: u32) -> Instant {
        // Before the first instant that the clock knows, if another heard it when this machine was not running yet.
        let heard = self.until.checked_sub(self.grace(missed));
        heard.unwrap_or(self.until)
    }

    /// How long ago it was heard, or was given a new grace period; less where it has longer than that, so that a newcomer keeps it for
    /// as long as we do.
    pub(super) fn age(
        &self,
        now: Instant,
        loud_until: Option<Instant>,
        lull: &Lull,
        missed: u32,
    ) -> Duration {
        let overdue_at = self.overdue_at(loud_until, lull, missed);
        let left = overdue_at.saturating_duration_since(now);
        self.grace(missed).saturating_sub(left)
    }

    /// Whether this sign of life of the same start was heard before, or a later one was. One that another member tells of a
    /// peer that was silent here, or had no session, is not: it was heard there.
    pub(super) fn is_old(&self, heartbeat: &Heartbeat<'_>) -> bool {
        let mistaken = matches!(
            self.standing,
            Standing::Left(Reason::Expired | Reason::SessionGone)
        );
        let told_anew = heartbeat.revives && mistaken;
        heartbeat.seq < self.seq || (heartbeat.seq == self.seq && !told_anew)
    }

    /// How an incarnation that is heard relates to the one that is known (rule 1): `Less` is stale, `Equal` is the same
    /// start of the peer, `Greater` is a newer one.
    pub(super) fn compare_incarnation(&self, heard: Option<Incarnation>) -> Ordering {
        match (self.peer.incarnation(), heard) {
            (Some(known), Some(heard)) => heard.cmp(&known),
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            // A bare name says less than an incarnation that is there, but takes the name over from one that has left.
            (Some(_), None) if self.standing.is_alive() => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
        }
    }
}

impl Standing {
    pub(super) fn is_alive(self) -> bool {
        match self {
            Self::Alive | Self::Unreachable => true,
            Self::Left(_) => false,
        }
    }
}

impl Session {
    pub(super) fn pid(self) -> Option<Pid> {
        match self {
            Self::At(pid) => Some(pid),
            Self::Unknown | Self::Over => None,
        }
    }
}

impl<'a> Heartbeat<'a> {
    pub(super) fn of(announce: &Announce<'a>) -> Self {
        Self {
            incarnation: Some(announce.incarnation),
            seq: announce.seq,
            due: announce.due,
            pid: announce.pid,
            age: announce.age,
            back: announce.back,
            checks: announce.checks,
            beat: announce.beat,
            revives: false,
            tags: announce.tags,
        }
    }

    /// A bare name that is heard. It says nothing, so the time until the next is assumed.
    pub(super) fn bare(due: Duration) -> Self {
        Self {
            incarnation: None,
            seq: 0,
            due,
            pid: None,
            age: None,
            back: LEAST_BACK,
            checks: false,
            beat: None,
            revives: false,
            tags: WireTags::default(),
        }
    }
}
