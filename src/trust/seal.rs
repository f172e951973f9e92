//! Signatures: who holds a secret of the cluster is heard, and nobody else. [`crate::core::wire`] describes what they look like.
//! Pure: times are parameters.
//!
//! # What a recording is worth
//!
//! Anybody who may listen can send again what was said. Three things stand against that:
//!
//! - The sequence numbers of an incarnation: who has heard the sender since takes the old for old. That is the whole
//!   defence of `newer` (it asks for an incarnation above one that is long surpassed), of `gone` (a peer that was heard since
//!   is there), and of whatever is repeated to those who heard the original.
//! - The backend that sends is part of what is signed, and Postgres, not the sender, says which one that is. While the
//!   sender's session lasts no other can have its number, so a recording is worth nothing in anybody else's. That protects
//!   those who never heard the sender, or have forgotten it: a newcomer from the announcements of the dead, and everybody
//!   from answering an `ask` or a hello once more. An answer is bound to one inbox besides.
//! - The time of the signature, since a backend's number is given out again some time: [`TOLERANCE`] is less than that
//!   takes on a server which is not made to start processes without end. (Behind a pooler in session mode the next client
//!   can have it at once: for those, the numbers of an incarnation and the time are all there is.)
//!
//! What is left: within a minute of the end of a session, who then gets a backend of its number can make those who have
//! not heard its owner since believe that it is there, until it expires.
//!
//! What comes to the inbox other than an answer (a probe, a wake-up) is not signed: the one proves that notifications of
//! others arrive, from any sender, and the other makes the thread look at what its host asks.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::core::wire::{self, Pid};

#[cfg(not(feature = "auth"))]
use super::absent as key;
#[cfg(feature = "auth")]
use super::hmac as key;

#[cfg(test)]
pub(crate) use key::keys_of;
pub(crate) use key::{Key, Secret};

/// How much earlier than it arrives, or later by our clock, a payload may have been signed. Clocks that are looked after
/// agree to well within a second, and no statement hangs for longer than a few seconds; numbers of backends come again
/// after minutes.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(60);

/// The fewest bytes of a secret: 128 bits, if they are random.
pub(crate) const MIN_SECRET: usize = 16;

/// An HMAC-SHA-256.
pub(super) type Signature = [u8; 32];

/// The secrets of a participant, made ready: the first one signs, all verify. None: nothing is signed or verified.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// `None` if a secret has fewer than [`MIN_SECRET`] bytes.
    pub(crate) fn parse(secrets: &[Secret]) -> Option<Self> {
        let keys = secrets.iter().map(Key::parse);
        keys.collect::<Option<_>>().map(Self)
    }
}

/// Signs what a participant says on its channel, and verifies what it hears there. All times are since the Unix epoch.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    channel: String,
    keys: Keys,
    /// All that had arrived by then was heard.
    pub(super) heard: Duration,
}

/// Why a payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no signature.
    Unsigned,
    /// It is not signed with one of our secrets, for this channel or inbox, by who sent it.
    Forged,
    /// It is well signed, but so long before it can have arrived.
    Old(Duration),
    /// It is well signed, at a time that by our clock comes so much later.
    Ahead(Duration),
}

/// What a signature is over: every line but the second is without newlines, so that no two differ and read the same.
struct Signed<'a> {
    channel: &'a str,
    inbox: &'a str,
    sender: Pid,
    content: &'a str,
}

impl Seal {
    pub(crate) fn new(channel: String, keys: Keys) -> Self {
        Self {
            channel,
            keys,
            heard: Duration::ZERO,
        }
    }

    /// Whether it signs and verifies, and so needs to know the time.
    pub(crate) fn is_active(&self) -> bool {
        !self.keys.0.is_empty()
    }

    /// Nothing that arrived before then is still to be heard. A participant that was paused, or lags behind, hears late,
    /// and must not take what it hears for an old recording.
    pub(crate) fn all_heard(&mut self, by: Duration) {
        self.heard = by;
    }

    /// Signs a payload that this backend will send now, to everybody or, where an inbox is given, to its owner.
    pub(crate) fn sign(
        &self,
        now: Duration,
        sender: Pid,
        inbox: Option<&str>,
        mut payload: String,
    ) -> String {
        let (Some(key), Some(b';')) = (self.keys.0.first(), payload.bytes().last()) else {
            return payload;
        };
        payload.pop();
        let taken = "a String takes what is written to it";
        write!(payload, "{}{}", wire::TIME, now.as_millis()).expect(taken);
        let signature = key.sign(&self.signed(sender, inbox, &payload));
        payload.push_str(wire::SIGNATURE);
        for byte in signature {
            write!(payload, "{byte:02x}").expect(taken);
        }
        payload.push(';');
        payload
    }

    /// Whether a payload that came from this backend, to everybody or to this inbox, is signed as it must be. Does not
    /// allocate.
    pub(crate) fn verify(
        &mut self,
        now: Duration,
        sender: Pid,
        inbox: Option<&str>,
        payload: &str,
    ) -> Result<(), Refusal> {
        if !self.is_active() {
            return Ok(());
        }
        let (content, time, signature) = split(payload).ok_or(Refusal::Unsigned)?;
        let signed = self.signed(sender, inbox, content);
        if !self
            .keys
            .0
            .iter()
            .any(|key| key.verify(&signed, &signature))
        {
            return Err(Refusal::Forged);
        }
        // It arrived at some time since all was heard.
        let old = self.heard.min(now).saturating_sub(time);
        let ahead = time.saturating_sub(now);
        if old > TOLERANCE {
            return Err(Refusal::Old(old));
        }
        if ahead > TOLERANCE {
            return Err(Refusal::Ahead(ahead));
        }
        // Postgres keeps the order, so whatever comes after this was sent after it: also on a channel that never falls
        // silent, where all is never heard.
        self.heard = self.heard.max(time.saturating_sub(TOLERANCE));
        Ok(())
    }

    fn signed<'a>(&'a self, sender: Pid, inbox: Option<&'a str>, content: &'a str) -> Signed<'a> {
        Signed {
            channel: &self.channel,
            inbox: inbox.unwrap_or_default(),
            sender,
            content,
        }
    }
}

/// The one place that says what is signed.
impl fmt::Display for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            channel,
            inbox,
            sender,
            content,
        } = self;
        write!(
            f,
            "pg-peers/1 signature\n{channel}\n{inbox}\n{sender}\n{content}"
        )
    }
}

/// What a payload says before its signature, when it says that it was signed, and the signature.
fn split(payload: &str) -> Option<(&str, Duration, Signature)> {
    let payload = payload.strip_suffix(';')?;
    let (content, signature) = payload.rsplit_once(wire::SIGNATURE)?;
    let (_, time) = content.rsplit_once(wire::TIME)?;
    let time = Duration::from_millis(wire::number(time)?);
    Some((content, time, from_hex(signature)?))
}

fn from_hex(digits: &str) -> Option<Signature> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let digits = digits.as_bytes();
    let mut signature = Signature::default();
    if digits.len() != 2 * signature.len() {
        return None;
    }
    for (byte, pair) in signature.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(signature)
}

#[cfg(all(test, feature = "auth"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::wire::{Announce, Body, Inbox, Message, Question, WireTags};
    use crate::event::Reason;
    use crate::peer::Incarnation;

    const SECRET: &str = "sixteen or more bytes";
    const OTHER: &str = "another sixteen bytes";
    const NOW: Duration = Duration::from_millis(1_795_443_190_123);
    const SENDER: Pid = Pid::new(4711).expect("not zero");

    fn seal_on(channel: &str, secrets: &[&str]) -> Seal {
        let mut seal = Seal::new(channel.to_owned(), keys_of(secrets));
        seal.all_heard(NOW);
        seal
    }

    fn seal(secrets: &[&str]) -> Seal {
        seal_on("my_app", secrets)
    }

    /// To somebody without a secret.
    fn reads_the_same(signed: &str, payload: &str) -> bool {
        let unsigned = |message: Message<'_>| match message.body {
            Body::Announce(announce) => {
                // The text that tags are found in is the whole payload.
                let tags = wire::encode_tags(&announce.tags.to_tags());
                let tags = WireTags::encoded(&tags);
                format!("{} {:?}", message.name, Announce { tags, ..announce })
            }
            other => format!("{} {other:?}", message.name),
        };
        let read = |text| match wire::decode_roster(text) {
            Some(part) => part.members.into_iter().map(unsigned).collect(),
            None => vec![unsigned(wire::decode(text).expect("ours"))],
        };
        read(signed) == read(payload)
    }

    /// One payload of each kind, signed, and the inbox that it is sent to.
    fn payloads(name: &str, number: u64, tags: &str) -> Vec<(Option<String>, String)> {
        let incarnation = Incarnation::new(number);
        let question = Question {
            inbox: Inbox::new(number),
            number,
            away: Some(wire::MOST_AWAY),
        };
        let announce = |hello| {
            Body::Announce(Announce {
                hello,
                newborn: hello,
                incarnation,
                seq: number,
                due: Duration::from_secs(5),
                pid: Some(SENDER),
                question: hello.then_some(question),
                age: None,
                back: wire::MOST_BACK,
                checks: true,
                beat: None,
                digest: None,
                tags: WireTags::encoded(tags),
            })
        };
        let bodies = [
            announce(true),
            announce(false),
            Body::Bye {
                incarnation,
                seq: number,
            },
            Body::Newer { incarnation },
            Body::Gone {
                incarnation,
                seq: number,
                why: Reason::SessionGone,
            },
            Body::Query {
                question,
                attempt: number,
            },
        ];
        let message = |body| Message {
            name: name.into(),
            body,
        };
        let to_all = bodies.map(|body| (None, wire::encode(&message(body))));
        let inbox = Inbox::new(number).channel();
        let answer =
            wire::encode_roster(number, [message(announce(false)), message(announce(false))]);
        let answer = answer.into_iter().map(|part| (Some(inbox.clone()), part));
        let sign = |(inbox, payload): (Option<String>, String)| {
            let signed = seal(&[SECRET]).sign(NOW, SENDER, inbox.as_deref(), payload.clone());
            assert!(reads_the_same(&signed, &payload), "{signed}");
            (inbox, signed)
        };
        to_all.into_iter().chain(answer).map(sign).collect()
    }

    #[test]
    fn a_signature_is_as_documented() {
        let payload = "pg-peers/1 bye name=worker-1@10.0.0.1:7000 inc=1795443184000000 seq=3;";
        let signed = seal(&[SECRET]).sign(NOW, SENDER, None, payload.to_owned());
        // By openssl.
        assert_eq!(
            signed,
            "pg-peers/1 bye name=worker-1@10.0.0.1:7000 inc=1795443184000000 seq=3 time=1795443190123 \
             sig=e9a9e8137298670579f889ebf9209472b3311afe7b6531ae6523f3dd4deec7f8;"
        );
        assert_eq!(seal(&[SECRET]).verify(NOW, SENDER, None, &signed), Ok(()));
    }

    #[test]
    fn without_a_secret_nothing_is_signed_and_everything_passes() {
        for payload in ["pg-peers/1 beat name=n inc=7 seq=1 due=5000;", "a@b", ""] {
            let mut seal = seal(&[]);
            assert_eq!(seal.sign(NOW, SENDER, None, payload.to_owned()), payload);
            assert_eq!(seal.verify(NOW, SENDER, None, payload), Ok(()));
        }
    }

    #[test]
    fn what_is_not_signed_is_refused() {
        for payload in [
            "",
            ";",
            "a@b",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 time=1795443190123;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 time=1795443190123 sig=;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 sig=e9a9e8137298670579f889ebf9209472b3311afe7b6531ae6523f3dd4deec7f8;",
        ] {
            let verdict = seal(&[SECRET]).verify(NOW, SENDER, None, payload);
            assert_eq!(verdict, Err(Refusal::Unsigned), "{payload}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_time_and_a_minute() {
        let at = |millis: i64| match millis {
            ..0 => NOW - Duration::from_millis(millis.unsigned_abs()),
            _ => NOW + Duration::from_millis(millis.unsigned_abs()),
        };
        let payload = || "pg-peers/1 bye name=n inc=7 seq=1;".to_owned();
        for (millis, verdict) in [
            (-60_000, Ok(())),
            (-60_001, Err(Refusal::Old(Duration::from_millis(60_001)))),
            (60_000, Ok(())),
            (60_001, Err(Refusal::Ahead(Duration::from_millis(60_001)))),
        ] {
            let mut seal = seal(&[SECRET]);
            let signed = seal.sign(at(millis), SENDER, None, payload());
            assert_eq!(seal.verify(NOW, SENDER, None, &signed), verdict);
            // The end of time is no exception.
            let last = seal.sign(Duration::from_millis(u64::MAX), SENDER, None, payload());
            let verdict = seal.verify(NOW, SENDER, None, &last);
            assert!(matches!(verdict, Err(Refusal::Ahead(_))), "{verdict:?}");
        }
    }

    #[test]
    fn what_was_not_heard_yet_is_not_old() {
        let mut seal = seal(&[SECRET]);
        let payload = "pg-peers/1 bye name=n inc=7 seq=1;".to_owned();
        let signed = seal.sign(NOW, SENDER, None, payload);
        let later = NOW + Duration::from_secs(60 * 60);
        assert_eq!(seal.verify(later, SENDER, None, &signed), Ok(()));
        seal.all_heard(later);
        let verdict = seal.verify(later, SENDER, None, &signed);
        assert!(matches!(verdict, Err(Refusal::Old(_))), "{verdict:?}");
        // A clock that was put back cannot be told from the others' that are ahead.
        assert_eq!(seal.verify(NOW, SENDER, None, &signed), Ok(()));
    }

    #[test]
    fn a_recording_grows_old_on_a_channel_that_is_never_silent() {
        let mut seal = seal(&[SECRET]);
        let payload = || "pg-peers/1 bye name=n inc=7 seq=1;".to_owned();
        let recorded = seal.sign(NOW, SENDER, None, payload());
        for second in (0..=120).step_by(5) {
            let now = NOW + Duration::from_secs(second);
            let beat = seal.sign(now, Pid::MAX, None, payload());
            assert_eq!(seal.verify(now, Pid::MAX, None, &beat), Ok(()));
            assert_eq!(seal.verify(now, SENDER, None, &recorded), Ok(()));
        }
        let now = NOW + Duration::from_secs(121);
        let beat = seal.sign(now, Pid::MAX, None, payload());
        assert_eq!(seal.verify(now, Pid::MAX, None, &beat), Ok(()));
        let verdict = seal.verify(now, SENDER, None, &recorded);
        assert!(matches!(verdict, Err(Refusal::Old(_))), "{verdict:?}");
    }

    #[test]
    fn no_debug_output_shows_a_secret() {
        let secret = Secret::new(SECRET.as_bytes());
        let seal = seal(&[SECRET]);
        let shown = format!("{secret:?} {seal:?} {:#?}", seal.keys);
        assert_eq!(shown.matches("(..)").count(), 3, "{shown}");
        let bytes = format!("{:?}", SECRET.as_bytes());
        for part in [SECRET, bytes.trim_matches(['[', ']'])] {
            assert!(!shown.contains(part), "{shown}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        #[test]
        fn a_signature_verifies_where_it_is_meant_and_nowhere_else(
            name in "[a-z@:é]{1,20}", number: u64, tag in prop::option::of("[ -~]{0,20}")
        ) {
            let tags = tag.map(|tag| [("key", tag)].into_iter().collect()).unwrap_or_default();
            for (inbox, signed) in payloads(&name, number, &wire::encode_tags(&tags)) {
                let inbox = inbox.as_deref();
                let verdict = |mut seal: Seal, sender, inbox| seal.verify(NOW, sender, inbox, &signed);
                prop_assert_eq!(verdict(seal(&[SECRET]), SENDER, inbox), Ok(()));
                prop_assert_eq!(verdict(seal(&[OTHER, SECRET]), SENDER, inbox), Ok(()));
                prop_assert_eq!(verdict(seal(&[]), SENDER, inbox), Ok(()));
                let other_inbox = Inbox::new(number ^ 1).channel();
                let elsewhere = if inbox.is_some() { None } else { Some("pg_peers_") };
                for wrong in [
                    verdict(seal(&[OTHER]), SENDER, inbox),
                    verdict(seal_on("my_app2", &[SECRET]), SENDER, inbox),
                    verdict(seal_on("my_app\n", &[SECRET]), SENDER, inbox),
                    verdict(seal(&[SECRET]), Pid::MIN, inbox),
                    verdict(seal(&[SECRET]), SENDER, Some(&other_inbox)),
                    verdict(seal(&[SECRET]), SENDER, elsewhere),
                ] {
                    prop_assert_eq!(wrong, Err(Refusal::Forged));
                }
            }
        }

        #[test]
        fn no_part_of_it_can_be_cut_or_changed(name in "[a-z@:é]{1,9}", number: u64) {
            let mut seal = seal(&[SECRET]);
            for (inbox, signed) in payloads(&name, number, "tag.zone=eu-1") {
                let mut refused = |payload: &str| {
                    let verdict = seal.verify(NOW, SENDER, inbox.as_deref(), payload);
                    matches!(verdict, Err(Refusal::Unsigned | Refusal::Forged))
                };
                for end in 0..signed.len() {
                    prop_assert!(refused(&signed[..end]), "cut at {}", end);
                    prop_assert!(refused(&signed[end + 1..]), "cut before {}", end);
                }
                for bit in 0..signed.len() * 8 {
                    let mut bytes = signed.clone().into_bytes();
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    // What is no UTF-8 does not get here.
                    if let Ok(payload) = String::from_utf8(bytes) {
                        prop_assert!(refused(&payload), "{}", payload);
                    }
                }
            }
        }
    }
}
