//! Others on the same server do harm: they flood the channel, or hold up all notifications.

use std::thread;
use std::time::Duration;

use pg_peers::Event;
use pg_peers::postgres::error::SqlState;

use super::*;

/// The most that a flood may add to the memory of a member.
const GROWTH: u64 = 100 << 20;

/// Nothing but its own outages comes before it hears the last.
#[track_caller]
fn expect_outages_until(last: &str, mut next: impl FnMut() -> String) {
    loop {
        match &*next() {
            "offline" | "online" => {}
            event if event == last => return,
            event => panic!("{event}"),
        }
    }
}

#[test]
fn a_flood_of_junk_on_the_channel_harms_nobody() {
    const HEARTBEAT: Duration = Duration::from_secs(1);
    let server = Server::start();
    let quick = |name| Config::new(name).heartbeat_interval(HEARTBEAT);
    let members = acquainted(["a", "b", "c"].map(quick), &server.params());
    let leavers = Leavers::join(&server.params());
    // Its memory is its own.
    let mut apart = Process::join_with(&server, "d", HEARTBEAT);
    apart.expect_all(&["join a", "join b", "join c"]);
    for member in &members {
        expect(member, "join d");
    }
    let before = memory_of(apart.pid());
    let heard = || members.each_ref().map(|member| member.status().heard);
    let heard_before = heard();
    // Each hears a heartbeat in the noise.
    let all_hear = || {
        heard_before
            .iter()
            .zip(heard())
            .all(|(before, now)| now > *before)
    };
    let mut most = 0;
    let said = meanwhile(&members, || {
        let flood = Flood::start(&server, &[("cluster", 50), ("leaving", 10)]);
        let end = Instant::now() + Duration::from_secs(10);
        let deadline = Instant::now() + PATIENCE;
        let mut leavers = Some(leavers);
        while Instant::now() < end || !all_hear() {
            assert!(Instant::now() < deadline, "no heartbeat was heard");
            most = most.max(memory_of(apart.pid()));
            thread::sleep(Duration::from_millis(20));
            // In the middle of it.
            if end.saturating_duration_since(Instant::now()) < Duration::from_secs(5) {
                leavers.take().into_iter().for_each(Leavers::leave_in_time);
            }
        }
        flood.stop()
    });
    // A server that is kept so busy may answer too late, which is an outage; nobody leaves for it.
    for member in &members {
        member.wait_online(PATIENCE).expect("online");
        assert_eq!(member.peers().len(), 3);
    }
    let last = &members[2];
    last.set_tags([("last", "1")]).expect("tags");
    for member in &members[..2] {
        expect_outages_until("update c", || words(&next(member, "update c")));
    }
    expect_outages_until("update c", || apart.next("update c"));
    // What a statement had to read when the flood was over counts, too.
    let grown = most.max(memory_of(apart.pid())).saturating_sub(before);
    println!(
        "{said} payloads of 8 kB; the memory of a member grew by {} kB",
        grown / 1024
    );
    assert!(grown < GROWTH, "{} MB", grown >> 20);
}

/// The inbox of each stands in its hello.
#[test]
fn a_flood_of_junk_in_the_inboxes_harms_nobody() {
    const HEARTBEAT: Duration = Duration::from_secs(1);
    let server = Server::start();
    let mut ear = Raw::listen(&server, "cluster");
    let mut inbox_of = |name: &str| {
        let hello = ear.hear(&format!("hello name={name} "));
        inbox(&hello).expect("an inbox")
    };
    // The oldest asks for sessions every two seconds, if it may.
    let a = online(Config::new("a").heartbeat_interval(HEARTBEAT), &server);
    let mut apart = Process::join_with(&server, "d", HEARTBEAT);
    let inboxes = [inbox_of("a"), inbox_of("d")];
    apart.expect_all(&["join a"]);
    expect(&a, "join d");
    let before = memory_of(apart.pid());
    let mut most = 0;
    let members = [a];
    meanwhile(&members, || {
        let flood = Flood::start(&server, &inboxes.each_ref().map(|it| (&**it, 25)));
        let start = Instant::now();
        // Until it was noticed.
        last_until(start + Duration::from_secs(2));
        let asked = members[0].status().checked;
        while start.elapsed() < Duration::from_secs(10) {
            most = most.max(memory_of(apart.pid()));
            thread::sleep(Duration::from_millis(20));
        }
        assert!(
            members[0].status().checked <= asked + 1,
            "it asks on the link"
        );
        flood.stop();
    });
    let [a] = members;
    a.set_tags([("last", "1")]).expect("tags");
    expect_outages_until("update a", || apart.next("update a"));
    assert!(waiting(&a).iter().all(|event| !event.starts_with("leave")));
    let grown = most.max(memory_of(apart.pid())).saturating_sub(before);
    println!("the memory of a member grew by {} kB", grown / 1024);
    assert!(grown < GROWTH, "{} MB", grown >> 20);
}

#[test]
fn a_burst_of_junk_is_soon_over_whatever_trickles_after_it() {
    let server = Server::start();
    let short = |name| Config::new(name).heartbeat_interval(SHORT);
    let members = acquainted(["a", "b"].map(short), &server.params());
    let checked = || -> u64 { members.iter().map(|it| it.status().checked).sum() };
    let mut stranger = server.client();
    let burst: String = (0..400)
        .map(|n| format!("NOTIFY cluster, '{n:03}{}';", "junk ".repeat(1_590)))
        .collect();
    stranger.batch_execute(&burst).expect("NOTIFY");
    let before = checked();
    eventually("sessions are asked for again", || {
        stranger
            .batch_execute("NOTIFY cluster, 'x'")
            .expect("NOTIFY");
        checked() > before + 1
    });
    expect_all_hear_all(&members);
    for member in &members {
        assert_eq!(waiting(member), [""; 0], "nobody leaves for it");
    }
}

#[test]
fn a_full_notification_queue_is_told_and_got_over() {
    let server = Server::start();
    let version: i32 = setting(&server, "server_version_num")
        .parse()
        .expect("a number");
    if version < 170_000 {
        eprintln!("skipped: before PostgreSQL 17 the queue has 8 GB, whatever is set");
        return;
    }
    drop(server);
    let server = Server::start_with(&["max_notify_queue_pages = 64"]);
    let short = |name| Config::new(name).heartbeat_interval(SHORT);
    let members = acquainted(["a", "b", "c"].map(short), &server.params());
    // It listens, and inside a transaction it reads nothing.
    let mut idler = server.client();
    idler.batch_execute("LISTEN other").expect("LISTEN");
    idler
        .batch_execute("BEGIN; SELECT 1")
        .expect("a transaction");
    let leavers = Leavers::join(&server.params());
    meanwhile(&members, || {
        let mut client = server.client();
        let junk = format!("NOTIFY other, '{}'", "junk ".repeat(1_599));
        let mut full = None;
        eventually("a full queue", || {
            full = (0..100).find_map(|_| client.batch_execute(&junk).err());
            full.is_some()
        });
        let full = full.expect("an error");
        assert_eq!(
            full.code(),
            Some(&SqlState::PROGRAM_LIMIT_EXCEEDED),
            "{full}"
        );
        for member in &members {
            let Event::Offline(reason) = expect(member, "offline") else {
                panic!("offline")
            };
            assert_eq!(reason.code(), Some(&SqlState::PROGRAM_LIMIT_EXCEEDED));
            assert!(reason.to_string().contains("queue"), "{reason}");
        }
        leavers.leave_in_time();
        idler.batch_execute("COMMIT").expect("an end");
        let read = Instant::now();
        expect_each(&members, "online");
        within("online once the queue is read", read, RECOVERY);
    });
    expect_all_hear_all(&members);
}

fn setting(server: &Server, name: &str) -> String {
    let row = server.client().query_one(&format!("SHOW {name}"), &[]);
    row.expect("a setting").get(0)
}
