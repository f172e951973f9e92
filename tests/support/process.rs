//! Participants in processes of their own, to be killed and frozen: the test program itself, run again for one test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use pg_peers::Config;
use pg_peers::crossbeam_channel;

use super::{Network, PATIENCE, SHORT, Server, Subprocess, Usage, words};

const PARAMS: &str = "PG_PEERS_TEST_PARAMS";
const NAME: &str = "PG_PEERS_TEST_NAME";
const HEARTBEAT: &str = "PG_PEERS_TEST_HEARTBEAT_MS";
const BUDGET: &str = "PG_PEERS_TEST_BUDGET";

/// A member with a short heartbeat in a separate process.
pub struct Process {
    process: Subprocess,
    events: Receiver<String>,
}

impl Process {
    /// The calling test program must have a test `participant_process` that calls [`be_a_participant`].
    pub fn join(server: &Server, name: &str) -> Self {
        Self::join_with(server, name, SHORT)
    }

    pub fn join_with(server: &Server, name: &str, heartbeat: Duration) -> Self {
        Self::join_at(&server.params(), name, heartbeat)
    }

    /// Through a pooler, say.
    pub fn join_at(params: &str, name: &str, heartbeat: Duration) -> Self {
        Self::run(Command::new(this_program()), params, name, heartbeat)
    }

    /// With this delivery budget, so that it announces itself rarely.
    pub fn join_on_budget(params: &str, name: &str, heartbeat: Duration, budget: u32) -> Self {
        let mut program = Command::new(this_program());
        program.env(BUDGET, budget.to_string());
        Self::run(program, params, name, heartbeat)
    }

    /// With a wall clock that is a day behind; `None` where libfaketime is not installed, which is said, unless the
    /// environment variable `PG_PEERS_REQUIRE_FAKETIME` is set.
    pub fn join_a_day_back(server: &Server, name: &str) -> Option<Self> {
        let Some(library) = libfaketime() else {
            let required = std::env::var_os("PG_PEERS_REQUIRE_FAKETIME").is_some();
            assert!(!required, "libfaketime is required here and not found");
            eprintln!("skipped: libfaketime is not installed");
            return None;
        };
        let mut program = Command::new(this_program());
        program
            .env("LD_PRELOAD", library)
            .env("FAKETIME", "-1d")
            // A clock that was set back is one that counts from elsewhere, not one that runs otherwise.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        Some(Self::run(program, &server.params(), name, SHORT))
    }

    /// On the far host of a network.
    pub fn join_from(network: &Network, server: &Server, name: &str, heartbeat: Duration) -> Self {
        let params = server.params_from(network);
        Self::run(network.command(&this_program()), &params, name, heartbeat)
    }

    /// Several participants in one process. What each is told comes after its name.
    pub fn join_many(server: &Server, names: &[String], heartbeat: Duration) -> Self {
        let program = Command::new(this_program());
        Self::start(program, &server.params(), &names.join(","), heartbeat)
    }

    fn run(program: Command, params: &str, name: &str, heartbeat: Duration) -> Self {
        let mut process = Self::start(program, params, name, heartbeat);
        process.expect("online");
        process
    }

    fn start(mut program: Command, params: &str, names: &str, heartbeat: Duration) -> Self {
        program
            .args(["--exact", "participant_process", "--nocapture"])
            .env(PARAMS, params)
            .env(NAME, names)
            .env(HEARTBEAT, heartbeat.as_millis().to_string());
        let (sender, events) = unbounded();
        let hear = move |line: Option<String>| {
            let line = line.unwrap_or_default();
            // The test harness writes lines too, and with one thread it begins one that this ends.
            if let Some((_, event)) = line.split_once("event: ") {
                let _ = sender.send(event.to_owned());
            }
        };
        let process = Subprocess::start(&mut program, hear).expect("a process");
        Self { process, events }
    }

    /// Its next event, which must be this one.
    #[track_caller]
    pub fn expect(&mut self, expected: &str) {
        self.expect_all(&[expected]);
    }

    /// Its next events, which must be these in any order.
    #[track_caller]
    pub fn expect_all(&mut self, expected: &[&str]) {
        let mut seen: Vec<String> = expected
            .iter()
            .map(|_| self.next(&expected.join(", ")))
            .collect();
        seen.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(seen, expected);
    }

    /// Its next event, whichever it is, where one was expected that is so described.
    #[track_caller]
    pub fn next(&mut self, expected: &str) -> String {
        let event = self.events.recv_timeout(PATIENCE);
        event.unwrap_or_else(|e| panic!("{expected:?} did not come: {e}"))
    }

    pub fn expect_nothing(&mut self) {
        let events: Vec<String> = self.events.try_iter().collect();
        assert!(events.is_empty(), "{events:?}");
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it was told so far is not looked at.
    pub fn forget(&mut self) {
        self.events.try_iter().for_each(drop);
    }

    /// Kills it with -9.
    pub fn kill(mut self) {
        self.end();
    }

    /// The same, where what it was told is still to be seen.
    pub fn end(&mut self) {
        self.process.kill().expect("a process to kill");
    }

    pub fn freeze(&self) {
        self.process.freeze().expect("a process to stop");
    }

    pub fn thaw(&self) {
        self.process.thaw().expect("a process to continue");
    }
}

/// Where distributions put it.
fn libfaketime() -> Option<PathBuf> {
    let name = "faketime/libfaketime.so.1";
    let parents = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let machine = Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let mut candidates = parents
        .into_iter()
        .chain([machine])
        .map(|parent| parent.join(name));
    candidates.find(|path| path.is_file())
}

/// Its anonymous memory, in bytes; 0 on systems without /proc.
pub fn memory_of(pid: u32) -> u64 {
    Usage::of(pid).map_or(0, |usage| usage.memory_kb * 1024)
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

/// The body of the test `participant_process`: does nothing unless [`Process`] runs it.
pub fn be_a_participant() {
    be_a_participant_as(|name| Config::new(name));
}

/// The same, with another configuration than the name alone.
pub fn be_a_participant_as(config: impl Fn(&str) -> Config) {
    let (Ok(params), Ok(names)) = (std::env::var(PARAMS), std::env::var(NAME)) else {
        return;
    };
    // Ends with the test that started it, however that ends.
    thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(1);
    });
    let heartbeat = std::env::var(HEARTBEAT).expect("a heartbeat");
    let heartbeat = Duration::from_millis(heartbeat.parse().expect("milliseconds"));
    let several = names.contains(',');
    for name in names.split(',') {
        let mut config = config(name).heartbeat_interval(heartbeat);
        if let Ok(budget) = std::env::var(BUDGET) {
            config = config.delivery_budget(budget.parse().expect("a number"));
        }
        let cluster = config.join(&params).expect("a valid configuration");
        let name = if several {
            format!("{name} ")
        } else {
            String::new()
        };
        thread::spawn(move || {
            for event in cluster.events() {
                println!("event: {name}{}", words(&event));
            }
        });
    }
    thread::sleep(Duration::MAX);
}
