//! Sharing work by rendezvous hashing: the member with the highest score for a key owns it. All compute the same scores,
//! from the names of the peers alone, so a key moves only when its owner leaves, or to a newcomer.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/postgres
//! cargo run --example sharing        # in one terminal, and again in another
//! ```
//!
//! Views differ for a moment: a key may have two owners, or none, until all have heard the same. So doing work twice must do
//! no harm. A process that is killed keeps its keys for the seconds until it is known.

use std::error::Error;
use std::time::Duration;

use gethostname::gethostname;
use pg_peers::{Config, Peer};

const KEYS: u32 = 24;

/// Nothing has changed for so long: a newcomer first hears who is there, and a deployment restarts many at once.
const QUIET: Duration = Duration::from_millis(300);

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    let database = argument.or_else(|| std::env::var("DATABASE_URL").ok());
    let database = database.ok_or("which database? Set DATABASE_URL, or give it as an argument")?;
    // The pid alone is 1 in every container.
    let host = gethostname().to_string_lossy().into_owned();
    let me = format!("sharing-{host}-{}", std::process::id());
    let cluster = Config::new(&me).channel("sharing").join(&database)?;
    println!("{me} starts");
    // Without having heard anybody it would take all for itself.
    cluster.wait_online(Duration::from_secs(30))?;
    while cluster.events().recv().is_ok() {
        while cluster.events().recv_timeout(QUIET).is_ok() {}
        if cluster.status().name_taken {
            // What it owns nobody knows.
            return Err(format!("{me} is another process's name now").into());
        }
        let peers = cluster.peers();
        let keys = keys_of(&me, &peers);
        let (count, all, keys) = (keys.len(), peers.len() + 1, keys.join(" "));
        println!("{me} owns {count} of {KEYS} keys among {all}: {keys}");
    }
    Ok(())
}

fn keys_of(me: &str, peers: &[Peer]) -> Vec<String> {
    let is_mine = |key: &String| {
        let mine = score(key, me);
        peers.iter().all(|peer| score(key, peer.name()) < mine)
    };
    let keys = (1..=KEYS).map(|number| format!("key-{number}"));
    keys.filter(is_mine).collect()
}

/// How much a member claims a key. The name decides between those who claim it alike.
///
/// FNV-1a, mixed as by splitmix64, since what the standard library hashes with may change from one of its releases to the
/// next: programs that were built by two of them would not agree.
fn score<'a>(key: &str, name: &'a str) -> (u64, &'a str) {
    let bytes = key.bytes().chain([0]).chain(name.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31), name)
}
