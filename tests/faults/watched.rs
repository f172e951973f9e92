//! A server whose sessions are counted all the time: whatever is done to it, no member has more than three.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pg_peers::postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::support::{self, Network, WATCH};

/// The most sessions of a participant, those that hang included.
const MOST: i64 = 3;

/// How often they are counted.
const PAUSE: Duration = Duration::from_millis(20);

/// Sessions that a participant has at the server, by the name that it shows to operators. Observers share theirs.
const COUNT: &str = "SELECT application_name, count(*) FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name NOT IN ('', 'pg_peers observer') \
    GROUP BY application_name";

/// A server, which fails the test at its end if a member had more sessions than it may.
pub(crate) struct Server {
    server: support::Server,
    watch: Watch,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(settings: &[&str]) -> Self {
        Self::watch(support::Server::start_with(settings))
    }

    pub(crate) fn start_on(network: &Network) -> Self {
        Self::watch(support::Server::start_on(network))
    }

    pub(crate) fn standby(&self) -> Self {
        Self::watch(self.server.standby())
    }

    pub(crate) fn watch(server: support::Server) -> Self {
        let watch = Watch::start(format!(
            "{} application_name={WATCH}",
            server.socket_params()
        ));
        Self { server, watch }
    }
}

impl Deref for Server {
    type Target = support::Server;

    fn deref(&self) -> &support::Server {
        &self.server
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut support::Server {
        &mut self.server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Lest the count waits for an answer.
        self.server.thaw();
        let most = self.watch.stop();
        if !thread::panicking() {
            assert!(most.values().all(|count| *count <= MOST), "{most:?}");
        }
    }
}

/// How many sessions each has, by its name.
type Counts = BTreeMap<String, i64>;

/// Counts until it is stopped.
struct Watch {
    over: Arc<AtomicBool>,
    /// How often it has counted.
    looks: Arc<AtomicU32>,
    /// The most that each ever had.
    most: Arc<Mutex<Counts>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(params: String) -> Self {
        let over = Arc::<AtomicBool>::default();
        let looks = Arc::<AtomicU32>::default();
        let most = Arc::<Mutex<Counts>>::default();
        let (ends, looked, noted) = (Arc::clone(&over), Arc::clone(&looks), Arc::clone(&most));
        // Opened here, so that a later count of descriptors includes its own.
        let mut client = Some(Client::connect(&params, NoTls).expect("a session"));
        let thread = thread::spawn(move || {
            let mut before = Counts::new();
            loop {
                // A server that is stopped or full does not answer.
                if client.is_none() {
                    client = Client::connect(&params, NoTls).ok();
                }
                match client.as_mut().map(|client| client.simple_query(COUNT)) {
                    Some(Ok(rows)) => {
                        let now = counts(&rows);
                        note(&before, &now, &mut noted.lock().expect("no panic"));
                        before = now;
                        looked.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Err(_)) => client = None,
                    None => {}
                }
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(PAUSE);
            }
        });
        Self {
            over,
            looks,
            most,
            thread: Some(thread),
        }
    }

    /// The most sessions that each had.
    fn stop(&mut self) -> Counts {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().map(JoinHandle::join);
        let counted = thread.is_some_and(|ended| ended.is_ok());
        let counted = counted && self.looks.load(Ordering::Relaxed) > 0;
        assert!(counted || thread::panicking(), "it counts to the end");
        std::mem::take(&mut self.most.lock().expect("no panic"))
    }
}

fn counts(rows: &[SimpleQueryMessage]) -> Counts {
    let rows = rows.iter().filter_map(|row| match row {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let count = |row: &SimpleQueryRow| {
        let name = row.get(0).expect("a name").to_owned();
        let count = row.get(1).and_then(|it| it.parse().ok());
        (name, count.expect("a count"))
    };
    rows.map(count).collect()
}

#[test]
fn a_session_too_many_is_seen() {
    let server = support::Server::start();
    let mut watch = Watch::start(server.socket_params());
    let params = format!("{} application_name=many", server.params());
    let session = |_| Client::connect(&params, NoTls).expect("a session");
    let sessions: Vec<Client> = (0..=MOST).map(session).collect();
    support::eventually("all are seen", || {
        let most = watch.most.lock().expect("no panic");
        most.get("many") == Some(&(MOST + 1))
    });
    drop(sessions);
    watch.stop();
}

/// A session may be there for a moment longer than its client, so that counts which is seen twice.
fn note(before: &Counts, now: &Counts, most: &mut Counts) {
    for (name, count) in now {
        let lasting = *count.min(before.get(name).unwrap_or(&0));
        let seen = most.entry(name.clone()).or_default();
        *seen = lasting.max(*seen);
    }
}
