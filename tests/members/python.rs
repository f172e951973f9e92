//! A member in Python (`examples/python`), which was written from the wire format alone, lives together with ours.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pg_peers::crossbeam_channel::Receiver;
use pg_peers::{Cluster, Event};
use rustix::process::Signal;

use crate::support::*;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/member.py");

/// A process of the member in Python.
struct Python {
    process: Subprocess,
    lines: Receiver<String>,
}

impl Python {
    /// `None` without python3 or psycopg, which is said, unless `PG_PEERS_REQUIRE_PYTHON` is set.
    fn join(server: &Server, name: &str, environment: &[(&str, &str)]) -> Option<Self> {
        let modules = match psycopg() {
            Ok(modules) => modules,
            Err(why) => {
                let required = std::env::var_os("PG_PEERS_REQUIRE_PYTHON").is_some();
                assert!(!required, "{why}");
                eprintln!("skipped: {why}");
                return None;
            }
        };
        let mut program = Command::new("python3");
        program
            .arg(PROGRAM)
            .args(["--name", name, "--tag", "language=python"])
            .arg(server.params())
            .env("PYTHONPATH", modules)
            .envs(environment.iter().copied());
        let (process, lines) = Subprocess::start_and_listen(&mut program).expect("python3");
        Some(Self { process, lines })
    }

    /// Its next events are these in any order.
    #[track_caller]
    fn expect(&self, expected: &[&str]) {
        let mut seen: Vec<String> = expected.iter().map(|_| self.next(expected)).collect();
        let mut expected = expected.to_vec();
        seen.sort();
        expected.sort_unstable();
        assert_eq!(seen, expected);
    }

    /// Its next event in the words of [`words`].
    #[track_caller]
    fn next(&self, expected: &[&str]) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|e| panic!("{expected:?} did not come: {e}"));
        let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
        let word = |key: &str| event[key].as_str().unwrap_or_default();
        match (word("event"), word("reason")) {
            (event @ ("online" | "offline"), _) => event.to_owned(),
            (event, "") => format!("{event} {}", word("peer")),
            (event, reason) => format!("{event} {}: {reason}", word("peer")),
        }
    }

    /// It says goodbye, and ends well.
    fn leave(mut self) {
        self.process.signal(Signal::TERM).expect("a process");
        let status = self.process.reap(PATIENCE).expect("it ends");
        assert!(status.success(), "{status}");
        // One that has lost its session cannot say goodbye, and prints why.
        let last: Vec<String> = self.lines.iter().collect();
        assert!(last.is_empty(), "{last:?}");
    }
}

/// The directory that has the module, which is fetched where python3 has none that will do.
fn psycopg() -> Result<String, String> {
    let has_it = |modules: &str| {
        let mut python = Command::new("python3");
        let check = r"import psycopg, re
assert [int(number) for number in re.findall(r'\d+', psycopg.__version__)] >= [3, 2, 4]";
        python.args(["-c", check]).env("PYTHONPATH", modules);
        let output = python.output();
        output.is_ok_and(|output| output.status.success())
    };
    if has_it("") {
        return Ok(String::new());
    }
    let modules = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let modules = modules.display().to_string();
    // Two tests at once would meet half of it.
    static FETCHING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = FETCHING.lock();
    if !has_it(&modules) {
        let status = Command::new("python3")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
            .args([&modules, "psycopg[binary]>=3.2.4"])
            .status();
        if !status.is_ok_and(|status| status.success()) || !has_it(&modules) {
            return Err("python3 has no psycopg 3.2.4, and pip cannot fetch it".to_owned());
        }
    }
    Ok(modules)
}

fn expect_restart(members: &[Cluster]) {
    expect_each(members, "offline");
    expect_each(members, "online");
}

#[test]
fn a_member_in_python_lives_through_a_join_a_kill_and_a_restart() {
    let mut server = Server::start();
    let Some(p) = Python::join(&server, "p", &[]) else {
        return;
    };
    p.expect(&["online"]);
    // Only it can answer.
    let a = join(&server, "a");
    let event = expect(&a, "join p");
    assert_eq!(tag(&event), Some("python"));
    p.expect(&["join a"]);
    // Ours and it answer another one in Python.
    let mut q = Python::join(&server, "q", &[]).expect("as the first");
    q.expect(&["online", "join a", "join p"]);
    p.expect(&["join q"]);
    expect(&a, "join q");
    let mut killed = Process::join_with(&server, "killed", Duration::from_secs(5));
    killed.expect_all(&["join a", "join p", "join q"]);
    expect(&a, "join killed");
    p.expect(&["join killed"]);
    q.expect(&["join killed"]);
    killed.kill();
    expect(&a, "leave killed: SessionGone");
    p.expect(&["leave killed: session_gone"]);
    q.expect(&["leave killed: session_gone"]);
    q.process.kill().expect("a process");
    expect(&a, "leave q: SessionGone");
    p.expect(&["leave q: session_gone"]);
    let members = [a];
    for _ in 0..2 {
        server.restart(Stop::Fast);
        expect_restart(&members);
        p.expect(&["offline"]);
        p.expect(&["online"]);
    }
    let [a] = members;
    let b = join(&server, "b");
    expect_all(&b, &["join a", "join p"]);
    expect(&a, "join b");
    p.expect(&["join b"]);
    b.leave().expect("a goodbye");
    p.expect(&["leave b: goodbye"]);
    expect(&a, "leave b: Goodbye");
    p.leave();
    expect(&a, "leave p: Goodbye");
    expect_nothing(&a);
}

fn tag(event: &Event) -> Option<&str> {
    event.peer()?.tag("language")
}

#[cfg(feature = "auth")]
#[test]
fn it_signs_and_hears_only_what_is_signed() {
    const SECRET: &str = "sixteen or more bytes";
    let server = Server::start();
    let secret = [("PG_PEERS_SECRET", SECRET)];
    let Some(p) = Python::join(&server, "p", &secret) else {
        return;
    };
    p.expect(&["online"]);
    let stranger = join(&server, "stranger");
    let a = online(pg_peers::Config::new("a").secret(SECRET), &server);
    expect(&a, "join p");
    p.expect(&["join a"]);
    expect_all(&stranger, &["join a", "join p"]);
    a.set_tag("zone", "eu").expect("a tag");
    p.expect(&["update a"]);
    assert_eq!(a.status().clock_skewed, 0);
    a.leave().expect("a goodbye");
    p.expect(&["leave a: goodbye"]);
    p.leave();
}
