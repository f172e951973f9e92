//! The link: Postgres down, restarting, refusing, frozen. Nobody leaves for it, and nothing hangs.

use std::time::{Duration, Instant};

use pg_peers::postgres::error::SqlState;
use pg_peers::{Cluster, Config, Event};

use crate::support::*;

#[test]
fn a_member_that_starts_before_postgres_joins_later() {
    let mut server = Server::start();
    server.stop(Stop::Fast);
    let a = Config::new("a").join(&server.params()).expect("valid");
    let status = a.status();
    assert!(status.incarnation.is_some() && status.interval > Duration::ZERO);
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    assert!(reason.is_link());
    assert!(reason.to_string().contains("refused"), "{reason}");
    let error = a.wait_online(Duration::from_millis(10)).expect_err("down");
    assert!(
        error.is_timeout() && error.to_string().contains("refused"),
        "{error}"
    );
    eventually("more attempts", || a.status().failed_attempts >= 4);
    server.start_again();
    expect(&a, "online");
    let b = join(&server, "b");
    expect(&a, "join b");
    expect(&b, "join a");
}

#[test]
fn a_restart_of_postgres_is_one_offline_and_one_online() {
    let mut server = Server::start();
    let a = join(&server, "a");
    let b = join(&server, "b");
    expect(&a, "join b");
    expect(&b, "join a");
    for how in [Stop::Fast, Stop::Immediate] {
        server.restart(how);
        for member in [&a, &b] {
            expect(member, "offline");
            expect(member, "online");
        }
        fence(&a, &b);
        fence(&b, &a);
    }
    server.kill();
    server.start_again();
    for member in [&a, &b] {
        expect(member, "offline");
        expect(member, "online");
    }
    fence(&a, &b);
    assert_eq!(a.status().connected, 4);
}

#[test]
fn a_terminated_backend_is_noticed_there_only() {
    let server = Server::start();
    let a = join(&server, "a");
    let b = online(reticent(Config::new("b")), &server);
    expect(&a, "join b");
    expect(&b, "join a");
    for _ in 0..3 {
        let pid = backend_of(&server, "b");
        wait_until_idle(&server);
        server.run(&format!("SELECT pg_terminate_backend({pid})"));
        let Event::Offline(reason) = expect(&b, "offline") else {
            panic!("offline")
        };
        assert_eq!(reason.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{reason}");
        expect(&b, "online");
        fence(&b, &a);
        fence(&a, &b);
    }
}

/// The proof that a new session carries what others say follows `Online`, and may be read together with anything else.
#[test]
fn a_reconnect_amid_heartbeats_is_one_offline_and_one_online() {
    let server = Server::start();
    let members: Vec<Cluster> = (0..20)
        .map(|n| {
            let config = Config::new("m").channel(format!("c{n}"));
            online(config.heartbeat_interval(Duration::from_millis(2)), &server)
        })
        .collect();
    server
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'm'");
    for member in &members {
        expect(member, "offline");
        expect(member, "online");
    }
    // A proof that does not come is missed after two seconds.
    let announced = |member: &Cluster| member.status().announced;
    let before: Vec<u64> = members.iter().map(announced).collect();
    let end = Instant::now() + Duration::from_secs(3);
    eventually("three seconds of heartbeats", || Instant::now() > end);
    for (member, before) in members.iter().zip(before) {
        expect_nothing(member);
        assert!(announced(member) > before);
    }
}

#[test]
fn a_goodbye_that_was_missed_is_known_when_the_link_is_back() {
    let server = Server::start();
    let proxy = Proxy::start(&server, Duration::ZERO);
    let away = reticent(Config::new("away")).join(&proxy.params());
    let away = away.expect("valid");
    let [stays, leaves] =
        ["stays", "leaves"].map(|name| online(reticent(Config::new(name)), &server));
    expect(&away, "online");
    expect_all(&away, &["join stays", "join leaves"]);
    wait_until_idle(&server);
    proxy.stall();
    let pid = backend_of(&server, "away");
    server.run(&format!("SELECT pg_terminate_backend({pid})"));
    leaves.leave().expect("a goodbye");
    while names(&stays).contains(&"leaves".to_owned()) {
        next(&stays, "a goodbye");
    }
    proxy.resume();
    expect(&away, "offline");
    expect(&away, "online");
    let back = Instant::now();
    expect(&away, "leave leaves: Goodbye");
    assert!(
        back.elapsed() < Duration::from_secs(1),
        "{:?}",
        back.elapsed()
    );
    expect_nothing(&away);
}

#[test]
fn a_refused_login_is_told_and_tried_again() {
    let server = Server::start();
    server.run("CREATE ROLE app NOLOGIN");
    let params = server
        .params()
        .replace("user=postgres", "user=app dbname=postgres");
    // With a connection string that takes half a minute: `tests/faults/credentials.rs`.
    let a = Config::new("a")
        .join_with(move || postgres::Client::connect(&params, postgres::NoTls))
        .expect("valid");
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    assert!(
        reason.to_string().contains("not permitted to log in"),
        "{reason}"
    );
    assert_eq!(
        reason.code(),
        Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    );
    eventually("more attempts", || a.status().failed_attempts >= 3);
    expect_nothing(&a);
    server.run("ALTER ROLE app LOGIN");
    expect(&a, "online");
}

#[test]
fn a_closure_may_fail_in_its_own_words() {
    let server = Server::start();
    let params = server.params();
    let ready = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let connect = {
        let ready = std::sync::Arc::clone(&ready);
        move || -> Result<postgres::Client, Box<dyn std::error::Error + Send + Sync>> {
            if !ready.load(std::sync::atomic::Ordering::SeqCst) {
                return Err("the vault is sealed".into());
            }
            Ok(postgres::Client::connect(&params, postgres::NoTls)?)
        }
    };
    let a = Config::new("a").join_with(connect).expect("valid");
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    assert!(
        reason.to_string().contains("the vault is sealed"),
        "{reason}"
    );
    ready.store(true, std::sync::atomic::Ordering::SeqCst);
    expect(&a, "online");
}

#[test]
fn a_closure_that_panics_is_called_again() {
    let server = Server::start();
    let params = server.params();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&calls);
    let connect = move || {
        let call = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert!(call >= 6, "the vault is sealed");
        postgres::Client::connect(&params, postgres::NoTls)
    };
    let a = Config::new("a").join_with(connect).expect("valid");
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    assert!(reason.to_string().contains("panicked"), "{reason}");
    expect(&a, "online");
}

#[test]
fn a_heartbeat_shorter_than_the_way_to_postgres_works() {
    let server = Server::start();
    let proxy = Proxy::start(&server, Duration::from_millis(75));
    let far = Config::new("far")
        .heartbeat_interval(Duration::from_millis(40))
        .join(&proxy.params())
        .expect("valid");
    let near = online(Config::new("near"), &server);
    expect(&near, "join far");
    expect(&far, "online");
    expect(&far, "join near");
    // What it keeps to is twice the round trip.
    let announced = far.status().announced;
    eventually("twenty announcements", || {
        far.status().announced >= announced + 20
    });
    fence(&far, &near);
    fence(&near, &far);
    expect_nothing(&near);
    expect_nothing(&far);
    far.leave().expect("a goodbye");
    expect(&near, "leave far: Goodbye");
}

#[test]
fn an_attempt_that_hangs_does_not_slow_down_the_next() {
    let server = Server::start();
    let params = server.params();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&calls);
    let connect = move || {
        match counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => std::thread::sleep(Duration::from_secs(120)),
            1..8 => return Err("the vault is sealed".into()),
            _ => {}
        }
        let client = postgres::Client::connect(&params, postgres::NoTls);
        client.map_err(|e| -> Box<dyn std::error::Error + Send + Sync> { e.into() })
    };
    let a = Config::new("a").join_with(connect).expect("valid");
    let Event::Offline(reason) = expect(&a, "offline") else {
        panic!("offline")
    };
    assert!(reason.to_string().contains("longer than"), "{reason}");
    let start = Instant::now();
    expect(&a, "online");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_slow_server_does_not_keep_the_dead_alive() {
    let server = Server::start();
    let proxy = Proxy::start(&server, Duration::from_millis(550));
    let far = Config::new("far")
        .heartbeat_interval(Duration::from_secs(1))
        .join(&proxy.params())
        .expect("valid");
    expect(&far, "online");
    Raw::listen(&server, "cluster").say("pg-peers/1 hello name=ghost inc=1 seq=1 due=1000;");
    expect(&far, "join ghost");
    expect(&far, "leave ghost: Expired");
}

#[test]
fn a_link_that_keeps_dying_is_tried_less_and_less_often() {
    let server = Server::start();
    let a = join(&server, "a");
    let start = Instant::now();
    for _ in 0..6 {
        let pid = backend_of(&server, "a");
        server.run(&format!("SELECT pg_terminate_backend({pid})"));
        expect(&a, "offline");
        expect(&a, "online");
    }
    // At least 0, 100, 200 and three times 375 ms of waiting, less the time for an event to come.
    assert!(
        start.elapsed() > Duration::from_millis(1_250),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_timeout_for_idle_sessions_does_not_end_ours() {
    let server = Server::start_with(&["idle_session_timeout = 500ms"]);
    let a = join(&server, "a");
    let b = join(&server, "b");
    expect(&a, "join b");
    expect(&b, "join a");
    let start = Instant::now();
    eventually("longer than the timeout", || {
        start.elapsed() > Duration::from_millis(1_500)
    });
    fence(&a, &b);
    fence(&b, &a);
}

#[test]
fn a_frozen_backend_is_offline_and_the_host_never_waits_for_it() {
    let mut server = Server::start();
    // A server has it as gr????e.
    let a = join_short(&server, "größe");
    let (frozen, name) = the_only_backend(&server);
    server.freeze_backends(&[&name]);
    let start = Instant::now();
    expect(&a, "offline");
    assert!(
        start.elapsed() < SHORT + Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    expect(&a, "online");
    assert!(is_told_to_end(frozen).unwrap_or(true));
    server.thaw();
    assert!(a.status().last_error.is_some_and(|e| e.is_timeout()));
}

/// The pid and the name of the session of the only member, as the server has them.
fn the_only_backend(server: &Server) -> (i32, String) {
    // The one that proves that it works began later.
    let query = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name <> '' \
                 ORDER BY backend_start LIMIT 1";
    let row = server.client().query_one(query, &[]).expect("one backend");
    (row.get(0), row.get(1))
}

/// Whether a SIGTERM waits for this process, on a system with /proc.
fn is_told_to_end(pid: i32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pending = status
        .lines()
        .find_map(|line| line.strip_prefix("ShdPnd:"))?;
    let pending = u64::from_str_radix(pending.trim(), 16).ok()?;
    Some(pending & (1 << (15 - 1)) != 0)
}

#[test]
fn a_frozen_server_holds_up_neither_the_host_nor_its_leaving() {
    let mut server = Server::start();
    let a = join_short(&server, "a");
    let b = join_short(&server, "b");
    let idle = join(&server, "idle");
    expect_all(&a, &["join b", "join idle"]);
    server.freeze();
    expect(&a, "offline");
    meanwhile(&[&a], || {
        let start = Instant::now();
        drop(idle);
        let dropped = start.elapsed();
        assert!(dropped < Leavers::DROP, "{dropped:?}");
        let start = Instant::now();
        b.leave().expect_err("nobody takes the goodbye");
        let left = start.elapsed();
        assert!(left < Leavers::LEAVE, "{left:?}");
    });
    assert_eq!((a.peers().len(), a.status().online), (2, false));
    server.thaw();
    expect(&a, "online");
}

#[test]
fn an_operator_sees_each_session_by_its_members_name() {
    let server = Server::start();
    let _a = join(&server, "it's \"a\"");
    let _watcher = online(Config::observer(), &server);
    backend_of(&server, "it's \"a\"");
    backend_of(&server, "pg_peers observer");
}
