//! What the operator is told of the link: that an outage began and why, what else keeps it up, and that it is over. Not each of
//! the attempts to end it, of which there are thousands an hour.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::logging::{LINK, TRUST};

/// The least time between two reasons of one outage. A server that restarts gives several in a row: it ends sessions, refuses
/// connections, starts up.
const PAUSE: Duration = Duration::from_secs(10);

/// The most reasons of one outage that are told. Each is told once, also where two take turns as the hosts of a connection
/// string do.
const MOST_REASONS: usize = 8;

#[derive(Debug)]
pub(crate) struct OperatorLog {
    channel: String,
    /// The outage that goes on, if there is one.
    outage: Option<Outage>,
    /// The encoding of the database that was last warned of.
    encoding: Option<String>,
}

#[derive(Debug)]
struct Outage {
    start: Instant,
    last_told: Instant,
    /// The reasons that were told, without their numbers.
    reasons: Vec<String>,
}

impl OperatorLog {
    pub(crate) fn new(channel: String) -> Self {
        Self {
            channel,
            outage: None,
            encoding: None,
        }
    }

    /// The link failed, or an attempt to have one did.
    pub(crate) fn tell_offline(&mut self, now: Instant, error: &Error) {
        let text = error.to_string();
        let news = self.is_news(now, &text);
        let channel = &self.channel;
        if news {
            log::warn!(target: LINK, "{channel:?}: offline: {text}");
        } else {
            log::debug!(target: LINK, "{channel:?}: still offline: {text}");
        }
    }

    /// The link is up; with the encoding of the database, if others can end our sessions there by what they announce.
    pub(crate) fn tell_online(&mut self, now: Instant, unsafe_encoding: Option<&str>) {
        let channel = &self.channel;
        match self.outage.take() {
            Some(outage) => {
                let time = now.saturating_duration_since(outage.start);
                log::info!(target: LINK, "{channel:?}: online after {time:.1?}");
            }
            None => log::info!(target: LINK, "{channel:?}: online"),
        }
        // Once at its change, not once a session.
        if self.encoding.as_deref() == unsafe_encoding {
            return;
        }
        if let Some(encoding) = unsafe_encoding {
            log::warn!(
                target: TRUST,
                "{channel:?}: the database has the encoding {encoding}: every role that may connect can announce what has no \
                 equivalent in UTF-8, and Postgres then ends the session of every member (each reconnects). Meet in a \
                 database that has the encoding UTF8: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
            );
        }
        self.encoding = unsafe_encoding.map(str::to_owned);
    }

    fn is_news(&mut self, now: Instant, text: &str) -> bool {
        // Some tell the time: rustls says for how many seconds a certificate has been expired.
        let gist = text.replace(char::is_numeric, "");
        let Some(outage) = &mut self.outage else {
            self.outage = Some(Outage {
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
    fn told<'a>(log: &mut OperatorLog, failures: impl IntoIterator<Item = &'a str>) -> Vec<u64> {
        let start = Instant::now();
        let told = |(second, text)| {
            let now = start + Duration::from_secs(second);
            log.is_news(now, text).then_some(second)
        };
        (0..).zip(failures).filter_map(told).collect()
    }

    #[test]
    fn a_restart_is_told_once() {
        let restart = ["terminated", "refused", "refused", "starting up"];
        assert_eq!(told(&mut OperatorLog::new("c".to_owned()), restart), [0]);
    }

    #[test]
    fn what_keeps_an_outage_up_is_told_once_whatever_its_numbers() {
        let mut log = OperatorLog::new("c".to_owned());
        let texts: Vec<String> = (0..1_000).map(|n| format!("expired {n} s ago")).collect();
        let refused = std::iter::once("terminated").chain(texts.iter().map(|text| &**text));
        assert_eq!(told(&mut log, refused), [0, 10]);
    }

    #[test]
    fn two_reasons_that_take_turns_are_told_once_each() {
        let turns = ["first host", "second host"].into_iter().cycle();
        assert_eq!(
            told(&mut OperatorLog::new("c".to_owned()), turns.take(1_000)),
            [0, 11]
        );
    }

    #[test]
    fn reasons_without_end_are_not_told_without_end() {
        let texts: Vec<String> = (0..1_000).map(|n| "x".repeat(n)).collect();
        let told = told(
            &mut OperatorLog::new("c".to_owned()),
            texts.iter().map(|text| &**text),
        );
        assert_eq!(told, [0, 10, 20, 30, 40, 50, 60, 70]);
    }

    #[test]
    fn the_next_outage_is_told_anew() {
        let mut log = OperatorLog::new("c".to_owned());
        assert_eq!(told(&mut log, ["terminated"]), [0]);
        log.tell_online(Instant::now(), None);
        assert_eq!(told(&mut log, ["terminated"]), [0]);
    }
}
