//! Rule 8: payloads of others are ignored, and a bare name is a heartbeat.

use super::*;

#[test]
fn a_bare_name_is_a_peer_without_incarnation_or_tags() {
    let (mut net, a) = listener(Setup {
        heartbeat: secs(5),
        ..Setup::new("a", 1)
    });
    net.inject("realtime@10.0.0.1");
    net.run(secs(10));
    net.inject("realtime@10.0.0.1");
    net.run(secs(15));
    assert_eq!(net.told(a), ["join realtime@10.0.0.1"]);
    net.run(LATENCY);
    assert_eq!(net.told(a), ["leave realtime@10.0.0.1 Expired"]);
    net.inject("realtime@10.0.0.1");
    net.run(LATENCY);
    assert_eq!(net.told(a), ["heal realtime@10.0.0.1"]);
}

#[test]
fn bare_and_full_announcements_replace_each_other() {
    let (mut net, a) = listener(Setup::new("a", 1));
    net.inject("b@h");
    net.inject(&beat("b@h", 5, 1));
    // Says less than what is known.
    net.inject("b@h");
    net.inject(&bye("b@h", 5, 2));
    net.run(SETTLED);
    net.inject("b@h");
    net.run(ms(10));
    assert_eq!(
        net.told(a),
        [
            "join b@h",
            "leave b@h Replaced",
            "join b@h.5",
            "leave b@h.5 Goodbye",
            "join b@h"
        ]
    );
}

#[test]
fn a_bare_participant_and_the_others_know_each_other_at_once() {
    let mut net = Net::new(1);
    let ids = quiet_crowd(&mut net, 20, |_| ms(100));
    net.run(SETTLED);
    let bare = net.start_as(Setup::bare("b@h"));
    net.run(ANSWERED_WITHIN);
    assert_eq!(net.seen_by(bare).len(), 20);
    for id in ids {
        assert!(net.seen_by(id).contains(&"b@h".to_owned()));
    }
}

#[test]
fn a_bare_participant_says_its_name_and_nothing_else() {
    let mut net = Net::new(1);
    let bare = net.start_as(Setup::bare("b@h"));
    let a = net.start("a", 1);
    net.run(SETTLED);
    net.inject(&beat("c", 100, 1));
    net.run(ms(10));
    net.inject(&hello("c", 5, 1));
    net.inject(&hello("b@h", 1_000, 1));
    net.inject(&hello("d", 5, 1));
    net.run(ms(500));
    net.disconnect(bare);
    net.reconnect(bare);
    net.run(SETTLED);
    net.leave(bare);
    net.run(LATENCY);
    assert!(net.sent_by(bare).all(|sent| &*sent.payload == "b@h"));
    assert!(!net.processes[bare].participant.silenced);
    assert!(net.processes[a].participant.host.peers.contains_key("b@h"));
}

#[test]
fn payloads_that_are_not_ours_change_nothing() {
    let told = told_of([
        String::new(),
        "hello world".to_owned(),
        "a@b c".to_owned(),
        "a@b@c".to_owned(),
        format!("a@{}", "b".repeat(254)),
        "a@b\u{7}".to_owned(),
        beat("b", 5, 1).replace("pg-peers/1", "pg-peers/2"),
        beat("b", 5, 1).replace(';', ""),
        beat("b", 5, 1).replace("beat", "roster"),
    ]);
    assert!(told.is_empty(), "{told:?}");
}
