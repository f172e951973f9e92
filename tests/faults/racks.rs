//! Hosts with several members each that die, or stop, at once. What started together dies together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::*;

const RACKS: usize = 8;
const EACH: usize = 8;

/// Eight processes of eight members, the oldest first, that all know each other.
struct Racks {
    processes: Vec<Process>,
    server: Server,
    _alone: MutexGuard<'static, ()>,
}

fn name(rack: usize, n: usize) -> String {
    format!("r{rack}-{n}")
}

/// The members of these racks.
fn members(racks: &[usize]) -> BTreeSet<String> {
    let of = |&rack: &usize| (0..EACH).map(move |n| name(rack, n));
    racks.iter().flat_map(of).collect()
}

fn others(racks: &[usize]) -> Vec<usize> {
    (0..RACKS).filter(|rack| !racks.contains(rack)).collect()
}

impl Racks {
    fn start(heartbeat: Duration) -> Self {
        let alone = one_crowd();
        let server = Server::start_with(&["max_connections = 150"]);
        let start = |rack: usize| {
            let names: Vec<String> = members(&[rack]).into_iter().collect();
            let mut process = Process::join_many(&server, &names, heartbeat);
            // The next rack is younger.
            let mut online = 0;
            while online < EACH {
                online += usize::from(process.next("online").ends_with(" online"));
            }
            process
        };
        let processes = (0..RACKS).map(start).collect();
        let racks = Self {
            processes,
            server,
            _alone: alone,
        };
        racks.wait_until_all_are_known();
        racks
    }

    /// Until a session check was made since all have come.
    fn wait_until_all_are_known(&self) {
        let observer = Config::observer().join(&self.server.params());
        let observer = observer.expect("a valid configuration");
        let everybody = observer.wait_for_peers(RACKS * EACH, PATIENCE);
        everybody.expect("everybody");
        // The youngest look after sessions only then.
        last_until(Instant::now() + Duration::from_secs(5));
    }

    fn forget_the_joins(&mut self) {
        for process in &mut self.processes {
            process.forget();
        }
    }
}

/// What each member of these racks is told next is that word of each of those, in any order. Returns when the last was told.
fn expect_each(
    processes: &mut [Process],
    racks: &[usize],
    word: &dyn Fn(&str) -> String,
    of: &[usize],
) -> Instant {
    let of = members(of);
    let expected: BTreeSet<String> = of.iter().map(|name| word(name)).collect();
    for &rack in racks {
        let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for _ in 0..EACH * expected.len() {
            let event = processes[rack].next("news of a rack");
            let (name, what) = event.split_once(' ').expect("a name");
            let is_new = told
                .entry(name.to_owned())
                .or_default()
                .insert(what.to_owned());
            assert!(is_new, "{event} came twice");
        }
        for (name, told) in told {
            assert_eq!(told, expected, "at {name}");
        }
    }
    Instant::now()
}

/// These racks are killed at once; each survivor knows it within four seconds.
fn killed(dead: &[usize]) {
    let mut racks = Racks::start(DEFAULT_HEARTBEAT);
    racks.forget_the_joins();
    let alive = others(dead);
    let gone = |name: &str| format!("leave {name}: SessionGone");
    let (server, processes) = (&racks.server, &mut racks.processes);
    let (after, slowness) = slowness_while(server, &[], || {
        let start = Instant::now();
        for &rack in dead {
            processes[rack].end();
        }
        expect_each(processes, &alive, &gone, dead) - start
    });
    println!("the last of it known after {after:?}");
    let slower = slowness.delays(LEAST_BACK);
    let limit = Duration::from_secs(4) + slower;
    assert!(after < limit, "{after:?}, {slower:?} of slack");
    for &rack in &alive {
        racks.processes[rack].expect_nothing();
    }
}

#[test]
fn the_older_half_is_killed() {
    killed(&[0, 1, 2, 3]);
}

#[test]
fn the_younger_half_is_killed() {
    if long() {
        killed(&[4, 5, 6, 7]);
    }
}

/// Any half but one that has both the oldest and the youngest in it: where nobody is left who looks every two seconds, it takes
/// some seconds more.
fn random_half() -> Vec<usize> {
    let (oldest, youngest) = (0, RACKS - 1);
    loop {
        let half = fastrand::choose_multiple(0..RACKS, RACKS / 2);
        if !half.contains(&oldest) || !half.contains(&youngest) {
            println!("racks {half:?}");
            return half;
        }
    }
}

#[test]
fn a_random_half_is_killed() {
    if long() {
        killed(&random_half());
    }
}

fn stopped_and_thawed(stopped: &[usize]) {
    let mut racks = Racks::start(Duration::from_secs(1));
    racks.forget_the_joins();
    let awake = others(stopped);
    for &rack in stopped {
        racks.processes[rack].freeze();
    }
    expect_each(
        &mut racks.processes,
        &awake,
        &|name| format!("leave {name}: Expired"),
        stopped,
    );
    for &rack in stopped {
        racks.processes[rack].thaw();
    }
    expect_each(
        &mut racks.processes,
        &awake,
        &|name| format!("heal {name}"),
        stopped,
    );
    for rack in 0..RACKS {
        racks.processes[rack].expect_nothing();
    }
}

#[test]
fn the_older_half_is_stopped_and_thawed() {
    stopped_and_thawed(&[0, 1, 2, 3]);
}

#[test]
fn the_younger_half_is_stopped_and_thawed() {
    if long() {
        stopped_and_thawed(&[4, 5, 6, 7]);
    }
}

#[test]
fn a_random_half_is_stopped_and_thawed() {
    if long() {
        stopped_and_thawed(&random_half());
    }
}
