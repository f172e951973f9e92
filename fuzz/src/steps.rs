//! The core, step by step, with a host behind it that checks what it is told.
//!
//! An input is text, a step a line, so that a seed can be read and written by hand. The first byte says what happens, those
//! after it how; a digit stands for its number, any other byte for its distance from `0`, and one that is missing is a `0`.
//! The first line sets up the participant; see [`Setup::read`]. Then there are:
//!
//! | step | what happens |
//! |---|---|
//! | `P` sender payload | this payload is heard |
//! | `A` payload | this payload comes to the inbox |
//! | `m` kind name incarnation seq due pid inbox tag sender | such a message is heard |
//! | `a` part parts, then five each: name incarnation seq due age | such an answer comes |
//! | `e` which pid | what was said, heard or answered so long before is heard again |
//! | `w` hundredths of a second, `W` seconds, `M` minutes | that time passes |
//! | `Z` seconds | that time passes while the process is paused |
//! | `u` pid, `d` | the link comes up, with this backend; goes down |
//! | `c` mask | from now on these backends are missing when Postgres is asked |
//! | `l` name | the host lost its connection to that peer |
//! | `t` version | other tags |
//! | `s`, `h` count, `k` | the host sleeps; takes this many events all the same; wakes |
//! | `g` | goodbye; nothing comes after |

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::core::presence::{Presence, Style};
use crate::core::roster::checks::peers;
use crate::core::roster::{Limits, Roster};
use crate::core::stillness::Look;
use crate::core::wire::{self, Body, Inbox, Pid};
use crate::jitter::Jitter;
use crate::peer::{Incarnation, Tags};
use crate::simulator::net::{LATENCY, PAUSE};
use crate::simulator::participant::Participant;

pub(crate) const OWN_NAME: &str = "me@h";
pub(crate) const INBOX: u64 = 0xc0ff_ee01_2345_6789;

/// Steps beyond these take time, and show nothing new.
const MAX_STEPS: usize = 300;

/// What may be due at one time: corrections, deaths and queries of this many names.
const AT_ONE_TIME: usize = 150;

/// How many turns one step may take.
const TURNS: usize = 200;

const DUE: [u64; 6] = [1_000, 1, 100, 5_000, 60_000, 86_400_000];

/// Whatever the steps are: no panic, bounds hold, the host is told what is true, time goes on.
pub fn core(input: &[u8]) {
    let mut lines = input.split(|&b| b == b'\n');
    let setup = lines.next().unwrap_or_default();
    let mut process = Process::new(&Setup::read(&Args(setup)));
    for line in lines.take(MAX_STEPS) {
        let Some((&step, operands)) = line.split_first() else {
            continue;
        };
        if step == b'g' {
            break;
        }
        process.step(step, operands);
        process.settle();
    }
    process.end();
}

/// The operands of a step.
pub(crate) struct Args<'a>(pub(crate) &'a [u8]);

impl Args<'_> {
    pub(crate) fn get(&self, at: usize) -> u8 {
        self.0.get(at).map_or(0, |byte| byte.wrapping_sub(b'0'))
    }

    pub(crate) fn number(&self, at: usize) -> u64 {
        self.get(at).into()
    }

    pub(crate) fn pick<T: Copy>(&self, at: usize, of: &[T]) -> T {
        of[usize::from(self.get(at)) % of.len()]
    }

    /// Mostly small, sometimes as large as it gets.
    fn extreme(&self, at: usize) -> u64 {
        match self.number(at) {
            small @ 0..=127 => small,
            large => u64::MAX - (255 - large),
        }
    }

    fn name(&self, at: usize) -> String {
        match self.get(at) % 64 {
            0 => OWN_NAME.to_owned(),
            n => format!("p{n}@h"),
        }
    }

    fn due(&self, at: usize) -> u64 {
        self.pick(at, &DUE)
    }

    pub(crate) fn pid(&self, at: usize) -> i32 {
        1_000 + i32::from(self.get(at) % 16)
    }
}

/// How the process takes part.
struct Setup {
    style: Option<Style>,
    limits: Limits,
    incarnation: u64,
    seed: u64,
}

impl Setup {
    /// style, max_peers, max_departed, heartbeat, missed, budget, session check, incarnation, seed
    fn read(args: &Args<'_>) -> Self {
        let heartbeat = Duration::from_millis(args.pick(3, &[1_000, 100, 5_000, 60_000]));
        Self {
            style: args.pick(0, &[Some(Style::Full), Some(Style::Bare), None]),
            limits: Limits {
                heartbeat,
                delivery_budget: args.pick(5, &[2_000, 1, 100]),
                session_check: args.get(6) % 2 == 0,
                observer_asks: args.get(0) % 2 == 0,
                bare_heartbeat: heartbeat,
                missed: u32::from(args.pick(4, &[3u8, 1, 10])),
                max_peers: args.pick(1, &[100, 1, 2, 5]),
                max_departed: args.pick(2, &[100, 1, 2, 5]),
            },
            incarnation: args.extreme(7),
            seed: args.number(8),
        }
    }
}

/// When Postgres was asked for sessions, which of them it does not have, and for how long the others have been idle.
type Sessions = (Look, HashSet<Pid>, HashMap<Pid, Option<Duration>>);

struct Process {
    now: Instant,
    began: Instant,
    style: Option<Style>,
    observer_asks: bool,
    heartbeat: Duration,
    /// Those that leave may be forgotten soon, and then are newcomers.
    forgetful: bool,
    participant: Participant,
    /// Its session.
    link: Option<Pid>,
    /// Everything that was said by anybody.
    said: Vec<(Pid, String)>,
    /// The backends of others that the server does not have.
    dead: u8,
    /// Postgres was asked then, and had not these.
    sessions: Option<Sessions>,
}

impl Process {
    fn new(setup: &Setup) -> Self {
        let inbox = Inbox::new(INBOX);
        let presence = setup.style.map(|style| {
            let incarnation = Incarnation::new(setup.incarnation);
            Presence::new(OWN_NAME.into(), incarnation, style, String::new())
        });
        let jitter = Jitter::new(setup.seed);
        let now = Instant::now();
        let mut process = Self {
            now,
            began: now,
            style: setup.style,
            observer_asks: setup.limits.observer_asks,
            heartbeat: setup.limits.heartbeat,
            forgetful: false,
            participant: Participant::new(Roster::new(
                presence,
                inbox,
                setup.limits.clone(),
                jitter,
            )),
            link: None,
            said: Vec::new(),
            dead: 0,
            sessions: None,
        };
        if setup.limits.max_departed < 100 {
            process.may_forget();
        }
        process
    }

    fn step(&mut self, step: u8, operands: &[u8]) {
        let args = Args(operands);
        match step {
            b'P' => {
                if let Some((_, payload)) = operands.split_first() {
                    let payload = String::from_utf8_lossy(payload);
                    self.hear(args.pid(0), &payload);
                }
            }
            b'A' => self.hear_answer(&String::from_utf8_lossy(operands)),
            b'm' => self.hear(args.pid(8), &message(&args)),
            b'a' => self.hear_answer(&answer(&args)),
            b'e' => {
                let at = self.said.len().checked_sub(1 + usize::from(args.get(0)));
                if let Some((from, payload)) = at.and_then(|at| self.said.get(at)).cloned() {
                    let from = if args.get(1) == 0 {
                        from.get()
                    } else {
                        args.pid(1)
                    };
                    self.hear(from, &payload);
                    self.hear_answer(&payload);
                }
            }
            b'w' => self.wait(Duration::from_millis(10 * args.number(0))),
            b'W' => self.wait(Duration::from_secs(args.number(0))),
            b'M' => self.wait(Duration::from_secs(60 * args.number(0))),
            b'Z' => self.pause(Duration::from_secs(args.number(0))),
            b'u' => self.link_up(args.get(0)),
            b'd' => self.link_down(),
            b'c' => self.dead = args.get(0),
            b'l' => self.participant.report_unreachable(self.now, &args.name(0)),
            b't' => {
                let tags: Tags = [("v", args.get(0).to_string())].into_iter().collect();
                self.participant
                    .roster
                    .set_tags(wire::encode_tags(&tags), self.now);
            }
            b's' => self.participant.host_sleeps(),
            b'h' => self.participant.host_takes(args.get(0).into()),
            b'k' => self.participant.host_wakes(),
            _ => {}
        }
    }

    fn link_up(&mut self, pid: u8) {
        if self.link.is_none() {
            self.link = Pid::new(100 + i32::from(pid));
            self.participant.link_up(self.now, self.link);
        }
    }

    fn link_down(&mut self) {
        if self.link.take().is_some() {
            self.sessions = None;
            self.participant.link_down();
        }
    }

    fn hear(&mut self, sender: i32, payload: &str) {
        let (Some(_), Some(sender)) = (self.link, Pid::new(sender)) else {
            return;
        };
        let Some(message) = wire::decode(payload) else {
            return;
        };
        if message.body == Body::Bare {
            self.may_forget();
        }
        self.participant
            .roster
            .handle_message(self.now, sender, &message);
        self.remember(sender, payload.to_owned());
    }

    /// Answers of different lengths come from different members.
    fn hear_answer(&mut self, payload: &str) {
        if let (Some(_), Some(part)) = (self.link, wire::decode_roster(payload)) {
            let sender = Pid::new(1 + (part.parts % 8) as i32).expect("above zero");
            let roster = &mut self.participant.roster;
            roster.handle_sync_part(self.now, sender, &part);
        }
    }

    fn remember(&mut self, from: Pid, payload: String) {
        self.said.push((from, payload));
    }

    /// Time passes, with a turn whenever something is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        self.forget_in_time(end);
        let (mut turns, mut still, mut announced) = (0, 0, 0);
        let began = self.now;
        while let Some(at) = self
            .participant
            .roster
            .poll_timeout()
            .filter(|&at| at <= end)
        {
            still = if at > self.now { 0 } else { still + 1 };
            assert!(still < AT_ONE_TIME, "time stands still");
            self.now = self.now.max(at);
            announced += self.turn();
            turns += 1;
            if turns == TURNS {
                break;
            }
        }
        let intervals = (self.now - began).as_millis() / self.heartbeat.as_millis();
        // What brings one forward comes from others, and they say nothing here.
        assert!(announced <= 10 + 2 * intervals, "{announced} announcements");
        if turns < TURNS {
            self.now = self.now.max(end);
        }
        if self.link.is_some() {
            assert!(
                !self.participant.roster.handle_timeout(self.now, self.now),
                "the link was proven"
            );
        }
    }

    /// Time passes, and the process notices nothing of it.
    fn pause(&mut self, time: Duration) {
        self.now += time;
        self.forget_in_time(self.now);
        if time > PAUSE {
            self.participant.roster.handle_pause(self.now);
        }
    }

    /// As the thread's: says what is due, has heard what was waiting, and only then sees who is overdue. Returns how many
    /// times it announced itself.
    fn turn(&mut self) -> u128 {
        let Some(own) = self.link else {
            return 0;
        };
        let began = self.now;
        let mut announced = 0;
        let mut said = Vec::new();
        while let Some(message) = self.participant.roster.poll_announcement(began) {
            let announces = matches!(message.body, Body::Announce(_) | Body::Bare);
            announced += u128::from(announces);
            assert!(!self.participant.silenced || matches!(message.body, Body::Query { .. }));
            assert!(self.style.is_some() || self.observer_asks);
            let payload = wire::encode(&message);
            let heard = wire::decode(&payload).expect("our own message");
            assert_eq!(heard.name, message.name);
            assert!(!announces || (self.style.is_some() && heard.name == OWN_NAME));
            said.push((own, payload));
            assert!(said.len() < AT_ONE_TIME, "there is no end of it");
        }
        if !said.is_empty() {
            self.now += LATENCY;
            self.participant.roster.handle_sent(self.now);
        }
        for (_, payload) in &said {
            assert!(payload.len() <= wire::MAX_PAYLOAD);
        }
        self.said.extend(said);
        if self.participant.roster.poll_beat(self.now) {
            self.now += LATENCY;
            let roster = &mut self.participant.roster;
            roster.handle_round_trip(self.now, LATENCY);
            assert!(!roster.poll_beat(self.now), "one is enough");
        }
        self.answer(own);
        if self.sessions.is_none() {
            if let Some(pids) = self.participant.roster.poll_session_check(self.now) {
                let (dead, there): (Vec<Pid>, Vec<Pid>) =
                    pids.into_iter().partition(|&pid| self.is_dead(pid));
                let idle = there.into_iter().map(|pid| (pid, Self::idle(pid)));
                let (asked, took) = (self.now, LATENCY);
                let look = Look { asked, took };
                self.sessions = Some((look, HashSet::from_iter(dead), idle.collect()));
            }
        }
        let overdue = self
            .participant
            .roster
            .handle_timeout(self.now, began - LATENCY);
        if let Some((look, missing, idle)) = self.sessions.take() {
            self.participant
                .roster
                .handle_session_check(self.now, look, &missing, &idle, true);
        }
        if overdue {
            assert!(
                !self.participant.roster.handle_timeout(self.now, self.now),
                "the link was proven"
            );
        }
        self.settle();
        announced
    }

    fn answer(&mut self, own: Pid) {
        let mut count = 0;
        let mut payloads = Vec::new();
        while let Some(piece) = self.participant.roster.poll_answer(self.now) {
            assert!(!self.participant.silenced && self.style == Some(Style::Full));
            let bytes: usize = piece.payloads.iter().map(String::len).sum();
            assert!((1..=16_000).contains(&bytes));
            payloads.extend(piece.payloads);
            if !piece.is_last {
                continue;
            }
            let (mut named, mut there) = (HashSet::new(), 0);
            for (payload, number) in payloads.iter().zip(1..) {
                assert!(payload.len() <= wire::MAX_PAYLOAD);
                let part = wire::decode_roster(payload).expect("our own answer");
                assert_eq!((part.part, part.parts), (number, payloads.len() as u64));
                for message in &part.members {
                    assert!(named.insert(message.name.to_string()), "once each");
                    there += usize::from(matches!(message.body, Body::Announce(_)));
                }
            }
            assert!(named.contains(OWN_NAME));
            assert!(there <= peers(&self.participant.roster).count() + 1);
            for payload in payloads.drain(..) {
                self.remember(own, payload);
            }
            count += 1;
            assert!(count < AT_ONE_TIME);
        }
    }

    /// For how long a backend has been idle that is there.
    fn idle(pid: Pid) -> Option<Duration> {
        match pid.get() % 3 {
            0 => None,
            1 => Some(Duration::ZERO),
            _ => Some(Duration::from_secs(20)),
        }
    }

    fn is_dead(&self, pid: Pid) -> bool {
        let bit = pid.get().wrapping_sub(1_000);
        !(0..8).contains(&bit) || self.dead & (1 << bit) != 0
    }

    fn settle(&mut self) {
        self.participant.settle();
        self.participant.check();
    }

    fn may_forget(&mut self) {
        if !std::mem::replace(&mut self.forgetful, true) {
            let host = std::mem::take(&mut self.participant.host);
            self.participant.host = host.forgotten_peers_may_join_again();
        }
    }

    /// The departed are remembered for an hour.
    fn forget_in_time(&mut self, until: Instant) {
        if until - self.began >= Duration::from_secs(60 * 60) {
            self.may_forget();
        }
    }

    fn end(mut self) {
        self.participant.host_wakes();
        let Some(message) = self.participant.roster.goodbye() else {
            return;
        };
        assert!(!self.participant.silenced);
        let payload = wire::encode(&message);
        assert!(wire::decode(&payload).is_some_and(|heard| heard == message));
        while let Some(message) = self.participant.roster.poll_announcement(self.now) {
            let announces = matches!(message.body, Body::Announce(_) | Body::Bare);
            assert!(!announces, "the goodbye was the last");
        }
    }
}

pub(crate) fn message(args: &Args<'_>) -> String {
    let name = args.name(1);
    let (incarnation, seq) = (args.extreme(2), args.extreme(3));
    let kind = args.get(0) % 7;
    let inbox = args.number(6);
    match kind {
        0 | 1 => {
            let kind = if kind == 0 { "hello" } else { "beat" };
            let due = args.due(4);
            let mut text =
                format!("pg-peers/1 {kind} name={name} inc={incarnation} seq={seq} due={due}");
            if args.get(5) > 0 {
                // The backend of its session, or another one.
                let pid = if args.get(5) == 1 {
                    args.pid(8)
                } else {
                    args.pid(5)
                };
                put(&mut text, format_args!(" pid={pid}"));
            }
            if inbox > 0 {
                put(&mut text, format_args!(" inbox={inbox:016x}"));
            }
            if args.get(7) > 0 {
                put(&mut text, format_args!(" tag.v={}", args.get(7)));
            }
            text.push(';');
            text
        }
        2 => format!("pg-peers/1 bye name={name} inc={incarnation} seq={seq};"),
        3 => format!("pg-peers/1 newer name={name} inc={incarnation};"),
        4 => format!("pg-peers/1 gone name={name} inc={incarnation} seq={seq};"),
        5 => format!("pg-peers/1 ask name={name} inbox={inbox:016x} try={seq};"),
        _ => name,
    }
}

pub(crate) fn answer(args: &Args<'_>) -> String {
    let (part, parts) = (args.number(0), args.number(1));
    let mut text = format!("pg-peers/1 roster part={part} parts={parts};");
    for entry in args.0.get(2..).unwrap_or_default().chunks_exact(5) {
        let entry = Args(entry);
        let (name, due) = (entry.name(0), entry.due(3));
        let (incarnation, seq) = (entry.extreme(1), entry.extreme(2));
        let age = entry.extreme(4).saturating_mul(100);
        let pid = entry.pid(2);
        put(
            &mut text,
            format_args!(" name={name} inc={incarnation} seq={seq} due={due} age={age} pid={pid};"),
        );
    }
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what)
        .expect("a String takes what is written to it");
}
