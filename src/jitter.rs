//! Small random variation, so that participants that start together do not act in step.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::process;
use std::time::{Duration, SystemTime};

/// A seeded generator: SplitMix64 (Steele, Lea and Flood, 2014). Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A duration between `least` times `whole` and `whole`, evenly distributed.
    pub(crate) fn between(&mut self, least: f64, whole: Duration) -> Duration {
        // The upper 53 bits fill a double's mantissa.
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        whole.mul_f64(least + (1.0 - least) * unit)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A number that nobody can guess, of the standard library's own source. A process that was forked has the same source as its
/// siblings, so what tells it from them goes in, too.
pub(crate) fn random() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(process::id());
    hasher.write_u128(since.unwrap_or_default().as_nanos());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn its_numbers_are_those_of_the_algorithm() {
        // The reference implementation's, from the seed 0.
        let mut jitter = Jitter::new(0);
        let expected = [
            0xe220_a839_7b1d_cdaf,
            0x6e78_9e6a_a1b9_65f4,
            0x06c4_5d18_8009_454f,
        ];
        assert_eq!([0; 3].map(|_| jitter.next()), expected);
    }

    #[test]
    fn no_two_random_numbers_are_the_same() {
        let drawn: HashSet<_> = (0..10).map(|_| random()).collect();
        assert_eq!(drawn.len(), 10);
    }
}
