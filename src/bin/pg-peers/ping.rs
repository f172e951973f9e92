//! `pg-peers ping`: how long a notification takes.

use std::io::{self, Write};
use std::process::{self, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use pg_peers::crossbeam_channel::{Receiver, Sender, at, select, unbounded};
use pg_peers::postgres::Client;
use serde::Serialize;

use crate::connection::{Arguments, Connection, Failure, describe, notify, private_channel};
use crate::json::{self, millis};
use crate::latency::{Latencies, milliseconds};
use crate::roster::seconds;
use crate::sql::{self, Limits};
use crate::terminal::signals;
use crate::{Ended, NOTES, text};

/// Without its notification for so long a ping is lost.
const LOST: Duration = Duration::from_secs(5);

/// How long a session that listens waits before it looks whether anybody still listens to it.
const SLICE: Duration = Duration::from_millis(200);

const NAME: &str = "pg-peers ping";

const POOLER: &str = "a pooler in transaction mode passes no notifications on, and says nothing: connect to the server \
                      itself, or to a pooler in session mode";

const HELD_UP: &str = "NOTIFY did not end: another transaction that notifies holds it up, or the server stands still; pg-peers check \
                       says which";

const EXIT: &str = "\
Measures the time from just before NOTIFY in one session until this program has
received the notification in another, on the thread that waits for it, as members do.

With --json it writes a line for each: seq and ms (null if lost); and at the end sent,
heard, lost, p50_ms, p90_ms, p99_ms, max_ms.

Ends, also by Ctrl-C, with 0 if all that was sent was heard; with 1 if not, or on an
error; with 2 on arguments that are not valid.";

#[derive(clap::Args)]
#[command(after_help = format!("{NOTES}\n\n{EXIT}"))]
pub(crate) struct Ping {
    #[command(flatten)]
    connection: Arguments,
    /// End after COUNT pings; without it at Ctrl-C
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The time from one to the next
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// The channel to measure on; without it one that nobody else listens to. On the channel of a cluster its members are
    /// woken as well, and ignore what they hear; Elixir nodes do not, so leave theirs alone
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Write a line of JSON for each
    #[arg(long)]
    json: bool,
}

/// What was measured so far.
#[derive(Default)]
struct Tally {
    sent: u64,
    lost: u64,
    /// Those of them whose NOTIFY had not ended by then.
    held_up: u64,
    latencies: Latencies,
}

#[derive(Serialize)]
struct Line {
    seq: u64,
    ms: Option<f64>,
}

#[derive(Serialize)]
struct Totals {
    sent: u64,
    heard: usize,
    lost: u64,
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p99_ms: Option<f64>,
    max_ms: Option<f64>,
}

/// Two sessions, each on a thread that may hang.
struct Sessions {
    /// The payloads to send.
    say: Sender<String>,
    /// What was sent, and when it was about to be.
    said: Receiver<Result<(String, Instant), String>>,
    heard: Receiver<Result<String, String>>,
}

/// How one ping ended.
enum Outcome {
    Heard(Duration),
    /// It did not come.
    Lost,
    /// Postgres had not taken it by then.
    HeldUp,
    /// Somebody wants no more.
    Ended,
}

impl Ping {
    pub(crate) fn run(self) -> Ended {
        let connection = self.connection.resolve()?;
        let channel = self.channel.clone().unwrap_or_else(private_channel);
        let signals = signals()?;
        let sessions = Sessions::open(&connection, &channel)?;
        if !self.json {
            let place = text::plain(&format!("channel {channel} in {}", connection.place()));
            self.write(&format!("PING {place}\n"))?;
        }
        let mut tally = Tally::default();
        let end = self.measure(&sessions, &signals, &mut tally);
        self.write_totals(&tally)?;
        end?;
        match tally.lost {
            0 => Ok(ExitCode::SUCCESS),
            _ if !tally.latencies.is_empty() => Ok(ExitCode::FAILURE),
            _ if tally.held_up > 0 => Err(HELD_UP.into()),
            _ => Err(format!("no notification was heard: {POOLER}").into()),
        }
    }

    /// Until there are enough, somebody ends it, or a session fails.
    fn measure(
        &self,
        sessions: &Sessions,
        signals: &Receiver<i32>,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let mut due = Instant::now();
        while self.count != Some(tally.sent) {
            let seq = tally.sent + 1;
            tally.sent = seq;
            match sessions.ping(seq, signals)? {
                Outcome::Heard(took) => {
                    tally.latencies.add(took);
                    if !self.write_line(seq, Ok(took))? {
                        return Ok(());
                    }
                }
                Outcome::Lost => {
                    tally.lost += 1;
                    self.write_line(seq, Err("lost: not heard"))?;
                }
                Outcome::HeldUp => {
                    tally.lost += 1;
                    tally.held_up += 1;
                    self.write_line(seq, Err("lost: NOTIFY has not ended"))?;
                }
                Outcome::Ended => {
                    // It was on its way.
                    tally.sent -= 1;
                    return Ok(());
                }
            }
            if self.count == Some(seq) {
                return Ok(());
            }
            due = (due + self.interval).max(Instant::now());
            if signals.recv_deadline(due).is_ok() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `took`, or what had not happened by the time that it is lost.
    fn write_line(&self, seq: u64, took: Result<Duration, &str>) -> Result<bool, Failure> {
        if self.json {
            let line = json::to_line(&Line {
                seq,
                ms: took.ok().map(millis),
            })?;
            return self.write(&String::from_utf8(line)?);
        }
        let line = match took {
            Ok(took) => format!("seq={seq} time={}\n", milliseconds(took)),
            Err(lost) => format!("seq={seq} {lost} within {}\n", text::span(LOST)),
        };
        self.write(&line)
    }

    fn write_totals(&self, tally: &Tally) -> Result<(), Failure> {
        let (sent, heard, lost) = (tally.sent, tally.latencies.count(), tally.lost);
        let summary = tally.latencies.summary();
        if self.json {
            let line = json::to_line(&Totals {
                sent,
                heard,
                lost,
                p50_ms: summary.map(|it| millis(it.p50)),
                p90_ms: summary.map(|it| millis(it.p90)),
                p99_ms: summary.map(|it| millis(it.p99)),
                max_ms: summary.map(|it| millis(it.max)),
            })?;
            return self.write(&String::from_utf8(line)?).map(drop);
        }
        let mut page = format!("\n{sent} sent, {heard} heard, {lost} lost\n");
        if let Some(summary) = summary {
            page.push_str(&format!("{}\n\n", summary.words()));
            page.push_str(&format!("{:>10}  {:>6}\n", "from", "count"));
            page.push_str(&tally.latencies.drawing());
        }
        self.write(&page).map(drop)
    }

    /// Whether somebody still reads it.
    fn write(&self, text: &str) -> Result<bool, Failure> {
        let mut output = io::stdout().lock();
        let written = output
            .write_all(text.as_bytes())
            .and_then(|()| output.flush());
        Ok(json::unless_unread(written)?)
    }
}

impl Sessions {
    fn open(connection: &Connection, channel: &str) -> Result<Self, Failure> {
        let mut listener = connection.open(NAME)?;
        let listening = listener.batch_execute(&sql::listen(channel));
        listening.map_err(|e| describe("cannot LISTEN", &e))?;
        let speaker = connection.open(NAME)?;
        let (heard_in, heard) = unbounded();
        thread::spawn(move || hear(listener, &heard_in));
        let (say, orders) = unbounded();
        let (said_in, said) = unbounded();
        let channel = channel.to_owned();
        thread::spawn(move || speak(speaker, &channel, &orders, &said_in));
        Ok(Self { say, said, heard })
    }

    fn ping(&self, seq: u64, signals: &Receiver<i32>) -> Result<Outcome, Failure> {
        let payload = format!("pg-peers ping {} {seq}", process::id());
        self.say
            .send(payload.clone())
            .map_err(|_| "the session that notifies has ended")?;
        let end = at(Instant::now() + LOST);
        let mut sent = None;
        let mut came = None;
        loop {
            if let (Some(sent), Some(came)) = (sent, came) {
                let came: Instant = came;
                return Ok(Outcome::Heard(came.saturating_duration_since(sent)));
            }
            select! {
                recv(self.heard) -> heard => {
                    let now = Instant::now();
                    // One that was lost may come late.
                    if heard?? == payload {
                        came = Some(now);
                    }
                }
                recv(self.said) -> said => {
                    let (said, at) = said??;
                    if said == payload {
                        sent = Some(at);
                    }
                }
                recv(signals) -> _ => return Ok(Outcome::Ended),
                recv(end) -> _ => return Ok(match sent {
                    Some(_) => Outcome::Lost,
                    None => Outcome::HeldUp,
                }),
            }
        }
    }
}

/// Passes on what a session hears until it ends, or nobody wants it any more.
fn hear(mut client: Client, heard: &Sender<Result<String, String>>) {
    loop {
        // An iterator's delay starts anew at every notification, so each wait has its own.
        let next = client.notifications().timeout_iter(SLICE).next();
        let message = match next {
            Ok(Some(notification)) => Ok(notification.payload().to_owned()),
            Ok(None) if client.is_closed() => Err("the session that listens was closed".to_owned()),
            Ok(None) => continue,
            Err(error) => Err(describe("the session that listens has ended", &error)),
        };
        let is_over = message.is_err();
        if heard.send(message).is_err() || is_over {
            return;
        }
    }
}

/// Notifies as ordered, and tells when it was about to.
fn speak(
    mut client: Client,
    channel: &str,
    orders: &Receiver<String>,
    said: &Sender<Result<(String, Instant), String>>,
) {
    for payload in orders {
        let now = Instant::now();
        let done = notify(&mut client, Limits::None, channel, &payload);
        let is_over = done.is_err();
        if said.send(done.map(|()| (payload, now))).is_err() || is_over {
            return;
        }
    }
}
