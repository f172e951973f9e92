//! The core among others like it: many rosters on a simulated channel, in virtual time, each with a host that keeps a set.
//!
//! A file for each rule of membership that the core keeps (rule 3 is the link's), then what has no rule.

use std::collections::{HashMap, HashSet};

use super::checks::{check_bounds, peers};
use super::*;
use crate::core::presence::Style;
use crate::core::wire::Question;
use crate::peer::Tags;
use crate::simulator::host::{Host, described};
use crate::simulator::net::{Id, LATENCY, Net, STRANGER, Sent};
use crate::simulator::process::Process;
use crate::simulator::setup::{HEARTBEAT, MISSED, Setup};
use crate::trust::seal::keys_of;

mod answers;
mod checkers;
mod delivery;
mod departures;
mod far;
mod growing;
mod happenings;
#[cfg(feature = "auth")]
mod hostile;
mod rule_10_backends;
mod rule_11_digest;
mod rule_12_silence;
mod rule_1_identity;
mod rule_2_expiry;
mod rule_4_link_down;
mod rule_5_hear_first;
mod rule_6_newcomers;
mod rule_7_goodbye;
mod rule_8_foreign;
mod rule_9_bound;
mod schedules;
mod trouble;
mod twins;

/// A settled member answers at once. Where there is none, others answer within this time.
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);

/// Long enough for everybody to be heard, and for the silent to expire.
const SETTLED: Duration = Duration::from_secs(5);

/// The longest until a death is known where one of the oldest or the youngest lives: a question, and one that confirms it. The
/// younger who asks, the later the second.
const GONE: Duration = Duration::from_millis(3_700);

/// Whether large clusters are tried, too, which takes long: where many schedules are.
fn large() -> bool {
    let large = std::env::var_os("PG_PEERS_SEEDS").is_some();
    if !large {
        eprintln!("skipped, or smaller: PG_PEERS_SEEDS is not set");
    }
    large
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The peers that are there, in a few words each, sorted.
fn here(roster: &Roster) -> Vec<String> {
    described(peers(roster))
}

fn beat(name: &str, incarnation: u64, seq: u64) -> String {
    beat_due(name, incarnation, seq, HEARTBEAT)
}

fn beat_due(name: &str, incarnation: u64, seq: u64, due: Duration) -> String {
    let due = due.as_millis();
    format!("pg-peers/1 beat name={name} inc={incarnation} seq={seq} due={due};")
}

fn tagged_beat(name: &str, incarnation: u64, seq: u64, version: &str) -> String {
    format!("pg-peers/1 beat name={name} inc={incarnation} seq={seq} due=1000 tag.v={version};")
}

fn hello(name: &str, incarnation: u64, seq: u64) -> String {
    let new = if seq == 1 { " new=1" } else { "" };
    format!("pg-peers/1 hello name={name} inc={incarnation} seq={seq}{new} due=1000;")
}

fn bye(name: &str, incarnation: u64, seq: u64) -> String {
    format!("pg-peers/1 bye name={name} inc={incarnation} seq={seq};")
}

/// A channel with one process of that setup, which hears what a test injects.
fn listener(setup: Setup) -> (Net, Id) {
    let mut net = Net::new(1);
    let id = net.start_as(setup);
    net.run(ms(10));
    (net, id)
}

/// How many milliseconds after it was heard b is gone, which is due every second, if this happens to the roster each time before
/// it is looked at: it is told when b was heard, and how many milliseconds ago that is.
fn gone_after(setup: Setup, mut happens: impl FnMut(&mut Roster, Instant, u64)) -> Option<u64> {
    let (mut net, a) = listener(setup);
    net.inject(&beat_due("b", 1, 1, secs(1)));
    net.run(ms(10));
    let heard = net.clock();
    let roster = &mut net.processes[a].participant.roster;
    let is_gone = |at: &u64| {
        happens(roster, heard, *at);
        let now = heard + ms(*at);
        assert!(!roster.handle_timeout(now, now));
        check_bounds(roster);
        here(roster).is_empty()
    };
    (0..20_000).step_by(100).find(is_gone)
}

/// What the host is told when these payloads come one after the other.
fn told_of<const N: usize>(payloads: [String; N]) -> Vec<String> {
    let (mut net, a) = listener(Setup::new("a", 1));
    for payload in payloads {
        net.inject(&payload);
        net.run(ms(10));
    }
    net.told(a)
}

/// The member a, whose link is up, and which has asked who is there.
fn asking() -> (Roster, Instant) {
    let now = Instant::now();
    let mut roster = Setup::new("a", 1).roster(1, Inbox::new(1));
    roster.handle_link_up(now, Pid::new(77));
    drain(&mut roster, now);
    (roster, now)
}

/// Two peers say that they know other members.
fn two_differ(roster: &mut Roster, now: Instant) {
    for peer in ["x", "y"] {
        let doubt = &mut roster.doubt;
        doubt.handle_different(now, &peer.into(), true, Duration::ZERO);
    }
}

/// What a roster has to say now.
fn drain(roster: &mut Roster, now: Instant) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(message) = roster.poll_announcement(now) {
        said.push(wire::encode(&message));
    }
    roster.handle_sent(now);
    said
}

/// It hears this on the channel.
fn hear(roster: &mut Roster, now: Instant, payload: &str) {
    if let Some(message) = wire::decode(payload) {
        roster.handle_message(now, STRANGER, &message);
    }
}

/// It hears this part of an answer.
fn answer(roster: &mut Roster, now: Instant, part: &str) {
    let payload = format!("pg-peers/1 roster {part}");
    let part = wire::decode_roster(&payload).expect("a part");
    roster.handle_sync_part(now, STRANGER, &part);
}

/// Starts `count` processes that announce themselves too rarely for heartbeats to help a newcomer.
fn quiet_crowd(net: &mut Net, count: usize, gap: impl Fn(usize) -> Duration) -> Vec<Id> {
    let start = |n| {
        let id = net.start_as(Setup {
            heartbeat: secs(24 * 60 * 60),
            ..Setup::new(&format!("p{n:02}"), 1)
        });
        net.run(gap(n));
        id
    };
    (0..count).map(start).collect()
}

/// Starts `count` processes, the oldest first, and lets them settle. None announces itself soon.
fn settled_crowd(net: &mut Net, count: usize) -> Vec<Id> {
    let start = |n| {
        let id = net.start_as(Setup {
            heartbeat: secs(60 * 60),
            ..Setup::new(&format!("p{n:02}"), 1 + n as u64)
        });
        net.run(ms(20));
        id
    };
    let ids = (0..count).map(start).collect();
    net.run(SETTLED);
    ids
}
