//! Many members: the delivery budget and the session check.

use super::*;

#[test]
fn the_interval_grows_so_that_the_deliveries_do_not() {
    for (crowd, interval) in [(10, secs(1)), (50, ms(1_250)), (100, secs(5))] {
        let mut net = Net::new(1);
        let mut start = |n| net.start(&format!("p{n:02}"), 1 + n as u64);
        let ids: Vec<Id> = (0..crowd).map(&mut start).collect();
        net.run(interval * 2 + SETTLED);
        for &id in &ids {
            assert_eq!(net.processes[id].participant.roster.interval(), interval);
        }
        let before = net.deliveries;
        let time = interval * 10;
        net.run(time);
        let each_second = (net.deliveries - before) as f64 / time.as_secs_f64();
        let expected = (crowd * crowd) as f64 / interval.as_secs_f64();
        assert!(
            (0.99..1.07).contains(&(each_second / expected)),
            "{each_second} of {expected}"
        );
        for id in ids {
            assert_eq!(net.seen_by(id).len(), crowd - 1);
        }
    }
}

#[test]
fn processes_that_started_together_do_not_go_on_in_step() {
    let mut net = Net::new(1);
    for n in 0..100 {
        net.start(&format!("p{n:02}"), 1);
    }
    net.run(secs(5));
    // Once around, in tenths of the interval.
    for _ in 0..10 {
        let before = net.sent.len();
        net.run(ms(500));
        let count = net.sent.len() - before;
        assert!(
            (1..=30).contains(&count),
            "{count} of 100 announce themselves in a tenth of the time"
        );
    }
}

#[test]
fn reconnecting_within_a_second_is_never_gone() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 5);
    for &id in &ids {
        net.told(id);
    }
    for round in 0..100 {
        // Also those that ask.
        let id = ids[round % ids.len()];
        net.disconnect(id);
        net.run(ms(1_100));
        net.reconnect(id);
        net.run(ms(137));
    }
    net.run(SETTLED);
    for id in ids {
        let told = net.told(id);
        assert!(
            told.iter()
                .all(|event| event == "online" || event.starts_with("offline")),
            "{told:?}"
        );
    }
}

#[test]
fn a_restart_of_the_server_costs_nobody_its_place() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 5);
    for round in 0..5 {
        for &id in &ids {
            net.disconnect(id);
        }
        net.run(ms(500));
        for &id in &ids {
            net.reconnect(id);
            net.run(ms(200 * round));
        }
        net.run(SETTLED);
        for &id in &ids {
            assert_eq!(net.seen_by(id).len(), 4);
        }
    }
    net.crash(ids[2]);
    net.run(GONE);
    assert!(
        net.told(ids[4])
            .contains(&"leave p02.3 SessionGone".to_owned())
    );
}

#[test]
fn a_member_that_is_wrongly_reported_gone_is_back_at_once() {
    let mut net = Net::new(1);
    let ids = settled_crowd(&mut net, 3);
    let (a, b) = (ids[0], ids[1]);
    net.told(a);
    net.inject("pg-peers/1 gone name=p01 inc=2 seq=99;");
    net.run(ms(50));
    assert_eq!(net.told(a), ["leave p01.2 SessionGone", "heal p01.2"]);
    assert_eq!(net.seen_by(b).len(), 2);
}
