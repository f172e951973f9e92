//! The hall: one thread, one loop. It ties the wings and decides nothing itself.
//!
//! `ARCHITECTURE.md` has the way of a notification and of a request. In short, a [`turn`](Worker::turn) says what is due,
//! hears one notification or waits for one, tells the host what changed, and then brings the roster up to what was heard.
//! When to speak, where and for how long to wait is for the [link](crate::link) to say; what to say, for the [core](crate::core).

use std::time::Instant;

use crate::core::roster::{Outcome, Roster, queries::Announcements};
use crate::core::stillness::Look;
use crate::core::wire::{self, Pid};
use crate::error::{Error, Kind, Result};
use crate::host::delivery::Delivery;
use crate::link::hearing::Speak;
use crate::link::pace::{Conditions, Pace};
use crate::link::up::{Answer, Next, Road, Up};
use crate::link::{Connection, Link, Notice, SessionNames, Sessions};
use crate::logging::LINK;
use crate::trust::guard::Guard;

pub(crate) struct Worker {
    names: SessionNames,
    guard: Guard,
    roster: Roster,
    host: Delivery,
    connection: Connection<PendingSessionCheck>,
    pace: Pace,
}

/// When Postgres was asked for the sessions of others, and what it said, until all is heard that had arrived by then.
pub(crate) type PendingSessionCheck = (Look, Sessions);

impl Worker {
    pub(crate) fn new(
        names: SessionNames,
        guard: Guard,
        roster: Roster,
        host: Delivery,
        connection: Connection<PendingSessionCheck>,
    ) -> Self {
        Self {
            names,
            guard,
            roster,
            host,
            connection,
            pace: Pace::new(Instant::now()),
        }
    }

    /// Runs until the host leaves; returns whether the goodbye was said.
    pub(crate) fn run(mut self) -> Result<()> {
        while !self.handle_requests() {
            if self.connection.is_up() {
                let turned = self.turn();
                self.tell_host();
                turned.unwrap_or_else(|error| self.go_offline(error));
            } else {
                self.reconnect();
            }
            self.host.send();
            self.publish();
        }
        let farewell = self.say_goodbye();
        self.host.status_mut().online = false;
        self.publish();
        farewell
    }

    /// One turn with a link: say what is due, then hear one notification, or wait until something is due.
    fn turn(&mut self) -> Result<()> {
        self.note_side_channel(self.pace.now())?;
        let due = self.roster.poll_timeout();
        match self.up()?.speak(Instant::now(), due) {
            Speak::OnLink => self.announce()?,
            Speak::Aside => self.announce_aside()?,
            Speak::No => {}
        }
        let (now, interval) = (self.pace.now(), self.pace.poll_interval());
        let due = self.roster.poll_timeout();
        let Next { notice, until } = self.up()?.next(now, due, interval)?;
        match notice {
            Some(notice) => self.hear(&notice, until)?,
            None => self.pace.handle_wait(until),
        }
        self.catch_up()
    }

    /// Hears what came while it was waited for, until then at most.
    fn hear(&mut self, notice: &Notice, until: Instant) -> Result<()> {
        let now = Instant::now();
        // A process that was stopped finds what has come meanwhile first.
        self.pace.handle_wait(until.min(now));
        self.notice_pause(now);
        // What the host could not reach before a peer was heard is healed by it.
        self.apply_unreachable();
        self.handle_notification(now, notice);
        self.tell_host();
        let bytes = notice.payload().len();
        self.up()?.hearing.handle_notification(now, bytes);
        Ok(())
    }

    /// Brings the roster up to what was heard (rules 4 and 5): overdue peers expire, unless it is our own link that is silent.
    fn catch_up(&mut self) -> Result<()> {
        loop {
            let now = self.pace.now();
            let hearing = &mut self.up()?.hearing;
            let (horizon, proven) = (hearing.poll_horizon(), hearing.proven());
            let (flooded, loud_until) = (hearing.is_flooded(now), hearing.loud_until());
            let marks: Vec<_> = std::iter::from_fn(|| hearing.poll_mark()).collect();
            self.roster.handle_loud(loud_until);
            if flooded {
                self.roster.handle_flood(now);
            }
            for (look, sessions) in marks {
                let (missing, idle) = (&sessions.missing, &sessions.idle);
                self.roster
                    .handle_session_check(now, look, missing, idle, sessions.seen);
            }
            let must_prove = horizon.is_some_and(|horizon| {
                self.guard.all_heard(horizon.elapsed());
                self.roster.handle_timeout(horizon, proven)
            });
            if !must_prove || flooded {
                return Ok(());
            }
            self.call(Road::Notify, Link::check)?;
        }
    }

    /// Says what is due on the link, or asks it for a sign of life: one thing, since much may come with the answer.
    fn announce(&mut self) -> Result<()> {
        // One look at the clock: where a NOTIFY takes longer than the interval, the next one is due already.
        let now = Instant::now();
        // What is still under way aside may fail, and the success of what is said here must not count for it.
        self.roster.handle_not_sent(now);
        let Announcements { payloads, own } = self.roster.poll_announcements(now);
        if !payloads.is_empty() {
            let pid = self.up()?.link.pid();
            let sign = |payload| self.guard.sign(pid, None, payload);
            let signed = payloads.into_iter().map(sign).collect();
            let answer = self.call(Road::Notify, |link| link.notify(signed))?;
            self.roster.handle_sent(answer.answered);
            self.host.status_mut().announced += own.len() as u64;
            Ok(())
        } else if self.roster.poll_beat(now) {
            self.call(Road::Other, Link::beat).map(drop)
        } else if self.check_sessions()? || self.answer()? || !self.up()?.hearing.is_silent(now) {
            Ok(())
        } else {
            self.call(Road::Notify, Link::check).map(drop)
        }
    }

    /// Says what is due, over a separate connection. Answers, and session checks, wait until the flood is over.
    fn announce_aside(&mut self) -> Result<()> {
        let now = Instant::now();
        let Announcements { payloads, own } = self.roster.poll_announcements(now);
        let sign = self.guard.signer(payloads.clone());
        self.up()?.side_channel.announce(now, &payloads, &own, sign)
    }

    fn note_side_channel(&mut self, now: Instant) -> Result<()> {
        let Some(outcome) = self.up()?.side_channel.poll_outcome(now) else {
            return Ok(());
        };
        match outcome {
            Ok(announcements) => {
                self.roster.handle_sent(now);
                self.host.status_mut().announced += announcements;
            }
            Err(error) => {
                self.roster.handle_not_sent(now);
                log::debug!(target: LINK, "{:?}: not announced aside: {error}", self.names.channel);
                self.host.status_mut().last_error = Some(error);
            }
        }
        Ok(())
    }

    /// Answers those who asked who is there (rule 6); returns whether somebody did.
    fn answer(&mut self) -> Result<bool> {
        let start = self.pace.now();
        let mut answered = false;
        while let Some(piece) = self.roster.poll_answer(self.pace.now()) {
            let (inbox, pid) = (piece.inbox.channel(), self.up()?.link.pid());
            let sign = |payload| self.guard.sign(pid, Some(&inbox), payload);
            let payloads: Vec<_> = piece.payloads.into_iter().map(sign).collect();
            self.call(Road::Notify, |link| link.answer(&inbox, payloads))?;
            self.host.status_mut().answered += u64::from(piece.is_last);
            answered = true;
            // The host may have something to ask; the rest of the answer, and the other questions, can wait.
            if self.pace.is_late(start) {
                break;
            }
        }
        Ok(answered)
    }

    /// Asks Postgres whose session is gone, if it is time; returns whether it is.
    fn check_sessions(&mut self) -> Result<bool> {
        if self.up()?.hearing.awaits_mark() {
            return Ok(false);
        }
        let Some(pids) = self.roster.poll_session_check(self.pace.now()) else {
            return Ok(false);
        };
        self.host.status_mut().checked += 1;
        let answer = self.call(Road::Other, |link| link.sessions(pids))?;
        let (asked, took) = (answer.asked, answer.round_trip());
        let look = Look { asked, took };
        match answer.value {
            Some(sessions) => self.up()?.hearing.mark(answer.waiting, (look, sessions)),
            None => self.roster.handle_no_right_to_check(answer.answered),
        }
        Ok(true)
    }

    fn call<T>(
        &mut self,
        road: Road,
        question: impl FnOnce(&mut Link) -> Result<T>,
    ) -> Result<Answer<T>> {
        let answer = self.up()?.ask(road, question)?;
        let (answered, took) = (answer.answered, answer.round_trip());
        self.pace.handle_progress(answered);
        if road == Road::Notify {
            self.host.status_mut().round_trip = Some(took);
            self.roster.handle_notify(answered);
        }
        self.roster.handle_round_trip(answered, took);
        Ok(answer)
    }

    fn up(&mut self) -> Result<&mut Up<PendingSessionCheck>> {
        self.connection.up()
    }

    fn handle_notification(&mut self, now: Instant, notice: &Notice) {
        let (payload, Some(sender)) = (notice.payload(), notice.pid()) else {
            return;
        };
        let inbox = match notice.channel() {
            channel if channel == self.names.channel => None,
            // A probe and a wake-up are not signed.
            channel if channel == self.names.inbox && wire::is_answer(payload) => Some(channel),
            _ => return,
        };
        let status = self.host.status_mut();
        if !self.guard.verify(now, sender, inbox, payload, status) {
            return;
        }
        match inbox {
            None => self.handle_payload(now, sender, payload),
            Some(_) => self.handle_sync_part(now, sender, payload),
        }
    }

    fn handle_payload(&mut self, now: Instant, sender: Pid, payload: &str) {
        if let Ok(up) = self.up() {
            // Not before it was verified: a stranger can guess what we are about to say, and then peers would expire that
            // are still to be heard.
            if let Some(sent) = up.side_channel.sent_at_if_own(payload) {
                up.hearing.handle_own(sent);
            }
        }
        match wire::decode(payload) {
            None => self.host.status_mut().ignored += 1,
            Some(message) => {
                let outcome = self.roster.handle_message(now, sender, &message);
                self.host.count(outcome, &message.name);
            }
        }
    }

    fn handle_sync_part(&mut self, now: Instant, sender: Pid, payload: &str) {
        let part = wire::decode_roster(payload);
        let outcome = part.map(|part| self.roster.handle_sync_part(now, sender, &part));
        self.host.status_mut().heard += u64::from(outcome == Some(Outcome::News));
    }

    /// Brings changes to the host: into its view first, then into its events.
    fn tell_host(&mut self) {
        let mut changed = false;
        while let Some(change) = self.roster.poll_change() {
            self.host.take(change);
            changed = true;
        }
        if changed {
            self.publish();
            self.host.send();
        }
    }

    pub(crate) fn publish(&mut self) {
        let status = self.host.status_mut();
        status.incarnation = self.roster.incarnation();
        status.interval = self.roster.interval();
        status.judged_by_session = self.roster.is_judged_by_session();
        self.host.show();
    }

    /// Does what the host asked for; `true` if that is to leave.
    fn handle_requests(&mut self) -> bool {
        let now = Instant::now();
        self.notice_pause(now);
        let reported = self.apply_unreachable();
        let conditions = self.conditions(now);
        let mut requests = self.host.requests();
        let tags = requests.tags.take();
        let infos = requests.peer_infos.take();
        requests.asleep = self.pace.choose(conditions, tags.is_some() || reported);
        let leave = requests.leave;
        drop(requests);
        if let Some(tags) = tags {
            self.roster.set_tags(tags, now);
        }
        if let Some(asked) = infos {
            // There is room for it; whether anybody still waits is the host's choice.
            let _ = asked.send(self.roster.peer_infos());
        }
        leave
    }

    /// A process that was stopped for a while may find peers overdue that it merely did not hear (rule 5).
    fn notice_pause(&mut self, now: Instant) {
        if !self.pace.handle_look(now) {
            return;
        }
        self.roster.handle_pause(now);
        if let Ok(up) = self.up() {
            up.hearing.handle_pause(now);
        }
    }

    fn conditions(&mut self, now: Instant) -> Conditions {
        let round_trip = self.host.status().round_trip;
        let up = self.up().ok();
        Conditions {
            link: up.as_ref().map(|_| round_trip),
            flooded: up.is_some_and(|up| up.hearing.is_flooded(now)),
            pending: self.host.is_pending(),
            draining: self.host.take_draining(),
            asking: self.roster.has_unreachable(),
        }
    }

    /// Returns whether the host has reported some.
    fn apply_unreachable(&mut self) -> bool {
        let reported = std::mem::take(&mut self.host.requests().unreachable);
        for peer in reported.values() {
            self.roster.report_unreachable(self.pace.now(), peer);
        }
        !reported.is_empty()
    }

    /// One turn without a link: dial when it is time, and wait for an outcome.
    fn reconnect(&mut self) {
        let wait = self.pace.poll_interval();
        match self.connection.reconnect(self.pace.now(), wait) {
            None => {}
            Some(Ok(pid)) => self.go_online(pid),
            Some(Err(error)) => self.fail(error),
        }
    }

    fn go_online(&mut self, pid: Pid) {
        let now = Instant::now();
        self.guard.handle_link_up(pid);
        self.roster.set_back(self.connection.back());
        self.roster.handle_link_up(now, Some(pid));
        let measured = self.connection.up().ok();
        if let Some(took) = measured.and_then(|up| up.link.patience().round_trip()) {
            self.roster.handle_round_trip(now, took);
        }
        match self.say_hello() {
            Ok(()) => {
                self.connection.handle_hello(now);
                self.host.take_online();
                // What it is known by came with the hello.
                self.publish();
            }
            Err(error) => {
                self.roster.handle_link_down();
                self.fail(error);
            }
        }
    }

    /// The first announcement of a link.
    fn say_hello(&mut self) -> Result<()> {
        match self.up()?.goes_aside(Instant::now()) {
            true => self.announce_aside(),
            false => self.announce(),
        }
    }

    fn go_offline(&mut self, error: Error) {
        self.roster.handle_link_down();
        let up = self.connection.handle_loss(Instant::now(), &error);
        self.host.take_offline(error);
        self.publish();
        self.host.send();
        // Last, since closing a link that failed can take a moment.
        drop(up);
    }

    /// An attempt to connect failed.
    fn fail(&mut self, error: Error) {
        self.connection.handle_failure(Instant::now(), &error);
        self.host.take_failure(error);
    }

    fn say_goodbye(&mut self) -> Result<()> {
        let Some(message) = self.roster.goodbye() else {
            return Ok(());
        };
        let payload = wire::encode(&message);
        let Ok(up) = self.connection.up() else {
            return Err(Error::new(
                Kind::Link,
                "left without a goodbye, since Postgres cannot be reached: peers will see this member leave some seconds later",
            ));
        };
        let aside = self.guard.signer(vec![payload.clone()]);
        if up.goes_aside(Instant::now()) && up.side_channel.announce_now(aside).is_ok() {
            return Ok(());
        }
        let payload = self.guard.sign(up.link.pid(), None, payload);
        up.link.notify(vec![payload])
    }
}
