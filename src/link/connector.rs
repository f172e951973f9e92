//! Connection strings, and what opens connections by them: with limits on every wait that TCP knows, and errors that never
//! show a password.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::config::{ChannelBinding, SslMode};
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Client, Socket};

use super::descriptors;
use super::params::unparsable;
use super::redial::{Choice, Credentials, Failure, Logins, Step};
use super::seats::{Seated, Seats};
use super::targets::{Cause, Place, Targets};
use crate::error::{Error, Kind, Result, code_of};

/// Limits for a connection whose string sets none: the peer of a dead connection is given up within seconds, not the
/// system's hours. The server is asked for the same, by [`Wording::set_up`](super::sql::Wording::set_up).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVES_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVES_RETRIES: u32 = 3;

/// What `postgres` sets of itself for `keepalives_idle`, by which an unset one is known.
const DEFAULT_KEEPALIVES_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

const CANNOT_CONNECT: &str = "cannot connect to Postgres";

/// Shared by all who open connections.
pub(crate) type Connect = Arc<Connector>;

type Opened = std::result::Result<Client, Cause>;

/// What connections are made of.
enum Source {
    Params {
        targets: Targets,
        open: Box<dyn Fn(&postgres::Config) -> Opened + Send + Sync>,
    },
    Closure(Box<dyn Fn() -> Opened + Send + Sync>),
}

/// Opens connections; asked again at every attempt, possibly while an earlier one still hangs.
pub(crate) struct Connector {
    source: Source,
    logins: Mutex<Logins>,
    seats: Arc<Seats>,
}

impl Connector {
    fn new(source: Source) -> Connect {
        Arc::new(Self {
            source,
            logins: Mutex::new(Logins::default()),
            seats: Arc::new(Seats::default()),
        })
    }

    pub(super) fn credentials(&self) -> Credentials {
        match self.source {
            Source::Params { .. } => Credentials::Fixed,
            Source::Closure(_) => Credentials::Supplied,
        }
    }

    /// What an attempt can choose from.
    pub(super) fn choice(&self) -> Choice {
        match &self.source {
            Source::Params { targets, .. } => targets.choice(),
            Source::Closure(_) => Choice {
                places: 1,
                connect_timeout: CONNECT_TIMEOUT,
            },
        }
    }

    /// Why attempts fail, if they do.
    pub(super) fn failure(&self) -> Failure {
        self.logins().failure()
    }

    /// Opens a connection, and says where that leads, if it is known. Calls `visit` before each address that is tried, and when one
    /// has answered. Only a server with as many `free` seats is tried, of which the connection takes one.
    pub(super) fn open(
        &self,
        free: usize,
        visit: impl Fn(Step),
    ) -> Result<(Seated, Option<Place>)> {
        self.record(match &self.source {
            Source::Params { targets, open } => {
                let connect = |place: Place, config: &_| {
                    let seat = self.seats.take(Some(place.host()), free, Duration::ZERO)?;
                    if targets.knock(place, config)? {
                        visit(Step::Answered);
                    }
                    open(config).map(|client| Seated::new(client, seat))
                };
                // Before names are looked up, which says that they do not exist where this is why.
                let enough = descriptors::check().map_err(Cause::from);
                let opened = enough.and_then(|()| targets.connect(|| visit(Step::First), connect));
                opened.map(|(client, place)| (client, Some(place)))
            }
            Source::Closure(open) => {
                let seat = self.seats.take(None, free, Duration::ZERO);
                let seat = seat.map_err(Cause::from);
                seat.and_then(|seat| Ok((Seated::new(open()?, seat), None)))
            }
        })
    }

    /// Opens a connection to that place, if there is a seat within `wait`.
    pub(super) fn open_at(&self, place: Option<Place>, wait: Duration) -> Result<Seated> {
        let seat = self.seats.take(place.map(Place::host), 1, wait);
        let seat = seat.map_err(|e| Error::caused(Kind::Link, "no further session", e))?;
        let opened = match (&self.source, place) {
            (Source::Params { targets, open }, Some(place)) => {
                targets.connect_at(place, |place, config| {
                    targets.knock(place, config)?;
                    open(config)
                })
            }
            (Source::Params { .. }, None) => Err("it is not known where the link leads".into()),
            (Source::Closure(open), _) => open(),
        };
        Ok(Seated::new(self.record(opened)?, seat))
    }

    /// There is a link, which leads there.
    pub(super) fn set_link(&self, place: Option<Place>) {
        if let Source::Params { targets, .. } = &self.source {
            targets.set_link(place);
        }
    }

    /// Notes what came of a login, and explains why it failed.
    fn record<T>(&self, outcome: std::result::Result<T, Cause>) -> Result<T> {
        let mut logins = self.logins();
        let cause = match outcome {
            Ok(opened) => {
                logins.handle_success();
                return Ok(opened);
            }
            Err(cause) => cause,
        };
        let code = code_of(&*cause).map(|code| code.code());
        logins.handle_failure(Instant::now(), code);
        let pause = self.credentials().pause().as_secs();
        let message = match (logins.failure(), code) {
            _ if descriptors::is_exhausted(&*cause) => CANNOT_CONNECT.to_owned(),
            (Failure::Other, _) => CANNOT_CONNECT.to_owned(),
            (Failure::Rejected, Some(_)) => {
                format!("{CANNOT_CONNECT}, which rejects the login (tried again every {pause} s)")
            }
            (Failure::Rejected, None) => format!(
                "{CANNOT_CONNECT}, which rejected the login before and may have banned this address for it, as \
                 some providers do for half an hour (tried again every {pause} s)"
            ),
        };
        Err(Error::caused(Kind::Link, message, cause))
    }

    /// Opens a connection that can be done without, to where the link leads: not while logins are being rejected, and not
    /// without a seat within `wait`.
    pub(super) fn open_aside(&self, wait: Duration) -> Result<Seated> {
        if !self.logins().may_try(Instant::now(), self.credentials()) {
            return Err(Error::new(
                Kind::Link,
                "a further connection is not tried, since Postgres rejected the last login",
            ));
        }
        let place = match &self.source {
            Source::Params { targets, .. } => targets.link(),
            Source::Closure(_) => None,
        };
        self.open_at(place, wait)
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parses a connection string into what opens connections, with limits on every wait that TCP knows. Operators see all of
/// them by that name.
pub(crate) fn connector<T>(params: &str, tls: Option<T>, application_name: &str) -> Result<Connect>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::TlsConnect: Send,
    T::Stream: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let mut config: postgres::Config = params.parse().map_err(|e| unparsable(params, &e))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(Error::config(
            "the connection string names no host: add host=... (or a directory with the server's socket)",
        ));
    }
    if tls.is_none() && config.get_ssl_mode() == SslMode::Require {
        return Err(Error::config(
            "the connection string says sslmode=require, which `join` cannot do: use `join_tls`",
        ));
    }
    if tls.is_none() && config.get_channel_binding() == ChannelBinding::Require {
        return Err(Error::config(
            "the connection string says channel_binding=require, which takes TLS: use `join_tls`",
        ));
    }
    let connect_timeout = *config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT);
    config.connect_timeout(connect_timeout);
    config.application_name(application_name);
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    if config.get_keepalives_idle() == DEFAULT_KEEPALIVES_IDLE {
        config.keepalives_idle(KEEPALIVES_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVES_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVES_RETRIES);
    }
    let targets = Targets::new(&config, connect_timeout).map_err(|counts| {
        Error::config(format!(
            "the connection string has {counts}: write as many of each, separated by commas"
        ))
    })?;
    let open = move |config: &postgres::Config| {
        descriptors::with_enough(|| match &tls {
            Some(tls) => config.connect(tls.clone()),
            None => config.connect(postgres::NoTls),
        })
    };
    Ok(Connector::new(Source::Params {
        targets,
        open: Box::new(open),
    }))
}

/// What opens connections by a closure of the host's.
pub(crate) fn custom_connector<F, E>(connect: F) -> Connect
where
    F: Fn() -> std::result::Result<Client, E> + Send + Sync + 'static,
    E: Into<Cause>,
{
    let open = move || descriptors::with_enough(&connect);
    Connector::new(Source::Closure(Box::new(open)))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_bad_connection_string_never_shows_its_password() {
        let tls = || None::<postgres::NoTls>;
        for params in [
            "host=h password=hun ter2=x",
            "host=h passwort=hunter2",
            "postgres://u:hunter2@h:port/db",
            "postgres://u:hunter2@h/db?hunter2=1",
        ] {
            let error = connector(params, tls(), "a").err().expect(params);
            let shown = format!("{error} {error:?} {:?}", error.source());
            assert!(error.is_config(), "{params}");
            assert!(!shown.contains("ter2"), "{shown}");
        }
        let error = connector("host=h password=hunter2 port=x", tls(), "a")
            .err()
            .expect("an error");
        assert!(error.to_string().contains("option `port`"), "{error}");
        let error = connector("hots=localhost", tls(), "a")
            .err()
            .expect("an error");
        assert!(error.to_string().contains("hots"), "{error}");
        for (option, advice) in [
            ("sslrootcert=system", "leave it out"),
            (
                "sslmode=verify-full",
                "for verify-ca or verify-full write require",
            ),
        ] {
            let url = format!("postgres://u:hunter2@h/db?{option}");
            let error = connector(&url, tls(), "a")
                .err()
                .expect("an error")
                .to_string();
            assert!(error.contains(advice), "{error}");
            assert!(
                error.contains(option.split('=').next().unwrap_or_default()),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = connector("user=u", tls(), "a").err().expect("an error");
        assert!(error.to_string().contains("no host"), "{error}");
        for option in ["sslmode=require", "channel_binding=require"] {
            let error = connector(&format!("host=h {option}"), tls(), "a").err();
            let error = error.expect("one").to_string();
            assert!(
                error.contains("join_tls") && error.contains(option),
                "{error}"
            );
        }
    }
}
