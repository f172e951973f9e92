//! Clusters too large for one machine, in virtual time, over the library's own core.
//!
//! ```text
//! cargo run --release --example simulate                       # 100 and 1,000 members
//! cargo run --release --example simulate -- --members 10000    # and 10,000: takes 15 minutes
//! ```
//!
//! Every member announces itself by the real rules. The oldest, which check sessions, every newcomer, and a sample of the
//! others also hear, and keep the whole roster. No machine has the memory for ten thousand rosters of ten thousand. A
//! newcomer's inbox is drawn so that the member that has to answer it is one that hears.
//!
//! The channel is that of the tests of the core, in `src/simulator`. The core is private, so its modules are compiled into
//! this program.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "modules of the library, of which a part is used here"
)]

include!("../tests/support/internals.rs");

use std::time::Duration;

use clap::Parser;

use crate::core::wire::{self, Body, Inbox, Question};
use crate::jitter::Jitter;
use crate::peer::Incarnation;
use crate::simulator::net::{Id, Net, STRANGER};
use crate::simulator::process::Process;
use crate::simulator::setup::Setup;

const HEARTBEAT: Duration = Duration::from_secs(5);
const BUDGET: u32 = 200;

/// From NOTIFY to its receipt.
const LATENCY: Duration = Duration::from_millis(2);

/// The longest that a cluster is let alone before anything is measured.
const SETTLED: Duration = Duration::from_secs(60 * 60);

/// Deaths and joins that are measured.
const ROUNDS: usize = 20;

/// Departures that are measured: to find a member that hears to ask takes long.
const FEW_ROUNDS: usize = 3;

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
        "| members | interval | deliveries/s | join: whole roster after | join: deliveries | unheard goodbye: known when back after | killed: gone at all after, p50 | max | tenth killed at once: gone after | older half killed at once: gone after |\n\
         |--------:|---------:|-------------:|-------------------------:|-----------------:|---------------------------------------:|-------------------------------:|----:|---------------------------------:|--------------------------------------:|"
    );
    let sizes = [100, 1_000, 10_000, 100_000];
    let smaller = sizes.into_iter().filter(|&size| size < arguments.members);
    for size in smaller.chain([arguments.members]) {
        let mut simulation = Simulation::start(size, &arguments);
        let interval = simulation.interval();
        let deliveries = simulation.steady_state();
        let (joined, caused) = simulation.joins();
        let departed = simulation.unheard_departures();
        let mut gone = simulation.deaths();
        gone.sort();
        let crowd = simulation.kill_at_once((size / 10).min(100));
        let half = simulation.kill_the_older_half();
        println!(
            "| {size:7} | {:8.1?} | {deliveries:12.0} | {joined:24.1?} | {:14.2} N | {departed:38.1?} | {:30.2?} | {:.2?} | {crowd:32.2?} | {half:37.2?} |",
            interval,
            caused / size as f64,
            gone[gone.len() / 2],
            gone[gone.len() - 1],
        );
    }
}

struct Simulation {
    net: Net,
    dice: Jitter,
}

impl Simulation {
    /// A cluster whose members have known each other for long.
    fn start(size: usize, arguments: &Arguments) -> Self {
        let mut net = Net::new(arguments.seed);
        net.latency = LATENCY;
        let dice = Jitter::new(arguments.seed);
        let mut simulation = Self { net, dice };
        let interval = Duration::from_secs_f64((size * size) as f64 / f64::from(BUDGET));
        let interval = interval.min(wire::MAX_DUE);
        let every = size.div_ceil(arguments.witnesses.max(1));
        for id in 0..size {
            let hears = id < 10 || id % every == 0;
            // Those that do not hear do not know how many they are.
            let heartbeat = if hears {
                HEARTBEAT
            } else {
                interval.max(HEARTBEAT)
            };
            simulation.add(hears, heartbeat, Inbox::new(id as u64));
        }
        for id in 0..size {
            simulation.introduce(id);
        }
        for id in 0..size {
            simulation.settle(id);
        }
        // Long enough for announcements that still follow a shorter interval.
        simulation.run(interval.clamp(HEARTBEAT, SETTLED));
        simulation
    }

    fn add(&mut self, hears: bool, heartbeat: Duration, inbox: Inbox) -> Id {
        let id = self.net.processes.len();
        let name = format!("worker-{id}@10.0.0.1:7000");
        self.net.start_as(Setup {
            tags: [("zone", "eu-1")].into_iter().collect(),
            heartbeat,
            delivery_budget: BUDGET,
            max_peers: 1_000_000,
            session_check: hears,
            inbox: Some(inbox),
            hears,
            ..Setup::new(&name, 1_795_000_000_000_000 + id as u64)
        })
    }

    /// Makes a member known to all that hear. It said hello long ago, so nobody is to answer it now.
    fn introduce(&mut self, id: Id) {
        let now = self.net.clock();
        let member = &mut self.net.processes[id];
        let pid = member.pid.expect("a session");
        let hello = member.participant.roster.poll_announcement(now);
        let hello = wire::encode(&hello.expect("a hello"));
        member.participant.roster.handle_sent(now);
        let mut message = wire::decode(&hello).expect("a hello");
        if let Body::Announce(announce) = &mut message.body {
            (announce.hello, announce.question) = (false, None);
        }
        let others = self.net.processes.iter_mut();
        for other in others.filter(|other| other.hears) {
            other.participant.roster.handle_message(now, pid, &message);
            other.participant.settle();
        }
    }

    /// Ends a member's questions, as an answer would.
    fn settle(&mut self, id: Id) {
        let answer = wire::decode_roster("pg-peers/1 roster part=1 parts=1;").expect("an answer");
        let now = self.net.clock();
        let roster = &mut self.net.processes[id].participant.roster;
        roster.handle_sync_part(now, STRANGER, &answer);
    }

    fn interval(&self) -> Duration {
        self.net.processes[0].participant.roster.interval()
    }

    /// Deliveries a second, over a whole interval.
    fn steady_state(&mut self) -> f64 {
        let before = self.net.deliveries;
        let time = self.interval();
        self.run(time);
        (self.net.deliveries - before) as f64 / time.as_secs_f64()
    }

    /// The longest that a newcomer waits for the whole roster, and the deliveries that it causes on average.
    fn joins(&mut self) -> (Duration, f64) {
        let (mut longest, mut caused) = (Duration::ZERO, 0);
        for _ in 0..ROUNDS {
            let pause = self.dice.between(0.0, HEARTBEAT);
            self.run(pause);
            let there = alive(&self.net).count();
            let inbox = self.answerable_inbox(1);
            // It says hello, and nothing more in the time that is measured.
            let (start, before) = (self.net.now, self.net.deliveries);
            let id = self.add(true, self.interval(), inbox);
            self.net.run_until(HEARTBEAT, |net| {
                net.processes[id].participant.host.peers.len() == there
            });
            longest = longest.max(self.net.now - start);
            caused += self.net.deliveries - before;
        }
        (longest, caused as f64 / ROUNDS as f64)
    }

    /// The longest from when a member is back until it knows who said goodbye while it was away.
    fn unheard_departures(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        for _ in 0..FEW_ROUNDS {
            let inbox = self.answerable_inbox(2);
            let away = self.add(true, self.interval(), inbox);
            self.run(HEARTBEAT);
            self.net.disconnect(away);
            let alive: Vec<Id> = alive(&self.net).collect();
            // The last is the one that is away.
            let leaves = alive[self.roll(alive.len() - 1)];
            self.net.leave(leaves);
            self.run(Duration::from_millis(300));
            self.net.reconnect(away);
            let (start, name) = (self.net.now, self.net.processes[leaves].name.clone());
            let is_told = self.net.run_until(HEARTBEAT, |net| {
                let known = &net.processes[away].participant.host.peers;
                !known.contains_key(&name)
            });
            assert!(is_told, "nobody tells of {name}");
            longest = longest.max(self.net.now - start);
        }
        longest
    }

    /// How long until all know of a death, for some deaths: of the oldest, and of any.
    fn deaths(&mut self) -> Vec<Duration> {
        let time = |simulation: &mut Self, round: usize| {
            let pause = simulation.dice.between(0.0, HEARTBEAT);
            simulation.run(pause);
            let alive: Vec<Id> = alive(&simulation.net).collect();
            let victim = match round {
                0..3 => alive[0],
                _ => alive[simulation.roll(alive.len())],
            };
            simulation.kill(&[victim])
        };
        (0..ROUNDS).map(|round| time(self, round)).collect()
    }

    fn kill_at_once(&mut self, count: usize) -> Duration {
        let mut alive: Vec<Id> = alive(&self.net).collect();
        let victims: Vec<Id> = (0..count)
            .map(|_| alive.swap_remove(self.roll(alive.len())))
            .collect();
        self.kill(&victims)
    }

    /// What started together dies together, as on one host, and the oldest look after sessions.
    fn kill_the_older_half(&mut self) -> Duration {
        let alive: Vec<Id> = alive(&self.net).collect();
        self.kill(&alive[..alive.len() / 2])
    }

    /// Kills these, and returns how long it took until nobody knows any of them.
    fn kill(&mut self, victims: &[Id]) -> Duration {
        let start = self.net.now;
        for &victim in victims {
            self.net.crash(victim);
        }
        let others = alive(&self.net).count() - 1;
        let knows_any = |member: &Process| member.participant.host.peers.len() > others;
        let hearing = |id: &Id| self.net.processes[*id].hears;
        // The youngest hear last.
        let hearing: Vec<Id> = alive(&self.net).filter(hearing).rev().collect();
        let are_gone = self.net.run_until(HEARTBEAT * 10, |net| {
            !hearing.iter().any(|&id| knows_any(&net.processes[id]))
        });
        assert!(are_gone, "some are still known");
        for &id in &hearing {
            let known = self.net.processes[id].participant.host.peers.len();
            assert_eq!(known, others, "at {id}");
        }
        self.net.now - start
    }

    fn roll(&mut self, bound: usize) -> usize {
        let roll = self.dice.between(0.0, Duration::from_secs(bound as u64));
        roll.as_secs() as usize % bound
    }

    /// An inbox of which the first in rank hears, for each of its first questions.
    fn answerable_inbox(&mut self, questions: u64) -> Inbox {
        loop {
            let number = self.dice.between(0.0, Duration::from_secs(1 << 34));
            let inbox = Inbox::new(number.as_nanos() as u64);
            if (0..questions).all(|number| self.is_answerable(inbox, number)) {
                return inbox;
            }
        }
    }

    fn is_answerable(&self, inbox: Inbox, number: u64) -> bool {
        let question = Question {
            inbox,
            number,
            away: None,
        };
        let first = alive(&self.net).min_by_key(|&id| {
            let incarnation = Incarnation::new(self.net.incarnation(id));
            question.rank(&self.net.processes[id].name, incarnation)
        });
        first.is_some_and(|id| self.net.processes[id].hears)
    }

    fn run(&mut self, time: Duration) {
        self.net.run(time);
        for id in 0..self.net.processes.len() {
            for event in self.net.told(id) {
                let expected = event.starts_with("join ")
                    || event.ends_with(" SessionGone")
                    || event.ends_with(" Goodbye")
                    || ["offline", "online"].contains(&&*event);
                assert!(expected, "nothing else happens, but {event}");
            }
        }
    }
}

fn alive(net: &Net) -> impl DoubleEndedIterator<Item = Id> {
    let ids = 0..net.processes.len();
    ids.filter(|&id| net.processes[id].alive)
}
