//! The verbs of the program `pg-peers` that end by themselves: `members`, `channels`, `ping` and `check`; what all verbs take for a
//! connection; and what `watch` says of an empty channel. `tests/watch.rs` has the rest of `watch`.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use pg_peers::Config;
use pg_peers::crossbeam_channel::Receiver;
use rustix::process::Signal;
use serde_json::Value;
use support::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pg-peers");

/// What an Elixir node says.
const ELIXIR: &str = "app@10.0.0.9";

const VERBS: [&str; 5] = ["watch", "members", "channels", "ping", "check"];

#[test]
fn participant_process() {
    be_a_participant();
}

/// The program in an environment that says nothing of a connection. No server of this machine has that port.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .env_clear()
        .env("PGPORT", "1")
        .stdin(Stdio::null());
    command
}

/// What the program wrote, and its exit status. It must never show a password.
struct Run {
    output: String,
    errors: String,
    status: Option<i32>,
}

#[track_caller]
fn run(mut program: Command) -> Run {
    let mut child = program
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let lines = lines_of(child.stdout.take().expect("its output"));
    let errors = lines_of(child.stderr.take().expect("its errors"));
    let status = reap(&mut child, PATIENCE * 2);
    if status.is_err() {
        let _ = child.kill();
    }
    let text = |lines: Receiver<String>| lines.iter().map(|line| line + "\n").collect::<String>();
    let (output, errors) = (text(lines), text(errors));
    let status = status.unwrap_or_else(|_| panic!("it does not end: {output} {errors}"));
    for text in [&output, &errors] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    Run {
        output,
        errors,
        status: status.code(),
    }
}

impl Run {
    /// It ended with 0, and wrote that.
    #[track_caller]
    fn expect_ok(self) -> String {
        let Self {
            output,
            errors,
            status,
        } = self;
        assert_eq!(status, Some(0), "{output} {errors}");
        output
    }

    /// The lines of JSON that it wrote.
    #[track_caller]
    fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        self.output.lines().map(parse).collect()
    }
}

#[track_caller]
fn say(arguments: &[&str]) -> Run {
    run(program(arguments))
}

/// Whether a line has all these.
#[track_caller]
fn expect_line(text: &str, parts: &[&str]) {
    let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
    assert!(text.lines().any(has_all), "no {parts:?} in\n{text}");
}

/// With a password that nobody asks for, to see that it is not shown.
fn params(server: &Server) -> String {
    format!("{} password={PASSWORD}", server.params())
}

// ---------------------------------------------------------------------------------------------------------------------
// All verbs.

#[test]
fn each_verb_has_help_that_says_how_it_ends() {
    for verb in VERBS {
        let help = say(&[verb, "--help"]).expect_ok();
        for part in [
            "CONNECTION",
            "PGHOST",
            "--root-cert",
            "--json",
            "nds",
            "with 1",
            "with 2",
        ] {
            assert!(help.contains(part), "{verb}: {part} in {help}");
        }
    }
    let help = say(&["--help"]).expect_ok();
    for verb in VERBS {
        expect_line(&help, &[verb]);
    }
}

#[test]
fn bad_arguments_are_refused_without_showing_a_password() {
    let url = format!("postgres://u:{PASSWORD}@h/db");
    let unknown = format!("{url}?schema=public");
    for verb in VERBS {
        let run = say(&[verb, "--no-such", &url]);
        assert_eq!(run.status, Some(2), "{}", run.errors);
        assert!(run.errors.contains("not shown"), "{}", run.errors);
        let run = say(&[verb]);
        assert_eq!(run.status, Some(1), "{}", run.errors);
        expect_line(&run.errors, &["no host", "CONNECTION", "PGHOST"]);
        let run = say(&[verb, &unknown]);
        assert_eq!(run.status, Some(1), "{}", run.errors);
        expect_line(&run.errors, &["`schema`", "leave it out"]);
    }
    let run = say(&["members", "--tag", "zone", "host=h"]);
    assert_eq!(run.status, Some(2), "{}", run.errors);
    expect_line(&run.errors, &["KEY=VALUE"]);
}

#[test]
fn without_an_argument_the_environment_of_psql_counts() {
    let server = Server::start();
    let _a = join(&server, "a");
    let port = server.port().to_string();
    let mut by_environment = program(&["members"]);
    by_environment
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", &port)
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .env("PGCONNECT_TIMEOUT", "5");
    expect_line(&run(by_environment).expect_ok(), &["a "]);

    let mut by_url = program(&["members"]);
    by_url.env("DATABASE_URL", params(&server));
    expect_line(&run(by_url).expect_ok(), &["a "]);

    let home = tempfile::tempdir().expect("a directory");
    let services = format!("[ours]\nhost=127.0.0.1\nport={port}\nuser=postgres\nsslmode=disable\n");
    fs::write(home.path().join(".pg_service.conf"), services).expect("a file");
    let mut by_service = program(&["members", "service=ours"]);
    by_service.env("HOME", home.path());
    expect_line(&run(by_service).expect_ok(), &["a "]);

    let mut by_another = program(&["members"]);
    by_another
        .env("HOME", home.path())
        .env("PGSERVICE", "theirs");
    let refused = run(by_another);
    assert_eq!(refused.status, Some(1));
    expect_line(&refused.errors, &["\"theirs\"", ".pg_service.conf"]);
}

#[test]
fn a_password_is_looked_up_where_psql_has_it() {
    let server = Server::start();
    server.run(&format!("CREATE ROLE operator LOGIN PASSWORD '{PASSWORD}'"));
    server.require_password("operator");
    let params = server.params().replace("user=postgres", "user=operator") + " dbname=postgres";
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join(".pgpass");
    fs::write(&file, format!("127.0.0.1:*:*:operator:{PASSWORD}\n")).expect("a file");
    let ping = |variable: &str| {
        let mut ping = program(&["ping", "-c", "1", &params]);
        match variable {
            "HOME" => ping.env("HOME", home.path()),
            "PGPASSWORD" => ping.env("PGPASSWORD", PASSWORD),
            _ => ping.env(variable, &file),
        };
        run(ping)
    };
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("permissions");
    let refused = ping("HOME");
    assert_eq!(refused.status, Some(1));
    expect_line(&refused.errors, &["chmod 600", ".pgpass"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
    for variable in ["HOME", "PGPASSFILE", "PGPASSWORD"] {
        expect_line(&ping(variable).expect_ok(), &["seq=1 time="]);
    }
    let without = say(&["ping", "-c", "1", &params]);
    assert_eq!(without.status, Some(1));
    expect_line(&without.errors, &["password"]);
}

#[test]
fn all_verbs_verify_the_server_where_tls_is_required() {
    let authority = Authority::new("ours");
    let Some(server) = TlsServer::start(&authority, &authority.server("db.test")) else {
        return;
    };
    let file = |pem: String| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), pem).expect("a file");
        file
    };
    let (ours, theirs) = (file(authority.pem()), file(Authority::new("theirs").pem()));
    let of_libpq = server
        .params("app", "db.test")
        .replace("sslmode=require", "sslmode=verify-full");
    for (roots, status) in [(&ours, 0), (&theirs, 1)] {
        let roots = roots.path().display().to_string();
        let params = server.params("app", "db.test");
        let ping = say(&["ping", "-c", "1", &params, "--root-cert", &roots]);
        assert_eq!(ping.status, Some(status), "{} {}", ping.output, ping.errors);
        let mut check = program(&["check", &of_libpq]);
        check.env("PGSSLROOTCERT", &roots);
        let check = run(check);
        assert_eq!(
            check.status,
            Some(status),
            "{} {}",
            check.output,
            check.errors
        );
        match status {
            0 => {
                expect_line(
                    &check.output,
                    &["ok", "address", "db.test (127.0.0.1", "TLS"],
                );
                expect_line(&check.output, &["ok", "tls", "TLSv1.3", &roots]);
            }
            _ => {
                expect_line(&ping.errors, &["UnknownIssuer"]);
                expect_line(&check.output, &["failure", "address", "UnknownIssuer"]);
                expect_line(&check.output, &["failure", "login"]);
            }
        }
    }
}

#[test]
fn a_server_that_hangs_ends_every_verb_but_watch() {
    let mut server = Server::start();
    server.freeze();
    let verbs: Vec<_> = ["members", "channels", "ping", "check"]
        .into_iter()
        .map(|verb| {
            let arguments = [verb.to_owned(), params(&server)];
            thread::spawn(move || say(&arguments.each_ref().map(|it| &**it)))
        })
        .collect();
    for verb in verbs {
        let run = verb.join().expect("a run");
        assert_eq!(run.status, Some(1), "{} {}", run.output, run.errors);
    }
    server.thaw();
}

#[test]
fn completions_and_a_manual_are_written() {
    for what in ["bash", "fish", "zsh", "elvish", "powershell"] {
        let text = say(&["generate", what]).expect_ok();
        assert!(
            text.contains("members") && text.contains("root-cert"),
            "{what}"
        );
    }
    let manual = say(&["generate", "man"]).expect_ok();
    for part in [".TH", "CHECK", "\\-\\-bare\\-name", "PGHOST"] {
        assert!(manual.contains(part), "{part} in {manual}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// members

#[test]
fn members_are_shown_once_as_they_are() {
    let server = Server::start();
    let _a = online(
        Config::new("a@10.0.0.1")
            .tag("zone", "eu-1")
            .tag("role", "db"),
        &server,
    );
    let _b = online(Config::new("größer").tag("zone", "eu-2"), &server);
    let page = say(&["members", &params(&server)]).expect_ok();
    expect_line(
        &page,
        &[
            "NAME", "HEARD", "EVERY", "BACK", "STARTED", "BACKEND", "TAGS",
        ],
    );
    let backend = backend_of(&server, "a@10.0.0.1").to_string();
    expect_line(
        &page,
        &["a@10.0.0.1", "5 s", "1.2 s", &backend, "role=db zone=eu-1"],
    );
    expect_line(&page, &["größer", "zone=eu-2"]);
    expect_line(&page, &["2 on channel cluster in postgres at 127.0.0.1:"]);

    let page = say(&[
        "members",
        "--tag",
        "zone=eu-1",
        "--tag",
        "role=db",
        &params(&server),
    ]);
    let page = page.expect_ok();
    expect_line(&page, &["1 of 2"]);
    assert!(!page.contains("größer"), "{page}");

    let json = say(&["members", "--json", "--tag", "zone=eu-2", &params(&server)]).json();
    assert_eq!(json.len(), 1);
    assert_eq!(json[0]["name"], "größer");
    assert_eq!(json[0]["tags"]["zone"], "eu-2");
    assert_eq!(json[0]["interval_ms"], 5_000.0);
    assert_eq!(json[0]["back_ms"], 1_250.0);
    assert!(json[0]["backend"].is_i64());
    assert!(json[0]["incarnation"].is_u64() && json[0]["started"].is_string());
}

#[test]
fn members_of_a_large_cluster_are_all_shown() {
    let server = Server::start();
    let names: Vec<String> = (0..40).map(|i| format!("worker-{i:02}")).collect();
    let members: Vec<_> = names
        .iter()
        .map(|name| {
            let long = "x".repeat(2_000);
            let config = Config::new(name).tag("long", long);
            config.join(&server.params()).expect("valid")
        })
        .collect();
    for member in &members {
        member.wait_for_peers(39, PATIENCE).expect("all");
    }
    let json = say(&["members", "--json", &params(&server)]).json();
    let found: Vec<&str> = json.iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(found, names);
}

#[test]
fn an_empty_channel_says_how_to_find_another() {
    let server = Server::start();
    let page = say(&["members", &params(&server)]).expect_ok();
    expect_line(&page, &["nobody on channel cluster"]);
    expect_line(&page, &["pg-peers channels"]);
    assert_eq!(
        say(&["members", "--json", &params(&server)]).expect_ok(),
        ""
    );
}

#[test]
fn bare_names_are_members_that_are_not_asked_anything() {
    let server = Server::start();
    let mut elixir = Raw::listen(&server, "cluster");
    let params = params(&server);
    let arguments = ["members", "--bare-name", "--bare-heartbeat", "1", &params];
    let members = thread::scope(|scope| {
        let members = scope.spawn(|| say(&arguments));
        while !members.is_finished() {
            elixir.say(ELIXIR);
            thread::sleep(SHORT);
        }
        members.join().expect("a run").expect_ok()
    });
    expect_line(&members, &[ELIXIR, "bare name"]);
    elixir.say("end");
    expect_only_nodes(&mut elixir);
}

/// Up to `end` nothing was said but the name of the node.
#[track_caller]
fn expect_only_nodes(listener: &mut Raw) {
    loop {
        match &*listener.hear("") {
            ELIXIR => {}
            other => break assert_eq!(other, "end"),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// channels

#[test]
fn channels_are_found_by_what_sessions_say_on_them() {
    let server = Server::start();
    let _members = ["a", "b"].map(|name| online(Config::new(name).channel("Ours"), &server));
    let mut listener = Raw::listen(&server, "Prod_Cookie_v1");
    let mut node = Raw::listen(&server, "Prod_Cookie_v1");
    let _jobs = Raw::listen(&server, "jobs");
    let params = params(&server);
    let found = thread::scope(|scope| {
        let found = scope.spawn(|| say(&["channels", "--json", &params]));
        while !found.is_finished() {
            node.say(ELIXIR);
            thread::sleep(SHORT);
        }
        found.join().expect("a run")
    });
    let lines = found.json();
    let line = |channel: &str| {
        let line = lines.iter().find(|line| line["channel"] == channel);
        line.unwrap_or_else(|| panic!("{channel} in {}", found.output))
    };
    assert_eq!(line("Ours")["members"], 2, "{}", found.output);
    assert_eq!(line("Ours")["bare_names"], 0);
    assert_eq!(line("Prod_Cookie_v1")["members"], 0);
    assert_eq!(line("Prod_Cookie_v1")["bare_names"], 1);
    assert_eq!(line("Prod_Cookie_v1")["sessions"], 2);
    assert_eq!(line("jobs")["bare_names"], 0);
    assert_eq!(lines.len(), 4, "{}", found.output);
    assert_eq!(lines[3]["hidden_sessions"], 0);
    node.say("end");
    expect_only_nodes(&mut listener);
    let page = say(&["channels", "--wait", "1", &params]).expect_ok();
    expect_line(&page, &["CHANNEL", "MEMBERS", "BARE NAMES", "SESSIONS"]);
    expect_line(&page, &["jobs", "0", "1"]);
}

#[test]
fn what_a_role_may_not_see_is_said() {
    let server = Server::start();
    server.run("CREATE ROLE operator LOGIN");
    let _a = join(&server, "a");
    let params = server.params().replace("user=postgres", "user=operator") + " dbname=postgres";
    let page = say(&["channels", "--wait", "0", &params]).expect_ok();
    expect_line(&page, &["no channel found"]);
    expect_line(&page, &["of other roles", "pg_read_all_stats"]);
}

// ---------------------------------------------------------------------------------------------------------------------
// ping

#[test]
fn pings_are_counted_measured_and_summed_up() {
    let server = Server::start();
    let page = say(&["ping", "-c", "3", "-i", "0", &params(&server)]).expect_ok();
    for part in [
        "seq=1 time=",
        "seq=3 time=",
        "3 sent, 3 heard, 0 lost",
        "p50 ",
        "p99 ",
        "#",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let run = say(&[
        "ping",
        "-c",
        "50",
        "-i",
        "0",
        "--json",
        "--channel",
        "mine",
        &params(&server),
    ]);
    let lines = run.json();
    assert_eq!(lines.len(), 51);
    assert_eq!(lines[49]["seq"], 50);
    assert!(
        lines[..50]
            .iter()
            .all(|line| line["ms"].as_f64() > Some(0.0))
    );
    let sum = &lines[50];
    assert_eq!(
        (&sum["sent"], &sum["heard"], &sum["lost"]),
        (&50.into(), &50.into(), &0.into())
    );
    let number = |key: &str| sum[key].as_f64().expect(key);
    assert!(number("p50_ms") <= number("p90_ms") && number("p99_ms") <= number("max_ms"));
}

#[test]
fn a_ping_that_is_interrupted_sums_up() {
    let server = Server::start();
    for signal in [Signal::INT, Signal::TERM] {
        let mut ping = program(&["ping", "-i", "0.05", &params(&server)]);
        let (mut process, lines) = Subprocess::start_and_listen(&mut ping).expect("the program");
        let next = || lines.recv_timeout(PATIENCE).expect("a line");
        while !next().contains("seq=2 ") {}
        process.signal(signal).expect("a process");
        while !next().contains(" sent, ") {}
        expect_line(&next(), &["p50", "max"]);
        let status = process.reap(PATIENCE).expect("its end");
        assert_eq!(status.code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_ping_through_a_transaction_pooler_says_what_is_wrong() {
    let server = Server::start();
    let Some(pooler) = PgBouncer::start(&server, "transaction") else {
        return;
    };
    let run = say(&["ping", "-c", "1", &pooler.params()]);
    assert_eq!(run.status, Some(1));
    expect_line(&run.output, &["seq=1 lost"]);
    expect_line(&run.output, &["1 sent, 0 heard, 1 lost"]);
    expect_line(&run.errors, &["pooler in transaction mode"]);
}

#[test]
fn a_session_that_ends_ends_a_ping_with_the_reason() {
    let mut server = Server::start();
    let mut ping = program(&["ping", "-i", "0.05", &params(&server)]);
    ping.stderr(Stdio::piped());
    let (mut process, lines) = Subprocess::start_and_listen(&mut ping).expect("the program");
    let next = || lines.recv_timeout(PATIENCE).expect("a line");
    while !next().contains("seq=1 ") {}
    server.stop(Stop::Fast);
    while !next().contains(" sent, ") {}
    let status = process.reap(PATIENCE).expect("its end");
    assert_eq!(status.code(), Some(1));
}

// ---------------------------------------------------------------------------------------------------------------------
// check

#[test]
fn a_cluster_that_is_well_passes_all_checks() {
    let server = Server::start();
    let _a = join(&server, "a");
    let params = params(&server);
    let page = say(&["check", &params]).expect_ok();
    let checks = [
        "address", "login", "server", "tls", "pooler", "notify", "encoding", "rights", "places",
        "queue", "lock", "clock", "settings", "members",
    ];
    let found: Vec<&str> = page
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(found, checks, "{page}");
    assert!(page.lines().all(|line| line.starts_with("ok ")), "{page}");
    expect_line(&page, &["notify", "100 of 100 heard: p50 "]);
    expect_line(
        &page,
        &["members", "1 member on channel cluster, and 0 bare names"],
    );
    let lines = say(&["check", "--json", &params]).json();
    assert_eq!(lines.len(), checks.len());
    assert!(
        lines
            .iter()
            .all(|line| line["level"] == "ok" && line["advice"].is_null())
    );
}

#[test]
fn a_check_says_what_fails_and_what_to_do() {
    let server = Server::start();
    let standby = server.standby();
    let run = say(&["check", &standby.params()]);
    assert_eq!(run.status, Some(1), "{}", run.output);
    expect_line(&run.output, &["failure", "server", "standby"]);
    expect_line(&run.output, &["target_session_attrs=read-write"]);
    expect_line(&run.output, &["failure", "notify", "recovery"]);

    server.run(&format!(
        "CREATE ROLE operator LOGIN PASSWORD 'not {PASSWORD}'"
    ));
    server.require_password("operator");
    let params = params(&server).replace("user=postgres", "user=operator");
    let run = say(&["check", &format!("{params} dbname=postgres")]);
    assert_eq!(run.status, Some(1), "{}", run.output);
    expect_line(&run.output, &["ok", "address"]);
    expect_line(
        &run.output,
        &["failure", "login", "password authentication failed"],
    );
    assert_eq!(run.output.matches("failure").count(), 1, "{}", run.output);

    let run = say(&["check", "host=127.0.0.1 port=1 user=u"]);
    assert_eq!(run.status, Some(1), "{}", run.output);
    expect_line(
        &run.output,
        &["failure", "address", "127.0.0.1:1", "refused"],
    );
}

#[test]
fn a_check_knows_poolers() {
    let server = Server::start();
    for (mode, status, level) in [("transaction", 1, "failure"), ("session", 0, "warning")] {
        let Some(pooler) = PgBouncer::start(&server, mode) else {
            return;
        };
        let run = say(&["check", &pooler.params()]);
        assert_eq!(run.status, Some(status), "{mode}: {}", run.output);
        expect_line(&run.output, &[level, "pooler"]);
        let notify = ["ok", "failure"][usize::from(status == 1)];
        expect_line(&run.output, &[notify, "notify"]);
    }
}

#[test]
fn a_check_names_what_will_hurt() {
    let server = Server::start_with(&["log_statement = all", "max_connections = 20"]);
    server.run("CREATE ROLE operator LOGIN CONNECTION LIMIT 9");
    server.run("ALTER ROLE operator SET search_path = public, pg_catalog");
    server.run("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0");
    let at = |database: &str| {
        let params = server.params().replace("user=postgres", "user=operator");
        format!("{params} dbname={database}")
    };
    let _other = join(&server, "other");
    let run = say(&["check", &at("postgres")]);
    let page = run.expect_ok();
    expect_line(
        &page,
        &["warning", "rights", "1 of 1 members", "another role"],
    );
    expect_line(
        &page,
        &["warning", "places", "CONNECTION LIMIT of the role"],
    );
    expect_line(&page, &["warning", "settings", "search_path"]);
    expect_line(&page, &["warning", "settings", "log_statement"]);
    let page = say(&["check", &at("ascii")]).expect_ok();
    expect_line(&page, &["warning", "encoding", "SQL_ASCII"]);
    expect_line(
        &page,
        &["warning", "members", "nobody is on channel cluster"],
    );
}

#[test]
fn a_check_and_a_ping_name_what_holds_up_notify() {
    let server = Server::start_with(&[NOBODY_WAITS]);
    let holder = Holder::hold(&server);
    let run = say(&["check", &params(&server)]);
    assert_eq!(run.status, Some(1), "{}", run.output);
    expect_line(&run.output, &["failure", "notify", "lock timeout"]);
    expect_line(&run.output, &["-> see server and lock"]);
    expect_line(&run.output, &["failure", "lock", &format!("({WATCH})")]);
    let run = say(&["ping", "-c", "1", &params(&server)]);
    assert_eq!(run.status, Some(1), "{}", run.output);
    expect_line(&run.output, &["seq=1 lost: NOTIFY has not ended"]);
    expect_line(&run.errors, &["another transaction", "pg-peers check"]);
    holder.release();
}

#[test]
fn a_check_hears_nodes_that_say_their_name_late() {
    let server = Server::start();
    let mut node = Raw::listen(&server, "cluster");
    let mut check = program(&["check", "--bare-heartbeat", "8", &params(&server)]);
    let (mut process, lines) = Subprocess::start_and_listen(&mut check).expect("the program");
    let next = || lines.recv_timeout(PATIENCE).expect("a line");
    while !next().contains(" settings ") {}
    thread::sleep(Duration::from_secs(4));
    node.say(ELIXIR);
    let members = next();
    expect_line(&members, &["0 members on channel cluster, and 1 bare name"]);
    expect_line(&next(), &["warning", "members", "bare name"]);
    let status = process.reap(PATIENCE).expect("its end");
    assert!(status.success());
}

#[test]
fn a_check_of_a_server_that_is_far_takes_fewer_rounds() {
    let server = Server::start();
    let far = Proxy::start(&server, Duration::from_millis(250));
    let page = say(&["check", &far.params()]).expect_ok();
    expect_line(&page, &["notify", "heard: p50"]);
    assert!(!page.contains("100 of 100"), "{page}");
}

// ---------------------------------------------------------------------------------------------------------------------
// watch

fn watch(server: &Server) -> Option<Terminal> {
    let terminal = Terminal::open(100, 24, &[("DATABASE_URL", &params(server))])?;
    terminal.enter(&format!("{PROGRAM} watch"));
    terminal.expect("online");
    Some(terminal)
}

#[test]
fn an_empty_channel_is_said_after_a_while() {
    let server = Server::start();
    let Some(terminal) = watch(&server) else {
        return;
    };
    let screen = terminal.expect("nobody is on this channel");
    assert!(screen.contains("pg-peers channels"), "{screen}");
    let _a = join(&server, "a");
    terminal.expect_where("nothing said", |screen| {
        screen.contains("a ") && !screen.contains("nobody")
    });
}

#[test]
fn bare_names_are_marked_and_their_option_is_said() {
    let server = Server::start();
    let Some(terminal) = watch(&server) else {
        return;
    };
    Raw::listen(&server, "cluster").say(ELIXIR);
    terminal.expect_line(&[ELIXIR, "here, bare"]);
    terminal.expect("--bare-name");
}
