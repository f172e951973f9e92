//! The host program does not listen, goes away, panics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use pg_peers::Event;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use super::*;

/// What a handle from before the fork says in the child, each at once.
fn say_in_a_fork(member: Cluster) -> bool {
    let start = Instant::now();
    let refused = [
        member.wait_online(PATIENCE),
        member.wait_for_peers(9, PATIENCE).map(drop),
        member.set_tag("k", "v"),
        member.leave(),
    ];
    let is_told = |outcome: &pg_peers::Result<()>| {
        let said = outcome
            .as_ref()
            .is_err_and(|it| it.to_string().contains("is a fork of"));
        said && outcome.as_ref().is_err_and(pg_peers::Error::is_link)
    };
    let nothing = member.peer_infos().try_recv().is_err();
    let knows = member.peer("b").is_some();
    drop(member);
    refused.iter().all(is_told) && nothing && knows && start.elapsed() < PATIENCE / 10
}

/// Ends a child after this. Not by `exit`, which takes a lock of the standard library's that a thread of the parent may have had at
/// the moment of the fork.
fn end_after(work: impl FnOnce() -> bool) -> ! {
    let is_well = panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(false);
    if is_well {
        let _ = kill_process(getpid(), Signal::TERM);
    }
    std::process::abort()
}

/// How a child ended that ended well.
const WELL: Option<i32> = Some(Signal::TERM.as_raw());

/// The signal that ended the child; it is killed if it did not end within `PATIENCE`.
fn ended_by(child: i32) -> Option<i32> {
    let child = Pid::from_raw(child);
    let mut ended = None;
    let in_time = becomes_true(PATIENCE, || {
        ended = waitpid(child, WaitOptions::NOHANG).expect("a child");
        ended.is_some()
    });
    if !in_time {
        kill_process(child.expect("a child's number"), Signal::KILL).expect("a child");
        waitpid(child, WaitOptions::empty()).expect("a child");
    }
    ended.and_then(|(_, status)| status.terminating_signal())
}

#[test]
fn a_handle_in_a_forked_child_says_so_and_the_parent_goes_on() {
    let test = "host::a_handle_in_a_forked_child_says_so_and_the_parent_goes_on";
    // A child has the descriptors of all that the tests beside it started.
    alone(test, || {
        let server = Server::start();
        let [a, b] = acquainted([Config::new("a"), Config::new("b")], &server.params());
        let mut a = Some(a);
        let mut stranger = Raw::listen(&server, "cluster");
        for round in 0..100 {
            thread::scope(|scope| {
                scope.spawn(|| stranger.say(&format!("s{round}@host")));
                // A thread that waits for an event is woken by a thread that has the channel locked, and may fork while it is.
                next(a.as_ref().expect("the handle"), "a join");
                match fork::fork().expect("a child") {
                    fork::Fork::Child => {
                        let a = a.take().expect("the handle");
                        end_after(|| say_in_a_fork(a));
                    }
                    fork::Fork::Parent(child) => assert_eq!(ended_by(child), WELL),
                }
            });
        }
        let a = a.expect("the parent's");
        a.set_tag("k", "v").expect("in the parent");
        while words(&next(&b, "update a")) != "update a" {}
    });
}

#[test]
fn children_that_join_after_a_fork_have_inboxes_of_their_own() {
    let test = "host::children_that_join_after_a_fork_have_inboxes_of_their_own";
    alone(test, || {
        let server = Server::start();
        // Whatever is random in a map is so from its first use on, and the same in all children.
        let map = BTreeMap::from_iter(HashMap::from([(1, 2)]));
        assert_eq!(map.len(), 1);
        let mut raw = Raw::listen(&server, "cluster");
        let params = server.params();
        let join = |name: &str| {
            let member = Config::new(name).join(&params);
            member.is_ok_and(|member| member.wait_online(PATIENCE).is_ok())
        };
        let inboxes: BTreeSet<String> = ["x", "y", "z"]
            .into_iter()
            .map(|name| match fork::fork().expect("a child") {
                fork::Fork::Child => {
                    end_after(|| join(name));
                }
                fork::Fork::Parent(child) => {
                    let hello = raw.hear(&format!("hello name={name} "));
                    assert_eq!(ended_by(child), WELL);
                    let field = hello.split(' ').find_map(|it| it.strip_prefix("inbox="));
                    field.expect("a question").to_owned()
                }
            })
            .collect();
        assert_eq!(inboxes.len(), 3, "{inboxes:?}");
    });
}

#[test]
fn a_host_that_drains_late_is_told_the_truth() {
    const PEERS: u32 = 200;
    const SILENCE: Duration = Duration::from_secs(30);
    let server = Server::start();
    let members = three(&server);
    let [deaf, others @ ..] = &members;
    let mut strangers = Raw::listen(&server, "cluster");
    let start = Instant::now();
    let mut round = 0;
    meanwhile(&members, || {
        while start.elapsed() < SILENCE {
            round += 1;
            for n in 0..PEERS {
                // Some stay, some go, some are replaced, some come back after they expired.
                strangers.say(&match n % 4 {
                    0 => format!("pg-peers/1 beat name=p{n} inc=1 seq={round} due=60000;"),
                    1 => format!("pg-peers/1 hello name=p{n} inc={round} seq=1 due=60000;"),
                    2 => format!(
                        "pg-peers/1 beat name=p{n} inc=1 seq={round} due=500 tag.r={round};"
                    ),
                    _ => format!("pg-peers/1 hello name=p{n} inc={round} seq=1 due=60000;"),
                });
                if n % 4 == 3 {
                    strangers.say(&format!("pg-peers/1 bye name=p{n} inc={round} seq=2;"));
                }
            }
            for other in others {
                let is_of_a = |event: &String| event.split([' ', ':']).nth(1) == Some("a");
                let noticed = waiting(other).into_iter().find(is_of_a);
                assert_eq!(noticed, None, "nobody noticed its silence");
            }
            last_until(start + round * Duration::from_secs(3));
        }
    });
    eventually("those who fell silent have left", || {
        deaf.peers().len() == 2 + PEERS as usize / 2
    });
    assert!(deaf.status().undelivered > 0, "{:?}", deaf.status());
    let mut told: BTreeMap<String, Incarnation> =
        ["b", "c"].map(|name| (name.to_owned(), None)).into();
    eventually("the truth", || {
        replay(deaf, &mut told);
        told.keys().eq(&names(deaf)) && deaf.status().undelivered == 0
    });
    for other in others {
        eventually("the others know the same", || {
            other.peers().len() == 2 + PEERS as usize / 2
        });
        assert!(names(other).contains(&"a".to_owned()));
    }
}

type Incarnation = Option<pg_peers::Incarnation>;

/// Applies what waits to what the host was told.
fn replay(member: &Cluster, told: &mut BTreeMap<String, Incarnation>) {
    for event in member.events().try_iter() {
        let Some(peer) = event.peer() else {
            panic!("{event:?}")
        };
        let name = peer.name().to_owned();
        let incarnation = peer.incarnation();
        let known = match event {
            Event::Join(_) => told.insert(name, incarnation).is_none(),
            Event::Heal(_) => {
                told.insert(name, incarnation);
                true
            }
            Event::Update(_) => told.get(&name) == Some(&incarnation),
            Event::Leave(_, _) => told.remove(&name).is_some(),
            _ => panic!("{event:?}"),
        };
        assert!(known, "{event:?}");
    }
}

#[test]
fn nothing_is_left_behind_by_any_use_of_handles() {
    alone("host::nothing_is_left_behind_by_any_use_of_handles", || {
        let server = Server::start();
        let watcher = join(&server, "watcher");
        let before = Resources::at_rest();
        let member = || {
            let member = join(&server, "member");
            expect(&watcher, "join member");
            expect(&member, "join watcher");
            member
        };
        let gone = || {
            expect(&watcher, "leave member: Goodbye");
            eventually("nothing is left behind", || before.are_all());
        };

        // It drops the handle and keeps a receiver, whose events then end.
        let one = member();
        let events = one.events().clone();
        drop(one);
        assert!(events.iter().next().is_none(), "the events end");
        gone();

        // A thread of it panics, with the handle.
        let one = member();
        let result = panic::catch_unwind(AssertUnwindSafe(move || {
            let _one = one;
            panic!("on purpose");
        }));
        result.expect_err("a panic");
        gone();

        // It leaves from another thread, while the first waits for events.
        let one = member();
        let events = one.events().clone();
        let waiter = thread::spawn(move || events.iter().count());
        thread::spawn(move || one.leave())
            .join()
            .expect("no panic")
            .expect("a goodbye");
        assert_eq!(waiter.join().expect("no panic"), 0);
        gone();

        // It asks for something from many threads, and drops the handle meanwhile.
        let one = std::sync::Arc::new(member());
        let askers = (0..8).map(|n| {
            let one = std::sync::Arc::clone(&one);
            thread::spawn(move || {
                for i in 0..50 {
                    one.set_tags([("n", format!("{n} {i}"))]).expect("tags");
                    if let Some(watcher) = one.peer("watcher") {
                        one.report_unreachable(&watcher);
                    }
                    let _ = (one.peers(), one.status());
                }
            })
        });
        let askers: Vec<_> = askers.collect();
        drop(one);
        askers
            .into_iter()
            .for_each(|asker| asker.join().expect("no panic"));
        eventually("a goodbye", || {
            waiting(&watcher).contains(&"leave member: Goodbye".to_owned())
        });
        eventually("nothing is left behind", || before.are_all());
    });
}

#[test]
fn fifty_members_in_one_process_leave_nothing_behind() {
    let _alone = one_crowd();
    alone(
        "host::fifty_members_in_one_process_leave_nothing_behind",
        || {
            let server = Server::start_with(&["max_connections = 150"]);
            let before = Resources::at_rest();
            for _ in 0..2 {
                let join = |n: usize| Config::new(format!("p{n}")).join(&server.params());
                let members: Vec<Cluster> = (0..50).map(|n| join(n).expect("valid")).collect();
                for member in &members {
                    member.wait_for_peers(49, PATIENCE).expect("everybody");
                }
                // Some leave, the others are dropped.
                for (n, member) in members.into_iter().enumerate() {
                    if n % 2 == 0 {
                        member.leave().expect("a goodbye");
                    }
                }
            }
            eventually("nothing is left behind", || before.are_all());
        },
    );
}
