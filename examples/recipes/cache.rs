//! Cache invalidation: the process that changes a value tells all peers over TCP, at the address in each peer's tags.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example cache          # in one terminal, and again in another; then type a key
//! ```
//!
//! A peer that has not joined yet, or cannot be reached, misses an invalidation. So each process tells every peer that joins
//! or heals to forget everything. Until then that peer has old values: where this matters, let entries also expire by age.
//! The example serves this machine only. Elsewhere, bind and announce an address that the peers can reach.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use gethostname::gethostname;
use pg_peers::crossbeam_channel::{bounded, select};
use pg_peers::{Cluster, Config, Event, Peer};

const TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let database = argument.or_else(|| std::env::var("DATABASE_URL").ok());
    let database = database.ok_or("which database? Set DATABASE_URL, or give it as an argument")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    // The pid alone is 1 in every container.
    let host = gethostname().to_string_lossy().into_owned();
    let me = format!("cache-{host}-{}", std::process::id());
    println!("{me} takes invalidations at {address}; type a key to invalidate it");
    let config = Config::new(&me).channel("cache").tag("cache", address);
    let cluster = config.join(&database)?;

    let (theirs, heard) = bounded(64);
    thread::spawn(move || {
        let mut keys = listener.incoming().flatten().filter_map(hear);
        keys.try_for_each(|key| theirs.send(key))
    });
    let (mine, changed) = bounded(64);
    thread::spawn(move || {
        let mut lines = io::stdin().lines().map_while(Result::ok);
        lines.try_for_each(|key| mine.send(key))
    });
    loop {
        select! {
            recv(cluster.events()) -> event => match event? {
                Event::Join(peer) | Event::Heal(peer) => {
                    println!("met {}", peer.name());
                    tell(&cluster, &peer, "everything");
                }
                // Nobody would tell it what to forget.
                Event::NameTaken(peer) => {
                    return Err(format!("{} is another process's name now", peer.name()).into());
                }
                _ => {}
            },
            recv(heard) -> key => println!("forget {}", key?),
            recv(changed) -> key => match key {
                Ok(key) => cluster.peers().iter().for_each(|peer| tell(&cluster, peer, &key)),
                // The input has ended, as with Ctrl-D.
                Err(_) => break,
            },
        }
    }
    Ok(cluster.leave()?)
}

/// Where that fails the peer's next announcement is a `Heal`.
fn tell(cluster: &Cluster, peer: &Peer, key: &str) {
    if let Err(error) = send(peer, key) {
        println!("{} cannot be told: {error}", peer.name());
        cluster.report_unreachable(peer);
    }
}

fn send(peer: &Peer, key: &str) -> Result<(), Box<dyn Error>> {
    let address = peer.tag("cache").ok_or("it announces no address")?;
    let mut stream = TcpStream::connect_timeout(&address.parse()?, TIMEOUT)?;
    Ok(writeln!(stream, "{key}")?)
}

fn hear(stream: TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    BufReader::new(stream).take(1024).lines().next()?.ok()
}
