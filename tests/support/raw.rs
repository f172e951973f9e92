//! A bare session on the channel: what a stranger, or an Elixir node, sees and says there.

use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use pg_peers::postgres::Client;

use super::{PATIENCE, Server};

pub struct Raw {
    client: Client,
    channel: String,
}

impl Raw {
    pub fn listen(server: &Server, channel: &str) -> Self {
        let mut client = server.client();
        let channel = format!("\"{}\"", channel.replace('"', "\"\""));
        client
            .batch_execute(&format!("LISTEN {channel}"))
            .expect("LISTEN");
        Self { client, channel }
    }

    pub fn say(&mut self, payload: &str) {
        let payload = payload.replace('\'', "''");
        self.client
            .batch_execute(&format!("NOTIFY {}, '{payload}'", self.channel))
            .expect("NOTIFY");
    }

    /// The next payload of which this is a part.
    #[track_caller]
    pub fn hear(&mut self, part: &str) -> String {
        hear_part(part, |wait| {
            let heard = self.client.notifications().timeout_iter(wait).next();
            let heard = heard.expect("a session");
            heard.map(|heard| heard.payload().to_owned())
        })
    }
}

/// The next payload of which this is a part; `next` waits that long for one.
#[track_caller]
pub fn hear_part(part: &str, mut next: impl FnMut(Duration) -> Option<String>) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wait = deadline.saturating_duration_since(Instant::now());
        assert!(!wait.is_zero(), "nobody said {part:?}");
        match next(wait) {
            Some(payload) if payload.contains(part) => return payload,
            _ => {}
        }
    }
}
