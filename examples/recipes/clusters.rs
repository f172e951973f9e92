//! Several clusters in one program: a `Cluster` for each channel, and one loop that waits for the events of all. This one
//! takes part in `orders` and in `payments`, and watches `audit` without being seen there.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example clusters       # in one terminal, and again in another
//! ```
//!
//! Each has a thread and a session with Postgres, so this costs two of `max_connections` more than one cluster.
//! Where the same processes meet, tags in one cluster do the same for less. Clusters may be in different databases.

use std::error::Error;

use gethostname::gethostname;
use pg_peers::crossbeam_channel::Select;
use pg_peers::{Cluster, Config, Event};

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let database = argument.or_else(|| std::env::var("DATABASE_URL").ok());
    let database = database.ok_or("which database? Set DATABASE_URL, or give it as an argument")?;
    // The pid alone is 1 in every container.
    let host = gethostname().to_string_lossy().into_owned();
    let me = format!("clusters-{host}-{}", std::process::id());
    let clusters = [
        ("orders", Config::new(&me).tag("role", "picker")),
        ("payments", Config::new(&me)),
        ("audit", Config::observer()),
    ];
    let clusters: Vec<(&str, Cluster)> = clusters
        .into_iter()
        .map(|(channel, config)| Ok((channel, config.channel(channel).join(&database)?)))
        .collect::<pg_peers::Result<_>>()?;
    println!("{me} starts");

    let mut select = Select::new();
    for (_, cluster) in &clusters {
        select.recv(cluster.events());
    }
    loop {
        let ready = select.select();
        let (channel, cluster) = &clusters[ready.index()];
        match ready.recv(cluster.events())? {
            Event::Online => println!("{channel}: online"),
            Event::Offline(why) => println!("{channel}: offline: {why}"),
            Event::Join(peer) | Event::Heal(peer) => {
                println!("{channel}: {} is there", peer.name())
            }
            Event::Leave(peer, why) => println!("{channel}: {} is gone: {why}", peer.name()),
            Event::NameTaken(peer) => {
                let name = peer.name();
                return Err(format!("{channel}: {name} is another process's name now").into());
            }
            other => println!("{channel}: {other:?}"),
        }
    }
}
