//! What holds between any two calls, whoever sends what: for tests and for fuzzing.

use super::Roster;
use crate::outbox::host::describe;
use crate::peer::Peer;

pub(crate) fn peers(roster: &Roster) -> impl Iterator<Item = &Peer> {
    roster.here().map(|entry| &entry.peer)
}

/// The peers that are there, in a few words each, sorted.
pub(crate) fn here(roster: &Roster) -> Vec<String> {
    described(peers(roster))
}

pub(crate) fn described<'a>(peers: impl Iterator<Item = &'a Peer>) -> Vec<String> {
    let mut described: Vec<_> = peers.map(describe).collect();
    described.sort();
    described
}

pub(crate) fn check_bounds(roster: &Roster) {
    let limits = &roster.limits;
    assert_eq!(roster.here().count(), roster.present);
    assert!(roster.present <= limits.max_peers);
    assert!(roster.departed.len() <= limits.max_departed);
    assert!(roster.entries.len() <= roster.present + roster.departed.len());
    assert!(roster.timers.len() <= roster.entries.len());
    assert!(roster.corrections.len() <= limits.max_peers + limits.max_departed);
    assert!(roster.obituaries.len() <= limits.max_departed);
    assert!(roster.questions.len() <= super::MAX_QUESTIONS);
    assert!(roster.session_check.suspects().len() <= roster.present);
}
