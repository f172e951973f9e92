//! An async host: a thread hands the events on to a channel of tokio's. The library stays blocking and knows no runtime.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example async_host     # in one terminal, and again in another; Ctrl-C says goodbye
//! ```
//!
//! What returns at once, such as `peers`, `status`, `report_unreachable` and `set_tags`, may be called from a task. What waits,
//! that is `wait_online`, `wait_for_peers` and `leave`, belongs into `spawn_blocking`; dropping the handle also waits, for up
//! to a second. A task that is slow to take events delays nobody: they wait in the library, where they coalesce.

use std::error::Error;
use std::thread;

use gethostname::gethostname;
use pg_peers::{Config, Event};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let database = argument.or_else(|| std::env::var("DATABASE_URL").ok());
    let database = database.ok_or("which database? Set DATABASE_URL, or give it as an argument")?;
    // The pid alone is 1 in every container.
    let host = gethostname().to_string_lossy().into_owned();
    let me = format!("async_host-{host}-{}", std::process::id());
    let cluster = Config::new(&me).channel("async_host").join(&database)?;
    println!("{me} starts");

    // Both ends that this thread joins end it: the cluster when it is left, and the task when it takes no more.
    let events = cluster.events().clone();
    let (sender, mut receiver) = mpsc::channel(16);
    thread::spawn(move || {
        events
            .iter()
            .try_for_each(|event| sender.blocking_send(event))
    });
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            event = receiver.recv() => match event {
                Some(Event::Join(peer) | Event::Heal(peer)) => println!("{} is there", peer.name()),
                Some(Event::Leave(peer, why)) => println!("{} is gone: {why}", peer.name()),
                Some(Event::Offline(why)) => println!("offline: {why}"),
                Some(Event::NameTaken(peer)) => {
                    return Err(format!("{} is another process's name now", peer.name()).into());
                }
                Some(other) => println!("{other:?}"),
                None => break,
            },
            interrupted = &mut interrupt => {
                interrupted?;
                break;
            }
        }
    }
    spawn_blocking(move || cluster.leave()).await??;
    println!("{me} has left");
    Ok(())
}
