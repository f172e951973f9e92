//! How long from a NOTIFY to the event in the host's hands, beside the least that any program of this shape takes.
//!
//! ```text
//! cargo bench --bench latency                 # full; writes benches/latency.svg
//! cargo bench --bench latency -- --quick      # some seconds
//! DATABASE_URL=... cargo bench --bench latency -- --rounds 2000 --joins 100
//! ```
//!
//! On a server that is given nothing is made, and no encrypted session: `pg-peers ping` has those.

mod support;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use crossbeam_channel::{Sender, bounded};
use fallible_iterator::FallibleIterator;
use hdrhistogram::Histogram;
use pg_peers::{Cluster, Config, Event};
use postgres::{Client, NoTls, Notification};

use support::Server;
use support::latency::{CHANNEL, Subject, Unit, measure, ratio, table};
use support::plot::{Panel, distributions};

#[derive(Parser)]
struct Arguments {
    /// The connection string of a server that runs; without it a private one is started
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database: Option<String>,
    /// A short run, which draws no plot
    #[arg(long)]
    quick: bool,
    /// Notifications to each subject
    #[arg(long, default_value_t = 20_000)]
    rounds: u64,
    /// Members to join and leave
    #[arg(long, default_value_t = 5_000)]
    joins: u64,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.rounds = arguments.rounds.min(1_000);
        arguments.joins = arguments.joins.min(30);
    }
    println!("{}\n", support::machine());
    if let Some(params) = arguments.database.as_deref().filter(|it| !it.is_empty()) {
        let subjects = on_given(params);
        let [p50, p99] = at("the given server", params, subjects, &arguments).1;
        println!("latency: event/floor p50 {p50:.3} p99 {p99:.3} (on the given server)");
        return;
    }
    let server = Server::start();
    let transports = [
        ("TCP loopback", server.params()),
        ("unix socket", server.socket_params()),
    ];
    let measured = transports.map(|(transport, params)| {
        let subjects = on_own(&params);
        let (subjects, ratios) = at(transport, &params, subjects, &arguments);
        (transport, subjects, ratios)
    });
    if !arguments.quick {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/latency.svg");
        let panels = measured.each_ref().map(|(transport, subjects, _)| Panel {
            title: format!("NOTIFY to receipt, {transport}"),
            curves: rows(subjects).collect(),
        });
        distributions(&path, &panels).expect("a plot");
    }
    let [[p50, p99], [socket_p50, socket_p99]] = measured.map(|(_, _, ratios)| ratios);
    println!(
        "latency: event/floor p50 {p50:.3} p99 {p99:.3} (over TCP; over a unix socket p50 {socket_p50:.3} p99 {socket_p99:.3})"
    );
}

/// Each in a separate database.
fn on_own(params: &str) -> [Subject; 3] {
    let start = |name, receive: Receive| {
        Subject::start(name, params, |params, arrived| {
            receive(params, CHANNEL, arrived)
        })
    };
    [
        start("wire", wire),
        start("floor", floor),
        start("ours", ours),
    ]
}

/// Each on a separate channel.
fn on_given(params: &str) -> [Subject; 3] {
    let start = |name, receive: Receive| {
        let channel = channel_of_this_run(name);
        Subject::start_on(name, params, &channel, |params, arrived| {
            receive(params, &channel, arrived)
        })
    };
    [
        start("wire", wire),
        start("floor", floor),
        start("ours", ours),
    ]
}

fn channel_of_this_run(name: &str) -> String {
    format!("pg_peers_bench_{name}_{}", std::process::id())
}

/// Measures and says all there; returns, too, how an event compares with the floor at p50 and p99.
fn at(
    place: &str,
    params: &str,
    mut subjects: [Subject; 3],
    arguments: &Arguments,
) -> ([Subject; 3], [f64; 2]) {
    measure(&mut subjects, arguments.rounds);
    println!("{}", table(Unit::Micros, place, rows(&subjects)));
    let membership = membership(params, arguments.joins);
    let of_members = membership
        .iter()
        .map(|(name, histogram)| (*name, histogram));
    println!("{}", table(Unit::Millis, place, of_members));
    let median = |n: usize| membership[n].1.value_at_quantile(0.5) as f64;
    println!(
        "join() to the Join / floor, p50: {:.2}\n",
        median(1) / median(0)
    );
    let [_, floor, ours] = &subjects;
    let ratios = [0.5, 0.99].map(|q| ratio(&ours.histogram, &floor.histogram, q));
    (subjects, ratios)
}

fn rows(subjects: &[Subject; 3]) -> impl Iterator<Item = (&str, &Histogram<u64>)> {
    let names = [
        "wire: a bare client, on its own thread",
        "floor: the same, forwarded to the host",
        "ours: an event at the host",
    ];
    names
        .into_iter()
        .zip(subjects.iter().map(|subject| &subject.histogram))
}

/// Receives at these parameters on this channel, and sends when.
type Receive = fn(&str, &str, Sender<Instant>);

/// A bare client; the time is taken on the thread that it blocks.
fn wire(params: &str, channel: &str, arrived: Sender<Instant>) {
    listen(params, channel, move |_| {
        arrived.send(Instant::now()).is_ok()
    });
}

/// A bare client that hands each notification to the host's thread, which takes the time.
fn floor(params: &str, channel: &str, arrived: Sender<Instant>) {
    let (forward, forwarded) = bounded::<Notification>(256);
    listen(params, channel, move |notification| {
        forward.send(notification).is_ok()
    });
    thread::spawn(move || {
        for _ in forwarded {
            let _ = arrived.send(Instant::now());
        }
    });
}

/// The library; the host's thread takes the time.
fn ours(params: &str, channel: &str, arrived: Sender<Instant>) {
    let cluster = join("ours", params, channel);
    thread::spawn(move || {
        for event in cluster.events() {
            let now = Instant::now();
            if let Event::Join(_) | Event::Update(_) = event {
                let _ = arrived.send(now);
            }
        }
    });
}

fn listen(
    params: &str,
    channel: &str,
    mut received: impl FnMut(Notification) -> bool + Send + 'static,
) {
    let mut client = Client::connect(params, NoTls).expect("a session");
    client
        .batch_execute(&format!("LISTEN {channel}"))
        .expect("LISTEN");
    thread::spawn(move || {
        while !client.is_closed() {
            let mut notifications = client.notifications();
            let next = notifications
                .timeout_iter(Duration::from_millis(100))
                .next();
            if next.is_ok_and(|next| next.is_some_and(|next| !received(next))) {
                return;
            }
        }
    });
}

fn join(name: &str, params: &str, channel: &str) -> Cluster {
    Config::new(name)
        .channel(channel)
        .join(params)
        .expect("a valid configuration")
}

/// How long it takes a bare client to do the least that joining is.
fn connect_and_notify(params: &str) -> Duration {
    let start = Instant::now();
    let mut client = Client::connect(params, NoTls).expect("a session");
    for statement in ["LISTEN bare", "NOTIFY bare, 'here'"] {
        client.batch_execute(statement).expect(statement);
    }
    start.elapsed()
}

/// How long joining and leaving take, to be seen by oneself and by another.
fn membership(params: &str, rounds: u64) -> [(&'static str, Histogram<u64>); 4] {
    let histogram = || Histogram::<u64>::new(3).expect("a histogram");
    let mut results = [
        (
            "floor: a bare client's connect, LISTEN, NOTIFY",
            histogram(),
        ),
        ("join() to the Join at another member", histogram()),
        ("join() to its own Online", histogram()),
        ("leave() to the Leave at another member", histogram()),
    ];
    let channel = channel_of_this_run("joins");
    let watcher = join("watcher", params, &channel);
    watcher
        .wait_online(Duration::from_secs(30))
        .expect("online");
    let (seen, sightings) = bounded(16);
    thread::spawn(move || {
        for event in watcher.events() {
            let now = Instant::now();
            if event.peer().is_some() && seen.send(now).is_err() {
                return;
            }
        }
    });
    // The backends of those before have ended by then; that keeps the server busy for as long as a login.
    let rest = || thread::sleep(Duration::from_millis(20));
    for _ in 0..rounds {
        rest();
        let bare = connect_and_notify(params);
        rest();
        let start = Instant::now();
        let member = join("member", params, &channel);
        let online = member.events().recv().expect("online");
        let own = start.elapsed();
        assert!(matches!(online, Event::Online), "{online:?}");
        let joined = sightings
            .recv()
            .expect("a join")
            .saturating_duration_since(start);
        // At any point of the slice in which its thread waits: it takes part in nothing else, so nothing wakes it.
        thread::sleep(Duration::from_micros(
            u64::from(start.elapsed().subsec_nanos()) % 100_000 + 20_000,
        ));
        let start = Instant::now();
        member.leave().expect("a goodbye");
        let left = sightings
            .recv()
            .expect("a leave")
            .saturating_duration_since(start);
        for ((_, histogram), latency) in results.iter_mut().zip([bare, joined, own, left]) {
            histogram
                .record(latency.as_nanos() as u64)
                .expect("a latency");
        }
    }
    results
}
