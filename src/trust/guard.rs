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
    refusals: Refusals,
}

impl Guard {
    pub(crate) fn new(channel: String, keys: Keys) -> Self {
        Self {
            seal: Seal::new(channel.clone(), keys),
            channel,
            refusals: Refusals::default(),
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

    /// What signs payloads to everybody for a backend that is not known yet.
    pub(crate) fn signer(
        &self,
        payloads: Vec<String>,
    ) -> impl FnOnce(Option<Pid>) -> Vec<String> + Send + use<> {
        let (seal, now) = (self.seal.clone(), time_of_day(&self.seal));
        move |sender| {
            let sign = |payload| match sender {
                Some(sender) => seal.sign(now, sender, None, payload),
                None => payload,
            };
            payloads.into_iter().map(sign).collect()
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
