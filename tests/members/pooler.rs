//! PgBouncer: transaction and statement mode are recognised, session mode works. And what is not a pooler is not called one.

use std::time::Duration;

use pg_peers::{Config, Event};

use crate::support::*;

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
        for part in [
            "directly",
            "session mode",
            "our own came back",
            "to the same server",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
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

#[test]
fn two_servers_behind_one_name_are_not_called_a_pooler() {
    let servers = [Server::start(), Server::start()];
    let balancer = Proxy::start(&servers[0], Duration::ZERO);
    balancer.balance(servers.each_ref().map(Server::port));
    let a = Config::new("a").join(&balancer.params()).expect("valid");
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    assert!(reason.is_link() && !reason.is_pooler(), "{reason}");
    let text = reason.to_string();
    assert!(
        text.contains("two servers") && text.contains("balancer"),
        "{text}"
    );
    assert!(!text.contains("pool"), "{text}");
    balancer.lead_to(servers[1].port());
    expect(&a, "online");

    // The same after a reconnect, whose proof comes in the background.
    balancer.balance(servers.each_ref().map(Server::port));
    servers[1].run(&format!(
        "SELECT pg_terminate_backend({})",
        backend_of(&servers[1], "a")
    ));
    expect(&a, "offline");
    expect(&a, "online");
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    assert!(!reason.is_pooler(), "{reason}");
    assert!(reason.to_string().contains("two servers"), "{reason}");
}

#[test]
fn a_way_that_now_leads_to_a_transaction_pooler_is_found_out() {
    let server = Server::start();
    let Some(pooler) = PgBouncer::start(&server, "transaction") else {
        return;
    };
    let way = Proxy::start(&server, Duration::ZERO);
    let a = Config::new("a").join(&way.params()).expect("valid");
    expect(&a, "online");
    way.lead_to(pooler.port());
    server.run(&format!(
        "SELECT pg_terminate_backend({})",
        backend_of(&server, "a")
    ));
    expect(&a, "offline");
    eventually("its reason", || {
        let event = next(&a, "an event");
        // Or our session was the other's for a moment, and is not any more.
        let not_ours = "does not listen any more";
        matches!(event, Event::Offline(reason) if reason.is_pooler() || reason.to_string().contains(not_ours))
    });
}

#[test]
fn both_causes_are_said_where_the_role_may_not_see_the_server() {
    let servers = [Server::start(), Server::start()];
    for server in &servers {
        server.run("REVOKE EXECUTE ON FUNCTION pg_postmaster_start_time() FROM PUBLIC; CREATE ROLE app LOGIN");
    }
    let balancer = Proxy::start(&servers[0], Duration::ZERO);
    balancer.balance(servers.each_ref().map(Server::port));
    let params = balancer
        .params()
        .replace("user=postgres", "user=app dbname=postgres");
    let a = Config::new("a").join(&params).expect("valid");
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    let text = reason.to_string();
    let (pooler, balancer) = (text.find("pooler"), text.find("two servers"));
    assert!(pooler.is_some() && pooler < balancer, "{text}");
}
