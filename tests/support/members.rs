//! Several members at a time, and what must hold while something goes wrong around them.

use std::borrow::Borrow;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config};

use super::{PATIENCE, Server, Usage, expect, words};

/// Members of these configurations that are online and know each other; the events that told so are drained.
pub fn acquainted<const N: usize>(configs: [Config; N], params: &str) -> [Cluster; N] {
    let members = configs.map(|config| config.join(params).expect("valid"));
    for member in &members {
        expect(member, "online");
    }
    for member in &members {
        expect_joins(member, members.each_ref().map(name));
    }
    members
}

/// The next events are that these joined, but for itself, in any order.
#[track_caller]
pub fn expect_joins<'a>(member: &Cluster, names: impl IntoIterator<Item = &'a str>) {
    let others = names.into_iter().filter(|other| *other != name(member));
    let joins: Vec<String> = others.map(|other| format!("join {other}")).collect();
    super::expect_all(member, &joins.iter().map(|s| &**s).collect::<Vec<_>>());
}

/// The next event of each, which must be this one.
#[track_caller]
pub fn expect_each(members: &[Cluster], expected: &str) {
    for member in members {
        expect(member, expected);
    }
}

/// Each hears each of the others, and nothing happened before that it was not expected to see.
#[track_caller]
pub fn expect_all_hear_all(members: &[Cluster]) {
    for speaker in members {
        let nonce = format!("{:?}", Instant::now());
        speaker.set_tags([("fence", &nonce)]).expect("tags");
        for hearer in members.iter().filter(|one| name(one) != name(speaker)) {
            let event = expect(hearer, &format!("update {}", name(speaker)));
            assert_eq!(
                event.peer().and_then(|peer| peer.tag("fence")),
                Some(&*nonce)
            );
        }
    }
}

fn name(member: &Cluster) -> &str {
    member.name().expect("a member")
}

/// How long `peers` and `status` may take in any state of the server, without the time in which they had no core.
const SNAPSHOT_LIMIT: Duration = Duration::from_millis(10);

/// Does something while `peers` and `status` of all these are called all the time: they must answer at once. Not we, but a busy
/// machine holds up a call that has no core, so that time does not count.
#[track_caller]
pub fn meanwhile<T>(members: &[impl Borrow<Cluster> + Sync], work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut calls = Vec::new();
            loop {
                for member in members.iter().map(Borrow::borrow) {
                    calls.push(Call::of(|| drop(member.peers())));
                    calls.push(Call::of(|| drop(member.status())));
                }
                if over.load(Ordering::Relaxed) {
                    return calls;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        let done = SetAtEnd(&over);
        let result = work();
        drop(done);
        let mut calls = watcher.join().expect("a watcher");
        calls.sort_unstable();
        let [most, slowest] = [calls.len() * 99 / 100, calls.len() - 1].map(|at| calls[at].time);
        let held_up = calls.iter().map(|call| call.held_up).max();
        // What another thread holds for a moment, such as the allocator's lock, it holds for longer while it has no core itself.
        let without_core = calls.iter().map(|call| call.time - call.held_up).max();
        let limit = without_core.map(|waited| SNAPSHOT_LIMIT + waited);
        println!(
            "peers() and status(): 99 of 100 within {most:?}, the slowest {slowest:?}, of which with a core {held_up:?}"
        );
        assert!(held_up < limit, "{held_up:?}, of {limit:?}");
        result
    })
}

/// Also if it ends by a panic.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A member that announces nothing else would be back within this time (`guide/wire.md`).
pub const LEAST_BACK: Duration = Duration::from_millis(1_250);

/// How long a server took to answer, at best and at worst.
#[derive(Clone, Copy, Debug)]
pub struct Slowness {
    least: Duration,
    slowest: Duration,
}

impl Slowness {
    /// How much later the death of a member may be known that would be back within this time (`guide/wire.md`): by 15 times what
    /// answers took longer than at best, 5 seconds at most. And an answer that took a quarter of the whole wait begins that anew.
    pub fn delays(self, back: Duration) -> Duration {
        let excess = self.slowest.saturating_sub(self.least);
        let slower = (excess * 15).min(Duration::from_secs(5));
        // How long the whole wait was by then is not known, but no more than four answers.
        let begins_anew = self.slowest >= back / 4;
        let lost = begins_anew.then(|| (back + slower).min(self.slowest * 4));
        slower + lost.unwrap_or_default()
    }
}

/// Does this, and returns how slow the server was meanwhile for a session of the test's, which asks as members do, and, as they say
/// themselves, for these members.
pub fn slowness_while<T>(
    server: &Server,
    members: &[Cluster],
    work: impl FnOnce() -> T,
) -> (T, Slowness) {
    let mut client = server.client();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let (mut least, mut slowest) = (Duration::MAX, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                // On a separate thread each time: on a busy machine that waits for a core, too.
                let question = thread::scope(|scope| {
                    let sql = "SELECT pid FROM pg_stat_activity";
                    scope.spawn(|| client.query(sql, &[])).join()
                });
                assert!(!question.expect("an answer").expect("rows").is_empty());
                let of_members = members.iter().filter_map(|it| it.status().round_trip);
                for took in of_members.chain([asked.elapsed()]) {
                    (least, slowest) = (least.min(took), slowest.max(took));
                }
                thread::sleep(Duration::from_millis(20));
            }
            (least, slowest)
        });
        let done = SetAtEnd(&over);
        let result = work();
        drop(done);
        let (least, slowest) = answers.join().expect("answers");
        (result, Slowness { least, slowest })
    })
}

/// A call of something that should answer at once; ordered by time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    time: Duration,
    /// How much of that it worked, or waited for something other than a core.
    held_up: Duration,
}

impl Call {
    fn of(work: impl FnOnce()) -> Self {
        let before = Thread::now();
        let start = Instant::now();
        work();
        let time = start.elapsed();
        let after = Thread::now();
        let with_core = time.saturating_sub(after.without_core - before.without_core);
        let held_up = match before.waits {
            // Whatever passed besides its own work was another thread's, or another machine's on the same processor.
            Some(_) if after.waits == before.waits => with_core.min(after.worked - before.worked),
            _ => with_core,
        };
        Self { time, held_up }
    }
}

/// What the system tells of this thread; nothing where it is not Linux.
struct Thread {
    /// How long it has run.
    worked: Duration,
    /// How long it has waited for a core (Documentation/scheduler/sched-stats.rst).
    without_core: Duration,
    /// How often it has waited for something else, and gave its core back (proc_pid_status(5)).
    waits: Option<u64>,
}

impl Thread {
    fn now() -> Self {
        let worked = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let number = |text: Option<&str>| text.and_then(|it| it.trim().parse().ok());
        let waits = status
            .lines()
            .find_map(|it| it.strip_prefix("voluntary_ctxt_switches:"));
        Self {
            worked: worked.try_into().unwrap_or_default(),
            without_core: Duration::from_nanos(
                number(stat.split_whitespace().nth(1)).unwrap_or_default(),
            ),
            waits: number(waits),
        }
    }
}

/// Two members on a channel of their own, to leave while something goes wrong.
pub struct Leavers {
    leaver: Cluster,
    dropped: Cluster,
}

impl Leavers {
    /// As documented at `leave` and `Cluster`, and some for a busy machine.
    pub const LEAVE: Duration = Duration::from_millis(3_500 + 500);
    pub const DROP: Duration = Duration::from_millis(1_000 + 500);

    pub fn join(params: &str) -> Self {
        let leavers = Self::start(params);
        for cluster in [&leavers.leaver, &leavers.dropped] {
            cluster.wait_online(PATIENCE).expect("online");
        }
        leavers
    }

    /// Where they cannot be online.
    pub fn start(params: &str) -> Self {
        let start = |name: &str| {
            let config = Config::new(name).channel("leaving");
            config.join(params).expect("valid")
        };
        Self {
            leaver: start("leaver"),
            dropped: start("dropped"),
        }
    }

    pub fn names(&self) -> [&str; 2] {
        [name(&self.leaver), name(&self.dropped)]
    }

    /// One leaves and one is dropped, both within their bounds, whatever comes of it.
    #[track_caller]
    pub fn leave_in_time(self) {
        let start = Instant::now();
        let _ = self.leaver.leave();
        assert!(
            start.elapsed() < Self::LEAVE,
            "leave: {:?}",
            start.elapsed()
        );
        let start = Instant::now();
        drop(self.dropped);
        assert!(start.elapsed() < Self::DROP, "drop: {:?}", start.elapsed());
    }
}

/// What the process has that a member could leave behind.
#[derive(Clone, Copy, Debug)]
pub struct Resources(Usage);

impl Resources {
    /// Of this process when it is at rest: there are threads and connections that come and go. Nothing on systems without
    /// /proc.
    pub fn at_rest() -> Self {
        let mut least = Self::now();
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(10));
            let now = Self::now();
            least.threads = least.threads.min(now.threads);
            least.descriptors = least.descriptors.min(now.descriptors);
        }
        Self(least)
    }

    /// Whether there is nothing now that was not there then.
    pub fn are_all(&self) -> bool {
        let now = Self::now();
        now.threads <= self.0.threads && now.descriptors <= self.0.descriptors
    }

    fn now() -> Usage {
        Usage::of_this_process().unwrap_or_default()
    }
}

/// All events that wait for the host, in words.
pub fn waiting(member: &Cluster) -> Vec<String> {
    member
        .events()
        .try_iter()
        .map(|event| words(&event))
        .collect()
}
