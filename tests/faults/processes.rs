//! Member processes freeze and die.

use std::time::Duration;

use pg_peers::{Event, Reason};

use super::*;

#[test]
fn one_that_is_stopped_past_its_expiry_heals_and_drops_nobody() {
    let server = Server::start();
    let short = |name| Config::new(name).heartbeat_interval(SHORT);
    let members = acquainted(["a", "b"].map(short), &server.params());
    let mut stopped = Process::join(&server, "c");
    stopped.expect_all(&["join a", "join b"]);
    for member in &members {
        expect(member, "join c");
    }
    for _ in 0..3 {
        meanwhile(&members, || {
            stopped.freeze();
            for member in &members {
                expect(member, "leave c: Expired");
            }
            // Twice as long as it would take the stopped one to drop the others, if it counted.
            expect_all_hear_all(&members);
            last_until(Instant::now() + 6 * SHORT);
            stopped.thaw();
            for member in &members {
                expect(member, "heal c");
            }
        });
        // The last of the tags that it missed may be all that it is told.
        members[1].set_tags([("again", "1")]).expect("tags");
        expect(&members[0], "update b");
        loop {
            let event = stopped.next("update a or b");
            assert!(event.starts_with("update "), "{event}");
            if event == "update b" {
                break;
            }
        }
    }
}

/// What others say meanwhile is the first that it finds when it goes on, before it looks how late it is.
#[test]
fn those_that_are_stopped_together_do_not_drop_each_other() {
    const ROUNDS: usize = 5;
    let server = Server::start();
    let mut speaker = Raw::listen(&server, "cluster");
    let names: Vec<String> = (0..8).map(|n| format!("m{n}")).collect();
    let mut members = Process::join_many(&server, &names, SHORT);
    for _ in 0..names.len() * names.len() {
        members.next("online, or a join");
    }
    for _ in 0..ROUNDS {
        members.freeze();
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            speaker.say("what is said while they do not listen");
            thread::sleep(Duration::from_millis(10));
        }
        members.thaw();
        for name in &names {
            speaker.hear(&format!("beat name={name} "));
        }
        last_until(Instant::now() + SHORT * 4);
        members.expect_nothing();
    }
}

#[test]
fn of_fifty_ten_are_killed_at_once() {
    const VICTIMS: usize = 10;
    let _alone = one_crowd();
    let server = Server::start_with(&["max_connections = 150"]);
    let names: Vec<String> = (0..50).map(|n| format!("p{n}")).collect();
    let (victims, survivors) = names.split_at(VICTIMS);
    // The oldest ones, who look after sessions, are among those that die.
    let victims: Vec<(Process, &String)> = victims
        .iter()
        .map(|name| {
            (
                Process::join_with(&server, name, Duration::from_secs(5)),
                name,
            )
        })
        .collect();
    let survivors: Vec<Cluster> = survivors
        .iter()
        .map(|name| online(Config::new(name.as_str()), &server))
        .collect();
    for survivor in &survivors {
        expect_joins(survivor, names.iter().map(|name| &**name));
    }
    let leavers = Leavers::join(&server.params());
    let mut killed: Vec<&str> = victims.iter().map(|(_, name)| name.as_str()).collect();
    killed.sort_unstable();
    victims.into_iter().for_each(|(process, _)| process.kill());
    let died = Instant::now();
    meanwhile(&survivors, || {
        leavers.leave_in_time();
        for survivor in &survivors {
            // With all gone that look after sessions, somebody else asks soon, or they expire.
            let mut left: Vec<String> = killed.iter().map(|_| left(survivor)).collect();
            left.sort_unstable();
            assert_eq!(left, killed, "once each");
        }
    });
    within("ten deaths known to forty", died, Duration::from_secs(20));
    let (first, last) = (&survivors[0], &survivors[39]);
    fence(first, last);
    for survivor in &survivors[1..39] {
        expect(survivor, &format!("update {}", names[VICTIMS]));
        expect_nothing(survivor);
    }
}

/// Who left, which is what happened next.
fn left(member: &Cluster) -> String {
    match next(member, "a leave") {
        Event::Leave(peer, Reason::SessionGone | Reason::Expired) => peer.name().to_owned(),
        other => panic!("{other:?}"),
    }
}
