//! How long from a NOTIFY to the host's thread, through pg-peers and through what one would use otherwise.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml               # full; writes benches/peers.svg
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --quick
//! ```
//!
//! Every way ends on the same kind of thread, a blocking one that receives from a crossbeam channel, since that is where a
//! program without async needs the event.

#[path = "../../support/mod.rs"]
mod support;

use std::path::Path;
use std::thread;
use std::time::Instant;

use clap::Parser;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::{StreamExt, stream};
use pg_peers::{Config, Event};
use sqlx::postgres::PgListener;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{AsyncMessage, NoTls};

use support::Server;
use support::latency::{CHANNEL, Subject, Unit, measure, ratio, table};
use support::plot::{Panel, distributions};

#[derive(Parser)]
struct Arguments {
    /// A short run, which draws no plot
    #[arg(long)]
    quick: bool,
    /// Notifications to each
    #[arg(long, default_value_t = 20_000)]
    rounds: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let rounds = match arguments.quick {
        true => arguments.rounds.min(1_000),
        false => arguments.rounds,
    };
    println!("{}\n", support::machine());
    let server = Server::start();
    let params = server.params();
    let mut subjects = [
        Subject::start("pg-peers", &params, ours),
        Subject::start(
            "tokio-postgres, current-thread",
            &params,
            |params, arrived| {
                tokio_postgres_by_hand(current_thread(), params, arrived);
            },
        ),
        Subject::start(
            "tokio-postgres, multi-thread",
            &params,
            |params, arrived| {
                tokio_postgres_by_hand(multi_thread(), params, arrived);
            },
        ),
        Subject::start(
            "sqlx PgListener, current-thread",
            &params,
            |params, arrived| {
                sqlx_listener(current_thread(), params, arrived);
            },
        ),
        Subject::start(
            "sqlx PgListener, multi-thread",
            &params,
            |params, arrived| {
                sqlx_listener(multi_thread(), params, arrived);
            },
        ),
    ];
    measure(&mut subjects, rounds);
    let rows = || {
        subjects
            .iter()
            .map(|subject| (subject.name, &subject.histogram))
    };
    println!(
        "{}",
        table(Unit::Micros, "TCP loopback, to the host's thread", rows())
    );
    if !arguments.quick {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers.svg");
        let panel = Panel {
            title: "NOTIFY to the host's thread, TCP loopback".to_owned(),
            curves: rows().collect(),
        };
        distributions(&path, &[panel]).expect("a plot");
    }
    let [ours, others @ ..] = &subjects;
    let ratios = others.iter().map(|other| {
        let [p50, p99] = [0.5, 0.99].map(|q| ratio(&ours.histogram, &other.histogram, q));
        format!("{} p50 {p50:.3} p99 {p99:.3}", other.name)
    });
    println!("peers: ours/{}", ratios.collect::<Vec<_>>().join("; "));
}

/// The host: a thread that receives, and takes the time.
fn host<T: Send + 'static>(events: Receiver<T>, arrived: Sender<Instant>) {
    thread::spawn(move || {
        for _ in events {
            let _ = arrived.send(Instant::now());
        }
    });
}

fn ours(params: &str, arrived: Sender<Instant>) {
    let cluster = Config::new("ours")
        .channel(CHANNEL)
        .join(params)
        .expect("a valid configuration");
    thread::spawn(move || {
        for event in cluster.events() {
            let now = Instant::now();
            if let Event::Join(_) | Event::Update(_) = event {
                let _ = arrived.send(now);
            }
        }
    });
}

fn current_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Drives the connection in a separate task, which hands over each notification.
fn tokio_postgres_by_hand(runtime: Runtime, params: &str, arrived: Sender<Instant>) {
    let params = params.to_owned();
    let (forward, forwarded) = bounded(256);
    host(forwarded, arrived);
    thread::spawn(move || {
        runtime.block_on(async {
            let (client, mut connection) = tokio_postgres::connect(&params, NoTls)
                .await
                .expect("a session");
            let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
            let driver = tokio::spawn(async move {
                while let Some(Ok(message)) = messages.next().await {
                    if let AsyncMessage::Notification(notification) = message {
                        let _ = forward.send(notification);
                    }
                }
            });
            client
                .batch_execute(&format!("LISTEN {CHANNEL}"))
                .await
                .expect("LISTEN");
            let _ = driver.await;
        });
    });
}

fn sqlx_listener(runtime: Runtime, params: &str, arrived: Sender<Instant>) {
    let value = |key: &str| {
        let pair = params
            .split(' ')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        pair.expect("a parameter").to_owned()
    };
    let url = format!(
        "postgres://{}@{}:{}/{}",
        value("user"),
        value("host"),
        value("port"),
        value("dbname")
    );
    let (forward, forwarded) = bounded(256);
    host(forwarded, arrived);
    thread::spawn(move || {
        runtime.block_on(async {
            let mut listener = PgListener::connect(&url).await.expect("a session");
            listener.listen(CHANNEL).await.expect("LISTEN");
            let task = tokio::spawn(async move {
                while let Ok(notification) = listener.recv().await {
                    let _ = forward.send(notification);
                }
            });
            let _ = task.await;
        });
    });
}
