//! What keeps a large cluster cheap and quick, against a real server: one answer to a newcomer, and the session check.

use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config};

use crate::support::*;

/// So rarely that neither a heartbeat nor an expiry comes in the time of a test.
const RARE: Duration = Duration::from_secs(60 * 60);

/// A death is known sooner (`guide/faults.md`), but a busy machine may take longer.
const SOON: Duration = Duration::from_secs(8);

fn rare(name: &str) -> Config {
    Config::new(name).heartbeat_interval(RARE)
}

/// Waits until members have asked twice for each other's sessions.
fn checked_twice(clusters: &[&Cluster]) {
    let count = || clusters.iter().map(|c| c.status().checked).sum::<u64>();
    let before = count();
    // The first may have been under way.
    eventually("the sessions are asked for", || count() >= before + 3);
}

#[test]
fn a_newcomer_is_told_everybody_with_tags_by_one_member() {
    let server = Server::start();
    let others: Vec<Cluster> = (0..20)
        .map(|n| online(rare(&format!("p{n}")).tag("n", n.to_string()), &server))
        .collect();
    let answered = || others.iter().map(|c| c.status().answered).sum::<u64>();
    let announced = || others.iter().map(|c| c.status().announced).sum::<u64>();
    eventually("everybody knows all", || {
        others.iter().all(|c| c.peers().len() == 19)
    });
    // A young cluster has nobody yet who is sure to know all, and its members announce themselves to each other.
    eventually(
        "a newcomer and an observer get one answer each, and nobody announces itself",
        || {
            let (answers, announcements) = (answered(), announced());
            let newcomer = online(rare("newcomer"), &server);
            let peers = newcomer.wait_for_peers(20, PATIENCE).expect("everybody");
            for peer in peers {
                assert_eq!(peer.tag("n"), peer.name().strip_prefix('p'), "{peer:?}");
            }
            let observer = Config::observer().join(&server.params()).expect("valid");
            observer.wait_for_peers(21, PATIENCE).expect("everybody");
            let by_newcomer = newcomer.status().answered;
            newcomer.leave().expect("a goodbye");
            answered() + by_newcomer == answers + 2 && announced() == announcements
        },
    );
}

#[test]
fn members_that_start_together_know_each_other() {
    let server = Server::start();
    let all: Vec<Cluster> = (0..20)
        .map(|n| {
            rare(&format!("p{n}"))
                .join(&server.params())
                .expect("valid")
        })
        .collect();
    for one in &all {
        one.wait_for_peers(19, PATIENCE).expect("everybody");
    }
}

#[test]
fn a_killed_process_is_gone_within_seconds() {
    let server = Server::start();
    // The oldest and the youngest; the oldest looks after sessions itself.
    let oldest = Process::join_with(&server, "oldest", RARE);
    let a = online(rare("a"), &server);
    let b = online(rare("b"), &server);
    let observer = online(Config::observer(), &server);
    let youngest = Process::join_with(&server, "youngest", RARE);
    expect_all(&a, &["join oldest", "join b", "join youngest"]);
    expect_all(&b, &["join oldest", "join a", "join youngest"]);
    expect_all(
        &observer,
        &["join oldest", "join a", "join b", "join youngest"],
    );
    for (process, name) in [(youngest, "youngest"), (oldest, "oldest")] {
        let killed = Instant::now();
        process.kill();
        for cluster in [&a, &b, &observer] {
            expect(cluster, &format!("leave {name}: SessionGone"));
        }
        assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
    }
}

/// The victim is killed, and these know it soon.
fn expect_the_death_of<'a>(victim: Process, members: impl IntoIterator<Item = &'a Cluster>) {
    let killed = Instant::now();
    victim.kill();
    for member in members {
        expect(member, "leave victim: SessionGone");
    }
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
}

/// Of eight members the three oldest do not look after sessions, and one dies.
fn a_death_where_the_oldest_do_not_look(server: &Server, oldest: impl Fn(&str) -> Cluster) {
    let blind: Vec<_> = (0..3).map(|n| oldest(&format!("blind{n}"))).collect();
    let others: Vec<_> = (0..4)
        .map(|n| online(rare(&format!("p{n}")), server))
        .collect();
    let victim = Process::join_with(server, "victim", RARE);
    let all = || blind.iter().chain(&others);
    for member in all() {
        (0..7).for_each(|_| drop(next(member, "a join")));
    }
    expect_the_death_of(victim, all());
}

#[test]
fn a_death_is_known_as_soon_where_the_oldest_do_not_want_to_look() {
    let server = Server::start();
    a_death_where_the_oldest_do_not_look(&server, |name| {
        online(rare(name).session_check(false), &server)
    });
}

#[test]
fn a_death_is_known_as_soon_where_the_oldest_may_not_look() {
    let server = Server::start();
    server.run(
        "CREATE ROLE blind LOGIN; REVOKE EXECUTE ON FUNCTION pg_stat_get_activity(int) FROM PUBLIC",
    );
    let params = server
        .params()
        .replace("user=postgres", "user=blind dbname=postgres");
    a_death_where_the_oldest_do_not_look(&server, |name| {
        let member = rare(name).join(&params).expect("valid");
        expect(&member, "online");
        member
    });
}

#[test]
fn a_death_is_known_as_soon_where_the_oldest_are_stopped() {
    let server = Server::start();
    let oldest: Vec<_> = (0..3)
        .map(|n| Process::join_with(&server, &format!("stopped{n}"), RARE))
        .collect();
    let others: Vec<_> = (0..4)
        .map(|n| online(rare(&format!("p{n}")), &server))
        .collect();
    let victim = Process::join_with(&server, "victim", RARE);
    for member in &others {
        (0..7).for_each(|_| drop(next(member, "a join")));
    }
    oldest.iter().for_each(Process::freeze);
    expect_the_death_of(victim, &others);
    oldest.iter().for_each(Process::thaw);
}

#[test]
fn a_reported_death_is_known_a_moment_after_the_time_to_be_back() {
    let server = Server::start();
    let members = acquainted(["a", "b", "c"].map(rare), &server.params());
    // From here on: a checker remembers for some answers how slow the server was.
    let (tries, slowness) = slowness_while(&server, &members, || {
        checked_twice(&members.each_ref());
        ["x", "y", "z"].map(|name| reported_death(&server, &members, name))
    });
    for (known, back) in tries {
        let slower = slowness.delays(back);
        println!("known after {known:?}, where it might be back in {back:?}, or {slower:?} later");
        // And within what the report waits, what asking takes, twice, and what confirmations are apart.
        let slack = Duration::from_millis(1_100) + slower;
        assert!(known < back + slack, "{known:?}, {back:?}, {slack:?}");
    }
}

/// A process of that name joins, is killed and reported by one of these: how soon all knew it, and within what time it would have been
/// back.
fn reported_death(server: &Server, members: &[Cluster; 3], name: &str) -> (Duration, Duration) {
    let victim = Process::join_with(server, name, RARE);
    for member in members {
        expect(member, &format!("join {name}"));
    }
    let [_, b, _] = members;
    let infos = b.peer_infos().recv().expect("an answer");
    let info = infos.iter().find(|info| info.peer.name() == name);
    let info = info.expect("a peer");
    let back = info.back.expect("it announces itself in full");
    let killed = Instant::now();
    victim.kill();
    b.report_unreachable(&info.peer);
    for member in members {
        expect(member, &format!("leave {name}: SessionGone"));
    }
    (killed.elapsed(), back)
}

#[test]
fn a_member_whose_backend_is_terminated_is_not_gone() {
    let server = Server::start();
    let a = online(rare("a"), &server);
    let b = online(rare("b"), &server);
    let c = online(rare("c"), &server);
    expect_all(&a, &["join b", "join c"]);
    expect_all(&b, &["join a", "join c"]);
    expect_all(&c, &["join a", "join b"]);
    for _ in 0..4 {
        for (name, cluster) in [("b", &b), ("a", &a)] {
            let pid = backend_of(&server, name);
            server.run(&format!("SELECT pg_terminate_backend({pid})"));
            expect(cluster, "offline");
            expect(cluster, "online");
        }
    }
    // All at once.
    server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    for cluster in [&a, &b, &c] {
        expect(cluster, "offline");
        expect(cluster, "online");
    }
    checked_twice(&[&a, &b, &c]);
    for cluster in [&a, &b, &c] {
        expect_nothing(cluster);
    }
}

#[test]
fn nobody_is_gone_after_a_restart_of_the_server() {
    let mut server = Server::start();
    let a = online(rare("a"), &server);
    let b = online(rare("b"), &server);
    expect(&a, "join b");
    expect(&b, "join a");
    server.restart(Stop::Fast);
    for cluster in [&a, &b] {
        expect(cluster, "offline");
        expect(cluster, "online");
    }
    checked_twice(&[&a, &b]);
    expect_nothing(&a);
    expect_nothing(&b);
}

#[test]
fn a_member_outlives_a_session_that_is_not_its_own() {
    let server = Server::start();
    let a = online(rare("a"), &server);
    let b = online(rare("b"), &server);
    expect(&a, "join b");
    expect(&b, "join a");
    let mut raw = Raw::listen(&server, "cluster");
    raw.say("pg-peers/1 beat name=elsewhere inc=1 seq=1 due=3600000;");
    raw.say("elixir@10.0.0.1");
    drop(raw);
    for cluster in [&a, &b] {
        expect_all(cluster, &["join elsewhere", "join elixir@10.0.0.1"]);
    }
    checked_twice(&[&a, &b]);
    for cluster in [&a, &b] {
        assert!(names(cluster).contains(&"elsewhere".to_owned()));
    }
}

#[test]
fn a_role_that_may_not_see_sessions_says_so_and_goes_without() {
    let server = Server::start();
    server.run(
        "CREATE ROLE app LOGIN; REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog FROM PUBLIC; \
         REVOKE ALL ON SCHEMA public FROM PUBLIC",
    );
    let params = server
        .params()
        .replace("user=postgres", "user=app dbname=postgres");
    let [a, b] = ["a", "b"].map(|name| {
        let cluster = rare(name).join(&params).expect("valid");
        expect(&cluster, "online");
        cluster
    });
    expect(&a, "join b");
    expect(&b, "join a");
    // It asks once with each session, and then says that another one should.
    let mut ear = Raw::listen(&server, "cluster");
    for _ in 0..2 {
        ear.hear(" check=0 ");
    }
    for member in [&a, &b] {
        assert_eq!(member.status().checked, 1);
    }
    fence(&a, &b);
    fence(&b, &a);
    expect_nothing(&a);
    expect_nothing(&b);
}

/// A pooler that spreads statements over several servers asks a standby at times, which has none of the primary's sessions.
#[test]
fn what_another_server_tells_of_sessions_is_not_believed() {
    let server = Server::start_with(&["allow_system_table_mods = on"]);
    server.run(
        "ALTER FUNCTION pg_catalog.pg_stat_get_activity(int) RENAME TO told_by_the_primary; \
         CREATE FUNCTION pg_catalog.pg_stat_get_activity(int) \
         RETURNS TABLE (pid int, state text, state_change timestamptz, usesysid oid) LANGUAGE sql \
         AS 'SELECT 1, NULL::text, NULL::timestamptz, NULL::oid WHERE false'",
    );
    let [a, b] = ["a", "b"].map(|name| online(rare(name), &server));
    expect(&a, "join b");
    expect(&b, "join a");
    // Each has asked, and says that another one should.
    let mut ear = Raw::listen(&server, "cluster");
    for _ in 0..2 {
        ear.hear(" check=0 ");
    }
    fence(&a, &b);
    fence(&b, &a);
    expect_nothing(&a);
    expect_nothing(&b);
}

#[test]
fn without_the_session_check_nobody_asks() {
    let server = Server::start();
    let a = online(
        Config::new("a")
            .heartbeat_interval(SHORT)
            .session_check(false),
        &server,
    );
    let b = online(
        Config::new("b")
            .heartbeat_interval(SHORT)
            .session_check(false),
        &server,
    );
    expect(&a, "join b");
    let killed = Process::join(&server, "killed");
    expect(&a, "join killed");
    // It expires before the youngest would ask for sessions.
    killed.kill();
    expect(&a, "leave killed: Expired");
    assert_eq!(a.status().checked + b.status().checked, 0);
}

#[test]
fn behind_a_session_pooler_expiry_decides() {
    let server = Server::start();
    let Some(pooler) = PgBouncer::start(&server, "session") else {
        return;
    };
    let a = online(Config::new("a").heartbeat_interval(SHORT), &server);
    let params = pooler.params();
    let pooled = Config::new("b").heartbeat_interval(RARE).join(&params);
    let pooled = pooled.expect("valid");
    expect(&a, "join b");
    let killed = Process::join_at(&params, "c", SHORT);
    expect(&a, "join c");
    killed.kill();
    expect(&a, "leave c: Expired");
    // It may get the backend that the killed one had.
    let next = Process::join_at(&params, "d", RARE);
    expect(&a, "join d");
    checked_twice(&[&a, &pooled]);
    expect_nothing(&a);
    next.kill();
}

#[test]
fn a_host_that_vanishes_leaves_and_heals_when_it_is_back() {
    let Some(mut network) = Network::new() else {
        return;
    };
    let server = Server::start_on(&network);
    let a = online(rare("a"), &server);
    let b = online(rare("b"), &server);
    expect(&a, "join b");
    expect(&b, "join a");
    let mut far = Process::join_from(&network, &server, "far", RARE);
    expect(&a, "join far");
    expect(&b, "join far");
    far.expect_all(&["join a", "join b"]);
    let start = Instant::now();
    network.cut();
    for cluster in [&a, &b] {
        expect(cluster, "leave far: SessionGone");
    }
    // The server gives up the dead connection after 5 to 8 seconds.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    network.mend();
    for cluster in [&a, &b] {
        expect(cluster, "heal far");
        expect_nothing(cluster);
    }
    far.expect("offline");
    far.expect("online");
    far.expect_nothing();
}

#[test]
fn after_a_failover_nobody_is_gone() {
    let mut primary = Server::start();
    let standby = primary.standby();
    let params = primary.params_or(&standby);
    // Sessions of others, so that the new primary numbers its backends like the old one, or not.
    let _others: Vec<_> = (0..3).map(|_| primary.client()).collect();
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        let cluster = rare(name).join(&params).expect("valid");
        expect(&cluster, "online");
        cluster
    });
    expect_all(&a, &["join b", "join c"]);
    expect_all(&b, &["join a", "join c"]);
    expect_all(&c, &["join a", "join b"]);
    primary.kill();
    for cluster in [&a, &b, &c] {
        expect(cluster, "offline");
    }
    standby.promote();
    for cluster in [&a, &b, &c] {
        expect(cluster, "online");
    }
    checked_twice(&[&a, &b, &c]);
    for cluster in [&a, &b, &c] {
        expect_nothing(cluster);
        assert_eq!(cluster.peers().len(), 2);
    }
}

#[test]
fn a_rolling_restart_loses_and_repeats_no_event() {
    const MEMBERS: usize = 100;
    let server = Server::start_with(&["max_connections = 250"]);
    let start = |n: usize| online(rare(&format!("p{n}")), &server);
    let mut all: Vec<Cluster> = (0..MEMBERS).map(start).collect();
    for n in 0..MEMBERS {
        let new = |n: usize| {
            let cluster = start(n);
            cluster
                .wait_for_peers(MEMBERS - 1, PATIENCE)
                .expect("everybody");
            cluster
        };
        let old = all.remove(0);
        old.leave().expect("a goodbye");
        all.push(new(n));
    }
    for (n, member) in all.iter().enumerate() {
        // All others when it started, and those that were restarted after it.
        let after = n + 1..MEMBERS;
        let mut expected: Vec<String> = (0..MEMBERS)
            .filter(|&other| other != n)
            .map(|other| format!("join p{other}"))
            .collect();
        for other in after {
            expected.push(format!("leave p{other}: Goodbye"));
            expected.push(format!("join p{other}"));
        }
        expect_all(
            member,
            &expected.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        expect_nothing(member);
        assert_eq!(member.peers().len(), MEMBERS - 1);
    }
}

#[test]
fn members_of_all_kinds_share_a_channel() {
    let server = Server::start();
    let quick = |name: &str| Config::new(name).heartbeat_interval(SHORT);
    let thrifty = online(quick("thrifty").delivery_budget(10), &server);
    let generous = online(quick("generous").delivery_budget(100_000), &server);
    let trusting = online(quick("trusting").session_check(false), &server);
    let observer = online(Config::observer(), &server);
    let mut elixir = Raw::listen(&server, "cluster");
    let members = [&thrifty, &generous, &trusting];
    let others = ["generous", "thrifty", "trusting"];
    for cluster in members {
        let own = cluster.name().expect("a name");
        let joins = others.iter().filter(|name| **name != own);
        let joins: Vec<String> = joins.map(|name| format!("join {name}")).collect();
        expect_all(
            cluster,
            &joins.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    expect_all(
        &observer,
        &others
            .map(|name| format!("join {name}"))
            .each_ref()
            .map(|s| &**s),
    );
    elixir.say("elixir@10.0.0.1");
    // A version of tomorrow, with words that are not known today.
    elixir.say("pg-peers/1 beat name=later inc=1 seq=1 due=60000 colour=blue;");
    for cluster in members.into_iter().chain([&observer]) {
        expect_all(cluster, &["join elixir@10.0.0.1", "join later"]);
    }
    eventually("thrifty announces itself rarely", || {
        thrifty.status().interval > 5 * SHORT && generous.status().interval == SHORT
    });
    // It is silent for longer than three heartbeats of the others, time and again.
    let announced = thrifty.status().announced;
    eventually("it has done so for a while", || {
        thrifty.status().announced >= announced + 3
    });
    for cluster in members.into_iter().chain([&observer]) {
        expect_nothing(cluster);
    }
}

#[test]
fn the_interval_in_force_follows_the_delivery_budget() {
    let server = Server::start();
    let tight = |name: &str| {
        let config = Config::new(name)
            .heartbeat_interval(SHORT)
            .delivery_budget(10);
        online(config, &server)
    };
    let a = tight("a");
    eventually("its own interval", || a.status().interval == SHORT);
    let _others = ["b", "c", "d"].map(tight);
    // 4 members, 16 deliveries for all announcements, 10 a second.
    eventually("a longer interval", || {
        a.status().interval == Duration::from_millis(1_600)
    });
    let announced = a.status().announced;
    eventually("what the newcomers cause is over", || {
        a.status().announced >= announced + 3
    });
    let announced = a.status().announced;
    let start = Instant::now();
    eventually("three more", || a.status().announced >= announced + 3);
    assert!(
        start.elapsed() > Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(a.peers().len(), 3);
}
