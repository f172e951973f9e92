//! A host that does not drain its events: bounded, late, and still told the truth.

use std::collections::BTreeSet;

use pg_peers::{Config, Event};

use crate::support::*;

#[test]
fn a_host_that_drains_late_learns_what_leads_to_the_truth() {
    let server = Server::start();
    let host = online(Config::new("host"), &server);
    let watcher = online(Config::new("watcher"), &server);
    expect(&watcher, "join host");
    let mut raw = Raw::listen(&server, "cluster");
    let peer = |kind: &str, i: u32, seq: u32| {
        format!("pg-peers/1 {kind} name=p{i:03} inc=1 seq={seq} due=60000;")
    };
    // Far more than the channel holds, and then most of them leave again, several times over.
    for round in 0..3 {
        for i in 0..500 {
            let inc = format!("inc={}", round + 1);
            raw.say(&peer("beat", i, 1).replace("inc=1", &inc));
            if i % 10 != 0 {
                raw.say(&peer("bye", i, 2).replace("inc=1", &inc));
            }
        }
    }
    watcher.set_tags([("last", "1")]).expect("tags");
    eventually("everything heard", || {
        let peers = host.peers();
        peers.len() == 51 && peers.iter().any(|peer| peer.tag("last") == Some("1"))
    });
    // Its own heartbeats went out meanwhile, and what waits is less than what happened.
    assert!(host.status().undelivered <= 510, "{:?}", host.status());

    let mut told = BTreeSet::new();
    eventually("the truth", || {
        for event in host.events().try_iter() {
            match event {
                Event::Join(peer) => assert!(told.insert(peer.name().to_owned()), "{peer:?} twice"),
                Event::Heal(peer) => drop(told.insert(peer.name().to_owned())),
                Event::Update(peer) => assert!(told.contains(peer.name()), "{peer:?}"),
                Event::Leave(peer, _) => {
                    assert!(told.remove(peer.name()), "{peer:?} was not there")
                }
                other => panic!("{other:?}"),
            }
        }
        told.iter().eq(&names(&host)) && host.status().undelivered == 0
    });
}

#[test]
fn a_host_that_never_drains_keeps_its_place_in_the_cluster() {
    let server = Server::start();
    let deaf = Config::new("deaf")
        .heartbeat_interval(SHORT)
        .delivery_budget(u32::MAX)
        .join(&server.params())
        .expect("valid");
    deaf.wait_online(PATIENCE).expect("online");
    let watcher = join_short(&server, "watcher");
    expect(&watcher, "join deaf");
    let mut raw = Raw::listen(&server, "cluster");
    for i in 0..2_000 {
        let (name, inc) = (i % 400, i / 400 + 1);
        raw.say(&format!(
            "pg-peers/1 hello name=p{name} inc={inc} seq=1 due=60000;"
        ));
    }
    eventually("everything heard", || deaf.peers().len() == 401);
    assert!(deaf.events().is_full());
    // At most the departure of one incarnation and the arrival of another for each name.
    assert!(deaf.status().undelivered <= 2 * 401, "{:?}", deaf.status());
    let announced = deaf.status().announced;
    eventually("heartbeats go on", || {
        deaf.status().announced >= announced + 10
    });
    assert!(names(&watcher).contains(&"deaf".to_owned()));
}
