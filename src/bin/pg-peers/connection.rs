//! How a verb reaches the database: what its arguments, the environment and libpq's files say, and sessions by it.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime};

use pg_peers::postgres::config::{Host, SslMode};
use pg_peers::postgres::error::SqlState;
use pg_peers::postgres::{Client, NoTls};
use pg_peers::{Cluster, Config, postgres};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::conninfo::Options;
use crate::deadline::within;
use crate::libpq::{self, Surroundings};
use crate::sql::{self, Limits};
use crate::statements::PRIVATE;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Where the secret of a cluster that signs its announcements comes from: arguments are seen by everybody on the machine.
const SECRET: &str = "PG_PEERS_SECRET";

/// What a session of ours waits for a server, as the library's own do.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVES_IDLE: Duration = Duration::from_secs(5);

/// What a login takes at most, besides what connecting to each address does.
const LOGIN: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How to reach the database in which the cluster meets; without it as libpq's environment says
    #[arg(
        value_name = "CONNECTION",
        env = "DATABASE_URL",
        hide_env_values = true
    )]
    params: Option<String>,
    /// Verify the server by these certificates (PEM), not by this system's
    #[arg(long, value_name = "FILE")]
    root_cert: Option<PathBuf>,
}

/// A way to the database. Each session that is opened by it is another.
#[derive(Clone)]
pub(crate) struct Connection {
    text: String,
    config: postgres::Config,
    tls: Option<Tls>,
}

/// What became of a session.
pub(crate) enum Opened {
    Client(Box<Client>),
    /// With the SQLSTATE of the server, if it was the server that refused.
    Refused(Option<SqlState>, String),
}

/// What encrypts, and by which certificates the server is verified.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) client: ClientConfig,
    pub(crate) roots: String,
}

impl Arguments {
    pub(crate) fn resolve(&self) -> Result<Connection, Failure> {
        let text = self.params.as_deref().unwrap_or_default();
        let Some(mut options) = Options::parse(text) else {
            return Err(refusal(text));
        };
        libpq::complete(&mut options, &System)?;
        let of_libpq = options.take("sslrootcert");
        let roots = self.root_cert.clone();
        let roots = roots.or_else(|| {
            let named = of_libpq.filter(|file| file != "system");
            named.map(PathBuf::from)
        });
        if let Some(mode) = options.take("sslmode") {
            options.set("sslmode", mode_of_driver(&mode));
        }
        let text = options.to_text();
        let config: postgres::Config = text.parse().map_err(|_| refusal(&text))?;
        let tls = match config.get_ssl_mode() {
            SslMode::Require => Some(Tls::new(roots.as_deref())?),
            _ if self.root_cert.is_some() => {
                return Err("--root-cert has no use without sslmode=require in CONNECTION".into());
            }
            _ => None,
        };
        Ok(Connection { text, config, tls })
    }
}

impl Connection {
    /// Joins as this observer. With the secret of the environment only what is signed is heard.
    pub(crate) fn join(&self, mut config: Config) -> pg_peers::Result<Cluster> {
        if let Some(secret) = std::env::var_os(SECRET) {
            config = config.secret(secret.as_encoded_bytes());
        }
        match &self.tls {
            Some(tls) => config.join_tls(&self.text, tls.connector()),
            None => config.join(&self.text),
        }
    }

    /// A session of this name. Blocks, but not for ever. Nothing is set in it: behind a pooler in transaction mode that would land
    /// in somebody else's.
    pub(crate) fn open(&self, name: &str) -> Result<Client, Failure> {
        match self.open_with(name, None)? {
            Opened::Client(client) => Ok(*client),
            Opened::Refused(_, why) => Err(why.into()),
        }
    }

    /// The same, with these start-up options.
    pub(crate) fn open_with(&self, name: &str, options: Option<&str>) -> Result<Opened, Failure> {
        let mut config = self.config.clone();
        config
            .application_name(name)
            .keepalives_idle(KEEPALIVES_IDLE);
        if let Some(options) = options {
            config.options(options);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        let limit = config.get_connect_timeout().copied().unwrap_or_default();
        let hosts = config.get_hosts().len().max(1);
        let limit = LOGIN + limit * u32::try_from(hosts).unwrap_or(1);
        let tls = self.tls.clone();
        Ok(within("connecting", limit, move || {
            let opened = match tls {
                Some(tls) => config.connect(tls.connector()),
                None => config.connect(NoTls),
            };
            match opened {
                Ok(client) => Opened::Client(Box::new(client)),
                Err(error) => Opened::Refused(
                    error.code().cloned(),
                    describe("cannot connect to Postgres", &error),
                ),
            }
        })?)
    }

    pub(crate) fn config(&self) -> &postgres::Config {
        &self.config
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The database, and where it is. Without a user and a password.
    pub(crate) fn place(&self) -> String {
        let names: Vec<String> = self.hosts().map(|(host, port)| place(host, port)).collect();
        // The addresses, where there are names, are those of the names.
        let hosts = match names.is_empty() {
            true => self
                .config
                .get_hostaddrs()
                .iter()
                .map(ToString::to_string)
                .collect(),
            false => names,
        }
        .join(",");
        let database = self.config.get_dbname().or_else(|| self.config.get_user());
        match database {
            Some(database) => format!("{database} at {hosts}"),
            None => hosts,
        }
    }

    /// The hosts, and the port of each where one is written.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&Host, Option<u16>)> {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate();
        hosts.map(move |(n, host)| (host, ports.get(n).or_else(|| ports.first()).copied()))
    }
}

fn place(host: &Host, port: Option<u16>) -> String {
    match (host, port) {
        (Host::Tcp(name), Some(port)) if name.contains(':') => format!("[{name}]:{port}"),
        (Host::Tcp(name), Some(port)) => format!("{name}:{port}"),
        (Host::Tcp(name), None) => name.clone(),
        (Host::Unix(directory), _) => directory.display().to_string(),
    }
}

impl Tls {
    fn new(file: Option<&Path>) -> Result<Self, Failure> {
        let client = ClientConfig::builder()
            .with_root_certificates(roots(file)?)
            .with_no_client_auth();
        let roots = match file {
            Some(file) => file.display().to_string(),
            None => "this system's certificates".to_owned(),
        };
        Ok(Self { client, roots })
    }

    fn connector(&self) -> MakeRustlsConnect {
        MakeRustlsConnect::new(self.client.clone())
    }
}

/// What encrypts here verifies as `verify-full` does, so that is what each mode that verifies means.
fn mode_of_driver(mode: &str) -> &str {
    match mode {
        "verify-ca" | "verify-full" => "require",
        "allow" => "prefer",
        other => other,
    }
}

/// What is wrong with a connection string: the library knows, and shows no password.
fn refusal(text: &str) -> Failure {
    let refused = match text.parse::<postgres::Config>() {
        Ok(_) => None,
        Err(_) => Config::observer().join(text).err(),
    };
    refused.map_or_else(
        || {
            "the connection string is not valid: write host=... user=... dbname=... or postgres://user@host/dbname"
                .into()
        },
        Failure::from,
    )
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(
                "this system has no root certificates: name a file of them with --root-cert".into(),
            );
        }
        return Ok(roots);
    };
    let name = file.display();
    let unusable = |why: &dyn std::fmt::Display| format!("--root-cert {name} is not valid: {why}");
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unusable(&e))? {
        let certificate = certificate.map_err(|e| unusable(&e))?;
        roots.add(certificate).map_err(|e| unusable(&e))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"it must have certificates in the PEM format").into());
    }
    Ok(roots)
}

/// A channel of which nobody knows, to measure on.
pub(crate) fn private_channel() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{PRIVATE}{:x}_{:x}", process::id(), now.as_nanos())
}

/// Notifies, also where the role has lost the right to execute the function that does.
pub(crate) fn notify(
    client: &mut Client,
    limits: Limits,
    channel: &str,
    payload: &str,
) -> Result<(), String> {
    let by_function = sql::notify(limits, channel, payload);
    let said = client.simple_query(&by_function).map(drop);
    let said = said.or_else(|error| match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            client.batch_execute(&sql::notify_by_statement(limits, channel, payload))
        }
        _ => Err(error),
    });
    said.map_err(|e| describe("cannot notify", &e))
}

/// An error of the driver with all its causes: what the server said is the last.
pub(crate) fn describe(what: &str, error: &postgres::Error) -> String {
    let mut text = what.to_owned();
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        let said = error.to_string();
        // What the driver calls all that a server says.
        if said != "db error" && !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    if let Some(hint) = error.as_db_error().and_then(|error| error.hint()) {
        text = format!("{text} ({hint})");
    }
    text
}

/// This process and its files.
struct System;

impl Surroundings for System {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path, is_secret: bool) -> Result<Option<String>, String> {
        let name = path.display();
        let Ok(found) = fs::metadata(path) else {
            return Ok(None);
        };
        let is_shared = found.is_file() && found.mode() & 0o077 != 0;
        if is_secret && is_shared {
            // As psql does.
            eprintln!(
                "pg-peers: {name} is not used, since others may read it: run chmod 600 {name}"
            );
            return Ok(None);
        }
        let text = fs::read_to_string(path).map_err(|e| format!("cannot read {name}: {e}"))?;
        Ok(Some(text))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn user(&self) -> Option<String> {
        whoami::username().ok()
    }
}
