//! `status()` for Prometheus, in its text format (https://prometheus.io/docs/instrumenting/exposition_formats/) over HTTP.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example metrics        # in one terminal, and again in another; then curl what they print
//! ```
//!
//! Alert on `pg_peers_online == 0`, on `pg_peers_name_taken == 1` and on too few `pg_peers_peers`. One scrape at a time; for a network that you trust.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use gethostname::gethostname;
use pg_peers::Reason::{self, Expired, Goodbye, Replaced, SessionGone};
use pg_peers::{Config, Event, Status};

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let database = argument.or_else(|| std::env::var("DATABASE_URL").ok());
    let database = database.ok_or("which database? Set DATABASE_URL, or give it as an argument")?;
    // The pid alone is 1 in every container.
    let host = gethostname().to_string_lossy().into_owned();
    let me = format!("metrics-{host}-{}", std::process::id());
    let cluster = Config::new(&me).channel("metrics").join(&database)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{me}: http://{}/metrics", listener.local_addr()?);
    // From zero on: the increase that brings a series into being is not seen.
    let mut left = HashMap::from([Goodbye, Expired, Replaced, SessionGone].map(|why| (why, 0)));
    loop {
        let (stream, _) = listener.accept()?;
        for event in cluster.events().try_iter() {
            if let Event::Leave(_, why) = event {
                *left.entry(why).or_default() += 1;
            }
        }
        let text = exposition(&cluster.status(), &left);
        answer(stream, &text).unwrap_or_else(|error| eprintln!("a scrape failed: {error}"));
    }
}

fn exposition(now: &Status, left: &HashMap<Reason, u64>) -> String {
    let round_trip = now.round_trip.map_or(f64::NAN, |it| it.as_secs_f64());
    let metrics: [(&str, &dyn std::fmt::Display, &str); 16] = [
        ("online", &u8::from(now.online), "whether the link works"),
        (
            "name_taken",
            &u8::from(now.name_taken),
            "whether it is a newer process's",
        ),
        ("peers", &now.peers, "how many are there"),
        ("round_trip_seconds", &round_trip, "to Postgres and back"),
        ("interval_seconds", &now.interval.as_secs_f64(), "of beats"),
        ("undelivered_events", &now.undelivered, "that wait for us"),
        ("announced_total", &now.announced, "announcements sent"),
        ("answered_total", &now.answered, "newcomers answered"),
        ("session_checks_total", &now.checked, "asked of Postgres"),
        ("heard_total", &now.heard, "payloads of peers"),
        ("ignored_total", &now.ignored, "payloads of no use"),
        ("forged_total", &now.forged, "payloads of no member"),
        (
            "clock_skewed_total",
            &now.clock_skewed,
            "payloads of a wrong clock",
        ),
        ("refused_total", &now.refused, "newcomers without room"),
        ("connected_total", &now.connected, "times the link came up"),
        ("failed_attempts_total", &now.failed_attempts, "to connect"),
    ];
    let mut text = "# HELP pg_peers_left_total peers that left, by the reason\n".to_owned();
    text += "# TYPE pg_peers_left_total counter\n";
    for (why, count) in left {
        text += &format!("pg_peers_left_total{{reason=\"{why:?}\"}} {count}\n");
    }
    for (name, value, help) in metrics {
        let is_counter = name.ends_with("_total");
        let kind = if is_counter { "counter" } else { "gauge" };
        text += &format!("# HELP pg_peers_{name} {help}\n# TYPE pg_peers_{name} {kind}\n");
        text += &format!("pg_peers_{name} {value}\n");
    }
    text
}

fn answer(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let request = BufReader::new(&stream).take(8192).lines();
    request.map_while(Result::ok).find(|line| line.is_empty());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
    write!(stream, "{head}{text}")
}
