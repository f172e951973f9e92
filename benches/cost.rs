//! What a member costs, beside a bare client that does the same LISTEN and NOTIFY.
//!
//! ```text
//! cargo bench --bench cost                 # 20 s for each row
//! cargo bench --bench cost -- --quick      # 5 s for each row
//! ```
//!
//! Each row is a separate process, measured from its inside; the server from its processes' `schedstat`, since the tick
//! counters miss most of such short runs. Needs Linux's /proc.

mod support;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use pg_peers::{Cluster, Config};
use postgres::{Client, NoTls};
use rustix::time::{ClockId, clock_gettime};

use support::bare;
use support::{Server, Subprocess, Usage};

/// The default of both.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The longest that members may take to know each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many peers the memory of a known one is measured with.
const KNOWN: u32 = 9_000;

#[derive(Parser)]
struct Arguments {
    /// A short run
    #[arg(long)]
    quick: bool,
    /// Seconds of steady state for each row
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
    /// For the bench itself: be one row
    #[arg(long, hide = true)]
    row: Option<Kind>,
    #[arg(long, hide = true, default_value_t = 1)]
    members: u32,
    #[arg(long, hide = true, default_value = "")]
    params: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Ours,
    Floor,
    /// One member of ours that hears of many peers.
    Known,
}

fn main() {
    let mut arguments = Arguments::parse();
    if !fs::exists("/proc/self/schedstat").unwrap_or(false) {
        println!("cost: skipped, since this system has no /proc with schedstat");
        return;
    }
    if arguments.quick {
        arguments.seconds = HEARTBEAT.as_secs();
    }
    match arguments.row {
        Some(Kind::Known) => known(&arguments),
        Some(kind) => row(kind, &arguments),
        None => all(&arguments),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The rows, from outside.

#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    deliveries: f64,
    /// Microseconds of CPU.
    client: f64,
    server: f64,
    /// Bytes of anonymous memory.
    memory: f64,
    descriptors: f64,
    threads: f64,
}

fn all(arguments: &Arguments) {
    println!("{}\n", support::machine());
    let server = Server::start_with(&["max_connections = 250"]);
    let seconds = arguments.seconds as f64;
    println!(
        "| members | program | deliveries/s | client CPU a delivery | a member | server CPU a delivery | memory a member | descriptors | threads |\n\
         |--------:|---------|-------------:|----------------------:|---------:|----------------------:|----------------:|------------:|--------:|"
    );
    let mut ratios = Vec::new();
    for members in [1, 10, 100] {
        let [floor, ours] = [Kind::Floor, Kind::Ours].map(|kind| {
            let cost = run(kind, members, &server, arguments.seconds);
            let count = f64::from(members);
            println!(
                "| {members:7} | {:7} | {:12.1} | {:18.1} us | {:6.4}% | {:18.1} us | {:12.0} kB | {:11.1} | {:7.1} |",
                format!("{kind:?}").to_lowercase(),
                cost.deliveries / seconds,
                cost.client / cost.deliveries,
                cost.client / count / seconds / 1e4,
                cost.server / cost.deliveries,
                cost.memory / count / 1e3,
                cost.descriptors / count,
                cost.threads / count,
            );
            cost
        });
        ratios.push((floor, ours));
    }
    let known = run(Kind::Known, 1, &server, arguments.seconds);
    println!(
        "\nA known peer (name of 24 bytes, one tag): {:.0} bytes",
        known.memory / f64::from(KNOWN)
    );
    let (alone_floor, alone) = ratios[0];
    let (crowd_floor, crowd) = ratios[2];
    println!(
        "cost: cpu/floor {:.3} memory/floor {:.3} idle {:.4}%",
        (crowd.client / crowd.deliveries) / (crowd_floor.client / crowd_floor.deliveries),
        alone.memory / alone_floor.memory,
        alone.client / seconds / 1e4,
    );
}

/// Runs one row in a separate process.
fn run(kind: Kind, members: u32, server: &Server, seconds: u64) -> Cost {
    let name = kind.to_possible_value().expect("a name");
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program
        .args(["--row", name.get_name(), "--members", &members.to_string()])
        .args([
            "--seconds",
            &seconds.to_string(),
            "--params",
            &server.params(),
        ]);
    let (mut process, lines) = Subprocess::start_and_listen(&mut program).expect("a process");
    let limit = PATIENCE + Duration::from_secs(seconds);
    let line = || lines.recv_timeout(limit).expect("a line");
    assert_eq!(line(), "start");
    let before = support::server_cpu(server);
    let numbers: Vec<f64> = line()
        .split(' ')
        .map(|n| n.parse().expect("a number"))
        .collect();
    let server = support::server_cpu(server) - before;
    process.end_input();
    process.reap(PATIENCE).expect("its end");
    let [deliveries, client, memory, descriptors, threads] = numbers[..] else {
        panic!("{numbers:?}")
    };
    Cost {
        deliveries,
        client,
        server,
        memory,
        descriptors,
        threads,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A row, from inside.

fn row(kind: Kind, arguments: &Arguments) {
    let before = usage();
    let heard = Arc::new(AtomicU64::new(0));
    let members: Vec<Cluster> = match kind {
        Kind::Floor => {
            for i in 0..arguments.members {
                // Spread over the interval, as programs that start at any time are.
                let offset = HEARTBEAT * i / arguments.members;
                bare::member(&arguments.params, offset, Arc::clone(&heard));
            }
            Vec::new()
        }
        _ => (0..arguments.members)
            .map(|i| {
                let cluster = join(&format!("worker-{i:03}@10.0.0.1:7000"), &arguments.params);
                // As a host would: a thread of the host's takes the events, whose time does not count.
                cluster.wait_online(PATIENCE).expect("online");
                cluster
            })
            .collect(),
    };
    for member in &members {
        member
            .wait_for_peers(arguments.members as usize - 1, PATIENCE)
            .expect("everybody");
        member.events().try_iter().for_each(drop);
    }
    // Past the repetitions after the hello, and for long enough that the announcements are spread by their jitter.
    thread::sleep(HEARTBEAT);
    let deliveries = || match kind {
        Kind::Floor => heard.load(Ordering::Relaxed),
        _ => members
            .iter()
            .map(|m| m.status())
            .map(|s| s.heard + s.announced)
            .sum(),
    };
    println!("start");
    let (start, cpu, first) = (Instant::now(), cpu(), deliveries());
    thread::sleep(Duration::from_secs(arguments.seconds).saturating_sub(start.elapsed()));
    finish(deliveries() - first, cpu_since(cpu), before);
}

fn known(arguments: &Arguments) {
    let member = join("worker", &arguments.params);
    member.wait_online(PATIENCE).expect("online");
    let mut client = Client::connect(&arguments.params, NoTls).expect("a session");
    let before = usage();
    println!("start");
    for i in 0..KNOWN {
        let statement = format!(
            "NOTIFY cluster, 'pg-peers/1 beat name=worker-{i:04}@10.0.0.1:7000 inc=1 seq=1 due=86400000 tag.zone=eu-1;'"
        );
        client.batch_execute(&statement).expect("NOTIFY");
        member.events().try_iter().for_each(drop);
    }
    member
        .wait_for_peers(KNOWN as usize, PATIENCE)
        .expect("all");
    member.events().try_iter().for_each(drop);
    finish(1, 0.0, before);
}

/// Reports, and waits for the bench to have seen it.
fn finish(deliveries: u64, cpu: f64, before: Usage) {
    let after = usage();
    println!(
        "{deliveries} {cpu} {} {} {}",
        (after.memory_kb as i64 - before.memory_kb as i64) * 1024,
        after.descriptors - before.descriptors,
        after.threads - before.threads
    );
    let _ = std::io::stdin().read_line(&mut String::new());
    // Without the goodbyes of a hundred members.
    std::process::exit(0);
}

fn join(name: &str, params: &str) -> Cluster {
    Config::new(name)
        .join(params)
        .expect("a valid configuration")
}

fn usage() -> Usage {
    Usage::of_this_process().expect("/proc")
}

/// The CPU that this process has used, also in threads that have ended.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// In microseconds.
fn cpu_since(before: Duration) -> f64 {
    (cpu() - before).as_secs_f64() * 1e6
}
