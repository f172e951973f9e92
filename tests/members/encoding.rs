//! Databases that take for text what has no equivalent in UTF-8: there everybody can end the sessions of all who listen.

use pg_peers::postgres::error::SqlState;
use pg_peers::postgres::{Client, NoTls};
use pg_peers::{Cluster, Config, Event};

use crate::support::*;

/// How often such a participant warned of such an encoding.
fn warnings(channel: &str, encoding: &str) -> usize {
    let warning =
        format!("WARN pg_peers::trust: {channel:?}: the database has the encoding {encoding}");
    let lines = logged();
    lines
        .iter()
        .filter(|line| line.starts_with(&warning))
        .count()
}

fn join(server: &Server, name: &str, channel: &str) -> Cluster {
    let config = reticent(Config::new(name).channel(channel));
    config.join(&params(server)).expect("valid")
}

fn params(server: &Server) -> String {
    format!("{} dbname=meeting", server.params())
}

fn create(server: &Server, encoding: &str) {
    server.run(&format!(
        "CREATE DATABASE meeting ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    ));
}

#[test]
fn members_survive_what_is_no_text_and_warn_of_it_once() {
    keep_logs();
    let any_byte = [
        "NOTIFY meeting, E'\\xff'",
        "SET client_encoding = 'SQL_ASCII'; NOTIFY meeting, E'pg-peers/1 hello name=\\xc3'",
        "SELECT pg_notify('meeting', E'\\xf0\\x28\\x8c\\x28')",
    ];
    let no_character = ["NOTIFY meeting, E'\\x81'"];
    survive(
        "SQL_ASCII",
        &any_byte,
        &SqlState::CHARACTER_NOT_IN_REPERTOIRE,
    );
    survive(
        "WIN1252",
        &no_character,
        &SqlState::UNTRANSLATABLE_CHARACTER,
    );
}

fn survive(encoding: &str, statements: &[&str], code: &SqlState) {
    let server = Server::start();
    create(&server, encoding);
    let a = join(&server, "a", "meeting");
    let b = join(&server, "b", "meeting");
    let watcher = reticent(Config::observer().channel("meeting"))
        .join(&params(&server))
        .expect("valid");
    expect_all(&a, &["online", "join b"]);
    expect_all(&b, &["online", "join a"]);
    expect_all(&watcher, &["online", "join a", "join b"]);
    let members = [&a, &b, &watcher];
    let mut stranger = Client::connect(&params(&server), NoTls).expect("a session");
    for statement in statements {
        wait_until_idle(&server);
        stranger.batch_execute(statement).expect(statement);
        for member in members {
            let Event::Offline(reason) = expect(member, "offline") else {
                panic!("offline")
            };
            assert!(reason.is_link());
            assert_eq!(reason.code(), Some(code), "{reason}");
            assert!(reason.to_string().contains("UTF8"), "{reason}");
            expect(member, "online");
        }
        fence(&a, &b);
        expect(&watcher, "update a");
        fence(&b, &a);
        expect(&watcher, "update b");
    }
    for member in members {
        expect_nothing(member);
        assert_eq!(member.status().connected, 1 + statements.len() as u64);
    }
    assert_eq!(warnings("meeting", encoding), members.len());
    a.leave().expect("a goodbye");
    expect(&b, "leave a: Goodbye");
}

#[test]
fn safe_encodings_cause_no_warning_and_no_harm() {
    keep_logs();
    let server = Server::start();
    create(&server, "LATIN1");
    let a = join(&server, "a", "harmless");
    let b = join(&server, "b", "harmless");
    expect_all(&a, &["online", "join b"]);
    expect_all(&b, &["online", "join a"]);
    let bytes: String = (0x80..=0xff).map(|b| format!("\\x{b:02x}")).collect();
    Client::connect(&params(&server), NoTls)
        .and_then(|mut client| client.batch_execute(&format!("NOTIFY harmless, E'{bytes}'")))
        .expect("any byte");
    fence(&a, &b);
    fence(&b, &a);
    expect_nothing(&a);
    expect_nothing(&b);
    assert_eq!(warnings("harmless", "LATIN1"), 0);
}

#[test]
fn a_warning_comes_again_when_the_encoding_changed_in_between() {
    keep_logs();
    let server = Server::start();
    create(&server, "SQL_ASCII");
    let a = join(&server, "a", "changing");
    expect(&a, "online");
    for (encoding, count) in [("UTF8", 1), ("SQL_ASCII", 2), ("SQL_ASCII", 2)] {
        server.run("DROP DATABASE meeting WITH (FORCE)");
        create(&server, encoding);
        expect(&a, "offline");
        expect(&a, "online");
        assert_eq!(warnings("changing", "SQL_ASCII"), count);
    }
    assert_eq!(warnings("changing", "UTF8"), 0);
}

#[test]
fn a_channel_that_is_too_long_in_the_database_s_encoding_is_told() {
    let server = Server::start();
    create(&server, "EUC_JP");
    // 60 bytes in UTF-8, of which each two are three there.
    let channel = "é".repeat(30);
    let watcher = Config::observer().channel(&channel);
    let watcher = watcher.join(&params(&server)).expect("valid");
    for member in [join(&server, "a", &channel), watcher] {
        let Event::Offline(reason) = expect(&member, "offline") else {
            panic!("offline")
        };
        assert!(reason.is_link(), "{reason}");
        let text = reason.to_string();
        for part in [&*channel, "90 bytes", "EUC_JP", "63", "UTF8"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let fits = "é".repeat(21);
    let a = join(&server, "a", &fits);
    let b = join(&server, "b", &fits);
    expect_all(&a, &["online", "join b"]);
    expect_all(&b, &["online", "join a"]);
}
