//! What holds between any two calls, whatever anybody sends: for tests and for fuzzing.

use std::sync::Arc;

use super::Roster;
use super::entry::Entry;
use crate::core::digest::Digest;
use crate::peer::Peer;

/// The peers that are there.
pub(crate) fn peers(roster: &Roster) -> impl Iterator<Item = &Peer> {
    roster.alive().map(|entry| &entry.peer)
}

/// How many peers are there, and the one of this name, if it is. Unlike [`peers`] it does not look at each.
pub(crate) fn find<'a>(roster: &'a Roster, name: &str) -> (usize, Option<&'a Peer>) {
    let entry = roster.entries.get(name);
    let alive = entry.filter(|entry| entry.standing.is_alive());
    (roster.present, alive.map(|entry| &entry.peer))
}

/// Panics if the roster is larger than its limits allow, or counts its peers wrongly.
pub(crate) fn check_bounds(roster: &Roster) {
    let limits = &roster.limits;
    assert_eq!(roster.alive().count(), roster.present);
    assert!(roster.present <= limits.max_peers);
    assert!(roster.tombstones.len() <= limits.max_departed);
    assert!(roster.entries.len() <= roster.present + roster.tombstones.len());
    assert!(roster.corrections.len() <= limits.max_peers + limits.max_departed);
    assert!(roster.sync.departures() <= limits.max_departed);
    assert!(roster.queries.is_bounded());
    assert!(roster.session_check.suspects().len() <= roster.present);
    assert!(roster.session_check.unreachable() <= roster.present);
    let is_alive = |name: &Arc<str>| {
        let entry = roster.entries.get(name);
        entry.is_some_and(|entry| entry.standing.is_alive())
    };
    assert!(roster.stillness.names().all(is_alive));
    let in_full = roster
        .alive()
        .filter(|entry| entry.peer.incarnation().is_some());
    let digest = in_full
        .map(|entry| entry.fingerprint)
        .fold(Digest::default(), Digest::with);
    assert_eq!(roster.peers_digest, digest);
    // To find out each takes long.
    let fingerprint = |entry: &Entry| entry.own_fingerprint().unwrap_or(entry.fingerprint);
    let mut one = roster.alive().take(1);
    assert!(one.all(|entry| fingerprint(entry) == entry.fingerprint));
    assert!(roster.backends.len() <= roster.present);
    let mut alive = roster.alive();
    let overdue_at = |entry: &Entry| {
        // That of a lull which is over by now was later.
        let overdue_at = entry.overdue_at(roster.loud_until, &roster.lull, limits.missed);
        roster
            .lull
            .over_at()
            .map_or(overdue_at, |over_at| overdue_at.max(over_at))
    };
    assert!(alive.all(|entry| roster.expiry.is_expected(overdue_at(entry))));
}
