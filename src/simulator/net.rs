//! One channel of Postgres and the processes on it, in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::stillness::Look;
use crate::core::wire::{self, Body, Inbox, Pid};
use crate::simulator::host::described;
use crate::simulator::process::{Process, What};
use crate::simulator::setup::Setup;

/// How long a notification takes from NOTIFY to its receipt, if a test says nothing else.
pub(crate) const LATENCY: Duration = Duration::from_millis(1);

/// A process that wakes this late was paused, as for the library's thread.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// For so long a channel that was loud is taken for loud, as by the library's thread.
const LOUD: Duration = Duration::from_secs(1);

/// The backend of a sender that is none of the processes.
pub(crate) const STRANGER: Pid = Pid::MAX;

/// Backends are numbered from here on.
const FIRST_PID: usize = 1_001;

/// The place of a process in [`Net::processes`].
pub(crate) type Id = usize;

/// A channel and its processes. What one of them sends reaches every process that is online, in one order for all, as NOTIFY
/// does.
pub(crate) struct Net {
    epoch: Instant,
    pub(crate) now: Duration,
    seed: u64,
    pub(crate) latency: Duration,
    pub(crate) processes: Vec<Process>,
    /// The processes that hear.
    listeners: Vec<Id>,
    /// How many are online that do not.
    deaf_online: usize,
    /// Everything that was ever sent to all.
    pub(crate) sent: Vec<Sent>,
    /// The goodbyes among it, by members: they are looked for often.
    pub(crate) goodbyes: Vec<Arc<str>>,
    /// Everything that was ever sent to one inbox.
    pub(crate) answers: Vec<(Inbox, Sent)>,
    /// How many notifications processes received, their own included.
    pub(crate) deliveries: usize,
    turns: usize,
    /// How many times the server was asked for sessions.
    pub(crate) checks: usize,
    /// For each backend that there ever was: the process that it serves, while the session lasts.
    sessions: Vec<Option<Id>>,
    /// The backends of others than the processes whose sessions last.
    sessions_of_strangers: HashSet<Pid>,
    /// How much the server's clock has jumped ahead.
    pub(crate) server_is_ahead: Duration,
    /// The number that the next backend is given, where that is not a new one.
    next_pid: Option<Pid>,
    /// The backend that ended last.
    last_ended: Option<Pid>,
    /// Since then something else holds NOTIFY up.
    held_up_since: Duration,
    /// Until then it does, and every speaker waits.
    held_up_until: Duration,
    /// What is said only then, unless the session ends before.
    held_up: Vec<HeldUp>,
    /// Until then others say so much that some cannot keep up.
    pub(crate) loud_until: Duration,
    /// Whose turn it is next. What is out of date differs from [`Process::next_turn`].
    agenda: BinaryHeap<Reverse<(Duration, Id)>>,
}

pub(crate) struct Sent {
    pub(crate) at: Duration,
    /// `None` for a sender that is none of the processes.
    pub(crate) by: Option<Id>,
    pub(crate) from: Pid,
    pub(crate) payload: Arc<str>,
}

/// A NOTIFY that waits, to all or to one inbox.
struct HeldUp {
    by: Option<Id>,
    from: Pid,
    inbox: Option<Inbox>,
    payload: Arc<str>,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            epoch: Instant::now(),
            now: Duration::ZERO,
            seed,
            latency: LATENCY,
            processes: Vec::new(),
            listeners: Vec::new(),
            deaf_online: 0,
            sent: Vec::new(),
            goodbyes: Vec::new(),
            answers: Vec::new(),
            deliveries: 0,
            turns: 0,
            checks: 0,
            sessions: Vec::new(),
            sessions_of_strangers: HashSet::new(),
            server_is_ahead: Duration::ZERO,
            next_pid: None,
            last_ended: None,
            held_up_since: Duration::ZERO,
            held_up_until: Duration::ZERO,
            held_up: Vec::new(),
            loud_until: Duration::ZERO,
            agenda: BinaryHeap::new(),
        }
    }

    /// Starts a process that is online at once. It says hello as soon as time goes on.
    pub(crate) fn start(&mut self, name: &str, incarnation: u64) -> Id {
        self.start_as(Setup::new(name, incarnation))
    }

    pub(crate) fn start_as(&mut self, setup: Setup) -> Id {
        let id = self.start_offline(setup);
        self.reconnect(id);
        // That it is online goes without saying.
        self.told(id);
        id
    }

    pub(crate) fn start_offline(&mut self, setup: Setup) -> Id {
        self.seed += 1;
        let id = self.processes.len();
        if setup.hears {
            self.listeners.push(id);
        }
        self.processes.push(Process::new(setup, self.seed));
        id
    }

    pub(crate) fn crash(&mut self, id: Id) {
        self.disconnect(id);
        self.processes[id].alive = false;
    }

    pub(crate) fn leave(&mut self, id: Id) {
        let goodbye = self.processes[id].participant.roster.goodbye();
        let goodbye = goodbye.map(|message| wire::encode(&message));
        if self.processes[id].online {
            goodbye.iter().for_each(|payload| self.say(id, payload));
        }
        self.crash(id);
    }

    pub(crate) fn disconnect(&mut self, id: Id) {
        let process = &mut self.processes[id];
        if !std::mem::take(&mut process.online) {
            return;
        }
        process.arrivals.clear();
        process.participant.link_down();
        self.deaf_online -= usize::from(!process.hears);
        self.last_ended = process.pid.take();
        if let Some(place) = self.last_ended.and_then(place) {
            self.sessions[place] = None;
        }
    }

    pub(crate) fn reconnect(&mut self, id: Id) {
        let now = self.clock();
        let process = &mut self.processes[id];
        process.look_at_the_clock(self.now);
        if !std::mem::replace(&mut process.online, true) {
            process.pid = Some(match self.next_pid.take() {
                Some(pid) => {
                    self.sessions[place(pid).expect("a backend that was")] = Some(id);
                    pid
                }
                None => {
                    let pid = i32::try_from(FIRST_PID + self.sessions.len());
                    self.sessions.push(Some(id));
                    pid.ok().and_then(Pid::new).expect("a number")
                }
            });
            process.reconnected = process.participant.host.online.is_some();
            process.seal.all_heard(process.clock);
            process.participant.link_up(now, process.pid);
            let took = self.latency + process.delay;
            process.participant.roster.handle_round_trip(now, took);
            self.deaf_online += usize::from(!process.hears);
        }
    }

    /// A sender that is none of the processes has a session with this backend.
    pub(crate) fn begin_session(&mut self, pid: Pid) {
        self.sessions_of_strangers.insert(pid);
    }

    pub(crate) fn end_session(&mut self, pid: Pid) {
        self.sessions_of_strangers.remove(&pid);
    }

    /// The next process that connects is served by a backend with the number of the one that ended last.
    pub(crate) fn reuse_backend_of_the_last_that_ended(&mut self) {
        self.next_pid = self.last_ended.take();
    }

    /// For so long no NOTIFY gets through.
    pub(crate) fn hold_up(&mut self, time: Duration) {
        if self.held_up_until <= self.now {
            self.held_up_since = self.now;
        }
        self.held_up_until = self.now + time;
    }

    /// Whether NOTIFY is held up; then this one waits.
    fn holds_up(&mut self, by: Option<Id>, from: Pid, inbox: Option<Inbox>, payload: &str) -> bool {
        let waits = self.now < self.held_up_until;
        if waits {
            let payload = payload.into();
            self.held_up.push(HeldUp {
                by,
                from,
                inbox,
                payload,
            });
        }
        waits
    }

    /// NOTIFY is not held up any more. What a session was saying that has ended is never said.
    fn let_go(&mut self) {
        self.held_up_until = self.now;
        for held_up in std::mem::take(&mut self.held_up) {
            let has_ended = |id: Id| self.processes[id].pid != Some(held_up.from);
            if held_up.by.is_some_and(has_ended) {
                continue;
            }
            match held_up.inbox {
                None => self.send(held_up.by, held_up.from, &held_up.payload),
                Some(inbox) => self.send_from(held_up.from, inbox, &held_up.payload),
            }
            if let (Some(id), None) = (held_up.by, held_up.inbox) {
                let now = self.clock() + self.latency;
                self.processes[id].participant.roster.handle_sent(now);
            }
        }
    }

    pub(crate) fn pause(&mut self, id: Id) {
        self.processes[id].paused_since.get_or_insert(self.now);
    }

    pub(crate) fn wake(&mut self, id: Id) {
        let now = self.clock();
        let process = &mut self.processes[id];
        if let Some(since) = process.paused_since.take() {
            if self.now - since > PAUSE {
                process.participant.roster.handle_pause(now);
            }
        }
    }

    /// Whatever was in the way of messages is no more.
    pub(crate) fn calm_down(&mut self) {
        self.let_go();
        for id in 0..self.processes.len() {
            self.processes[id].delay = Duration::ZERO;
            self.processes[id].deaf_to = 0;
            self.processes[id].loses_next = false;
            if self.processes[id].alive {
                self.wake(id);
                self.reconnect(id);
                self.processes[id].participant.host_wakes();
            }
        }
    }

    /// The host's own connection to this peer broke.
    pub(crate) fn report_unreachable(&mut self, id: Id, name: &str) {
        let now = self.clock();
        let participant = &mut self.processes[id].participant;
        participant.report_unreachable(now, name);
    }

    pub(crate) fn set_tags(&mut self, id: Id, version: &str) {
        let now = self.clock();
        let process = &mut self.processes[id];
        process.tags = [("v", version)].into_iter().collect();
        let tags = wire::encode_tags(&process.tags);
        process.participant.roster.set_tags(tags, now);
    }

    /// Sends what anybody may say on the channel.
    pub(crate) fn inject(&mut self, payload: &str) {
        self.send(None, STRANGER, payload);
    }

    fn say(&mut self, id: Id, payload: &str) {
        let (pid, payload) = self.sign(id, None, payload);
        assert!(payload.len() <= wire::MAX_PAYLOAD);
        self.send(Some(id), pid, &payload);
    }

    fn answer(&mut self, id: Id, inbox: Inbox, payload: &str) {
        let (from, payload) = self.sign(id, Some(inbox), payload);
        assert!(payload.len() <= wire::MAX_PAYLOAD);
        if self.holds_up(Some(id), from, Some(inbox), &payload) {
            return;
        }
        self.send_from(from, inbox, &payload);
        let sent = Sent {
            at: self.now,
            by: Some(id),
            from,
            payload: payload.into(),
        };
        self.answers.push((inbox, sent));
    }

    pub(crate) fn sign(&mut self, id: Id, inbox: Option<Inbox>, payload: &str) -> (Pid, String) {
        let process = &mut self.processes[id];
        process.look_at_the_clock(self.now);
        let pid = process.pid.expect("a session");
        let inbox = inbox.map(Inbox::channel);
        let payload = payload.to_owned();
        let signed = process
            .seal
            .sign(process.clock, pid, inbox.as_deref(), payload);
        (pid, signed)
    }

    pub(crate) fn send(&mut self, by: Option<Id>, from: Pid, payload: &str) {
        if self.holds_up(by, from, None, payload) {
            return;
        }
        let payload: Arc<str> = payload.into();
        self.deliveries += self.deaf_online;
        for n in 0..self.listeners.len() {
            let what = What::Notification(from, Arc::clone(&payload));
            self.deliver(self.listeners[n], what);
        }
        if by.is_some() && payload.starts_with("pg-peers/1 bye ") {
            self.goodbyes.push(Arc::clone(&payload));
        }
        self.sent.push(Sent {
            at: self.now,
            by,
            from,
            payload,
        });
    }

    pub(crate) fn send_to(&mut self, inbox: Inbox, payload: &str) {
        self.send_from(STRANGER, inbox, payload);
    }

    pub(crate) fn send_from(&mut self, from: Pid, inbox: Inbox, payload: &str) {
        for n in 0..self.listeners.len() {
            let id = self.listeners[n];
            if self.processes[id].key == inbox {
                self.deliver(id, What::Answer(from, payload.into()));
            }
        }
    }

    fn deliver(&mut self, id: Id, what: What) {
        let process = &mut self.processes[id];
        if process.online && process.receive(self.now + self.latency, what) {
            self.deliveries += 1;
            self.plan(id);
        }
    }

    /// What Postgres tells of these backends: those that it does not have, and for how long the others have been idle.
    fn sessions(&mut self, asked: &[Pid]) -> (HashSet<Pid>, HashMap<Pid, Option<Duration>>) {
        self.checks += 1;
        let clock = self.now + self.server_is_ahead;
        let (mut missing, mut idle) = (HashSet::new(), HashMap::new());
        for &pid in asked {
            let served = place(pid).and_then(|place| self.sessions.get(place).copied().flatten());
            if let Some(id) = served {
                let process = &self.processes[id];
                let is_idle =
                    (!process.hidden).then(|| clock.saturating_sub(process.last_statement));
                idle.insert(pid, is_idle);
            } else if self.sessions_of_strangers.contains(&pid) {
                // Strangers say nothing on their sessions.
                idle.insert(pid, Some(self.now));
            } else {
                missing.insert(pid);
            }
        }
        (missing, idle)
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until it is so, which is looked at after each turn of a process. Returns whether that came to be before the
    /// time was over.
    pub(crate) fn run_until(&mut self, time: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        // Anything may have happened to anybody since.
        self.agenda.clear();
        for id in 0..self.processes.len() {
            self.processes[id].next_turn = None;
            self.plan(id);
        }
        let mut turns_now = 0;
        loop {
            let next = self.next_turn().filter(|&(at, _)| at <= end);
            let until = next.map_or(end, |(at, _)| at);
            if !self.held_up.is_empty() && self.held_up_until <= until {
                self.now = self.now.max(self.held_up_until);
                self.let_go();
                continue;
            }
            let Some((at, id)) = next else {
                break;
            };
            turns_now = if at > self.now { 0 } else { turns_now + 1 };
            assert!(turns_now < 10_000, "time stands still at {:?}", self.now);
            self.now = self.now.max(at);
            self.turn(id);
            self.plan(id);
            if is_so(self) {
                return true;
            }
        }
        self.now = end;
        self.tick_needlessly();
        false
    }

    /// Calls [`handle_timeout`](crate::core::roster::Roster::handle_timeout) when nothing is due, which is harmless.
    fn tick_needlessly(&mut self) {
        let (now, proven) = (self.clock(), self.proven());
        let processes = self.processes.iter_mut();
        for process in processes.filter(|process| process.paused_since.is_none()) {
            let roster = &mut process.participant.roster;
            let must_prove = roster.handle_timeout(now, proven);
            assert!(!must_prove || proven < now, "the link was proven just now");
            if !process.online {
                assert_eq!(roster.poll_timeout(), None);
                assert_eq!(roster.poll_announcement(now), None);
            }
            process.participant.settle();
        }
    }

    /// When links were last known to work.
    fn proven(&self) -> Instant {
        let is_held_up = self.now < self.held_up_until;
        self.epoch
            + if is_held_up {
                self.held_up_since
            } else {
                self.now
            }
    }

    fn next_turn(&mut self) -> Option<(Duration, Id)> {
        while let Some(&Reverse((at, id))) = self.agenda.peek() {
            if self.processes[id].next_turn == Some(at) {
                return Some((at, id));
            }
            self.agenda.pop();
        }
        None
    }

    fn plan(&mut self, id: Id) {
        let process = &self.processes[id];
        let awake = process.online && process.paused_since.is_none();
        let arrival = process.arrivals.front().map(|arrival| arrival.at);
        let timeout = process.participant.roster.poll_timeout();
        let timeout = timeout.map(|at| at.saturating_duration_since(self.epoch));
        let next = arrival.into_iter().chain(timeout).min();
        let next = next.filter(|_| awake).map(|at| at.max(process.busy_until));
        if next != process.next_turn {
            self.processes[id].next_turn = next;
            self.agenda.extend(next.map(|at| Reverse((at, id))));
        }
    }

    /// One turn of a process, as the library's thread does it: announce what is due, hear what waits, and only then see which
    /// peers are overdue.
    fn turn(&mut self, id: Id) {
        let now = self.clock();
        let hears = self.processes[id].hears;
        while let Some(mut message) = self.processes[id].participant.roster.poll_announcement(now) {
            if let (Body::Announce(announce), false) = (&mut message.body, hears) {
                // It would say that it knows nobody.
                announce.digest = None;
            }
            let payload = wire::encode(&message);
            if std::mem::take(&mut self.processes[id].loses_next) {
                return self.disconnect(id);
            }
            self.say(id, &payload);
            self.wait_for_the_server(id, self.held_up_until);
            if self.now < self.held_up_until {
                // It does nothing else until then.
                return;
            }
            let process = &mut self.processes[id];
            let sent = self.epoch + process.busy_until;
            process.participant.roster.handle_sent(sent);
        }
        if self.processes[id].participant.roster.poll_beat(now) {
            self.wait_for_the_server(id, self.now);
        }
        if let Some(piece) = self.processes[id].participant.roster.poll_answer(now) {
            let signed = |payload: &String| payload.len() + wire::LONGEST_SIGNATURE;
            let bytes: usize = piece.payloads.iter().map(signed).sum();
            assert!(bytes <= 16_000, "{bytes} bytes in one statement");
            for payload in piece.payloads {
                self.answer(id, piece.inbox, &payload);
            }
            self.wait_for_the_server(id, self.held_up_until);
            if self.now < self.held_up_until {
                return;
            }
        }
        let pids = self.processes[id]
            .participant
            .roster
            .poll_session_check(now);
        if let Some(pids) = pids {
            // The answer comes after all that was sent before it.
            let (missing, idle) = self.sessions(&pids);
            let seen = !self.processes[id].hidden;
            let took = self.latency + self.processes[id].delay;
            let look = Look { asked: now, took };
            let sessions = What::Sessions(look, missing, idle, seen);
            self.processes[id].receive(self.now + self.latency, sessions);
            self.wait_for_the_server(id, self.now);
        }
        let proven = self.proven();
        let process = &mut self.processes[id];
        process.look_at_the_clock(self.now);
        process.hear(now, self.now);
        let participant = &mut process.participant;
        if self.now < self.loud_until {
            participant.roster.handle_loud(Some(now + LOUD));
        }
        let must_prove = participant.roster.handle_timeout(now, proven);
        participant.settle();
        if must_prove {
            assert!(proven < now, "the link was proven just now");
            self.wait_for_the_server(id, self.held_up_until);
            let answered = self.epoch + self.processes[id].busy_until;
            self.processes[id]
                .participant
                .roster
                .handle_notify(answered);
        }
        self.turns += 1;
        // To look at everything takes long where there are many.
        if self.turns % (1 + self.processes.len() / 20) == 0 {
            self.processes[id].participant.check();
        }
    }

    /// A statement of this process went out, and its thread waits until the server has answered, which it does not do before that
    /// time.
    fn wait_for_the_server(&mut self, id: Id, not_before: Duration) {
        let process = &mut self.processes[id];
        let sent = self.now.max(not_before);
        if !process.stands_still {
            process.last_statement = sent + self.server_is_ahead;
        }
        process.busy_until = sent + self.latency + process.delay;
        let (answered, took) = (
            self.epoch + process.busy_until,
            process.busy_until - self.now,
        );
        process.participant.roster.handle_round_trip(answered, took);
    }

    pub(crate) fn clock(&self) -> Instant {
        self.epoch + self.now
    }

    /// What the host of this process was told since the last call.
    pub(crate) fn told(&mut self, id: Id) -> Vec<String> {
        std::mem::take(&mut self.processes[id].participant.transcript)
    }

    /// Which peers are there, as this process sees it.
    pub(crate) fn seen_by(&self, id: Id) -> Vec<String> {
        let shown = self.processes[id].participant.roster.peer_infos();
        described(shown.iter().map(|shown| &shown.peer))
    }

    pub(crate) fn incarnation(&self, id: Id) -> u64 {
        let incarnation = self.processes[id].participant.roster.incarnation();
        incarnation.expect("announced in full").get()
    }

    /// The processes that announce themselves on this channel, without those that have the name of this one.
    pub(crate) fn truth_for(&self, id: Id) -> Vec<String> {
        let own = self.processes[id].style.map(|_| &self.processes[id].name);
        let others = self.processes.iter().filter(|process| {
            let namesake = Some(&process.name) == own;
            process.announces() && !namesake
        });
        let mut truth: Vec<_> = others.map(Process::describe).collect();
        truth.sort();
        truth
    }

    pub(crate) fn sent_by(&self, id: Id) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(move |sent| sent.by == Some(id))
    }

    pub(crate) fn count_sent_by(&self, id: Id) -> usize {
        self.sent_by(id).count()
    }
}

/// Where a backend stands in [`Net::sessions`].
fn place(pid: Pid) -> Option<usize> {
    usize::try_from(pid.get()).ok()?.checked_sub(FIRST_PID)
}
