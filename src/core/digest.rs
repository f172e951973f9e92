//! A fingerprint of a roster, by which members notice that they know different ones (rule 11). Pure: time is a parameter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// No more states than this are remembered. Where so much changes in a moment nobody is compared with.
const MOST_REMEMBERED: usize = 64;

/// How many members there are, and who, with which tags. The order in which they came does not matter, and a change takes constant
/// time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) members: u32,
    /// The sum of their fingerprints, modulo 2^64.
    pub(crate) sum: u64,
}

impl Digest {
    pub(crate) fn with(self, fingerprint: u64) -> Self {
        Self {
            members: self.members.wrapping_add(1),
            sum: self.sum.wrapping_add(fingerprint),
        }
    }

    pub(crate) fn without(self, fingerprint: u64) -> Self {
        Self {
            members: self.members.wrapping_sub(1),
            sum: self.sum.wrapping_sub(fingerprint),
        }
    }
}

/// 64-bit FNV-1a (draft-eastlake-fnv-17).
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The digests that a roster had lately. What others say may be behind by as long as changes are under way.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Each with the time since when it was so; the last one is the present.
    states: VecDeque<(Instant, Digest)>,
    /// Some were forgotten that were so until then.
    forgotten_until: Option<Instant>,
}

impl History {
    /// The roster has this digest now. Returns whether it had another one.
    pub(crate) fn push(&mut self, now: Instant, digest: Digest) -> bool {
        if self.states.back().is_some_and(|(_, last)| *last == digest) {
            return false;
        }
        self.states.push_back((now, digest));
        if self.states.len() > MOST_REMEMBERED {
            self.states.pop_front();
            self.forgotten_until = self.states.front().map(|(since, _)| *since);
        }
        true
    }

    /// Whether that was the digest at some time within `time`. `None` if that is not known any more.
    pub(crate) fn had(&self, now: Instant, time: Duration, digest: Digest) -> Option<bool> {
        let is_recent = |until: Instant| now.saturating_duration_since(until) <= time;
        let ends = self.states.iter().skip(1).map(|(since, _)| *since);
        let mut recent = self
            .states
            .iter()
            .zip(ends.chain([now]))
            .filter(|(_, until)| is_recent(*until));
        if recent.any(|((_, had), _)| *had == digest) {
            return Some(true);
        }
        (!self.forgotten_until.is_some_and(is_recent)).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(names: &[&str]) -> Digest {
        let names = names.iter().map(|name| fnv(name.bytes()));
        names.fold(Digest::default(), Digest::with)
    }

    #[test]
    fn the_order_does_not_matter_and_a_change_can_be_undone() {
        assert_eq!(digest(&["a", "b", "c"]), digest(&["c", "a", "b"]));
        assert_ne!(digest(&["a", "b"]), digest(&["a", "c"]));
        let without = digest(&["a", "b", "c"]).without(fnv("b".bytes()));
        assert_eq!(without, digest(&["a", "c"]));
    }

    #[test]
    fn what_others_say_may_be_behind_but_not_for_long() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let time = Duration::from_secs(3);
        let mut history = History::default();
        for (second, names) in [(0, &["a"][..]), (10, &["a", "b"]), (20, &["a", "b", "c"])] {
            history.push(at(second), digest(names));
        }
        let had = |second, names| history.had(at(second), time, digest(names));
        assert_eq!(had(20, &["a", "b", "c"]), Some(true));
        assert_eq!(had(23, &["a", "b"]), Some(true));
        assert_eq!(had(24, &["a", "b"]), Some(false));
        assert_eq!(had(20, &["a"]), Some(false));
        assert_eq!(had(99, &["a", "b", "c"]), Some(true));
    }

    #[test]
    fn nobody_is_compared_with_where_too_much_changes() {
        let now = Instant::now();
        let time = Duration::from_secs(3);
        let never = digest(&["never"]);
        let mut history = History::default();
        for n in 0..200 {
            assert!(history.push(now, digest(&[&n.to_string()])));
            let known = (n < MOST_REMEMBERED).then_some(false);
            assert_eq!(history.had(now, time, never), known, "{n}");
        }
        assert!(!history.push(now, digest(&["199"])));
        assert_eq!(history.had(now, time, never), None);
        assert_eq!(history.had(now, time, digest(&["199"])), Some(true));
        assert_eq!(history.had(now + time * 2, time, never), Some(false));
    }
}
