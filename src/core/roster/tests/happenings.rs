//! Whatever happens to one process, its host is led to its roster.

use proptest::prelude::*;

use super::*;

/// One thing that happens to a process that only listens.
#[derive(Clone, Debug)]
enum Happening {
    Heard(String),
    /// The host's own connection to the peer broke.
    Unreachable(&'static str),
    LinkDown,
    LinkUp,
    /// What comes from now on arrives so much later.
    Delay(Duration),
    Pass(Duration),
    HostSleeps,
    HostTakes(usize),
    HostWakes,
}

const NAMES: [&str; 4] = ["a", "b", "c@h", "d@h"];

fn payload() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(&NAMES[..]);
    let due = prop::sample::select(vec![1, 200, 1_000, 20_000]);
    let kind = prop::sample::select(vec!["hello", "beat"]);
    let version = prop::sample::select(vec!["", " tag.v=1", " tag.v=2"]);
    let announcement = (kind, name(), 1..4u64, 1..9u64, due, version).prop_map(
        |(kind, name, incarnation, seq, due, tags)| {
            format!("pg-peers/1 {kind} name={name} inc={incarnation} seq={seq} due={due}{tags};")
        },
    );
    let goodbye = (name(), 1..4u64, 1..9u64).prop_map(|(name, inc, seq)| bye(name, inc, seq));
    let newer = (name(), 1..4u64)
        .prop_map(|(name, inc)| format!("pg-peers/1 newer name={name} inc={inc};"));
    prop_oneof![
        8 => announcement,
        2 => goodbye,
        1 => newer,
        1 => any::<String>(),
    ]
}

fn happening(heard: impl Strategy<Value = String>) -> impl Strategy<Value = Happening> {
    let pass = prop::sample::select(vec![0, 1, 10, 500, 3_000, 70_000]);
    prop_oneof![
        12 => heard.prop_map(Happening::Heard),
        6 => pass.prop_map(|time| Happening::Pass(ms(time))),
        2 => prop::sample::select(&NAMES[..]).prop_map(Happening::Unreachable),
        1 => Just(Happening::LinkDown),
        2 => Just(Happening::LinkUp),
        1 => (0..2_000u64).prop_map(|delay| Happening::Delay(ms(delay))),
        1 => Just(Happening::HostSleeps),
        2 => (0..5usize).prop_map(Happening::HostTakes),
        1 => Just(Happening::HostWakes),
    ]
}

impl Net {
    fn happen(&mut self, id: Id, happening: &Happening) {
        match *happening {
            Happening::Heard(ref payload) => self.inject(payload),
            Happening::Unreachable(name) => self.report_unreachable(id, name),
            Happening::LinkDown => self.disconnect(id),
            Happening::LinkUp => self.reconnect(id),
            Happening::Delay(delay) => self.processes[id].delay = delay,
            Happening::Pass(time) => self.run(time),
            Happening::HostSleeps => self.processes[id].participant.host_sleeps(),
            Happening::HostTakes(count) => self.processes[id].participant.host_takes(count),
            Happening::HostWakes => self.processes[id].participant.host_wakes(),
        }
    }

    /// The host itself panics where an event does not fit those before it; in the end it must know what is.
    fn host_of_what_happens_knows_the_truth(&mut self, id: Id, happenings: &[Happening]) {
        for happening in happenings {
            self.happen(id, happening);
            let waiting = self.processes[id].participant.outbox.len();
            // Two starts of each name, one bare; and the link.
            assert!(waiting <= 3 * NAMES.len() + 1, "{waiting} events wait");
        }
        self.processes[id].participant.host_wakes();
        let process = &self.processes[id];
        let known = described(process.participant.host.peers.values());
        assert_eq!(known, here(&process.participant.roster));
        assert_eq!(process.participant.host.online, Some(process.online));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_host_is_led_to_the_roster(
        happenings in prop::collection::vec(happening(payload()), 1..100)
    ) {
        let mut net = Net::new(1);
        let id = net.start_as(Setup::new("me", 1));
        net.host_of_what_happens_knows_the_truth(id, &happenings);
    }

    #[test]
    fn bare_names_and_forgotten_peers_lead_the_host_to_the_roster(
        happenings in prop::collection::vec(
            happening(prop_oneof![3 => payload(), 1 => prop::sample::select(&NAMES[2..]).prop_map(str::to_owned)]),
            1..100,
        )
    ) {
        let mut net = Net::new(1);
        let id = net.start_as(Setup { max_peers: 2, ..Setup::new("me", 1) });
        net.processes[id].participant.host = Host::default().forgotten_peers_may_join_again();
        net.processes[id].participant.transcript.clear();
        net.disconnect(id);
        net.reconnect(id);
        net.host_of_what_happens_knows_the_truth(id, &happenings);
    }
}
