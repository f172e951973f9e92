//! Graceful shutdown: at SIGTERM, or Ctrl-C, this process first announces that it takes no more work, ends what it has in
//! hand, and says goodbye, so that its peers know at once.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example graceful       # in one terminal, and again in another; then kill one, with and without -9
//! ```
//!
//! Peers learn of a goodbye within milliseconds, and of a kill -9 within seconds. While Postgres is down no goodbye can
//! be said: `leave` gives up after 3.5 seconds at most, which should fit the grace that the supervisor gives.

use std::error::Error;
use std::thread;
use std::time::Duration;

use gethostname::gethostname;
use pg_peers::crossbeam_channel::{bounded, select};
use pg_peers::{Config, Event};

/// What the work in hand takes, in this example.
const WORK: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let database = argument.or_else(|| std::env::var("DATABASE_URL").ok());
    let database = database.ok_or("which database? Set DATABASE_URL, or give it as an argument")?;
    // Before joining: a signal that comes in between must not go past it.
    let (terminate, terminated) = bounded(1);
    ctrlc::set_handler(move || {
        let _ = terminate.try_send(());
    })?;
    // The pid alone is 1 in every container.
    let host = gethostname().to_string_lossy().into_owned();
    let me = format!("graceful-{host}-{}", std::process::id());
    let cluster = Config::new(&me).channel("graceful").join(&database)?;
    println!("{me} starts");
    loop {
        select! {
            recv(cluster.events()) -> event => match event? {
                Event::Join(peer) | Event::Heal(peer) => println!("{} is there", peer.name()),
                Event::Update(peer) => println!("{} is {}", peer.name(), peer.tag("state").unwrap_or("at work")),
                Event::Leave(peer, why) => println!("{} is gone: {why}", peer.name()),
                Event::NameTaken(peer) => {
                    return Err(format!("{} is another process's name now", peer.name()).into());
                }
                other => println!("{other:?}"),
            },
            recv(terminated) -> _ => break,
        }
    }
    println!("{me} takes no more work");
    cluster.set_tag("state", "draining")?;
    thread::sleep(WORK);
    match cluster.leave() {
        Ok(()) => println!("{me} has said goodbye"),
        // The shutdown itself went well.
        Err(error) => println!("{me} could not say goodbye, so its peers must find out: {error}"),
    }
    Ok(())
}
