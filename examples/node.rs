//! One member on the command line. Several terminals make a cluster:
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example node -- --name a --tag zone=eu-1
//! cargo run --example node -- --name b
//! cargo run --example node -- --observe
//! ```
//!
//! Prints events until Ctrl-C or SIGTERM, which leave with a goodbye. `RUST_LOG=pg_peers=debug` shows what the library logs.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use pg_peers::crossbeam_channel::{bounded, select};
use pg_peers::{Cluster, Config, Event, Peer};

/// Take part in a cluster and print what happens in it.
#[derive(Parser)]
struct Arguments {
    /// This member's name, such as worker-1@10.0.0.1:7000
    #[arg(long, required_unless_present = "observe")]
    name: Option<String>,
    /// The Postgres channel to meet on
    #[arg(long, default_value = "cluster")]
    channel: String,
    /// A tag to announce; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// Seconds between announcements
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    heartbeat: Duration,
    /// Watch without being seen
    #[arg(long, conflicts_with_all = ["name", "tags"])]
    observe: bool,
    /// host=... user=... or postgres://user@host/dbname
    #[arg(
        value_name = "CONNECTION",
        env = "DATABASE_URL",
        hide_env_values = true
    )]
    params: String,
}

fn main() -> ExitCode {
    env_logger::init();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = match arguments.name {
        Some(name) => Config::new(name),
        None => Config::observer(),
    };
    for (key, value) in arguments.tags {
        config = config.tag(key, value);
    }
    let start = Instant::now();
    let cluster = config
        .channel(arguments.channel)
        .heartbeat_interval(arguments.heartbeat)
        .join(&arguments.params)?;
    let (interrupt, interrupted) = bounded(1);
    ctrlc::set_handler(move || {
        let _ = interrupt.try_send(());
    })?;
    loop {
        select! {
            recv(cluster.events()) -> event => print(start, &cluster, &event?),
            recv(interrupted) -> _ => break,
        }
    }
    println!("leaving");
    cluster.leave()?;
    Ok(())
}

fn print(start: Instant, cluster: &Cluster, event: &Event) {
    let text = match event {
        Event::Join(peer) => format!("join    {}", describe(peer)),
        Event::Heal(peer) => format!("heal    {}", describe(peer)),
        Event::Update(peer) => format!("update  {}", describe(peer)),
        Event::Leave(peer, why) => format!("leave   {}: {why}", peer.name()),
        Event::Online => "online".to_owned(),
        Event::Offline(reason) => format!("offline {reason}"),
        Event::NameTaken(peer) => format!("{} is now another process's name", peer.name()),
        other => format!("{other:?}"),
    };
    let peers = cluster.peers().len();
    println!(
        "{:10.3} s  {peers:3} peers  {text}",
        start.elapsed().as_secs_f64()
    );
}

fn describe(peer: &Peer) -> String {
    let tags = peer.tags().map(|(key, value)| format!(" {key}={value}"));
    tags.fold(peer.name().to_owned(), |text, tag| text + &tag)
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| format!("{e}"))
}
