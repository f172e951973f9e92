//! The one error type: opaque, with predicates for what a program can act on.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use postgres::error::SqlState;

/// The result of a fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in words that say what to do about it.
///
/// Printed, it is one line that includes the causes. [`source`](StdError::source) is the cause itself, so a [`postgres::Error`] can be had
/// by downcasting. Never contains a password or a connection string.
///
/// ```
/// let error = pg_peers::Config::new("a").max_peers(0).join("host=localhost").unwrap_err();
/// assert_eq!(error.to_string(), "max_peers 0 is not valid: it must be at least 1");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An argument breaks a rule.
    Config,
    /// No session with Postgres could be opened, or the one there was is broken.
    Link,
    /// The session goes through a pooler that does not carry notifications.
    Pooler,
    /// Something did not happen in time.
    Timeout,
    /// A newer process has the name.
    NameTaken,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    pub(crate) fn caused(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }))
    }

    /// An argument breaks a rule. The text names the value and the rule. Nothing was started, and no tags were changed.
    ///
    /// ```
    /// let error = pg_peers::Config::new("").join("host=localhost").unwrap_err();
    /// assert!(error.is_config());
    /// ```
    pub fn is_config(&self) -> bool {
        self.0.kind == Kind::Config
    }

    /// No session with Postgres could be opened, or the session broke. It is tried again within a second, until it works. After a login
    /// that the server rejects ([`code`](Error::code) of class 28) the pauses are longer: [`join`](crate::Config::join) and
    /// [`join_with`](crate::Config::join_with) say how long. If a provider then [bans](crate::guide::deployment#supabase) the address, this
    /// error can be "connection refused". In a fork of the process that joined, and after a panic of the thread, nothing is tried again.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// let member = pg_peers::Config::new("a").join("host=127.0.0.1 port=1")?; // nobody listens there
    /// let Ok(pg_peers::Event::Offline(reason)) = member.events().recv() else { panic!("offline") };
    /// assert!(reason.is_link()); // ...: Connection refused
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_link(&self) -> bool {
        self.0.kind == Kind::Link
    }

    /// Most likely the connection goes through a pooler in transaction or statement mode, which carries no notifications. The text says
    /// what was seen. Connect to Postgres directly, or to a pool in session mode. If it is known that one name leads to two
    /// servers, the error is [`is_link`](Self::is_link) instead.
    ///
    /// ```
    /// fn advice(reason: &pg_peers::Error) -> Option<&'static str> {
    ///     reason.is_pooler().then_some("take the port of the database, not that of the pooler")
    /// }
    /// # assert_eq!(advice(&pg_peers::Config::new("").join("").unwrap_err()), None);
    /// ```
    pub fn is_pooler(&self) -> bool {
        self.0.kind == Kind::Pooler
    }

    /// Something did not happen in the time it was given.
    ///
    /// ```
    /// # fn main() -> pg_peers::Result<()> {
    /// let member = pg_peers::Config::new("a").join("host=127.0.0.1 port=1")?; // nobody listens there
    /// let error = member.wait_for_peers(1, std::time::Duration::from_millis(10)).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout
    }

    /// A newer process has this member's name, so this member is not announced any more: see
    /// [`Event::NameTaken`](crate::Event::NameTaken). Join under another name, or end.
    ///
    /// ```
    /// use pg_peers::{Config, Event};
    ///
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let database_url = server.params();
    /// let older = Config::new("a").join(&database_url)?;
    /// assert!(matches!(older.events().recv(), Ok(Event::Online)));
    /// let newer = Config::new("a").join(&database_url)?;
    /// assert!(matches!(older.events().recv(), Ok(Event::NameTaken(_))));
    /// assert!(older.set_tag("zone", "eu-1").unwrap_err().is_name_taken());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_name_taken(&self) -> bool {
        self.0.kind == Kind::NameTaken
    }

    /// The SQLSTATE, if Postgres refused.
    ///
    /// ```
    /// use pg_peers::postgres::error::SqlState;
    ///
    /// # #[allow(dead_code, unreachable_pub)]
    /// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
    /// # fn main() -> pg_peers::Result<()> {
    /// # let server = support::Server::start();
    /// # let database_url = server.params().replace("user=postgres", "user=nobody");
    /// let member = pg_peers::Config::new("a").join(&database_url)?; // there is no such role
    /// let Ok(pg_peers::Event::Offline(reason)) = member.events().recv() else { panic!("offline") };
    /// assert_eq!(reason.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
    /// # Ok(())
    /// # }
    /// ```
    pub fn code(&self) -> Option<&SqlState> {
        self.source().and_then(code_of)
    }
}

/// The SQLSTATE of an error, or of its first cause that has one.
pub(crate) fn code_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a SqlState> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<postgres::Error>() {
            return error.code();
        }
        cause = error.source();
    }
    None
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause = self.source();
        let mut said = String::new();
        while let Some(error) = cause {
            match error.to_string().replace('\n', " ") {
                // What `postgres` calls all that the server says; the cause is what it said.
                text if text == "db error" => {}
                // Some, such as OpenSSL's, say what their causes say.
                text if said.contains(&text) => {}
                text => {
                    write!(f, ": {text}")?;
                    said = text;
                }
            }
            // An error of ours has already said its causes.
            cause = error.source().filter(|_| !error.is::<Self>());
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}
