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

    /// An argument breaks a rule. The text names the value and the rule. Nothing was started.
    pub fn is_config(&self) -> bool {
        self.0.kind == Kind::Config
    }

    /// No session with Postgres could be opened, or the session broke. It is tried again for ever: within a second, or, if the server rejects
    /// the login ([`code`](Error::code) of class 28), every 30 seconds, or every 5 if the closure of
    /// [`join_with`](crate::Config::join_with) supplies the credentials. Some providers ban an address after two rejected logins, for half
    /// an hour or longer; then "connection refused" can be what this error says. In a fork of the process that joined, and after a panic of
    /// the thread, nothing is tried again.
    pub fn is_link(&self) -> bool {
        self.0.kind == Kind::Link
    }

    /// Most likely the connection goes through a pooler in transaction or statement mode, which carries no notifications. The text says
    /// what was seen. Connect to Postgres directly, or to a pool in session mode. If one name leads to two servers, the error is
    /// [`is_link`](Self::is_link) instead.
    pub fn is_pooler(&self) -> bool {
        self.0.kind == Kind::Pooler
    }

    /// Something did not happen in the time it was given.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout
    }

    /// A newer process has this member's name, so this member is not announced any more: see
    /// [`Event::NameTaken`](crate::Event::NameTaken). Join under another name, or end.
    pub fn is_name_taken(&self) -> bool {
        self.0.kind == Kind::NameTaken
    }

    /// The SQLSTATE, if Postgres refused.
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
