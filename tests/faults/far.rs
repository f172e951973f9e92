//! Members that are far from their server, as in another region, beside some that are near: what happens to their sessions,
//! the server and the network on the way is an outage of theirs, and nobody takes anybody for gone.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config};

use super::*;

const NEAR: [&str; 4] = ["a", "b", "c", "d"];
const FAR: [&str; 3] = ["x", "y", "z"];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// All distances at which something is tried in the long run, in milliseconds.
const ALL: [u64; 5] = [1, 50, 150, 300, 700];

/// In the long run, at each of these distances, in milliseconds, at the same time.
fn at_each<const N: usize>(round_trips: [u64; N], run: impl Fn(Duration) + Sync) {
    if long() {
        thread::scope(|scope| {
            for round_trip in round_trips.map(ms) {
                let run = &run;
                scope.spawn(move || run(round_trip));
            }
        });
    }
}

/// Four near members, over the server's socket, and three far ones, over TLS and with a password.
struct Regions {
    server: Server,
    proxy: Proxy,
    near: [Cluster; 4],
    far: [Cluster; 3],
    /// What the server reads when it starts.
    _files: tempfile::TempDir,
}

impl Regions {
    /// `None` where PostgreSQL was built without TLS.
    fn start(round_trip: Duration, config: impl Fn(&str) -> Config) -> Option<Self> {
        let name = "db.test";
        let authority = Authority::new("ours");
        let tls = TlsServer::start(&authority, &authority.server(name))?;
        let proxy = Proxy::start(&tls.server, round_trip / 2);
        let params = tls.params("app", name);
        let params = params.replace(&tls.server.port().to_string(), &proxy.port().to_string());
        let TlsServer { server, files } = tls;
        let server = Server::watch(server);
        let near = NEAR.map(|name| config(name).join(&server.socket_params()));
        let connector = client::connector(&authority.pem(), None);
        let far = FAR.map(|name| config(name).join_tls(&params, connector.clone()));
        let regions = Self {
            server,
            proxy,
            near: near.map(|member| member.expect("valid")),
            far: far.map(|member| member.expect("valid")),
            _files: files,
        };
        for member in regions.members() {
            let others = NEAR.len() + FAR.len() - 1;
            expect_online_and_joins(member, others);
        }
        Some(regions)
    }

    fn members(&self) -> impl Iterator<Item = &Cluster> + Clone {
        self.near.iter().chain(&self.far)
    }

    /// Ends the sessions of those, and waits until they are back.
    fn end_sessions<'a>(&self, members: impl Iterator<Item = &'a Cluster> + Clone) {
        let names = members.clone().map(|member| format!("'{}'", name(member)));
        let names = names.collect::<Vec<_>>().join(", ");
        self.server.run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ({names})"
        ));
        expect_outage(members);
    }

    /// The network carries nothing for so long, while the far members announce themselves.
    fn stall(&self, time: Duration) {
        let announced = self.far.each_ref().map(|it| it.status().announced);
        for (member, before) in self.far.iter().zip(announced) {
            eventually("an announcement", || member.status().announced > before);
        }
        last_until(Instant::now() + DEFAULT_HEARTBEAT - Duration::from_secs(1));
        self.proxy.stall();
        last_until(Instant::now() + time);
        self.proxy.resume();
        for member in &self.far {
            member.wait_online(PATIENCE).expect("online");
        }
    }
}

fn name(member: &Cluster) -> &str {
    member.name().expect("a member")
}

/// The next events are that it is online, and this many joins, in any order.
#[track_caller]
fn expect_online_and_joins(member: &Cluster, joins: usize) {
    let told = (0..=joins).map(|_| words(&next(member, "online, or a join")));
    let told: Vec<String> = told.collect();
    let of_joins = told.iter().filter(|it| it.starts_with("join "));
    assert_eq!(of_joins.count(), joins, "{told:?} at {member:?}");
    assert!(
        told.contains(&"online".to_owned()),
        "{told:?} at {member:?}"
    );
}

/// Each of them goes offline and comes back.
fn expect_outage<'a>(members: impl Iterator<Item = &'a Cluster> + Clone) {
    for member in members.clone() {
        expect_beside_updates(member, "offline");
    }
    for member in members {
        expect_beside_updates(member, "online");
    }
}

/// The next event that is no update is this.
#[track_caller]
fn expect_beside_updates(member: &Cluster, expected: &str) {
    loop {
        let event = words(&next(member, expected));
        if !event.starts_with("update") {
            assert_eq!(event, expected, "at {member:?}");
            return;
        }
    }
}

/// All that was announced before has been heard by everybody, and nobody left or healed.
#[track_caller]
fn expect_that_nobody_left<'a>(members: impl Iterator<Item = &'a Cluster> + Clone) {
    for speaker in members.clone() {
        let nonce = format!("{:?}", Instant::now());
        speaker.set_tags([("fence", &nonce)]).expect("tags");
        for hearer in members.clone().filter(|it| name(it) != name(speaker)) {
            loop {
                let event = next(hearer, "an update");
                let word = words(&event);
                let is_calm = ["online", "offline"].contains(&&*word) || word.starts_with("update");
                assert!(is_calm, "{word} at {hearer:?}");
                if event.peer().and_then(|peer| peer.tag("fence")) == Some(&*nonce) {
                    break;
                }
            }
        }
    }
}

/// What happens in the life of a cluster, with sessions of the far ones ended this many times.
fn calm_at(round_trip: Duration, rounds: usize, stalls: &[Duration]) {
    let Some(mut regions) = Regions::start(round_trip, |name| Config::new(name)) else {
        return;
    };
    for _ in 0..rounds {
        regions.end_sessions(regions.far.iter());
        // One that ends sooner is dialed again only after a pause, and then a busy machine may not be back in time.
        last_until(Instant::now() + Duration::from_secs(5));
    }
    expect_that_nobody_left(regions.members());
    // Half of the cluster.
    regions.end_sessions(regions.near[..2].iter().chain(&regions.far[..2]));
    expect_that_nobody_left(regions.members());
    regions.server.restart(Stop::Fast);
    expect_outage(regions.members());
    expect_that_nobody_left(regions.members());
    for &time in stalls {
        regions.stall(time);
    }
    expect_that_nobody_left(regions.members());
}

/// A network that carries nothing for so long that statements are given up, and then all of it at once: what is left of the session
/// before must not end before the next has said hello.
fn calm_after_long_stalls_at(round_trip: Duration) {
    let second = Duration::from_secs(1);
    let impatient = |name: &str| {
        let quick = Config::new(name).heartbeat_interval(second);
        // They expire no sooner than others.
        quick.missed_heartbeats(15)
    };
    let Some(regions) = Regions::start(round_trip, impatient) else {
        return;
    };
    let outages = || -> u64 { regions.far.iter().map(|it| it.status().connected).sum() };
    let before = outages();
    for round in 0.. {
        if round >= 3 && outages() > before {
            break;
        }
        assert!(round < 10, "no link was lost");
        regions.proxy.stall();
        // A busy machine gives up later: what it waits for is derived from how long answers took.
        let longer = ms(2_700) + ms(500) * round;
        last_until(Instant::now() + longer + round_trip * 6);
        regions.proxy.resume();
        for member in &regions.far {
            member.wait_online(PATIENCE).expect("online");
        }
        last_until(Instant::now() + 2 * second);
    }
    expect_that_nobody_left(regions.members());
}

#[test]
fn nobody_leaves_after_long_stalls_400_ms_away() {
    at_each([400], calm_after_long_stalls_at);
}

#[test]
fn nobody_leaves_after_long_stalls_at_other_distances() {
    at_each(ALL, calm_after_long_stalls_at);
}

#[test]
fn nobody_leaves_150_ms_away() {
    calm_at(ms(150), 2, &[ms(2_700)]);
}

#[test]
fn nobody_leaves_whose_session_ends_twenty_times_at_any_distance() {
    at_each(ALL, |round_trip| calm_at(round_trip, 20, &[]));
}

#[test]
fn nobody_leaves_in_stalls_of_up_to_four_seconds_at_any_distance() {
    let stalls = [1_000, 2_000, 3_000, 4_000].map(ms);
    at_each(ALL, |round_trip| calm_at(round_trip, 0, &stalls));
}

/// The primary is killed, and a standby promoted, to which the far members' way then leads.
fn failover_at(round_trip: Duration) {
    let mut primary = Server::start();
    primary.run(&format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"));
    primary.require_password("app");
    let standby = primary.standby();
    let proxies = [&primary, &standby].map(|server| Proxy::start(server, round_trip / 2));
    let [first, second] = proxies.each_ref().map(Proxy::port);
    let far = format!(
        "host=127.0.0.1,127.0.0.1 port={first},{second} user=app password={PASSWORD} dbname=postgres \
         target_session_attrs=read-write"
    );
    let near = primary.params_or(&standby);
    let join = |name: &str, params: &str| Config::new(name).join(params).expect("valid");
    let members: Vec<Cluster> = NEAR
        .iter()
        .map(|name| join(name, &near))
        .chain(FAR.iter().map(|name| join(name, &far)))
        .collect();
    for member in &members {
        expect_online_and_joins(member, members.len() - 1);
    }
    primary.kill();
    standby.promote();
    expect_outage(members.iter());
    expect_that_nobody_left(members.iter());
}

#[test]
fn nobody_leaves_in_a_failover_300_ms_away() {
    failover_at(ms(300));
}

#[test]
fn nobody_leaves_in_a_failover_at_other_distances() {
    at_each([1, 50, 150, 700], failover_at);
}

/// A far member that is killed is known to be gone as soon as it could have been back.
fn killed_at(round_trip: Duration) {
    let server = Server::start();
    let near = ["a", "b"].map(|name| join(&server, name));
    // From the first moment on: a checker remembers for some answers how slow the server was.
    let ((known, back), slowness) = slowness_while(&server, &near, || {
        let proxy = Proxy::start(&server, round_trip / 2);
        let mut ear = Raw::listen(&server, "cluster");
        let far = Process::join_at(&proxy.params(), "far", DEFAULT_HEARTBEAT);
        let hello = ear.hear("hello name=far ");
        for member in &near {
            member.wait_for_peers(2, PATIENCE).expect("everybody");
            // A member that has just joined does not look after others yet.
            eventually("a session check", || member.status().checked > 0);
        }
        let is_there = |member: &Cluster| names(member).contains(&"far".to_owned());
        let start = Instant::now();
        far.kill();
        eventually("far is gone", || !near.iter().any(is_there));
        (start.elapsed(), announced_back(&hello))
    });
    let slower = slowness.delays(back);
    println!(
        "{round_trip:?} away it would be back within {back:?}, or {slower:?} later: known after {known:?}"
    );
    // And what was under way, and what asking takes, twice, on a busy machine.
    let slack = round_trip + Duration::from_secs(1) + slower;
    assert!(known < Duration::from_secs(2) + back + slack, "{known:?}");
}

/// Within how much time it would be back, by what it says (`guide/wire.md`).
fn announced_back(hello: &str) -> Duration {
    let Some((_, rest)) = hello.split_once(" back=") else {
        return LEAST_BACK;
    };
    let millis = rest.split([' ', ';']).next();
    ms(millis.and_then(|it| it.parse().ok()).expect("a number"))
}

#[test]
fn a_member_300_ms_away_is_killed() {
    killed_at(ms(300));
}

#[test]
fn members_at_other_distances_are_killed() {
    at_each([1, 50, 150, 700], killed_at);
}

/// The death of a far member is known no later than its distance explains.
#[test]
fn the_time_to_be_back_is_little_more_than_a_reconnect_takes() {
    for round_trip in [1, 50, 300].map(ms) {
        let server = Server::start();
        let proxy = Proxy::start(&server, round_trip / 2);
        let mut ear = Raw::listen(&server, "cluster");
        let far = reticent(Config::new("far")).join(&proxy.params());
        let far = far.expect("valid");
        expect(&far, "online");
        let mut announced = announced_back(&ear.hear("hello name=far "));
        let mut slowest = Duration::ZERO;
        for round in 0..4 {
            wait_until_idle(&server);
            let pid = backend_of(&server, "far");
            let ended = Instant::now();
            server.run(&format!("SELECT pg_terminate_backend({pid})"));
            expect(&far, "offline");
            expect(&far, "online");
            slowest = slowest.max(ended.elapsed());
            println!("{round_trip:?} away: back in {slowest:?}, and {announced:?} announced");
            // It goes by the last two connects, and how long the first took is not seen.
            if round >= 2 {
                let most = (slowest * 3 / 2 + ms(750)).max(LEAST_BACK);
                assert!(announced <= most, "{announced:?} of {most:?}");
            }
            announced = announced_back(&ear.hear("hello name=far "));
        }
    }
}

#[test]
fn few_round_trips_lead_to_online() {
    let server = Server::start();
    server.run(&format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"));
    server.require_password("app");
    let proxy = Proxy::start(&server, ms(75));
    let join = |port| {
        let user = format!("user=app password={PASSWORD} dbname=postgres");
        let params = format!("host=127.0.0.1 port={port} {user}");
        Config::new("far").join(&params).expect("valid")
    };
    count_round_trips(&server, &proxy, join, 11, 8);
}

/// Telling much at once takes one round trip.
#[test]
fn a_hundred_departures_are_told_at_once_300_ms_away() {
    let server = Server::start();
    let proxy = Proxy::start(&server, ms(150));
    let far = Config::new("far").join(&proxy.params()).expect("valid");
    expect(&far, "online");
    let mut stranger = Raw::listen(&server, "cluster");
    for n in 0..100 {
        stranger.say(&format!(
            "pg-peers/1 beat name=p{n:02} inc=1 seq=1 due=600000;"
        ));
        stranger.say(&format!("pg-peers/1 bye name=p{n:02} inc=1 seq=2;"));
    }
    stranger.say("pg-peers/1 beat name=fence inc=1 seq=1 due=600000;");
    eventually("all of it is heard", || names(&far) == ["fence"]);
    let asked = Instant::now();
    stranger.say("pg-peers/1 ask name=fence try=3 inbox=0123456789abcdef ask=1 away=60000;");
    let told = (0..100).map(|_| stranger.hear(" gone name=p"));
    assert_eq!(told.collect::<HashSet<_>>().len(), 100);
    // It may have a statement under way when it is asked, and what it tells comes due within 200 ms.
    within("all told", asked, ms(200) + 4 * ms(300));
}

/// What everybody says of itself takes a long answer: half a megabyte in the long run.
#[test]
fn long_answers_disturb_nobody_300_ms_away() {
    const TAG: usize = 7_000;
    let count = if long() { 80 } else { 20 };
    let _alone = one_crowd();
    // A piece takes a round trip, and two members fit into its 16 kB. The first window is smaller than that.
    let longest_answer = ms(300) * (1 + (count as u32).div_ceil(2));
    let server = Server::start_with(&["max_connections = 300"]);
    let proxy = Proxy::start(&server, ms(150));
    let hour = Duration::from_secs(60 * 60);
    let start = Instant::now();
    let join = |n| {
        let rare = Config::new(format!("p{n:02}")).heartbeat_interval(hour);
        let large = rare.tag("t", "x".repeat(TAG));
        large.join(&proxy.params()).expect("valid")
    };
    let members: Vec<Cluster> = (0..count).map(join).collect();
    let everybody_is_known = || members.iter().all(|it| it.peers().len() == count - 1);
    eventually("everybody", everybody_is_known);
    within("everybody known", start, PATIENCE);
    let answered = || -> u64 { members.iter().map(|it| it.status().answered).sum() };
    let until_no_answer_is_under_way = || {
        let mut last = (answered(), Instant::now());
        let all = becomes_true(longest_answer * 6, || {
            if answered() != last.0 {
                last = (answered(), Instant::now());
            }
            last.1.elapsed() > longest_answer * 3 / 2
        });
        assert!(all, "there is no end of answers");
        last.0
    };
    let before = until_no_answer_is_under_way();
    let ended = &members[count / 2];
    server.run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
        name(ended)
    ));
    eventually("it is back", || ended.status().connected == 2);
    let after = until_no_answer_is_under_way();
    assert!(after > before, "it asks who is there");
    for speaker in [ended, &members[0]] {
        speaker.set_tags([("fence", "1")]).expect("tags");
        let hears = |it: &&Cluster| {
            let fenced =
                |peer: &pg_peers::Peer| peer.name() == name(speaker) && peer.tag("fence").is_some();
            name(it) == name(speaker) || it.peers().iter().any(fenced)
        };
        eventually("all hear it", || members.iter().all(|it| hears(&it)));
    }
    for member in &members {
        let told = waiting(member);
        let count = |what: &str| told.iter().filter(|it| it.starts_with(what)).count();
        let outages = usize::from(name(member) == name(ended));
        assert_eq!(count("offline"), outages, "{told:?} at {member:?}");
        assert_eq!(count("leave") + count("heal"), 0, "{told:?} at {member:?}");
    }
}
