//! Peers as one of several things to wait for: a worker that takes jobs from its channel, does something every
//! second, and follows the cluster, on one thread, without polling.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example select         # in one terminal, and again in another; each line that you type is a job
//! ```
//!
//! A job that takes long delays the events, which wait and coalesce; nothing is lost, and no heartbeat is late, since
//! those are the library's thread's. `Event::Offline` is no reason to stop: the peers stay as they are known.

use std::error::Error;
use std::io;
use std::thread;
use std::time::Duration;

use gethostname::gethostname;
use pg_peers::crossbeam_channel::{bounded, select, tick};
use pg_peers::{Config, Event};

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let database = argument.or_else(|| std::env::var("DATABASE_URL").ok());
    let database = database.ok_or("which database? Set DATABASE_URL, or give it as an argument")?;
    // The pid alone is 1 in every container.
    let host = gethostname().to_string_lossy().into_owned();
    let me = format!("select-{host}-{}", std::process::id());
    let cluster = Config::new(&me).channel("select").join(&database)?;
    println!("{me} starts; type jobs, and Ctrl-D to end");

    let (submit, jobs) = bounded(16);
    thread::spawn(move || {
        let mut lines = io::stdin().lines().map_while(Result::ok);
        lines.try_for_each(|job| submit.send(job))
    });
    let seconds = tick(Duration::from_secs(1));
    let mut done = 0;
    let mut reported = 0;
    loop {
        select! {
            recv(cluster.events()) -> event => match event? {
                Event::Join(peer) | Event::Heal(peer) => println!("{} is there", peer.name()),
                Event::Leave(peer, why) => println!("{} is gone: {why}", peer.name()),
                Event::Offline(why) => println!("offline: {why}"),
                Event::NameTaken(peer) => {
                    return Err(format!("{} is another process's name now", peer.name()).into());
                }
                other => println!("{other:?}"),
            },
            recv(jobs) -> job => match job {
                Ok(job) => {
                    println!("did {job}");
                    done += 1;
                }
                // No more jobs will come: here, Ctrl-D was pressed.
                Err(_) => break,
            },
            recv(seconds) -> _ => if done != reported {
                println!("{done} jobs done, {} peers", cluster.peers().len());
                reported = done;
            },
        }
    }
    cluster.leave()?;
    println!("{me} has left");
    Ok(())
}
