//! The network between one member and the server carries nothing for a while, or is slow.

use std::time::Duration;

use super::*;

/// A link that carries nothing is noticed within two heartbeats: the statement that meets it may take as long as one. And a
/// moment.
const NOTICED: Duration = Duration::from_secs(11);

/// After this a member is back once the network is: an attempt to connect may wait for TCP to send again.
const BACK: Duration = Duration::from_secs(5);

/// Two members at the server, and one that a network lies before; all with the default settings.
fn two_and_one_behind(server: &Server, params: &str) -> [Cluster; 3] {
    let join = |name, params: &str| Config::new(name).join(params).expect("valid");
    let members = [
        join("a", &server.params()),
        join("b", &server.params()),
        join("c", params),
    ];
    for member in &members {
        expect(member, "online");
        expect_joins(member, ["a", "b", "c"]);
    }
    members
}

/// A proxy forwards nothing for so long, and closes nothing: the server does not know it either.
fn stalled(time: Duration, expires: bool) {
    let server = Server::start();
    let proxy = Proxy::start(&server, Duration::ZERO);
    let members = two_and_one_behind(&server, &proxy.params());
    let [a, b, c] = &members;
    let leavers = Leavers::join(&proxy.params());
    // Right after an announcement: it expires 15 seconds later.
    let announced = c.status().announced;
    eventually("an announcement", || c.status().announced > announced);
    meanwhile(&members, || {
        proxy.stall();
        let start = Instant::now();
        expect(c, "offline");
        within("a black hole is noticed", start, NOTICED);
        leavers.leave_in_time();
        if expires {
            for other in [a, b] {
                expect(other, "leave c: Expired");
            }
        }
        last_until(start + time);
        assert_eq!(c.peers().len(), 2, "it drops nobody");
        proxy.resume();
        let mended = Instant::now();
        expect(c, "online");
        within("online once the network carries again", mended, BACK);
        if expires {
            for other in [a, b] {
                expect(other, "heal c");
            }
        }
    });
    expect_all_hear_all(&members);
}

#[test]
fn a_black_hole() {
    stalled(Duration::from_secs(10), false);
}

#[test]
fn a_black_hole_for_a_minute() {
    if long() {
        stalled(Duration::from_secs(60), true);
    }
}

/// A router between two hosts forwards nothing for so long: the server gives the session up.
fn vanished(time: Duration) {
    let Some(mut network) = Network::new() else {
        return;
    };
    let server = Server::start_on(&network);
    let members = acquainted(["a", "b"].map(Config::new), &server.params());
    let mut far = Process::join_from(&network, &server, "far", DEFAULT_HEARTBEAT);
    far.expect_all(&["join a", "join b"]);
    for member in &members {
        expect(member, "join far");
    }
    meanwhile(&members, || {
        let start = Instant::now();
        network.cut();
        far.expect("offline");
        within("a vanished server is noticed", start, NOTICED);
        for member in &members {
            expect(member, "leave far: SessionGone");
        }
        within("a vanished host is noticed", start, Duration::from_secs(20));
        last_until(start + time);
        network.mend();
        let mended = Instant::now();
        far.expect("online");
        within("online once the router forwards again", mended, BACK);
        for member in &members {
            expect(member, "heal far");
        }
    });
    expect_all_hear_all(&members);
    far.expect_all(&["update a", "update b"]);
}

#[test]
fn a_host_that_vanishes() {
    vanished(Duration::from_secs(10));
}

#[test]
fn a_host_that_vanishes_for_a_minute() {
    if long() {
        vanished(Duration::from_secs(60));
    }
}

#[test]
fn nobody_leaves_on_a_slow_network_that_stalls() {
    let server = Server::start();
    let proxy = Proxy::start(&server, Duration::from_millis(200));
    let members = two_and_one_behind(&server, &proxy.params());
    let [a, b, c] = &members;
    let leavers = Leavers::join(&proxy.params());
    let start = Instant::now();
    meanwhile(&members, || {
        leavers.leave_in_time();
        // Longer than an expiry takes.
        while start.elapsed() < 4 * DEFAULT_HEARTBEAT {
            last_until(Instant::now() + Duration::from_millis(1_700));
            proxy.stall();
            last_until(Instant::now() + Duration::from_millis(800));
            proxy.resume();
        }
    });
    c.wait_online(PATIENCE).expect("online");
    c.set_tags([("over", "1")]).expect("tags");
    for other in [a, b] {
        expect(other, "update c");
    }
    // What it was told before, and the link itself, may have come again.
    let told = waiting(c);
    let left = told
        .iter()
        .any(|event| !["offline", "online"].contains(&&**event));
    assert!(!left, "{told:?}");
}
