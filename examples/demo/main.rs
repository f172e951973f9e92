//! The main job, from beginning to end: processes that know nothing but a Postgres form a TCP mesh, and keep it through
//! a crash, a restart, a freeze, a cut connection, a goodbye and a restart of Postgres.
//!
//! ```text
//! cargo run --example demo
//! ```
//!
//! Starts a private PostgreSQL that is gone afterwards, or uses the one at `DATABASE_URL` (whose sessions it then ends
//! instead of restarting it). Prints one timeline of what every process sees, and checks it: the last line starts with
//! `ok:` and the exit status is 0 only if every process saw just what it should have.
//!
//! `-- --svg FILE` also draws the run; `examples/demo.svg` is such a picture.

mod picture;
#[path = "../../tests/support/rig/mod.rs"]
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use pg_peers::crossbeam_channel::{Receiver, Sender, select, unbounded};
use pg_peers::{Cluster, Config, Event, Peer};
use postgres::{Client, NoTls};
use rustix::process::Signal;

use picture::Picture;
use rig::{Server, Stop, Subprocess, lines_of};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Short, so that a person can watch an expiry, and long enough that a session is known to be gone before that.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long PostgreSQL is down: longer than three heartbeats, after which a silent peer expires.
const OUTAGE: Duration = Duration::from_secs(4);

/// The pause before each step of a run that is drawn, and at its end, so that nothing lies on anything else in the picture.
const BETWEEN_STEPS: Duration = Duration::from_millis(300);

/// The longest that the events of one step may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// In the environment of a member's process: its name.
const MEMBER: &str = "PG_PEERS_DEMO_MEMBER";
const CHANNEL: &str = "PG_PEERS_DEMO_CHANNEL";
const DATABASE: &str = "DATABASE_URL";

fn main() -> ExitCode {
    let outcome = match std::env::var(MEMBER) {
        Ok(name) => member(&name),
        Err(_) => Demo::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A member: what a program that uses pg-peers does.

/// A program that keeps a TCP connection to every peer. Obeys `cut NAME` and `leave` on standard input, and reports on
/// standard output what the demo shows.
fn member(name: &str) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let cluster = Config::new(name)
        .channel(std::env::var(CHANNEL)?)
        .tag("address", listener.local_addr()?.to_string())
        .heartbeat_interval(HEARTBEAT)
        .join(&std::env::var(DATABASE)?)?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || BufReader::new(connection).lines().count());
        }
    });
    let orders = lines_of(std::io::stdin());
    let (report, broken) = unbounded();
    let mut mesh = Mesh {
        name,
        connections: BTreeMap::new(),
        report,
    };
    loop {
        select! {
            recv(cluster.events()) -> event => mesh.follow(&event?, &cluster),
            recv(broken) -> peer => mesh.forget(&peer?, &cluster),
            recv(orders) -> order => match order.as_deref() {
                Ok("leave") => break,
                Ok(order) => mesh.cut(order.trim_start_matches("cut ")),
                // The demo is gone.
                Err(_) => return Ok(()),
            },
        }
    }
    cluster.leave()?;
    Ok(())
}

/// The connections that this member opened, one to each peer.
struct Mesh<'a> {
    name: &'a str,
    connections: BTreeMap<String, TcpStream>,
    /// Where the threads that read from connections report those that broke.
    report: Sender<Broken>,
}

/// A connection that ended, known by its local address: by now there may be a new one to the same peer.
struct Broken {
    peer: String,
    local: Option<std::net::SocketAddr>,
}

impl Mesh<'_> {
    fn follow(&mut self, event: &Event, cluster: &Cluster) {
        match event {
            Event::Join(peer) => {
                say("event", &format!("join {}", peer.name()));
                self.dial(peer, cluster);
            }
            Event::Heal(peer) => {
                say("event", &format!("heal {}", peer.name()));
                self.dial(peer, cluster);
            }
            Event::Leave(peer, why) => {
                say("event", &format!("leave {}: {why}", peer.name()));
                self.hang_up(peer.name());
            }
            Event::Online => say("event", "online"),
            Event::Offline(reason) => say("event", &format!("offline\t{reason}")),
            other => say("event", &format!("{other:?}")),
        }
    }

    fn dial(&mut self, peer: &Peer, cluster: &Cluster) {
        if self.connections.contains_key(peer.name()) {
            return;
        }
        match self.connect(peer) {
            Ok(connection) => {
                self.connections.insert(peer.name().to_owned(), connection);
                say("connected", peer.name());
            }
            Err(error) => {
                say("note", &format!("cannot dial {}: {error}", peer.name()));
                // Its next announcement is the occasion to try again.
                cluster.report_unreachable(peer);
            }
        }
    }

    fn connect(&self, peer: &Peer) -> Outcome<TcpStream> {
        let mut connection = TcpStream::connect(peer.tag("address").ok_or("it has no address")?)?;
        writeln!(connection, "I am {}", self.name)?;
        let reader = connection.try_clone()?;
        let broken = Broken {
            peer: peer.name().to_owned(),
            local: connection.local_addr().ok(),
        };
        let report = self.report.clone();
        thread::spawn(move || {
            BufReader::new(reader).lines().map_while(Result::ok).count();
            let _ = report.send(broken);
        });
        Ok(connection)
    }

    /// A connection ended. If it was not this member that hung up, the peer may still be there.
    fn forget(&mut self, broken: &Broken, cluster: &Cluster) {
        let current = self.connections.get(&broken.peer);
        if current.is_some_and(|connection| connection.local_addr().ok() == broken.local) {
            self.connections.remove(&broken.peer);
            say("broken", &broken.peer);
            if let Some(peer) = cluster.peer(&broken.peer) {
                cluster.report_unreachable(&peer);
            }
        }
    }

    fn hang_up(&mut self, peer: &str) {
        if let Some(connection) = self.connections.remove(peer) {
            let _ = connection.shutdown(Shutdown::Both);
            say("closed", peer);
        }
    }

    /// As a network would: without the member knowing.
    fn cut(&self, peer: &str) {
        if let Some(connection) = self.connections.get(peer) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn say(kind: &str, text: &str) {
    println!("{kind}\t{text}");
}

// ---------------------------------------------------------------------------------------------------------------------
// The demo: starts members, does things to them, shows and checks what they see.

struct Demo {
    database: Database,
    channel: String,
    start: Instant,
    members: BTreeMap<&'static str, Member>,
    reports: Receiver<Report>,
    report: Sender<Report>,
    /// How many events came where they were expected.
    seen: usize,
    picture: Picture,
    /// Whether somebody wants the picture.
    is_drawn: bool,
}

enum Database {
    Own(Server),
    Given(String),
}

struct Member {
    process: Subprocess,
    connected: BTreeSet<String>,
}

/// A line from a member's process: its kind, a tab, and a text, which may have details after another tab.
struct Report {
    /// Since the demo started.
    at: Duration,
    from: &'static str,
    kind: String,
    text: String,
}

impl Demo {
    fn run() -> Outcome<()> {
        let start = Instant::now();
        let file = match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
            [] => None,
            [option, file] if option == "--svg" => Some(file.clone()),
            _ => return Err("the only option is --svg FILE".into()),
        };
        let database = match std::env::var(DATABASE) {
            Ok(params) if !params.is_empty() => Database::Given(params),
            _ => {
                println!(
                    "Starting a private PostgreSQL (set DATABASE_URL to use one that runs) ..."
                );
                Database::Own(Server::try_start(&[])?)
            }
        };
        let (report, reports) = unbounded();
        let mut demo = Self {
            database,
            channel: format!("pg_peers_demo_{}", std::process::id()),
            start,
            members: BTreeMap::new(),
            reports,
            report,
            seen: 0,
            picture: Picture::default(),
            is_drawn: file.is_some(),
        };
        let outcome = demo.show();
        demo.pause();
        demo.members.clear();
        outcome?;
        if let Some(file) = file {
            std::fs::write(file, demo.picture.draw(start.elapsed()))?;
        }
        let (seen, seconds) = (demo.seen, start.elapsed().as_secs_f64());
        println!(
            "\nok: all {seen} events came where they were expected, and no others, in {seconds:.1} s"
        );
        Ok(())
    }

    fn show(&mut self) -> Outcome<()> {
        self.step("Four processes start. They know a Postgres and a channel, not each other.");
        for name in ["alice", "bob", "carol", "dave"] {
            self.start_member(name)?;
        }
        self.expect(&[
            "alice: online",
            "alice: join bob",
            "alice: join carol",
            "alice: join dave",
            "bob: online",
            "bob: join alice",
            "bob: join carol",
            "bob: join dave",
            "carol: online",
            "carol: join alice",
            "carol: join bob",
            "carol: join dave",
            "dave: online",
            "dave: join alice",
            "dave: join bob",
            "dave: join carol",
        ])?;

        self.step(
            "bob is killed with -9. He cannot say goodbye: Postgres tells that his session is gone.",
        );
        self.signal("bob", Signal::KILL)?;
        self.reap("bob")?;
        self.expect(&["alice: leave bob", "carol: leave bob", "dave: leave bob"])?;

        self.step("bob starts again: a new incarnation.");
        self.start_member("bob")?;
        self.expect(&[
            "alice: join bob",
            "carol: join bob",
            "dave: join bob",
            "bob: online",
            "bob: join alice",
            "bob: join carol",
            "bob: join dave",
        ])?;

        self.step("carol is frozen with SIGSTOP until she expires ...");
        self.signal("carol", Signal::STOP)?;
        self.expect_except(
            "carol",
            &[
                "alice: leave carol: was silent for too long",
                "bob: leave carol: was silent for too long",
                "dave: leave carol: was silent for too long",
            ],
        )?;

        self.step("... and thawed: the same carol, who dropped nobody meanwhile.");
        self.signal("carol", Signal::CONT)?;
        self.expect(&["alice: heal carol", "bob: heal carol", "dave: heal carol"])?;

        self.step("The connection from alice to dave is cut. alice reports it lost; dave's next heartbeat heals it.");
        self.order("alice", "cut dave")?;
        self.expect(&["alice: heal dave"])?;

        self.step("dave leaves with a goodbye.");
        self.order("dave", "leave")?;
        self.reap("dave")?;
        self.expect(&[
            "alice: leave dave: said goodbye",
            "bob: leave dave: said goodbye",
            "carol: leave dave: said goodbye",
        ])?;

        self.interrupt_postgres()?;

        self.step("A newcomer finds everybody, so the rosters survived.");
        self.start_member("erin")?;
        self.expect(&[
            "alice: join erin",
            "bob: join erin",
            "carol: join erin",
            "erin: online",
            "erin: join alice",
            "erin: join bob",
            "erin: join carol",
        ])
    }

    fn step(&mut self, text: &str) {
        println!("\n{text}");
        self.pause();
        self.picture.step(self.start.elapsed(), text);
    }

    fn pause(&self) {
        if self.is_drawn {
            thread::sleep(BETWEEN_STEPS);
        }
    }

    fn start_member(&mut self, name: &'static str) -> Outcome<()> {
        let params = match &self.database {
            Database::Own(server) => server.params(),
            Database::Given(params) => params.clone(),
        };
        let mut program = Command::new(std::env::current_exe()?);
        program
            .env(MEMBER, name)
            .env(CHANNEL, &self.channel)
            .env(DATABASE, params);
        let (report, start) = (self.report.clone(), self.start);
        let hear = move |line: Option<String>| {
            let Some(line) = line else {
                return;
            };
            let (kind, text) = line.split_once('\t').unwrap_or(("note", &line));
            let _ = report.send(Report {
                at: start.elapsed(),
                from: name,
                kind: kind.to_owned(),
                text: text.to_owned(),
            });
        };
        let member = Member {
            process: Subprocess::start(&mut program, hear)?,
            connected: BTreeSet::new(),
        };
        self.members.insert(name, member);
        self.picture.starts(start.elapsed(), name);
        Ok(())
    }

    fn order(&mut self, name: &str, order: &str) -> Outcome<()> {
        let member = self.members.get_mut(name).ok_or("no such member")?;
        Ok(member.process.order(order)?)
    }

    fn signal(&self, name: &str, signal: Signal) -> Outcome<()> {
        let member = self.members.get(name).ok_or("no such member")?;
        Ok(member.process.signal(signal)?)
    }

    /// Waits until a member's process has ended.
    fn reap(&mut self, name: &str) -> Outcome<()> {
        let mut member = self.members.remove(name).ok_or("no such member")?;
        member.process.reap(PATIENCE)?;
        self.picture.ends(self.start.elapsed(), name);
        Ok(())
    }

    fn interrupt_postgres(&mut self) -> Outcome<()> {
        let offline = ["alice: offline", "bob: offline", "carol: offline"];
        let online = ["alice: online", "bob: online", "carol: online"];
        self.step(match self.database {
            Database::Own(_) => {
                "PostgreSQL is stopped, for longer than an expiry takes, and started again. Nobody leaves."
            }
            Database::Given(_) => "All sessions with PostgreSQL are terminated. Nobody leaves.",
        });
        let stopped = self.start.elapsed();
        match &mut self.database {
            Database::Own(server) => {
                server.stop(Stop::Fast);
                self.expect(&offline)?;
                thread::sleep(OUTAGE);
            }
            Database::Given(params) => {
                let params = params.clone();
                let backends = self.backends(&params)?;
                Client::connect(&params, NoTls)?.execute(
                    "SELECT pg_terminate_backend(pid) FROM unnest($1::int4[]) pid",
                    &[&backends],
                )?;
                return self.expect(&[offline, online].concat());
            }
        }
        if let Database::Own(server) = &mut self.database {
            println!("PostgreSQL is started again.");
            server.start_again();
            self.picture.is_down(stopped, self.start.elapsed());
        }
        self.expect(&online)
    }

    /// The members' sessions, as an observer learns of them from their announcements.
    fn backends(&self, params: &str) -> Outcome<Vec<i32>> {
        let observer = Config::observer().channel(&self.channel).join(params)?;
        observer.wait_for_peers(self.members.len(), PATIENCE)?;
        let infos = observer.peer_infos().recv_timeout(PATIENCE)?;
        Ok(infos.iter().filter_map(|it| it.backend).collect())
    }

    /// Waits for just these events, or such as begin so, and for the mesh to be whole again.
    fn expect(&mut self, events: &[&str]) -> Outcome<()> {
        self.expect_except("", events)
    }

    /// The same, while one member is out of reach.
    fn expect_except(&mut self, frozen: &str, events: &[&str]) -> Outcome<()> {
        let mut missing: BTreeSet<&str> = events.iter().copied().collect();
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() || !self.mesh_is_whole(frozen) {
            let Ok(report) = self.reports.recv_deadline(deadline) else {
                return Err(self.shortfall(&missing, frozen).into());
            };
            Self::print(&report);
            let peers = self.members.get_mut(report.from).map(|m| &mut m.connected);
            match (report.kind.as_str(), peers) {
                ("event", _) => {
                    let (event, _) = report.text.split_once('\t').unwrap_or((&report.text, ""));
                    let event = format!("{}: {event}", report.from);
                    if let Some(expected) = missing.iter().copied().find(|it| event.starts_with(it))
                    {
                        missing.remove(expected);
                        self.seen += 1;
                        self.picture.event(report.at, report.from, &report.text);
                    } else if !self.is_last_sign_of_the_dead(&report.text) {
                        return Err(format!("unexpected: {event}").into());
                    }
                }
                ("connected", Some(peers)) => drop(peers.insert(report.text)),
                ("broken" | "closed", Some(peers)) => drop(peers.remove(&report.text)),
                _ => {}
            }
        }
        Ok(())
    }

    /// A killed member's connections break at once, and its peers report it lost. If its last heartbeat is still on its
    /// way then, it heals for a moment.
    fn is_last_sign_of_the_dead(&self, event: &str) -> bool {
        event
            .strip_prefix("heal ")
            .is_some_and(|name| !self.members.contains_key(name))
    }

    fn shortfall(&self, missing: &BTreeSet<&str>, frozen: &str) -> String {
        let mut text = format!("within {PATIENCE:?} did not come: {missing:?}");
        if !self.mesh_is_whole(frozen) {
            let mesh: Vec<_> = self
                .members
                .iter()
                .map(|(name, m)| (name, &m.connected))
                .collect();
            text += &format!("; the mesh is {mesh:?}");
        }
        text
    }

    /// Whether every member has a connection to every other.
    fn mesh_is_whole(&self, frozen: &str) -> bool {
        let reachable: BTreeSet<&str> = self
            .members
            .keys()
            .copied()
            .filter(|&name| name != frozen)
            .collect();
        reachable.iter().all(|name| {
            let mut connected = self.members[name]
                .connected
                .iter()
                .map(String::as_str)
                .collect::<BTreeSet<_>>();
            connected.insert(name);
            connected == reachable
        })
    }

    fn print(report: &Report) {
        let elapsed = report.at.as_millis();
        let text = match report.kind.as_str() {
            "event" => report.text.replace('\t', ": "),
            "connected" => format!("      tcp: connected to {}", report.text),
            "closed" => format!("      tcp: hung up on {}", report.text),
            "broken" => format!("      tcp: the connection to {} broke", report.text),
            _ => format!("      {}", report.text),
        };
        println!("{elapsed:7} ms  {:6} {text}", report.from);
    }
}
