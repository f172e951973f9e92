//! Members that hang, which others know by their sessions, since those stand still (rule 12); and sessions that say nothing.

use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config};

use crate::support::*;

/// Long enough for one look of a checker, and some.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// A process that hangs is known within this time: three beats, and the time between two looks.
const HUNG: Duration = Duration::from_secs(3 * 2 + 2);

/// What is asked of a busy machine beside that.
const BUSY: Duration = Duration::from_millis(700);

/// Members with it announce themselves once in minutes: they have peers, of no session.
const BUDGET: u32 = 4;
const STRANGERS: usize = 40;

/// A member that announces itself rarely, once it knows that it is judged by its session, and proves itself as by default.
fn rare(name: &str) -> Config {
    Config::new(name)
        .heartbeat_interval(HEARTBEAT)
        .delivery_budget(BUDGET)
}

fn join(name: &str, params: &str) -> Cluster {
    let member = rare(name).join(params).expect("valid");
    expect(&member, "online");
    member
}

fn three(server: &Server) -> [Cluster; 3] {
    acquainted(["a", "b", "c"].map(rare), &server.params())
}

/// Strangers are heard once: with this many peers, nobody announces itself soon.
fn hush(server: &Server, members: &[Cluster]) {
    let mut stranger = Raw::listen(server, "cluster");
    for n in 0..STRANGERS {
        stranger.say(&format!(
            "pg-peers/1 beat name=s{n:02} inc=1 seq=1 due=3600000;"
        ));
    }
    for member in members {
        (0..STRANGERS).for_each(|_| drop(next(member, "a stranger")));
    }
    wait_until_judged(members);
}

/// Waits until all know that they are judged by their sessions, so that they announce themselves as rarely as they may.
fn wait_until_judged(members: &[Cluster]) {
    eventually("the first look at sessions", || {
        members.iter().all(|it| it.status().judged_by_session)
    });
}

/// Waits until this peer has announced that it will do so rarely.
fn wait_until_rare(member: &Cluster, peer: &str) {
    eventually("it is rarely announced", || {
        let infos = member.peer_infos().recv().expect("an answer");
        let info = infos.iter().find(|info| info.peer.name() == peer);
        info.is_some_and(|info| info.interval > HUNG * 5)
    });
}

#[test]
fn a_process_that_hangs_is_known_and_heals_when_it_goes_on() {
    let server = Server::start();
    let members = three(&server);
    let mut hung = Process::join_on_budget(&server.params(), "hung", HEARTBEAT, BUDGET);
    for member in &members {
        expect(member, "join hung");
    }
    hush(&server, &members);
    (0..3 + STRANGERS).for_each(|_| drop(hung.next("a join")));
    wait_until_rare(&members[0], "hung");
    for _ in 0..2 {
        let frozen = Instant::now();
        hung.freeze();
        for member in &members {
            expect(member, "leave hung: Expired");
        }
        let took = frozen.elapsed();
        println!("a process that hangs is known after {took:?}");
        assert!(took < HUNG + BUSY, "{took:?}");
        let thawed = Instant::now();
        hung.thaw();
        for member in &members {
            expect(member, "heal hung");
        }
        println!("it heals after {:?}", thawed.elapsed());
    }
    hung.expect_nothing();
    members.iter().for_each(expect_nothing);
}

#[test]
fn a_death_behind_a_pooler_is_known_by_the_session_that_stays() {
    let server = Server::start();
    let Some(pooler) = PgBouncer::start(&server, "session") else {
        return;
    };
    let members = three(&server);
    let pooled = Process::join_on_budget(&pooler.params(), "pooled", HEARTBEAT, BUDGET);
    for member in &members {
        expect(member, "join pooled");
    }
    hush(&server, &members);
    wait_until_rare(&members[0], "pooled");
    // The pooler ends a session whose client dies during a statement.
    pooled.freeze();
    wait_until_idle(&server);
    let killed = Instant::now();
    pooled.kill();
    for member in &members {
        expect(member, "leave pooled: Expired");
    }
    let took = killed.elapsed();
    println!("a process that died behind a pooler is known after {took:?}");
    assert!(took < HUNG + BUSY, "{took:?}");
}

#[test]
fn of_other_roles_the_announcements_decide() {
    let server = Server::start();
    server.run("CREATE ROLE x LOGIN; CREATE ROLE y LOGIN");
    let params = |role: &str| {
        let role = format!("user={role} dbname=postgres");
        server.params().replace("user=postgres", &role)
    };
    let [a, b] = [join("a", &params("x")), join("b", &params("y"))];
    expect(&a, "join b");
    expect(&b, "join a");
    // By one look the answer of the one before is known.
    let looked = |member: &Cluster| member.status().checked > 1;
    eventually("two looks", || looked(&a) && looked(&b));
    for member in [&a, &b] {
        assert!(!member.status().judged_by_session);
    }
    // So one that hangs is missed by its announcements, in the same time.
    let mut hung = Process::join_on_budget(&params("y"), "hung", HEARTBEAT, BUDGET);
    expect(&a, "join hung");
    expect(&b, "join hung");
    hung.expect_all(&["join a", "join b"]);
    let frozen = Instant::now();
    hung.freeze();
    expect(&a, "leave hung: Expired");
    let took = frozen.elapsed();
    assert!(took < HUNG + BUSY, "{took:?}");
    hung.thaw();
    expect(&a, "heal hung");
}

#[test]
fn a_session_that_does_not_track_what_it_does_is_not_judged() {
    let server = Server::start();
    let members = three(&server);
    let quiet = format!("{} options='-c track_activities=off'", server.params());
    let quiet = join("quiet", &quiet);
    for member in &members {
        expect(member, "join quiet");
    }
    hush(&server, &members);
    // It is there, though its session shows nothing.
    std::thread::sleep(HUNG);
    members.iter().for_each(expect_nothing);
    assert!(quiet.status().checked > 1);
    assert!(!quiet.status().judged_by_session);
}

#[test]
fn what_the_host_cannot_reach_heals_with_the_next_beat() {
    let server = Server::start();
    let members = three(&server);
    hush(&server, &members);
    let [a, ..] = &members;
    for _ in 0..3 {
        let peer = a.peer("b").expect("a peer");
        let reported = Instant::now();
        a.report_unreachable(&peer);
        expect(a, "heal b");
        let took = reported.elapsed();
        println!("it heals after {took:?}");
        assert!(took < HEARTBEAT * 3 / 2 + BUSY, "{took:?}");
    }
}

/// The pids of a standby's backends, and what it says of them, have nothing to do with the primary's.
#[test]
fn a_failover_silences_nobody() {
    let mut primary = Server::start();
    let standby = primary.standby();
    let members = acquainted(["a", "b", "c"].map(rare), &primary.params_or(&standby));
    hush(&primary, &members);
    primary.kill();
    expect_each(&members, "offline");
    standby.promote();
    expect_each(&members, "online");
    wait_until_judged(&members);
    std::thread::sleep(HUNG);
    members.iter().for_each(expect_nothing);
}

#[test]
fn a_restart_silences_nobody() {
    let mut server = Server::start();
    let members = three(&server);
    hush(&server, &members);
    for _ in 0..2 {
        server.restart(Stop::Fast);
        expect_each(&members, "offline");
        expect_each(&members, "online");
        wait_until_judged(&members);
    }
    std::thread::sleep(HUNG);
    members.iter().for_each(expect_nothing);
}
