#![doc = include_str!("../guide/wire.md")]

use std::borrow::Cow;
use std::fmt::Write;
use std::num::NonZeroI32;
use std::time::Duration;

use crate::peer::{self, Incarnation, MAX_HEARD_NAME, Tags};

/// The longest payload that Postgres takes (manual, NOTIFY: "shorter than 8000 bytes").
pub(crate) const MAX_PAYLOAD: usize = 7_999;

/// The longest time until the next announcement that is understood. It bounds how long a forged peer can stay.
pub(crate) const MAX_DUE: Duration = Duration::from_secs(24 * 60 * 60);

/// Within this time a member is back whose session ended, if it announces none that is longer.
pub(crate) const LEAST_BACK: Duration = Duration::from_millis(1_250);

/// The longest time to be back that is understood. It bounds how long a forged one can keep a dead peer.
pub(crate) const MOST_BACK: Duration = Duration::from_secs(60);

const VERSION: &str = "pg-peers/1";
const TAG: &str = "tag.";

/// What comes before the two fields of a signature.
pub(crate) const TIME: &str = " time=";
pub(crate) const SIGNATURE: &str = " sig=";

/// The most that a signature takes in a payload. Kept free also where nobody signs, so that whatever could be announced
/// without a secret can be announced with one.
pub(crate) const LONGEST_SIGNATURE: usize = " time=18446744073709551615 sig=".len() + 64;

/// What all payloads of an answer begin with.
const ROSTER: &str = "pg-peers/1 roster ";

/// The most that an answer takes beside the fields of an announcement: its head, and the age.
const ROSTER_HEAD: usize =
    "pg-peers/1 roster part=4294967295 parts=4294967295; age=86400000000;".len();

/// A backend of the server. Postgres numbers them above zero.
pub(crate) type Pid = NonZeroI32;

/// A channel on which one participant is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inbox(u64);

impl Inbox {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn channel(self) -> String {
        format!("pg_peers_{:016x}", self.0)
    }

    /// A member's rank among those that may answer there: the lowest answers (64-bit FNV-1a, draft-eastlake-fnv-17).
    pub(crate) fn rank(self, name: &str, incarnation: Incarnation) -> u64 {
        let numbers = [incarnation.get(), self.0].map(u64::to_be_bytes);
        let bytes = name.bytes().chain(numbers.into_iter().flatten());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (digits && text.len() == 16).then_some(())?;
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

/// One payload, read. Borrows from it where it can: hearing a known peer does not allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// The member that the message is about. Empty in the query of an observer.
    pub(crate) name: Cow<'a, str>,
    pub(crate) body: Body<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Announce(Announce<'a>),
    /// The member says goodbye.
    Bye {
        incarnation: Incarnation,
        seq: u64,
    },
    /// A process of that name had this incarnation, so one with a lower must step over it.
    Newer {
        incarnation: Incarnation,
    },
    /// Postgres does not have the member's session any more.
    Gone {
        incarnation: Incarnation,
        seq: u64,
    },
    /// Asks who is there. On the wire it is `ask`.
    Query {
        inbox: Inbox,
        attempt: u64,
    },
    /// A node name and nothing else, as libcluster_postgres announces.
    Bare,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announce<'a> {
    /// Whether it is a hello, which also asks who is there.
    pub(crate) hello: bool,
    pub(crate) incarnation: Incarnation,
    pub(crate) seq: u64,
    pub(crate) due: Duration,
    pub(crate) pid: Option<Pid>,
    /// Where the sender is to be answered; only in a hello.
    pub(crate) inbox: Option<Inbox>,
    /// How long ago it was heard; only in an answer.
    pub(crate) age: Option<Duration>,
    /// Within this time the sender would be back if its session ended.
    pub(crate) back: Duration,
    pub(crate) tags: WireTags<'a>,
}

/// Tags as they stand in a payload: fields separated by spaces, known to be well-formed, possibly among unknown ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WireTags<'a>(&'a str);

impl<'a> WireTags<'a> {
    /// The text must come from [`encode_tags`].
    pub(crate) fn encoded(text: &'a str) -> Self {
        Self(text)
    }

    fn iter(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        self.0.split(' ').filter_map(|field| {
            let (key, value) = field.strip_prefix(TAG)?.split_once('=')?;
            Some((unescape(key)?, unescape(value)?))
        })
    }

    /// Whether these are the same tags, found without allocating (where nothing is escaped).
    pub(crate) fn same_as(self, tags: &Tags) -> bool {
        let mut known = tags.iter();
        self.iter()
            .all(|(key, value)| known.next() == Some((&*key, &*value)))
            && known.next().is_none()
    }

    pub(crate) fn to_tags(self) -> Tags {
        self.iter().collect()
    }
}

/// The text of tags in a payload.
pub(crate) fn encode_tags(tags: &Tags) -> String {
    let mut text = String::new();
    for (key, value) in tags.iter() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(TAG);
        escape(key, &mut text);
        text.push('=');
        escape(value, &mut text);
    }
    text
}

/// How many bytes the longest payload takes that announces this name with these tags (as encoded), signed.
pub(crate) fn longest_announcement(name: &str, tags: &str) -> usize {
    let hello = Announce {
        hello: true,
        incarnation: Incarnation::new(u64::MAX),
        seq: u64::MAX,
        due: MAX_DUE,
        pid: Some(Pid::MAX),
        inbox: Some(Inbox(u64::MAX)),
        age: None,
        back: MOST_BACK,
        tags: WireTags::encoded(tags),
    };
    let in_answer = Announce {
        inbox: None,
        ..hello.clone()
    };
    let [hello, in_answer] = [hello, in_answer].map(|announce| {
        let body = Body::Announce(announce);
        let name = Cow::Borrowed(name);
        Message { name, body }
    });
    let mut entry = String::new();
    encode_fields(&in_answer, &mut entry);
    encode(&hello).len().max(ROSTER_HEAD + entry.len()) + LONGEST_SIGNATURE
}

/// The payload of a message. What does not fit one is refused when the name and the tags are set, so this never fails.
pub(crate) fn encode(message: &Message<'_>) -> String {
    let kind = match &message.body {
        Body::Bare => return message.name.to_string(),
        Body::Announce(announce) if announce.hello => "hello",
        Body::Announce(_) => "beat",
        Body::Bye { .. } => "bye",
        Body::Newer { .. } => "newer",
        Body::Gone { .. } => "gone",
        Body::Query { .. } => "ask",
    };
    let mut text = format!("{VERSION} {kind}");
    encode_fields(message, &mut text);
    text
}

/// The fields, each after a space, and the end.
fn encode_fields(message: &Message<'_>, text: &mut String) {
    if !message.name.is_empty() {
        text.push_str(" name=");
        escape(&message.name, text);
    }
    let mut field = |key: &str, value: u64| {
        write!(text, " {key}={value}").expect("a String takes what is written to it");
    };
    match &message.body {
        Body::Announce(announce) => {
            field("inc", announce.incarnation.get());
            field("seq", announce.seq);
            // Rounded up: it is a promise.
            field("due", announce.due.as_nanos().div_ceil(1_000_000) as u64);
            if let Some(age) = announce.age {
                field("age", age.as_millis() as u64);
            }
            if announce.back > LEAST_BACK {
                field("back", announce.back.as_millis() as u64);
            }
            if let Some(pid) = announce.pid {
                field("pid", u64::from(pid.get().unsigned_abs()));
            }
            if let Some(inbox) = announce.inbox {
                encode_inbox(inbox, text);
            }
            if !announce.tags.0.is_empty() {
                text.push(' ');
                text.push_str(announce.tags.0);
            }
        }
        Body::Bye { incarnation, seq } | Body::Gone { incarnation, seq } => {
            field("inc", incarnation.get());
            field("seq", *seq);
        }
        Body::Newer { incarnation } => field("inc", incarnation.get()),
        Body::Query { inbox, attempt } => {
            encode_inbox(*inbox, text);
            write!(text, " try={attempt}").expect("a String takes what is written to it");
        }
        Body::Bare => {}
    }
    text.push(';');
}

fn encode_inbox(Inbox(number): Inbox, text: &mut String) {
    write!(text, " inbox={number:016x}").expect("a String takes what is written to it");
}

/// The payloads of an answer. A member that does not fit one is left out: it announces itself some time.
pub(crate) fn encode_roster<'a>(
    announcements: impl IntoIterator<Item = Message<'a>>,
) -> Vec<String> {
    let room = MAX_PAYLOAD - ROSTER_HEAD - LONGEST_SIGNATURE;
    let mut parts = vec![String::new()];
    for announcement in announcements {
        let mut text = String::new();
        encode_fields(&announcement, &mut text);
        if text.len() > room {
            continue;
        }
        match parts.last_mut() {
            Some(part) if part.len() + text.len() <= room => part.push_str(&text),
            _ => parts.push(text),
        }
    }
    let count = parts.len();
    let parts = parts.into_iter().zip(1..);
    parts
        .map(|(part, number)| format!("{ROSTER}part={number} parts={count};{part}"))
        .collect()
}

/// Reads a payload. `None` for one that is not ours or not whole, which is to be counted and ignored.
pub(crate) fn decode(payload: &str) -> Option<Message<'_>> {
    let Some(rest) = payload.strip_prefix(VERSION) else {
        return peer::is_node_name(payload).then_some(Message {
            name: Cow::Borrowed(payload),
            body: Body::Bare,
        });
    };
    let text = rest.strip_prefix(' ')?.strip_suffix(';')?;
    let (kind, fields) = text.split_once(' ')?;
    let fields = Fields::parse(fields)?;
    let body = match kind {
        "hello" | "beat" => return fields.announcement(kind == "hello"),
        "bye" => Body::Bye {
            incarnation: fields.inc?,
            seq: fields.seq?,
        },
        "newer" => Body::Newer {
            incarnation: fields.inc?,
        },
        "gone" => Body::Gone {
            incarnation: fields.inc?,
            seq: fields.seq?,
        },
        "ask" => Body::Query {
            inbox: fields.inbox?,
            attempt: fields.attempt?,
        },
        _ => return None,
    };
    let name = match body {
        Body::Query { .. } => fields.name.unwrap_or_default(),
        _ => fields.name?,
    };
    Some(Message { name, body })
}

/// One payload of an answer, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RosterPart<'a> {
    /// From 1 to `parts`.
    pub(crate) part: u64,
    pub(crate) parts: u64,
    pub(crate) announcements: Vec<Message<'a>>,
}

/// Whether a payload that came to an inbox is meant to be an answer. A probe or a wake-up is not.
pub(crate) fn is_answer(payload: &str) -> bool {
    payload.starts_with(ROSTER)
}

/// Reads one payload of an answer. `None` for one that is no answer or not whole.
pub(crate) fn decode_roster<'a>(payload: &'a str) -> Option<RosterPart<'a>> {
    let rest = payload.strip_prefix(ROSTER)?;
    let mut texts = rest.strip_suffix(';')?.split(';');
    let head = Fields::parse(texts.next()?)?;
    let (part, parts) = (head.part?, head.parts?);
    (1..=parts).contains(&part).then_some(())?;
    let read = |text: &'a str| Fields::parse(text.strip_prefix(' ')?)?.announcement(false);
    let announcements = texts.map(read).collect::<Option<_>>()?;
    Some(RosterPart {
        part,
        parts,
        announcements,
    })
}

#[derive(Default)]
struct Fields<'a> {
    name: Option<Cow<'a, str>>,
    inc: Option<Incarnation>,
    seq: Option<u64>,
    due: Option<Duration>,
    age: Option<Duration>,
    back: Option<Duration>,
    pid: Option<Pid>,
    inbox: Option<Inbox>,
    attempt: Option<u64>,
    part: Option<u64>,
    parts: Option<u64>,
    tags: WireTags<'a>,
}

impl<'a> Fields<'a> {
    /// `None` if a field has no value, a known one comes twice or its value breaks its rule, or tags are not in order.
    fn parse(text: &'a str) -> Option<Self> {
        text.bytes()
            .all(|b| matches!(b, b' '..=b'~') && b != b';')
            .then_some(())?;
        let mut fields = Self {
            tags: WireTags(text),
            ..Self::default()
        };
        let mut last_key: Option<Cow<'a, str>> = None;
        for field in text.split(' ') {
            let (key, value) = field.split_once('=')?;
            match key {
                "name" => set(&mut fields.name, word(value, MAX_HEARD_NAME)?)?,
                "inc" => set(&mut fields.inc, Incarnation::new(number(value)?))?,
                "seq" => set(&mut fields.seq, number(value)?)?,
                "due" => set(&mut fields.due, due(number(value)?)?)?,
                "age" => set(&mut fields.age, Duration::from_millis(number(value)?))?,
                "back" => set(&mut fields.back, Duration::from_millis(number(value)?))?,
                "pid" => set(&mut fields.pid, pid(number(value)?)?)?,
                "inbox" => set(&mut fields.inbox, Inbox::parse(value)?)?,
                "try" => set(&mut fields.attempt, number(value)?)?,
                "part" => set(&mut fields.part, number(value)?)?,
                "parts" => set(&mut fields.parts, number(value)?)?,
                _ => {
                    let Some(key) = key.strip_prefix(TAG) else {
                        continue;
                    };
                    let key = word(key, MAX_PAYLOAD)?;
                    if last_key.is_some_and(|last| last >= key) {
                        return None;
                    }
                    last_key = Some(key);
                    let value = unescape(value)?;
                    peer::check_text(&value, MAX_PAYLOAD).ok()?;
                }
            }
        }
        Some(fields)
    }

    fn announcement(self, hello: bool) -> Option<Message<'a>> {
        let body = Body::Announce(Announce {
            hello,
            incarnation: self.inc?,
            seq: self.seq?,
            due: self.due?,
            pid: self.pid,
            inbox: self.inbox.filter(|_| hello),
            age: self.age,
            back: self.back.unwrap_or_default().clamp(LEAST_BACK, MOST_BACK),
            tags: self.tags,
        });
        let name = self.name?;
        Some(Message { name, body })
    }
}

fn set<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

fn word(text: &str, limit: usize) -> Option<Cow<'_, str>> {
    let word = unescape(text)?;
    peer::check_word(&word, limit).ok()?;
    Some(word)
}

/// Reads a number as all numbers on the wire are written.
pub(crate) fn number(text: &str) -> Option<u64> {
    // `parse` alone would take a leading plus sign.
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn due(milliseconds: u64) -> Option<Duration> {
    let due = Duration::from_millis(milliseconds);
    (!due.is_zero() && due <= MAX_DUE).then_some(due)
}

fn pid(number: u64) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::new)
}

fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b';' | b'=') {
            into.push(char::from(byte));
        } else {
            write!(into, "%{byte:02X}").expect("a String takes what is written to it");
        }
    }
}

/// `None` if an escape is not whole or the bytes are no UTF-8.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part
            .get(..2)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announce<'a>(name: &'a str, tags: &'a str) -> Message<'a> {
        Message {
            name: name.into(),
            body: Body::Announce(Announce {
                hello: true,
                incarnation: Incarnation::new(7),
                seq: 1,
                due: Duration::from_secs(5),
                pid: Pid::new(4711),
                inbox: Some(Inbox(0xbeef)),
                age: None,
                back: LEAST_BACK,
                tags: WireTags::encoded(tags),
            }),
        }
    }

    fn tags_of(message: &Message<'_>) -> Tags {
        match &message.body {
            Body::Announce(announce) => announce.tags.to_tags(),
            other => panic!("no announcement: {other:?}"),
        }
    }

    #[test]
    fn the_time_to_be_back_has_bounds_and_a_default() {
        let back = |field: &str| {
            let text = format!("pg-peers/1 beat name=n inc=7 seq=1 due=5000{field};");
            let message = decode(&text)?;
            match message.body {
                Body::Announce(announce) => Some(announce.back),
                _ => None,
            }
        };
        assert_eq!(back(""), Some(LEAST_BACK));
        assert_eq!(back(" back=0"), Some(LEAST_BACK));
        assert_eq!(back(" back=9000"), Some(Duration::from_secs(9)));
        assert_eq!(back(" back=18446744073709551615"), Some(MOST_BACK));
        assert_eq!(back(" back=x"), None);
        let usual = encode(&announce("n", ""));
        assert!(!usual.contains("back"), "{usual}");
    }

    #[test]
    fn an_announcement_reads_as_documented() {
        let tags = encode_tags(&[("zone", "eu 1"), ("a", "50%=½;")].into_iter().collect());
        assert_eq!(
            encode(&announce("w@h", &tags)),
            "pg-peers/1 hello name=w@h inc=7 seq=1 due=5000 pid=4711 inbox=000000000000beef \
             tag.a=50%25%3D%C2%BD%3B tag.zone=eu%201;"
        );
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let message = decode(
            "pg-peers/1 beat x=1 name=n new.y= inc=7 seq=1 due=5000 tag.a=1 z=% tag.b=2 sig=ab;",
        );
        let message = message.expect("a beat");
        assert_eq!(message.name, "n");
        assert_eq!(
            tags_of(&message),
            [("a", "1"), ("b", "2")].into_iter().collect()
        );
    }

    #[test]
    fn payloads_that_are_not_ours_are_refused() {
        let whole = "pg-peers/1 beat name=n inc=7 seq=1 due=5000;";
        assert!(decode(whole).is_some());
        for payload in [
            "",
            " ",
            "hello",
            "pg-peers/2 beat name=n inc=7 seq=1 due=5000;",
            "pg-peers/11 beat name=n inc=7 seq=1 due=5000;",
            "pg-peers/1 later name=n inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000",
            "pg-peers/1 beat name=n inc=7 seq=1;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=0;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=86400001;",
            "pg-peers/1 beat name=n inc=+7 seq=1 due=5000;",
            "pg-peers/1 beat name=n inc=18446744073709551616 seq=1 due=5000;",
            "pg-peers/1 beat name=n inc= seq=1 due=5000;",
            "pg-peers/1 beat name= inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=n name=m inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=%0A inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=%FF inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=%4 inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=%+4 inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 tag.=1;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 tag.b=1 tag.a=1;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 tag.a=1 tag.a=2;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 tag.a=%1B;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000;;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 pid=0;",
            "pg-peers/1 beat name=n inc=7 seq=1 due=5000 pid=2147483648;",
            "pg-peers/1 hello name=n inc=7 seq=1 due=5000 inbox=beef;",
            "pg-peers/1 hello name=n inc=7 seq=1 due=5000 inbox=000000000000BEEF;",
            "pg-peers/1 gone name=n inc=7;",
            "pg-peers/1 ask name=n try=1;",
            "pg-peers/1 ask inbox=000000000000beef;",
            "pg-peers/1 roster part=1 parts=1; name=n inc=7 seq=1 due=5000;",
            "pg-peers/1 beat  name=n inc=7 seq=1 due=5000;",
            "pg-peers/1 beat name=½ inc=7 seq=1 due=5000;",
        ] {
            assert_eq!(decode(payload), None, "{payload}");
        }
        assert_eq!(decode(&"x@".repeat(3_999)), None);
    }

    #[test]
    fn rule_8_a_bare_node_name_is_a_heartbeat_without_incarnation() {
        let message = decode("realtime@10.0.0.1").expect("a node name");
        assert_eq!(message.name, "realtime@10.0.0.1");
        assert_eq!(message.body, Body::Bare);
    }

    fn text() -> impl Strategy<Value = String> {
        any::<String>().prop_map(|s| {
            s.chars()
                .filter(|&c| peer::check_text(&c.to_string(), 9).is_ok())
                .collect()
        })
    }

    fn name() -> impl Strategy<Value = String> {
        text().prop_filter("a name is not empty", |s| {
            peer::check_word(s, MAX_HEARD_NAME).is_ok()
        })
    }

    proptest! {
        // Hundreds of messages each.
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn an_answer_tells_everybody_however_many_payloads_it_takes(
            names in prop::collection::vec(name(), 1..300), tag in text()
        ) {
            let tags = encode_tags(&[("key", tag)].into_iter().collect());
            let sent: Vec<Message<'_>> = names.iter().map(|name| {
                let mut message = announce(name, &tags);
                if let Body::Announce(announce) = &mut message.body {
                    (announce.hello, announce.inbox) = (false, None);
                    announce.age = Some(Duration::from_secs(3));
                }
                message
            }).collect();
            let payloads = encode_roster(sent.clone());
            let mut heard = Vec::new();
            for (payload, number) in payloads.iter().zip(1..) {
                prop_assert!(payload.len() <= MAX_PAYLOAD);
                let read = decode_roster(payload).expect("a part");
                prop_assert_eq!((read.part, read.parts), (number, payloads.len() as u64));
                heard.extend(read.announcements);
                prop_assert_eq!(decode_roster(&payload[..payload.len() - 1]), None);
            }
            prop_assert_eq!(heard.len(), sent.len());
            for (heard, sent) in heard.iter().zip(&sent) {
                prop_assert_eq!(&heard.name, &sent.name);
                prop_assert_eq!(tags_of(heard), tags_of(sent));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            name in name(), hello: bool, inc: u64, seq: u64, due in 1..=86_400_000u64,
            tags in prop::collection::vec((name(), text()), 0..4), kind in 0..5, pid in 1..=i32::MAX,
            inbox: Option<u64>, back in 1_250..=60_000u64
        ) {
            let tags: Tags = tags.into_iter().collect();
            let encoded = encode_tags(&tags);
            let incarnation = Incarnation::new(inc);
            let body = match kind {
                0 => Body::Announce(Announce {
                    hello, incarnation, seq, due: Duration::from_millis(due), pid: Pid::new(pid),
                    inbox: inbox.filter(|_| hello).map(Inbox), age: None, back: Duration::from_millis(back),
                    tags: WireTags::encoded(&encoded),
                }),
                1 => Body::Bye { incarnation, seq },
                2 => Body::Gone { incarnation, seq },
                3 => Body::Query { inbox: Inbox(inc), attempt: seq },
                _ => Body::Newer { incarnation },
            };
            let sent = Message { name: name.as_str().into(), body };
            let payload = encode(&sent);
            prop_assert!(payload.bytes().all(|b| matches!(b, b' '..=b'~')));
            let heard = decode(&payload).expect("our own message");
            prop_assert_eq!(&heard.name, &sent.name);
            match (&heard.body, &sent.body) {
                (Body::Announce(a), Body::Announce(b)) => {
                    prop_assert!(a.tags.same_as(&tags));
                    prop_assert_eq!(a.tags.to_tags(), tags);
                    prop_assert_eq!((a.hello, a.incarnation, a.seq, a.due), (b.hello, b.incarnation, b.seq, b.due));
                    prop_assert_eq!((a.pid, a.inbox, a.back), (b.pid, b.inbox, b.back));
                    prop_assert!(payload.len() <= longest_announcement(&name, &encoded));
                }
                (a, b) => prop_assert_eq!(a, b),
            }
            for end in 0..payload.len() {
                prop_assert_eq!(decode(&payload[..end]), None, "cut at {}", end);
            }
        }

        #[test]
        fn decode_never_panics(payload: String, cut in 0..100usize, bytes: Vec<u8>) {
            let _ = decode(&payload);
            let _ = decode_roster(&format!("pg-peers/1 roster part=1 parts=1; name=n{payload};"));
            let fields = format!("pg-peers/1 beat name=n inc=1 seq=1 due=1 {payload};");
            let _ = decode(&fields);
            let mut mangled = fields.into_bytes();
            let cut = cut.min(mangled.len());
            mangled.splice(cut..cut, bytes);
            if let Some(message) = decode(&String::from_utf8_lossy(&mangled)) {
                prop_assert!(peer::check_word(&message.name, MAX_HEARD_NAME).is_ok());
            }
        }
    }
}
