//! Who is there, asked once by an observer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pg_peers::crossbeam_channel::RecvTimeoutError;
use pg_peers::{Cluster, Config, PeerInfo};

use crate::connection::Failure;

/// The longest that the link may take to come up.
const ONLINE: Duration = Duration::from_secs(20);

/// After this long without an answer, none will come: the library asks one member, then two others, each 0.2 s later, and then all.
const UNANSWERED: Duration = Duration::from_millis(2_000);

/// An answer comes in parts, one close behind the other.
const BETWEEN_PARTS: Duration = Duration::from_millis(400);

/// The least wait in round trips, where the server is far.
const ROUND_TRIPS: u32 = 8;

/// The longest that is waited for an answer to end.
const LONGEST: Duration = Duration::from_secs(15);

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Where a cluster meets, and how to listen there.
#[derive(Clone, clap::Args)]
pub(crate) struct Meeting {
    /// The Postgres channel on which it meets
    #[arg(long, value_name = "NAME", default_value = "cluster")]
    pub(crate) channel: String,
    /// Say nothing at all, not even to ask who is there: for a channel of Elixir nodes, which take every message for the
    /// name of a node
    #[arg(long)]
    pub(crate) bare_name: bool,
    /// The heartbeat interval of nodes that announce only their name
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) bare_heartbeat: Duration,
}

/// The members that were found, in the order of names.
pub(crate) struct Found {
    pub(crate) infos: Vec<PeerInfo>,
    /// How long it took, from when the link was up.
    pub(crate) took: Duration,
}

/// What is seen of an answer at a moment. Pure.
struct Progress {
    /// Since the link is up.
    asked: Instant,
    /// When the number of peers was last seen to grow.
    grew: Option<Instant>,
    peers: usize,
}

impl Meeting {
    pub(crate) fn observer(&self) -> Config {
        Config::observer()
            .channel(&self.channel)
            .bare_name(self.bare_name)
            .bare_heartbeat_interval(self.bare_heartbeat)
    }

    /// How long one who asks nobody must listen.
    pub(crate) fn listening(&self) -> Duration {
        match self.bare_name {
            true => self.until_all_spoke(),
            false => Duration::ZERO,
        }
    }

    /// After this time bare names were heard, too: each says its name once in an interval, and no answer lists it.
    pub(crate) fn until_all_spoke(&self) -> Duration {
        self.bare_heartbeat + UNANSWERED
    }
}

/// Waits for the answer to the question that an observer asks when its link comes up, or for `listening`, if that is longer. No
/// method of the library tells that an answer is whole, so it is taken to be when nothing was added for a while.
pub(crate) fn ask(cluster: &Cluster, listening: Duration) -> Result<Found, Failure> {
    wait_online(cluster)?;
    let start = Instant::now();
    let mut progress = Progress::new(start);
    loop {
        let status = cluster.status();
        let now = Instant::now();
        progress.see(now, status.peers);
        let round_trip = status.round_trip.unwrap_or_default();
        if progress.is_over(now, round_trip) && now >= start + listening {
            break;
        }
        drain(cluster);
        match cluster.events().recv_timeout(LOOK) {
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("the cluster was left".into()),
        }
    }
    let took = start.elapsed();
    let infos = cluster.peer_infos();
    let infos = infos.recv_timeout(ONLINE).map_err(|_| {
        "Postgres does not answer any more: run pg-peers check to see where it fails".to_owned()
    })?;
    Ok(Found { infos, took })
}

/// Unlike a member, one who asks once gives up when the first attempt has failed.
fn wait_online(cluster: &Cluster) -> Result<(), Failure> {
    let end = Instant::now() + ONLINE;
    loop {
        let Err(error) = cluster.wait_online(LOOK) else {
            return Ok(());
        };
        let status = cluster.status();
        match status.last_error {
            Some(reason) if status.failed_attempts > 0 => return Err(reason.into()),
            _ if Instant::now() >= end => return Err(error.into()),
            _ => {}
        }
    }
}

/// What happened is of no use to one who asks once, and events would wait in memory.
fn drain(cluster: &Cluster) {
    cluster.events().try_iter().for_each(drop);
}

impl Progress {
    fn new(asked: Instant) -> Self {
        Self {
            asked,
            grew: None,
            peers: 0,
        }
    }

    fn see(&mut self, now: Instant, peers: usize) {
        if peers > self.peers {
            self.grew = Some(now);
        }
        self.peers = peers;
    }

    fn is_over(&self, now: Instant, round_trip: Duration) -> bool {
        let far = round_trip * ROUND_TRIPS;
        let quiet = match self.grew {
            None => UNANSWERED.max(far * 2),
            Some(_) => BETWEEN_PARTS.max(far),
        };
        let since = self.grew.unwrap_or(self.asked);
        now >= since + quiet || now >= self.asked + LONGEST
    }
}

/// What is asked of a peer's tags: all of these.
#[derive(Default)]
pub(crate) struct Filter(BTreeMap<String, String>);

impl Filter {
    pub(crate) fn new(pairs: &[(String, String)]) -> Self {
        Self(pairs.iter().cloned().collect())
    }

    pub(crate) fn fits(&self, info: &PeerInfo) -> bool {
        let mut wanted = self.0.iter();
        wanted.all(|(key, value)| info.peer.tag(key) == Some(value))
    }
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| format!("{e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Duration = Duration::from_micros(300);

    #[test]
    fn an_answer_is_over_when_nothing_was_added_for_a_while() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut progress = Progress::new(start);
        progress.see(at(10), 0);
        assert!(!progress.is_over(at(1_900), NEAR), "asking goes on");
        assert!(progress.is_over(at(2_000), NEAR), "nobody is there");
        progress.see(at(20), 5);
        assert!(!progress.is_over(at(400), NEAR));
        progress.see(at(400), 9);
        progress.see(at(700), 9);
        assert!(!progress.is_over(at(799), NEAR));
        assert!(progress.is_over(at(800), NEAR));
    }

    #[test]
    fn a_far_server_gets_longer_and_a_restless_channel_has_an_end() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let far = Duration::from_millis(200);
        let mut progress = Progress::new(start);
        assert!(!progress.is_over(at(3_000), far));
        progress.see(at(3_000), 1);
        assert!(!progress.is_over(at(4_500), far));
        assert!(progress.is_over(at(4_600), far));
        progress.see(at(14_990), 2);
        assert!(progress.is_over(at(15_000), NEAR));
    }
}
