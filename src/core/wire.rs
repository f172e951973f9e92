#![doc = include_str!("../guide/wire.md")]

use std::borrow::Cow;
use std::fmt::Write;
use std::num::NonZeroI32;
use std::time::Duration;

use crate::core::digest::{Digest, fnv};
use crate::event::Reason;
use crate::peer::{self, Incarnation, MAX_HEARD_NAME, Tags};

/// The longest payload that Postgres takes (manual, NOTIFY: "shorter than 8000 bytes").
pub(crate) const MAX_PAYLOAD: usize = 7_999;

/// The longest time until the next announcement that is understood. It bounds how long a forged peer can stay.
pub(crate) const MAX_DUE: Duration = Duration::from_secs(24 * 60 * 60);

/// Within this time a member is back whose session ended, if it announces none that is longer.
pub(crate) const LEAST_BACK: Duration = Duration::from_millis(1_250);

/// The longest time to be back that is understood. It bounds how long a forged one can keep a dead peer.
pub(crate) const MOST_BACK: Duration = Duration::from_secs(60);

/// The longest time to have been away that is understood. The departed are not remembered for longer.
pub(crate) const MOST_AWAY: Duration = Duration::from_secs(60 * 60);

const TAKES: &str = "a String takes what is written to it";

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
    "pg-peers/1 roster ask=18446744073709551615 part=4294967295 parts=4294967295; age=86400000000;"
        .len();

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

    fn parse(text: &str) -> Option<Self> {
        hex(text).map(Self)
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
    /// The member has left, as another one says: its session is gone, or why it else left.
    Gone {
        incarnation: Incarnation,
        seq: u64,
        why: Reason,
    },
    /// Asks who is there. On the wire it is `ask`.
    Query {
        question: Question,
        attempt: u64,
    },
    /// A node name and nothing else, as libcluster_postgres announces.
    Bare,
}

/// A question who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Where it is to be answered.
    pub(crate) inbox: Inbox,
    /// The number of the question, of those from there; its answer has the same.
    pub(crate) number: u64,
    /// For how long the one that asks did not hear who leaves; `None` from a newcomer.
    pub(crate) away: Option<Duration>,
}

impl Question {
    /// A member's rank among those that may answer: the lowest answers. Each question has another one.
    pub(crate) fn rank(self, name: &str, incarnation: Incarnation) -> u64 {
        let numbers = [incarnation.get(), self.inbox.0, self.number].map(u64::to_be_bytes);
        fnv(name.bytes().chain(numbers.into_iter().flatten()))
    }

    /// The first one from there, by a newcomer.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn at(inbox: Inbox) -> Self {
        Self {
            inbox,
            number: 0,
            away: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announce<'a> {
    /// Whether it is a hello, which also asks who is there.
    pub(crate) hello: bool,
    /// Whether, as far as the sender knows, it is the first hello that ever got out.
    pub(crate) newborn: bool,
    pub(crate) incarnation: Incarnation,
    pub(crate) seq: u64,
    pub(crate) due: Duration,
    pub(crate) pid: Option<Pid>,
    /// What the sender asks; only in a hello.
    pub(crate) question: Option<Question>,
    /// How long ago it was heard; only in an answer.
    pub(crate) age: Option<Duration>,
    /// Within this time the sender would be back if its session ended.
    pub(crate) back: Duration,
    /// Whether the sender asks Postgres which sessions are gone.
    pub(crate) checks: bool,
    /// The sender makes a statement on its session at least this often; `None` if it may make none.
    pub(crate) beat: Option<Duration>,
    /// The members that the sender knows; only in a beat.
    pub(crate) digest: Option<Digest>,
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

impl Message<'_> {
    /// The start of the member that it names, if it names one.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        match &self.body {
            Body::Announce(announce) => Some(announce.incarnation),
            Body::Bye { incarnation, .. }
            | Body::Gone { incarnation, .. }
            | Body::Newer { incarnation } => Some(*incarnation),
            Body::Bare | Body::Query { .. } => None,
        }
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

/// What a member adds to the digest of those who know it: a hash of its fields, as they stand in an announcement.
pub(crate) fn fingerprint(name: &str, incarnation: Incarnation, tags: &str) -> u64 {
    let mut text = "name=".to_owned();
    escape(name, &mut text);
    write!(text, " inc={}", incarnation.get()).expect(TAKES);
    let space = if tags.is_empty() { "" } else { " " };
    fnv([&text, space, tags].into_iter().flat_map(str::bytes))
}

/// How many bytes the longest payload takes that announces this name with these tags (as encoded), signed.
pub(crate) fn longest_announcement(name: &str, tags: &str) -> usize {
    let hello = Announce {
        hello: true,
        newborn: true,
        incarnation: Incarnation::new(u64::MAX),
        seq: u64::MAX,
        due: MAX_DUE,
        pid: Some(Pid::MAX),
        question: Some(Question {
            inbox: Inbox(u64::MAX),
            number: u64::MAX,
            away: Some(MOST_AWAY),
        }),
        age: None,
        back: MOST_BACK,
        checks: false,
        beat: Some(MAX_DUE),
        digest: None,
        tags: WireTags::encoded(tags),
    };
    let in_answer = Announce {
        hello: false,
        newborn: false,
        question: None,
        ..hello.clone()
    };
    let beat = Announce {
        digest: Some(Digest {
            members: u32::MAX,
            sum: u64::MAX,
        }),
        ..in_answer.clone()
    };
    let [hello, beat, in_answer] = [hello, beat, in_answer].map(|announce| {
        let body = Body::Announce(announce);
        let name = Cow::Borrowed(name);
        Message { name, body }
    });
    let mut entry = String::new();
    encode_fields(&in_answer, &mut entry);
    let announced = encode(&hello).len().max(encode(&beat).len());
    announced.max(ROSTER_HEAD + entry.len()) + LONGEST_SIGNATURE
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
        write!(text, " {key}={value}").expect(TAKES);
    };
    match &message.body {
        Body::Announce(announce) => {
            field("inc", announce.incarnation.get());
            field("seq", announce.seq);
            if announce.newborn {
                field("new", 1);
            }
            // Rounded up: it is a promise.
            field("due", announce.due.as_nanos().div_ceil(1_000_000) as u64);
            if let Some(age) = announce.age {
                field("age", age.as_millis() as u64);
            }
            if announce.back > LEAST_BACK {
                field("back", announce.back.as_millis() as u64);
            }
            if !announce.checks {
                field("check", 0);
            }
            if let Some(beat) = announce.beat {
                field("beat", beat.as_nanos().div_ceil(1_000_000) as u64);
            }
            if let Some(pid) = announce.pid {
                field("pid", u64::from(pid.get().unsigned_abs()));
            }
            if let Some(Digest { members, sum }) = announce.digest {
                write!(text, " digest={members}.{sum:016x}").expect(TAKES);
            }
            if let Some(question) = announce.question {
                encode_question(question, text);
            }
            if !announce.tags.0.is_empty() {
                text.push(' ');
                text.push_str(announce.tags.0);
            }
        }
        Body::Bye { incarnation, seq } => {
            field("inc", incarnation.get());
            field("seq", *seq);
        }
        Body::Gone {
            incarnation,
            seq,
            why,
        } => {
            field("inc", incarnation.get());
            field("seq", *seq);
            text.push_str(match why {
                Reason::Goodbye => " why=goodbye",
                Reason::Expired => " why=silent",
                Reason::SessionGone | Reason::Replaced => "",
            });
        }
        Body::Newer { incarnation } => field("inc", incarnation.get()),
        Body::Query { question, attempt } => {
            encode_question(*question, text);
            write!(text, " try={attempt}").expect(TAKES);
        }
        Body::Bare => {}
    }
    text.push(';');
}

fn encode_question(question: Question, text: &mut String) {
    write!(text, " inbox={:016x}", question.inbox.0).expect(TAKES);
    if question.number > 0 {
        write!(text, " ask={}", question.number).expect(TAKES);
    }
    if let Some(away) = question.away {
        write!(text, " away={}", away.as_millis()).expect(TAKES);
    }
}

/// The payloads of the answer to the question of that number: announcements, and departures, each as it would be told to all. A
/// member that does not fit a payload is left out: it announces itself some time.
pub(crate) fn encode_roster<'a>(
    question: u64,
    members: impl IntoIterator<Item = Message<'a>>,
) -> Vec<String> {
    let room = MAX_PAYLOAD - ROSTER_HEAD - LONGEST_SIGNATURE;
    let mut parts = vec![String::new()];
    for member in members {
        let mut text = String::new();
        encode_fields(&member, &mut text);
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
    let ask = match question {
        0 => String::new(),
        number => format!("ask={number} "),
    };
    parts
        .map(|(part, number)| format!("{ROSTER}{ask}part={number} parts={count};{part}"))
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
        "gone" => return fields.departure(),
        "bye" => Body::Bye {
            incarnation: fields.inc?,
            seq: fields.seq?,
        },
        "newer" => Body::Newer {
            incarnation: fields.inc?,
        },
        "ask" => Body::Query {
            question: fields.question()?,
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
    /// The number of the question that it answers.
    pub(crate) question: u64,
    /// Announcements of those that are there, and departures.
    pub(crate) members: Vec<Message<'a>>,
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
    let read = |text: &'a str| {
        let fields = Fields::parse(text.strip_prefix(' ')?)?;
        match fields.due {
            Some(_) => fields.announcement(false),
            None => fields.departure(),
        }
    };
    let members = texts.map(read).collect::<Option<_>>()?;
    Some(RosterPart {
        part,
        parts,
        question: head.ask.unwrap_or_default(),
        members,
    })
}

#[derive(Default)]
struct Fields<'a> {
    name: Option<Cow<'a, str>>,
    inc: Option<Incarnation>,
    seq: Option<u64>,
    new: Option<u64>,
    due: Option<Duration>,
    age: Option<Duration>,
    back: Option<Duration>,
    check: Option<u64>,
    beat: Option<Duration>,
    digest: Option<Digest>,
    pid: Option<Pid>,
    inbox: Option<Inbox>,
    ask: Option<u64>,
    away: Option<Duration>,
    attempt: Option<u64>,
    why: Option<Reason>,
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
                "new" => set(&mut fields.new, number(value)?)?,
                "due" => set(&mut fields.due, due(number(value)?)?)?,
                "age" => set(&mut fields.age, Duration::from_millis(number(value)?))?,
                "back" => set(&mut fields.back, Duration::from_millis(number(value)?))?,
                "check" => set(&mut fields.check, number(value)?)?,
                "beat" => set(&mut fields.beat, due(number(value)?)?)?,
                "digest" => set(&mut fields.digest, digest(value)?)?,
                "pid" => set(&mut fields.pid, pid(number(value)?)?)?,
                "inbox" => set(&mut fields.inbox, Inbox::parse(value)?)?,
                "ask" => set(&mut fields.ask, number(value)?)?,
                "away" => set(&mut fields.away, Duration::from_millis(number(value)?))?,
                "why" => set(&mut fields.why, why(value))?,
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
            newborn: hello && self.new == Some(1),
            incarnation: self.inc?,
            seq: self.seq?,
            due: self.due?,
            pid: self.pid,
            question: self.question().filter(|_| hello),
            age: self.age,
            back: self.back.unwrap_or_default().clamp(LEAST_BACK, MOST_BACK),
            checks: self.check != Some(0),
            beat: self.beat,
            digest: self.digest.filter(|_| !hello),
            tags: self.tags,
        });
        let name = self.name?;
        Some(Message { name, body })
    }

    fn departure(self) -> Option<Message<'a>> {
        let body = Body::Gone {
            incarnation: self.inc?,
            seq: self.seq?,
            why: self.why.unwrap_or(Reason::SessionGone),
        };
        let name = self.name?;
        Some(Message { name, body })
    }

    fn question(&self) -> Option<Question> {
        Some(Question {
            inbox: self.inbox?,
            number: self.ask.unwrap_or_default(),
            away: self.away.map(|away| away.min(MOST_AWAY)),
        })
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

fn digest(text: &str) -> Option<Digest> {
    let (members, sum) = text.split_once('.')?;
    Some(Digest {
        members: number(members)?.try_into().ok()?,
        sum: hex(sum)?,
    })
}

/// A number of 64 bits in lower-case hexadecimal digits, all of them.
fn hex(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (digits && text.len() == 16).then_some(())?;
    u64::from_str_radix(text, 16).ok()
}

/// Why a member left; what is not known is its session.
fn why(text: &str) -> Reason {
    match text {
        "goodbye" => Reason::Goodbye,
        "silent" => Reason::Expired,
        _ => Reason::SessionGone,
    }
}

fn pid(number: u64) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::new)
}

fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b';' | b'=') {
            into.push(char::from(byte));
        } else {
            write!(into, "%{byte:02X}").expect(TAKES);
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
mod tests;
