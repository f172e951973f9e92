//! The command line of pg-peers, for the people who run a cluster.

mod channels;
mod check;
mod connection;
mod conninfo;
mod deadline;
mod generate;
mod json;
mod latency;
mod libpq;
mod members;
mod model;
mod news;
mod ping;
// As the library quotes.
#[path = "../../link/quoting.rs"]
mod quoting;
mod roster;
mod screen;
mod sql;
mod statements;
mod table;
mod terminal;
mod text;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::connection::Failure;

const NOTES: &str = "\
CONNECTION is host=... user=... dbname=... or postgres://user@host/dbname. One with
a password is better in the environment: others on the machine can read arguments.
Without it DATABASE_URL is taken. What neither says is as psql has it: by PGSERVICE
(or service=) in the service file, by PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD,
PGSSLMODE, PGSSLROOTCERT and PGCONNECT_TIMEOUT, and a password by PGPASSFILE or
~/.pgpass. With sslmode=require the connection is encrypted, and the server's
certificate and name are verified; otherwise it is not encrypted.

PG_PEERS_SECRET in the environment is the secret of a cluster that signs what it
announces: with it only what is signed is shown.

pg-peers generate writes the man page, or a completion for your shell.";

/// Peer discovery over Postgres, from the operator's side
#[derive(Parser)]
#[command(version, subcommand_required = true, after_help = NOTES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch a cluster without being seen by it: who is there, who left and why
    Watch(watch::Watch),
    /// Show once who is there
    Members(members::Members),
    /// Find the channels that somebody listens to
    Channels(channels::Channels),
    /// Measure how long a notification takes from one session to another
    Ping(ping::Ping),
    /// Say what is wrong between this machine and the cluster, and what to do
    Check(check::Check),
    /// Write a shell completion or the man page to standard output
    #[command(hide = true)]
    Generate(generate::Generate),
}

fn main() -> ExitCode {
    let ended = match parse().command {
        Command::Watch(verb) => verb.run(),
        Command::Members(verb) => verb.run(),
        Command::Channels(verb) => verb.run(),
        Command::Ping(verb) => verb.run(),
        Command::Check(verb) => verb.run(),
        Command::Generate(verb) => verb.run::<Arguments>(),
    };
    ended.unwrap_or_else(|error| {
        // A part of it may be what a server says.
        eprintln!("pg-peers: {}", text::plain(&error.to_string()));
        ExitCode::FAILURE
    })
}

/// How a verb ends, where nothing is in its way.
type Ended = Result<ExitCode, Failure>;

/// Ends the program if the arguments are not valid. What clap says then quotes them, and may so show a password.
fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        let may_be_secret = |argument: OsString| {
            let argument = argument.to_string_lossy().to_ascii_lowercase();
            argument.contains("://") || argument.contains("pass")
        };
        let shows_arguments = error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        if error.use_stderr() && shows_arguments && std::env::args_os().any(may_be_secret) {
            eprintln!(
                "error: {}: not shown, since it may show a password\n\n\
                 Usage: pg-peers watch|members|channels|ping|check [OPTIONS] 'CONNECTION'\n\n\
                 A connection string is one argument: put it in quotes. For more information, try '--help'.",
                error.kind()
            );
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}
