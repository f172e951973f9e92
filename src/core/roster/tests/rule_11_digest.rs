//! Rule 11: whatever went wrong, rosters agree again within seconds.

use super::*;

/// How soon a roster that is wrong is right again.
const MEDIAN: Duration = Duration::from_secs(10);
const LATEST: Duration = Duration::from_secs(20);

/// What may be wrong in a roster.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// A peer is missing.
    Missing,
    /// It is missing, since its session is taken for gone.
    TakenForGone,
    /// It is there, but left.
    Ghost,
    OldIncarnation,
    OtherTags,
}

const ALL: [Wrong; 5] = [
    Wrong::Missing,
    Wrong::TakenForGone,
    Wrong::Ghost,
    Wrong::OldIncarnation,
    Wrong::OtherTags,
];

/// A settled cluster with the default interval and this budget.
fn cluster(count: usize, delivery_budget: u32) -> (Net, Vec<Id>) {
    let mut net = Net::new(count as u64);
    let start = |n| {
        let id = net.start_as(Setup {
            heartbeat: secs(5),
            delivery_budget,
            ..Setup::new(&format!("p{n:03}"), 100 + n as u64)
        });
        net.run(ms(10));
        id
    };
    let ids: Vec<_> = (0..count).map(start).collect();
    // Those that start together are all heard within a burst.
    let spread = count * count * 1_000 / delivery_budget as usize / 10;
    net.run(ms(spread as u64) + secs(10));
    for &id in &ids {
        assert_eq!(net.seen_by(id).len(), count - 1);
    }
    (net, ids)
}

impl Net {
    /// Makes the roster of a process wrong about a peer, so that its host is told what it would be.
    fn corrupt(&mut self, id: Id, name: &str, wrong: Wrong) {
        let (now, since) = (self.clock(), self.now.as_secs());
        let roster = &mut self.processes[id].participant.roster;
        match wrong {
            Wrong::Missing => roster.depart(now, name, Reason::Expired),
            Wrong::TakenForGone => roster.depart(now, name, Reason::SessionGone),
            Wrong::Ghost => {
                let ghost = beat_due("ghost", since, 1, secs(24 * 60 * 60));
                let ghost = wire::decode(&ghost).expect("a beat");
                roster.handle_message(now, STRANGER, &ghost);
            }
            Wrong::OldIncarnation => {
                let entry = roster.entries.get_mut(name).expect("a peer");
                let peer = entry.peer.clone();
                let older = peer.incarnation().map(|it| Incarnation::new(it.get() - 1));
                let peer = Peer::new(peer.shared_name(), older, Tags::default());
                entry.seq = 0;
                roster.exchange(now, name, peer);
            }
            Wrong::OtherTags => {
                let entry = &roster.entries[name];
                let tags = [("v", "wrong")].into_iter().collect();
                let peer = entry.peer.with_tags(tags);
                roster.exchange(now, name, peer);
            }
        }
        self.processes[id].participant.settle();
    }
}

impl Roster {
    /// As if this had been known of a peer all the time.
    fn exchange(&mut self, now: Instant, name: &str, peer: Peer) {
        self.count_out(now, name);
        let entry = self.entries.get_mut(name).expect("a peer");
        let before = std::mem::replace(&mut entry.peer, peer.clone());
        self.count_in(now, name);
        if before.incarnation() != peer.incarnation() {
            self.changed(before, Kind::Left(Reason::Replaced));
            self.changed(peer, Kind::Joined);
        } else {
            self.changed(peer, Kind::Updated);
        }
    }
}

/// How long it takes until all see the truth, each time another roster is wrong in another way.
fn repairs(count: usize, delivery_budget: u32, rounds: usize) -> Vec<Duration> {
    let (mut net, ids) = cluster(count, delivery_budget);
    let mut times = Vec::new();
    for round in 0..rounds {
        let wrong = ALL[round % ALL.len()];
        let id = ids[(round * 7 + 1) % count];
        let other = format!("p{:03}", (round * 3 + 2) % count);
        if net.processes[id].name == other {
            continue;
        }
        net.processes[id].participant.host_forgets();
        // At any time between announcements.
        net.run(ms(137 * round as u64 % 5_000));
        net.corrupt(id, &other, wrong);
        let (start, truth) = (net.now, net.truth_for(id));
        assert_ne!(net.seen_by(id), truth);
        while net.seen_by(id) != truth {
            assert!(net.now - start < LATEST, "{wrong:?} with {count}");
            net.run(ms(100));
        }
        times.push(net.now - start);
        // The pause after a question is not what is measured.
        net.run(secs(80));
        for &id in &ids {
            assert_eq!(net.seen_by(id), net.truth_for(id), "after {wrong:?}");
        }
    }
    times.sort();
    times
}

/// None took longer than the latest may, which is looked at meanwhile.
fn expect_soon(count: usize, budget: u32, times: &[Duration]) {
    let [median, latest] = [times.len() / 2, times.len() - 1].map(|at| times[at]);
    println!("{count} members, budget {budget}: {median:?}, at most {latest:?}");
    assert!(median < MEDIAN, "{median:?} with {count}");
}

#[test]
fn a_roster_that_is_wrong_is_repaired_within_seconds() {
    for (count, budget, rounds) in [(10, 1_800, 40), (10, 200, 40)] {
        expect_soon(count, budget, &repairs(count, budget, rounds));
    }
}

#[test]
fn a_roster_of_100_that_is_wrong_is_repaired_within_seconds() {
    if large() {
        for budget in [1_800, 200] {
            expect_soon(100, budget, &repairs(100, budget, 24));
        }
    }
}

#[test]
fn a_roster_of_400_that_is_wrong_is_repaired_within_seconds() {
    if large() {
        expect_soon(400, 200, &repairs(400, 200, 12));
    }
}

#[test]
fn a_cluster_where_nearly_all_are_wrong_differently_is_repaired() {
    // A ghost that nearly all know is one that two answers list.
    let all_but_ghosts = ALL.iter().filter(|it| !matches!(it, Wrong::Ghost));
    for &wrong in all_but_ghosts {
        let (mut net, ids) = cluster(100, 200);
        for (n, &id) in ids.iter().enumerate().skip(5) {
            net.processes[id].participant.host_forgets();
            net.corrupt(id, &format!("p{:03}", (n + 7) % 100), wrong);
        }
        net.run(MEDIAN);
        for &id in &ids {
            assert_eq!(net.seen_by(id), net.truth_for(id), "{wrong:?}");
        }
    }
}

#[test]
fn members_that_agree_ask_nothing() {
    let (mut net, ids) = cluster(20, 1_800);
    // And others that have no part in it.
    net.start_as(Setup {
        heartbeat: secs(5),
        ..Setup::bare("e@h")
    });
    net.start_as(Setup::observer());
    net.run(secs(10));
    let asked = |net: &Net| {
        net.sent
            .iter()
            .filter(|sent| sent.payload.contains(" ask "))
            .count()
    };
    let before = asked(&net);
    for round in 0..40 {
        net.set_tags(ids[round % 20], &round.to_string());
        net.run(ms(500));
        let id = net.start("x", 1_000 + round as u64);
        net.run(ms(700));
        match round % 2 {
            0 => net.leave(id),
            _ => net.crash(id),
        }
        net.run(secs(5));
    }
    net.run(secs(60));
    assert_eq!(asked(&net), before);
}

#[test]
fn a_difference_that_stays_costs_a_question_a_minute() {
    let (mut net, _) = cluster(10, 1_800);
    let small = net.start_as(Setup {
        heartbeat: secs(5),
        max_peers: 3,
        ..Setup::new("small", 1_000)
    });
    net.run(secs(600));
    let asks = |sent: &&Sent| sent.payload.contains(" ask ");
    let before = net.sent.iter().filter(asks).count();
    net.run(secs(600));
    let all = net.sent.iter().filter(asks).count() - before;
    let by_small = net.sent_by(small).filter(asks).count();
    assert!(by_small > 0, "it knows that it does not know everybody");
    // Each asks two.
    assert!(all <= 22, "{all} questions in ten minutes");
}

/// Where answers are slow to come, the next doubt comes first.
#[test]
fn a_doubt_during_a_question_asks_fewer_than_all() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.run(SETTLED);
    net.sent.clear();
    net.processes[a].delay = secs(4);
    for seq in 1..60 {
        for peer in ["x", "y"] {
            net.inject(&format!(
                "pg-peers/1 beat name={peer} inc=1 seq={seq} due=5000 digest=9.0000000000000007;"
            ));
        }
        net.run(secs(1));
    }
    let asked = |by: u64| {
        let attempt = format!(" try={by};");
        let asks = net
            .sent_by(a)
            .filter(|sent| sent.payload.contains(&attempt));
        asks.count()
    };
    assert!(asked(ASK_ALL - 1) > 0, "nobody answers");
    assert_eq!(asked(ASK_ALL), 0);
}

#[test]
fn only_a_member_that_knows_all_and_asks_nothing_is_in_doubt() {
    for (state, doubts) in [
        ("settled", true),
        ("asking", false),
        ("replaced", false),
        ("reviewing", false),
    ] {
        let (mut roster, mut now) = asking();
        if state == "replaced" {
            hear(&mut roster, now, &hello("a", 2, 1));
        }
        if state != "asking" {
            let others = " name=p inc=5 seq=1 due=1000; name=q inc=6 seq=1 due=1000;";
            let number = roster.sync.question(None).number;
            answer(
                &mut roster,
                now,
                &format!("ask={number} part=1 parts=1;{others}"),
            );
            assert!(roster.sync.is_settled(), "{state}");
        }
        for seq in 2..5 {
            now += secs(1);
            for (name, incarnation) in [("p", 5), ("q", 6)] {
                let said = beat(name, incarnation, seq).replace(';', " digest=9.00000000000000ff;");
                hear(&mut roster, now, &said);
            }
            if state == "reviewing" && roster.review.is_none() {
                now += secs(2);
                drain(&mut roster, now);
                assert!(roster.review.is_some() && roster.sync.is_settled());
            }
        }
        assert_eq!(roster.doubt.deadline().is_some(), doubts, "{state}");
    }
}

#[test]
fn it_takes_two_peers_or_the_only_one_twice_to_be_in_doubt() {
    let [p, q, r] = ["name=p inc=5", "name=q inc=6", "name=r inc=7"];
    for (known, speaks, doubts) in [
        (vec![p], [p, p], true),
        (vec![p, q], [p, p], false),
        (vec![p, q], [p, q], true),
        (vec![p, q, r], [p, p], false),
    ] {
        let (mut roster, mut now) = asking();
        let known: Vec<_> = known
            .iter()
            .map(|it| format!(" {it} seq=1 due=1000;"))
            .collect();
        answer(
            &mut roster,
            now,
            &format!("part=1 parts=1;{}", known.concat()),
        );
        for (seq, speaker) in (2..).zip(speaks) {
            now += secs(1);
            let said =
                format!("pg-peers/1 beat {speaker} seq={seq} due=1000 digest=9.00000000000000ff;");
            hear(&mut roster, now, &said);
        }
        assert_eq!(
            roster.doubt.deadline().is_some(),
            doubts,
            "{known:?} {speaks:?}"
        );
    }
}

#[test]
fn a_peer_that_answers_differently_is_not_believed_alone() {
    let (mut net, ids) = cluster(10, 1_800);
    net.told(ids[0]);
    // Half of them know a ghost, and one another tag. No matter who asks, two of them must agree.
    for &id in &ids[5..] {
        net.corrupt(id, "p001", Wrong::Ghost);
    }
    net.corrupt(ids[9], "p003", Wrong::OtherTags);
    net.run(secs(240));
    let told = net.told(ids[0]);
    let about_members = told.iter().filter(|event| !event.contains("ghost"));
    assert_eq!(about_members.count(), 0, "{told:?}");
    assert_eq!(
        net.seen_by(ids[9])
            .iter()
            .filter(|peer| peer.contains("wrong"))
            .count(),
        0
    );
}

#[test]
fn a_member_that_all_others_miss_announces_itself() {
    let (mut net, ids) = cluster(10, 200);
    for &id in &ids[1..] {
        net.processes[id].participant.host_forgets();
        net.corrupt(id, "p000", Wrong::Missing);
    }
    net.run(LATEST);
    for &id in &ids {
        assert_eq!(net.seen_by(id), net.truth_for(id));
    }
}

#[test]
fn a_newcomer_that_nobody_heard_is_known_within_seconds() {
    let (mut net, ids) = cluster(100, 200);
    for &id in &ids {
        net.processes[id].deaf_to = 1;
    }
    let newcomer = net.start_as(Setup {
        heartbeat: secs(5),
        delivery_budget: 200,
        ..Setup::new("n", 1_000)
    });
    net.run(LATEST);
    for &id in ids.iter().chain([&newcomer]) {
        assert_eq!(net.seen_by(id), net.truth_for(id));
    }
}

/// A review is under way at the first of ten members: what two others then answer, in two parts each.
fn reviewed(between: &[String], answers: [[&str; 2]; 2]) -> Vec<String> {
    let (mut net, ids) = cluster(10, 1_800);
    let id = ids[0];
    net.told(id);
    let now = net.clock();
    let roster = &mut net.processes[id].participant.roster;
    two_differ(roster, now);
    // Nobody else hears the question, which is answered by hand.
    for &other in &ids[1..] {
        net.pause(other);
    }
    net.run(secs(2) + ms(10));
    let key = net.processes[id].key;
    let pids = [77, 78].map(|pid| Pid::new(pid).expect("not zero"));
    for (pid, parts) in pids.into_iter().zip(answers) {
        for (part, members) in (1..).zip(parts) {
            net.send_from(
                pid,
                key,
                &format!("pg-peers/1 roster ask=1 part={part} parts=2;{members}"),
            );
            net.run(ms(5));
            if part == 1 {
                between.iter().for_each(|payload| net.inject(payload));
            }
            net.run(ms(5));
        }
    }
    net.processes[id].participant.check();
    net.told(id)
}

/// All nine others as they are, but for what is said of p001.
fn answer_with(net_says: &str) -> [String; 2] {
    let (net, ids) = cluster(10, 1_800);
    let roster = &net.processes[ids[0]].participant.roster;
    let others = roster.alive().filter(|entry| entry.peer.name() != "p001");
    let others = others.map(|entry| {
        let (name, seq) = (entry.peer.name(), entry.seq);
        let incarnation = entry.peer.incarnation().expect("in full");
        format!(" name={name} inc={incarnation} seq={seq} due=5000 age=1;")
    });
    let seq = roster.entries["p001"].seq;
    let p001 = net_says.replace("SEQ", &seq.to_string());
    [p001, others.collect()]
}

#[test]
fn tags_of_a_peer_that_has_left_meanwhile_are_not_taken() {
    let said = answer_with(" name=p001 inc=101 seq=SEQ due=5000 age=1 tag.v=old;");
    let [first, second] = said.each_ref().map(String::as_str);
    let told = reviewed(&[], [[first, second]; 2]);
    assert_eq!(told, ["update p001.101 v=old"]);
    let left = [bye("p001", 101, 1_000_000)];
    let told = reviewed(&left, [[first, second]; 2]);
    assert_eq!(told, ["leave p001.101 Goodbye"]);
    let retagged = [tagged_beat("p001", 101, 1_000_000, "new")];
    let told = reviewed(&retagged, [[first, second]; 2]);
    assert_eq!(told, ["update p001.101 v=new"]);
}

#[test]
fn tags_of_two_answers_yield_to_what_is_heard_meanwhile() {
    for (meanwhile, expected) in [
        (String::new(), vec!["p.5 v=old", "q.6"]),
        (tagged_beat("p", 5, 2, "new"), vec!["p.5 v=new", "q.6"]),
        (hello("p", 7, 1), vec!["p.7", "q.6"]),
        (bye("p", 5, 2), vec!["q.6"]),
        // It is not there, and its start and number are those that are told of.
        (
            "pg-peers/1 gone name=p inc=5 seq=1 why=silent;".to_owned(),
            vec!["q.6"],
        ),
    ] {
        let (mut roster, mut now) = asking();
        let [p, q] = [
            " name=p inc=5 seq=1 due=600000",
            " name=q inc=6 seq=1 due=600000",
        ];
        answer(&mut roster, now, &format!("part=1 parts=1;{p};{q};"));
        two_differ(&mut roster, now);
        now += secs(10);
        drain(&mut roster, now);
        assert!(roster.review.is_some());
        let parts = [format!("{p} tag.v=old;"), format!("{q};")];
        for (part, members) in (1..).zip(parts) {
            let payload = format!("pg-peers/1 roster ask=1 part={part} parts=2;{members}");
            for pid in [78, 79].map(|pid| Pid::new(pid).expect("a number")) {
                let part = wire::decode_roster(&payload).expect("a part");
                roster.handle_sync_part(now, pid, &part);
            }
            if part == 1 && !meanwhile.is_empty() {
                hear(&mut roster, now, &meanwhile);
            }
        }
        assert_eq!(here(&roster), expected, "{meanwhile}");
    }
}

#[test]
fn one_that_alone_takes_a_peer_for_gone_is_not_believed() {
    let gone = answer_with(" name=p001 inc=101 seq=SEQ why=silent;");
    let there = answer_with(" name=p001 inc=101 seq=SEQ due=5000 age=1;");
    let parts = |of: &[String; 2]| [of[0].clone(), of[1].clone()];
    let [gone, there] = [parts(&gone), parts(&there)];
    let told = reviewed(&[], [[&gone[0], &gone[1]], [&there[0], &there[1]]]);
    assert_eq!(told, [""; 0]);
    let told = reviewed(&[], [[&gone[0], &gone[1]], [&gone[0], &gone[1]]]);
    assert_eq!(told, ["leave p001.101 Expired"]);
}

#[test]
fn a_large_crowd_that_starts_at_once_asks_no_more_than_it_must() {
    let mut net = Net::new(1);
    let start = |n| {
        let id = net.start_as(Setup {
            heartbeat: secs(60 * 60),
            delivery_budget: 1_800,
            ..Setup::new(&format!("p{n:02}"), 1 + n as u64)
        });
        net.processes[id].delay = ms(300);
        net.run(ms(35));
        id
    };
    let ids: Vec<Id> = (0..80).map(start).collect();
    net.run(SETTLED);
    for &id in &ids {
        assert_eq!(net.seen_by(id).len(), 79);
    }
    let answers = net.answers.len();
    net.run(secs(60));
    assert_eq!(net.answers.len(), answers);
}
