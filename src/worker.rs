//! The thread: link to wire to roster to outbox to events, and back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};

use crate::core::roster::{Change, Kind, Outcome, Roster};
use crate::core::wire::{self, Body, Pid};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::event::Event;
use crate::host::outbox::Outbox;
use crate::host::shared::{Shared, View};
use crate::jitter::Jitter;
use crate::link::outage::Outage;
use crate::link::side_channel::Aside;
use crate::link::{self, CALL_TIMEOUT, Connect, Dialer, Link, Notice, Session};
use crate::logging::{LINK, PEERS, TRUST};
use crate::trust::refusals::{Refusals, Refused};
use crate::trust::seal::Seal;

/// The longest the thread waits before it looks at what the host asks: `postgres` cannot be woken from outside. With a link
/// that works, and a host that asks for little, it waits for longer, since [`wake`](crate::link::wake) wakes it: an idle
/// member should cost nothing that can be measured.
const SLICE: Duration = Duration::from_millis(100);
const LONG_SLICE: Duration = Duration::from_millis(800);

/// To wake it takes a connection, some four round trips: not worth it if the server is farther away than this.
const NEAR: Duration = Duration::from_millis(20);

/// For this long after a request the slices stay short: not each of many is worth a connection that wakes.
const ATTENTIVE: Duration = Duration::from_secs(2);

/// How soon it looks again while a host drains events of which more are pending.
const DRAINING_SLICE: Duration = Duration::from_millis(1);

/// A turn that comes this late means that the whole process was paused.
const PAUSE: Duration = Duration::from_secs(1);

/// With so many bytes heard within [`CALM`], and never a moment in which nothing more had arrived, somebody floods the
/// channel, or our inbox, faster than it can be heard. What a statement would have to read before its answer comes is not
/// known then, and may be gigabytes.
const FLOOD: usize = 1 << 18;

/// And goes on doing so until it was not seen for this long: a moment in which nothing arrives may be between two waves.
const CALM: Duration = Duration::from_secs(1);

/// The longest that an announcement over a connection of its own may take before the link must do.
const LAST_ASIDE: Duration = Duration::from_secs(10);

/// Reconnecting backs off from the one to the other, by doubling. No longer, so that recovery takes about a second however
/// long the outage was; nor longer than the heartbeat interval, so that this participant is back before the grace is over
/// that its peers give it once they are back themselves; nor so long that it could be found gone meanwhile.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_millis(750);

/// A link that lasted this long was a good one: the next failure starts to back off anew.
const GOOD: Duration = Duration::from_secs(5);

pub(crate) struct Worker {
    connect: Connect,
    session: Session,
    /// How often the link must have been proven to work.
    heartbeat: Duration,
    seal: Seal,
    refusals: Refusals,
    roster: Roster,
    outbox: Outbox,
    events: Sender<Event>,
    shared: Arc<Shared>,
    view: View,
    jitter: Jitter,
    connection: Connection,
    /// When to dial again, and how long to wait after that fails.
    dial_at: Instant,
    backoff: Duration,
    outage: Outage,
    /// The encoding of the database that was last warned of.
    warned: Option<String>,
    /// Everything that had arrived at the last look was heard.
    drained: bool,
    /// When a question was asked that the server answered, until all that had arrived by then is heard: so many more.
    proof: Option<(Instant, usize)>,
    sessions: Option<Sessions>,
    /// How many bytes were heard since nothing more had arrived, or since that time if it is later.
    unread: usize,
    unread_since: Instant,
    /// Until then a flood that was seen is not over.
    flooded_until: Instant,
    /// The link was lost in one.
    lost_in_flood: bool,
    /// How to announce while there is a flood.
    aside: Aside,
    /// Until then what waits is heard before anything is asked.
    hear_first: Instant,
    /// When the link last gave a sign of life.
    last_sign: Instant,
    slice: Duration,
    /// The host takes events, and more are pending.
    draining: bool,
    /// When the last turn began, or what it waited for on purpose was there: that is no pause.
    last_turn: Instant,
    /// Until then the slices stay short.
    attentive: Instant,
}

/// What Postgres said of the sessions of others.
struct Sessions {
    asked: Instant,
    /// The backends that it has not.
    missing: HashSet<Pid>,
    /// To be judged when so many more are heard: all that had arrived by then.
    behind: usize,
}

enum Connection {
    Down(Dialer),
    Up {
        link: Box<Link>,
        since: Instant,
        /// What was asked then was answered, so what came before has been received.
        proven: Instant,
    },
}

impl Worker {
    pub(crate) fn new(
        connect: Connect,
        session: Session,
        seal: Seal,
        roster: Roster,
        events: Sender<Event>,
        shared: Arc<Shared>,
        jitter: Jitter,
    ) -> Self {
        let now = Instant::now();
        let dialer = Dialer::new(Arc::clone(&connect), session.clone(), None);
        Self {
            connect,
            session,
            heartbeat: roster.heartbeat(),
            seal,
            refusals: Refusals::default(),
            roster,
            outbox: Outbox::default(),
            events,
            shared,
            view: View::default(),
            jitter,
            connection: Connection::Down(dialer),
            dial_at: now,
            backoff: Duration::ZERO,
            outage: Outage::default(),
            warned: None,
            drained: true,
            proof: None,
            sessions: None,
            unread: 0,
            unread_since: now,
            flooded_until: now,
            lost_in_flood: false,
            aside: Aside::default(),
            hear_first: now,
            last_sign: now,
            slice: SLICE,
            draining: false,
            last_turn: now,
            attentive: now,
        }
    }

    /// Runs until the host leaves; returns whether the goodbye was said.
    pub(crate) fn run(mut self) -> Result<()> {
        while !self.obey() {
            match self.connection {
                Connection::Up { .. } => {
                    let turned = self.turn();
                    self.take_changes();
                    if let Err(error) = turned {
                        self.go_offline(error);
                    }
                }
                Connection::Down(_) => self.reconnect(),
            }
            self.deliver();
            self.publish();
        }
        let farewell = self.say_goodbye();
        self.view.status.online = false;
        self.publish();
        farewell
    }

    /// One turn with a link: announce what is due, then hear one notification, or wait until something is due.
    fn turn(&mut self) -> Result<()> {
        self.note_aside();
        let mut due = self.roster.poll_timeout();
        if self.must_speak(due) {
            self.announce()?;
            due = self.roster.poll_timeout();
        }
        let slice = self.last_turn + self.slice;
        let silence = self.last_sign + self.heartbeat;
        let until = slice.min(silence).max(self.last_turn);
        let until = match due {
            // What is due waits for its turn.
            _ if self.goes_aside(self.last_turn) && !self.aside.is_ready(self.last_turn) => slice,
            Some(due) => due.min(until),
            None => until,
        };
        let looked = self.time_of_day();
        let Connection::Up { link, proven, .. } = &mut self.connection else {
            return Ok(());
        };
        match link.next(until)? {
            Some(notice) => {
                self.drained = false;
                self.last_turn = Instant::now();
                self.last_sign = self.last_turn;
                // What the host lost before a peer was heard is healed by it.
                self.note_lost();
                self.hear(&notice);
                self.count_down();
            }
            None => {
                self.drained = true;
                self.unread = 0;
                self.proof = None;
                self.seal.all_heard(looked);
                self.last_turn = self.last_turn.max(until);
                let proven = *proven;
                let flooded = self.is_flooded(self.last_turn);
                if !flooded {
                    self.aside.stop();
                }
                // Everything that came before `until` was heard, so whoever was overdue by then is gone, unless it is our
                // own link that is silent.
                let asks = self.roster.handle_timeout(until, proven);
                self.judge_sessions();
                if asks && !flooded {
                    self.check()?;
                }
            }
        }
        Ok(())
    }

    /// One of what had arrived when the server answered has been heard.
    fn count_down(&mut self) {
        // On a channel that never falls silent, what came before the answer has been heard at some time.
        if let Some((asked, behind)) = &mut self.proof {
            *behind = behind.saturating_sub(1);
            if *behind == 0 {
                let asked = *asked;
                self.prove(asked);
                self.proof = None;
            }
        }
        if let Some(sessions) = &mut self.sessions {
            sessions.behind = sessions.behind.saturating_sub(1);
            if sessions.behind == 0 {
                self.judge_sessions();
            }
        }
    }

    /// Whether something is to be announced, answered or asked, the first of it due then.
    fn must_speak(&self, due: Option<Instant>) -> bool {
        let now = Instant::now();
        if self.goes_aside(now) {
            return self.aside.is_ready(now) && due.is_some_and(|due| due <= now);
        }
        if !self.drained && now < self.hear_first {
            return false;
        }
        // A NOTIFY returns only after everything before it was received, so a backlog is heard first, if that is soon done.
        let patience = if self.is_behind() {
            SLICE
        } else {
            Duration::ZERO
        };
        due.is_some_and(|due| due + patience <= now) || self.is_silent(now)
    }

    /// Far more may have arrived than was heard, or is about to.
    fn is_flooded(&self, now: Instant) -> bool {
        now < self.flooded_until
    }

    /// Whether announcements go over a connection of their own, and nothing is asked on the link.
    fn goes_aside(&self, now: Instant) -> bool {
        // Peers wait for three heartbeats, if they are not told otherwise.
        let limit = (2 * self.heartbeat).clamp(CALL_TIMEOUT, LAST_ASIDE);
        self.is_flooded(now) && !self.aside.has_failed(now, limit)
    }

    /// More may have arrived than was heard.
    fn is_behind(&self) -> bool {
        !self.drained || self.proof.is_some_and(|(_, behind)| behind > 0)
    }

    /// The link has given no sign of life for so long that it must be asked for one.
    fn is_silent(&self, now: Instant) -> bool {
        let sign = match self.connection {
            // What is heard on a channel that never falls silent does not prove that all of it was. Whoever announces nothing
            // does not prove it by that, either.
            Connection::Up { proven, .. } if self.is_behind() || self.roster.is_observer() => {
                proven
            }
            _ => self.last_sign,
        };
        now.saturating_duration_since(sign) >= self.heartbeat
    }

    fn announce(&mut self) -> Result<()> {
        // One look at the clock: where a NOTIFY takes longer than the interval, the next one is due already.
        let now = Instant::now();
        if self.goes_aside(now) {
            return self.announce_aside(now);
        }
        let silent = self.is_silent(now);
        while let Some(message) = self.roster.poll_announcement(now) {
            let announces = matches!(message.body, Body::Announce(_) | Body::Bare);
            let payload = wire::encode(&message);
            let payload = self.sign(None, payload);
            self.view.status.echo = Some(self.call(|link| link.notify(&payload))?);
            self.view.status.announced += u64::from(announces);
            // The host may have something to ask; the rest stays due.
            if self.last_turn - now > SLICE {
                break;
            }
        }
        if silent && self.last_sign <= now {
            self.check()?;
        }
        self.answer()?;
        self.check_sessions()
    }

    /// All that is due, at once. Answers, and questions for sessions, wait until the flood is over.
    fn announce_aside(&mut self, now: Instant) -> Result<()> {
        self.aside.looked(now);
        let (mut payloads, mut announcements) = (Vec::new(), 0);
        while let Some(message) = self.roster.poll_announcement(now) {
            let announces = matches!(message.body, Body::Announce(_) | Body::Bare);
            announcements += u64::from(announces);
            payloads.push(wire::encode(&message));
        }
        let Some(last) = payloads.last().cloned() else {
            return Ok(());
        };
        let outcome = self.notify_aside(payloads)?;
        self.aside.start(now, &last, announcements, outcome);
        Ok(())
    }

    fn notify_aside(&self, payloads: Vec<String>) -> Result<Receiver<Result<()>>> {
        let write = self.signed_by_whoever_sends(payloads);
        link::notify_aside(Arc::clone(&self.connect), &self.session, write)
    }

    fn note_aside(&mut self) {
        match self.aside.outcome() {
            None => {}
            Some(Ok(announcements)) => self.view.status.announced += announcements,
            Some(Err(error)) => {
                log::debug!(target: LINK, "{:?}: not announced aside: {error}", self.session.channel);
                self.view.status.last_error = Some(error);
            }
        }
    }

    /// Asks the server for a sign of life.
    fn check(&mut self) -> Result<()> {
        let asked = Instant::now();
        self.call(Link::check)?;
        self.view.status.echo = Some(asked.elapsed());
        Ok(())
    }

    /// Answers those who asked who is there.
    fn answer(&mut self) -> Result<()> {
        let now = self.last_turn;
        while let Some((inbox, payloads)) = self.roster.poll_answer(self.last_turn) {
            let inbox = inbox.channel();
            let payloads = payloads.into_iter();
            let payloads: Vec<_> = payloads.map(|p| self.sign(Some(&inbox), p)).collect();
            self.call(|link| link.answer(&inbox, &payloads))?;
            self.view.status.answered += 1;
            // The host may have something to ask; the other questions can wait.
            if self.last_turn - now > SLICE {
                break;
            }
        }
        Ok(())
    }

    /// Asks Postgres whose session is gone, if it is time.
    fn check_sessions(&mut self) -> Result<()> {
        if self.sessions.is_some() {
            return Ok(());
        }
        let asked = self.last_turn;
        let Some(pids) = self.roster.poll_session_check(asked) else {
            return Ok(());
        };
        self.view.status.checked += 1;
        let sessions = |link: &mut Link| Ok((link.sessions(&pids)?, link.waiting()));
        let (Some(there), behind) = self.call(sessions)? else {
            log::debug!(target: LINK, "{:?}: no right to see sessions", self.session.channel);
            return Ok(());
        };
        let mut missing: HashSet<Pid> = pids.into_iter().collect();
        for pid in there {
            missing.remove(&pid);
        }
        self.sessions = Some(Sessions {
            asked,
            missing,
            behind,
        });
        if behind == 0 {
            self.judge_sessions();
        }
        Ok(())
    }

    /// Calls for what the server answers.
    fn call<T>(&mut self, call: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
        let Connection::Up { link, proven, .. } = &mut self.connection else {
            return Err(Error::new(ErrorKind::Link, "there is no session"));
        };
        let asked = Instant::now();
        let answer = call(link)?;
        *proven = asked;
        let waiting = link.waiting();
        // On a channel that never falls silent the next answer comes before all from before the last was heard.
        if self.proof.is_none_or(|(_, behind)| behind == 0) {
            self.proof = Some((asked, waiting));
        }
        self.last_turn = Instant::now();
        self.last_sign = self.last_turn;
        self.roster
            .handle_round_trip(self.last_turn, self.last_turn - asked);
        Ok(answer)
    }

    /// Everything that arrived before was heard: who is missing now has not merely reconnected.
    fn judge_sessions(&mut self) {
        if let Some(Sessions { asked, missing, .. }) = self.sessions.take() {
            self.roster
                .handle_session_check(self.last_turn, asked, &missing);
        }
    }

    fn hear(&mut self, notice: &Notice) {
        self.note_flood(notice.payload().len());
        if notice.channel() == self.session.inbox {
            self.hear_answer(notice);
            return;
        }
        if notice.channel() != self.session.channel {
            return;
        }
        let Some(sender) = notice
            .pid()
            .filter(|&pid| self.is_genuine(pid, None, notice))
        else {
            return;
        };
        // Not before: a stranger can guess what we are about to say, and who is still to be heard would expire.
        if let Some(asked) = self.aside.is_heard(notice.payload()) {
            self.prove(asked);
        }
        let Some(message) = wire::decode(notice.payload()) else {
            self.view.status.ignored += 1;
            return;
        };
        match self.roster.handle_message(self.last_turn, sender, &message) {
            Outcome::News => self.view.status.heard += 1,
            Outcome::Stale => self.view.status.ignored += 1,
            Outcome::Refused => {
                if self.view.status.refused == 0 {
                    let count = self.view.status.peers;
                    log::warn!(
                        target: PEERS,
                        "{:?}: ignoring newcomers, first {:?}: {count} peers are all that max_peers allows",
                        self.session.channel,
                        message.name
                    );
                }
                self.view.status.refused += 1;
            }
        }
    }

    /// So many bytes were heard, whoever they are for.
    fn note_flood(&mut self, bytes: usize) {
        if self.unread_since + CALM <= self.last_turn {
            (self.unread, self.unread_since) = (0, self.last_turn);
        }
        self.unread += bytes;
        if self.unread > FLOOD {
            self.flooded_until = self.last_turn + CALM;
        }
    }

    /// Everything that had arrived by then was heard.
    fn prove(&mut self, by: Instant) {
        let since = by.elapsed();
        self.seal
            .all_heard(self.time_of_day().saturating_sub(since));
        if let Connection::Up { proven, .. } = &mut self.connection {
            *proven = by.max(*proven);
        }
        let asks = self.roster.handle_timeout(by, by);
        debug_assert!(!asks, "the link was proven then");
    }

    fn hear_answer(&mut self, notice: &Notice) {
        let payload = notice.payload();
        let inbox = Some(notice.channel());
        let genuine = |pid| self.is_genuine(pid, inbox, notice);
        if wire::is_answer(payload) && notice.pid().is_some_and(genuine) {
            let part = wire::decode_roster(payload);
            let heard = part.map(|part| self.roster.handle_sync_part(self.last_turn, &part));
            self.view.status.heard += u64::from(heard == Some(Outcome::News));
        }
    }

    /// Whether a payload is signed as it must be; what is not is counted.
    fn is_genuine(&mut self, sender: Pid, inbox: Option<&str>, notice: &Notice) -> bool {
        let (now, payload) = (self.time_of_day(), notice.payload());
        let verdict = self.seal.verify(now, sender, inbox, payload);
        if let Err(why) = verdict {
            let refused = Refused {
                channel: &self.session.channel,
                sender,
                payload,
                why,
            };
            let status = &mut self.view.status;
            self.refusals.note(self.last_turn, &refused, status);
        }
        verdict.is_ok()
    }

    /// Signs what goes out over the link.
    fn sign(&self, inbox: Option<&str>, payload: String) -> String {
        let sender = match &self.connection {
            Connection::Up { link, .. } => link.pid(),
            Connection::Down(_) => None,
        };
        match sender {
            Some(sender) => self.seal.sign(self.time_of_day(), sender, inbox, payload),
            None => payload,
        }
    }

    /// Signs what goes out over a connection whose backend is not known yet.
    fn signed_by_whoever_sends(
        &self,
        payloads: Vec<String>,
    ) -> impl FnOnce(Option<Pid>) -> Vec<String> + Send + use<> {
        let (seal, now) = (self.seal.clone(), self.time_of_day());
        move |sender| {
            let sign = |payload| match sender {
                Some(sender) => seal.sign(now, sender, None, payload),
                None => payload,
            };
            payloads.into_iter().map(sign).collect()
        }
    }

    /// Since the Unix epoch, where signatures are judged by it.
    fn time_of_day(&self) -> Duration {
        match self.seal.is_active() {
            true => SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
            false => Duration::ZERO,
        }
    }

    fn log(&self, change: &Change) {
        let (channel, name) = (&self.session.channel, change.peer.name());
        match change.kind {
            Kind::TookName => log::warn!(
                target: PEERS,
                "{channel:?}: a newer process has the name {name:?}: this one is not announced any more"
            ),
            kind => log::debug!(target: PEERS, "{channel:?}: {name}: {kind:?}"),
        }
    }

    /// Brings changes to the host's view, then into the outbox: what an event says, `peers` already shows.
    fn take_changes(&mut self) {
        let mut changed = false;
        while let Some(change) = self.roster.poll_change() {
            self.log(&change);
            apply(&change, &mut self.view);
            self.outbox.push(change);
            changed = true;
        }
        if changed {
            self.publish();
        }
    }

    /// Never waits for the host: what does not fit stays in the outbox.
    fn deliver(&mut self) {
        self.draining = false;
        let mut delivered = false;
        while !self.events.is_full() {
            let Some(event) = self.outbox.pop() else {
                return;
            };
            // The one sender found room, so this does not block; that nobody receives any more is the host's choice.
            let _ = self.events.send(event);
            delivered = true;
        }
        self.draining = delivered;
    }

    fn publish(&mut self) {
        let status = &mut self.view.status;
        status.incarnation = self.roster.incarnation();
        status.interval = self.roster.interval();
        status.undelivered = self.outbox.len();
        status.peers = self.view.peers.len();
        self.shared.show(&self.view);
    }

    /// Does what the host asked for; `true` if that is to leave.
    fn obey(&mut self) -> bool {
        let now = Instant::now();
        self.notice_pause(now);
        self.note_lost();
        let mut requests = self.shared.requests();
        let tags = requests.tags.take();
        let sightings = requests.sightings.take();
        if tags.is_some() {
            self.attentive = now + ATTENTIVE;
        }
        let up = matches!(self.connection, Connection::Up { .. });
        let near = self.view.status.echo.is_none_or(|echo| echo < NEAR);
        // In a flood a short silence is to be noticed.
        let flooded = self.is_flooded(now);
        requests.asleep = up && near && !flooded && self.attentive <= now && self.outbox.len() == 0;
        self.slice = match requests.asleep {
            true => LONG_SLICE,
            false if self.draining => DRAINING_SLICE,
            false => SLICE,
        };
        let leave = requests.leave;
        drop(requests);
        if let Some(tags) = tags {
            self.roster.set_tags(tags, now);
        }
        if let Some(asked) = sightings {
            // There is room for it; whether anybody still waits is the host's choice.
            let _ = asked.send(self.roster.sightings());
        }
        leave
    }

    fn note_lost(&mut self) {
        for (_, peer) in self.shared.requests().lost.drain() {
            self.roster.report_unreachable(&peer);
        }
    }

    /// A process that was stopped for a while may find its peers overdue that it merely did not hear (rule 5).
    fn notice_pause(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_turn) > PAUSE {
            self.roster.grant_grace(now);
            // Much may wait by now.
            self.drained = false;
            self.hear_first = now + SLICE;
        }
        self.last_turn = now;
    }

    /// One turn without a link: dial when it is time, and wait for an outcome.
    fn reconnect(&mut self) {
        let Connection::Down(dialer) = &mut self.connection else {
            return;
        };
        let mut wait = self.slice;
        let mut outcome = None;
        if !dialer.is_dialing() {
            let left = self.dial_at.saturating_duration_since(self.last_turn);
            if left.is_zero() {
                outcome = dialer.dial().err().map(Err);
            } else {
                wait = wait.min(left);
            }
        }
        match outcome.or_else(|| dialer.wait(wait)) {
            None => {}
            Some(Ok(link)) => self.go_online(link),
            Some(Err(error)) => self.fail(error),
        }
    }

    fn go_online(&mut self, link: Link) {
        let now = Instant::now();
        let pid = link.pid();
        let encoding = link.unsafe_encoding().map(str::to_owned);
        self.connection = Connection::Up {
            link: Box::new(link),
            since: now,
            proven: now,
        };
        self.drained = true;
        self.proof = None;
        self.sessions = None;
        self.unread = 0;
        self.flooded_until = match self.lost_in_flood {
            true => now + CALM,
            false => now,
        };
        self.aside.stop();
        self.last_sign = now;
        self.seal.all_heard(self.time_of_day());
        self.roster.handle_link_up(now, pid);
        if let Err(error) = self.announce() {
            drop(self.hang_up());
            return self.fail(error);
        }
        self.outage.end(now, &self.session.channel);
        self.warn_of(encoding);
        self.view.status.online = true;
        self.view.status.connected += 1;
        self.publish();
        self.outbox.push_online();
    }

    fn go_offline(&mut self, error: Error) {
        let up = self.hang_up();
        if matches!(up, Connection::Up { since, .. } if since.elapsed() >= GOOD) {
            self.backoff = Duration::ZERO;
        }
        self.view.status.online = false;
        self.back_off();
        self.note(&error);
        self.publish();
        self.outbox.push_offline(error);
        self.deliver();
        // Last, since closing a link that failed can take a moment.
        drop(up);
    }

    /// An attempt to connect failed.
    fn fail(&mut self, error: Error) {
        self.view.status.failed_attempts += 1;
        let first = self.view.status.connected == 0 && self.view.status.failed_attempts == 1;
        self.back_off();
        self.note(&error);
        if first {
            self.publish();
            self.outbox.push_offline(error);
        }
    }

    /// There is no link any more, but what is left of it.
    fn hang_up(&mut self) -> Connection {
        let given_up = match &self.connection {
            Connection::Up { link, .. } => link.given_up(),
            Connection::Down(_) => None,
        };
        self.lost_in_flood = self.is_flooded(Instant::now());
        self.roster.handle_link_down();
        let dialer = Dialer::new(Arc::clone(&self.connect), self.session.clone(), given_up);
        std::mem::replace(&mut self.connection, Connection::Down(dialer))
    }

    /// The first time at once or almost: not all members should dial in step when their server is back.
    fn back_off(&mut self) {
        let least = if self.backoff.is_zero() { 0.0 } else { 0.5 };
        let longest = LAST_BACKOFF.min(self.heartbeat).max(FIRST_BACKOFF);
        self.backoff = (self.backoff * 2).clamp(FIRST_BACKOFF, longest);
        self.dial_at = Instant::now() + self.jitter.between(least, self.backoff);
    }

    fn note(&mut self, error: &Error) {
        let now = Instant::now();
        self.outage.note(now, &self.session.channel, error);
        self.view.status.last_error = Some(error.clone());
    }

    /// Of a database in which others can end our sessions, once at its change, not once a session.
    fn warn_of(&mut self, encoding: Option<String>) {
        if self.warned == encoding {
            return;
        }
        if let Some(encoding) = &encoding {
            log::warn!(
                target: TRUST,
                "{:?}: the database has the encoding {encoding}: whoever may connect can announce what has no equivalent \
                 in UTF-8, and Postgres then ends the session of every member (each reconnects). Meet in a \
                 database that has the encoding UTF8: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
                self.session.channel
            );
        }
        self.warned = encoding;
    }

    /// Whether that was announced over a connection of its own, in time.
    fn says_aside(&self, payload: &str) -> bool {
        let said = self.notify_aside(vec![payload.to_owned()]);
        said.is_ok_and(|said| matches!(said.recv_timeout(CALL_TIMEOUT), Ok(Ok(()))))
    }

    fn say_goodbye(&mut self) -> Result<()> {
        let Some(message) = self.roster.goodbye() else {
            return Ok(());
        };
        let payload = wire::encode(&message);
        if self.goes_aside(Instant::now()) && self.says_aside(&payload) {
            return Ok(());
        }
        let payload = self.sign(None, payload);
        match &mut self.connection {
            Connection::Up { link, .. } => link.notify(&payload).map(drop),
            Connection::Down(_) => Err(Error::new(
                ErrorKind::Link,
                "left without a goodbye, since Postgres cannot be reached: peers will see this participant expire",
            )),
        }
    }
}

fn apply(change: &Change, view: &mut View) {
    match change.kind {
        Kind::Joined | Kind::Returned | Kind::Recovered | Kind::Updated => {
            Arc::make_mut(&mut view.peers).put(&change.peer);
        }
        Kind::Left(_) => Arc::make_mut(&mut view.peers).remove(change.peer.name()),
        Kind::TookName => {}
    }
}
