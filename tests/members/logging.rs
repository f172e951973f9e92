//! What is logged, and under which target: hosts filter by it, and an outage does not fill a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pg_peers::postgres::{Client, NoTls};
use pg_peers::{Cluster, Config};

use crate::support::*;

#[test]
fn an_outage_is_two_lines_however_many_attempts_fail() {
    keep_logs();
    let server = Server::start();
    let sealed = Arc::new(AtomicBool::new(true));
    let connect = {
        let (params, sealed) = (server.params(), Arc::clone(&sealed));
        move || -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
            match sealed.load(Ordering::SeqCst) {
                true => Err("the vault is sealed".into()),
                false => Ok(Client::connect(&params, NoTls)?),
            }
        }
    };
    let a = Config::new("a").channel("outage");
    let a = a.join_with(connect).expect("valid");
    eventually("more attempts", || a.status().failed_attempts >= 5);
    sealed.store(false, Ordering::SeqCst);
    expect_all(&a, &["offline", "online"]);
    let pid = backend_of(&server, "a");
    server.run(&format!("SELECT pg_terminate_backend({pid})"));
    expect_all(&a, &["offline", "online"]);

    let (details, lines): (Vec<_>, Vec<_>) = lines_of("outage")
        .into_iter()
        .partition(|line| line.starts_with("DEBUG"));
    let retries = details.iter().filter(|line| line.contains("still offline"));
    assert!(retries.count() >= 4, "{details:#?}");
    let expected = [
        "WARN pg_peers::link: \"outage\": offline: ",
        "INFO pg_peers::link: \"outage\": online after ",
    ];
    let mut pairs = lines.iter().zip(expected.into_iter().cycle());
    let same = lines.len() == 4 && pairs.all(|(line, start)| line.starts_with(start));
    assert!(same, "{lines:#?}");
}

#[test]
fn a_taken_name_is_a_warning_and_peers_are_debug_lines() {
    keep_logs();
    let server = Server::start();
    let config = |name| Config::new(name).channel("taken");
    let a = online(config("a"), &server);
    let b = online(config("b"), &server);
    expect(&a, "join b");
    expect(&b, "join a");
    let _newer = online(config("a"), &server);
    expect(&a, "name taken: a");

    let taken = "WARN pg_peers::peers: \"taken\": a newer process has the name \"a\"";
    let is_taken = |line: &&String| line.starts_with(taken);
    let lines = lines_of("taken");
    assert_eq!(lines.iter().filter(is_taken).count(), 1, "{lines:#?}");
    // The host is told before the log.
    let joined = "DEBUG pg_peers::peers: \"taken\": b: Joined".to_owned();
    eventually(&joined, || lines_of("taken").contains(&joined));
}

#[test]
fn what_full_announcements_do_to_elixir_nodes_is_a_warning_once() {
    keep_logs();
    let server = Server::start();
    let config = |name| Config::new(name).channel("elixir");
    let a = online(config("a"), &server);
    let same = online(config("same@h").bare_name(true), &server);
    let mut nodes = Raw::listen(&server, "elixir");
    for node in ["one@h", "two@h"] {
        nodes.say(node);
        expect_beside(&a, &format!("join {node}"));
        expect_beside(&same, &format!("join {node}"));
    }
    assert_eq!(warnings_of_bare_names("elixir"), 1);
    // What an observer asks is an atom, too.
    let observer = online(Config::observer().channel("watched"), &server);
    let mut nodes = Raw::listen(&server, "watched");
    for node in ["one@h", "two@h"] {
        nodes.say(node);
        expect(&observer, &format!("join {node}"));
    }
    assert_eq!(warnings_of_bare_names("watched"), 1);
}

/// How many times it was said on a channel what full announcements do to those that announce bare names.
fn warnings_of_bare_names(channel: &str) -> usize {
    let lines = lines_of(channel);
    let warned = |line: &&String| line.starts_with("WARN") && line.contains("bare_name(true)");
    lines.iter().filter(warned).count()
}

/// The next event but those of the other member.
fn expect_beside(member: &Cluster, expected: &str) {
    loop {
        let event = words(&next(member, expected));
        if event == expected {
            return;
        }
        assert!(["join a", "join same@h"].contains(&&*event), "{event}");
    }
}

/// All that was logged of a channel.
fn lines_of(channel: &str) -> Vec<String> {
    let mut lines = logged();
    lines.retain(|line| line.contains(&format!(": {channel:?}: ")));
    lines
}
