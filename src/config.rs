//! What a participant is: its name, its tags, its times. Parsed once, when it joins.

use std::sync::Arc;
use std::time::Duration;

use crate::core::presence::Style;
use crate::core::wire;
use crate::error::{Error, Result};
use crate::peer::{self, BadText, Tags};
use crate::trust::seal::{Keys, MIN_SECRET, Secret};

/// The longest name and channel: Postgres cuts identifiers and `application_name` at 63 bytes (manual, 4.1.1).
const MAX_NAME: usize = 63;

/// More missed heartbeats than this are a mistake.
const MAX_MISSED: u32 = 1_000;

/// How this program takes part. Consuming setters, then one of [`join`](Config::join), [`join_tls`](Config::join_tls) and
/// [`join_with`](Config::join_with), which check every value.
///
/// ```no_run
/// # fn main() -> pg_peers::Result<()> {
/// use std::time::Duration;
///
/// let cluster = pg_peers::Config::new("worker-1@10.0.0.1:7000")
///     .channel("my_app")
///     .tag("zone", "eu-1")
///     .heartbeat_interval(Duration::from_secs(2))
///     .join("host=localhost user=postgres")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing until it joins"]
pub struct Config {
    name: Option<String>,
    channel: String,
    tags: Vec<(String, String)>,
    heartbeat_interval: Duration,
    bare_heartbeat_interval: Duration,
    missed_heartbeats: u32,
    max_peers: usize,
    delivery_budget: u32,
    session_check: bool,
    bare_name: bool,
    secrets: Vec<Secret>,
}

impl Config {
    /// A participant of this name, which no other one on the channel may have: 1 to 63 bytes without characters that
    /// control a terminal or cannot be seen. Peers learn nothing about how to reach it but what stands in its name and its
    /// tags; `name@host:port` is a good form.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::observer()
        }
    }

    /// Listens and never announces itself: it sees the peers, and they do not see it. All that it says is a question who is
    /// there, each time it connects; with [`bare_name`](Config::bare_name) not even that.
    pub fn observer() -> Self {
        Self {
            name: None,
            channel: "cluster".to_owned(),
            tags: Vec::new(),
            heartbeat_interval: Duration::from_secs(5),
            bare_heartbeat_interval: Duration::from_secs(5),
            missed_heartbeats: 3,
            max_peers: 10_000,
            delivery_budget: 200,
            session_check: true,
            bare_name: false,
            secrets: Vec::new(),
        }
    }

    /// The Postgres channel on which the participants meet: 1 to 63 bytes of any kind but control characters; case counts. The
    /// bytes are those of UTF-8; in a database with another encoding it may take more there, and if it is more than 63 the
    /// link does not come up, with an error that says so.
    /// Everybody who may connect to the database may also listen and announce there. Participants of other channels, or of
    /// other databases of the same server, are never seen. Defaults to `cluster`; libcluster_postgres takes its
    /// nodes' cookie unless it is told another.
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// Announces a value under a key. The key is not empty; neither has control characters; all tags and the name together
    /// fit one payload of 7,999 bytes. Of a key set twice the later value stays. See also
    /// [`set_tags`](crate::Cluster::set_tags). Defaults to no tags.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// How often this participant proves that it is there, 1 ms to 24 h: by an announcement, or, in a cluster so large that
    /// announcements are rarer (see [`delivery_budget`](Config::delivery_budget)), by a beat, an empty statement on its own
    /// session. A shorter interval notices a process that hangs sooner and costs the database more. It is also how often the
    /// link is proven to work. Defaults to 5 seconds.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// The interval that is assumed of peers that announce their bare name, and so no interval; 1 ms to 24 h. Set it to the
    /// `heartbeat_interval` of the Elixir nodes. A longer one is learned, after one leave and heal, or two where it is six
    /// times as long. Defaults to 5 seconds, as theirs does.
    pub fn bare_heartbeat_interval(mut self, interval: Duration) -> Self {
        self.bare_heartbeat_interval = interval;
        self
    }

    /// A peer that is not heard for this many of the intervals at which it announces itself has left, with
    /// [`Reason::Expired`](crate::Reason::Expired), and so has one whose session has stood still for as many of its heartbeat
    /// intervals. 1 to 1,000; fewer than 2 gives peers up for a single late heartbeat.
    /// Defaults to 3.
    pub fn missed_heartbeats(mut self, count: u32) -> Self {
        self.missed_heartbeats = count;
        self
    }

    /// The most peers that are kept, at least 1; it bounds this program's memory against a channel gone wild. Further ones
    /// are counted in [`Status::refused`](crate::Status::refused), logged once, and ignored while there is no room.
    /// Defaults to 10,000.
    pub fn max_peers(mut self, count: usize) -> Self {
        self.max_peers = count;
        self
    }

    /// The deliveries a second that the announcements of the whole cluster may cause together, at least 1. Every announcement
    /// is delivered to every participant, so N of them cost N² deliveries in each interval, at some 40 to 90 us of the
    /// server's CPU each. Past `sqrt(budget * interval)` participants (31, with the defaults) each announces itself less
    /// often than its [`heartbeat_interval`](Config::heartbeat_interval): every `N² / budget` seconds, 50 s at 100, 800 s at
    /// 400. Peers learn that interval with each announcement. It changes nothing about how soon a join, a goodbye, other tags or, by
    /// the [`session_check`](Config::session_check), a process that died or hangs is known. A participant whose peers cannot see
    /// by its session that it is there, as [`Status::judged_by_session`](crate::Status::judged_by_session) tells, and one that
    /// announces its bare name, may spend ten times as much. Should be the same at all participants. Defaults to 200, which takes 1
    /// to 2% of a core.
    pub fn delivery_budget(mut self, deliveries_per_second: u32) -> Self {
        self.delivery_budget = deliveries_per_second;
        self
    }

    /// Whether this participant, when it is one of the two oldest or the two youngest, asks Postgres (`pg_stat_get_activity`)
    /// every two seconds whose session is gone, for all; one of the others asks about every four. A process that was killed has
    /// then left, with [`Reason::SessionGone`](crate::Reason::SessionGone), within 3.7 seconds (more, if all four died with
    /// it), and one whose host died within about ten. One that hangs has left when its session has stood still for
    /// [`missed_heartbeats`](Config::missed_heartbeats) of its heartbeat intervals, two seconds later at most, with
    /// [`Reason::Expired`](crate::Reason::Expired); that takes a role that sees what the sessions of its peers do, such as the same
    /// one for all. Asking takes the right to execute that function, which every role has unless it
    /// was revoked. Who has not that right, or sets this to `false`, says so, and another one asks. Where nobody does, such
    /// a process expires. Behind a pooler in session mode, where sessions outlive their clients, it is found like one that hangs,
    /// unless the pooler has given the session to another client. A process that takes long to connect,
    /// since it is far from the server or logging in is slow, announces that, and is found gone that much later: after one and
    /// a half times what connecting took, and 0.75 seconds. Where the server took longer to answer of late than at best, 15
    /// times as much comes on top, 5 seconds at most, since connecting takes longer, too. Also without the check this
    /// participant believes what others find. Defaults to `true`.
    pub fn session_check(mut self, check: bool) -> Self {
        self.session_check = check;
        self
    }

    /// Announces the bare name only, as libcluster_postgres does, for a channel shared with Elixir nodes: they take every
    /// payload for a node name, and would make an atom of each of ours. The name must then be `name@host`, and there are no
    /// tags, no restarts that peers could tell, and no goodbye: peers see this participant expire. An
    /// [`observer`](Config::observer) says nothing at all then, and knows each peer when it hears it next. Defaults to
    /// `false`.
    pub fn bare_name(mut self, bare: bool) -> Self {
        self.bare_name = bare;
        self
    }

    /// Signs all that this participant says, with HMAC-SHA-256 (RFC 2104), and hears only what is signed with the same
    /// secret: at least 16 bytes that only the members know, better 32 of a random generator (`openssl rand -hex 32`),
    /// taken as they are, with a newline at the end if there is one. Each cluster should have its own. Without a secret
    /// everybody who may connect to the database can announce members, bury them, and speak for them. Only with the cargo
    /// feature `auth`. Defaults to no secret.
    ///
    /// ```no_run
    /// # use pg_peers::Config;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = Config::new("worker-1@10.0.0.1:7000")
    ///     .secret(std::env::var("CLUSTER_SECRET")?) // the same at all members; openssl rand -hex 32
    ///     .join("host=localhost user=postgres")?;
    /// # drop(cluster);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What is not so signed is ignored, counted in [`Status::forged`](crate::Status::forged) and logged once; so are the bare
    /// names of Elixir nodes. A recording does not pass for the original: a signature holds for one channel and one backend of
    /// the server, and 60 seconds (up to 120 while somebody keeps the channel from ever falling silent). **All members
    /// therefore need clocks that agree within 60 seconds.** One whose clock does not is not heard and does not hear the
    /// others, which is logged with its name and the difference, and counted in
    /// [`Status::clock_skewed`](crate::Status::clock_skewed).
    ///
    /// A signature tells that a member speaks, not which one: who has the secret can speak for all, and nothing is hidden.
    ///
    /// # To change it
    ///
    /// Called several times it makes a list: the first secret signs, each verifies. To go from one secret to another
    /// restart all members three times: with `old, new`, then with `new, old`, then with `new`. Everybody hears everybody
    /// all the time.
    ///
    /// # To introduce it
    ///
    /// Restart all members, one by one, with the secret. **Meanwhile the members with it and those without see each other
    /// one-sidedly**: those without see everybody, since to them a signature is a field that they do not know; those with it
    /// see only each other, and for them the others have not joined yet. When the last one is restarted all see all. Where
    /// even that gap is too much, let each program join twice for that time, on the old channel without a secret and on a
    /// new one with it.
    #[cfg(feature = "auth")]
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secrets.push(Secret::new(secret.as_ref()));
        self
    }
}

/// A configuration whose every value was found to be good.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `None`: an observer.
    pub(crate) participant: Option<Participant>,
    pub(crate) channel: String,
    pub(crate) heartbeat: Duration,
    pub(crate) bare_heartbeat: Duration,
    pub(crate) missed: u32,
    pub(crate) max_peers: usize,
    pub(crate) delivery_budget: u32,
    pub(crate) session_check: bool,
    pub(crate) observer_asks: bool,
    pub(crate) keys: Keys,
}

/// Who announces itself, and how.
#[derive(Clone, Debug)]
pub(crate) struct Participant {
    pub(crate) name: Arc<str>,
    pub(crate) style: Style,
    pub(crate) tags: Tags,
}

impl Settings {
    pub(crate) fn parse(config: &Config) -> Result<Self> {
        word("channel", &config.channel, MAX_NAME)?;
        interval("heartbeat_interval", config.heartbeat_interval)?;
        interval("bare_heartbeat_interval", config.bare_heartbeat_interval)?;
        if !(1..=MAX_MISSED).contains(&config.missed_heartbeats) {
            return Err(Error::config(format!(
                "missed_heartbeats {} is not valid: it must be between 1 and {MAX_MISSED}",
                config.missed_heartbeats
            )));
        }
        if config.max_peers == 0 {
            return Err(Error::config(
                "max_peers 0 is not valid: it must be at least 1",
            ));
        }
        if config.delivery_budget == 0 {
            return Err(Error::config(
                "delivery_budget 0 is not valid: it must be at least 1 a second",
            ));
        }
        let keys = Keys::parse(&config.secrets).ok_or_else(|| {
            Error::config(format!(
                "the secret is not valid: it must have at least {MIN_SECRET} bytes"
            ))
        })?;
        if config.bare_name && !config.secrets.is_empty() {
            return Err(Error::config(
                "a secret has no use with a bare name, which cannot be signed: leave out the one or the other",
            ));
        }
        Ok(Self {
            participant: Participant::parse(config)?,
            channel: config.channel.clone(),
            heartbeat: config.heartbeat_interval,
            bare_heartbeat: config.bare_heartbeat_interval,
            missed: config.missed_heartbeats,
            max_peers: config.max_peers,
            delivery_budget: config.delivery_budget,
            session_check: config.session_check,
            observer_asks: !config.bare_name,
            keys,
        })
    }

    /// What operators see each session by.
    pub(crate) fn application_name(&self) -> &str {
        let participant = self.participant.as_ref();
        participant.map_or("pg_peers observer", |participant| &participant.name)
    }
}

impl Participant {
    fn parse(config: &Config) -> Result<Option<Self>> {
        let Some(name) = &config.name else {
            if !config.tags.is_empty() {
                return Err(Error::config(
                    "an observer announces nothing: it has no tags",
                ));
            }
            return Ok(None);
        };
        word("name", name, MAX_NAME)?;
        let mut participant = Self {
            name: Arc::from(&**name),
            style: if config.bare_name {
                Style::Bare
            } else {
                Style::Full
            },
            tags: Tags::default(),
        };
        if participant.style == Style::Bare && !peer::is_node_name(name) {
            return Err(Error::config(format!(
                "name {name:?} is not valid as a bare name: it must be name@host, with one @ and no spaces"
            )));
        }
        let tags = config.tags.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        participant.tags = participant.check_tags(tags)?;
        Ok(Some(participant))
    }

    /// Tags that this participant can announce.
    pub(crate) fn check_tags<'a>(
        &self,
        tags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Tags> {
        let check = |(key, value)| {
            word("the key of a tag,", key, wire::MAX_PAYLOAD)?;
            peer::check_text(value, wire::MAX_PAYLOAD)
                .map_err(|bad| invalid(&format!("the value of tag {},", shown(key)), value, bad))?;
            Ok((key, value))
        };
        let tags: Tags = tags.into_iter().map(check).collect::<Result<_>>()?;
        let text = wire::encode_tags(&tags);
        if self.style == Style::Bare && !text.is_empty() {
            return Err(Error::config(
                "tags cannot be announced with a bare name: leave out the one or the other",
            ));
        }
        let bytes = wire::longest_announcement(&self.name, &text);
        if bytes > wire::MAX_PAYLOAD {
            return Err(Error::config(format!(
                "the tags are not valid: with them an announcement takes {bytes} bytes, and a payload may have {} at most",
                wire::MAX_PAYLOAD
            )));
        }
        Ok(tags)
    }
}

fn word(what: &str, text: &str, limit: usize) -> Result<()> {
    peer::check_word(text, limit).map_err(|bad| invalid(what, text, bad))
}

fn interval(what: &str, value: Duration) -> Result<()> {
    if (Duration::from_millis(1)..=wire::MAX_DUE).contains(&value) {
        return Ok(());
    }
    Err(Error::config(format!(
        "{what} {value:?} is not valid: it must be between 1 ms and 24 h"
    )))
}

fn invalid(what: &str, text: &str, bad: BadText) -> Error {
    Error::config(format!("{what} {} is not valid: {bad}", shown(text)))
}

/// A value for an error message: escaped, and cut where it is long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(config: Config) -> String {
        let error = Settings::parse(&config).expect_err("a bad value");
        assert!(error.is_config());
        error.to_string()
    }

    #[test]
    fn bad_values_are_refused_by_name_and_rule() {
        let long = "n".repeat(64);
        let huge = "v".repeat(8_000);
        for (config, words) in [
            (Config::new(""), ["name \"\"", "must not be empty"]),
            (Config::new(&long), ["64 bytes", "63 at most"]),
            (Config::new("a\0b"), ["name \"a\\0b\"", "control"]),
            (Config::new("a\nb"), ["name \"a\\nb\"", "control"]),
            (Config::new("\u{202e}b"), ["\\u{202e}", "control"]),
            (Config::new("n").channel(""), ["channel \"\"", "empty"]),
            (Config::new("n").channel(&long), ["channel", "63 at most"]),
            (
                Config::new("n").channel("c\0"),
                ["channel \"c\\0\"", "control"],
            ),
            (
                Config::new("n").heartbeat_interval(Duration::ZERO),
                ["heartbeat_interval 0ns", "between 1 ms and 24 h"],
            ),
            (
                Config::new("n").heartbeat_interval(Duration::MAX),
                ["heartbeat_interval", "between 1 ms and 24 h"],
            ),
            (
                Config::new("n").missed_heartbeats(0),
                ["missed_heartbeats 0", "between 1 and 1000"],
            ),
            (Config::new("n").max_peers(0), ["max_peers 0", "at least 1"]),
            (
                Config::new("n").delivery_budget(0),
                ["delivery_budget 0", "at least 1"],
            ),
            (Config::new("n").tag("", "v"), ["key of a tag", "empty"]),
            (
                Config::new("n").tag("k", "\0"),
                ["tag \"k\", \"\\0\"", "control"],
            ),
            (
                Config::new("n").tag("k", &huge),
                ["tag \"k\"", "7999 at most"],
            ),
            (
                Config::new("n").tag("k", &huge[..7_800]),
                ["tags", "7999 at most"],
            ),
            (Config::new("n").bare_name(true), ["\"n\"", "name@host"]),
            (
                Config::new("n@h").bare_name(true).tag("k", "v"),
                ["tags", "bare name"],
            ),
            (Config::observer().tag("k", "v"), ["observer", "tags"]),
        ] {
            let text = refusal(config);
            for word in words {
                assert!(text.contains(word), "{word:?} in {text:?}");
            }
            assert!(
                text.len() < 300 && !text.contains(char::is_control),
                "{text}"
            );
        }
    }

    #[cfg(feature = "auth")]
    #[test]
    fn bad_secrets_are_refused_and_not_shown() {
        let long = "hunter2-and-16-bytes";
        for (config, words) in [
            (Config::new("n").secret(""), "at least 16 bytes"),
            (
                Config::new("n").secret("hunter2-and-15b"),
                "at least 16 bytes",
            ),
            (
                Config::observer().secret(long).secret("hunter2"),
                "at least 16 bytes",
            ),
            (Config::new("n@h").secret(long).bare_name(true), "bare name"),
        ] {
            let shown = format!("{config:?}");
            assert!(
                shown.contains("Secret(..)") && !shown.contains("hunter2"),
                "{shown}"
            );
            let text = refusal(config);
            assert!(text.contains("secret") && text.contains(words), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        for secret in [&long.as_bytes()[..16], &[0; 64], &[255; 1_000]] {
            let settings = Settings::parse(&Config::new("n").secret(secret)).expect("long enough");
            assert!(!format!("{settings:?}").contains("hunter2"));
        }
    }

    #[test]
    fn good_values_of_odd_shapes_are_taken() {
        for name in ["x", "große Straße", "a'b\"c\\d", &"n".repeat(63)] {
            let config = Config::new(name).channel(name).tag(name, "").tag("k", name);
            Settings::parse(&config).expect(name);
        }
    }
}
