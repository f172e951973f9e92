//! What the operator is told of an outage: that it began and why, what else keeps it up, and that it is over; not each of
//! the attempts to end it, of which there are thousands an hour.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::logging::LINK;

/// A further reason is told so long after the last line at the soonest. A server that restarts gives several in a row: it
/// ends sessions, refuses connections, starts up.
const PAUSE: Duration = Duration::from_secs(10);

/// So many reasons of one outage are told, each once, also where two take turns as the hosts of a connection string do.
const MOST_REASONS: usize = 8;

/// The outage that goes on, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Outage(Option<Since>);

#[derive(Debug)]
struct Since {
    start: Instant,
    last_told: Instant,
    /// Those that were told, without their numbers.
    reasons: Vec<String>,
}

impl Outage {
    /// The link failed, or an attempt to have one did.
    pub(crate) fn note(&mut self, now: Instant, channel: &str, error: &Error) {
        let text = error.to_string();
        if self.is_news(now, &text) {
            log::warn!(target: LINK, "{channel:?}: offline: {text}");
        } else {
            log::debug!(target: LINK, "{channel:?}: still offline: {text}");
        }
    }

    /// The link is up.
    pub(crate) fn end(&mut self, now: Instant, channel: &str) {
        match self.0.take() {
            Some(outage) => {
                let time = now.saturating_duration_since(outage.start);
                log::info!(target: LINK, "{channel:?}: online after {time:.1?}");
            }
            None => log::info!(target: LINK, "{channel:?}: online"),
        }
    }

    fn is_news(&mut self, now: Instant, text: &str) -> bool {
        // Some tell the time: rustls says for how many seconds a certificate has been expired.
        let gist = text.replace(char::is_numeric, "");
        let Some(outage) = &mut self.0 else {
            self.0 = Some(Since {
                start: now,
                last_told: now,
                reasons: vec![gist],
            });
            return true;
        };
        let due = now.saturating_duration_since(outage.last_told) >= PAUSE;
        let news = due && outage.reasons.len() < MOST_REASONS && !outage.reasons.contains(&gist);
        if news {
            outage.last_told = now;
            outage.reasons.push(gist);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the failures, one a second, are told.
    fn told<'a>(outage: &mut Outage, failures: impl IntoIterator<Item = &'a str>) -> Vec<u64> {
        let start = Instant::now();
        let told = |(second, text)| {
            let now = start + Duration::from_secs(second);
            outage.is_news(now, text).then_some(second)
        };
        (0..).zip(failures).filter_map(told).collect()
    }

    #[test]
    fn a_restart_is_told_once() {
        let restart = ["terminated", "refused", "refused", "starting up"];
        assert_eq!(told(&mut Outage::default(), restart), [0]);
    }

    #[test]
    fn what_keeps_an_outage_up_is_told_once_whatever_its_numbers() {
        let mut outage = Outage::default();
        let texts: Vec<String> = (0..1_000).map(|n| format!("expired {n} s ago")).collect();
        let refused = std::iter::once("terminated").chain(texts.iter().map(|text| &**text));
        assert_eq!(told(&mut outage, refused), [0, 10]);
    }

    #[test]
    fn two_reasons_that_take_turns_are_told_once_each() {
        let turns = ["first host", "second host"].into_iter().cycle();
        assert_eq!(told(&mut Outage::default(), turns.take(1_000)), [0, 11]);
    }

    #[test]
    fn reasons_without_end_are_not_told_without_end() {
        let texts: Vec<String> = (0..1_000).map(|n| "x".repeat(n)).collect();
        let told = told(&mut Outage::default(), texts.iter().map(|text| &**text));
        assert_eq!(told, [0, 10, 20, 30, 40, 50, 60, 70]);
    }

    #[test]
    fn the_next_outage_is_told_anew() {
        let mut outage = Outage::default();
        assert_eq!(told(&mut outage, ["terminated"]), [0]);
        outage.end(Instant::now(), "c");
        assert_eq!(told(&mut outage, ["terminated"]), [0]);
    }
}
