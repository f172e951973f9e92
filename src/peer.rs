//! The public values that describe another member.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest name that is understood when heard, in bytes: what an Erlang node name may measure.
pub(crate) const MAX_HEARD_NAME: usize = 255;

/// One start of a member.
///
/// A restart under the same name has a higher incarnation, so peers tell the new process from the old one. It is the time of the start in
/// microseconds since the Unix epoch. A process whose clock went back takes one above the incarnation that its peers remember.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use pg_peers::Incarnation;
///
/// fn started(incarnation: Incarnation) -> SystemTime {
///     SystemTime::UNIX_EPOCH + Duration::from_micros(incarnation.get())
/// }
///
/// # fn main() -> pg_peers::Result<()> {
/// let member = pg_peers::Config::new("a").join("host=localhost")?;
/// let incarnation = member.status().incarnation.expect("a member has one");
/// assert!(started(incarnation) <= SystemTime::now());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(NonZeroU64); // not zero, so that a peer of a bare name, without one, takes no more memory

impl Incarnation {
    /// Zero counts as one.
    pub(crate) const fn new(number: u64) -> Self {
        match NonZeroU64::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The incarnation as a number, as it stands in an announcement: microseconds since the Unix epoch.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The incarnation of a start that is so much later, at least a microsecond. `None` past the highest.
    pub(crate) fn later(self, by: Duration) -> Option<Self> {
        let micros = u64::try_from(by.as_micros()).ok()?.max(1);
        self.0.checked_add(micros).map(Self)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Another member: its name, which start of it this is, and its tags. Never this member itself.
///
/// A peer is a value as of one event or snapshot. It does not change under you, and a clone costs one reference count.
///
/// ```
/// use std::time::Duration;
/// use pg_peers::Config;
///
/// # #[allow(dead_code, unreachable_pub)]
/// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
/// # fn main() -> pg_peers::Result<()> {
/// # let server = support::Server::start();
/// # let database_url = server.params();
/// let a = Config::new("a").join(&database_url)?;
/// let b = Config::new("b").tag("port", "7000").tag("zone", "eu-1").join(&database_url)?;
///
/// let peers = a.wait_for_peers(1, Duration::from_secs(10))?;
/// let peer = &peers[0];
/// assert_eq!(peer.name(), "b");
/// assert_eq!(peer.tag("zone"), Some("eu-1"));
/// assert_eq!(peer.tags().collect::<Vec<_>>(), [("port", "7000"), ("zone", "eu-1")]);
/// assert_eq!(peer.incarnation(), b.status().incarnation);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Peer(Arc<Inner>);

#[derive(PartialEq, Eq, Hash)]
struct Inner {
    name: Arc<str>,
    incarnation: Option<Incarnation>,
    tags: Tags,
}

impl Peer {
    pub(crate) fn new(name: Arc<str>, incarnation: Option<Incarnation>, tags: Tags) -> Self {
        Self(Arc::new(Inner {
            name,
            incarnation,
            tags,
        }))
    }

    /// The same start of the same peer, with other tags.
    pub(crate) fn with_tags(&self, tags: Tags) -> Self {
        Self::new(Arc::clone(&self.0.name), self.0.incarnation, tags)
    }

    /// Its name. [`Peer`] has an example.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.0.name)
    }

    /// Which start of the member this is; `None` for a peer that announces its bare name, as libcluster_postgres does.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.0.incarnation
    }

    /// The value of one of its tags.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.0.tags.get(key)
    }

    /// Its tags, sorted by key.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.tags.iter()
    }

    pub(crate) fn all_tags(&self) -> &Tags {
        &self.0.tags
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.0.name)
            .field("incarnation", &self.0.incarnation.map(Incarnation::get))
            .field("tags", &self.0.tags)
            .finish()
    }
}

/// What is known of a peer besides what it announces, for people who look at a cluster.
///
/// The answer of [`Cluster::peer_infos`](crate::Cluster::peer_infos), which has an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The peer.
    pub peer: Peer,
    /// When it was last heard, by this member or by the one that told of it. Never earlier than this member's link last came up, or than it
    /// went on after a pause, since it could hear nobody before.
    pub heard: Instant,
    /// The peer announces itself again within this time of each announcement. A peer that announces its bare name promises nothing:
    /// [`bare_heartbeat_interval`](crate::Config::bare_heartbeat_interval) is assumed until it is seen to take longer.
    pub interval: Duration,
    /// The pid of its backend in `pg_stat_activity`; `None` if it told none, or none since this member's link came up. For a peer that
    /// announces its bare name, the backend that its last two announcements came from.
    pub backend: Option<i32>,
    /// Within this time the peer would be back if its session ended, as it announces: longer the farther it is from the server or the
    /// slower its logins are, and 1.25 s at least. A session that is missing for longer is [gone](crate::Reason::SessionGone). If it is
    /// above 1.25 s, a silent peer does not [expire](crate::Reason::Expired) before it has passed since an announcement was due. `None`
    /// for a peer that announces its bare name, which promises nothing.
    pub back: Option<Duration>,
}

/// Key-value pairs in the order of their keys, each key once: one text, where each key and each value ends with a NUL, which
/// neither can contain. A map's node would cost 500 bytes a peer.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tags(Box<str>);

impl Tags {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.iter().find(|(known, _)| *known == key);
        found.map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut texts = self.0.split_terminator('\0');
        std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
    }
}

/// Of a key that comes more than once, the last value stays.
impl<K: AsRef<str> + Ord, V: AsRef<str>> FromIterator<(K, V)> for Tags {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut text = String::new();
        for (key, value) in pairs.into_iter().collect::<BTreeMap<K, V>>() {
            for part in [key.as_ref(), value.as_ref()] {
                text.push_str(part);
                text.push('\0');
            }
        }
        Self(text.into())
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Why a text cannot be a name, a channel or part of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadText {
    Empty,
    TooLong { bytes: usize, limit: usize },
    Control(char),
}

impl fmt::Display for BadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it must not be empty"),
            Self::TooLong { bytes, limit } => {
                write!(f, "it has {bytes} bytes and may have {limit} at most")
            }
            Self::Control(c) => write!(
                f,
                "it must not contain control or invisible formatting characters, such as {:?}",
                c
            ),
        }
    }
}

/// The one rule for every text that travels in an announcement and is shown to people: no characters that act on a
/// terminal or reorder what is read, and no more than `limit` bytes.
pub(crate) fn check_text(text: &str, limit: usize) -> Result<(), BadText> {
    if text.len() > limit {
        return Err(BadText::TooLong {
            bytes: text.len(),
            limit,
        });
    }
    // Most texts are plain ASCII, which is known without a look at each character of it.
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
    if text.as_bytes().iter().all(is_plain) {
        return Ok(());
    }
    match text.chars().find(|&c| is_control(c)) {
        Some(c) => Err(BadText::Control(c)),
        None => Ok(()),
    }
}

/// Checks a text as [`check_text`] does, and that it is not empty.
pub(crate) fn check_word(text: &str, limit: usize) -> Result<(), BadText> {
    if text.is_empty() {
        return Err(BadText::Empty);
    }
    check_text(text, limit)
}

/// A node name as Erlang knows it: `name@host`, one `@`, something on both sides of it, no spaces.
pub(crate) fn is_node_name(name: &str) -> bool {
    let shape = name
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    shape && !name.contains(char::is_whitespace) && check_word(name, MAX_HEARD_NAME).is_ok()
}

/// Control characters; the bidirectional marks, embeddings, overrides and isolates (Unicode Standard Annex #9); line
/// separators; and all else that has no shape of its own, so that two texts could differ and look the same
/// (Default_Ignorable_Code_Point of the Unicode Character Database, and the controls of annotations, hieroglyphs and
/// music). Not the variation selectors of the basic plane, which make a heart red.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_sorted_and_the_last_value_of_a_key_stays() {
        let tags: Tags = [("z", "1"), ("a", "2"), ("z", "3")].into_iter().collect();
        assert_eq!(tags.iter().collect::<Vec<_>>(), [("a", "2"), ("z", "3")]);
        assert_eq!(tags.get("z"), Some("3"));
        assert_eq!(tags.get("b"), None);
    }

    #[test]
    fn text_that_could_act_on_a_terminal_is_refused() {
        assert_eq!(check_word("", 63), Err(BadText::Empty));
        assert_eq!(check_word("a\0b", 63), Err(BadText::Control('\0')));
        assert_eq!(check_word("\u{1b}[2J", 63), Err(BadText::Control('\u{1b}')));
        assert_eq!(
            check_word("\u{202e}", 63),
            Err(BadText::Control('\u{202e}'))
        );
        for invisible in [
            "soft\u{ad}hyphen",
            "\u{206a}",
            "\u{3164}",
            "tag\u{e0061}",
            "\u{fffb}",
        ] {
            assert!(
                matches!(check_word(invisible, 63), Err(BadText::Control(_))),
                "{invisible:?}"
            );
        }
        assert_eq!(
            check_word("1234", 3),
            Err(BadText::TooLong { bytes: 4, limit: 3 })
        );
        assert_eq!(check_word("große Straße 😀 ❤\u{fe0f}", 63), Ok(()));
    }

    #[test]
    fn a_node_name_has_one_at_sign_between_two_words() {
        for name in ["a@b", "realtime@10.0.0.1", "käse@host"] {
            assert!(is_node_name(name), "{name}");
        }
        for name in ["", "@", "a@", "@b", "a@b@c", "a b@c", "ab", "a@b\n"] {
            assert!(!is_node_name(name), "{name}");
        }
        assert!(!is_node_name(&format!("a@{}", "b".repeat(254))));
    }
}
