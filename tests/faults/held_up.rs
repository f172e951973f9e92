//! A transaction that has written and notified waits in its commit for a standby that is away, and meanwhile every NOTIFY of
//! the server waits for it.

use std::thread;
use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config, Event};

use super::*;

/// Watches how many sessions each participant has until the end; the last count of each.
fn watch_sessions(server: &Server, end: Instant, most: i64) -> Vec<(String, i64)> {
    let mut client = server.client();
    loop {
        let query = "SELECT application_name, count(*) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND application_name LIKE 'member%' \
                     GROUP BY application_name ORDER BY application_name";
        let rows = client.query(query, &[]).expect("rows");
        let counts: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert!(counts.iter().all(|(_, count)| *count <= most), "{counts:?}");
        if Instant::now() >= end {
            return counts;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The server's client sessions but ours here.
fn all_sessions(server: &Server) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
                 AND application_name <> 'watch'";
    let row = server.client().query_one(query, &[]);
    row.expect("a row").get(0)
}

fn hold_up(time: Duration) {
    let server = Server::start_with(&[NOBODY_WAITS]);
    let second = Duration::from_secs(1);
    let hour = Duration::from_secs(60 * 60);
    let quick = ["member-a", "member-b"].map(|name| Config::new(name).heartbeat_interval(second));
    let rare = Config::new("member-rare").heartbeat_interval(hour);
    let [a, b] = quick;
    let members = acquainted([a, b, rare], &server.params());
    let observer = online(Config::observer().heartbeat_interval(second), &server);
    let joins = ["join member-a", "join member-b", "join member-rare"];
    expect_all(&observer, &joins);
    let holder = Holder::hold(&server);
    let start = Instant::now();
    let newcomer = Config::new("member-new").join(&server.params());
    let newcomer = newcomer.expect("a valid configuration");
    let everybody: Vec<&Cluster> = members.iter().chain([&observer, &newcomer]).collect();
    for participant in &everybody {
        let event = next(participant, "offline");
        let Event::Offline(reason) = event else {
            panic!("{event:?} at {participant:?}");
        };
        let reason = reason.to_string();
        assert!(reason.contains("holds up every NOTIFY"), "{reason}");
        assert!(reason.contains("pg_blocking_pids"), "{reason}");
        assert!(reason.contains("pg_locks"), "{reason}");
    }
    let settled = watch_sessions(&server, start + time, 3);
    // The newcomer is not settled: it tries again and again.
    let is_new = |(name, _): &(String, i64)| name == "member-new";
    let (new, others): (Vec<_>, Vec<_>) = settled.into_iter().partition(is_new);
    let one_each = ["a", "b", "rare"].map(|name| (format!("member-{name}"), 1));
    assert_eq!(others, one_each);
    assert!(new.iter().all(|(_, count)| *count <= 2), "{new:?}");
    let sessions = all_sessions(&server);
    assert!(
        sessions <= 4 + 3,
        "{sessions} sessions of four settled participants and one that connects"
    );
    let released = holder.release();
    for participant in &everybody {
        expect(participant, "online");
    }
    within("online after it is over", released, RECOVERY);
    expect_all(&newcomer, &joins);
    for participant in members.iter().chain([&observer]) {
        expect(participant, "join member-new");
        // Nobody left, and nobody healed.
        expect_nothing(participant);
    }
}

#[test]
fn nobody_leaves_while_notify_is_held_up() {
    hold_up(Duration::from_secs(10));
}

#[test]
fn nobody_goes_offline_while_each_notify_takes_three_seconds() {
    let server = Server::start_with(&[NOBODY_WAITS]);
    let members = three(&server);
    let holder = Holder::slow_down(&server, Duration::from_secs(3));
    let newcomer = Config::new("new").join(&server.params()).expect("valid");
    expect(&newcomer, "online");
    expect_all(&newcomer, &["join a", "join b", "join c"]);
    // By then each has announced itself again, with a heartbeat of five seconds.
    last_until(Instant::now() + Duration::from_secs(12));
    let slow = Some(Duration::from_millis(1_500));
    eventually("a NOTIFY that took long", || {
        members.iter().any(|it| it.status().round_trip > slow)
    });
    let status = newcomer.status();
    assert_eq!(status.failed_attempts, 0, "{status:?}");
    holder.release();
    for member in &members {
        expect(member, "join new");
        expect_nothing(member);
    }
    expect_nothing(&newcomer);
}

#[test]
fn notify_is_held_up_for_a_minute() {
    if long() {
        hold_up(Duration::from_secs(60));
    }
}

/// The backends of the sessions of that name.
fn backends(server: &Server, name: &str) -> Vec<i32> {
    let query = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid";
    let rows = server.client().query(query, &[&name]).expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_far_member_keeps_its_session_while_notify_is_held_up() {
    let server = Server::start_with(&[NOBODY_WAITS]);
    let proxy = Proxy::start(&server, Duration::from_millis(150));
    let quick = |name| Config::new(name).heartbeat_interval(Duration::from_secs(1));
    let near = online(quick("near"), &server);
    let far = quick("far").join(&proxy.params()).expect("valid");
    expect(&near, "join far");
    expect(&far, "online");
    expect(&far, "join near");
    eventually("one session", || backends(&server, "far").len() == 1);
    let before = backends(&server, "far");
    for time in [2_500, 4_000, 6_500].map(Duration::from_millis) {
        let holder = Holder::hold(&server);
        last_until(Instant::now() + time);
        let released = holder.release();
        for member in [&near, &far] {
            expect(member, "offline");
            expect(member, "online");
        }
        within("online after it is over", released, RECOVERY);
        assert_eq!(backends(&server, "far"), before);
    }
    for member in [&near, &far] {
        expect_nothing(member);
    }
}

#[test]
fn a_short_wait_for_notify_is_no_outage() {
    let server = Server::start_with(&[NOBODY_WAITS]);
    let members = three(&server);
    let holder = Holder::hold(&server);
    let start = Instant::now();
    // It waits for as long as a member does that is online.
    let newcomer = Config::new("new").join(&server.params()).expect("valid");
    last_until(start + Duration::from_millis(2_500));
    holder.release();
    expect(&newcomer, "online");
    assert_eq!(newcomer.status().failed_attempts, 0);
    for member in &members {
        expect(member, "join new");
        expect_nothing(member);
    }
}

/// Each NOTIFY waits for longer than the heartbeat interval, and for longer than a lock is waited for.
#[test]
fn nobody_leaves_while_each_notify_is_slow() {
    let server = Server::start_with(&[NOBODY_WAITS]);
    let _alone = one_crowd();
    let names: Vec<String> = (0..24).map(|n| format!("member-{n}")).collect();
    let quick = |name: &String| Config::new(name).heartbeat_interval(Duration::from_secs(1));
    // On a busy machine it takes its time to be back in the queue.
    let patient = |name| quick(name).missed_heartbeats(4);
    let join = |name| patient(name).join(&server.params()).expect("valid");
    let members: Vec<Cluster> = names.iter().map(join).collect();
    for member in &members {
        member
            .wait_for_peers(names.len() - 1, PATIENCE)
            .expect("everybody");
    }
    let rounds = if long() { 4 } else { 2 };
    for _ in 0..rounds {
        let holder = Holder::slow_down(&server, Duration::from_millis(1_500));
        last_until(Instant::now() + Duration::from_secs(4));
        holder.release();
        for member in &members {
            member.wait_online(PATIENCE).expect("online");
        }
        // Until what is promised is as short as before.
        last_until(Instant::now() + Duration::from_secs(3));
    }
    for member in &members {
        let told = waiting(member);
        let left = told.iter().any(|event| event.starts_with("leave"));
        assert!(!left, "{told:?}");
    }
}
