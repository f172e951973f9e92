//! The gate between the channel and the core: what is said is signed here, and what is heard is verified, counted and told
//! to the operator. It reads the wall clock, where there are secrets at all: signatures are judged by it.

use std::time::{Duration, Instant, SystemTime};

use super::refusals::{Refusals, Refused};
use super::seal::{Keys, Seal};
use crate::core::wire::Pid;
use crate::status::Status;

#[derive(Debug)]
pub(crate) struct Guard {
    channel: String,
    seal: Seal,
    /// The backend of the session that is heard.
    session: Option<Pid>,
    refusals: Refusals,
}

impl Guard {
    pub(crate) fn new(channel: String, keys: Keys) -> Self {
        Self {
            seal: Seal::new(channel.clone(), keys),
            channel,
            session: None,
            refusals: Refusals::default(),
        }
    }

    /// This session is heard from now on. Nothing waits in it, unless it is the one from before: that was held up. (A new one may have
    /// its number. Then the first notification may be as old as one of that session.)
    pub(crate) fn handle_link_up(&mut self, session: Pid) {
        if self.session.replace(session) != Some(session) {
            self.all_heard(Duration::ZERO);
        }
    }

    /// All that had arrived this long ago was heard.
    pub(crate) fn all_heard(&mut self, ago: Duration) {
        if self.seal.is_active() {
            self.seal
                .all_heard(time_of_day(&self.seal).saturating_sub(ago));
        }
    }

    /// Signs a payload that this backend will send now, to everybody or to an inbox.
    pub(crate) fn sign(&self, sender: Pid, inbox: Option<&str>, payload: String) -> String {
        self.seal
            .sign(time_of_day(&self.seal), sender, inbox, payload)
    }

    /// What signs payloads to everybody for a backend that is not known yet. `None` if it cannot be known, and they must be signed.
    pub(crate) fn signer(
        &self,
        payloads: Vec<String>,
    ) -> impl FnOnce(Option<Pid>) -> Option<Vec<String>> + Send + use<> {
        let (seal, now) = (self.seal.clone(), time_of_day(&self.seal));
        move |sender| match sender {
            Some(sender) => {
                let sign = |payload| seal.sign(now, sender, None, payload);
                Some(payloads.into_iter().map(sign).collect())
            }
            None => (!seal.is_active()).then_some(payloads),
        }
    }

    /// Whether a payload is signed as it must be. One that is not is counted, and told to the operator once for each cause.
    pub(crate) fn verify(
        &mut self,
        now: Instant,
        sender: Pid,
        inbox: Option<&str>,
        payload: &str,
        status: &mut Status,
    ) -> bool {
        let verdict = self
            .seal
            .verify(time_of_day(&self.seal), sender, inbox, payload);
        if let Err(why) = verdict {
            let refused = Refused {
                channel: &self.channel,
                sender,
                payload,
                why,
            };
            self.refusals.note(now, &refused, status);
        }
        verdict.is_ok()
    }
}

/// Since the Unix epoch. Not asked for where nothing is signed.
fn time_of_day(seal: &Seal) -> Duration {
    match seal.is_active() {
        true => SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
        false => Duration::ZERO,
    }
}

#[cfg(all(test, feature = "auth"))]
mod tests {
    use super::*;
    use crate::trust::seal::Secret;

    #[test]
    fn what_waits_in_a_session_that_goes_on_is_as_old_as_before() {
        let secrets = [Secret::new(b"sixteen or more bytes")];
        let keys = Keys::parse(&secrets).expect("a secret");
        let mut guard = Guard::new("c".to_owned(), keys);
        let [first, second] = [7, 8].map(|pid| Pid::new(pid).expect("not zero"));
        guard.handle_link_up(first);
        let heard = guard.seal.heard;
        guard.handle_link_up(first);
        assert_eq!(guard.seal.heard, heard);
        guard.handle_link_up(second);
        assert!(guard.seal.heard > heard);
    }
}
