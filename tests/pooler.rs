//! PgBouncer: transaction and statement mode are recognised, session mode works.

mod support;

use pg_peers::{Config, Event};
use support::*;

#[test]
fn rule_3_a_transaction_pooler_is_refused_with_advice() {
    for mode in ["transaction", "statement"] {
        let server = Server::start();
        let Some(pooler) = PgBouncer::start(&server, mode) else {
            return;
        };
        let a = Config::new("a").join(&pooler.params()).expect("valid");
        let Event::Offline(reason) = expect(&a, "offline") else {
            panic!("offline")
        };
        assert!(reason.is_pooler(), "{mode}: {reason}");
        let text = reason.to_string();
        assert!(
            text.contains("directly") && text.contains("session mode"),
            "{text}"
        );
        a.leave()
            .expect("nothing was said that a goodbye would take back");
    }
}

#[test]
fn a_session_pooler_works() {
    let server = Server::start();
    let Some(pooler) = PgBouncer::start(&server, "session") else {
        return;
    };
    let a = Config::new("a").join(&pooler.params()).expect("valid");
    expect(&a, "online");
    let b = join(&server, "b");
    expect(&a, "join b");
    expect(&b, "join a");
    drop(pooler);
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    assert!(reason.is_link(), "{reason}");
}

#[test]
fn a_pool_without_room_for_a_second_session_is_told_apart() {
    let server = Server::start();
    let Some(pooler) = PgBouncer::start_with(&server, "session", "default_pool_size = 1") else {
        return;
    };
    let a = Config::new("a").join(&pooler.params()).expect("valid");
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    let text = reason.to_string();
    assert!(text.contains("leave room for one more session"), "{text}");
}
