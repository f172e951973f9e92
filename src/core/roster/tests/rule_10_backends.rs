//! Rule 10: whose a backend is, and what its end says.

use super::checkers::crowd;
use super::*;

#[test]
fn a_backend_belongs_to_the_one_heard_last_from_it() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 5, |_| true);
    net.crash(ids[4]);
    // Before anybody asks, another process is given its number.
    net.reuse_backend_of_the_last_that_ended();
    net.start_as(Setup {
        heartbeat: secs(60 * 60),
        ..Setup::new("y", 100)
    });
    net.run(GONE);
    for &id in &ids[..4] {
        let seen = net.seen_by(id);
        assert!(seen.contains(&"y.100".to_owned()), "{seen:?}");
        assert!(!seen.contains(&"p04.5".to_owned()), "{seen:?}");
    }
}

#[test]
fn a_member_that_is_back_stays_though_another_has_its_old_backend() {
    let mut net = Net::new(1);
    let ids = crowd(&mut net, 5, |_| true);
    for &id in &ids {
        net.told(id);
    }
    net.disconnect(ids[4]);
    net.reuse_backend_of_the_last_that_ended();
    net.start_as(Setup {
        heartbeat: secs(60 * 60),
        ..Setup::new("y", 100)
    });
    net.run(ms(1_000));
    net.reconnect(ids[4]);
    net.run(SETTLED);
    for &id in &ids[..4] {
        assert_eq!(net.told(id), ["join y.100"]);
    }
}

#[test]
fn an_answer_with_one_backend_twice_gives_it_to_the_one_heard_last() {
    for (ages, session_of) in [
        ([1_000, 2_000], "p"),
        ([2_000, 1_000], "q"),
        // Then of the one that is told of last.
        ([1_000, 1_000], "q"),
    ] {
        let (mut roster, now) = asking();
        let [p, q] = ["p inc=5", "q inc=6"];
        let members = [(p, ages[0]), (q, ages[1])]
            .map(|(it, age)| format!(" name={it} seq=1 due=10000 age={age} pid=9;"));
        let part = format!("part=1 parts=1;{}", members.concat());
        answer(&mut roster, now, &part);
        for (name, entry) in &roster.entries {
            let expected = (**name == *session_of).then(|| Pid::new(9)).flatten();
            assert_eq!(entry.session.pid(), expected, "{name} {ages:?}");
        }
    }
}
