//! What a soak comes to, for people.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::crowd::Lived;

/// How much a member's memory may grow.
const ALLOWANCE_KB: u64 = 1_024;

/// What a member remembers of each departure for an hour: some 80 bytes, and room to grow. And of how many at most.
const DEPARTURE_BYTES: u64 = 100;
const REMEMBERED: u64 = 10_000;

/// How much a flood may add until the session ends: it keeps the room for what once arrived during a statement, which is read
/// before the answer.
const AFTER_FLOODS_KB: u64 = 16 * 1_024;

/// How a kind of fault went.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) count: usize,
    pub(crate) slowest: Duration,
    /// When that was, since the start.
    at: Duration,
    /// The longest that it took until all had noticed who was gone.
    noticed: Option<Duration>,
}

impl Tally {
    pub(crate) fn add(&mut self, at: Duration, took: Duration, noticed: Option<Duration>) {
        self.count += 1;
        self.noticed = self.noticed.max(noticed);
        if took >= self.slowest {
            (self.slowest, self.at) = (took, at);
        }
    }
}

impl Lived {
    /// What took more in the end than it may.
    pub(crate) fn grown(&self) -> Option<String> {
        let (first, last) = (self.first, self.last);
        let allowance = match self.flooded_kb {
            0 => ALLOWANCE_KB,
            _ => ALLOWANCE_KB + AFTER_FLOODS_KB,
        };
        let grown = self.growth_kb() > allowance
            || self.flooded_kb > ALLOWANCE_KB + AFTER_FLOODS_KB
            || last.descriptors > first.descriptors
            || last.threads > first.threads;
        grown.then(|| format!("{} grew: {self}", self.name))
    }

    /// By how much its memory grew, beyond what it has to remember.
    fn growth_kb(&self) -> u64 {
        let remembered = self.departures.min(REMEMBERED) * DEPARTURE_BYTES / 1_024;
        let expected = self.first.memory_kb + remembered;
        self.last.memory_kb.saturating_sub(expected)
    }
}

pub(crate) fn of_faults(tally: &BTreeMap<&str, Tally>) -> String {
    let mut text = format!("{:24} {:>5}  slowest recovery\n", "fault", "times");
    for (kind, tally) in tally {
        let (slowest, at) = (seconds(tally.slowest), clock(tally.at));
        text += &format!(
            "{kind:24} {:5}  {slowest:>8}, at {}",
            tally.count,
            at.trim()
        );
        if let Some(noticed) = tally.noticed {
            text += &format!("; noticed after {} at the latest", seconds(noticed));
        }
        text += "\n";
    }
    text
}

/// Every member that lived throughout, at the first and at the last quiet point.
pub(crate) fn of_usage(lived: &[Lived]) -> String {
    let mut text = "from the first quiet point to the last:\n".to_owned();
    for member in lived.iter().filter(|lived| lived.throughout) {
        text += &format!("{:6} {member}\n", member.name);
    }
    text
}

/// The most that any start of a member grew.
pub(crate) fn of_growth(lived: &[Lived]) -> String {
    let throughout = lived.iter().filter(|lived| lived.throughout);
    let most = throughout.clone().map(Lived::growth_kb).max();
    format!(
        "no threads or descriptors left behind by any of {} processes, whose memory grew by {} kB at most, and by {} kB \
         among the {} that lived throughout, beyond what they remember of those who left; after a flood by {} kB at most; the most that one \
         ever had, of what arrived during a statement, is {} kB",
        lived.len(),
        lived.iter().map(Lived::growth_kb).max().unwrap_or_default(),
        most.unwrap_or_default(),
        throughout.count(),
        lived
            .iter()
            .map(|it| it.flooded_kb)
            .max()
            .unwrap_or_default(),
        lived.iter().map(|it| it.peak_kb).max().unwrap_or_default(),
    )
}

impl fmt::Display for Lived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first, self.last);
        write!(
            f,
            "memory {:4} to {:4} kB ({} more after floods, {} at most), descriptors {} to {}, threads {} to {}, {} peers left \
             meanwhile",
            first.memory_kb,
            last.memory_kb,
            self.flooded_kb,
            self.peak_kb,
            first.descriptors,
            last.descriptors,
            first.threads,
            last.threads,
            self.departures
        )
    }
}

/// Minutes and seconds since the start.
pub(crate) fn clock(time: Duration) -> String {
    let tenths = time.as_millis() / 100;
    let (minutes, tenths) = (tenths / 600, tenths % 600);
    format!("{minutes:3}:{:02}.{}", tenths / 10, tenths % 10)
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
