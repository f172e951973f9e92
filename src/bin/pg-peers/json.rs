//! For scripts: one line of JSON for each event.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use pg_peers::crossbeam_channel::{Receiver, after, bounded, never, select};
use pg_peers::{Cluster, Reason};
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::connection::Failure;
use crate::model::{ALONE, Advice};
use crate::news::{Member, News};
use crate::screen::advice_words;
use crate::text::is_plain;

/// The fields that an event has are always there; `src/guide/program.md` describes them.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<PeerFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
pub(crate) struct PeerFields<'a> {
    name: &'a str,
    incarnation: Option<u64>,
    /// The incarnation as a time, if it is one.
    started: Option<String>,
    tags: BTreeMap<&'a str, &'a str>,
}

/// Writes events until nobody reads them any more. Signals do what they do to every program: there is nothing to clean up.
pub(crate) fn write_events(cluster: &Cluster) -> Result<(), Failure> {
    let unread = readers_left();
    let mut alone = after(ALONE);
    loop {
        let event = select! {
            recv(cluster.events()) -> event => event?,
            recv(unread) -> _ => return Ok(()),
            recv(alone) -> _ => {
                advise(cluster);
                alone = never();
                continue;
            }
        };
        let Some(news) = News::of(&event) else {
            continue;
        };
        let line = line(Timestamp::now(), &news)?;
        let mut output = io::stdout().lock();
        if !unless_unread(output.write_all(&line).and_then(|()| output.flush()))? {
            return Ok(());
        }
    }
}

/// Says on standard error that nobody is there: a script reads events, and there are none.
fn advise(cluster: &Cluster) {
    let status = cluster.status();
    if status.online && status.peers == 0 && io::stderr().is_terminal() {
        eprintln!("pg-peers: {}", advice_words(Advice::NobodyIsHere));
    }
}

/// Disconnected when nobody can read standard output any more: a write would tell, but the next may come in hours.
fn readers_left() -> Receiver<()> {
    let (watched, unread) = bounded(0);
    thread::spawn(move || {
        let _watched = watched;
        let stdout = io::stdout();
        let mut output = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut output, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return,
                // It cannot be watched, so writes must tell.
                Err(_) => thread::park(),
            }
        }
    });
    unread
}

fn line(time: Timestamp, news: &News) -> serde_json::Result<Vec<u8>> {
    let (event, peer, reason, error) = match news {
        News::Join(member) => ("join", Some(member), None, None),
        News::Heal(member) => ("heal", Some(member), None, None),
        News::Update(member) => ("update", Some(member), None, None),
        News::Leave(member, reason) => ("leave", Some(member), Some(reason_word(*reason)), None),
        News::Online => ("online", None, None, None),
        News::Offline(error) => ("offline", None, None, Some(&**error)),
    };
    let line = Line {
        time: format!("{time:.3}"),
        event,
        peer: peer.map(PeerFields::of),
        reason,
        error,
    };
    to_line(&line)
}

/// A value on one line, of which nothing acts on a terminal.
pub(crate) fn to_line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Plain))?;
    text.push(b'\n');
    Ok(text)
}

/// Whether somebody still reads what was written: if not, that is no error.
pub(crate) fn unless_unread(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// Milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::Goodbye => "goodbye",
        Reason::Expired => "expired",
        Reason::SessionGone => "session_gone",
        Reason::Replaced => "replaced",
        _ => "unknown",
    }
}

impl<'a> PeerFields<'a> {
    pub(crate) fn of(member: &'a Member) -> Self {
        let incarnation = member.identity.incarnation;
        let started = incarnation.and_then(|micros| {
            let time = Timestamp::from_microsecond(micros.try_into().ok()?).ok()?;
            Some(format!("{time:.6}"))
        });
        let tags = member.tags.iter();
        Self {
            name: &member.identity.name,
            incarnation,
            started,
            tags: tags.map(|(k, v)| (&**k, &**v)).collect(),
        }
    }
}

/// JSON on one line, in which whatever could act on a terminal is escaped: it is read there, too.
struct Plain;

impl Formatter for Plain {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for c in fragment.chars() {
            if is_plain(c) {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::news::Identity;

    fn text(news: &News) -> String {
        let time = Timestamp::from_millisecond(1_800_000_000_123).expect("a time");
        String::from_utf8(line(time, news).expect("a line")).expect("text")
    }

    fn parsed(news: &News) -> Value {
        serde_json::from_str(&text(news)).expect("JSON")
    }

    fn member(name: &str, incarnation: Option<u64>, tags: &[(&str, &str)]) -> Member {
        let tags = tags.iter();
        Member {
            identity: Identity {
                name: name.to_owned(),
                incarnation,
            },
            tags: tags
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn an_event_of_a_peer_has_all_fields_of_a_peer() {
        let peer = member("a", Some(1_800_000_000_000_001), &[("zone", "eu-1")]);
        assert_eq!(
            text(&News::Leave(peer, Reason::SessionGone)),
            "{\"time\":\"2027-01-15T08:00:00.123Z\",\"event\":\"leave\",\"peer\":{\"name\":\"a\",\
             \"incarnation\":1800000000000001,\"started\":\"2027-01-15T08:00:00.000001Z\",\
             \"tags\":{\"zone\":\"eu-1\"}},\"reason\":\"session_gone\"}\n"
        );
        let bare = parsed(&News::Join(member("app@10.0.0.1", None, &[])));
        let peer =
            json!({"name": "app@10.0.0.1", "incarnation": null, "started": null, "tags": {}});
        assert_eq!(bare["peer"], peer);
        assert_eq!(bare.get("reason"), None);
    }

    #[test]
    fn an_event_of_the_link_has_no_peer() {
        let offline = parsed(&News::Offline("cannot connect".to_owned()));
        assert_eq!(offline["event"], "offline");
        assert_eq!(offline["error"], "cannot connect");
        assert_eq!(offline.get("peer"), None);
    }

    #[test]
    fn an_incarnation_past_all_calendars_is_no_time() {
        let peer = parsed(&News::Join(member("a", Some(u64::MAX), &[])));
        assert_eq!(peer["peer"]["incarnation"], u64::MAX);
        assert_eq!(peer["peer"]["started"], Value::Null);
    }

    #[test]
    fn a_line_acts_on_no_terminal_and_is_read_again() {
        let hostile = "große \"Straße\" \\ \u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{200b}\u{e0061}\n";
        let offline = News::Offline(hostile.to_owned());
        let text = text(&offline);
        assert_eq!(parsed(&offline)["error"], hostile);
        let line = text.strip_suffix('\n').expect("a line");
        assert!(line.chars().all(is_plain), "{line:?}");
        assert!(line.contains("große"), "{line}");
    }
}
