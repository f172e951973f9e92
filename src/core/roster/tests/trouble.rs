//! Whatever happens to several processes, all see the truth in the end.

use proptest::prelude::*;

use super::*;

/// One thing that happens on a channel of several processes; numbers stand for names and processes, in turn.
#[derive(Clone, Debug)]
enum Deed {
    /// A new process of the name, after a crash of those before it.
    Restart(usize),
    /// A new process of the name, and those before it live on.
    Rival(usize),
    /// A new process of the name whose clock is behind its predecessor's, which may live on.
    ClockWentBack(usize, bool),
    To(Id, Trouble),
    /// Something that was sent before comes again.
    Replay(usize),
    Junk(String),
}

/// What may happen to one process.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    Crash,
    Wake,
    Pause,
    Leave,
    Disconnect,
    Reconnect,
    Delay(Duration),
    Deafness,
    SetTags(&'static str),
    Unreachable(&'static str),
    HostSleeps,
    HostWakes,
}

fn deed() -> impl Strategy<Value = Deed> {
    let number = || 0..64usize;
    prop_oneof![
        4 => number().prop_map(Deed::Restart),
        1 => number().prop_map(Deed::Rival),
        2 => (number(), any::<bool>()).prop_map(|(name, lives)| Deed::ClockWentBack(name, lives)),
        20 => (number(), trouble()).prop_map(|(id, trouble)| Deed::To(id, trouble)),
        2 => (0..10_000usize).prop_map(Deed::Replay),
        1 => any::<String>().prop_map(Deed::Junk),
    ]
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e@h"]);
    prop_oneof![
        2 => Just(Trouble::Crash),
        3 => Just(Trouble::Wake),
        2 => Just(Trouble::Pause),
        1 => Just(Trouble::Leave),
        3 => Just(Trouble::Disconnect),
        3 => Just(Trouble::Reconnect),
        1 => (0..1_000u64).prop_map(|delay| Trouble::Delay(ms(delay))),
        1 => Just(Trouble::Deafness),
        1 => prop::sample::select(vec!["1", "2"]).prop_map(Trouble::SetTags),
        1 => name.prop_map(Trouble::Unreachable),
        1 => Just(Trouble::HostSleeps),
        1 => Just(Trouble::HostWakes),
    ]
}

/// The names of a channel, and how often those of a name announce themselves.
const CLUSTER: [(&str, u64); 4] = [("a", 1_000), ("b", 300), ("c", 5_000), ("d", 1_000)];

impl Net {
    fn cluster(seed: u64) -> Self {
        let mut net = Self::new(seed);
        net.start_as(Setup::observer());
        // As often as the most frequent of the others, who assume their own interval of a bare name.
        net.start_as(Setup {
            heartbeat: ms(300),
            ..Setup::bare("e@h")
        });
        for slot in 0..CLUSTER.len() {
            net.start_in(slot, 1_000);
        }
        net
    }

    fn start_in(&mut self, slot: usize, incarnation: u64) -> Id {
        let (name, heartbeat) = CLUSTER[slot];
        self.start_as(Setup {
            heartbeat: ms(heartbeat),
            ..Setup::new(name, incarnation)
        })
    }

    pub(super) fn all_of(&self, name: &str) -> Vec<Id> {
        let ids = 0..self.processes.len();
        ids.filter(|&id| self.processes[id].alive && self.processes[id].name == name)
            .collect()
    }

    /// The highest incarnation that a process of the name ever had.
    fn highest(&self, name: &str) -> u64 {
        let processes = self.processes.iter().filter(|p| p.name == name);
        let incarnations = processes.filter_map(|p| p.participant.roster.incarnation());
        incarnations.map(Incarnation::get).max().unwrap_or_default()
    }

    /// Whether a hello reaches everybody, and somebody will correct it who remembers what is to be remembered.
    fn would_correct(&self, name: &str, incarnation: u64) -> bool {
        let alive = || self.processes.iter().filter(|process| process.alive);
        let calm = alive().all(|process| {
            process.online
                && process.paused_since.is_none()
                && process.delay.is_zero()
                && process.deaf_to == 0
        });
        let remembers = |process: &Process| {
            let entry = process.participant.roster.entries.get(name);
            entry.and_then(|entry| entry.peer.incarnation()) == Some(Incarnation::new(incarnation))
        };
        calm && alive().any(|process| {
            process.style == Some(Style::Full)
                && !process.participant.silenced
                && remembers(process)
        })
    }

    fn crash_all_of(&mut self, name: &str) {
        for id in self.all_of(name) {
            self.crash(id);
        }
    }

    fn perform(&mut self, deed: &Deed) {
        let slot = |n: usize| n % CLUSTER.len();
        let highest = |net: &Self, n| net.highest(CLUSTER[slot(n)].0);
        match *deed {
            Deed::Restart(n) => {
                self.crash_all_of(CLUSTER[slot(n)].0);
                self.start_in(slot(n), highest(self, n) + 10);
            }
            Deed::Rival(n) => {
                self.start_in(slot(n), highest(self, n) + 10);
            }
            Deed::ClockWentBack(n, predecessor_lives) => {
                let (name, highest) = (CLUSTER[slot(n)].0, highest(self, n));
                if self.would_correct(name, highest) {
                    if !predecessor_lives {
                        self.crash_all_of(name);
                    }
                    self.start_in(slot(n), highest - 5);
                    self.run(secs(1));
                }
            }
            Deed::To(n, ref trouble) => self.trouble(n % self.processes.len(), trouble),
            Deed::Replay(n) => {
                let payload = Arc::clone(&self.sent[n % self.sent.len()].payload);
                self.inject(&payload);
            }
            Deed::Junk(ref payload) => self.inject(payload),
        }
    }

    /// A process that is paused can only crash, or wake.
    fn trouble(&mut self, id: Id, trouble: &Trouble) {
        let process = &self.processes[id];
        let wakes = matches!(trouble, Trouble::Crash | Trouble::Wake);
        if process.alive && (wakes || process.paused_since.is_none()) {
            self.inflict(id, trouble);
        }
    }

    pub(super) fn inflict(&mut self, id: Id, trouble: &Trouble) {
        let process = &mut self.processes[id];
        let in_full = process.style == Some(Style::Full);
        match *trouble {
            Trouble::Crash => self.crash(id),
            Trouble::Wake => self.wake(id),
            Trouble::Pause => self.pause(id),
            Trouble::Leave => self.leave(id),
            Trouble::Disconnect => self.disconnect(id),
            Trouble::Reconnect => self.reconnect(id),
            Trouble::Delay(delay) => process.delay = delay,
            Trouble::Deafness => process.deaf_to = 1,
            Trouble::SetTags(version) if in_full => self.set_tags(id, version),
            Trouble::SetTags(_) => {}
            Trouble::Unreachable(name) => self.report_unreachable(id, name),
            Trouble::HostSleeps => process.participant.host_sleeps(),
            Trouble::HostWakes => process.participant.host_wakes(),
        }
    }

    /// Names of which a living process is not the newest: whether it is told so, and seen, depends on who remembers the newest.
    fn outlived_their_successors(&self) -> HashSet<&str> {
        let announcing = self.processes.iter().filter(|it| it.announces());
        let in_full = announcing.filter_map(|it| Some((it, it.participant.roster.incarnation()?)));
        let outlived =
            in_full.filter(|(it, incarnation)| incarnation.get() < self.highest(&it.name));
        outlived.map(|(it, _)| &*it.name).collect()
    }

    /// Those of them whose name is clear.
    pub(super) fn clear(&self, described: Vec<String>) -> Vec<String> {
        let unclear = self.outlived_their_successors();
        let name = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
        let is_clear = |text: &String| !unclear.contains(&*name(text));
        described.into_iter().filter(is_clear).collect()
    }

    /// For how long anybody is sure of a peer that falls silent. An interval is learned of a bare name, also from replays after its
    /// death, but none is longer than what went before.
    fn longest_grace(&self) -> Duration {
        let living = self.processes.iter().filter(|process| process.alive);
        let entries = living.flat_map(|process| process.participant.roster.entries.values());
        let longest = entries.map(|entry| entry.grace(MISSED)).max();
        let longest = longest.unwrap_or_default();
        assert!(
            longest <= MISSED * self.now,
            "sure for {longest:?} after {:?}",
            self.now
        );
        longest
    }

    fn assert_everybody_sees_the_truth(&self) {
        for id in 0..self.processes.len() {
            if self.processes[id].alive {
                let (seen, truth) = (self.seen_by(id), self.truth_for(id));
                assert_eq!(self.clear(seen), self.clear(truth), "as seen by {id}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn after_any_trouble_everybody_sees_the_truth(
        seed: u64, deeds in prop::collection::vec((deed(), 0..3_000u64), 1..60)
    ) {
        let mut net = Net::cluster(seed);
        net.run(SETTLED);
        for (deed, time) in &deeds {
            net.perform(deed);
            net.run(ms(*time));
        }
        net.calm_down();
        // The hellos and what was held up, and then what the last signs of life are good for.
        net.run(secs(25));
        net.run(net.longest_grace());
        net.assert_everybody_sees_the_truth();
        for (name, _) in CLUSTER {
            let of_name = net.all_of(name);
            let silenced = of_name.iter().filter(|&&id| net.processes[id].participant.silenced);
            prop_assert!(of_name.len() - silenced.count() <= 1, "two processes are {name}");
        }
    }
}
