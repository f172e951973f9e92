//! Members with a secret, among strangers who hear everything, and say it again.

use super::*;
use crate::trust::seal::Refusal;

const SECRET: &str = "the secret of the cluster";
const OTHER: &str = "the secret of another cluster";

const HOUR: Duration = Duration::from_secs(60 * 60);

fn member(name: &str, incarnation: u64) -> Setup {
    Setup {
        keys: keys_of(&[SECRET]),
        ..Setup::new(name, incarnation)
    }
}

impl Net {
    /// Everything that was ever said comes again, from a stranger or, as if it could, from the backend that said it.
    fn is_replayed(&mut self, by_the_same_backend: bool) {
        let pid = |sent: &Sent| match by_the_same_backend {
            true => sent.from,
            false => STRANGER,
        };
        let sent = self.sent.iter();
        let sent: Vec<_> = sent.map(|s| (pid(s), Arc::clone(&s.payload))).collect();
        let answers = self.answers.iter();
        let answers: Vec<_> = answers
            .map(|(inbox, s)| (*inbox, pid(s), Arc::clone(&s.payload)))
            .collect();
        let count = self.sent.len();
        for (from, payload) in sent {
            self.send(None, from, &payload);
        }
        for (inbox, from, payload) in answers {
            self.send_from(from, inbox, &payload);
        }
        self.run(ms(10));
        // The next time only what was said in earnest.
        self.sent.truncate(count);
    }

    fn refused(&self, id: Id, which: impl Fn(&Refusal) -> bool) -> usize {
        let refused = self.processes[id].refused.iter();
        refused.filter(|refusal| which(refusal)).count()
    }
}

fn is_forgery(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Unsigned | Refusal::Forged)
}

#[test]
fn a_secret_hides_those_who_do_not_have_it() {
    let mut net = Net::new(1);
    let a = net.start_as(member("a", 1));
    let b = net.start_as(member("b", 1));
    let stranger = net.start_as(Setup {
        keys: keys_of(&[OTHER]),
        ..Setup::new("s", 1)
    });
    let plain = net.start("x", 1);
    net.start_as(Setup::bare("e@h"));
    let observer = net.start_as(Setup {
        keys: keys_of(&[SECRET]),
        ..Setup::observer()
    });
    net.run(SETTLED);
    assert_eq!(net.seen_by(a), ["b.1"]);
    assert_eq!(net.seen_by(b), ["a.1"]);
    assert_eq!(net.seen_by(observer), ["a.1", "b.1"]);
    assert!(net.seen_by(stranger).is_empty());
    assert_eq!(net.seen_by(plain), net.truth_for(plain));
}

#[test]
fn secrets_are_changed_without_anybody_being_missed() {
    let names = ["a", "b", "c"];
    let mut net = Net::new(1);
    let mut ids: Vec<Id> = Vec::new();
    let stages: [&[&str]; 4] = [&[SECRET], &[SECRET, OTHER], &[OTHER, SECRET], &[OTHER]];
    for (stage, secrets) in stages.into_iter().enumerate() {
        for (n, name) in names.into_iter().enumerate() {
            let setup = Setup {
                keys: keys_of(secrets),
                ..Setup::new(name, 1 + stage as u64)
            };
            if stage > 0 {
                net.leave(ids[n]);
                ids[n] = net.start_as(setup);
            } else {
                ids.push(net.start_as(setup));
            }
            net.run(SETTLED);
            for &id in &ids {
                assert_eq!(net.seen_by(id), net.truth_for(id), "{secrets:?} {name}");
                assert!(net.processes[id].refused.is_empty());
            }
        }
    }
}

/// Two members that stay, one that says goodbye, one that is killed, one that is restarted; and time for all to know.
fn eventful() -> (Net, [Id; 2]) {
    let mut net = Net::new(1);
    let rarely = |name, incarnation| Setup {
        heartbeat: secs(60),
        ..member(name, incarnation)
    };
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| net.start_as(rarely(name, 5)));
    net.run(SETTLED);
    net.leave(c);
    net.crash(d);
    net.crash(e);
    net.start_as(rarely("e", 7));
    net.run(SETTLED);
    assert!(
        net.sent
            .iter()
            .any(|sent| sent.payload.contains(" gone name=d "))
    );
    assert!(!net.answers.is_empty());
    (net, [a, b])
}

#[test]
fn a_recording_from_another_session_is_refused_by_all() {
    let (mut net, [a, b]) = eventful();
    let newcomer = net.start_as(member("n", 1));
    net.run(SETTLED);
    for id in [a, b, newcomer] {
        net.told(id);
    }
    net.is_replayed(false);
    for id in [a, b, newcomer] {
        assert!(net.told(id).is_empty(), "{:?}", net.told(id));
        assert_eq!(net.seen_by(id), net.truth_for(id));
        let answers_to_it = net
            .answers
            .iter()
            .filter(|(inbox, _)| *inbox == net.processes[id].key);
        let all = net.sent.len() + answers_to_it.count();
        assert!(net.refused(id, is_forgery) >= all);
    }
}

#[test]
fn a_newcomer_does_not_believe_a_recording() {
    let (mut net, _) = eventful();
    for round in 0..20 {
        let newcomer = net.start_as(member("n", 10 + round));
        net.is_replayed(false);
        net.run(ANSWERED_WITHIN);
        assert_eq!(net.seen_by(newcomer), net.truth_for(newcomer));
        assert!(
            net.told(newcomer)
                .iter()
                .all(|event| !event.contains("leave"))
        );
        net.leave(newcomer);
    }
}

#[test]
fn an_old_recording_from_the_same_backend_is_refused() {
    let (mut net, [a, b]) = eventful();
    net.run(HOUR);
    // Nobody remembers anything.
    let newcomer = net.start_as(member("n", 1));
    net.disconnect(a);
    net.crash(b);
    net.run(SETTLED);
    net.reconnect(a);
    let new_b = net.start_as(member("b", 9));
    net.run(SETTLED);
    let ids = [a, new_b, newcomer];
    for id in ids {
        net.told(id);
    }
    let count = net.sent.len();
    let old = net.sent.iter().filter(|sent| sent.at < secs(60)).count();
    net.is_replayed(true);
    for id in ids {
        assert!(net.told(id).is_empty());
        assert_eq!(net.seen_by(id), net.truth_for(id));
        assert!(net.refused(id, |refusal| matches!(refusal, Refusal::Old(_))) >= old);
    }
    assert!(old > 20 && count > old);
}

#[test]
fn an_answer_to_one_is_none_to_another() {
    let (mut net, _) = eventful();
    let (_, sent) = net.answers.last().expect("an answer");
    let (from, payload) = (sent.from, Arc::clone(&sent.payload));
    let other = net.start_as(member("o", 1));
    let key = net.processes[other].key;
    net.send_from(from, key, &payload);
    // Nor is it something that everybody should hear.
    net.send(None, from, &payload);
    net.run(ms(1));
    assert_eq!(net.refused(other, is_forgery), 2);
}

#[test]
fn forged_answers_leave_a_newcomer_waiting_for_the_true_one() {
    let mut net = Net::new(1);
    let a = net.start_as(member("a", 1));
    net.run(SETTLED);
    let newcomer = net.start_as(member("n", 1));
    let key = net.processes[newcomer].key;
    for forged in [
        "pg-peers/1 roster part=1 parts=1; name=x inc=5 seq=2 due=600000 age=1;",
        "pg-peers/1 roster part=1 parts=1; name=a inc=9 seq=2 due=600000 age=1;",
        "pg-peers/1 roster part=1 parts=1;",
    ] {
        net.send_to(key, forged);
    }
    net.run(ANSWERED_WITHIN);
    assert_eq!(net.seen_by(newcomer), ["a.1"]);
    assert_eq!(net.seen_by(a), ["n.1"]);
    assert_eq!(net.refused(newcomer, is_forgery), 3);
}

#[test]
fn a_clock_wrong_by_over_a_minute_keeps_its_member_out() {
    for (ahead, there) in [
        (59, true),
        (-59, true),
        (62, false),
        (-62, false),
        (i32::MIN, false),
    ] {
        let mut net = Net::new(1);
        let a = net.start_as(member("a", 1));
        let b = net.start_offline(member("b", 1));
        net.processes[b].clock_is_ahead = ahead.max(-1_795_443_184);
        net.reconnect(b);
        net.run(SETTLED);
        let untimely = |id| net.refused(id, |refusal| !is_forgery(refusal)) > 0;
        assert_eq!(net.seen_by(a).len(), usize::from(there), "{ahead}");
        assert_eq!(net.seen_by(b).len(), usize::from(there), "{ahead}");
        assert_eq!([untimely(a), untimely(b)], [!there; 2], "{ahead}");
    }
}

#[test]
fn what_waited_while_a_member_was_paused_is_not_old() {
    let mut net = Net::new(1);
    let a = net.start_as(member("a", 1));
    let b = net.start_as(member("b", 1));
    let c = net.start_as(member("c", 1));
    net.run(SETTLED);
    net.told(a);
    net.pause(a);
    net.leave(b);
    net.run(HOUR / 2);
    let d = net.start_as(member("d", 1));
    net.run(HOUR / 2);
    net.leave(d);
    net.wake(a);
    net.run(ms(10));
    assert_eq!(
        net.told(a),
        ["leave b.1 Goodbye", "join d.1", "leave d.1 Goodbye"]
    );
    assert!(net.processes[a].refused.is_empty());
    assert_eq!(net.seen_by(a), ["c.1"]);
    net.run(SETTLED);
    assert_eq!(net.seen_by(c), ["a.1"]);
}

#[test]
fn hearing_a_known_peer_that_signs_does_not_allocate() {
    let mut net = Net::new(1);
    let a = net.start_as(member("a", 1));
    let b = net.start_as(member("b", 1));
    net.run(SETTLED);
    let now = net.clock();
    let beat = beat("b", 1, 99);
    let (pid, beat) = net.sign(b, None, &beat);
    let process = &mut net.processes[a];
    let mut heard = None;
    let allocated = allocation_counter::measure(|| {
        assert!(process.verify(pid, None, &beat));
        let message = wire::decode(&beat).expect("ours");
        heard = Some(
            process
                .participant
                .roster
                .handle_message(now, pid, &message),
        );
    });
    assert_eq!(heard, Some(Outcome::News));
    assert_eq!(allocated.count_total, 0);
}
