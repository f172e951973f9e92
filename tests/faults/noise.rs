//! Others on the same server do harm: they flood the channel, or hold up all notifications.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pg_peers::Event;
use pg_peers::postgres::error::SqlState;

use super::*;

/// The most that a flood may add to the memory of a member.
const GROWTH: u64 = 100 << 20;

/// Nothing but outages of its own comes before it hears the last.
#[track_caller]
fn expect_outages_until(mut next: impl FnMut() -> String) {
    loop {
        match &*next() {
            "update c" => return,
            "offline" | "online" => {}
            event => panic!("{event}"),
        }
    }
}

const BATCH: u64 = 50;

#[test]
fn a_flood_of_junk_on_the_channel_harms_nobody() {
    let server = Server::start();
    let members = three(&server);
    // Its memory is its own.
    let mut apart = Process::join_with(&server, "d", Duration::from_secs(5));
    apart.expect_all(&["join a", "join b", "join c"]);
    for member in &members {
        expect(member, "join d");
    }
    let before = memory_of(apart.pid());
    let announced = members.each_ref().map(|member| member.status().announced);
    let (over, said) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut most = 0;
    meanwhile(&members, || {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut client = server.client();
                    // Many at once are more than one at a time; those that are equal would be one.
                    let junk = |n| format!("NOTIFY cluster, '{n:02}{}';", "junk ".repeat(1_599));
                    let junk: String = (0..BATCH).map(junk).collect();
                    while !over.load(Ordering::Relaxed) {
                        client.batch_execute(&junk).expect("NOTIFY");
                        said.fetch_add(BATCH, Ordering::Relaxed);
                    }
                });
            }
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end {
                most = most.max(memory_of(apart.pid()));
                thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
        });
    });
    println!(
        "{} payloads of 8 kB in 10 s; the memory of a member grew by {} kB",
        said.load(Ordering::Relaxed),
        most.saturating_sub(before) / 1024
    );
    for (member, announced) in members.iter().zip(announced) {
        assert!(member.status().announced > announced, "heartbeats go on");
    }
    assert!(most - before < GROWTH, "{} MB", (most - before) >> 20);
    // A server that is kept so busy may answer too late, which is an outage; nobody leaves for it.
    for member in &members {
        member.wait_online(PATIENCE).expect("online");
        assert_eq!(member.peers().len(), 3);
    }
    let last = &members[2];
    last.set_tags([("last", "1")]).expect("tags");
    for member in &members[..2] {
        expect_outages_until(|| words(&next(member, "update c")));
    }
    expect_outages_until(|| apart.next("update c"));
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
    meanwhile(&members, || {
        let mut client = server.client();
        let junk = format!("NOTIFY other, '{}'", "junk ".repeat(1_599));
        let full = loop {
            if let Err(error) = client.batch_execute(&junk) {
                break error;
            }
        };
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
