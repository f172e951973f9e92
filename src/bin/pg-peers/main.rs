//! The command line of pg-peers, for the people who run a cluster.

mod json;
mod model;
mod news;
mod screen;
mod terminal;
mod text;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use pg_peers::postgres::config::{Host, SslMode};
use pg_peers::{Cluster, Config, postgres};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Where the secret of a cluster that signs its announcements comes from: arguments are seen by everybody on the machine.
const SECRET: &str = "PG_PEERS_SECRET";

const NOTES: &str = "\
CONNECTION is host=... user=... dbname=... or postgres://user@host/dbname. One with
a password is better in the environment: others on the machine can read arguments.
With sslmode=require in it the connection is encrypted, and the server's certificate
and name are verified; otherwise it is not encrypted.

PG_PEERS_SECRET in the environment is the secret of a cluster that signs what it
announces: with it only what is signed is shown.

Ends with 0 when it is quit, or nobody reads its output any more; with 1 on an
error; with 2 on arguments that are not valid; and by the signal that ends it.";

/// Peer discovery over Postgres, from the operator's side
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch a cluster without being seen by it: who is there, who left and why
    #[command(after_help = NOTES)]
    Watch(Watch),
}

#[derive(clap::Args)]
struct Watch {
    /// How to reach the database in which the cluster meets
    #[arg(
        value_name = "CONNECTION",
        env = "DATABASE_URL",
        hide_env_values = true
    )]
    params: String,
    /// The Postgres channel on which it meets
    #[arg(long, value_name = "NAME", default_value = "cluster")]
    channel: String,
    /// Write a line of JSON for each event, as if standard output were no terminal
    #[arg(long)]
    json: bool,
    /// Say nothing at all, not even to ask who is there: for a channel of Elixir nodes, which take every message for the
    /// name of a node
    #[arg(long)]
    bare_name: bool,
    /// The heartbeat interval of nodes that announce only their name
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    bare_heartbeat: Duration,
    /// Verify the server by these certificates (PEM), not by this system's
    #[arg(long, value_name = "FILE")]
    root_cert: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Command::Watch(watch) = parse().command;
    match watch.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pg-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the program if the arguments are not valid. What clap says then quotes them, and may so show a password.
fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        let may_be_secret = |argument: OsString| {
            let argument = argument.to_string_lossy().to_ascii_lowercase();
            argument.contains("://") || argument.contains("pass")
        };
        if error.use_stderr() && std::env::args_os().any(may_be_secret) {
            eprintln!(
                "error: {}: not shown, since it may show a password\n\n\
                 Usage: pg-peers watch [OPTIONS] 'CONNECTION'\n\n\
                 A connection string is one argument: put it in quotes. For more information, try '--help'.",
                error.kind()
            );
            std::process::exit(error.exit_code());
        }
        if error.kind() == ErrorKind::MissingRequiredArgument {
            let _ = error.print();
            eprintln!("\nThe connection string can also be in the environment, as DATABASE_URL.");
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}

impl Watch {
    fn run(self) -> Result<(), Box<dyn Error>> {
        // An observer has no goodbye to say: whoever quits need not wait for a server that may not answer.
        let cluster = ManuallyDrop::new(self.join()?);
        if self.json || !io::stdout().is_terminal() {
            return json::write_events(&cluster);
        }
        let place = self.place();
        terminal::show(&cluster, &place)
    }

    fn join(&self) -> Result<Cluster, Box<dyn Error>> {
        let mut config = Config::observer()
            .channel(&self.channel)
            .bare_name(self.bare_name)
            .bare_heartbeat_interval(self.bare_heartbeat);
        if let Some(secret) = std::env::var_os(SECRET) {
            config = config.secret(secret.as_encoded_bytes());
        }
        let Ok(params) = self.params.parse::<postgres::Config>() else {
            // Which says why it cannot.
            return Ok(config.join(&self.params)?);
        };
        match (params.get_ssl_mode(), &self.root_cert) {
            (SslMode::Require, file) => {
                let tls = ClientConfig::builder()
                    .with_root_certificates(roots(file.as_deref())?)
                    .with_no_client_auth();
                Ok(config.join_tls(&self.params, MakeRustlsConnect::new(tls))?)
            }
            (_, None) => Ok(config.join(&self.params)?),
            (_, Some(_)) => {
                Err("--root-cert has no use without sslmode=require in CONNECTION".into())
            }
        }
    }

    /// The channel, and where it is.
    fn place(&self) -> String {
        let channel = &self.channel;
        let Ok(params) = self.params.parse::<postgres::Config>() else {
            return format!("channel {channel}");
        };
        let ports = params.get_ports();
        let host = |(i, host): (usize, &Host)| match (host, ports.get(i).or_else(|| ports.first()))
        {
            (Host::Tcp(name), Some(port)) => format!("{name}:{port}"),
            (Host::Tcp(name), None) => name.clone(),
            (Host::Unix(directory), _) => directory.display().to_string(),
        };
        let names = params.get_hosts().iter().enumerate().map(host);
        let addresses = params.get_hostaddrs().iter().map(ToString::to_string);
        // The addresses, where there are some, are those of the names.
        let hosts: Vec<String> = match params.get_hosts() {
            [] => addresses.collect(),
            _ => names.collect(),
        };
        let hosts = hosts.join(",");
        let database = params.get_dbname().or_else(|| params.get_user());
        match database {
            Some(database) => format!("channel {channel} in {database} at {hosts}"),
            None => format!("channel {channel} at {hosts}"),
        }
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Box<dyn Error>> {
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

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|e| format!("{e}"))
}
