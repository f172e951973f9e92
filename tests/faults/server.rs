//! The server stops, crashes, ends sessions, freezes.

use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config, Event};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_secs(5);

/// The server is down for so long.
fn outage(stop: impl FnOnce(&mut Server), time: Duration) {
    let mut server = Server::start();
    // A peer that is silent for three seconds expires, when it is not the link that is.
    let members = three_quick(&server);
    let leavers = Leavers::join(&server.params());
    meanwhile(&members, || {
        let start = Instant::now();
        stop(&mut server);
        expect_each(&members, "offline");
        leavers.leave_in_time();
        last_until(start + time);
        for member in &members {
            assert_eq!(member.peers().len(), 2, "they are still known");
        }
        server.start_again();
        let up = Instant::now();
        expect_each(&members, "online");
        within("online after the server accepts", up, RECOVERY);
    });
    expect_all_hear_all(&members);
    // Nor afterwards.
    last_until(Instant::now() + 4 * HEARTBEAT);
    expect_all_hear_all(&members);
    for member in &members {
        assert_eq!(member.status().connected, 2);
    }
}

#[test]
fn a_fast_stop() {
    outage(|server| server.stop(Stop::Fast), MOMENT);
}

#[test]
fn a_fast_stop_for_a_minute() {
    if long() {
        outage(|server| server.stop(Stop::Fast), MINUTE);
    }
}

#[test]
fn an_immediate_stop() {
    outage(|server| server.stop(Stop::Immediate), MOMENT);
}

#[test]
fn an_immediate_stop_for_a_minute() {
    if long() {
        outage(|server| server.stop(Stop::Immediate), MINUTE);
    }
}

#[test]
fn a_killed_postmaster() {
    outage(|server| server.kill(), MOMENT);
}

#[test]
fn a_killed_postmaster_for_a_minute() {
    if long() {
        outage(|server| server.kill(), MINUTE);
    }
}

#[test]
fn a_failover_to_a_standby() {
    let mut primary = Server::start();
    let standby = primary.standby();
    let params = primary.params_or(&standby);
    let members = acquainted(["a", "b", "c"].map(Config::new), &params);
    let leavers = Leavers::join(&params);
    meanwhile(&members, || {
        primary.kill();
        expect_each(&members, "offline");
        leavers.leave_in_time();
        standby.promote();
        let promoted = Instant::now();
        expect_each(&members, "online");
        within("online after the promotion", promoted, RECOVERY);
    });
    expect_all_hear_all(&members);
}

#[test]
fn members_that_start_before_the_server_meet_once_it_is_up() {
    let mut server = Server::start();
    server.stop(Stop::Fast);
    let join = |name| Config::new(name).join(&server.params()).expect("valid");
    let members = ["a", "b", "c"].map(join);
    meanwhile(&members, || {
        expect_each(&members, "offline");
        Leavers::start(&server.params()).leave_in_time();
        server.start_again();
        let up = Instant::now();
        expect_each(&members, "online");
        for member in &members {
            expect_joins(member, ["a", "b", "c"]);
        }
        within("everybody known after the server accepts", up, RECOVERY);
    });
    expect_all_hear_all(&members);
}

#[test]
fn a_backend_ended_again_and_again_concerns_nobody_else() {
    let server = Server::start();
    let members = three(&server);
    let leavers = Leavers::join(&server.params());
    let names = leavers.names().map(str::to_owned);
    meanwhile(&members, || {
        for name in &names {
            let pid = backend_of(&server, name);
            server.run(&format!("SELECT pg_terminate_backend({pid})"));
        }
        leavers.leave_in_time();
        for _ in 0..20 {
            let pid = backend_of(&server, "a");
            server.run(&format!("SELECT pg_terminate_backend({pid})"));
            expect(&members[0], "offline");
            let ended = Instant::now();
            expect(&members[0], "online");
            within("online after its backend was terminated", ended, RECOVERY);
        }
    });
    expect_all_hear_all(&members);
}

#[test]
fn all_backends_terminated_at_once_again_and_again() {
    let server = Server::start();
    let members = three(&server);
    let mut leavers = Some(Leavers::join(&server.params()));
    meanwhile(&members, || {
        for _ in 0..20 {
            server.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            );
            let ended = Instant::now();
            expect_each(&members, "offline");
            expect_each(&members, "online");
            within("online after all backends were terminated", ended, RECOVERY);
            leavers.take().into_iter().for_each(Leavers::leave_in_time);
        }
    });
    expect_all_hear_all(&members);
}

const HEARTBEAT: Duration = Duration::from_secs(1);

fn three_quick(server: &Server) -> [Cluster; 3] {
    let quick = |name| Config::new(name).heartbeat_interval(HEARTBEAT);
    acquainted(["a", "b", "c"].map(quick), &server.params())
}

/// The backends of one of three members and of two that leave are stopped for this long.
fn frozen_backend(time: Duration) {
    let mut server = Server::start();
    // On a busy machine the one takes its time to notice and to be back.
    let patient = |name| {
        let quick = Config::new(name).heartbeat_interval(HEARTBEAT);
        quick.missed_heartbeats(10)
    };
    let members = acquainted(["a", "b", "c"].map(patient), &server.params());
    let leavers = Leavers::join(&server.params());
    meanwhile(&members, || {
        let start = Instant::now();
        let [leaver, dropped] = leavers.names();
        server.freeze_backends(&["a", leaver, dropped]);
        expect(&members[0], "offline");
        within("a frozen backend is noticed", start, HEARTBEAT + NOTICE);
        leavers.leave_in_time();
        // By another backend.
        expect(&members[0], "online");
        last_until(start + time);
        server.thaw();
    });
    expect_all_hear_all(&members);
    assert_eq!(members[0].status().connected, 2);
}

#[test]
fn a_frozen_backend() {
    frozen_backend(MOMENT);
}

#[test]
fn a_backend_frozen_for_a_minute() {
    if long() {
        frozen_backend(MINUTE);
    }
}

/// The postmaster and all backends are stopped for so long.
fn frozen_server(time: Duration) {
    let mut server = Server::start();
    let members = three_quick(&server);
    let leavers = Leavers::join(&server.params());
    meanwhile(&members, || {
        server.freeze();
        let start = Instant::now();
        for member in &members {
            let Event::Offline(reason) = expect(member, "offline") else {
                panic!("offline")
            };
            assert!(reason.is_timeout(), "{reason}");
        }
        within("a frozen server is noticed", start, HEARTBEAT + NOTICE);
        leavers.leave_in_time();
        last_until(start + time);
        server.thaw();
        let thawed = Instant::now();
        expect_each(&members, "online");
        within("online after the thaw", thawed, RECOVERY);
    });
    expect_all_hear_all(&members);
}

#[test]
fn a_frozen_server() {
    frozen_server(MOMENT);
}

#[test]
fn a_server_frozen_for_a_minute() {
    if long() {
        frozen_server(MINUTE);
    }
}

#[test]
fn twenty_freezes_leave_no_thread_and_no_descriptor() {
    alone(
        "server::twenty_freezes_leave_no_thread_and_no_descriptor",
        || {
            let mut server = Server::start();
            let names = ["a", "b", "c", "d", "e"];
            let short = |name| Config::new(name).heartbeat_interval(SHORT);
            let members = acquainted(names.map(short), &server.params());
            let before = Resources::at_rest();
            // All five are frozen in each: four are twenty. The long run has twenty of either kind.
            let rounds = if long() { 40 } else { 4 };
            meanwhile(&members, || {
                for round in 0..rounds {
                    if round % 2 == 0 {
                        server.freeze_backends(&names);
                        expect_each(&members, "offline");
                        expect_each(&members, "online");
                        server.thaw();
                    } else {
                        server.freeze();
                        expect_each(&members, "offline");
                        server.thaw();
                        expect_each(&members, "online");
                    }
                }
            });
            eventually("nothing is left behind", || before.are_all());
            expect_all_hear_all(&members);
        },
    );
}

/// Too short for everybody to notice, and so long that those who do, and take their time to be back, must be waited for.
#[test]
fn a_server_frozen_for_two_heartbeats_again_and_again() {
    let mut server = Server::start();
    let proxy = Proxy::start(&server, Duration::from_millis(100));
    let join = |name: &str, params: &str| {
        let quick = Config::new(name).heartbeat_interval(HEARTBEAT);
        // Which is quicker than some are back from so far.
        quick.session_check(false).join(params).expect("valid")
    };
    let near = ["a", "b", "c", "d"].map(|name| join(name, &server.params()));
    let far = ["e", "f", "g", "h"].map(|name| join(name, &proxy.params()));
    let members: Vec<&Cluster> = near.iter().chain(&far).collect();
    let everybody_is_there = || members.iter().all(|member| member.peers().len() == 7);
    eventually("all know each other", everybody_is_there);
    meanwhile(&members, || {
        for _ in 0..if long() { 5 } else { 1 } {
            server.freeze();
            last_until(Instant::now() + 2 * HEARTBEAT);
            server.thaw();
            // During the grace period no peer can leave.
            let infos = near[0].peer_infos().recv().expect("an answer");
            let back = infos.iter().filter_map(|it| it.back).max();
            let expiry = (HEARTBEAT + back.unwrap_or_default()).max(3 * HEARTBEAT);
            last_until(Instant::now() + expiry + HEARTBEAT);
            for member in &members {
                member.wait_online(PATIENCE).expect("online");
            }
        }
    });
    for member in members {
        let events: Vec<Event> = member.events().try_iter().collect();
        let left = events
            .iter()
            .find(|event| matches!(event, Event::Leave(..)));
        assert!(left.is_none(), "{member:?}: {events:?}");
    }
}
