//! The recipes in `examples/recipes`, and the demo, as processes of their own: each does what it claims.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Instant;

use gethostname::gethostname;
use pg_peers::Config;
use pg_peers::crossbeam_channel::Receiver;
use rustix::process::Signal;

use crate::support::*;

#[test]
fn a_shared_key_has_one_owner_and_moves_only_when_it_must() {
    let mut processes = Recipe::start_several("sharing", 3, server());
    let before = shares(&mut processes);

    let killed = processes.remove(0);
    let orphans = before[&killed.name()].clone();
    drop(killed);
    let after = shares(&mut processes);
    for (name, keys) in &after {
        let gained: BTreeSet<_> = keys - &before[name];
        assert!(before[name].is_subset(keys) && gained.is_subset(&orphans));
    }

    let newcomer = Recipe::start("sharing", server());
    let new = newcomer.name();
    processes.push(newcomer);
    let with_newcomer = shares(&mut processes);
    for (name, keys) in with_newcomer.iter().filter(|(name, _)| **name != new) {
        assert!(keys.is_subset(&after[name]));
    }
}

/// The keys of each, once each knows of all.
fn shares(processes: &mut [Recipe]) -> BTreeMap<String, BTreeSet<String>> {
    let count = processes.len();
    let among = format!("among {count}: ");
    let share = |process: &mut Recipe| {
        let line = process.last(" owns ")?;
        let (_, keys) = line.split_once(&among)?;
        let keys = keys.split_whitespace().map(str::to_owned);
        Some((process.name(), keys.collect()))
    };
    let mut shares: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    eventually("all know of all", || {
        shares = processes.iter_mut().filter_map(share).collect();
        shares.len() == count
    });
    let owned: Vec<&String> = shares.values().flatten().collect();
    let keys: BTreeSet<&String> = owned.iter().copied().collect();
    assert_eq!((owned.len(), keys.len()), (24, 24), "{shares:?}");
    shares
}

#[test]
fn the_oldest_leads_and_the_next_after_it_was_killed() {
    let mut processes = Recipe::start_several("leader", 3, server());
    expect_leader_of(&mut processes);
    drop(processes.remove(0));
    expect_leader_of(&mut processes);
}

/// The first of them leads by the word of all, and has the only lock.
fn expect_leader_of(processes: &mut [Recipe]) {
    let leader = processes[0].name();
    for process in processes.iter_mut() {
        eventually("one leader", || {
            process.last("leader: ") == Some(format!("leader: {leader}"))
        });
    }
    processes[0].expect(&format!("{leader} has the lock"));
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    let row = server().client().query_one(locks, &[]).expect("a count");
    assert_eq!(row.get::<_, i64>(0), 1);
}

#[test]
fn an_invalidation_reaches_all_others_also_one_that_came_later() {
    let mut processes = Recipe::start_several("cache", 3, server());
    expect_acquaintance(&mut processes, "met ", "");
    processes[0].type_line("user:1");
    processes[1].expect("forget user:1");
    processes[2].expect("forget user:1");

    drop(processes.remove(2));
    let newcomer = Recipe::start("cache", server());
    processes[0].expect(&format!("met {}", newcomer.name()));
    processes.push(newcomer);
    processes[2].expect("forget everything");
    processes[0].type_line("user:2");
    processes[1].expect("forget user:2");
    processes[2].expect("forget user:2");
    assert_eq!(processes[0].last("user:2"), None);
}

#[test]
fn one_loop_does_jobs_and_follows_peers() {
    let mut processes = Recipe::start_several("select", 2, server());
    expect_acquaintance(&mut processes, "", " is there");
    processes[0].type_line("a job");
    processes[0].expect("did a job");
    processes[0].expect("1 jobs done, 1 peers");
    let mut ended = processes.remove(0);
    ended.end_input();
    assert!(ended.status().success());
    processes[0].expect(&format!("{} is gone: said goodbye", ended.name()));
}

#[test]
fn a_recipe_whose_name_a_newer_process_has_ends() {
    let server = Server::start();
    let recipes = [
        ("sharing", "sharing"),
        ("leader", "leader"),
        ("cache", "cache"),
        ("select", "select"),
        ("clusters", "payments"),
        ("async_host", "async_host"),
        ("graceful", "graceful"),
    ];
    let mut processes: Vec<_> = recipes
        .map(|(recipe, channel)| (Recipe::start(recipe, &server), channel))
        .into();
    for (process, channel) in &mut processes {
        let name = process.name();
        // One that is not there yet would step over the start of another.
        let observer = online(Config::observer().channel(*channel), &server);
        eventually("it is there", || observer.peer(&name).is_some());
        let newer = Config::new(&name).channel(*channel);
        let _newer = online(newer, &server);
        assert!(!process.status().success(), "{name}");
    }
}

#[test]
fn a_program_takes_part_in_several_clusters() {
    let mut processes = Recipe::start_several("clusters", 2, server());
    expect_acquaintance(&mut processes, "orders: ", " is there");
    expect_acquaintance(&mut processes, "payments: ", " is there");
    let auditor = online(Config::new("auditor").channel("audit"), server());
    for process in &mut processes {
        process.expect("audit: auditor is there");
    }
    assert_eq!(auditor.peers(), []);
}

#[test]
fn an_async_host_gets_events_and_leaves() {
    let mut processes = Recipe::start_several("async_host", 2, server());
    expect_acquaintance(&mut processes, "", " is there");
    let mut ended = processes.remove(0);
    ended.signal(Signal::INT);
    assert!(ended.status().success());
    processes[0].expect(&format!("{} is gone: said goodbye", ended.name()));
}

#[test]
fn a_process_that_is_told_to_end_ends_well_and_says_goodbye() {
    let watcher = online(Config::observer().channel("graceful"), server());
    let mut processes = Recipe::start_several("graceful", 2, server());
    expect_acquaintance(&mut processes, "", " is there");
    watcher.wait_for_peers(2, PATIENCE).expect("both");
    watcher.events().try_iter().for_each(drop);

    let mut ended = processes.remove(0);
    let name = ended.name();
    ended.signal(Signal::TERM);
    expect(&watcher, &format!("update {name}"));
    expect(&watcher, &format!("leave {name}: Goodbye"));
    assert_eq!(ended.status().code(), Some(0));
    processes[0].expect(&format!("{name} is draining"));
    processes[0].expect(&format!("{name} is gone: said goodbye"));
}

#[test]
fn metrics_follow_what_happens() {
    let mut server = Server::start();
    let mut exporter = Recipe::start("metrics", &server);
    let mut line = None;
    eventually("an address", || {
        line = exporter.last("http://");
        line.is_some()
    });
    let (_, url) = line
        .as_deref()
        .and_then(|line| line.split_once("http://"))
        .expect("a URL");
    let address = url.strip_suffix("/metrics").expect("its path");

    let eventually_has = |what: &str, value: f64| {
        eventually(&format!("{what} {value}"), || {
            scrape(address)[what] == value
        });
        scrape(address)
    };
    let alone = eventually_has("pg_peers_online", 1.0);
    assert_eq!(alone["pg_peers_peers"], 0.0);
    assert_eq!(alone["pg_peers_interval_seconds"], 5.0);
    assert!(alone["pg_peers_round_trip_seconds"] > 0.0);

    let peer = Recipe::start("metrics", &server);
    let joined = eventually_has("pg_peers_peers", 1.0);
    assert!(joined["pg_peers_heard_total"] > alone["pg_peers_heard_total"]);
    assert_eq!(joined["pg_peers_left_total{reason=\"SessionGone\"}"], 0.0);
    drop(peer);
    let left = eventually_has("pg_peers_left_total{reason=\"SessionGone\"}", 1.0);
    assert_eq!(left["pg_peers_peers"], 0.0);
    assert!(left["pg_peers_session_checks_total"] > 0.0);

    server.stop(Stop::Fast);
    let down = eventually_has("pg_peers_online", 0.0);
    assert_eq!(down["pg_peers_connected_total"], 1.0);
    for (name, value) in &down {
        let counter = name.contains("_total");
        assert!(!counter || *value >= left[name], "{name} went back");
    }
}

/// Every sample of the exposition, which must be of a metric whose type was told.
fn scrape(address: &str) -> BTreeMap<String, f64> {
    let mut stream = TcpStream::connect(address).expect("an exporter");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("a request");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a type");
            types.insert(name, kind);
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let name = series.split('{').next().expect("a name");
            let is_counter = name.ends_with("_total");
            assert_eq!(types[name], if is_counter { "counter" } else { "gauge" });
            samples.insert(series.to_owned(), value.parse().expect("a number"));
        }
    }
    samples
}

#[test]
fn the_database_is_an_argument_or_in_the_environment() {
    let program = || {
        let mut program = Command::new(program("clusters"));
        program.env_remove(DATABASE);
        program
    };
    let mut told = Recipe::run("clusters", program().arg(server().params()));
    told.expect("orders: online");

    let output = program().output().expect("a process");
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("Set DATABASE_URL"), "{words}");
}

/// It takes some ten seconds, so it is for those who have time.
#[test]
fn the_demo_also_uses_a_server_that_runs() {
    if std::env::var_os("PG_PEERS_LONG").is_none() {
        eprintln!("skipped: PG_PEERS_LONG is not set");
        return;
    }
    let mut demo = Recipe::start("demo", server());
    demo.expect("All sessions with PostgreSQL are terminated. Nobody leaves.");
    let status = demo.status();
    assert!(status.success(), "{:?}", demo.last(""));
}

/// One server for all tests but those that stop it: each recipe has another channel. It ends with this program.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

const DATABASE: &str = "DATABASE_URL";

/// A process that runs a recipe; it is killed with -9 when this is dropped.
struct Recipe {
    recipe: &'static str,
    process: Subprocess,
    lines: Receiver<String>,
    /// What it has said and nobody expected yet.
    said: Vec<String>,
}

impl Recipe {
    /// One after the other, so that each that tells of its start has a higher incarnation than those before.
    fn start_several(recipe: &'static str, count: usize, server: &Server) -> Vec<Self> {
        let start = |_| {
            let mut process = Self::start(recipe, server);
            let name = process.name();
            eventually("its first line", || process.last(&name).is_some());
            process
        };
        (0..count).map(start).collect()
    }

    fn start(recipe: &'static str, server: &Server) -> Self {
        let mut program = Command::new(program(recipe));
        Self::run(recipe, program.env(DATABASE, server.params()))
    }

    fn run(recipe: &'static str, program: &mut Command) -> Self {
        let (process, lines) = Subprocess::start_and_listen(program).expect("a process");
        Self {
            recipe,
            process,
            lines,
            said: Vec::new(),
        }
    }

    /// The name under which it takes part.
    fn name(&self) -> String {
        let host = gethostname().to_string_lossy().into_owned();
        format!("{}-{host}-{}", self.recipe, self.process.pid())
    }

    /// It says this line, sooner or later.
    #[track_caller]
    fn expect(&mut self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said.iter().position(|said| said == line) {
                self.said.remove(at);
                return;
            }
            match self.lines.recv_deadline(deadline) {
                Ok(line) => self.said.push(line),
                Err(e) => panic!("{} never says {line:?}: {e}; {:?}", self.name(), self.said),
            }
        }
    }

    /// The last line so far that has this in it.
    fn last(&mut self, part: &str) -> Option<String> {
        self.said.extend(self.lines.try_iter());
        let last = self.said.iter().rfind(|line| line.contains(part));
        last.cloned()
    }

    fn type_line(&mut self, line: &str) {
        self.process.order(line).expect("it reads");
    }

    fn end_input(&mut self) {
        self.process.end_input();
    }

    fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("a signal");
    }

    /// How it ends by itself.
    #[track_caller]
    fn status(&mut self) -> ExitStatus {
        self.process.reap(PATIENCE).expect("its end")
    }
}

/// Each says of each of the others that it has met it.
#[track_caller]
fn expect_acquaintance(processes: &mut [Recipe], before: &str, after: &str) {
    let names: Vec<String> = processes.iter().map(Recipe::name).collect();
    for process in processes {
        let own = process.name();
        for other in names.iter().filter(|name| **name != own) {
            process.expect(&format!("{before}{other}{after}"));
        }
    }
}

/// Cargo builds the examples when it builds all tests, not when it builds one that is named.
fn program(recipe: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this program");
    let target = this.ancestors().nth(2).expect("deps/ in its directory");
    let program = target.join("examples").join(recipe);
    assert!(
        program.exists(),
        "{} is not built: cargo build --examples",
        program.display()
    );
    program
}
