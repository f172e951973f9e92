//! The least that a role needs: the SQL of the guide, run as it stands there.

use pg_peers::postgres::error::SqlState;
use pg_peers::postgres::{Client, NoTls};
use pg_peers::{Cluster, Config, Event};

use crate::support::*;

/// A server on which the guide's statements were run.
fn start() -> Server {
    // Until version 14 it was another.
    let mut server = Server::start_with(&["password_encryption = 'scram-sha-256'"]);
    let hba = "local all postgres trust\n\
        host all postgres 127.0.0.1/32 trust\n\
        host all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(server.data().join("pg_hba.conf"), hba).expect("pg_hba.conf");
    server.restart(Stop::Fast);
    let mut client = server.client();
    for statement in documented_statements() {
        match statement.strip_prefix("\\connect ") {
            Some(database) => client = superuser(&server, database),
            None => client.batch_execute(&statement).expect(&statement),
        }
    }
    server
}

/// As psql would run them, one by one.
fn documented_statements() -> Vec<String> {
    let page = include_str!("../../src/guide/database.md");
    let mut blocks = page.split("\n```").map(str::trim_start);
    let block = blocks
        .find_map(|block| {
            block
                .strip_prefix("sql\n")
                .filter(|sql| sql.contains("CREATE ROLE"))
        })
        .expect("the SQL that makes a role");
    let statements: Vec<String> = block
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect();
    assert!(statements.len() >= 5, "{statements:?}");
    statements
}

fn superuser(server: &Server, database: &str) -> Client {
    let params = format!("{} dbname={database}", server.params());
    Client::connect(&params, NoTls).expect("a session")
}

/// As the guide's role.
fn params(server: &Server) -> String {
    format!(
        "postgres://my_app_peers:change-me@127.0.0.1:{}/my_app_peers",
        server.port()
    )
}

fn join(server: &Server, name: &str) -> Cluster {
    let cluster = Config::new(name)
        .heartbeat_interval(SHORT * 100)
        .join(&params(server))
        .expect("valid");
    expect(&cluster, "online");
    cluster
}

#[test]
fn the_role_of_the_guide_takes_part_in_everything() {
    let server = start();
    let a = join(&server, "a");
    let b = join(&server, "b");
    expect(&a, "join b");
    expect(&b, "join a");
    fence(&a, &b);
    fence(&b, &a);
    let killed = Process::join_at(&params(&server), "killed", SHORT * 100);
    expect(&a, "join killed");
    expect(&b, "join killed");
    killed.kill();
    for member in [&a, &b] {
        expect(member, "leave killed: SessionGone");
    }
    b.leave().expect("a goodbye");
    expect(&a, "leave b: Goodbye");
    drop(a);
}

#[test]
fn the_role_of_the_guide_has_no_other_right() {
    let server = start();
    let mut client = Client::connect(&params(&server), NoTls).expect("a session");
    for statement in [
        "CREATE TABLE t (n int)",
        "CREATE TABLE public.t (n int)",
        "CREATE TEMPORARY TABLE t (n int)",
        "CREATE SCHEMA s",
        "CREATE DATABASE d",
        "CREATE ROLE r",
        "SELECT * FROM pg_authid",
    ] {
        let error = client.batch_execute(statement).expect_err(statement);
        let refused = [
            SqlState::INSUFFICIENT_PRIVILEGE,
            // Without a schema to create it in.
            SqlState::INVALID_SCHEMA_NAME,
        ];
        let code = error.code().expect(statement);
        assert!(refused.contains(code), "{statement}: {error:?}");
    }

    server.run("CREATE ROLE stranger LOGIN PASSWORD 'hunter2'");
    let stranger = params(&server).replace("my_app_peers:change-me", "stranger:hunter2");
    let stranger = Config::new("stranger").join(&stranger).expect("valid");
    let Event::Offline(reason) = expect(&stranger, "offline") else {
        panic!("offline")
    };
    assert_eq!(
        reason.code(),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE),
        "{reason}"
    );
    assert!(reason.to_string().contains("CONNECT"), "{reason}");
}

#[test]
fn a_role_from_which_everything_was_taken_still_takes_part() {
    let server = start();
    superuser(&server, "my_app_peers")
        .batch_execute(
            "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog FROM PUBLIC; \
             REVOKE ALL ON ALL TABLES IN SCHEMA pg_catalog FROM PUBLIC; \
             REVOKE ALL ON SCHEMA pg_catalog, information_schema, public FROM PUBLIC",
        )
        .expect("a superuser");
    let mut client = Client::connect(&params(&server), NoTls).expect("a session");
    let error = client
        .batch_execute("SELECT pg_notify('cluster', 'hello')")
        .expect_err("not even that");
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    let a = join(&server, "a");
    let b = join(&server, "b");
    expect(&a, "join b");
    expect(&b, "join a");
    let checked = || a.status().checked + b.status().checked;
    eventually("asked whose session is gone", || checked() >= 2);
    fence(&a, &b);
    fence(&b, &a);
    let pid = backend_of(&server, "a");
    server.run(&format!("SELECT pg_terminate_backend({pid})"));
    expect(&a, "offline");
    expect(&a, "online");
    fence(&a, &b);
    b.leave().expect("a goodbye");
    expect(&a, "leave b: Goodbye");
    expect_nothing(&a);
}
