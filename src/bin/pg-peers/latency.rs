//! What many latencies come to, in numbers and as a drawing. Pure.

use std::time::Duration;

use crate::json::millis;

/// The widest bar of a drawing.
const BAR: usize = 40;

/// Where the steps of a drawing begin, in microseconds: 1, 2 and 5 of each power of ten.
const STEPS: [u64; 3] = [1, 2, 5];

#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) p50: Duration,
    pub(crate) p90: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `None` if there are none. Each number is one that was measured (nearest rank).
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let max = *sorted.last()?;
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted[rank - 1]
        };
        Some(Summary {
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max,
        })
    }

    /// A line for each step from the shortest to the longest: how long, how many.
    pub(crate) fn drawing(&self) -> String {
        let mut steps: Vec<(u64, usize)> = Vec::new();
        for start in steps_of(self.0.iter().max()) {
            steps.push((start, 0));
        }
        for latency in &self.0 {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            let after = steps.partition_point(|(start, _)| *start <= micros);
            steps[after - 1].1 += 1;
        }
        let first = steps.iter().position(|(_, count)| *count > 0);
        let most = steps.iter().map(|(_, count)| *count).max().unwrap_or(1);
        let shown = steps.iter().skip(first.unwrap_or(steps.len()));
        let line = |(start, count): &(u64, usize)| {
            // What there is one of is to be seen, too.
            let bar = (count * BAR).div_ceil(most.max(1));
            let bar = "#".repeat(bar);
            let start = format!("{} ms", *start as f64 / 1e3);
            let line = format!("{start:>10}  {count:>6}  {bar}");
            format!("{}\n", line.trim_end())
        };
        shown.map(line).collect()
    }
}

/// The steps up to this latency. The first begins at zero.
fn steps_of(longest: Option<&Duration>) -> Vec<u64> {
    let longest = longest.map_or(0, |it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
    let mut steps = vec![0];
    for power in 1..18 {
        for step in STEPS {
            let start = step * 10_u64.pow(power);
            if start > longest {
                return steps;
            }
            steps.push(start);
        }
    }
    steps
}

impl Summary {
    pub(crate) fn words(&self) -> String {
        format!(
            "p50 {}  p90 {}  p99 {}  max {}",
            milliseconds(self.p50),
            milliseconds(self.p90),
            milliseconds(self.p99),
            milliseconds(self.max)
        )
    }
}

/// As precise as is worth reading: `0.312 ms`, `12.3 ms`, `1234 ms`.
pub(crate) fn milliseconds(time: Duration) -> String {
    let millis = millis(time);
    match millis {
        ..10.0 => format!("{millis:.3} ms"),
        ..1_000.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_micros(micros: impl IntoIterator<Item = u64>) -> Latencies {
        Latencies(micros.into_iter().map(Duration::from_micros).collect())
    }

    #[test]
    fn a_summary_is_of_what_was_measured() {
        let summary = of_micros((1..=100).rev()).summary().expect("one");
        assert_eq!(
            summary.words(),
            "p50 0.050 ms  p90 0.090 ms  p99 0.099 ms  max 0.100 ms"
        );
        let one = of_micros([12_345]).summary().expect("one");
        assert_eq!(one.p50, one.max);
        assert_eq!(one.words().matches("12.3 ms").count(), 4);
        assert_eq!(Latencies::default().summary(), None);
    }

    #[test]
    fn a_drawing_begins_and_ends_where_something_was_measured() {
        let many = (0..80).map(|_| 250);
        let drawing = of_micros(many.chain([120, 1_500, 5])).drawing();
        let lines: Vec<&str> = drawing.lines().collect();
        assert_eq!(lines[0], "      0 ms       1  #");
        assert_eq!(lines[5], format!("    0.2 ms      80  {}", "#".repeat(40)));
        assert_eq!(*lines.last().expect("one"), "      1 ms       1  #");
        assert_eq!(Latencies::default().drawing(), "");
        let far = of_micros([3_600_000_000]).drawing();
        assert_eq!(far.lines().count(), 1, "{far}");
    }
}
