//! Rule 6: a newcomer knows everybody at once, by the answer of one member.

use super::*;

#[test]
fn a_newcomer_is_told_everybody_by_one_member() {
    for count in [1, 2, 10, 100] {
        let mut net = Net::new(1);
        let ids = quiet_crowd(&mut net, count, |_| ms(20));
        net.set_tags(ids[0], "7");
        net.run(SETTLED);
        let (sent, delivered) = (net.sent.len(), net.deliveries);
        let newcomer = net.start("n", 1);
        net.run(LATENCY);
        for &id in &ids {
            assert!(net.seen_by(id).contains(&"n.1".to_owned()));
        }
        net.run(LATENCY * 2);
        assert_eq!(net.seen_by(newcomer), net.truth_for(newcomer));
        net.run(SETTLED);
        let own = net.count_sent_by(newcomer);
        assert_eq!(net.sent.len() - sent, own, "nobody else says anything");
        let beats = own - 1;
        let answer = net.deliveries - delivered - (count + 1) * (1 + beats);
        assert!((1..=3).contains(&answer), "{answer} payloads for {count}");
    }
}

#[test]
fn an_observer_is_told_everybody_without_announcing_itself() {
    let mut net = Net::new(1);
    quiet_crowd(&mut net, 10, |_| ms(20));
    net.run(SETTLED);
    let observer = net.start_as(Setup::observer());
    let is_observer = |id: Id| net.processes[id].participant.roster.is_observer();
    assert_eq!([0, observer].map(is_observer), [false, true]);
    net.run(LATENCY * 3);
    assert_eq!(net.seen_by(observer).len(), 10);
    net.run(secs(60));
    assert_eq!(net.count_sent_by(observer), 1, "it asked once");
}

#[test]
fn of_those_that_know_all_the_lowest_rank_answers() {
    let (mut roster, now) = asking();
    let others = " name=p inc=5 seq=1 due=1000; name=q inc=6 seq=1 due=1000;";
    answer(&mut roster, now, &format!("part=1 parts=1;{others}"));
    for inbox in 1..100 {
        let question = Question::at(Inbox::new(inbox));
        let rank = |name: &str, start| question.rank(name, Incarnation::new(start));
        let own = rank("a", 1);
        let lower = [rank("p", 5), rank("q", 6)].map(|other| u64::from(other < own));
        let place = lower[0] + lower[1];
        let answers = [0, 1, 2].map(|attempt| roster.is_ranked(attempt, "x", question));
        assert_eq!(
            answers,
            [0, 1, 2].map(|attempt| attempt == place),
            "{inbox}"
        );
        // The one that asks does not answer itself.
        let without_q = roster.is_ranked(lower[0], "q", question);
        assert!(without_q, "{inbox}");
    }
}

#[test]
fn a_member_that_does_not_know_all_announces_itself_to_newcomers() {
    for (attempt, announces) in [(0, true), (1, false), (2, false)] {
        let (mut roster, now) = asking();
        let ask = format!("pg-peers/1 ask name=x inbox=00000000000000ff try={attempt};");
        hear(&mut roster, now, &ask);
        let said = drain(&mut roster, now + ms(20));
        let announced = said.iter().any(|it| it.contains(" name=a inc="));
        assert_eq!(announced, announces, "{attempt}: {said:?}");
    }
}

#[test]
fn if_the_first_in_rank_is_dead_the_next_answers() {
    let mut attempts = [0; 5];
    for seed in 0..60 {
        let mut net = Net::new(seed);
        let ids = quiet_crowd(&mut net, 6, |_| ms(20));
        net.run(SETTLED);
        for &id in &ids[..3] {
            // Too lately for anybody to know.
            net.crash(id);
        }
        let newcomer = net.start_as(Setup {
            heartbeat: secs(600),
            ..Setup::new("n", 1)
        });
        net.run(ms(900));
        let asked = |sent: &&Sent| !sent.payload.contains(" beat ");
        let attempt = net.sent_by(newcomer).filter(asked).count();
        // Those who answer for themselves are alive.
        let told = if attempt == 4 { 3 } else { 6 };
        assert_eq!(net.seen_by(newcomer).len(), told, "seed {seed}");
        attempts[attempt] += 1;
    }
    // One half at once, a quarter the second time, and so on; the last attempt asks everybody.
    assert!(attempts[1] > attempts[3], "{attempts:?}");
    assert!(attempts[1..].iter().all(|&count| count > 0), "{attempts:?}");
}

#[test]
fn a_newcomer_that_nobody_answers_asks_everybody_in_the_end() {
    let (mut net, a) = listener(Setup {
        heartbeat: secs(600),
        ..Setup::new("a", 1)
    });
    net.run(secs(60));
    let said: Vec<_> = net.sent_by(a).map(|sent| sent.at).collect();
    // Each 200 ms after the one before has come back; then it announces itself, as all are to do.
    assert_eq!(said[..4], [ms(0), ms(201), ms(402), ms(603)]);
    assert_eq!(said.len(), 5);
    assert!(net.sent[3].payload.contains(" try=3;"));
}

#[test]
fn patience_begins_when_the_question_has_gone_out() {
    // When the second question is due, if the first took that long to go out, or its driver does not say.
    let asks_again = |took: Option<Duration>| {
        let start = Instant::now();
        let mut roster = Setup::observer().roster(1, Inbox::new(1));
        roster.handle_link_up(start, None);
        assert!(roster.poll_announcement(start).is_some());
        if let Some(took) = took {
            roster.handle_sent(start + took);
            roster.handle_sent(start + secs(60));
        }
        roster.poll_timeout().map(|at| at - start)
    };
    assert_eq!(asks_again(Some(ms(1))), Some(ms(201)));
    assert_eq!(asks_again(Some(ms(500))), Some(ms(700)));
    assert_eq!(asks_again(None), Some(ms(200)));
}

#[test]
fn a_member_that_is_behind_does_not_take_what_it_heard_for_all() {
    let start = Instant::now();
    let mut roster = Setup::new("a", 1).roster(1, Inbox::new(1));
    roster.handle_link_up(start, None);
    let mut now = start;
    // Its questions, the one to all included, and then its announcement.
    for _ in 0..20 {
        now += ms(100);
        while roster.poll_announcement(now).is_some() {
            roster.handle_sent(now);
        }
        let _ = roster.handle_timeout(start, start);
    }
    let answers = |roster: &mut Roster| {
        let question = "pg-peers/1 ask inbox=00000000000000ff try=0;";
        let question = wire::decode(question).expect("a question");
        roster.handle_message(now, STRANGER, &question);
        roster.poll_answer(now).is_some()
    };
    assert!(!answers(&mut roster), "others are still to be heard");
    let _ = roster.handle_timeout(now, now);
    assert!(answers(&mut roster));
}

#[test]
fn what_was_asked_before_all_were_asked_is_not_answered() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.run(SETTLED);
    for (by_all, away, answered) in [(false, "", 3), (true, "", 0), (true, " away=100", 3)] {
        let now = net.clock();
        let roster = &mut net.processes[a].participant.roster;
        for number in 0..3 {
            let question = format!("pg-peers/1 ask inbox=000000000000000{number}{away} try=0;");
            let question = wire::decode(&question).expect("a question");
            roster.handle_message(now, STRANGER, &question);
        }
        if by_all {
            let question = "pg-peers/1 ask inbox=00000000000000ff try=3;";
            let question = wire::decode(question).expect("a question");
            roster.handle_message(now, STRANGER, &question);
        }
        let answers = std::iter::from_fn(|| roster.poll_answer(now)).count();
        assert_eq!(answers, answered);
    }
}

#[test]
fn answers_are_shared_among_all() {
    const CROWD: usize = 20;
    let mut net = Net::new(1);
    let ids = quiet_crowd(&mut net, CROWD, |_| ms(20));
    net.run(SETTLED);
    let mut answered = HashMap::new();
    for n in 0..1_000_u64 {
        let inbox = Inbox::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let ranked: Vec<_> = ids
            .iter()
            .filter(|&&id| {
                net.processes[id]
                    .participant
                    .roster
                    .is_ranked(0, "", Question::at(inbox))
            })
            .collect();
        let [first] = ranked[..] else {
            panic!("{} would answer", ranked.len());
        };
        *answered.entry(first).or_insert(0) += 1;
    }
    let fair = 1_000 / CROWD;
    assert_eq!(answered.len(), CROWD);
    assert!(
        answered
            .values()
            .all(|count| (fair / 3..=fair * 3).contains(count)),
        "{answered:?}"
    );
}

#[test]
fn an_answer_does_not_prolong_a_grace_period() {
    let mut net = Net::new(1);
    let a = net.start_as(Setup {
        session_check: false,
        ..Setup::new("a", 9)
    });
    net.run(SETTLED);
    net.inject(&beat_due("b", 5, 1, secs(2)));
    net.run(secs(5));
    let n = net.start_as(Setup {
        session_check: false,
        ..Setup::new("n", 10)
    });
    net.run(ms(900));
    assert_eq!(net.seen_by(n), ["a.9", "b.5"]);
    net.run(ms(200));
    assert_eq!(net.seen_by(a), ["n.10"]);
    assert_eq!(net.seen_by(n), ["a.9"]);
}

#[test]
fn a_crowd_that_starts_together_is_complete_soon() {
    for (crowd, gap) in [
        (2, ms(0)),
        (10, ms(1)),
        (50, ms(0)),
        (50, ms(5)),
        (100, ms(10)),
    ] {
        let mut net = Net::new(1);
        let ids = quiet_crowd(&mut net, crowd, |_| gap);
        net.run(secs(2));
        for &id in &ids {
            assert_eq!(net.seen_by(id).len(), crowd - 1);
        }
        net.run(SETTLED);
        let each = net.deliveries / crowd / crowd;
        assert!(each <= 8, "{each} from each to each with gaps of {gap:?}");
        let everybody = net
            .sent
            .iter()
            .filter(|sent| sent.payload.contains("try=3"));
        let (count, most) = (
            everybody.count(),
            if gap.is_zero() { crowd } else { crowd / 4 },
        );
        assert!(count <= most, "{count} of {crowd} asked everybody");
    }
}

#[test]
fn hellos_in_a_row_without_an_inbox_share_an_announcement() {
    let (mut net, a) = listener(Setup {
        heartbeat: secs(600),
        delivery_budget: 200,
        ..Setup::new("a", 1)
    });
    for n in 0..100 {
        net.inject(&beat_due(&format!("p{n}"), 1, 1, secs(600)));
    }
    net.run(SETTLED);
    let before = net.count_sent_by(a);
    for n in 0..1_000 {
        net.inject(&hello(&format!("p{}", n % 100), 1, 2 + n));
        net.run(ms(1));
    }
    // A hundred members take half a second to announce themselves.
    let said = net.count_sent_by(a) - before;
    assert!((1..=3).contains(&said), "{said} announcements in a second");
}

#[test]
fn announcing_to_one_newcomer_does_not_delay_the_next() {
    for seed in 0..20 {
        let mut net = Net::new(seed);
        let a = net.start_as(Setup {
            heartbeat: secs(600),
            ..Setup::new("a", 1)
        });
        for n in 0..60 {
            net.inject(&beat_due(&format!("p{n}"), 1, 1, secs(600)));
        }
        net.run(SETTLED);
        let hellos = ["x", "y", "z"].map(|name| hello(name, 1, 1));
        for payload in hellos {
            let before = net.count_sent_by(a);
            net.inject(&payload);
            net.run(ANSWERED_WITHIN);
            let answered = net.count_sent_by(a) > before;
            assert!(answered, "{payload} with seed {seed}");
        }
    }
}

#[test]
fn an_observer_that_does_not_ask_says_nothing() {
    let mut net = Net::new(1);
    net.start("a", 1);
    net.start_as(Setup::bare("elixir@h"));
    let observer = net.start_as(Setup {
        observer_asks: false,
        ..Setup::observer()
    });
    net.start("late", 2);
    net.run(HEARTBEAT * 2);
    assert_eq!(net.seen_by(observer), ["a.1", "elixir@h", "late.2"]);
    net.disconnect(observer);
    net.reconnect(observer);
    net.run(HEARTBEAT * 2);
    assert_eq!(net.sent_by(observer).count(), 0);
}

#[test]
fn an_observer_says_nothing_of_itself_or_others() {
    let mut net = Net::new(1);
    let observer = net.start_as(Setup::observer());
    let a = net.start("a", 2);
    net.inject("elixir@host");
    net.run(SETTLED);
    net.inject(&hello("a", 1, 99));
    net.run(SETTLED);
    assert_eq!(net.seen_by(observer), ["a.2"]);
    let asks = |sent: &Sent| sent.payload.starts_with("pg-peers/1 ask inbox=");
    assert!(net.sent_by(observer).all(asks));
    assert!(net.seen_by(a).is_empty());
}

#[test]
fn a_departure_outweighs_an_answer_written_before_it() {
    let ends = [
        "pg-peers/1 bye name=b inc=5 seq=3;",
        "pg-peers/1 gone name=b inc=5 seq=2;",
    ];
    for end in ends {
        for known in [false, true] {
            let (mut net, a) = listener(Setup::new("a", 1));
            if known {
                net.inject(&beat_due("b", 5, 1, secs(600)));
                net.run(ms(10));
            }
            net.inject(end);
            let key = net.processes[a].key;
            let age = "pg-peers/1 roster part=1 parts=1; name=b inc=5 seq=2 due=600000 age=1;";
            net.send_to(key, age);
            net.run(ms(10));
            assert!(net.seen_by(a).is_empty(), "{end} {known}");
            assert!(!net.told(a).iter().any(|event| event.starts_with("heal")));
            // It is there after all.
            net.inject(&beat_due("b", 5, 4, secs(600)));
            net.run(ms(10));
            let said_goodbye = known && end.contains("bye");
            assert_eq!(net.seen_by(a).is_empty(), said_goodbye, "{end} {known}");
        }
    }
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.run(SETTLED);
    let key = net.processes[a].key;
    net.send_to(
        key,
        "pg-peers/1 roster part=1 parts=1; name=b inc=5 seq=2 due=600000 age=1;",
    );
    net.run(ms(10));
    assert!(net.seen_by(a).is_empty());
}

#[test]
fn a_member_that_was_away_answers_with_those_heard_since() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 2);
    net.disconnect(ids[0]);
    net.leave(ids[1]);
    net.run(ms(10));
    net.reconnect(ids[0]);
    net.run(SETTLED);
    assert_eq!(net.seen_by(ids[0]), ["p01.2"], "it has its grace");
    let n = net.start("n", 9);
    net.run(ms(10));
    assert_eq!(net.seen_by(n), ["p00.1"]);
}

#[test]
fn an_answer_says_how_long_ago_a_peer_was_heard() {
    let mut net = Net::new(1);
    let impatient = net.start("a", 1);
    net.processes[impatient].participant.roster.limits.missed = 1;
    net.run(SETTLED);
    net.inject(&beat_due("b", 5, 1, secs(10)));
    net.run(secs(4));
    let n = net.start("n", 9);
    // Three times its interval, of which some were over.
    net.run(secs(25));
    assert!(net.seen_by(n).contains(&"b.5".to_owned()));
    assert!(!net.seen_by(impatient).contains(&"b.5".to_owned()));
    net.run(secs(2));
    assert!(!net.seen_by(n).contains(&"b.5".to_owned()));
}
