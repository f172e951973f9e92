//! Which servers a connection string leads to, and in which order they are tried: one attempt goes from address to address until
//! one lets it in, or rejects the login. The others would most likely reject it too, and some providers ban who tries twice.
//!
//! The address that let us in last comes first. The one that rejected the last login comes last: several servers may differ in
//! nothing else. So does one at which another attempt hangs: the server may be frozen.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgres::config::{Host, LoadBalanceHosts};

use super::knock::knock;
use super::redial::{Choice, is_rejection};
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
    connect_timeout: Duration,
    seen: Mutex<Seen>,
}

/// One server.
struct Target {
    /// Leads there, by name.
    config: postgres::Config,
    /// The name and port to look its addresses up by, if they are not known.
    name: Option<(String, u16)>,
}

/// One address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    host: usize,
    address: Option<IpAddr>,
}

impl Place {
    /// Which of the hosts it is.
    pub(super) fn host(self) -> usize {
        self.host
    }
}

/// What attempts have seen.
struct Seen {
    /// The server that let us in last.
    worked: Option<Place>,
    /// Where the last link leads: a login that hung elsewhere may be through since.
    link: Option<Place>,
    /// The server that rejected a login last, if none was accepted since.
    rejected: Option<Place>,
    /// Where attempts are right now.
    trying: Vec<Place>,
    /// How many addresses each host had when it was looked up last.
    addresses: Vec<usize>,
}

impl Targets {
    /// The servers of a connection string that was parsed; what does not fit together, if it does not.
    pub(super) fn new(
        config: &postgres::Config,
        connect_timeout: Duration,
    ) -> Result<Self, String> {
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
            connect_timeout,
            seen: Mutex::new(Seen {
                worked: None,
                link: None,
                rejected: None,
                trying: Vec::new(),
                addresses: vec![1; count],
            }),
        })
    }

    /// What an attempt can choose from.
    pub(super) fn choice(&self) -> Choice {
        Choice {
            places: self.seen().addresses.iter().sum(),
            connect_timeout: self.connect_timeout,
        }
    }

    /// Where the link leads.
    pub(super) fn link(&self) -> Option<Place> {
        self.seen().link
    }

    /// There is a link, which leads there.
    pub(super) fn set_link(&self, place: Option<Place>) {
        self.seen().link = place;
    }

    /// Tries one address after the other by `connect`, and says where it got in. Calls `visit` before each.
    pub(super) fn connect<C, E: Into<Cause>>(
        &self,
        visit: impl Fn(),
        connect: impl Fn(Place, &postgres::Config) -> Result<C, E>,
    ) -> Result<(C, Place), Cause> {
        let (first, last) = {
            let seen = self.seen();
            let last: Vec<Place> = seen.trying.iter().copied().chain(seen.rejected).collect();
            (seen.rejected.or(seen.worked), last)
        };
        let mut spared = Vec::new();
        let mut failed = None;
        for host in self.order(first.map(|place| place.host)) {
            visit();
            let places = match self.places(host, first) {
                Ok(places) => places,
                Err(cause) => {
                    failed = Some(cause);
                    continue;
                }
            };
            for place in places {
                if last.contains(&place) {
                    spared.push(place);
                    continue;
                }
                visit();
                match self.try_at(place, &connect) {
                    Err(Attempt::Failed(cause)) => failed = Some(cause),
                    outcome => return outcome.map_err(Attempt::into_cause),
                }
            }
        }
        // In the order of `last`: where a login was rejected comes last of all.
        spared.sort_by_key(|place| last.iter().rposition(|it| it == place));
        for place in spared {
            visit();
            match self.try_at(place, &connect) {
                Err(Attempt::Failed(cause)) => failed = Some(cause),
                outcome => return outcome.map_err(Attempt::into_cause),
            }
        }
        Err(failed.unwrap_or_else(|| "the host's name has no address".into()))
    }

    /// Tries this address alone.
    pub(super) fn connect_at<C, E: Into<Cause>>(
        &self,
        place: Place,
        connect: impl Fn(Place, &postgres::Config) -> Result<C, E>,
    ) -> Result<C, Cause> {
        let outcome = self.try_at(place, connect);
        outcome
            .map(|(client, _)| client)
            .map_err(Attempt::into_cause)
    }

    /// Fails if nobody answers there, where that is in doubt: where another attempt hangs, and where one of several addresses has not
    /// worked yet. Asking takes two round trips. Returns whether it was asked.
    pub(super) fn knock(&self, place: Place, config: &postgres::Config) -> io::Result<bool> {
        let is_in_doubt = {
            let seen = self.seen();
            let is_one_of_several = seen.addresses.iter().sum::<usize>() > 1;
            let here = seen.trying.iter().filter(|it| **it == place).count();
            here > 1 || (is_one_of_several && seen.worked != Some(place))
        };
        match is_in_doubt {
            true => knock(config, self.connect_timeout).map(|()| true),
            false => Ok(false),
        }
    }

    /// The hosts, from this one on.
    fn order(&self, first: Option<usize>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        match first {
            Some(first) => order.rotate_left(first),
            None if self.shuffled => shuffle(&mut order),
            None => {}
        }
        order
    }

    /// The addresses of a host, this one first.
    fn places(&self, host: usize, first: Option<Place>) -> Result<Vec<Place>, Cause> {
        let mut addresses = self.hosts[host].addresses()?;
        if self.shuffled {
            shuffle(&mut addresses);
        }
        self.seen().addresses[host] = addresses.len().max(1);
        let places = addresses.into_iter();
        let mut places: Vec<_> = places.map(|address| Place { host, address }).collect();
        places.sort_by_key(|place| Some(*place) != first);
        Ok(places)
    }

    fn try_at<C, E: Into<Cause>>(
        &self,
        place: Place,
        connect: impl Fn(Place, &postgres::Config) -> Result<C, E>,
    ) -> Result<(C, Place), Attempt> {
        let mut config = self.hosts[place.host].config.clone();
        if let Some(address) = place.address {
            config.hostaddr(address);
        }
        let trying = Trying::new(self, place);
        let outcome = connect(place, &config).map_err(Into::into);
        drop(trying);
        let code = outcome.as_ref().err().and_then(|cause| code_of(&**cause));
        let rejected = code.is_some_and(|code| is_rejection(code.code()));
        let mut seen = self.seen();
        if rejected {
            seen.rejected = Some(place);
        } else if outcome.is_ok() {
            (seen.worked, seen.rejected) = (Some(place), None);
        }
        match outcome {
            Ok(client) => Ok((client, place)),
            Err(cause) if rejected => Err(Attempt::Rejected(cause)),
            Err(cause) => Err(Attempt::Failed(cause)),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt is there.
struct Trying<'a> {
    targets: &'a Targets,
    place: Place,
}

impl<'a> Trying<'a> {
    fn new(targets: &'a Targets, place: Place) -> Self {
        targets.seen().trying.push(place);
        Self { targets, place }
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        let trying = &mut self.targets.seen().trying;
        if let Some(at) = trying.iter().position(|place| *place == self.place) {
            trying.swap_remove(at);
        }
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const FIRST: u16 = 7001;

    /// That many hosts, with ports from [`FIRST`] on.
    fn targets(count: u16) -> Targets {
        let hosts = vec!["127.0.0.1"; usize::from(count)].join(",");
        let ports: Vec<String> = (0..count).map(|n| (FIRST + n).to_string()).collect();
        let params = format!("host={hosts} port={} user=u", ports.join(","));
        let config = params.parse().expect("a configuration");
        Targets::new(&config, Duration::from_secs(5)).expect("targets")
    }

    /// Which hosts an attempt tries, if it gets in at this one.
    fn visits(targets: &Targets, opens_at: Option<u16>) -> Vec<u16> {
        let visited = RefCell::new(Vec::new());
        let connect = |_: Place, config: &postgres::Config| {
            let host = config.get_ports()[0] - FIRST;
            visited.borrow_mut().push(host);
            match opens_at {
                Some(open) if open == host => Ok(()),
                _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            }
        };
        let outcome = targets.connect(|| {}, connect);
        assert_eq!(outcome.is_ok(), opens_at.is_some());
        visited.into_inner()
    }

    #[test]
    fn the_address_that_let_us_in_last_comes_first() {
        let targets = targets(4);
        assert_eq!(visits(&targets, None), [0, 1, 2, 3]);
        assert_eq!(visits(&targets, Some(2)), [0, 1, 2]);
        assert_eq!(visits(&targets, Some(2)), [2]);
        assert_eq!(visits(&targets, Some(1)), [2, 3, 0, 1]);
        assert_eq!(visits(&targets, None), [1, 2, 3, 0]);
    }

    #[test]
    fn where_an_attempt_hangs_the_next_comes_last() {
        let targets = targets(3);
        let within = |_: Place, config: &postgres::Config| -> io::Result<Vec<u16>> {
            assert_eq!(config.get_ports(), [FIRST]);
            // This one hangs, and meanwhile the next is made, which hangs as well.
            let (found, _) = targets
                .connect(
                    || {},
                    |_, config| {
                        assert_eq!(config.get_ports(), [FIRST + 1]);
                        io::Result::Ok(visits(&targets, None))
                    },
                )
                .expect("an attempt");
            Ok(found)
        };
        let (third, place) = targets.connect(|| {}, within).expect("an attempt");
        assert_eq!(third, [2, 0, 1]);
        assert_eq!(place.host, 0);
        assert_eq!(targets.seen().trying, []);
    }

    #[test]
    fn the_second_connection_of_an_attempt_leads_where_the_first_does() {
        let targets = targets(3);
        let connect = |_: Place, config: &postgres::Config| match config.get_ports()[0] {
            FIRST => Err("no"),
            port => Ok(port),
        };
        let (port, place) = targets.connect(|| {}, connect).expect("the second host");
        assert_eq!(targets.connect_at(place, connect).expect("again"), port);
    }
}
