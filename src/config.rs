//! What a member is: its name, its tags, its times. Parsed once, when it joins.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Client, NoTls, Socket};

use crate::cluster::Cluster;
use crate::core::presence::Style;
use crate::core::wire;
use crate::error::{Error, Result};
use crate::link;
use crate::peer::{self, BadText, Tags};
use crate::trust::seal::{Keys, MIN_SECRET, Secret};

/// The longest name and channel: Postgres cuts identifiers and `application_name` at 63 bytes (manual, 4.1.1).
pub(crate) const MAX_NAME: usize = 63;

/// More missed heartbeats than this are a mistake.
pub(crate) const MAX_MISSED: u32 = 1_000;

/// How a program takes part in a cluster.
///
/// Call setters, then [`join`](Config::join), [`join_tls`](Config::join_tls) or [`join_with`](Config::join_with), which check every
/// value. [Tuning](crate::guide::tuning) lists the settings and says what they cost.
///
/// ```
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
    /// A member of this name.
    ///
    /// The name has 1 to 63 bytes, and no control or invisible characters. It must be unique on the channel. Peers learn from it, and from
    /// the [tags](Config::tag), how to reach this process; `name@host:port` is a good form.
    ///
    /// ```
    /// let error = pg_peers::Config::new("").join("host=localhost").unwrap_err();
    /// assert!(error.is_config()); // name "" is not valid: it must not be empty
    /// ```
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::observer()
        }
    }

    /// An observer: it sees the members, and they do not see it.
    ///
    /// It never announces itself. Each time it connects it asks who is there; with [`bare_name`](Config::bare_name) it does not even ask.
    ///
    /// ```
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let params = server.params();
    /// use std::time::Duration;
    /// use pg_peers::Config;
    ///
    /// let observer = Config::observer().join(&params)?;
    /// let member = Config::new("a").join(&params)?;
    /// let peers = observer.wait_for_peers(1, Duration::from_secs(10))?;
    /// assert_eq!(peers[0].name(), "a");
    /// assert!(member.peers().is_empty());
    /// # Ok(())
    /// # }
    /// ```
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

    /// Sets the Postgres channel on which the members meet: 1 to 63 bytes without control characters. Case counts.
    ///
    /// Members of other channels, or of other databases of the same server, are never seen. Every role that may connect to the database
    /// may listen and announce on its channels. In a database whose encoding is not UTF8 the channel may need more bytes; if it needs
    /// more than 63 there, the link does not come up, and the error says so.
    ///
    /// Defaults to `cluster`. libcluster_postgres uses the nodes' cookie unless it is told another.
    ///
    /// ```
    /// let error = pg_peers::Config::new("a").channel("x".repeat(64)).join("host=localhost").unwrap_err();
    /// assert!(error.to_string().contains("64 bytes"));
    /// ```
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// Announces a value under a key. Peers read it with [`Peer::tag`](crate::Peer::tag).
    ///
    /// The key must not be empty, and neither may contain control characters. All tags and the name together must fit one payload of
    /// 7,999 bytes. If a key is set twice, the later value stays. [`Cluster::set_tag`](crate::Cluster::set_tag) changes tags later.
    ///
    /// Defaults to no tags.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// let member = pg_peers::Config::new("a").tag("zone", "eu-1").join("host=localhost")?;
    /// assert_eq!(member.tags()["zone"], "eu-1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Sets how often this member proves that it is there, 1 ms to 24 h.
    ///
    /// It proves it by an announcement; in a large cluster, where announcements are rarer (see
    /// [`delivery_budget`](Config::delivery_budget)), by a beat, an empty statement on its session. It also proves the link to itself
    /// that often. A shorter interval notices a process that hangs sooner, and costs the database more.
    ///
    /// Defaults to 5 seconds.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let hours = Duration::from_secs(25 * 3600);
    /// let error = pg_peers::Config::new("a").heartbeat_interval(hours).join("host=localhost").unwrap_err();
    /// assert!(error.is_config());
    /// ```
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// Sets after how many silent intervals a peer has left, with [`Reason::Expired`](crate::Reason::Expired): 1 to 1,000.
    ///
    /// A peer has left if it is not heard for this many of the intervals at which it announces itself, or if its session has stood still
    /// for this many of its heartbeat intervals. With 1, a single late heartbeat makes a peer leave, unless its [reconnect
    /// takes long](crate::guide::regions).
    ///
    /// Defaults to 3.
    ///
    /// ```
    /// let error = pg_peers::Config::new("a").missed_heartbeats(0).join("host=localhost").unwrap_err();
    /// assert!(error.is_config());
    /// ```
    pub fn missed_heartbeats(mut self, count: u32) -> Self {
        self.missed_heartbeats = count;
        self
    }

    /// Sets the longest roster, at least 1. It bounds this program's memory if the channel is flooded.
    ///
    /// While there is no room, further peers are ignored, counted in [`Status::refused`](crate::Status::refused) and logged once.
    ///
    /// Defaults to 10,000.
    ///
    /// ```
    /// let error = pg_peers::Config::new("a").max_peers(0).join("host=localhost").unwrap_err();
    /// assert!(error.is_config());
    /// ```
    pub fn max_peers(mut self, count: usize) -> Self {
        self.max_peers = count;
        self
    }

    /// Sets how many deliveries a second the announcements of the whole cluster may cause, at least 1.
    ///
    /// Every announcement is delivered to every member. So past `sqrt(budget * interval)` members each announces itself less often than its
    /// [`heartbeat_interval`](Config::heartbeat_interval): every `N² / budget` seconds. Peers learn the interval from each announcement.
    /// Joins, goodbyes, tags, deaths and hangs are known as soon as before.
    /// [Tuning](crate::guide::tuning#why-the-cost-stays-flat) has the numbers, and the cost.
    ///
    /// A member whose peers cannot see its session (see [`Status::judged_by_session`](crate::Status::judged_by_session)), and one that
    /// announces its bare name, may spend ten times as much.
    ///
    /// Set it equally at all members. Defaults to 200, however many members there are.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// // At 150 members each announces itself every 22 s, not every 112 s.
    /// let member = pg_peers::Config::new("a").delivery_budget(1_000).join("host=localhost")?;
    /// # drop(member);
    /// # Ok(())
    /// # }
    /// ```
    pub fn delivery_budget(mut self, deliveries_per_second: u32) -> Self {
        self.delivery_budget = deliveries_per_second;
        self
    }

    /// Sets whether this member asks Postgres (`pg_stat_get_activity`) whose session is gone or has stood still.
    ///
    /// A few members [ask for all](crate::guide::tuning#why-the-cost-stays-flat). [What happens
    /// when](crate::guide::faults#a-process-fails) has the times. What they find:
    ///
    /// - A killed process leaves with [`Reason::SessionGone`](crate::Reason::SessionGone), within seconds. So does a process whose host died,
    ///   if Postgres notices it; else it leaves as one that hangs.
    /// - A process that hangs leaves with [`Reason::Expired`](crate::Reason::Expired), soon after its session has stood still for
    ///   [`missed_heartbeats`](Config::missed_heartbeats) of its heartbeat intervals. A process that died behind a pooler in session mode,
    ///   where sessions outlive their clients, leaves the same way, unless the pooler gave its session to another client. For both use the
    ///   same role for all members: it must see what its peers' sessions do.
    /// - A process that takes long to connect announces that, and is given [that time](crate::guide::regions).
    ///
    /// Every role may execute that function unless the right was revoked. A member without the right, or with `false`, says so, and others
    /// ask. If nobody asks, such peers expire. A member that does not ask still believes what others find.
    ///
    /// Defaults to `true`.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// let member = pg_peers::Config::new("a").session_check(false).join("host=localhost")?;
    /// assert!(!member.status().judged_by_session);
    /// # Ok(())
    /// # }
    /// ```
    pub fn session_check(mut self, check: bool) -> Self {
        self.session_check = check;
        self
    }

    /// Sets whether to announce only the bare name, as libcluster_postgres does, for a channel shared with Elixir nodes.
    ///
    /// Elixir nodes take every payload for a node name, and keep an atom of each that is never freed. The name must be `name@host`. There
    /// are no tags, no restarts that peers can tell, and no goodbye: peers see this member expire. An [`observer`](Config::observer)
    /// with it says nothing at all, and learns of each peer when it hears it next. [Elixir](crate::guide::elixir) has more.
    ///
    /// Defaults to `false`.
    ///
    /// ```
    /// let error = pg_peers::Config::new("no-host").bare_name(true).join("host=localhost").unwrap_err();
    /// assert!(error.is_config());
    /// ```
    pub fn bare_name(mut self, bare: bool) -> Self {
        self.bare_name = bare;
        self
    }

    /// Sets the interval that is assumed of peers that announce only their bare name, 1 ms to 24 h.
    ///
    /// Set it to the `heartbeat_interval` of the Elixir nodes. A longer interval is learned, after one leave and heal, or after two if it
    /// is six times as long.
    ///
    /// Defaults to 5 seconds, as theirs does.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// use std::time::Duration;
    ///
    /// let observer = pg_peers::Config::observer()
    ///     .bare_name(true)
    ///     .bare_heartbeat_interval(Duration::from_secs(20))
    ///     .join("host=localhost")?;
    /// # drop(observer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn bare_heartbeat_interval(mut self, interval: Duration) -> Self {
        self.bare_heartbeat_interval = interval;
        self
    }

    /// Signs all messages of this member with HMAC-SHA-256 (RFC 2104), and hears only what is signed with the same secret.
    ///
    /// The secret has at least 16 bytes that only the members know; better 32 from a random generator (`openssl rand -hex 32`). The bytes
    /// are used as they are, a newline at the end included. Give each cluster its own. Without a secret, every role that may connect to the
    /// database can forge joins, leaves and updates. Only with the cargo feature `auth`.
    ///
    /// Defaults to no secret.
    ///
    /// ```
    /// # use pg_peers::Config;
    /// # fn main() -> pg_peers::Result<()> {
    /// # let cluster_secret = || "5e1f0c2b9a7d48e6";
    /// let member = Config::new("worker-1@10.0.0.1:7000")
    ///     .secret(cluster_secret()) // the same at all members; openssl rand -hex 32
    ///     .join("host=localhost user=postgres")?;
    /// # drop(member);
    ///
    /// let error = Config::new("worker-1").secret("too short").join("host=localhost").unwrap_err();
    /// assert!(error.is_config());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// **The clocks of all members must agree within 60 seconds.** Called several times, this makes a list: the first secret signs, each one
    /// verifies. [Signing](crate::guide::signing) says what becomes of messages that are not valid, how to change and to introduce a secret,
    /// and what it does not defend against.
    #[cfg(feature = "auth")]
    #[cfg_attr(docsrs, doc(cfg(feature = "auth")))]
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secrets.push(Secret::new(secret.as_ref()));
        self
    }

    /// Joins without TLS.
    ///
    /// `params` is a connection string, `host=localhost user=postgres` or `postgres://user@host/dbname`, as [`postgres::Config`] reads it.
    /// With several hosts and `target_session_attrs=read-write` the member follows a failover. If it sets no `connect_timeout`,
    /// `keepalives_*` or `tcp_user_timeout`, limits of seconds are set. What it does not say is not looked for: no environment variable,
    /// password file or service file is read, as `psql` does.
    ///
    /// Returns at once. A Postgres that cannot be reached is an [`Event::Offline`](crate::Event::Offline) and a retry, not an error. A
    /// login that the server rejects (SQLSTATE of class 28, such as a wrong password) is tried again every 30 seconds, at most 20 times in
    /// ten minutes, since some providers ban addresses that go on. An attempt ends at the first address that rejects the login; the next
    /// attempt begins with the other addresses.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config): a value of this configuration or the connection string is not valid.
    ///
    /// ```
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let database_url = server.params();
    /// let member = pg_peers::Config::new("a").join(&database_url)?;
    /// member.wait_online(std::time::Duration::from_secs(10))?;
    ///
    /// let error = pg_peers::Config::new("b").join("hots=localhost").unwrap_err();
    /// assert!(error.is_config());
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(self, params: &str) -> Result<Cluster> {
        let settings = Settings::parse(&self)?;
        let connect = link::connector(params, None::<NoTls>, settings.application_name())?;
        Cluster::start(settings, connect)
    }

    /// Joins with TLS by a connector of `tokio-postgres-rustls`, `postgres-native-tls` or `postgres-openssl`.
    ///
    /// The connection string decides whether TLS is required: write `sslmode=require`. The connector decides what is verified. A server that
    /// the connector refuses is an [`Event::Offline`](crate::Event::Offline). [TLS](crate::guide::tls) has a program in full, and says what
    /// `sslmode` and `channel_binding` do. Otherwise as [`join`](Config::join).
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config): a value of this configuration or the connection string is not valid.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// use rustls::{ClientConfig, RootCertStore};
    /// use tokio_postgres_rustls::MakeRustlsConnect;
    ///
    /// let tls = ClientConfig::builder()
    ///     .with_root_certificates(RootCertStore::empty()) // put the provider's root certificate in it
    ///     .with_no_client_auth();
    /// let member = pg_peers::Config::new("worker-1")
    ///     .join_tls("host=localhost user=my_app sslmode=require", MakeRustlsConnect::new(tls))?;
    /// # drop(member);
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_tls<T>(self, params: &str, tls: T) -> Result<Cluster>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let settings = Settings::parse(&self)?;
        let connect = link::connector(params, Some(tls), settings.application_name())?;
        Cluster::start(settings, connect)
    }

    /// Joins over connections that a closure opens: for passwords that change, and for settings that a connection string cannot have.
    ///
    /// The closure is called twice at every attempt: the second connection lives for a moment, and proves that the first carries
    /// notifications. It is called once more for each [further session](crate::guide::database#sessions). It runs on a thread where it
    /// may block. While one call hangs, another may be made. Each call must return a new session with the primary. Set `connect_timeout`, `keepalives_idle` and `tcp_user_timeout` in
    /// it; server-side settings are made by this crate.
    ///
    /// A login that the server rejects is tried again after one second, then after longer pauses, up to five seconds.
    ///
    /// # Errors
    ///
    /// [`is_config`](Error::is_config): a value of this configuration is not valid. An error of the closure becomes an
    /// [`Event::Offline`](crate::Event::Offline): keep secrets out of it.
    ///
    /// ```
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let params = format!("{} connect_timeout=5", server.params());
    /// # let read = |_: &str| Ok::<_, std::io::Error>("secret");
    /// use pg_peers::postgres::{Config, NoTls};
    ///
    /// let member = pg_peers::Config::new("worker-1").join_with(move || {
    ///     let password = read("/run/secrets/postgres")?; // rotated while this process runs
    ///     let mut config: Config = params.parse()?;
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(config.password(password).connect(NoTls)?)
    /// })?;
    /// member.wait_online(std::time::Duration::from_secs(10))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_with<F, E>(self, connect: F) -> Result<Cluster>
    where
        F: Fn() -> std::result::Result<Client, E> + Send + Sync + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let settings = Settings::parse(&self)?;
        Cluster::start(settings, link::custom_connector(connect))
    }
}

/// A configuration whose every value was found to be good.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `None`: an observer.
    pub(crate) member: Option<Member>,
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
pub(crate) struct Member {
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
            member: Member::parse(config)?,
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
        let member = self.member.as_ref();
        member.map_or("pg_peers observer", |member| &member.name)
    }
}

impl Member {
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
        let mut member = Self {
            name: Arc::from(&**name),
            style: if config.bare_name {
                Style::Bare
            } else {
                Style::Full
            },
            tags: Tags::default(),
        };
        if member.style == Style::Bare && !peer::is_node_name(name) {
            return Err(Error::config(format!(
                "name {name:?} is not valid as a bare name: it must be name@host, with one @ and no spaces"
            )));
        }
        let tags = config.tags.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        member.tags = member.check_tags(tags)?;
        Ok(Some(member))
    }

    /// Tags that this member can announce.
    pub(crate) fn check_tags<'a>(
        &self,
        tags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Tags> {
        let check = |(key, value)| {
            word("tag key", key, wire::MAX_PAYLOAD)?;
            peer::check_text(value, wire::MAX_PAYLOAD).map_err(|bad| {
                let (key, value) = (shown(key), shown(value));
                Error::config(format!("value {value} of tag {key} is not valid: {bad}"))
            })?;
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
            (Config::new("n").tag("", "v"), ["tag key \"\"", "empty"]),
            (
                Config::new("n").tag("k", "\0"),
                ["value \"\\0\" of tag \"k\"", "control"],
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
