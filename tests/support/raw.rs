//! A bare session on the channel: what a stranger, or an Elixir node, sees and says there.

use std::time::Instant;

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
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            assert!(!wait.is_zero(), "nobody said {part:?}");
            let heard = self.client.notifications().timeout_iter(wait).next();
            match heard.expect("a session") {
                Some(heard) if heard.payload().contains(part) => return heard.payload().to_owned(),
                _ => {}
            }
        }
    }
}
