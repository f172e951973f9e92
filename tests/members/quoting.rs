//! Whatever the host calls its channel, itself and its tags: Postgres takes it for text.

use std::collections::BTreeMap;

use pg_peers::{Config, Event};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use crate::support::*;

/// Settings that change how Postgres reads a string.
fn settings() -> impl Strategy<Value = (bool, &'static str)> {
    let quotes = prop::sample::select(vec!["on", "off", "safe_encoding"]);
    (any::<bool>(), quotes)
}

/// What ends, begins, or looks like something in SQL.
const FRAGMENTS: [&str; 24] = [
    "'",
    "''",
    "\"",
    "\\",
    "\\'",
    "\\\\",
    "$$",
    "$a$",
    "--",
    "/*",
    "*/",
    ";",
    "E'",
    "U&\"\\0027\"",
    "\\047",
    "\\x27",
    "\\u0027",
    "'; DROP TABLE canary; --",
    "\"; DROP TABLE canary; --",
    "\\'; DROP TABLE canary; --",
    "%27",
    " ",
    "pg-peers/1 bye",
    "😀",
];

/// Not empty, at most this many bytes, made of characters that the configuration allows.
fn text(bytes: usize) -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => prop::sample::select(FRAGMENTS.to_vec()).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
        1 => "[a-zA-Z0-9]{1,8}",
        1 => (0x1_0000..0x11_0000_u32).prop_filter_map("a character", char::from_u32).prop_map(String::from),
    ];
    prop::collection::vec(part, 1..16).prop_filter_map("valid", move |parts| {
        let mut text: String = parts.concat();
        text.retain(is_allowed);
        while text.len() > bytes {
            text.pop();
        }
        (!text.is_empty()).then_some(text)
    })
}

/// Asks the configuration, by a name of this character: what it says next is that there is no host.
fn is_allowed(c: char) -> bool {
    let refusal = Config::new(c).join("user=nobody").expect_err("no host");
    refusal.to_string().contains("no host")
}

type Tags = BTreeMap<String, String>;

fn tags() -> impl Strategy<Value = Tags> {
    prop::collection::btree_map(text(60), text(120), 0..5)
}

#[test]
fn nothing_breaks_out_of_its_quotes_and_all_of_it_arrives() {
    let server = Server::start();
    // The members are superusers: whatever broke out could do anything.
    server.run("CREATE TABLE canary (alive boolean); INSERT INTO canary VALUES (true)");
    let before = catalog(&server);
    let cases = Cases {
        cases: 48,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Cases::default()
    };
    let example = (settings(), text(63), text(63), text(63), tags(), tags());
    let outcome = TestRunner::new(cases).run(
        &example,
        |(settings, channel, name, other, first, later)| {
            prop_assume!(name != other);
            meet(&server, settings, &channel, [&name, &other], &first, &later);
            assert_eq!(catalog(&server), before);
            Ok(())
        },
    );
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn shapes_known_to_be_hard_arrive_too() {
    let server = Server::start();
    server.run("CREATE TABLE canary (alive boolean)");
    let before = catalog(&server);
    let long = "n".repeat(63);
    let wide = "😀".repeat(15);
    for channel in [
        "UPPER",
        "with space",
        "quote\"d",
        "a'b\\c;--",
        "größe😀",
        "1",
        "*",
        "%s",
        "\\",
        "\"",
        "'",
        &long,
        &wide,
    ] {
        for settings in [(true, "safe_encoding"), (false, "on"), (false, "off")] {
            let first = Tags::from([(channel.to_owned(), "\\'\\".to_owned())]);
            let later = Tags::from([("k\\".to_owned(), channel.to_owned())]);
            let names = [channel, "b'\\\"; drop"];
            meet(&server, settings, channel, names, &first, &later);
        }
    }
    assert_eq!(catalog(&server), before);
}

/// Two members meet, with tags and with others, and hear what a third party says on a channel of exactly that name.
fn meet(
    server: &Server,
    (conforming, backslash_quote): (bool, &str),
    channel: &str,
    [name, other]: [&str; 2],
    first: &Tags,
    later: &Tags,
) {
    let conforming = if conforming { "on" } else { "off" };
    let params = format!(
        "{} options='-c standard_conforming_strings={conforming} -c backslash_quote={backslash_quote}'",
        server.params()
    );
    let config = |name: &str| Config::new(name).channel(channel);
    let mut announcer = config(name);
    for (key, value) in first {
        announcer = announcer.tag(key, value);
    }
    let a = announcer.join(&params).expect("valid");
    expect(&a, "online");
    let b = config(other).join(&params).expect("valid");
    expect(&b, "online");
    expect(&a, &format!("join {other}"));
    let joined = expect(&b, &format!("join {name}"));
    assert_eq!(&tags_of(&joined), first);
    if first != later {
        a.set_tags(later).expect("valid");
        let updated = expect(&b, &format!("update {name}"));
        assert_eq!(&tags_of(&updated), later);
    }
    let mut third = server.client();
    let statement = "SELECT pg_notify($1, 'third@party')";
    third.execute(statement, &[&channel]).expect("a channel");
    for member in [&a, &b] {
        expect(member, "join third@party");
    }
}

fn tags_of(event: &Event) -> Tags {
    let tags = event.peer().expect("a peer").tags();
    tags.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// What there is to be broken.
fn catalog(server: &Server) -> Vec<String> {
    let rows = server
        .client()
        .query(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
             UNION ALL SELECT alive::text FROM canary UNION ALL SELECT rolname FROM pg_roles ORDER BY 1",
            &[],
        )
        .expect("the canary");
    rows.iter().map(|row| row.get(0)).collect()
}
