//! Rule 6, where an answer is long: it comes in pieces, from far away, over slow links, from several members at once.

use super::*;

/// The distance of a member that is far.
const FAR: Duration = Duration::from_millis(300);

/// What connecting takes there.
const CONNECTING: Duration = Duration::from_secs(3);

/// How a member of a cluster with long tags takes part.
fn with_tags(name: &str, incarnation: u64, bytes: usize) -> Setup {
    Setup {
        heartbeat: secs(60),
        tags: [("long", "x".repeat(bytes))].into_iter().collect(),
        max_peers: 2_000,
        ..Setup::new(name, incarnation)
    }
}

/// Starts a member that is so far away.
fn start_at(net: &mut Net, setup: Setup, distance: Duration) -> Id {
    let id = net.start_offline(setup);
    net.processes[id].delay = distance;
    let roster = &mut net.processes[id].participant.roster;
    roster.set_back(CONNECTING * 2 + ms(750));
    net.reconnect(id);
    net.told(id);
    id
}

/// Starts that many members that are so far away, and lets them settle.
fn crowd_at(net: &mut Net, count: usize, bytes: usize, distance: Duration) -> Vec<Id> {
    let start = |n| {
        let setup = with_tags(&format!("p{n:02}"), 1 + n as u64, bytes);
        let id = start_at(net, setup, distance);
        net.run(ms(20));
        id
    };
    let ids: Vec<_> = (0..count).map(start).collect();
    net.run(secs(30));
    for &id in &ids {
        assert_eq!(net.seen_by(id).len(), count - 1);
        net.told(id);
    }
    ids
}

/// How many questions a member has asked, its hellos included.
fn questions(net: &Net, id: Id) -> usize {
    let asks = |sent: &&Sent| !sent.payload.contains(" beat ");
    net.sent_by(id).filter(asks).count()
}

/// How long the answers to this inbox took, each from its first payload to its last, by who gave them.
fn answers_to(net: &Net, id: Id) -> HashMap<Id, Duration> {
    let mut times: HashMap<Id, (Duration, Duration)> = HashMap::new();
    let key = net.processes[id].key;
    for (_, sent) in net.answers.iter().filter(|(inbox, _)| *inbox == key) {
        let by = sent.by.expect("a member");
        times.entry(by).or_insert((sent.at, sent.at)).1 = sent.at;
    }
    let took = times
        .into_iter()
        .map(|(by, (first, last))| (by, last - first));
    took.collect()
}

#[test]
fn long_answers_reach_far_newcomers_in_pieces() {
    let mut net = Net::new(1);
    let mut ids = crowd_at(&mut net, 80, 7_000, FAR);
    let newcomer = start_at(&mut net, with_tags("n", 100, 7_000), FAR);
    net.run(secs(30));
    assert_eq!(net.seen_by(newcomer), net.truth_for(newcomer));
    assert_eq!(questions(&net, newcomer), 1);
    let took: Vec<_> = answers_to(&net, newcomer).into_values().collect();
    let [took] = took[..] else {
        panic!("{} answered", took.len());
    };
    assert!(took >= FAR * 39, "{took:?} for 80 payloads");
    ids.push(newcomer);
    // One session ends, and its member is back after a while.
    ids.iter().for_each(|&id| drop(net.told(id)));
    let asked = questions(&net, ids[40]);
    net.disconnect(ids[40]);
    net.run(CONNECTING);
    net.reconnect(ids[40]);
    net.run(secs(30));
    assert_eq!(questions(&net, ids[40]), asked + 1);
    for &id in ids.iter().filter(|&&id| id != ids[40]) {
        assert_eq!(net.told(id), [""; 0]);
    }
    assert_eq!(net.told(ids[40]), ["offline", "online"]);
}

#[test]
fn no_piece_is_longer_than_a_statement_may_be() {
    // 3,865 bytes take a payload each, of which four fit only without their signatures.
    for bytes in [10, 500, 2_500, 3_865, 5_000, 7_000] {
        let mut net = Net::new(1);
        crowd_at(&mut net, 12, bytes, ms(0));
        // The channel asserts it of each.
        let newcomer = start_at(&mut net, with_tags("n", 100, 10), ms(0));
        net.run(SETTLED);
        assert_eq!(net.seen_by(newcomer).len(), 12, "{bytes}");
        assert_eq!(questions(&net, newcomer), 1, "{bytes}");
    }
}

#[test]
fn a_near_newcomer_waits_for_members_that_are_far() {
    let mut net = Net::new(1);
    crowd_at(&mut net, 20, 7_000, FAR);
    let newcomer = start_at(&mut net, with_tags("n", 100, 10), ms(0));
    net.run(secs(20));
    assert_eq!(net.seen_by(newcomer).len(), 20);
    // It cannot know how far they are before the first part of an answer.
    assert_eq!(questions(&net, newcomer), 2);
    assert_eq!(answers_to(&net, newcomer).len(), 2);
}

#[test]
fn a_far_newcomer_waits_for_its_own_distance() {
    let mut net = Net::new(1);
    crowd_at(&mut net, 20, 10, ms(0));
    for (name, distance) in [("x", ms(150)), ("y", ms(300)), ("z", ms(700))] {
        let newcomer = start_at(&mut net, with_tags(name, 100, 10), distance);
        net.run(secs(10));
        assert_eq!(net.seen_by(newcomer).len(), 20);
        assert_eq!(questions(&net, newcomer), 1, "{distance:?}");
        net.leave(newcomer);
        net.run(secs(10));
    }
}

/// Whether the two members that are to answer a question first hear it.
fn first_two_hear(members: &[(String, Incarnation, bool)], (inbox, number): (Inbox, u64)) -> bool {
    let question = Question {
        inbox,
        number,
        away: None,
    };
    let ranks = members
        .iter()
        .map(|(name, incarnation, hears)| (question.rank(name, *incarnation), *hears));
    let mut ranked: Vec<_> = ranks.collect();
    ranked.sort_unstable();
    ranked[..2].iter().all(|(_, hears)| *hears)
}

#[test]
fn a_roster_of_1000_arrives_over_slow_links() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    // The first `hear` members run. The others have only announced themselves, and never answer.
    let (size, hear) = if large() { (1_000, 100) } else { (200, 40) };
    let incarnation = |n: usize| Incarnation::new(1 + n as u64);
    let name = |n: usize| format!("p{n:03}");
    let members: Vec<_> = (0..size)
        .map(|n| (name(n), incarnation(n), n < hear))
        .collect();
    // Its first question, and the one when it is back, are to be heard by those that answer.
    let mut inboxes = (1..).map(|n: u64| Inbox::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let are_heard = |inbox: &Inbox| {
        let mut questions = (0..2).map(|number| (*inbox, number));
        questions.all(|question| first_two_hear(&members, question))
    };
    let inbox = inboxes.find(are_heard);
    for rate in [125_000, 32_000, 16_000] {
        let mut net = Net::new(1);
        let setup = |n| Setup {
            heartbeat: DAY,
            ..with_tags(&name(n), 1 + n as u64, 500)
        };
        let ids: Vec<_> = (0..hear).map(|n| net.start_as(setup(n))).collect();
        net.run(SETTLED);
        for &id in &ids {
            net.processes[id].rate = Some(rate);
        }
        let tag = "x".repeat(500);
        for n in hear..size {
            let (name, incarnation, due) = (name(n), 1 + n, DAY.as_millis());
            net.inject(&format!(
                "pg-peers/1 beat name={name} inc={incarnation} seq=1 due={due} tag.long={tag};"
            ));
        }
        net.run(secs(60));
        for &id in &ids {
            assert_eq!(net.seen_by(id).len(), size - 1);
            net.told(id);
        }
        let newcomer = net.start_offline(Setup {
            inbox,
            ..with_tags("n", 2_000, 10)
        });
        net.processes[newcomer].rate = Some(rate);
        let mut asked = 0;
        for away in [Duration::ZERO, ms(700)] {
            // Its session ends.
            net.disconnect(newcomer);
            net.run(away);
            net.reconnect(newcomer);
            net.run(secs(120));
            assert_eq!(net.seen_by(newcomer).len(), size);
            let asks = questions(&net, newcomer) - asked;
            assert!(asks <= 3, "{asks} questions at {rate} bytes a second");
            asked += asks;
        }
        assert!(answers_to(&net, newcomer).len() <= 4);
        let told = net.told(newcomer);
        assert_eq!(told[told.len() - 2..], ["offline", "online"], "nobody left");
        for &id in &ids {
            assert_eq!(net.told(id), ["join n.2000 long=xxxxxxxxxx"]);
        }
    }
}

#[test]
fn newcomers_that_come_together_are_all_answered() {
    let mut asked_everybody = 0;
    for seed in 1..4 {
        let mut net = Net::new(seed);
        crowd_at(&mut net, 30, 7_000, FAR);
        let mut start = |n: u64| start_at(&mut net, with_tags(&format!("n{n}"), 100 + n, 10), FAR);
        let newcomers: Vec<_> = (0..8).map(&mut start).collect();
        net.run(secs(40));
        for &id in &newcomers {
            assert_eq!(net.seen_by(id), net.truth_for(id));
            asked_everybody += usize::from(questions(&net, id) > 3);
        }
    }
    // Only where all three that it would ask are busy with others.
    assert!(asked_everybody <= 6, "{asked_everybody} of 24");
}

#[test]
fn parts_of_two_answers_may_alternate() {
    let part = |n: u64, name: &str| {
        format!("pg-peers/1 roster part={n} parts=3; name={name}{n} inc=5 seq=2 due=600000;")
    };
    let (mut net, a) = listener(Setup {
        heartbeat: secs(600),
        ..Setup::new("a", 1)
    });
    let key = net.processes[a].key;
    let [b, c] = [77, 78].map(|pid| Pid::new(pid).expect("not zero"));
    for n in 1..=3 {
        net.send_from(b, key, &part(n, "b"));
        if n < 3 {
            net.send_from(c, key, &part(n, "c"));
        }
        net.run(ms(10));
    }
    assert_eq!(net.seen_by(a), ["b1.5", "b2.5", "b3.5", "c1.5", "c2.5"]);
    net.run(secs(10));
    assert_eq!(questions(&net, a), 1, "the answer was whole");
}

#[test]
fn an_answer_that_lacks_a_part_is_not_whole() {
    let part =
        |n: u64| format!("pg-peers/1 roster part={n} parts=3; name=b{n} inc=5 seq=2 due=600000;");
    for parts in [[1, 3, 3], [2, 3, 1], [1, 1, 3]] {
        let (mut net, a) = listener(Setup {
            heartbeat: secs(600),
            ..Setup::new("a", 1)
        });
        let key = net.processes[a].key;
        for n in parts {
            net.send_to(key, &part(n));
            net.run(ms(10));
        }
        net.run(secs(2));
        assert!(questions(&net, a) > 1, "{parts:?}");
    }
}

#[test]
fn each_part_restarts_the_patience() {
    let (mut net, a) = listener(Setup {
        heartbeat: secs(600),
        ..Setup::new("a", 1)
    });
    let key = net.processes[a].key;
    for n in 1..=20 {
        net.send_to(key, &format!("pg-peers/1 roster part={n} parts=99;"));
        net.run(ms(150));
    }
    assert_eq!(questions(&net, a), 1);
    // The answerer is dead. The next is asked, after twice what a part took.
    net.run(ms(100));
    assert_eq!(questions(&net, a), 1);
    net.run(ms(100));
    assert_eq!(questions(&net, a), 2);
}

#[test]
fn a_member_that_reconnects_is_answered_from_the_beginning() {
    for gap in [ms(700), secs(2), secs(4)] {
        let mut net = Net::new(1);
        crowd_at(&mut net, 20, 7_000, FAR);
        let newcomer = start_at(&mut net, with_tags("n", 100, 10), FAR);
        net.run(gap);
        net.disconnect(newcomer);
        net.reconnect(newcomer);
        net.run(secs(20));
        assert_eq!(net.seen_by(newcomer).len(), 20);
        // Two hellos, and a question if who answers is busy with a piece of the first answer.
        let asked = questions(&net, newcomer);
        assert!(asked <= 3, "{asked} questions after {gap:?}");
    }
}

#[test]
fn if_the_answerer_loses_its_link_another_answers() {
    let mut net = Net::new(1);
    crowd_at(&mut net, 20, 7_000, FAR);
    let newcomer = start_at(&mut net, with_tags("n", 100, 10), FAR);
    net.run(secs(2));
    let answering = *answers_to(&net, newcomer).keys().next().expect("one");
    assert!(net.seen_by(newcomer).len() < 20, "there is more to say");
    net.disconnect(answering);
    net.run(CONNECTING);
    net.reconnect(answering);
    net.run(secs(20));
    assert_eq!(net.seen_by(newcomer).len(), 20);
    assert_eq!(questions(&net, newcomer), 2);
    let told = net.told(newcomer);
    assert!(
        told.iter().all(|event| event.starts_with("join")),
        "{told:?}"
    );
}

#[test]
fn an_answer_goes_on_until_the_same_question_comes_anew() {
    let (mut roster, now) = asking();
    let long = "x".repeat(7_000);
    let peers = ["p inc=5", "q inc=6", "r inc=7"];
    for (part, peer) in (1..).zip(peers) {
        let member = format!(" name={peer} seq=1 due=10000 tag.t={long};");
        answer(&mut roster, now, &format!("part={part} parts=3;{member}"));
    }
    let first_in_rank = |inbox: &u64| {
        let first = Question::at(Inbox::new(*inbox));
        let ranked = |number| roster.is_ranked(0, "x", Question { number, ..first });
        ranked(0) && ranked(1)
    };
    let inbox = (1..).find(first_in_rank).expect("one of sixteen");
    let mut ask = |number: u64, attempt: u64| {
        let again = if number > 0 { " ask=1" } else { "" };
        let ask = format!("pg-peers/1 ask name=x inbox={inbox:016x}{again} try={attempt};");
        hear(&mut roster, now, &ask);
        let piece = roster.poll_answer(now);
        piece.map(|it| (it.payloads.len(), it.is_last))
    };
    let whole = ask(0, 0).expect("the first of two pieces");
    assert!(!whole.1);
    let rest = ask(0, 1).expect("the rest of it");
    assert!(rest.1);
    assert_eq!(ask(0, 0), Some(whole));
    assert_eq!(ask(1, 0), Some(whole), "it may have missed the first piece");
}
