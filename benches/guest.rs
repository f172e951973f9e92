//! What members do to an application on the same server whose transactions notify: a commit that notifies takes one lock of the whole
//! server.
//!
//! ```text
//! cargo bench --bench guest                   # some 6 minutes
//! cargo bench --bench guest -- --quick        # half a minute
//! ```
//!
//! Four writers insert a row, notify of it and commit, as fast as they can, and one session listens to them. Beside them is nobody,
//! then a hundred members (of the lowest priority, since they would be on other machines), then a hundred of the protocol in which
//! everybody announces itself every 5 seconds, in turn, several times. Those are in a database of their own, as the guide advises;
//! members are also tried in the application's, where its notifications wake them.

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use fallible_iterator::FallibleIterator;
use hdrhistogram::Histogram;
use pg_peers::postgres::{Client, NoTls};
use pg_peers::{Cluster, Config};
use rustix::process::{Resource, getrlimit, nice, setrlimit};

use support::bare;
use support::{Server, Subprocess, lines_of};

const WRITERS: usize = 4;

/// What everybody announces itself by.
const HEARTBEAT: Duration = Duration::from_secs(5);

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// A short run, with fewer members
    #[arg(long)]
    quick: bool,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
    /// For the bench itself: be the guests
    #[arg(long, hide = true)]
    guests: Option<Guests>,
    #[arg(long, hide = true, default_value_t = 100)]
    members: usize,
    #[arg(long, hide = true, default_value = "")]
    params: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Guests {
    None,
    Ours,
    Naive,
    /// Ours, in the application's database.
    Inside,
}

/// What the writers did.
#[derive(Clone)]
struct Work {
    each_second: f64,
    latency: Histogram<u64>,
    /// How many of them waited for a lock, on average.
    waiting: f64,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(guests) = arguments.guests {
        return be_guests(guests, &arguments);
    }
    println!("{}\n", support::machine());
    let server = Server::start_with(&["max_connections = 200"]);
    server.run("CREATE DATABASE app");
    server.run("CREATE DATABASE peers");
    let (members, rounds, time) = match arguments.quick {
        true => (20, 1, Duration::from_secs(3)),
        false => (100, 5, Duration::from_secs(10)),
    };
    let kinds = [Guests::None, Guests::Ours, Guests::Naive, Guests::Inside];
    let mut works = kinds.map(|_| Vec::new());
    for _ in 0..rounds {
        for (kind, works) in kinds.into_iter().zip(&mut works) {
            let guests = start(kind, members, &server, arguments.quick);
            works.push(work(&server, time));
            drop(guests);
            // The server needs a moment to see that they are gone, which the next would pay for.
            thread::sleep(Duration::from_secs(2));
        }
    }
    println!(
        "| beside the application           | transactions/s | of it alone | p50, ms | p99, ms | writers that wait for a lock |\n\
         |----------------------------------|---------------:|------------:|--------:|--------:|-----------------------------:|"
    );
    let alone = works[0].clone();
    let mut shares = Vec::new();
    for (kind, works) in kinds.into_iter().zip(works) {
        let name = match kind {
            Guests::None => "nobody".to_owned(),
            Guests::Ours => format!("{members} members"),
            Guests::Naive => format!("{members} that announce themselves"),
            Guests::Inside => format!("{members} members in its database"),
        };
        // Each with the one just before it in time that was alone.
        let share = works.iter().zip(&alone);
        let share = median(share.map(|(work, alone)| work.each_second / alone.each_second));
        let milliseconds = |quantile: f64| {
            median(
                works
                    .iter()
                    .map(|it| it.latency.value_at_quantile(quantile) as f64),
            ) / 1e6
        };
        println!(
            "| {name:32} | {:14.0} | {share:11.3} | {:7.2} | {:7.2} | {:28.2} |",
            median(works.iter().map(|work| work.each_second)),
            milliseconds(0.5),
            milliseconds(0.99),
            median(works.iter().map(|work| work.waiting)),
        );
        shares.push(share);
    }
    println!(
        "\nguest: the application's transactions, of those alone: {:.3} beside {members} members ({:.3} beside as many that announce \
         themselves every 5 s, {:.3} with members in its database)",
        shares[1], shares[2], shares[3]
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns when they have settled.
fn start(kind: Guests, members: usize, server: &Server, quick: bool) -> Option<Subprocess> {
    if kind == Guests::None {
        return None;
    }
    let database = if kind == Guests::Inside {
        "app"
    } else {
        "peers"
    };
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    let name = kind.to_possible_value().expect("a name");
    program
        .args([
            "--guests",
            name.get_name(),
            "--members",
            &members.to_string(),
        ])
        .args([
            "--params",
            &format!("{} dbname={database}", server.params()),
        ]);
    let (process, lines) = Subprocess::start_and_listen(&mut program).expect("a process");
    assert_eq!(lines.recv_timeout(PATIENCE).expect("a line"), "ready");
    // Until they announce themselves as rarely as they will.
    let at_first = Duration::from_millis((members * members) as u64 / 2);
    thread::sleep(if quick {
        HEARTBEAT
    } else {
        HEARTBEAT * 2 + at_first
    });
    Some(process)
}

/// Lets the writers work for so long.
fn work(server: &Server, time: Duration) -> Work {
    let params = format!("{} dbname=app", server.params());
    let client = || Client::connect(&params, NoTls).expect("a session");
    client()
        .batch_execute("DROP TABLE IF EXISTS jobs; CREATE TABLE jobs (id bigserial, text text)")
        .expect("a table");
    let over = AtomicBool::new(false);
    let mut latency = Histogram::new(3).expect("a histogram");
    let start = Instant::now();
    let mut waiting = 0.0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut listener = client();
            listener.batch_execute("LISTEN jobs").expect("LISTEN");
            while !over.load(Ordering::Relaxed) {
                let mut notifications = listener.notifications();
                let mut received = notifications.timeout_iter(Duration::from_millis(20));
                let _ = received.next().expect("a session");
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut writer = client();
                    let mut latency = Histogram::<u64>::new(3).expect("a histogram");
                    while start.elapsed() < time {
                        let began = Instant::now();
                        writer
                            .batch_execute(
                                "BEGIN; INSERT INTO jobs (text) VALUES ('a job'); NOTIFY jobs, 'a job'; COMMIT",
                            )
                            .expect("a transaction");
                        let took = began.elapsed().as_nanos() as u64;
                        latency.record(took).expect("a time");
                    }
                    latency
                })
            })
            .collect();
        let mut operator = client();
        let mut looks = Vec::new();
        while start.elapsed() < time {
            let waits = "SELECT count(*) FROM pg_stat_activity \
                WHERE datname = 'app' AND wait_event_type = 'Lock'";
            let row = operator.query_one(waits, &[]).expect("a row");
            looks.push(row.get::<_, i64>(0) as f64);
            thread::sleep(Duration::from_millis(20));
        }
        waiting = looks.iter().sum::<f64>() / looks.len() as f64;
        for writer in writers {
            latency
                .add(writer.join().expect("a writer"))
                .expect("the same range");
        }
        over.store(true, Ordering::Relaxed);
    });
    Work {
        each_second: latency.len() as f64 / time.as_secs_f64(),
        latency,
        waiting,
    }
}

fn be_guests(kind: Guests, arguments: &Arguments) {
    // In production they are on other machines. Here they take what the writers and the server leave.
    nice(19).expect("a lower priority");
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    let count = arguments.members;
    let heard = Arc::new(AtomicU64::new(0));
    let join = |n: usize| {
        let member = Config::new(format!("worker-{n:03}@10.0.0.1:7000"));
        member.join(&arguments.params).expect("valid")
    };
    let members: Vec<Cluster> = match kind {
        Guests::None => Vec::new(),
        Guests::Ours | Guests::Inside => (0..count).map(join).collect(),
        Guests::Naive => {
            for n in 0..count {
                let offset = HEARTBEAT * n as u32 / count as u32;
                bare::member(&arguments.params, offset, Arc::clone(&heard));
            }
            Vec::new()
        }
    };
    for member in &members {
        member
            .wait_for_peers(count - 1, PATIENCE)
            .expect("everybody");
    }
    println!("ready");
    // Until the bench ends it, or itself.
    for _ in lines_of(std::io::stdin()) {}
}
