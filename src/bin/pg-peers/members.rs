//! `pg-peers members`: who is there, once.

use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::process::ExitCode;
use std::time::Instant;

use jiff::Zoned;
use pg_peers::PeerInfo;
use serde::Serialize;

use crate::connection::Arguments;
use crate::json::{self, PeerFields, millis};
use crate::model::{Advice, Model, Now, Seen};
use crate::news::{Member, News};
use crate::roster::{self, Filter, Found, Meeting};
use crate::screen::advice_words;
use crate::table::table;
use crate::{Ended, NOTES, text};

const EXIT: &str = "\
With --json it writes a line for each member: name, incarnation, started, tags,
heard_ms (how long ago), interval_ms, back_ms (by when it would be back if its session
ended) and backend.

Ends with 0 if the question was answered, also by nobody; with 1 on an error; with 2
on arguments that are not valid.";

#[derive(clap::Args)]
#[command(after_help = format!("{NOTES}\n\n{EXIT}"))]
pub(crate) struct Members {
    #[command(flatten)]
    connection: Arguments,
    #[command(flatten)]
    meeting: Meeting,
    /// Only members with this tag; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = roster::pair)]
    tags: Vec<(String, String)>,
    /// Write a line of JSON for each member
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    peer: PeerFields<'a>,
    heard_ms: f64,
    interval_ms: f64,
    back_ms: Option<f64>,
    backend: Option<i32>,
}

impl Members {
    pub(crate) fn run(self) -> Ended {
        let connection = self.connection.resolve()?;
        let cluster = ManuallyDrop::new(connection.join(self.meeting.observer())?);
        let mut found = roster::ask(&cluster, self.meeting.listening())?;
        let there = found.infos.len();
        let filter = Filter::new(&self.tags);
        found.infos.retain(|info| filter.fits(info));
        let text = match self.json {
            true => lines(&found.infos)?,
            false => self.page(&found, there, &connection.place()).into_bytes(),
        };
        let mut output = io::stdout().lock();
        json::unless_unread(output.write_all(&text).and_then(|()| output.flush()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn page(&self, found: &Found, there: usize, place: &str) -> String {
        let channel = &self.meeting.channel;
        let place = text::plain(&format!("channel {channel} in {place}"));
        if there == 0 {
            return format!(
                "nobody on {place} (waited {})\nrun pg-peers channels to see where somebody is{}\n",
                text::span(found.took),
                match self.meeting.bare_name {
                    true => "",
                    false => "; nodes that say only their name take --bare-name",
                }
            );
        }
        let shown = found.infos.len();
        let count = match self.tags.is_empty() {
            true => format!("{shown} on {place}"),
            false => format!("{shown} of {there} on {place}"),
        };
        let table = rows(&found.infos);
        let mut page = format!("{table}{count}, asked for {}\n", text::span(found.took));
        let is_bare = |info: &PeerInfo| info.peer.incarnation().is_none();
        if !self.meeting.bare_name && found.infos.iter().any(is_bare) {
            page.push_str(advice_words(Advice::BareNamesAreHere));
            page.push('\n');
        }
        page
    }
}

fn rows(infos: &[PeerInfo]) -> String {
    let now = Now {
        instant: Instant::now(),
        wall: Zoned::now(),
    };
    let mut model = Model::new(&now);
    for info in infos {
        model.hear(&now, News::Join(Member::of(&info.peer)));
    }
    model.see(&now, infos.iter().map(Seen::of));
    let rows: Vec<[String; 7]> = model
        .rows(&now)
        .map(|cells| {
            let name = cells.name.to_owned();
            let tags = cells.tags.to_owned();
            let started = match cells.bare {
                true => "bare name".to_owned(),
                false => cells.started,
            };
            [
                name,
                cells.heard,
                cells.interval,
                cells.back,
                started,
                cells.backend,
                tags,
            ]
        })
        .collect();
    let titles = [
        "NAME", "HEARD", "EVERY", "BACK", "STARTED", "BACKEND", "TAGS",
    ];
    table(titles, &rows)
}

fn lines(infos: &[PeerInfo]) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    for info in infos {
        let member = Member::of(&info.peer);
        let line = Line {
            peer: PeerFields::of(&member),
            heard_ms: millis(info.heard.elapsed()),
            interval_ms: millis(info.interval),
            back_ms: info.back.map(millis),
            backend: info.backend,
        };
        text.extend(json::to_line(&line)?);
    }
    Ok(text)
}
