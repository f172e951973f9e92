//! `pg-peers watch`: what an operator sees in a terminal, and what a script reads.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use pg_peers::Config;
use pg_peers::crossbeam_channel::Receiver;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use support::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pg-peers");

/// What an Elixir node says.
const ELIXIR: &str = "app@10.0.0.9";

#[test]
fn participant_process() {
    be_a_participant();
}

// ---------------------------------------------------------------------------------------------------------------------
// In a terminal.

/// The view of this server's cluster, in a terminal of this size. Its password must never be seen there.
fn watch(server: &Server, columns: u16, rows: u16) -> Option<Terminal> {
    let terminal = shell(server, columns, rows, &[])?;
    terminal.enter(&format!("{PROGRAM} watch"));
    let screen = terminal.expect("online");
    assert!(!screen.contains(PASSWORD), "{screen}");
    Some(terminal)
}

fn shell(
    server: &Server,
    columns: u16,
    rows: u16,
    environment: &[(&str, &str)],
) -> Option<Terminal> {
    let params = format!("{} password={PASSWORD}", server.params());
    let database = [("DATABASE_URL", &*params)];
    Terminal::open(columns, rows, &[&database, environment].concat())
}

#[test]
fn the_screen_shows_who_is_there_and_who_left_for_which_reason() {
    let server = Server::start();
    let a = online(Config::new("a@10.0.0.1").tag("zone", "eu-1"), &server);
    let b = join_short(&server, "b@10.0.0.2");
    let old = join(&server, "c@10.0.0.3");
    let Some(terminal) = watch(&server, 120, 30) else {
        return;
    };
    Raw::listen(&server, "cluster").say(ELIXIR);
    let backend = backend_of(&server, "a@10.0.0.1").to_string();
    terminal.expect_line(&["a@10.0.0.1", "here", "5 s", &backend, "zone=eu-1"]);
    terminal.expect_line(&["b@10.0.0.2", "here", "200 ms"]);
    terminal.expect_line(&[ELIXIR, "here", " - ", " -  ", " -"]);
    terminal.expect("4 here  0 late  0 left");

    a.set_tags([("zone", "eu-2")]).expect("tags");
    terminal.expect_line(&["a@10.0.0.1", "here", "zone=eu-2"]);
    terminal.expect_line(&["update", "a@10.0.0.1 zone=eu-2"]);
    b.leave().expect("a goodbye");
    terminal.expect_line(&["b@10.0.0.2", "left"]);
    terminal.expect_line(&["leave", "b@10.0.0.2: said goodbye"]);
    let _new = join(&server, "c@10.0.0.3");
    terminal.expect_line(&["c@10.0.0.3", "replaced"]);
    terminal.expect_line(&["c@10.0.0.3", "here"]);
    drop(old);
    let d = Process::join_with(&server, "d@10.0.0.4", Duration::from_secs(5));
    terminal.expect_line(&["d@10.0.0.4", "here"]);
    d.kill();
    terminal.expect_line(&["d@10.0.0.4", "session gone"]);
    let e = Process::join(&server, "e@10.0.0.5");
    terminal.expect_line(&["e@10.0.0.5", "here"]);
    e.freeze();
    let screen = terminal.expect_line(&["e@10.0.0.5", "expired"]);
    assert!(!screen.contains(PASSWORD), "{screen}");
}

#[test]
fn a_screen_of_any_size_shows_what_there_is_room_for() {
    let server = Server::start();
    let members: Vec<_> = (10..40)
        .map(|i| join(&server, &format!("worker-{i}@10.0.0.1")))
        .collect();
    let Some(terminal) = watch(&server, 80, 24) else {
        return;
    };
    terminal.expect_line(&["worker-10@10.0.0.1", "here"]);
    terminal.expect_line(&["NAME", "STATE", "HEARD", "EVERY", "STARTED", "TAGS"]);
    terminal.resize(120, 60);
    terminal.expect_line(&["NAME", "BACKEND", "TAGS"]);
    terminal.expect_line(&["worker-39@10.0.0.1", "here"]);
    terminal.resize(30, 8);
    terminal.expect_where("a small screen", |screen| {
        screen.contains("worker-10@10.") && screen.contains("here") && !screen.contains("events")
    });
    terminal.resize(1, 1);
    terminal.expect_where("next to nothing", |screen| {
        screen.trim().chars().count() <= 1
    });
    terminal.resize(80, 24);
    terminal.expect_line(&["peers 1-", "of 30"]);

    terminal.press("End");
    terminal.expect_line(&["peers", "-30 of 30"]);
    terminal.expect_line(&["worker-39@10.0.0.1", "here"]);
    terminal.press("Up");
    terminal.expect_line(&["peers", "-29 of 30"]);
    terminal.press("Home");
    terminal.expect_line(&["worker-10@10.0.0.1", "here"]);
    terminal.press("Tab");
    terminal.press("Home");
    terminal.expect_line(&["events 1-", "of 31"]);
    terminal.expect_line(&["online"]);
    drop(members);
}

#[test]
fn an_outage_is_shown_with_its_reason_and_is_nobodys_departure() {
    let mut server = Server::start();
    let _a = join(&server, "a");
    let Some(terminal) = watch(&server, 80, 24) else {
        return;
    };
    terminal.expect_line(&["a ", "here"]);
    server.stop(Stop::Fast);
    terminal.expect("OFFLINE");
    terminal.expect("cannot connect to Postgres");
    terminal.expect_line(&["a ", "here"]);
    server.start_again();
    let screen = terminal.expect_where("online", |screen| screen.contains(" online "));
    assert!(!screen.contains("leave"), "{screen}");
    terminal.expect_where("no reason", |screen| {
        let log = screen.find(" events ").expect("the log");
        !screen[..log].contains("cannot connect")
    });
    terminal.expect_line(&["a ", "here"]);
}

#[test]
fn the_terminal_is_as_before_however_the_view_ends() {
    let server = Server::start();
    for (end, status) in [("q", 0), ("C-c", 0), ("SIGTERM", 143), ("SIGINT", 130)] {
        let Some(terminal) = shell(&server, 80, 24, &[]) else {
            return;
        };
        terminal.enter("echo before");
        // What is typed meanwhile would be among what is written.
        terminal.expect("\nbefore\n");
        let pid = tempfile::NamedTempFile::new().expect("a file");
        let file = pid.path().display();
        terminal.enter(&format!("sh -c 'echo $$ >{file}; exec {PROGRAM} watch'"));
        terminal.expect("online");
        assert!(terminal.is_taken());
        let text = fs::read_to_string(pid.path()).expect("a pid");
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.expect("a pid");
        let signal = |signal| kill_process(pid, signal).expect("a process");
        match end {
            "SIGTERM" => signal(Signal::TERM),
            "SIGINT" => signal(Signal::INT),
            key => terminal.press(key),
        }
        let given_back = format!("the screen is given back after {end}");
        eventually(&given_back, || !terminal.is_taken());
        eventually("the program is gone", || test_kill_process(pid).is_err());
        terminal.enter("echo after $?; stty -a; echo end");
        let screen = terminal.expect(&format!("after {status}"));
        assert!(screen.contains("\nbefore\n"), "{screen}");
        let settings = terminal.expect("\nend\n");
        for word in [" icanon", " echo ", " isig", " opost"] {
            let is_set = settings.split_whitespace().any(|set| set == word.trim());
            assert!(is_set, "{end}: {word} in {settings}");
        }
    }
}

/// Whether a screen has escape codes for a colour of the text or of what is behind it.
fn is_coloured(screen: &str) -> bool {
    let codes = screen.split("\u{1b}[").skip(1);
    let mut codes = codes.filter_map(|rest| rest.split_once('m'));
    codes.any(|(codes, _)| {
        let mut codes = codes.split(';').filter_map(|code| code.parse().ok());
        codes.any(|code: u8| matches!(code, 30..=38 | 40..=48 | 90..=97 | 100..=107))
    })
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    let server = Server::start();
    let a = join(&server, "a");
    let _b = join(&server, "b");
    a.leave().expect("a goodbye");
    for (no_color, coloured) in [("", true), ("1", false)] {
        let Some(terminal) = shell(&server, 80, 24, &[("NO_COLOR", no_color)]) else {
            return;
        };
        terminal.enter(&format!("{PROGRAM} watch"));
        terminal.expect_line(&["b ", "here"]);
        let screen = terminal.coloured_screen();
        assert_eq!(is_coloured(&screen), coloured, "{screen:?}");
    }
}

/// Makes the picture in the README of what the screen shows: the events of a short and busy life.
#[test]
#[ignore = "writes src/bin/pg-peers/watch.svg anew"]
fn picture_of_the_readme() {
    let mut server = Server::start();
    let member = |server: &Server, name: &str, zone: &str| {
        let name = format!("{name}:7000");
        online(Config::new(name).tag("zone", zone), server)
    };
    let first = member(&server, "worker-1@10.0.0.1", "eu-1");
    let second = member(&server, "worker-2@10.0.0.2", "eu-1");
    let _third = member(&server, "worker-3@10.0.1.3", "eu-2");
    let terminal = shell(&server, 108, 26, &[]).expect("tmux");
    terminal.enter(&format!("exec {PROGRAM} watch"));
    let is_known = |name: &str| {
        terminal.expect_where(&format!("all of {name}"), |screen| {
            let mut rows = screen.lines().filter(|line| line.starts_with(name));
            rows.any(|row| row.contains(" here ") && !row.contains(" - "))
        });
    };
    is_known("worker-1");
    server.restart(Stop::Fast);
    terminal.expect_line(&["offline", "terminating connection"]);
    let killed = Process::join_with(&server, "batch@10.0.2.1:7000", Duration::from_secs(5));
    for name in ["batch", "worker-1", "worker-2", "worker-3"] {
        is_known(name);
    }
    killed.kill();
    terminal.expect_line(&["batch", "session gone"]);
    let tags = [("zone", "eu-1"), ("role", "leader")];
    first.set_tags(tags).expect("tags");
    second.leave().expect("a goodbye");
    let _new = member(&server, "worker-3@10.0.1.3", "eu-2");
    Raw::listen(&server, "cluster").say(ELIXIR);
    terminal.expect_line(&["worker-3", "replaced"]);
    is_known("worker-3");
    terminal.expect_line(&[ELIXIR, "here", " s "]);
    let svg = anstyle_svg::Term::new().render_svg(&terminal.coloured_screen());
    fs::write("src/bin/pg-peers/watch.svg", svg).expect("a file");
}

// ---------------------------------------------------------------------------------------------------------------------
// For scripts.

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .env_remove("DATABASE_URL")
        // What says nothing of a port finds no server of this machine.
        .env_remove("PGHOST")
        .env("PGPORT", "1")
        // What says nothing of a port finds no server of this machine.
        .env_remove("PGHOST")
        .env("PGPORT", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The program where its output is no terminal.
struct Script {
    process: Subprocess,
    lines: Receiver<String>,
}

impl Script {
    fn start(arguments: &[&str]) -> Self {
        Self::run(program(arguments))
    }

    fn run(mut program: Command) -> Self {
        let (mut process, lines) = Subprocess::start_and_listen(&mut program).expect("the program");
        process.end_input();
        Self { process, lines }
    }

    /// The next event, which must be this one.
    #[track_caller]
    fn expect(&self, event: &str) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("a line");
        assert!(!line.contains(PASSWORD), "{line}");
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["event"], event, "{line}");
        let time = value["time"].as_str().expect("a time");
        assert!(time.ends_with('Z') && time.len() == 24, "{line}");
        value
    }
}

#[test]
fn a_script_reads_a_line_of_json_for_each_event() {
    let mut server = Server::start();
    let a = online(
        Config::new("große \"a\" \\").tag("zone", "eu 1\u{2665}"),
        &server,
    );
    let script = Script::start(&["watch", &format!("{} password={PASSWORD}", server.params())]);
    let online = script.expect("online");
    assert_eq!(online.as_object().map(|o| o.len()), Some(2), "{online}");
    let join = script.expect("join");
    let incarnation = a.status().incarnation.expect("one").get();
    assert_eq!(join["peer"]["name"], "große \"a\" \\");
    assert_eq!(join["peer"]["incarnation"], incarnation);
    let started = join["peer"]["started"].as_str().expect("a time");
    assert!(started.ends_with('Z') && started.len() == 27, "{started}");
    assert_eq!(join["peer"]["tags"]["zone"], "eu 1\u{2665}");
    a.set_tags([("zone", "eu-2")]).expect("tags");
    assert_eq!(script.expect("update")["peer"]["tags"]["zone"], "eu-2");
    a.leave().expect("a goodbye");
    assert_eq!(script.expect("leave")["reason"], "goodbye");
    Raw::listen(&server, "cluster").say(ELIXIR);
    let bare = script.expect("join");
    assert_eq!(bare["peer"]["name"], ELIXIR);
    assert_eq!(bare["peer"]["incarnation"], Value::Null);
    server.stop(Stop::Fast);
    let offline = script.expect("offline");
    assert!(offline["error"].as_str().is_some_and(|e| !e.is_empty()));
    server.start_again();
    script.expect("online");
}

#[test]
fn elixir_nodes_need_not_be_told_anything() {
    let server = Server::start();
    let mut elixir = Raw::listen(&server, "cluster");
    let script = Script::start(&["watch", "--bare-name", &server.params()]);
    script.expect("online");
    elixir.say(ELIXIR);
    assert_eq!(script.expect("join")["peer"]["name"], ELIXIR);
    assert_eq!(elixir.hear(""), ELIXIR, "the first that was said");
}

#[test]
fn nothing_that_a_stranger_says_can_act_on_a_terminal() {
    let server = Server::start();
    let script = Script::start(&["watch", &server.params()]);
    script.expect("online");
    let mut stranger = Raw::listen(&server, "cluster");
    let mut announce = |name: &str, key: &str, value: &str| {
        let rest = format!("inc=1 seq=1 due=5000 tag.{key}={value};");
        stranger.say(&format!("pg-peers/1 beat name={name} {rest}"));
    };
    for word in [
        "%1B[2J",
        "%C2%9B2J",
        "%07",
        "%E2%80%AE",
        "%E2%80%8B",
        "%F3%A0%81%A1",
    ] {
        announce(word, "k", "v");
        announce("a", word, "v");
        announce("a", "k", word);
    }
    announce("b", "k", "%20");
    stranger.say("\u{202e}app@10.0.0.1");
    stranger.say("\u{1b}app@10.0.0.1");
    let join = script.expect("join");
    assert_eq!(join["peer"]["name"], "b", "{join}");
    assert_eq!(join["peer"]["tags"]["k"], " ");
    stranger.say(ELIXIR);
    assert_eq!(script.expect("join")["peer"]["name"], ELIXIR);
}

#[test]
fn json_is_written_to_a_terminal_if_asked_for() {
    let server = Server::start();
    let Some(terminal) = shell(&server, 80, 24, &[]) else {
        return;
    };
    terminal.enter(&format!("{PROGRAM} watch --json"));
    terminal.expect("\"event\":\"online\"}");
    assert!(!terminal.is_taken());
    terminal.press("C-c");
    terminal.enter("echo after $?");
    terminal.expect("after 130");
}

#[test]
fn a_signal_ends_a_script_as_it_ends_any_other() {
    let server = Server::start();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut script = Script::start(&["watch", &server.params()]);
        script.expect("online");
        script.process.signal(signal).expect("a process");
        let status = script.process.reap(PATIENCE).expect("its end");
        assert_eq!(status.signal(), Some(signal.as_raw()));
    }
}

#[test]
fn nobody_reading_any_more_is_a_quiet_end() {
    let server = Server::start();
    let mut child = program(&["watch", &server.params()]).spawn().expect("it");
    let output: ChildStdout = child.stdout.take().expect("its output");
    let mut lines = BufReader::new(output).lines();
    let line = lines.next().expect("a line").expect("a line");
    assert!(line.contains("\"online\""), "{line}");
    drop(lines);
    // Nothing happens that it would write.
    let status = reap(&mut child, PATIENCE).expect("its end");
    assert_eq!(status.code(), Some(0));
    let errors: ChildStderr = child.stderr.take().expect("its errors");
    assert_eq!(std::io::read_to_string(errors).expect("text"), "");
}

/// What it says of arguments with which it does not start, and its exit status.
fn refusal(arguments: &[&str]) -> (String, Option<i32>) {
    let Output {
        status,
        stdout,
        stderr,
    } = program(arguments).output().expect("the program");
    let text = String::from_utf8(stderr).expect("text");
    assert!(stdout.is_empty() && !text.contains(PASSWORD), "{text}");
    (text, status.code())
}

#[test]
fn bad_arguments_are_refused_without_showing_a_password() {
    let server = Server::start();
    let params = server.params();
    let secure = format!("{params} sslmode=require");
    let pem = tempfile::NamedTempFile::new().expect("a file");
    let pem = pem.path().display().to_string();
    let url = format!("postgres://postgres:{PASSWORD}@127.0.0.1/postgres");
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (&["watch"], 1, &["no host", "CONNECTION", "PGHOST"]),
        (
            &["watch", &params, "--channel", ""],
            1,
            &["channel \"\"", "empty"],
        ),
        (&["watch", "user=nobody"], 1, &["no host"]),
        (
            &["watch", &params, "--bare-heartbeat", "often"],
            2,
            &["often", "--bare-heartbeat"],
        ),
        (
            &["watch", &params, "--bare-heartbeat", "0"],
            1,
            &["bare_heartbeat_interval 0ns", "1 ms"],
        ),
        (
            &["watch", &secure, "--root-cert", &pem],
            1,
            &["--root-cert", &pem, "PEM"],
        ),
        (
            &["watch", &params, "--root-cert", &pem],
            1,
            &["--root-cert", "sslmode=require"],
        ),
        (&[&url], 2, &["watch", "not shown"]),
        (
            &["watch", "host=h", &format!("password={PASSWORD}")],
            2,
            &["quotes", "not shown"],
        ),
    ];
    for (arguments, status, words) in cases {
        let (text, code) = refusal(arguments);
        assert_eq!(code, Some(status), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} in {text}");
        }
    }
}

#[test]
fn a_wrong_password_is_an_event_that_does_not_show_it() {
    let server = Server::start();
    server.run(&format!(
        "CREATE ROLE operator LOGIN PASSWORD 'not {PASSWORD}'"
    ));
    server.require_password("operator");
    let params = server.params().replace("user=postgres", "user=operator");
    let script = Script::start(&["watch", &format!("{params} password={PASSWORD}")]);
    let offline = script.expect("offline");
    let error = offline["error"].as_str().expect("an error");
    assert!(error.contains("password authentication failed"), "{error}");
}

#[test]
fn tls_is_spoken_with_a_server_that_the_certificates_vouch_for() {
    let authority = Authority::new("ours");
    let Some(server) = TlsServer::start(&authority, &authority.server("db.test")) else {
        return;
    };
    let params = server.params("app", "db.test");
    for (trusted, event) in [
        (authority.pem(), "online"),
        (Authority::new("a stranger's").pem(), "offline"),
    ] {
        let roots = tempfile::NamedTempFile::new().expect("a file");
        fs::write(roots.path(), trusted).expect("a file");
        let roots = roots.path().display().to_string();
        let script = Script::start(&["watch", &params, "--root-cert", &roots]);
        let error = script.expect(event)["error"].clone();
        let text = error.as_str().unwrap_or_default();
        assert_eq!(text.contains("UnknownIssuer"), event == "offline", "{text}");
    }
    assert!(server.sessions("app") > 0);
}

#[test]
fn with_the_secret_of_a_cluster_only_its_members_are_shown() {
    let server = Server::start();
    let secret = "0123456789abcdef0123456789abcdef";
    let member = online(Config::new("member").secret(secret), &server);
    let _stranger = join(&server, "stranger");
    let mut program = program(&["watch", &server.params()]);
    program.env("PG_PEERS_SECRET", secret);
    let script = Script::run(program);
    script.expect("online");
    assert_eq!(script.expect("join")["peer"]["name"], "member");
    let _stranger = join(&server, "another");
    member.set_tags([("k", "v")]).expect("tags");
    assert_eq!(script.expect("update")["peer"]["name"], "member");
}
