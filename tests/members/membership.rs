//! Joining, updating, leaving, healing, watching: what a host sees of its peers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_peers::postgres::{Client, NoTls};
use pg_peers::{Config, Event};

use crate::support::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

#[test]
fn what_online_says_is_shown_by_then() {
    let server = Server::start();
    thread::scope(|scope| {
        for n in 0..30 {
            let server = &server;
            scope.spawn(move || {
                let member = join(server, &format!("m{n}"));
                let status = member.status();
                assert!(status.online && status.incarnation.is_some(), "{status:?}");
            });
        }
    });
}

#[test]
fn three_members_find_each_other() {
    let server = Server::start();
    let a = join(&server, "a");
    let b = join(&server, "b");
    expect(&b, "join a");
    expect(&a, "join b");
    let c = join(&server, "c");
    expect_all(&c, &["join a", "join b"]);
    expect(&a, "join c");
    expect(&b, "join c");
    assert_eq!(names(&c), ["a", "b"]);
    let peer = &c.peers()[0];
    assert_eq!(peer.incarnation(), a.status().incarnation);
}

#[test]
fn members_meet_over_a_unix_socket_and_by_url() {
    let server = Server::start();
    let a = Config::new("a")
        .join(&server.socket_params())
        .expect("valid");
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port());
    let b = Config::new("b").join(&url).expect("valid");
    a.wait_for_peers(1, PATIENCE).expect("b");
    b.wait_for_peers(1, PATIENCE).expect("a");
}

#[test]
fn a_connection_can_be_opened_by_the_host() {
    let server = Server::start();
    let params = server.params();
    let connect = move || Client::connect(&params, NoTls);
    let a = Config::new("a").join_with(connect).expect("valid");
    let b = join(&server, "b");
    expect(&a, "online");
    expect(&a, "join b");
    expect(&b, "join a");
}

#[test]
fn a_connection_that_listens_to_more_brings_nothing_from_there() {
    let server = Server::start();
    let params = server.params();
    let connect = move || {
        let mut client = Client::connect(&params, NoTls)?;
        client.batch_execute("LISTEN other")?;
        Ok::<_, postgres::Error>(client)
    };
    let a = Config::new("a").join_with(connect).expect("valid");
    expect(&a, "online");
    let elsewhere = online(Config::new("b").channel("other"), &server);
    let c = join(&server, "c");
    expect(&a, "join c");
    fence(&c, &a);
    assert_eq!(elsewhere.peers(), []);
}

#[test]
fn a_connection_can_be_secured_by_any_connector() {
    let server = Server::start();
    let a = Config::new("a")
        .join_tls(&server.params(), NoTls)
        .expect("valid");
    expect(&a, "online");
}

#[test]
fn channels_are_separate() {
    let server = Server::start();
    let a = online(Config::new("a").channel("one"), &server);
    let b = online(Config::new("b").channel("two"), &server);
    let c = online(Config::new("c").channel("one"), &server);
    expect(&a, "join c");
    expect(&c, "join a");
    assert_eq!(b.peers(), []);
}

#[test]
fn a_member_starts_with_tags_and_changes_them() {
    let server = Server::start();
    let a = online(
        Config::new("a").tag("zone", "eu 1").tag("naïve=%;", "½\\'"),
        &server,
    );
    let b = online(Config::new("b").heartbeat_interval(HOUR), &server);
    let joined = expect(&b, "join a");
    let peer = joined.peer().expect("a peer");
    assert_eq!(peer.tag("zone"), Some("eu 1"));
    assert_eq!(peer.tag("naïve=%;"), Some("½\\'"));
    a.set_tags([("role", "leader")]).expect("valid");
    let updated = expect(&b, "update a");
    let tags: Vec<_> = updated.peer().expect("a peer").tags().collect();
    assert_eq!(tags, [("role", "leader")]);
    assert_eq!(b.peers()[0].tag("role"), Some("leader"));

    let error = a.set_tags([("", "x")]).expect_err("a key that is empty");
    assert!(error.is_config());
    fence(&a, &b);
}

#[test]
fn one_tag_is_changed_and_the_others_stay() {
    const THREADS: usize = 8;
    let server = Server::start();
    let rare = |name| Config::new(name).heartbeat_interval(HOUR);
    let a = online(rare("a").tag("zone", "eu-1"), &server);
    let b = online(rare("b"), &server);
    expect(&b, "join a");
    a.set_tag("state", "busy").expect("valid");
    let updated = expect(&b, "update a");
    let seen = |event: &Event| -> BTreeMap<String, String> {
        let tags = event.peer().expect("a peer").tags();
        tags.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let expected = [("state", "busy"), ("zone", "eu-1")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(seen(&updated), BTreeMap::from(expected));
    assert_eq!(a.tags(), seen(&updated));
    a.remove_tag("zone").expect("it is there");
    let updated = expect(&b, "update a");
    assert_eq!(updated.peer().expect("a peer").tag("zone"), None);
    assert_eq!(a.tags(), seen(&updated));

    // What changes nothing is not announced.
    let announced = a.status().announced;
    a.remove_tag("zone").expect("it is gone already");
    a.set_tag("state", "busy").expect("it is so already");
    let error = a.set_tag("state", "\0").expect_err("a control character");
    assert!(error.is_config(), "{error}");
    assert_eq!(a.tags(), seen(&updated));
    thread::scope(|scope| {
        for n in 0..THREADS {
            let a = &a;
            scope.spawn(move || a.set_tag(&format!("of-{n}"), "1").expect("valid"));
        }
    });
    assert_eq!(a.tags().len(), 1 + THREADS);
    let all = || {
        b.peer("a")
            .is_some_and(|peer| peer.tags().count() == 1 + THREADS)
    };
    eventually("what each thread set", all);
    let most = announced + THREADS as u64 + 1;
    assert!(a.status().announced <= most, "{announced} before");
}

#[test]
fn leaving_and_dropping_are_goodbyes() {
    let server = Server::start();
    let a = online(Config::new("a").heartbeat_interval(HOUR), &server);
    let b = online(Config::new("b").heartbeat_interval(HOUR), &server);
    let c = online(Config::new("c").heartbeat_interval(HOUR), &server);
    expect_all(&a, &["join b", "join c"]);
    let start = Instant::now();
    b.leave().expect("a goodbye");
    expect(&a, "leave b: Goodbye");
    drop(c);
    expect(&a, "leave c: Goodbye");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let again = join(&server, "b");
    expect(&a, "join b");
    drop(again);
}

#[test]
fn the_events_end_when_the_cluster_is_left() {
    let server = Server::start();
    let a = join(&server, "a");
    let events = a.events().clone();
    a.leave().expect("a goodbye");
    assert_eq!(events.iter().count(), 0);
}

#[test]
fn a_process_that_dies_expires() {
    let server = Server::start();
    // Else it may find the session gone first.
    let a = Config::new("a")
        .heartbeat_interval(SHORT)
        .session_check(false);
    let a = online(a, &server);
    let process = Process::join(&server, "victim");
    expect(&a, "join victim");
    process.kill();
    expect(&a, "leave victim: Expired");
    assert_eq!(a.peers(), []);
}

#[test]
fn a_peer_that_the_host_lost_heals_with_its_next_announcement() {
    let server = Server::start();
    let a = join_short(&server, "a");
    let _b = join_short(&server, "b");
    let joined = expect(&a, "join b");
    let first = joined.peer().expect("a peer");
    a.report_unreachable(first);
    expect(&a, "heal b");
    assert_eq!(names(&a), ["b"]);
    // Another start of it is another peer.
    let _b = join_short(&server, "b");
    expect(&a, "leave b: Replaced");
    expect(&a, "join b");
    a.report_unreachable(first);
    expect_nothing(&a);
    a.report_unreachable(&a.peer("b").expect("a peer"));
    expect(&a, "heal b");
    assert_eq!(a.peer("nobody"), None);
}

#[test]
fn a_handle_can_be_shared_and_left_from_any_thread() {
    fn shared<T: Send + Sync + 'static>(it: T) -> std::sync::Arc<T> {
        std::sync::Arc::new(it)
    }
    let server = Server::start();
    let a = join_short(&server, "a");
    let b = shared(join_short(&server, "b"));
    let joined = expect(&a, "join b");
    let leaver = std::sync::Arc::clone(&b);
    let left = thread::spawn(move || leaver.leave()).join();
    left.expect("no panic").expect("a goodbye");
    expect(&a, "leave b: Goodbye");
    b.leave().expect("it has left");
    assert!(b.events().iter().count() <= 1, "the join of a at most");
    let peers: std::collections::HashSet<_> = joined.peer().into_iter().collect();
    assert_eq!(peers.len(), 1);
}

#[test]
fn a_replaced_process_is_told_at_every_turn() {
    let server = Server::start();
    let old = join_short(&server, "a");
    let new = join_short(&server, "a");
    expect(&old, "name taken: a");
    assert!(old.status().name_taken && !new.status().name_taken);
    let at_once = Duration::from_secs(60);
    for error in [
        old.wait_online(at_once).expect_err("replaced"),
        old.set_tags([("k", "v")]).expect_err("replaced"),
    ] {
        assert!(error.is_name_taken(), "{error:?}");
        assert!(error.to_string().contains("\"a\""), "{error}");
    }
    new.wait_online(PATIENCE).expect("online");
    // It still hears who comes.
    let _b = join_short(&server, "b");
    expect(&old, "join b");
}

#[test]
fn an_observer_sees_and_is_not_seen() {
    let server = Server::start();
    let a = join_short(&server, "a");
    let observer = online(Config::observer().heartbeat_interval(SHORT), &server);
    expect(&observer, "join a");
    assert_eq!(observer.name(), None);
    assert_eq!(observer.status().incarnation, None);
    for refused in [
        observer.set_tags([("k", "v")]),
        observer.set_tag("k", "v"),
        observer.remove_tag("k"),
    ] {
        let error = refused.expect_err("no tags");
        assert!(error.is_config(), "{error}");
    }
    assert!(observer.tags().is_empty());
    let b = join_short(&server, "b");
    expect(&observer, "join b");
    expect(&a, "join b");
    let before = observer.status().round_trip;
    eventually("another look at how far the server is", || {
        observer.status().round_trip != before
    });
    assert_eq!(observer.status().announced, 0);
    b.leave().expect("a goodbye");
    expect(&observer, "leave b: Goodbye");
    expect(&a, "leave b: Goodbye");
    observer.leave().expect("nothing to say");
    fence(&join_short(&server, "c"), &{
        expect(&a, "join c");
        a
    });
}

#[test]
fn a_bare_name_is_all_that_an_elixir_node_is_told() {
    let server = Server::start();
    let mut elixir = Raw::listen(&server, "cluster");
    let config = || Config::new("rust@10.0.0.2").heartbeat_interval(SHORT);
    let a = online(config().bare_name(true), &server);
    assert_eq!(elixir.hear(""), "rust@10.0.0.2");
    assert_eq!(elixir.hear(""), "rust@10.0.0.2");
    elixir.say("elixir@10.0.0.3");
    expect(&a, "join elixir@10.0.0.3");
    let b = online(Config::new("b").bare_heartbeat_interval(SHORT), &server);
    elixir.hear("hello name=b ");
    expect(&a, "join b");
    expect(&b, "join rust@10.0.0.2");
    // No goodbye: that would be an atom there.
    a.leave().expect("nothing to say");
    expect(&b, "leave rust@10.0.0.2: Expired");
    elixir.say("end");
    loop {
        match elixir.hear("").as_str() {
            "end" => break,
            heard => assert!(
                heard == "rust@10.0.0.2" || heard.contains("name=b "),
                "{heard}"
            ),
        }
    }
}

#[test]
fn an_observer_of_elixir_nodes_tells_them_nothing() {
    let server = Server::start();
    let mut elixir = Raw::listen(&server, "cluster");
    let config = Config::observer().bare_name(true);
    let observer = online(config.heartbeat_interval(SHORT), &server);
    elixir.say("elixir@10.0.0.3");
    expect(&observer, "join elixir@10.0.0.3");
    // Also when it connects again.
    server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pg_peers%'");
    expect_all(&observer, &["offline", "online"]);
    elixir.say("elixir@10.0.0.4");
    expect(&observer, "join elixir@10.0.0.4");
    eventually("two heartbeats more", || {
        elixir.say("elixir@10.0.0.4");
        observer.status().heard > 5
    });
    elixir.say("end");
    loop {
        match elixir.hear("").as_str() {
            "end" => break,
            heard => assert!(heard.starts_with("elixir@"), "{heard}"),
        }
    }
}

#[test]
fn a_bare_name_that_others_announce_too_is_not_a_broken_link() {
    let server = Server::start();
    let config = |interval| {
        Config::new("twin@10.0.0.2")
            .bare_name(true)
            .heartbeat_interval(interval)
    };
    let a = online(config(Duration::from_millis(1)), &server);
    let b = online(config(Duration::from_millis(1)), &server);
    for twin in [&a, &b] {
        let announced = twin.status().announced;
        eventually("many heartbeats", || {
            twin.status().announced > announced + 500
        });
        expect_nothing(twin);
    }
}

#[test]
fn waiting_has_an_end_and_says_what_is_missing() {
    let server = Server::start();
    let a = join(&server, "a");
    a.wait_online(Duration::ZERO).expect("online already");
    let error = a
        .wait_for_peers(2, Duration::from_millis(10))
        .expect_err("alone");
    assert!(error.is_timeout());
    assert_eq!(error.to_string(), "0 of 2 peers within 10ms");
    assert_eq!(a.wait_for_peers(0, Duration::MAX).expect("enough"), []);
}

#[test]
fn several_clusters_live_in_one_program() {
    fn shared<T: Send + Sync>(_: &T) {}
    let server = Server::start();
    let clusters: Vec<_> = (0..20)
        .map(|i| join(&server, &format!("m{i:02}")))
        .collect();
    shared(&clusters[0]);
    for cluster in &clusters {
        let peers = cluster.wait_for_peers(19, PATIENCE).expect("everybody");
        assert_eq!(peers.len(), 19);
    }
}

#[test]
fn a_request_is_seen_without_a_connection_that_wakes() {
    let server = Server::start();
    let params = server.params();
    let calls = AtomicUsize::new(0);
    let mute = Config::new("mute").join_with(move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Client::connect(&params, NoTls),
        2 => panic!("as a closure of the host's may"),
        _ => Client::connect("host=127.0.0.1 port=1 user=postgres", NoTls),
    });
    let mute = mute.expect("valid");
    expect(&mute, "online");
    let watcher = join(&server, "watcher");
    expect(&watcher, "join mute");
    for version in ["1", "2"] {
        mute.set_tags([("v", version)]).expect("tags");
        let event = expect(&watcher, "update mute");
        assert_eq!(event.peer().expect("a peer").tag("v"), Some(version));
    }
    mute.leave().expect("a goodbye");
    expect(&watcher, "leave mute: Goodbye");
}

#[test]
fn peer_infos_say_when_and_from_which_backend() {
    let server = Server::start();
    let a = join_short(&server, "a");
    let observer = online(Config::observer(), &server);
    expect(&observer, "join a");
    let mut elixir = Raw::listen(&server, "cluster");
    elixir.say("elixir@10.0.0.9");
    expect_all(&observer, &["join elixir@10.0.0.9"]);
    let look = || {
        let infos = observer.peer_infos().recv_timeout(PATIENCE);
        infos.expect("an answer")
    };
    let first = look();
    let [full, bare] = &first[..] else {
        panic!("{first:?}")
    };
    assert_eq!(full.peer, observer.peers()[0]);
    assert_eq!(full.interval, SHORT);
    assert_eq!(full.backend, Some(backend_of(&server, "a")));
    assert_eq!(bare.peer.name(), "elixir@10.0.0.9");
    assert_eq!(
        (bare.interval, bare.backend),
        (Duration::from_secs(5), None)
    );
    for info in &first {
        assert!(info.heard <= Instant::now(), "{info:?}");
    }
    eventually("a is heard again", || look()[0].heard > full.heard);
    elixir.say("elixir@10.0.0.9");
    eventually("its session is known", || look()[1].backend.is_some());
    a.leave().expect("a goodbye");
    expect(&observer, "leave a: Goodbye");
    assert_eq!(look().len(), 1);
}

#[test]
fn peer_infos_are_told_while_the_server_is_down() {
    let mut server = Server::start();
    let _a = join(&server, "a");
    let observer = online(Config::observer(), &server);
    expect(&observer, "join a");
    server.stop(Stop::Fast);
    expect(&observer, "offline");
    let infos = observer.peer_infos().recv_timeout(PATIENCE).expect("told");
    assert_eq!(infos[0].peer.name(), "a");
    // A server that comes back numbers its backends anew.
    assert_eq!(infos[0].backend, None);
}

#[test]
fn a_member_that_has_left_says_so() {
    let server = Server::start();
    let [a, _b] = acquainted(["a", "b"].map(Config::new), &server.params());
    a.leave().expect("a goodbye");
    let infos = a.peer_infos().recv_timeout(PATIENCE);
    assert!(infos.is_err_and(|error| error.is_disconnected()));
    let errors = [
        a.wait_online(PATIENCE).map(drop),
        a.wait_for_peers(1, PATIENCE).map(drop),
        a.set_tag("k", "v"),
    ];
    for error in errors.map(|outcome| outcome.expect_err("it has left")) {
        assert!(error.is_link(), "{error}");
        assert!(
            error.to_string().contains("has left the cluster"),
            "{error}"
        );
    }
}
