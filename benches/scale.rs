//! What a cluster costs its server as it grows, beside the protocol in which everybody announces itself every 5 seconds and
//! beside a table of heartbeats; also one whose members reach each other in halves only. And how fast a large one is: to join, to
//! start, to notice a death and a process that hangs.
//!
//! ```text
//! cargo bench --bench scale                   # up to 400 members, some 45 minutes
//! cargo bench --bench scale -- --quick        # up to 20 members
//! cargo bench --bench scale -- --plot         # writes benches/scale.svg, of the table in benches/README.md
//! ```
//!
//! The members of a row share one process, those that are killed have one each; the server's CPU is the sum of its
//! processes' `schedstat`. Needs Linux's /proc.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use pg_peers::crossbeam_channel::Receiver;
use pg_peers::{Cluster, Config, Event, Reason};
use rustix::process::{Resource, getrlimit, setrlimit};

use support::bare;
use support::latency::{Unit, table};
use support::plot::{Curve, lines};
use support::{Server, Subprocess, lines_of};

/// The default, and what libcluster_postgres does.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The default, in deliveries a second.
const BUDGET: f64 = 200.0;

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// A short run
    #[arg(long)]
    quick: bool,
    /// Only the plot, of the costs in benches/README.md
    #[arg(long)]
    plot: bool,
    /// Only what joining, starting and dying takes
    #[arg(long)]
    no_cost: bool,
    /// Only what it costs
    #[arg(long)]
    no_times: bool,
    /// How many members to take the cost of, instead of all sizes
    #[arg(long, value_delimiter = ',', conflicts_with = "quick")]
    sizes: Vec<usize>,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
    /// For the bench itself: be the members of one row
    #[arg(long, hide = true)]
    row: Option<Kind>,
    #[arg(long, hide = true, default_value = "")]
    name: String,
    #[arg(long, hide = true, default_value_t = 1)]
    members: usize,
    /// How many there are with those of other processes
    #[arg(long, hide = true, default_value_t = 1)]
    of: usize,
    #[arg(long, hide = true, default_value = "")]
    params: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Ours,
    Naive,
    Table,
    /// Ours, where the members of one half cannot reach those of the other and say so, again at each `Heal`.
    Cut,
}

/// What the members of a row cost.
#[derive(Clone, Copy)]
struct Cost {
    /// Deliveries, and commits that notify, a second.
    deliveries: f64,
    commits: f64,
    /// The server's CPU in per cent of a core.
    cpu: f64,
    /// Kilobytes of WAL a minute.
    wal: f64,
    /// Rows left for vacuum, a minute.
    dead: f64,
}

fn main() {
    let arguments = Arguments::parse();
    if !fs::exists("/proc/self/schedstat").unwrap_or(false) {
        println!("scale: skipped, since this system has no /proc with schedstat");
        return;
    }
    if let Some(kind) = arguments.row {
        return row(kind, &arguments);
    }
    if arguments.plot {
        return plot();
    }
    println!("{}\n", support::machine());
    let server = Server::start_with(&["max_connections = 450"]);
    let mut hung = None;
    if !arguments.no_times {
        hung = Some(times(&server, arguments.quick));
    }
    if !arguments.no_cost {
        costs(&server, &arguments, hung);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What it costs.

/// `hung`: how many seconds it takes at most until a process that hangs is known, in the largest cluster.
fn costs(server: &Server, arguments: &Arguments, hung: Option<f64>) {
    let quick = arguments.quick;
    let all = [10, 50, 100, 200, 400];
    let sizes = match arguments.sizes.as_slice() {
        _ if quick => &[10, 20],
        [] => &all[..],
        some => some,
    };
    println!(
        "| members | protocol | deliveries/s | commits that notify/s | WAL, kB/min | dead rows/min | server, % of a core | ours, of it |\n\
         |--------:|----------|-------------:|----------------------:|------------:|--------------:|--------------------:|------------:|"
    );
    let mut rows = Vec::new();
    let mesh = if quick { 20 } else { 200 };
    for &members in sizes {
        let mut kinds = vec![Kind::Naive, Kind::Table, Kind::Ours];
        if members == mesh {
            kinds.push(Kind::Cut);
        }
        let costs: Vec<Cost> = kinds
            .iter()
            .map(|&kind| cost(kind, members, server, quick))
            .collect();
        let [naive, _, ours] = [costs[0], costs[1], costs[2]];
        for (kind, cost) in kinds.iter().zip(&costs) {
            println!(
                "| {members:7} | {:8} | {:12.0} | {:21.1} | {:11.0} | {:13.0} | {:19.2} | {:11.3} |",
                kind.to_possible_value().expect("a name").get_name(),
                cost.deliveries,
                cost.commits,
                cost.wal,
                cost.dead,
                cost.cpu,
                ours.cpu / cost.cpu
            );
        }
        rows.push((members as f64, naive.cpu, ours.cpu));
    }
    let of = |members: usize| rows.iter().find(|row| row.0 as usize == members);
    if let (Some(large), Some(hundred)) = (of(400), of(100)) {
        let hung = hung.map_or(String::new(), |seconds| {
            format!("; hung {seconds:.1} s at 400")
        });
        println!(
            "\nscale: server CPU at 400, ours/naive {:.3} (up to 100 at most {:.3}; ours at 400/ours at 100 {:.3}){hung}",
            large.2 / large.1,
            rows.iter()
                .filter(|row| row.0 <= 100.0)
                .map(|row| row.2 / row.1)
                .fold(0.0, f64::max),
            large.2 / hundred.2
        );
    } else {
        println!("\nscale: a short run says nothing about 400");
    }
}

/// Draws what the table says, so that the two agree also where its rows were taken one after the other.
fn plot() {
    let (_, growth) = include_str!("README.md")
        .split_once("\n## Growth")
        .expect("the section");
    let growth = growth.split("\n## ").next().expect("a section");
    let cells = |line: &'static str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let rows: Vec<_> = growth.lines().map(cells).collect();
    let curve = |name, protocol| {
        let rows = rows.iter().filter(|row| row.get(2) == Some(&protocol));
        let number = |cell: &str| cell.parse::<f64>().expect(cell);
        let points: Vec<_> = rows.map(|row| (number(row[1]), number(row[7]))).collect();
        assert!(points.len() > 1, "no rows of {protocol}");
        Curve { name, points }
    };
    let curves = [
        curve("everybody announces itself every 5 s", "naive"),
        curve("pg-peers", "ours"),
        curve("a table of heartbeats", "table"),
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/scale.svg");
    let axes = ("members", "% of a core");
    lines(&path, "What a cluster costs its server", axes, &curves).expect("a plot");
}

fn cost(kind: Kind, members: usize, server: &Server, quick: bool) -> Cost {
    if kind == Kind::Table {
        server.run(bare::TABLE);
    }
    let mut row = Row::start(kind, "member", members, members, server);
    // By then each has announced itself once as a member of so large a cluster.
    let interval = Duration::from_secs_f64((members * members) as f64 / BUDGET);
    let settles = match kind {
        Kind::Ours | Kind::Cut if !quick => HEARTBEAT * 2 + interval,
        _ => HEARTBEAT,
    };
    thread::sleep(settles);
    let time = if quick { HEARTBEAT } else { HEARTBEAT * 8 };
    let mut operator = server.client();
    let written = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    let mut written = move || -> f64 { operator.query_one(written, &[]).expect("a row").get(0) };
    let before = (written(), row.count());
    let (start, cpu) = (Instant::now(), support::server_cpu(server));
    thread::sleep(time);
    let (cpu, seconds) = (
        support::server_cpu(server) - cpu,
        start.elapsed().as_secs_f64(),
    );
    let after = (written(), row.count());
    let [deliveries, commits] = [0, 1].map(|at| (after.1[at] - before.1[at]) / seconds);
    let [commits, dead] = match kind {
        // Each update leaves the row before it.
        Kind::Table => [0.0, members as f64 / HEARTBEAT.as_secs_f64() * 60.0],
        Kind::Naive => [members as f64 / HEARTBEAT.as_secs_f64(), 0.0],
        Kind::Ours | Kind::Cut => [commits, 0.0],
    };
    Cost {
        deliveries,
        commits,
        cpu: cpu / seconds / 1e4,
        wal: (after.0 - before.0) / seconds * 60.0 / 1e3,
        dead,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// How fast it is.

/// Returns how many seconds it takes at most until a process that hangs is known, in the largest cluster.
fn times(server: &Server, quick: bool) -> f64 {
    let (sizes, crowd, starters): (&[usize], _, _) = if quick {
        (&[10], 20, 10)
    } else {
        (&[10, 100, 400], 400, 100)
    };
    let mut rows = vec![joins(server, crowd, if quick { 10 } else { 50 })];
    rows.push(starts(server, starters));
    for &size in sizes {
        rows.push(deaths(server, size));
    }
    let mut hung = 0.0;
    for &size in sizes {
        let (name, histogram) = hangs(server, size, if quick { 1 } else { 4 });
        hung = histogram.max() as f64 / 1e9;
        rows.push((name, histogram));
    }
    let rows = rows.iter().map(|(name, histogram)| (&**name, histogram));
    println!("{}", table(Unit::Millis, "TCP loopback", rows));
    hung
}

/// How long a newcomer takes from `join` to the whole roster, with tags, in a settled cluster.
fn joins(server: &Server, crowd: usize, count: usize) -> (String, Histogram<u64>) {
    let _crowd = Row::start(Kind::Ours, "member", crowd, crowd, server);
    // Settled: its own members have been answered.
    thread::sleep(HEARTBEAT);
    let mut histogram = Histogram::new(3).expect("a histogram");
    for i in 0..count {
        let start = Instant::now();
        let newcomer = join(&format!("newcomer-{i}@10.0.0.2:7000"), &server.params());
        let peers = newcomer.wait_for_peers(crowd, PATIENCE).expect("everybody");
        histogram
            .record(start.elapsed().as_nanos() as u64)
            .expect("a time");
        assert!(peers.iter().all(|peer| peer.tag("zone") == Some("eu-1")));
        newcomer.leave().expect("a goodbye");
    }
    (format!("join() to the roster of {crowd}"), histogram)
}

/// How long after the last of them members that start in the same second have the whole roster.
fn starts(server: &Server, count: usize) -> (String, Histogram<u64>) {
    let mut histogram = Histogram::new(3).expect("a histogram");
    const SECOND: Duration = Duration::from_secs(1);
    let start = Instant::now() + SECOND;
    let starting: Vec<_> = (0..count)
        .map(|i| {
            let params = server.params();
            let start = start + SECOND * i as u32 / count as u32;
            thread::spawn(move || {
                thread::sleep(start.saturating_duration_since(Instant::now()));
                let member = join(&format!("starter-{i}@10.0.0.2:7000"), &params);
                member
                    .wait_for_peers(count - 1, PATIENCE)
                    .expect("everybody");
                (Instant::now(), member)
            })
        })
        .collect();
    let started: Vec<_> = starting
        .into_iter()
        .map(|thread| thread.join().expect("a member"))
        .collect();
    for (known, _) in &started {
        let late = known.saturating_duration_since(start + SECOND).as_nanos();
        histogram.record(late as u64).expect("a time");
    }
    let name = format!("{count} start in a second: roster after that");
    (name, histogram)
}

/// How long from the kill -9 of a member to its `Leave` at each other, those that look after sessions among the killed.
fn deaths(server: &Server, size: usize) -> (String, Histogram<u64>) {
    let mut histogram = Histogram::new(3).expect("a histogram");
    let victims = 4;
    let victim = |i: usize, of| Row::start(Kind::Ours, &format!("victim-{i}"), 1, of, server);
    let mut oldest: Vec<Row> = (0..victims).map(|i| victim(i, i + 1)).collect();
    let rest = size - 2 * victims;
    let crowd = Row::start(Kind::Ours, "member", rest, rest + victims, server);
    let mut youngest: Vec<Row> = (0..victims)
        .map(|i| victim(victims + i, rest + victims + i + 1))
        .collect();
    // Not in step with the checks.
    for round in 0..victims {
        for victims in [&mut oldest, &mut youngest] {
            let mut victim = victims.remove(0);
            thread::sleep(Duration::from_millis(2_000 + 370 * round as u64));
            let killed = micros();
            victim.process.kill().expect("to kill");
            crowd.record(&victim.name, rest, killed, &mut histogram);
        }
    }
    (
        format!("kill -9 to the Leave at each other, of {size}"),
        histogram,
    )
}

/// How long from the SIGSTOP of a member to its `Leave` at each other.
fn hangs(server: &Server, size: usize, victims: usize) -> (String, Histogram<u64>) {
    let mut histogram = Histogram::new(3).expect("a histogram");
    let rest = size - victims;
    let crowd = Row::start(Kind::Ours, "member", rest, rest, server);
    let victims: Vec<Row> = (0..victims)
        .map(|i| Row::start(Kind::Ours, &format!("victim-{i}"), 1, rest + i + 1, server))
        .collect();
    // They know that they are judged by their sessions, and the youngest have been there for long enough to look.
    thread::sleep(HEARTBEAT * 2);
    for (round, victim) in victims.iter().enumerate() {
        thread::sleep(Duration::from_millis(370 * round as u64));
        let stopped = micros();
        victim.process.freeze().expect("to freeze");
        crowd.record(&victim.name, rest, stopped, &mut histogram);
        victim.process.thaw().expect("to thaw");
    }
    (
        format!("SIGSTOP to the Leave at each other, of {size}"),
        histogram,
    )
}

/// Since the epoch: comparable between processes.
fn micros() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock")
        .as_micros() as u64
}

// ---------------------------------------------------------------------------------------------------------------------
// The members of a row, from outside.

struct Row {
    name: String,
    process: Subprocess,
    lines: Receiver<String>,
}

impl Row {
    /// Returns when they all know all.
    fn start(kind: Kind, name: &str, members: usize, of: usize, server: &Server) -> Self {
        let name = format!("{name}-{}", micros() % 1_000_000);
        let kind = kind.to_possible_value().expect("a name");
        let mut program = Command::new(std::env::current_exe().expect("this program"));
        program
            .args(["--row", kind.get_name(), "--name", &name])
            .args(["--members", &members.to_string(), "--of", &of.to_string()])
            .args(["--params", &server.params()]);
        let (process, lines) = Subprocess::start_and_listen(&mut program).expect("a process");
        let row = Self {
            name,
            process,
            lines,
        };
        assert_eq!(row.line(), "ready");
        row
    }

    fn say(&mut self, line: &str) {
        self.process.order(line).expect("it reads");
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// How many notifications its members have received, and how many announcements they have made.
    fn count(&mut self) -> [f64; 2] {
        self.say("count");
        let line = self.line();
        let (received, made) = line.split_once(' ').expect("two numbers");
        [received, made].map(|count| count.parse().expect("a number"))
    }

    /// Records when each of its `members` is told that this one left, after that time.
    fn record(&self, name: &str, members: usize, since: u64, histogram: &mut Histogram<u64>) {
        for _ in 0..members {
            let line = self.line();
            let (left, at) = line.split_once(' ').expect("a name and a time");
            assert_eq!(left, name);
            let at: u64 = at.parse().expect("a time");
            let took = at.saturating_sub(since) * 1_000;
            histogram.record(took).expect("a time");
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let _ = self.process.kill();
        // The server needs a moment to see that they are gone, which the next row would pay for.
        thread::sleep(Duration::from_secs(2));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The members of a row, from inside.

fn row(kind: Kind, arguments: &Arguments) {
    // A member needs four descriptors.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    let heard = Arc::new(AtomicU64::new(0));
    let name = |i: usize| match arguments.members {
        1 => arguments.name.clone(),
        _ => format!("{}-{i:03}@10.0.0.1:7000", arguments.name),
    };
    let members: Vec<Cluster> = match kind {
        Kind::Naive => {
            for i in 0..arguments.members {
                let offset = HEARTBEAT * i as u32 / arguments.members as u32;
                bare::member(&arguments.params, offset, Arc::clone(&heard));
            }
            Vec::new()
        }
        Kind::Table => {
            for i in 0..arguments.members {
                let offset = HEARTBEAT * i as u32 / arguments.members as u32;
                bare::row_of_table(&arguments.params, name(i), offset);
            }
            Vec::new()
        }
        Kind::Ours | Kind::Cut => (0..arguments.members)
            .map(|i| {
                let member = join(&name(i), &arguments.params);
                member.wait_online(PATIENCE).expect("online");
                member
            })
            .collect(),
    };
    for member in &members {
        member
            .wait_for_peers(arguments.of - 1, PATIENCE)
            .expect("everybody");
    }
    println!("ready");
    let command = lines_of(std::io::stdin());
    loop {
        match command.recv_timeout(Duration::from_millis(1)) {
            Ok(_) => {
                let received = deliveries(&members) + heard.load(Ordering::Relaxed);
                let made: u64 = members.iter().map(|it| it.status().announced).sum();
                println!("{received} {made}");
            }
            Err(error) if error.is_disconnected() => std::process::exit(0),
            Err(_) => {}
        }
        let events = members.iter().enumerate().flat_map(|(i, member)| {
            let events = member.events().try_iter();
            events.map(move |event| (i, member, event))
        });
        for (i, member, event) in events {
            match event {
                Event::Join(peer) | Event::Heal(peer) if kind == Kind::Cut => {
                    let is_first = |i: usize| i < arguments.members / 2;
                    if is_first(i) != is_first(number(peer.name())) {
                        member.report_unreachable(&peer);
                    }
                }
                Event::Leave(peer, Reason::SessionGone | Reason::Expired)
                    if peer.name().starts_with("victim") =>
                {
                    println!("{} {}", peer.name(), micros());
                }
                Event::Leave(_, Reason::Goodbye) => {}
                Event::Leave(peer, reason) => panic!("{peer:?} left: {reason}"),
                _ => {}
            }
        }
    }
}

/// Which of its row's members this is.
fn number(name: &str) -> usize {
    let number = name.split('@').next().and_then(|it| it.rsplit('-').next());
    number.and_then(|it| it.parse().ok()).expect("a number")
}

fn deliveries(members: &[Cluster]) -> u64 {
    let counts = members.iter().map(|member| member.status());
    counts.map(|status| status.heard + status.announced).sum()
}

fn join(name: &str, params: &str) -> Cluster {
    Config::new(name)
        .tag("zone", "eu-1")
        .join(params)
        .expect("a valid configuration")
}
