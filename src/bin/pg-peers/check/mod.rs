//! `pg-peers check`: what is wrong between this machine and the cluster, and what to do.
//!
//! Each check is a function that asks and returns findings; [`judge`] decides by numbers, without a server.

mod finding;
mod judge;
mod notifications;
mod reach;
mod server;
mod subject;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use pg_peers::crossbeam_channel::{RecvTimeoutError, Sender, unbounded};

use self::finding::{Finding, Level};
use self::subject::Subject;
use crate::connection::{Arguments, Failure};
use crate::roster::Meeting;
use crate::{Ended, NOTES, json};

/// The longest that one check takes: each of its calls has a limit, and this is more than all, with dozens of addresses that do not
/// answer.
const LONGEST: Duration = Duration::from_secs(300);

const EXIT: &str = "\
It opens sessions as a member does, listens, notifies on a channel that nobody else
knows, asks on --channel who is there, and listens there until nodes that say only their
name have said it (--bare-heartbeat, and two seconds). It changes nothing.

With --json it writes a line for each finding: check, level (ok, warning or failure),
text and advice (null if there is nothing to do).

Ends with 0 if nothing failed, also with warnings; with 1 if something failed; with 2 on
arguments that are not valid.";

#[derive(clap::Args)]
#[command(after_help = format!("{NOTES}\n\n{EXIT}"))]
pub(crate) struct Check {
    #[command(flatten)]
    connection: Arguments,
    #[command(flatten)]
    meeting: Meeting,
    /// Write a line of JSON for each finding
    #[arg(long)]
    json: bool,
}

type Findings = Result<Vec<Finding>, Failure>;

/// What is looked at, in this order. Nothing after the login can be looked at without it.
type Checks = [(&'static str, fn(&mut Subject) -> Findings)];

const CHECKS: &Checks = &[
    ("address", reach::addresses),
    ("login", reach::login),
    ("server", server::version),
    ("tls", server::encryption),
    ("pooler", notifications::pooler),
    ("notify", notifications::round_trips),
    ("encoding", server::encoding),
    ("rights", server::rights),
    ("places", server::places),
    ("queue", server::queue),
    ("lock", server::notify_lock),
    ("clock", server::clock),
    ("settings", server::settings),
    ("members", server::members),
];

/// What to do where a check could not be made.
fn advice(check: &str) -> &'static str {
    match check {
        "notify" => {
            "see server and lock: a standby takes no LISTEN, and a transaction that notifies can hold up all others"
        }
        "rights" | "members" => "see what failed before: a member would fail likewise",
        _ => "run this again; if it stays, the server's log tells more",
    }
}

impl Check {
    pub(crate) fn run(self) -> Ended {
        let connection = self.connection.resolve()?;
        let subject = Subject::new(connection, self.meeting.clone());
        let (sender, findings) = unbounded();
        thread::spawn(move || look(subject, &sender));
        let mut worst = Level::Ok;
        for (next, _) in CHECKS {
            let (check, found) = match findings.recv_timeout(LONGEST) {
                Ok(found) => found,
                // Without a session it ends early.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.write(next, &hung())?;
                    return Ok(ExitCode::FAILURE);
                }
            };
            for finding in &found {
                worst = worst.max(finding.level);
                if !self.write(check, finding)? {
                    return Ok(worst.exit_code());
                }
            }
        }
        Ok(worst.exit_code())
    }

    /// Whether somebody still reads it.
    fn write(&self, check: &str, finding: &Finding) -> Result<bool, Failure> {
        let text = match self.json {
            true => json::to_line(&finding.line(check))?,
            false => finding.page(check).into_bytes(),
        };
        let mut output = io::stdout().lock();
        Ok(json::unless_unread(
            output.write_all(&text).and_then(|()| output.flush()),
        )?)
    }
}

fn hung() -> Finding {
    Finding::failure(
        format!("no answer within {LONGEST:?}: the server hangs"),
        "see whether it is stopped, or has no more memory or disk",
    )
}

/// Makes one check after the other, and tells what each found.
fn look(mut subject: Subject, findings: &Sender<(&'static str, Vec<Finding>)>) {
    for (name, check) in CHECKS {
        let found =
            check(&mut subject).unwrap_or_else(|error| vec![Finding::failure(error, advice(name))]);
        if findings.send((name, found)).is_err() {
            return;
        }
        // Not before the sessions of the checks so far were given back.
        if *name == "notify" {
            subject.listen();
        }
        // Why there is no session was said, and all that follows needs one.
        if *name == "login" && !subject.is_connected() {
            return;
        }
    }
}
