//! A leader without an election: the member that started first, by the clocks of their hosts: it has the lowest
//! incarnation.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example leader         # in one terminal, and again in another; then kill -9 the leader
//! ```
//!
//! **Membership is no consensus.** Each goes by its own view, so two may believe that they lead, for as long as it takes
//! until one hears of the other: good enough to choose who refreshes a cache. What must never happen twice belongs under
//! a lock: here the leader also takes an advisory lock of Postgres, which one session at a time has. Even then the
//! work itself belongs into that session: when it breaks, the next has the lock before this process knows.

use std::error::Error;
use std::time::Duration;

use gethostname::gethostname;
use pg_peers::crossbeam_channel::RecvTimeoutError;
use pg_peers::postgres::{self, Client, NoTls};
use pg_peers::{Cluster, Config};

/// How often to try for the lock, and to see whether it is still there.
const TURN: Duration = Duration::from_millis(500);

/// Nothing has changed for so long: a newcomer first hears who is there.
const QUIET: Duration = Duration::from_millis(300);

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let database = argument.or_else(|| std::env::var("DATABASE_URL").ok());
    let database = database.ok_or("which database? Set DATABASE_URL, or give it as an argument")?;
    // The pid alone is 1 in every container.
    let host = gethostname().to_string_lossy().into_owned();
    let me = format!("leader-{host}-{}", std::process::id());
    let cluster = Config::new(&me).channel("leader").join(&database)?;
    println!("{me} starts");
    let mut known = None;
    let mut lock: Option<Client> = None;
    loop {
        if let Err(RecvTimeoutError::Disconnected) = cluster.events().recv_timeout(TURN) {
            return Ok(());
        }
        while cluster.events().recv_timeout(QUIET).is_ok() {}
        if cluster.status().name_taken {
            // So this one leads nobody.
            return Err(format!("{me} is another process's name now").into());
        }
        let leader = leader(&me, &cluster);
        if leader != known {
            println!("leader: {}", leader.as_deref().unwrap_or("unknown"));
        }
        if leader.as_ref() != Some(&me) {
            // Ends the session, and with it the lock.
            lock = None;
        } else if lock.as_mut().is_none_or(|it| it.is_valid(TURN).is_err()) {
            lock = try_lock(&database).unwrap_or_else(|error| {
                eprintln!("no lock: {error}");
                None
            });
            if lock.is_some() {
                println!("{me} has the lock");
            }
        }
        known = leader;
    }
}

/// `None` while this process is cut off: the others may have another leader by now.
fn leader(me: &str, cluster: &Cluster) -> Option<String> {
    let status = cluster.status();
    let seen = status.online && !status.name_taken;
    let mine = seen.then_some((status.incarnation?, me))?;
    let peers = cluster.peers();
    let theirs = peers
        .iter()
        .filter_map(|peer| Some((peer.incarnation()?, peer.name())));
    let (_, name) = theirs.chain([mine]).min()?;
    Some(name.to_owned())
}

fn try_lock(database: &str) -> Result<Option<Client>, postgres::Error> {
    let mut session = Client::connect(database, NoTls)?;
    // The number is this program's choice: all locks of a database share one space.
    let row = session.query_one("SELECT pg_try_advisory_lock(7000)", &[])?;
    Ok(row.get::<_, bool>(0).then_some(session))
}
