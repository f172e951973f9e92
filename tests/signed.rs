//! Members that share a secret: they are members like others, and alone among others.

mod support;

use std::time::{Duration, SystemTime};

use pg_peers::{Cluster, Config};
use support::*;

const SECRET: &str = "the secret of this cluster";
const NEW: &str = "the next secret of this cluster";

fn member(name: &str) -> Config {
    Config::new(name).secret(SECRET)
}

#[test]
fn participant_process() {
    be_a_participant_as(member);
}

#[test]
fn members_with_a_secret_join_change_and_leave_as_others_do() {
    let server = Server::start();
    let a = online(member("a").tag("zone", "eu-1"), &server);
    let b = online(member("b"), &server);
    let joined = expect(&b, "join a");
    assert_eq!(
        joined.peer().and_then(|peer| peer.tag("zone")),
        Some("eu-1")
    );
    expect(&a, "join b");
    fence(&a, &b);
    let observer = online(Config::observer().secret(SECRET), &server);
    expect_all(&observer, &["join a", "join b"]);
    // Also with another session, of which the signature speaks.
    let backend = backend_of(&server, "b");
    server.run(&format!("SELECT pg_terminate_backend({backend})"));
    expect(&b, "offline");
    expect(&b, "online");
    fence(&b, &a);
    fence(&a, &b);
    b.leave().expect("a goodbye");
    expect(&a, "leave b: Goodbye");
    let status = a.status();
    assert_eq!((status.forged, status.clock_skewed), (0, 0), "{status:?}");
}

#[test]
fn a_newcomer_is_told_of_all_in_many_payloads() {
    let server = Server::start();
    // As long as they may be.
    let longest = (7_000..8_000).rev().find(|&length| {
        let config = member("m0").tag("k", "x".repeat(length));
        config.join("host=127.0.0.1 port=1").is_ok()
    });
    let tag = "x".repeat(longest.expect("some length"));
    let members = (0..4).map(|n| online(member(&format!("m{n}")).tag("k", &tag), &server));
    let members: Vec<Cluster> = members.collect();
    // Members that have just started do not answer yet.
    eventually("one member answers", || {
        let newcomer = online(member("n"), &server);
        newcomer.wait_for_peers(4, PATIENCE).expect("all");
        for peer in newcomer.peers() {
            assert_eq!(peer.tag("k"), Some(&*tag));
        }
        members.iter().any(|member| member.status().answered > 0)
    });
}

#[test]
fn a_secret_that_is_introduced_divides_for_a_while() {
    let server = Server::start();
    let plain = join(&server, "plain");
    let (a, b) = (online(member("a"), &server), online(member("b"), &server));
    expect_all(&plain, &["join a", "join b"]);
    expect(&a, "join b");
    let before = a.status().forged;
    plain.set_tags([("k", "v")]).expect("tags");
    eventually("a ignores it", || a.status().forged > before);
    fence(&b, &a);
    expect(&plain, "update b");
    assert_eq!(names(&a), ["b"]);
    expect_nothing(&a);
}

#[test]
fn a_secret_is_changed_without_anybody_being_missed() {
    let server = Server::start();
    let stages: [&[&str]; 4] = [&[SECRET], &[SECRET, NEW], &[NEW, SECRET], &[NEW]];
    let start = |name: &str, secrets: &[&str]| {
        let config = Config::new(name);
        let config = secrets
            .iter()
            .fold(config, |config, secret| config.secret(secret));
        online(config, &server)
    };
    let mut members = ["a", "b", "c"].map(|name| start(name, stages[0]));
    for secrets in &stages[1..] {
        for n in 0..members.len() {
            let name = members[n].name().expect("a member").to_owned();
            let old = std::mem::replace(&mut members[n], start(&name, secrets));
            drop(old);
            for member in &members {
                member.wait_for_peers(2, PATIENCE).expect("the two others");
            }
        }
    }
    for member in &members {
        assert_eq!(member.status().forged, 0);
    }
}

#[test]
fn a_member_behind_a_pooler_in_session_mode_is_believed() {
    let server = Server::start();
    let Some(pooler) = PgBouncer::start(&server, "session") else {
        return;
    };
    let a = member("a").join(&pooler.params()).expect("valid");
    expect(&a, "online");
    let b = online(member("b"), &server);
    expect(&a, "join b");
    expect(&b, "join a");
    fence(&a, &b);
    a.leave().expect("a goodbye");
    expect(&b, "leave a: Goodbye");
}

#[test]
fn a_signature_as_documented_is_heard_and_a_late_one_named() {
    keep_logs();
    let server = Server::start();
    let a = online(member("a").channel("größe's \"x\""), &server);
    let channel = "größe's \"x\"";
    let mut client = server.client();
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .expect("a pid")
        .get(0);
    let mut say = |ahead: i64, payload: &str| {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
        let off = Duration::from_secs(ahead.unsigned_abs());
        let time = if ahead < 0 { now - off } else { now + off };
        let payload = sign_at(time, SECRET, channel, "", pid, payload);
        let channel = channel.replace('"', "\"\"");
        let notify = format!("NOTIFY \"{channel}\", '{payload}'");
        client.batch_execute(&notify).expect("NOTIFY");
    };
    say(0, "pg-peers/1 hello name=b inc=5 seq=1 due=60000;");
    expect(&a, "join b");
    say(-50, "pg-peers/1 beat name=b inc=5 seq=2 due=60000 tag.a=1;");
    expect(&a, "update b");
    // Recordings, from the one session and within the minute that they are good for: only the numbers stand against them.
    say(-20, "pg-peers/1 bye name=b inc=5 seq=1;");
    say(-20, "pg-peers/1 gone name=b inc=5 seq=1;");
    for seq in 1..=10 {
        say(
            90,
            &format!("pg-peers/1 beat name=late inc=5 seq={seq} due=60000;"),
        );
    }
    say(
        -100_000,
        "pg-peers/1 beat name=early inc=5 seq=1 due=60000;",
    );
    say(0, "pg-peers/1 bye name=b inc=5 seq=3;");
    expect(&a, "leave b: Goodbye");
    say(-20, "pg-peers/1 hello name=b inc=5 seq=1 due=60000;");
    say(-20, "pg-peers/1 beat name=b inc=5 seq=2 due=60000 tag.a=1;");
    say(0, "pg-peers/1 hello name=end inc=5 seq=1 due=60000;");
    expect(&a, "join end");
    expect_nothing(&a);
    assert_eq!(a.status().clock_skewed, 11);
    let named = |name: &str| {
        let logged = logged();
        let lines = logged
            .iter()
            .filter(|line| line.contains(&format!("not hearing {name:?}")));
        lines.cloned().collect::<Vec<_>>()
    };
    let (late, early) = (named("late"), named("early"));
    assert_eq!((late.len(), early.len()), (1, 1), "{late:?} {early:?}");
    let differs = |line: &str, numbers: [&str; 2]| numbers.iter().any(|n| line.contains(n));
    assert!(
        differs(
            &late[0],
            ["signed 90 s in the future", "signed 89 s in the future"]
        ),
        "{late:?}"
    );
    assert!(
        differs(
            &early[0],
            ["signed 99999 s before", "signed 100000 s before"]
        ),
        "{early:?}"
    );
}

#[test]
fn a_member_whose_clock_is_a_day_back_is_not_heard_and_named() {
    keep_logs();
    let server = Server::start();
    let a = online(member("a"), &server);
    let Some(mut yesterday) = Process::join_a_day_back(&server, "yesterday") else {
        return;
    };
    let named = |line: &String| line.contains("not hearing \"yesterday\"");
    eventually("it was refused often", || a.status().clock_skewed >= 5);
    assert_eq!(logged().iter().filter(|line| named(line)).count(), 1);
    assert_eq!(a.peers(), []);
    yesterday.expect_nothing();
}

#[test]
fn what_waits_through_a_long_stop_is_not_too_old() {
    if std::env::var_os("PG_PEERS_LONG").is_none() {
        eprintln!("skipped: PG_PEERS_LONG is not set");
        return;
    }
    let server = Server::start();
    let a = online(member("a"), &server);
    let b = online(member("b"), &server);
    let long = Duration::from_secs(600);
    let mut stopped = Process::join_with(&server, "stopped", long);
    stopped.expect_all(&["join a", "join b"]);
    stopped.freeze();
    b.leave().expect("a goodbye");
    let c = online(member("c"), &server);
    std::thread::sleep(Duration::from_secs(65));
    c.leave().expect("a goodbye");
    stopped.thaw();
    stopped.expect("leave b: Goodbye");
    stopped.expect("join c");
    stopped.expect("leave c: Goodbye");
    a.set_tags([("k", "v")]).expect("tags");
    stopped.expect("update a");
}

#[test]
fn a_secret_is_never_shown() {
    keep_logs();
    let server = Server::start();
    let config = member("a");
    let mut shown = format!("{config:?}");
    let a = online(config, &server);
    shown.push_str(&format!("{a:?} {:?}", a.status()));
    for refused in [
        Config::new("a").secret("hunter2"),
        Config::new("a@h")
            .secret("hunter2-hunter2-hunter2")
            .bare_name(true),
    ] {
        shown.push_str(&format!("{refused:?}"));
        let error = refused.join(&server.params()).expect_err("refused");
        assert!(error.is_config());
        shown.push_str(&format!("{error} {error:?}"));
    }
    let stranger = online(Config::new("b").secret("hunter2-hunter2-hunter2"), &server);
    eventually("the stranger is not believed", || a.status().forged > 0);
    drop((a, stranger));
    shown.push_str(&logged().join("\n"));
    let bytes = format!("{:?}", SECRET.as_bytes());
    for secret in [SECRET, "hunter2", bytes.trim_matches(['[', ']'])] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
