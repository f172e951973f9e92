//! A hostile session: a role that may connect and nothing else, hears everything, and says what it likes.

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use pg_peers::Cluster;
use pg_peers::postgres::{Client, NoTls};

use super::raw::hear_part;
use super::{Server, backend_of, eventually, expect};

pub struct Intruder {
    client: Client,
    /// Everything that it heard from others, and on which channel.
    pub heard: Vec<(String, String)>,
    pid: i32,
}

impl Intruder {
    /// Listens on the channel `cluster`, and to every inbox of which it learns.
    pub fn enter(server: &Server) -> Self {
        server.run(
            "DO $$ BEGIN CREATE ROLE mallory LOGIN; EXCEPTION WHEN duplicate_object THEN END $$",
        );
        let params = format!(
            "host=127.0.0.1 port={} user=mallory dbname=postgres",
            server.port()
        );
        let mut client = Client::connect(&params, NoTls).expect("a session");
        client.batch_execute("LISTEN cluster").expect("LISTEN");
        let row = client.query_one("SELECT pg_backend_pid()", &[]);
        let pid = row.expect("a pid").get(0);
        let heard = Vec::new();
        Self { client, heard, pid }
    }

    /// Its backend.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn say(&mut self, payload: &str) {
        self.say_to("cluster", payload);
    }

    pub fn say_to(&mut self, channel: &str, payload: &str) {
        self.say_all(&[(channel, payload)]);
    }

    /// Says all that at once, each once.
    pub fn say_all<T: AsRef<str>, U: AsRef<str>>(&mut self, said: &[(T, U)]) {
        let statements = said.iter().map(|(channel, payload)| {
            let payload = payload.as_ref().replace('\'', "''");
            format!("NOTIFY \"{}\", '{payload}'", channel.as_ref())
        });
        let statements = statements.collect::<Vec<_>>().join("; ");
        self.client.batch_execute(&statements).expect("NOTIFY");
    }

    /// Waits until it hears a payload of which this is a part.
    #[track_caller]
    pub fn hear(&mut self, part: &str) -> String {
        hear_part(part, |wait| self.hear_one(wait))
    }

    /// Makes a member ask who is there, until it hears the answer, too: to the inbox that was named in the first hello.
    #[track_caller]
    pub fn hear_an_answer(&mut self, server: &Server, to: &Cluster) {
        let name = to.name().expect("a member");
        eventually("an answer is overheard", || {
            let backend = backend_of(server, name);
            server.run(&format!("SELECT pg_terminate_backend({backend})"));
            expect(to, "offline");
            expect(to, "online");
            while self.hear_one(Duration::from_millis(20)).is_some() {}
            self.heard.iter().any(|(_, said)| said.contains(" roster "))
        });
    }

    /// Hears one payload of another's, and listens to the inbox that it names.
    fn hear_one(&mut self, wait: Duration) -> Option<String> {
        let heard = self.client.notifications().timeout_iter(wait).next();
        let heard = heard.expect("a session")?;
        let payload = heard.payload().to_owned();
        if heard.process_id() != self.pid {
            if let Some(inbox) = inbox(&payload) {
                let listen = format!("LISTEN \"{inbox}\"");
                self.client.batch_execute(&listen).expect("LISTEN");
            }
            let channel = heard.channel().to_owned();
            self.heard.push((channel, payload.clone()));
        }
        Some(payload)
    }

    /// Says again what it heard, where it heard it.
    pub fn replay(&mut self) {
        let heard = self.heard.clone();
        self.say_all(&heard);
    }
}

/// The inbox that a payload names, as a channel.
pub fn inbox(payload: &str) -> Option<String> {
    let (_, rest) = payload.split_once(" inbox=")?;
    let number = rest.split([' ', ';']).next()?;
    Some(format!("pg_peers_{number}"))
}
