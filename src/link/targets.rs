//! Which servers a connection string leads to, and in which order they are tried: one attempt goes from address to address until
//! one lets it in, or rejects the login. The others would most likely reject it too, and some providers ban who tries twice.

use std::error::Error as StdError;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};

use postgres::Client;
use postgres::config::{Host, LoadBalanceHosts};

use super::redial::{Hosts, is_rejection};
use crate::error::code_of;
use crate::jitter::random;
use crate::logging::LINK;

pub(super) type Cause = Box<dyn StdError + Send + Sync>;

/// Where nothing says otherwise.
const PORT: u16 = 5432;

/// The servers of a connection string.
pub(super) struct Targets {
    /// At least one.
    hosts: Vec<Target>,
    shuffled: bool,
    /// Who rejected a login last, if none was accepted since.
    rejected: Mutex<Option<Rejection>>,
}

/// One server.
struct Target {
    /// Leads there, by name.
    config: postgres::Config,
    /// The name and port to look its addresses up by, if they are not known.
    name: Option<(String, u16)>,
}

#[derive(Clone, Copy)]
struct Rejection {
    host: usize,
    address: Option<IpAddr>,
}

impl Targets {
    /// The servers of a connection string that was parsed; what does not fit together, if it does not.
    pub(super) fn new(config: &postgres::Config) -> Result<Self, String> {
        let (names, addresses, ports) = (
            config.get_hosts(),
            config.get_hostaddrs(),
            config.get_ports(),
        );
        let count = names.len().max(addresses.len());
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            let (names, addresses) = (names.len(), addresses.len());
            return Err(format!("{names} of host and {addresses} of hostaddr"));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(format!("{count} of host and {} of port", ports.len()));
        }
        let target = |n: usize| {
            let (name, address) = (names.get(n), addresses.get(n));
            let port = ports.get(n).or_else(|| ports.first());
            let port = port.copied().unwrap_or(PORT);
            Target {
                config: alone(config, name, address, port),
                name: match (name, address) {
                    (Some(Host::Tcp(name)), None) => Some((name.clone(), port)),
                    _ => None,
                },
            }
        };
        Ok(Self {
            hosts: (0..count).map(target).collect(),
            shuffled: config.get_load_balance_hosts() == LoadBalanceHosts::Random,
            rejected: Mutex::new(None),
        })
    }

    /// Tries one address after the other by `connect`. Whoever rejected the last login is tried last: it may be one of several
    /// that are told apart by nothing but this.
    pub(super) fn connect<E: Into<Cause>>(
        &self,
        hosts: Hosts,
        connect: impl Fn(&postgres::Config) -> Result<Client, E>,
    ) -> Result<Client, Cause> {
        let rejected = *self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let first = rejected.map_or(0, |it| it.host);
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.rotate_left(first);
        let shuffled = self.shuffled || hosts == Hosts::Shuffled;
        if shuffled {
            shuffle(&mut order);
        }
        let mut last = None;
        let mut spared = None;
        for host in order {
            let target = &self.hosts[host];
            let addresses = match target.addresses() {
                Ok(mut addresses) => {
                    if shuffled {
                        shuffle(&mut addresses);
                    }
                    addresses
                }
                Err(cause) => {
                    last = Some(cause);
                    continue;
                }
            };
            for address in addresses {
                let at = Rejection { host, address };
                if rejected.is_some_and(|it| it.host == host && it.address == address) {
                    spared = Some(at);
                    continue;
                }
                match self.try_at(at, &connect) {
                    Err(Attempt::Failed(cause)) => last = Some(cause),
                    outcome => return outcome.map_err(Attempt::into_cause),
                }
            }
        }
        match (spared, last) {
            (Some(at), _) => self.try_at(at, &connect).map_err(Attempt::into_cause),
            (None, Some(cause)) => Err(cause),
            (None, None) => Err("the host's name has no address".into()),
        }
    }

    fn try_at<E: Into<Cause>>(
        &self,
        at: Rejection,
        connect: impl Fn(&postgres::Config) -> Result<Client, E>,
    ) -> Result<Client, Attempt> {
        let mut config = self.hosts[at.host].config.clone();
        if let Some(address) = at.address {
            config.hostaddr(address);
        }
        let outcome = connect(&config).map_err(Into::into);
        let code = outcome.as_ref().err().and_then(|cause| code_of(&**cause));
        let rejected = code.is_some_and(|code| is_rejection(code.code()));
        if rejected || outcome.is_ok() {
            let mut last = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
            *last = rejected.then_some(at);
        }
        outcome.map_err(|cause| match rejected {
            true => Attempt::Rejected(cause),
            false => Attempt::Failed(cause),
        })
    }
}

/// What came of an attempt at one address, other than a connection.
enum Attempt {
    Failed(Cause),
    /// The login was rejected.
    Rejected(Cause),
}

impl Attempt {
    fn into_cause(self) -> Cause {
        match self {
            Self::Failed(cause) | Self::Rejected(cause) => cause,
        }
    }
}

impl Target {
    /// The addresses to try; `None` where the configuration says all.
    fn addresses(&self) -> Result<Vec<Option<IpAddr>>, Cause> {
        let Some((name, port)) = &self.name else {
            return Ok(vec![None]);
        };
        let addresses = (&**name, *port).to_socket_addrs()?;
        Ok(addresses.map(|address| Some(address.ip())).collect())
    }
}

/// The same configuration for one of its servers.
fn alone(
    all: &postgres::Config,
    name: Option<&Host>,
    address: Option<&IpAddr>,
    port: u16,
) -> postgres::Config {
    let mut one = postgres::Config::new();
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(dbname) = all.get_dbname() {
        one.dbname(dbname);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = all.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = all.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = all.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = all.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    match name {
        Some(Host::Tcp(name)) => {
            one.host(name);
        }
        #[cfg(unix)]
        Some(Host::Unix(directory)) => {
            one.host_path(directory);
        }
        None => {}
    }
    if let Some(address) = address {
        one.hostaddr(*address);
    }
    one.port(port)
        .ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .target_session_attrs(all.get_target_session_attrs())
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .notice_callback(|notice| log::debug!(target: LINK, "Postgres says: {notice}"));
    one
}

/// Brings them into any order.
fn shuffle<T>(items: &mut [T]) {
    for n in (1..items.len()).rev() {
        items.swap(n, random() as usize % (n + 1));
    }
}
