//! Payloads that were refused for their signatures: counted, and told to the operator once for each cause, not once a payload.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::core::wire::{self, Body, Pid};
use crate::logging::TRUST;
use crate::status::Status;
use crate::trust::seal::{Refusal, TOLERANCE};

/// A cause that was away for this long is told again when it is back.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// The most causes that are told apart. Further ones are only counted.
const MOST_CAUSES: usize = 100;

/// A payload that was refused, and why.
pub(crate) struct Refused<'a> {
    pub(crate) channel: &'a str,
    pub(crate) sender: Pid,
    pub(crate) payload: &'a str,
    pub(crate) why: Refusal,
}

/// What was told to the operator.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// When there last was cause to.
    told: HashMap<Cause, Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Cause {
    Unsigned,
    Forged,
    /// Its clock, or ours.
    Clock(String),
}

impl Refusals {
    pub(crate) fn note(&mut self, now: Instant, refused: &Refused<'_>, status: &mut Status) {
        match refused.why {
            Refusal::Unsigned => {
                status.forged += 1;
                self.tell_of_forgery(now, Cause::Unsigned, refused, "are not signed");
            }
            Refusal::Forged => {
                status.forged += 1;
                let fault = "are not signed with one of our secrets, or sent by others than who signed them";
                self.tell_of_forgery(now, Cause::Forged, refused, fault);
            }
            Refusal::Old(by) => {
                status.clock_skewed += 1;
                self.tell_of_clock(now, refused, by, "before it came");
            }
            Refusal::Ahead(by) => {
                status.clock_skewed += 1;
                self.tell_of_clock(now, refused, by, "in the future");
            }
        }
    }

    fn tell_of_forgery(&mut self, now: Instant, cause: Cause, refused: &Refused<'_>, fault: &str) {
        if self.is_news(now, cause) {
            let name = wire::decode(refused.payload).map(|message| message.name);
            let of = name.map_or_else(String::new, |name| format!(", about {name:?}"));
            log::warn!(
                target: TRUST,
                "{:?}: ignoring payloads that {fault}; the first came from backend {}{of}",
                refused.channel,
                refused.sender,
            );
        }
    }

    fn tell_of_clock(&mut self, now: Instant, refused: &Refused<'_>, by: Duration, when: &str) {
        let Some(signer) = refused.signer() else {
            return;
        };
        if self.is_news(now, Cause::Clock(signer.clone())) {
            log::warn!(
                target: TRUST,
                "{:?}: not hearing {signer:?} (backend {}): what it says is signed {} s {when}, and {} s are allowed; \
                 its clock or ours is wrong",
                refused.channel,
                refused.sender,
                by.as_secs(),
                TOLERANCE.as_secs(),
            );
        }
    }

    fn is_news(&mut self, now: Instant, cause: Cause) -> bool {
        let goes_on = |last: Instant| now.saturating_duration_since(last) <= QUIET;
        if let Some(last) = self.told.get_mut(&cause) {
            return !goes_on(std::mem::replace(last, now));
        }
        if self.told.len() >= MOST_CAUSES {
            self.told.retain(|_, last| goes_on(*last));
        }
        let room = self.told.len() < MOST_CAUSES;
        if room {
            self.told.insert(cause, now);
        }
        room
    }
}

impl Refused<'_> {
    /// Who signed it, where it says so: not what one member says of another.
    fn signer(&self) -> Option<String> {
        let message = wire::decode(self.payload)?;
        match message.body {
            Body::Query { .. } if message.name.is_empty() => Some("an observer".to_owned()),
            Body::Announce(_) | Body::Bye { .. } | Body::Query { .. } => {
                Some(message.name.into_owned())
            }
            Body::Newer { .. } | Body::Gone { .. } | Body::Bare => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_counted() {
        let mut refusals = Refusals::default();
        let mut status = Status::default();
        let some = Duration::from_secs(61);
        for why in [
            Refusal::Unsigned,
            Refusal::Forged,
            Refusal::Old(some),
            Refusal::Ahead(some),
            Refusal::Forged,
        ] {
            let refused = Refused {
                channel: "c",
                sender: Pid::MAX,
                payload: "pg-peers/1 beat name=b inc=5 seq=5 due=5000;",
                why,
            };
            refusals.note(Instant::now(), &refused, &mut status);
        }
        assert_eq!((status.forged, status.clock_skewed), (3, 2));
    }

    #[test]
    fn a_cause_is_told_once_until_it_was_away_for_a_while() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let mut news =
            |seconds, cause| refusals.is_news(start + Duration::from_secs(seconds), cause);
        assert!(news(0, Cause::Forged));
        assert!(news(0, Cause::Clock("b".to_owned())));
        for second in (0..3_600).step_by(5) {
            assert!(!news(second, Cause::Forged));
        }
        assert!(news(3_600, Cause::Clock("b".to_owned())));
        assert!(news(3_600 + QUIET.as_secs(), Cause::Forged));
    }

    #[test]
    fn there_is_no_end_of_names_and_an_end_of_what_is_told() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let told = (0..1_000).filter(|n| refusals.is_news(now, Cause::Clock(n.to_string())));
        assert_eq!(told.count(), MOST_CAUSES);
        assert_eq!(refusals.told.len(), MOST_CAUSES);
        let later = now + QUIET * 2;
        assert!(refusals.is_news(later, Cause::Clock("again".to_owned())));
        assert_eq!(refusals.told.len(), 1);
    }

    #[test]
    fn a_wrong_clock_is_blamed_on_the_signer() {
        let signer = |payload| {
            let why = Refusal::Forged;
            let (channel, sender) = ("c", Pid::MAX);
            let refused = Refused {
                channel,
                sender,
                payload,
                why,
            };
            refused.signer()
        };
        for payload in [
            "pg-peers/1 beat name=b inc=5 seq=5 due=5000;",
            "pg-peers/1 bye name=b inc=5 seq=5;",
            "pg-peers/1 ask name=b inbox=000000000000beef try=1;",
        ] {
            assert_eq!(signer(payload).as_deref(), Some("b"));
        }
        let observer = "pg-peers/1 ask inbox=000000000000beef try=1;";
        assert_eq!(signer(observer).as_deref(), Some("an observer"));
        for payload in [
            "pg-peers/1 gone name=b inc=5 seq=5;",
            "pg-peers/1 newer name=b inc=5;",
            "pg-peers/1 roster part=1 parts=1; name=b inc=5 seq=2 due=5000 age=1;",
            "b@h",
        ] {
            assert_eq!(signer(payload), None, "{payload}");
        }
    }
}
