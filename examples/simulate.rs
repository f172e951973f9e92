//! Clusters too large for one machine, in virtual time, over the library's own core.
//!
//! ```text
//! cargo run --release --example simulate                       # 100 and 1,000 members
//! cargo run --release --example simulate -- --members 10000    # and 10,000
//! ```
//!
//! Every member announces itself by the real rules. Those that also hear (the oldest, which look after sessions, every
//! newcomer, and a sample of the others) keep the whole roster; what a roster of ten thousand takes, ten thousand times,
//! no machine has. A newcomer's inbox is drawn so that one of them is the member that has to answer it.
//!
//! The core is private, so its modules are compiled into this program.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "modules of the library, of which a part is used here"
)]

include!("../tests/support/internals.rs");

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::core::presence::{Presence, Style};
use crate::core::roster::{Kind, Limits, Roster};
use crate::core::wire::{self, Body, Inbox, Pid};
use crate::jitter::Jitter;
use crate::peer::Incarnation;

const HEARTBEAT: Duration = Duration::from_secs(5);
const BUDGET: u32 = 1_800;

/// From NOTIFY to its receipt.
const LATENCY: Duration = Duration::from_millis(2);

/// Deaths and joins that are measured.
const ROUNDS: usize = 20;

#[derive(Parser)]
struct Arguments {
    /// The largest cluster
    #[arg(long, default_value_t = 1_000)]
    members: usize,
    /// Members that hear, beside the oldest
    #[arg(long, default_value_t = 90)]
    witnesses: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let arguments = Arguments::parse();
    println!(
        "| members | interval | deliveries/s | join: whole roster after | join: deliveries | killed: gone at all after, p50 | max | tenth killed at once: gone after |\n\
         |--------:|---------:|-------------:|-------------------------:|-----------------:|-------------------------------:|----:|---------------------------------:|"
    );
    let sizes = [100, 1_000, 10_000, 100_000];
    let smaller = sizes.into_iter().filter(|&size| size < arguments.members);
    for size in smaller.chain([arguments.members]) {
        let mut simulation = Simulation::start(size, &arguments);
        let interval = simulation.interval();
        let deliveries = simulation.steady_state();
        let (joined, caused) = simulation.joins();
        let mut gone = simulation.deaths();
        gone.sort();
        let crowd = simulation.kill_at_once((size / 10).min(100));
        println!(
            "| {size:7} | {:8.1?} | {deliveries:12.0} | {joined:24.1?} | {:14.2} N | {:30.2?} | {:.2?} | {crowd:32.2?} |",
            interval,
            caused / size as f64,
            gone[gone.len() / 2],
            gone[gone.len() - 1],
        );
    }
}

/// A member keeps its place when it is dead; its number is its age, and its backend.
type Id = usize;

struct Member {
    name: String,
    incarnation: Incarnation,
    inbox: Inbox,
    roster: Roster,
    alive: bool,
    /// Whether it hears.
    hears: bool,
    /// For when its next turn is planned.
    wakes: Option<Instant>,
    /// Until then it waits for its own notification.
    busy: Instant,
    /// Whom it knows.
    known: HashSet<Arc<str>>,
}

enum Happening {
    Wake(Id),
    Notification(Pid, String),
    Answer(Id, Vec<String>),
    Sessions(Id, Instant, HashSet<Pid>),
}

struct Simulation {
    now: Instant,
    /// What happens when; the number keeps the order of what happens at the same time.
    agenda: BinaryHeap<Reverse<(Instant, usize)>>,
    happenings: std::collections::HashMap<usize, Happening>,
    planned: usize,
    members: Vec<Member>,
    deliveries: usize,
    dice: Jitter,
}

fn backend(id: Id) -> Pid {
    i32::try_from(id + 1)
        .ok()
        .and_then(Pid::new)
        .expect("a number above zero")
}

impl Simulation {
    /// A cluster whose members have known each other for long.
    fn start(size: usize, arguments: &Arguments) -> Self {
        let mut simulation = Self {
            now: Instant::now(),
            agenda: BinaryHeap::new(),
            happenings: std::collections::HashMap::new(),
            planned: 0,
            members: Vec::new(),
            deliveries: 0,
            dice: Jitter::new(arguments.seed),
        };
        let interval = Duration::from_secs_f64((size * size) as f64 / f64::from(BUDGET));
        let every = size.div_ceil(arguments.witnesses.max(1));
        for id in 0..size {
            let hears = id < 10 || id % every == 0;
            // Those that do not hear do not know how many they are.
            let heartbeat = if hears {
                HEARTBEAT
            } else {
                interval.max(HEARTBEAT)
            };
            let inbox = Inbox::new(id as u64);
            simulation.add(hears, heartbeat, inbox);
        }
        for id in 0..size {
            let hello = simulation.say_hello(id);
            let mut message = wire::decode(&hello).expect("a hello");
            if let Body::Announce(announce) = &mut message.body {
                // Long ago, so nobody is to answer it now.
                (announce.hello, announce.inbox) = (false, None);
            }
            let now = simulation.now;
            for other in simulation.members.iter_mut().filter(|member| member.hears) {
                other.roster.handle_message(now, backend(id), &message);
                other.take_changes();
            }
        }
        for id in 0..size {
            let settled =
                wire::decode_roster("pg-peers/1 roster part=1 parts=1;").expect("an answer");
            let now = simulation.now;
            simulation.members[id]
                .roster
                .handle_sync_part(now, &settled);
            simulation.plan_turn(id);
        }
        // Long enough for announcements that still follow a shorter interval.
        simulation.run(interval.max(HEARTBEAT) * 2);
        simulation
    }

    fn add(&mut self, hears: bool, heartbeat: Duration, inbox: Inbox) -> Id {
        let id = self.members.len();
        let name = format!("worker-{id}@10.0.0.1:7000");
        let incarnation = Incarnation::new(1_795_000_000_000_000 + id as u64);
        let tags = "tag.zone=eu-1".to_owned();
        let presence = Presence::new(name.as_str().into(), incarnation, Style::Full, tags, inbox);
        let limits = Limits {
            heartbeat,
            delivery_budget: BUDGET,
            session_check: hears,
            observer_asks: true,
            bare_heartbeat: HEARTBEAT,
            missed: 3,
            max_peers: 1_000_000,
            max_departed: 10_000,
        };
        let mut roster = Roster::new(Some(presence), inbox, limits, Jitter::new(id as u64));
        roster.handle_link_up(self.now, Some(backend(id)));
        self.members.push(Member {
            name,
            incarnation,
            inbox,
            roster,
            alive: true,
            hears,
            wakes: None,
            busy: self.now,
            known: HashSet::new(),
        });
        id
    }

    fn say_hello(&mut self, id: Id) -> String {
        let hello = self.members[id].roster.poll_announcement(self.now);
        wire::encode(&hello.expect("a hello"))
    }

    fn interval(&self) -> Duration {
        self.members[0].roster.interval()
    }

    /// Deliveries a second, over a whole interval.
    fn steady_state(&mut self) -> f64 {
        let before = self.deliveries;
        let time = self.interval();
        self.run(time);
        (self.deliveries - before) as f64 / time.as_secs_f64()
    }

    /// The longest that a newcomer waits for the whole roster, and the deliveries that it causes on average.
    fn joins(&mut self) -> (Duration, f64) {
        let (mut longest, mut caused) = (Duration::ZERO, 0);
        for _ in 0..ROUNDS {
            let pause = self.dice.between(0.0, HEARTBEAT);
            self.run(pause);
            let there = self.alive().count();
            let inbox = self.answerable_inbox();
            // It says hello, and nothing more in the time that is measured.
            let (start, before) = (self.now, self.deliveries);
            let id = self.add(true, self.interval(), inbox);
            self.plan_turn(id);
            self.run_until(HEARTBEAT, |simulation| {
                simulation.members[id].known.len() == there
            });
            longest = longest.max(self.now - start);
            caused += self.deliveries - before;
        }
        (longest, caused as f64 / ROUNDS as f64)
    }

    /// How long until all know of a death, for some deaths: of the oldest, and of any.
    fn deaths(&mut self) -> Vec<Duration> {
        let time = |simulation: &mut Self, round: usize| {
            let pause = simulation.dice.between(0.0, HEARTBEAT);
            simulation.run(pause);
            let alive: Vec<Id> = simulation.alive().collect();
            let victim = match round {
                0..3 => alive[0],
                _ => alive[simulation.roll(alive.len())],
            };
            simulation.kill(&[victim])
        };
        (0..ROUNDS).map(|round| time(self, round)).collect()
    }

    fn kill_at_once(&mut self, count: usize) -> Duration {
        let mut alive: Vec<Id> = self.alive().collect();
        let victims: Vec<Id> = (0..count)
            .map(|_| alive.swap_remove(self.roll(alive.len())))
            .collect();
        self.kill(&victims)
    }

    /// Kills these, and returns how long it took until nobody knows any of them.
    fn kill(&mut self, victims: &[Id]) -> Duration {
        let start = self.now;
        for &victim in victims {
            self.members[victim].alive = false;
        }
        let names: Vec<String> = victims
            .iter()
            .map(|&id| self.members[id].name.clone())
            .collect();
        self.run_until(HEARTBEAT * 10, |simulation| {
            let hearing = simulation
                .members
                .iter()
                .filter(|member| member.alive && member.hears);
            hearing
                .into_iter()
                .all(|member| !names.iter().any(|name| member.known.contains(&**name)))
        });
        self.now - start
    }

    fn alive(&self) -> impl Iterator<Item = Id> {
        self.members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.alive)
            .map(|(id, _)| id)
    }

    fn roll(&mut self, bound: usize) -> usize {
        let roll = self.dice.between(0.0, Duration::from_secs(bound as u64));
        roll.as_secs() as usize % bound
    }

    /// One whose first in rank hears.
    fn answerable_inbox(&mut self) -> Inbox {
        loop {
            let number = self
                .dice
                .between(0.0, Duration::from_secs(1 << 34))
                .as_nanos() as u64;
            let inbox = Inbox::new(number);
            let alive = self.members.iter().filter(|member| member.alive);
            let first = alive.min_by_key(|member| inbox.rank(&member.name, member.incarnation));
            if first.is_some_and(|member| member.hears) {
                return inbox;
            }
        }
    }

    fn plan(&mut self, at: Instant, happening: Happening) {
        self.planned += 1;
        self.happenings.insert(self.planned, happening);
        self.agenda.push(Reverse((at, self.planned)));
    }

    fn plan_turn(&mut self, id: Id) {
        let member = &mut self.members[id];
        let due = member.roster.poll_timeout();
        let due = due.map(|due| due.max(self.now).max(member.busy));
        if let Some(due) = due {
            if member.wakes.is_none_or(|planned| due < planned) {
                member.wakes = Some(due);
                self.plan(due, Happening::Wake(id));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Until it is so, or that time is over.
    fn run_until(&mut self, time: Duration, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + time;
        while let Some(&Reverse((at, number))) = self.agenda.peek() {
            if at > end {
                break;
            }
            self.agenda.pop();
            self.now = self.now.max(at);
            let happening = self.happenings.remove(&number).expect("what was planned");
            let changes = !matches!(happening, Happening::Wake(_));
            self.happen(happening);
            if changes && is_so(self) {
                return;
            }
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Wake(id) => {
                self.members[id].wakes = None;
                self.turn(id);
            }
            Happening::Notification(sender, payload) => {
                let message = wire::decode(&payload).expect("ours");
                for id in 0..self.members.len() {
                    let member = &mut self.members[id];
                    self.deliveries += usize::from(member.alive);
                    if member.alive && member.hears && backend(id) != sender {
                        member.roster.handle_message(now, sender, &message);
                        member.take_changes();
                        self.plan_turn(id);
                    }
                }
            }
            Happening::Answer(id, payloads) => {
                for payload in &payloads {
                    self.deliveries += 1;
                    let part = wire::decode_roster(payload).expect("an answer");
                    self.members[id].roster.handle_sync_part(now, &part);
                    self.members[id].take_changes();
                }
                self.plan_turn(id);
            }
            Happening::Sessions(id, asked, missing) => {
                self.members[id]
                    .roster
                    .handle_session_check(now, asked, &missing);
                self.members[id].take_changes();
                self.plan_turn(id);
            }
        }
    }

    /// As the library's thread does it.
    fn turn(&mut self, id: Id) {
        let now = self.now;
        if !self.members[id].alive {
            return;
        }
        while let Some(message) = self.members[id].roster.poll_announcement(now) {
            let payload = wire::encode(&message);
            self.members[id].busy = now + LATENCY;
            self.members[id].roster.handle_sent(now + LATENCY);
            self.plan(now + LATENCY, Happening::Notification(backend(id), payload));
        }
        while let Some((inbox, payloads)) = self.members[id].roster.poll_answer(now) {
            let asker = self.members.iter().position(|member| member.inbox == inbox);
            self.plan(
                now + LATENCY,
                Happening::Answer(asker.expect("who asked"), payloads),
            );
        }
        if let Some(pids) = self.members[id].roster.poll_session_check(now) {
            let gone = |pid: &Pid| !self.members[pid.get() as usize - 1].alive;
            let missing = pids.into_iter().filter(gone).collect();
            self.plan(now + LATENCY, Happening::Sessions(id, now, missing));
        }
        let overdue = self.members[id].roster.handle_timeout(now, now);
        assert!(!overdue, "the link works");
        self.members[id].take_changes();
        self.plan_turn(id);
    }
}

impl Member {
    fn take_changes(&mut self) {
        while let Some(change) = self.roster.poll_change() {
            let name = change.peer.shared_name();
            match change.kind {
                Kind::Joined | Kind::Returned => assert!(self.known.insert(name), "{change:?}"),
                Kind::Left(event::Reason::SessionGone) => {
                    assert!(self.known.remove(&name), "{change:?}")
                }
                other => panic!("nothing else happens, but {other:?}"),
            }
        }
    }
}
