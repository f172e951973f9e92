//! The rules of membership, each against a real server. `src/core/roster/tests.rs` has those of the pure core.

use std::time::{Duration, Instant};

use pg_peers::{Config, Event, Incarnation};

use crate::support::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

#[test]
fn rule_1_a_restart_replaces_its_predecessor() {
    let server = Server::start();
    let watcher = join_short(&server, "watcher");
    let first = Process::join(&server, "a");
    let before = incarnation(&expect(&watcher, "join a"));
    first.kill();
    let second = Process::join(&server, "a");
    let gone = expect(&watcher, "leave a: Replaced");
    assert_eq!(incarnation(&gone), before);
    let after = incarnation(&expect(&watcher, "join a"));
    assert!(after > before, "{after:?} > {before:?}");
    second.kill();
}

#[test]
fn rule_1_a_process_whose_name_is_taken_falls_silent() {
    let server = Server::start();
    let watcher = join_short(&server, "watcher");
    let old = join_short(&server, "a");
    expect(&watcher, "join a");
    expect(&old, "join watcher");
    let new = join_short(&server, "a");
    let taken = expect(&old, "name taken: a");
    assert_eq!(incarnation(&taken), new.status().incarnation);
    expect_all(&watcher, &["leave a: Replaced", "join a"]);
    expect(&new, "join watcher");

    // It still hears, says nothing more, and its leaving is not the other's.
    let announced = old.status().announced;
    fence(&watcher, &old);
    old.leave().expect("nothing to say");
    fence(&new, &watcher);
    assert!(announced > 0);
    assert_eq!(names(&watcher), ["a"]);
    expect_nothing(&watcher);
}

#[test]
fn rule_1_a_start_supersedes_what_only_its_peers_remember() {
    let server = Server::start();
    let watcher = join(&server, "watcher");
    // The predecessor's clock was a year ahead, and it has said goodbye.
    let mut raw = Raw::listen(&server, "cluster");
    let ahead = watcher.status().incarnation.expect("one").get() + 365 * 86_400 * 1_000_000;
    raw.say(&format!(
        "pg-peers/1 hello name=a inc={ahead} seq=1 due=5000;"
    ));
    raw.say(&format!("pg-peers/1 bye name=a inc={ahead} seq=2;"));
    expect(&watcher, "join a");
    expect(&watcher, "leave a: Goodbye");

    let a = join(&server, "a");
    let joined = expect(&watcher, "join a");
    assert!(incarnation(&joined).expect("one").get() > ahead);
    expect(&a, "join watcher");
    fence(&watcher, &a);
    expect_nothing(&a);
}

#[test]
fn rule_1_twins_part_and_the_goodbye_of_one_is_not_the_others() {
    let server = Server::start();
    let watcher = join(&server, "watcher");
    let a = online(Config::new("a").heartbeat_interval(HOUR), &server);
    let joined = incarnation(&expect(&watcher, "join a")).expect("one");
    expect(&a, "join watcher");
    // A machine that was cloned while it ran goes on from where the other was.
    let mut twin = Raw::listen(&server, "cluster");
    let start = joined.get();
    twin.say(&format!(
        "pg-peers/1 beat name=a inc={start} seq=50 due=3600000;"
    ));
    expect(&watcher, "leave a: Replaced");
    let parted = incarnation(&expect(&watcher, "join a")).expect("one");
    assert!(parted > joined);
    eventually("its new start", || a.status().incarnation == Some(parted));
    twin.say(&format!("pg-peers/1 bye name=a inc={start} seq=51;"));
    fence(&a, &watcher);
    assert_eq!(names(&watcher), ["a"]);
    expect_nothing(&watcher);
    expect_nothing(&a);
}

#[test]
fn rule_2_expiry_follows_the_interval_that_the_peer_announced() {
    let server = Server::start();
    let watcher = online(Config::new("watcher").missed_heartbeats(2), &server);
    let mut raw = Raw::listen(&server, "cluster");
    let start = Instant::now();
    raw.say("pg-peers/1 hello name=quick inc=1 seq=1 due=100;");
    raw.say("pg-peers/1 hello name=slow inc=1 seq=1 due=60000;");
    expect(&watcher, "join quick");
    expect(&watcher, "join slow");
    expect(&watcher, "leave quick: Expired");
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "not by its own 5 s"
    );
    assert_eq!(names(&watcher), ["slow"]);
}

#[test]
fn rule_3_online_means_hearing_and_being_heard() {
    let server = Server::start();
    let mut raw = Raw::listen(&server, "cluster");
    let a = Config::new("a")
        .heartbeat_interval(HOUR)
        .join(&server.params())
        .expect("valid");
    expect(&a, "online");
    // Its hello is out by now, and it hears what comes after.
    raw.say("pg-peers/1 beat name=x inc=1 seq=1 due=5000;");
    assert!(raw.hear("name=").starts_with("pg-peers/1 hello name=a "));
    expect(&a, "join x");
    let status = a.status();
    assert!(status.online && status.announced >= 1);
    assert!(status.round_trip.expect("its own announcement came back") < PATIENCE);
    // The probe's connection is gone; one session stays, and an operator sees whose it is.
    let mut client = server.client();
    eventually("one session", || {
        let sql = "SELECT string_agg(application_name, ',') FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
                   AND query NOT LIKE '%NOTIFY \"cluster\", ''%'";
        let row = client.query_one(sql, &[]).expect("a row");
        row.get::<_, Option<String>>(0).as_deref() == Some("a")
    });
}

#[test]
fn rule_4_nobody_expires_while_the_link_is_down() {
    let mut server = Server::start();
    let heartbeat = Duration::from_millis(400);
    let member = |name: &str| online(Config::new(name).heartbeat_interval(heartbeat), &server);
    let (a, b) = (member("a"), member("b"));
    expect(&a, "join b");
    expect(&b, "join a");
    server.stop(Stop::Fast);
    expect(&a, "offline");
    expect(&b, "offline");
    // Twice as long as an expiry takes.
    std::thread::sleep(heartbeat * 6);
    server.start_again();
    expect(&a, "online");
    expect(&b, "online");
    fence(&a, &b);
    fence(&b, &a);
    assert_eq!((names(&a), names(&b)), (vec!["b".into()], vec!["a".into()]));
}

#[test]
fn rule_4_no_peer_expires_while_our_own_link_is_silent() {
    let mut server = Server::start();
    let a = join(&server, "a");
    let b = join_short(&server, "b");
    expect(&a, "join b");
    expect(&b, "join a");
    // Frozen for far longer than b's expiry, and noticed before a's own next heartbeat.
    server.freeze_backends(&["a"]);
    expect(&a, "offline");
    expect(&a, "online");
    fence(&b, &a);
    server.thaw();
}

#[test]
fn rule_5_a_process_that_was_paused_drops_nobody() {
    let server = Server::start();
    let a = join_short(&server, "a");
    let mut paused = Process::join(&server, "paused");
    paused.expect("join a");
    expect(&a, "join paused");
    paused.freeze();
    expect(&a, "leave paused: Expired");
    paused.thaw();
    expect(&a, "heal paused");
    a.set_tags([("seen", "1")]).expect("tags");
    paused.expect("update a");
    paused.expect_nothing();
}

#[test]
fn rule_5_what_waits_is_heard_before_anyone_expires() {
    let server = Server::start();
    let quick = Config::new("quick").heartbeat_interval(Duration::from_millis(100));
    let quick = online(quick, &server);
    // Its own heartbeats are too rare to read for it what waits.
    let mut paused = Process::join_with(&server, "paused", HOUR);
    paused.expect("join quick");
    expect(&quick, "join paused");
    for round in 0..5 {
        paused.freeze();
        // Three expiries, and less than what counts as a pause.
        std::thread::sleep(Duration::from_millis(900));
        paused.thaw();
        quick
            .set_tags([("round", format!("{round}"))])
            .expect("tags");
        paused.expect("update quick");
    }
    paused.expect_nothing();
}

#[test]
fn rule_6_a_newcomer_knows_everybody_at_once() {
    let server = Server::start();
    let slow = |name: &str| online(Config::new(name).heartbeat_interval(HOUR), &server);
    let members: Vec<_> = (0..10).map(|i| slow(&format!("m{i}"))).collect();
    for member in &members {
        member.wait_for_peers(9, PATIENCE).expect("the others");
    }
    let start = Instant::now();
    let newcomer = slow("newcomer");
    newcomer.wait_for_peers(10, PATIENCE).expect("everybody");
    for member in &members {
        member.wait_for_peers(10, PATIENCE).expect("the newcomer");
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn rule_7_after_a_goodbye_nothing_old_matters() {
    let server = Server::start();
    let a = join(&server, "a");
    let mut raw = Raw::listen(&server, "cluster");
    let b = join(&server, "b");
    expect(&a, "join b");
    let hello = raw.hear("hello name=b ");
    b.leave().expect("a goodbye");
    let bye = raw.hear("bye name=b ");
    expect(&a, "leave b: Goodbye");
    raw.say(&hello);
    raw.say(&bye);
    // Not even a heartbeat that was on its way longer than the goodbye.
    raw.say(&hello.replace("hello", "beat").replace("seq=1 ", "seq=99 "));
    let c = join(&server, "c");
    expect(&a, "join c");
    fence(&c, &a);
    expect_nothing(&a);
}

#[test]
fn rule_8_a_bare_node_name_is_a_heartbeat() {
    let server = Server::start();
    let watcher = online(
        Config::new("watcher").bare_heartbeat_interval(SHORT),
        &server,
    );
    let mut elixir = Raw::listen(&server, "cluster");
    elixir.say("realtime@10.0.0.1");
    let event = expect(&watcher, "join realtime@10.0.0.1");
    let peer = event.peer().expect("a peer");
    assert_eq!((peer.incarnation(), peer.tags().count()), (None, 0));
    expect(&watcher, "leave realtime@10.0.0.1: Expired");
    elixir.say("realtime@10.0.0.1");
    expect(&watcher, "heal realtime@10.0.0.1");
}

#[test]
fn rule_8_what_is_not_ours_is_counted_and_ignored() {
    let server = Server::start();
    let watcher = join(&server, "watcher");
    let other = join(&server, "other");
    expect(&watcher, "join other");
    let mut raw = Raw::listen(&server, "cluster");
    let beat = "pg-peers/1 beat name=x inc=5 seq=5 due=60000;";
    raw.say(beat);
    expect(&watcher, "join x");
    let ignored = watcher.status().ignored;
    let junk = [
        String::new(),
        "x".repeat(7_999),
        "@".repeat(7_999),
        format!("{}ü", "\u{fffd}".repeat(2_665)),
        beat[..beat.len() - 1].to_owned(),
        beat[..20].to_owned(),
        beat.to_owned(),
        beat.replace("seq=5", "seq=4"),
        beat.replace("inc=5", "inc=4"),
        beat.replace("pg-peers/1", "pg-peers/2"),
        beat.replace("beat", "something"),
        "not a node name".to_owned(),
    ];
    for payload in &junk {
        raw.say(payload);
    }
    fence(&other, &watcher);
    expect_nothing(&watcher);
    let counted = ignored + junk.len() as u64;
    eventually("all counted", || watcher.status().ignored == counted);
    assert_eq!(names(&watcher), ["other", "x"]);
}

#[test]
fn rule_9_there_is_room_for_no_more_than_the_bound() {
    let server = Server::start();
    let watcher = online(Config::new("watcher").max_peers(2), &server);
    let mut raw = Raw::listen(&server, "cluster");
    for name in ["a", "b", "c", "d"] {
        raw.say(&format!(
            "pg-peers/1 beat name={name} inc=1 seq=1 due=60000;"
        ));
    }
    expect_all(&watcher, &["join a", "join b"]);
    eventually("both counted", || watcher.status().refused == 2);
    raw.say("pg-peers/1 bye name=a inc=1 seq=2;");
    raw.say("pg-peers/1 beat name=c inc=1 seq=2 due=60000;");
    expect(&watcher, "leave a: Goodbye");
    expect(&watcher, "join c");
}

fn incarnation(event: &Event) -> Option<Incarnation> {
    event.peer()?.incarnation()
}
