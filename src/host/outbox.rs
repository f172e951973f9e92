//! What the host has still to be told: at most one event a peer, whatever happened since it last listened. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::core::roster::{Change, Kind};
use crate::error::Error;
use crate::event::Event;
use crate::peer::Incarnation;

/// Events in the order in which they came up, where those about the same thing become one: what leads from what the host
/// knows to what is true.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// By the order of their coming.
    queue: BTreeMap<u64, Pending>,
    places: HashMap<Topic, u64>,
    next_place: u64,
    /// Whether the last event about the link that the host took was `Online`.
    told_online: Option<bool>,
}

#[derive(Debug)]
struct Pending {
    topic: Topic,
    event: Event,
    /// Whether the host, by the events that it took, has this peer.
    host_has_it: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Peer(Arc<str>, Option<Incarnation>),
    Link,
    NameTaken,
}

impl Topic {
    fn of(change: &Change) -> Self {
        match change.kind {
            Kind::TookName => Self::NameTaken,
            _ => Self::Peer(change.peer.shared_name(), change.peer.incarnation()),
        }
    }
}

impl Outbox {
    pub(crate) fn push(&mut self, change: Change) {
        let topic = Topic::of(&change);
        let pending = self
            .places
            .get(&topic)
            .and_then(|&place| Some((place, self.queue.get_mut(&place)?)));
        let Some((place, pending)) = pending else {
            let (event, host_has_it) = first(change);
            return self.append(topic, event, host_has_it);
        };
        match merge(&pending.event, pending.host_has_it, change) {
            Some(event) => pending.event = event,
            None => self.remove(place),
        }
    }

    pub(crate) fn push_online(&mut self) {
        self.push_link(true, Event::Online);
    }

    pub(crate) fn push_offline(&mut self, reason: Error) {
        self.push_link(false, Event::Offline(reason));
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let (_, pending) = self.queue.pop_first()?;
        self.places.remove(&pending.topic);
        match pending.event {
            Event::Online => self.told_online = Some(true),
            Event::Offline(_) => self.told_online = Some(false),
            _ => {}
        }
        Some(pending.event)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    fn push_link(&mut self, online: bool, event: Event) {
        if let Some(&place) = self.places.get(&Topic::Link) {
            self.remove(place);
        }
        if self.told_online != Some(online) {
            self.append(Topic::Link, event, false);
        }
    }

    fn append(&mut self, topic: Topic, event: Event, host_has_it: bool) {
        self.places.insert(topic.clone(), self.next_place);
        let pending = Pending {
            topic,
            event,
            host_has_it,
        };
        self.queue.insert(self.next_place, pending);
        self.next_place += 1;
    }

    fn remove(&mut self, place: u64) {
        if let Some(pending) = self.queue.remove(&place) {
            self.places.remove(&pending.topic);
        }
    }
}

/// The event of a change about which nothing is pending, and whether the host has the peer by now.
fn first(Change { peer, kind }: Change) -> (Event, bool) {
    match kind {
        Kind::Joined => (Event::Join(peer), false),
        Kind::Returned => (Event::Heal(peer), false),
        Kind::Recovered => (Event::Heal(peer), true),
        Kind::Updated => (Event::Update(peer), true),
        Kind::Left(reason) => (Event::Leave(peer, reason), true),
        Kind::TookName => (Event::NameTaken(peer), false),
    }
}

/// What a pending event becomes with one more change; `None` if the host has nothing more to learn.
fn merge(pending: &Event, host_has_it: bool, Change { peer, kind }: Change) -> Option<Event> {
    match (pending, kind) {
        (_, Kind::Left(reason)) => host_has_it.then_some(Event::Leave(peer, reason)),
        (_, Kind::TookName) => Some(Event::NameTaken(peer)),
        (Event::Join(_), _) => Some(Event::Join(peer)),
        (Event::Update(_), Kind::Updated) => Some(Event::Update(peer)),
        // Something interrupted what the host has, or what it had.
        (_, Kind::Joined | Kind::Returned | Kind::Recovered | Kind::Updated) => {
            Some(Event::Heal(peer))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;
    use crate::error;
    use crate::event::Reason;
    use crate::peer::{Peer, Tags};
    use crate::simulator::host::{Host, say};

    fn peer(name: &str, incarnation: u64, version: &str) -> Peer {
        let tags: Tags = [("v", version)]
            .into_iter()
            .filter(|(_, version)| !version.is_empty())
            .collect();
        Peer::new(name.into(), Some(Incarnation::new(incarnation)), tags)
    }

    fn change(name: &str, incarnation: u64, kind: Kind) -> Change {
        let peer = peer(name, incarnation, "");
        Change { peer, kind }
    }

    fn trouble() -> Error {
        Error::new(error::Kind::Link, "the server is gone")
    }

    fn drain(outbox: &mut Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.pop())
            .map(|event| say(&event))
            .collect()
    }

    /// What a host is told that has already been told `before`, and then slept while `meanwhile` happened.
    fn told_after<const N: usize, const M: usize>(
        before: [(&str, u64, Kind); N],
        meanwhile: [(&str, u64, Kind); M],
    ) -> Vec<String> {
        let mut outbox = Outbox::default();
        for (name, incarnation, kind) in before {
            outbox.push(change(name, incarnation, kind));
            drain(&mut outbox);
        }
        for (name, incarnation, kind) in meanwhile {
            outbox.push(change(name, incarnation, kind));
        }
        drain(&mut outbox)
    }

    const EXPIRED: Kind = Kind::Left(Reason::Expired);
    const REPLACED: Kind = Kind::Left(Reason::Replaced);

    #[test]
    fn events_come_in_the_order_of_what_happened() {
        assert_eq!(
            told_after(
                [("c", 1, Kind::Joined)],
                [
                    ("b", 1, Kind::Joined),
                    ("a", 1, Kind::Joined),
                    ("c", 1, EXPIRED)
                ],
            ),
            ["join b.1", "join a.1", "leave c.1 Expired"]
        );
    }

    #[test]
    fn a_peer_that_came_and_went_is_never_mentioned() {
        let came_and_went = [("a", 1, Kind::Joined), ("a", 1, EXPIRED)];
        assert!(told_after([], came_and_went).is_empty());
    }

    #[test]
    fn a_peer_that_came_went_and_came_back_is_one_event() {
        let told = told_after(
            [],
            [
                ("a", 1, Kind::Joined),
                ("a", 1, EXPIRED),
                ("a", 1, Kind::Returned),
            ],
        );
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn a_loss_and_a_return_are_one_heal() {
        let told = told_after(
            [("a", 1, Kind::Joined)],
            [("a", 1, EXPIRED), ("a", 1, Kind::Returned)],
        );
        assert_eq!(told, ["heal a.1"]);
    }

    #[test]
    fn a_return_and_a_second_loss_leave_a_host_as_it_was() {
        let told = told_after(
            [("a", 1, Kind::Joined), ("a", 1, EXPIRED)],
            [("a", 1, Kind::Returned), ("a", 1, EXPIRED)],
        );
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn a_recovery_and_a_loss_are_a_leave() {
        let told = told_after(
            [("a", 1, Kind::Joined)],
            [("a", 1, Kind::Recovered), ("a", 1, EXPIRED)],
        );
        assert_eq!(told, ["leave a.1 Expired"]);
    }

    #[test]
    fn the_reason_of_a_leave_is_the_last_one() {
        let told = told_after(
            [("a", 1, Kind::Joined)],
            [
                ("a", 1, EXPIRED),
                ("a", 1, Kind::Returned),
                ("a", 1, Kind::Left(Reason::Goodbye)),
            ],
        );
        assert_eq!(told, ["leave a.1 Goodbye"]);
    }

    #[test]
    fn many_restarts_are_a_leave_and_a_join() {
        let told = told_after(
            [("a", 1, Kind::Joined)],
            [
                ("a", 1, REPLACED),
                ("a", 2, Kind::Joined),
                ("a", 2, REPLACED),
                ("a", 3, Kind::Joined),
                ("a", 3, REPLACED),
                ("a", 4, Kind::Joined),
            ],
        );
        assert_eq!(told, ["leave a.1 Replaced", "join a.4"]);
    }

    #[test]
    fn the_newest_tags_are_told_whatever_event_brings_them() {
        let update = |outbox: &mut Outbox, version| {
            let peer = peer("a", 1, version);
            let kind = Kind::Updated;
            outbox.push(Change { peer, kind });
        };
        let mut outbox = Outbox::default();
        outbox.push(change("a", 1, Kind::Joined));
        update(&mut outbox, "1");
        assert_eq!(drain(&mut outbox), ["join a.1 v=1"]);
        update(&mut outbox, "2");
        update(&mut outbox, "3");
        assert_eq!(drain(&mut outbox), ["update a.1 v=3"]);
        outbox.push(change("a", 1, EXPIRED));
        outbox.push(change("a", 1, Kind::Returned));
        update(&mut outbox, "4");
        assert_eq!(drain(&mut outbox), ["heal a.1 v=4"]);
        update(&mut outbox, "5");
        outbox.push(change("a", 1, Kind::Recovered));
        assert_eq!(drain(&mut outbox), ["heal a.1"]);
    }

    #[test]
    fn an_outage_that_a_host_slept_through_is_not_told() {
        let mut outbox = Outbox::default();
        outbox.push_online();
        assert_eq!(drain(&mut outbox), ["online"]);
        for _ in 0..3 {
            outbox.push_offline(trouble());
            outbox.push_online();
        }
        assert!(drain(&mut outbox).is_empty());
    }

    #[test]
    fn a_host_that_knows_nothing_of_the_link_is_told_how_it_is() {
        let mut outbox = Outbox::default();
        outbox.push_offline(trouble());
        outbox.push_online();
        assert_eq!(drain(&mut outbox), ["online"]);
        outbox.push_offline(trouble());
        outbox.push_online();
        outbox.push_offline(trouble());
        assert_eq!(drain(&mut outbox), ["offline"]);
    }

    #[test]
    fn online_comes_before_what_the_session_brings() {
        let mut outbox = Outbox::default();
        outbox.push_offline(trouble());
        outbox.push_online();
        outbox.push(change("a", 1, Kind::Joined));
        assert_eq!(drain(&mut outbox), ["online", "join a.1"]);
    }

    #[test]
    fn a_taken_name_has_nothing_to_do_with_a_peer_of_that_name() {
        let mut outbox = Outbox::default();
        outbox.push(change("a", 1, Kind::Joined));
        outbox.push(change("a", 1, Kind::TookName));
        outbox.push(change("a", 1, EXPIRED));
        assert_eq!(drain(&mut outbox), ["name taken by a.1"]);
    }

    /// The truth that changes come from: three names, each start of which lives as its states allow.
    #[derive(Debug, Default)]
    struct World {
        here: BTreeMap<&'static str, Peer>,
        starts: BTreeMap<&'static str, u64>,
        /// Those who may come back.
        expired: BTreeMap<&'static str, Peer>,
        online: Option<bool>,
        name_taken: bool,
    }

    #[derive(Clone, Debug)]
    enum Act {
        Start(&'static str),
        Return(&'static str),
        Recover(&'static str),
        Update(&'static str),
        Leave(&'static str, Reason),
        Link(bool),
        TakeName,
        Drain(usize),
    }

    impl World {
        /// What the act changes, in order; nothing if it is not possible.
        fn act(&mut self, act: &Act) -> VecDeque<Change> {
            let mut changes = VecDeque::new();
            let mut happen = |peer: &Peer, kind| {
                let peer = peer.clone();
                changes.push_back(Change { peer, kind });
            };
            match *act {
                Act::Start(name) => {
                    if let Some(old) = self.here.remove(name) {
                        happen(&old, REPLACED);
                    }
                    self.expired.remove(name);
                    let start = self.starts.entry(name).or_default();
                    *start += 1;
                    let new = peer(name, *start, "");
                    happen(&new, Kind::Joined);
                    self.here.insert(name, new);
                }
                Act::Return(name) => {
                    if let Some(peer) = self.expired.remove(name) {
                        happen(&peer, Kind::Returned);
                        self.here.insert(name, peer);
                    }
                }
                Act::Recover(name) => {
                    if let Some(peer) = self.here.get(name) {
                        happen(peer, Kind::Recovered);
                    }
                }
                Act::Update(name) => {
                    if let Some(known) = self.here.get_mut(name) {
                        let version = known.tag("v").map_or(0, str::len) % 3 + 1;
                        let tags = [("v", "x".repeat(version))].into_iter().collect();
                        *known = known.with_tags(tags);
                        happen(known, Kind::Updated);
                    }
                }
                Act::Leave(name, reason) => {
                    if let Some(peer) = self.here.remove(name) {
                        happen(&peer, Kind::Left(reason));
                        if matches!(reason, Reason::Expired | Reason::SessionGone) {
                            self.expired.insert(name, peer);
                        }
                    }
                }
                Act::TakeName => {
                    if !std::mem::replace(&mut self.name_taken, true) {
                        happen(&peer("me", 2, ""), Kind::TookName);
                    }
                }
                Act::Link(_) | Act::Drain(_) => {}
            }
            changes
        }
    }

    fn act() -> impl Strategy<Value = Act> {
        let name = || prop::sample::select(vec!["a", "b", "c"]);
        let reason =
            prop::sample::select(vec![Reason::Expired, Reason::SessionGone, Reason::Goodbye]);
        prop_oneof![
            3 => name().prop_map(Act::Start),
            3 => name().prop_map(Act::Return),
            2 => name().prop_map(Act::Recover),
            2 => name().prop_map(Act::Update),
            4 => (name(), reason).prop_map(|(name, reason)| Act::Leave(name, reason)),
            2 => any::<bool>().prop_map(Act::Link),
            1 => Just(Act::TakeName),
            3 => (0..6usize).prop_map(Act::Drain),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_host_sleeps_through_it_is_led_to_the_truth(
            acts in prop::collection::vec(act(), 1..80)
        ) {
            let mut world = World::default();
            let mut outbox = Outbox::default();
            let mut host = Host::default();
            host.lets_events_wait();
            for act in &acts {
                if let Act::Recover(name) = act {
                    host.reports_unreachable(name);
                }
                for change in world.act(act) {
                    outbox.push(change);
                }
                match *act {
                    Act::Link(true) => outbox.push_online(),
                    Act::Link(false) => outbox.push_offline(trouble()),
                    Act::Drain(count) => {
                        let events = std::iter::from_fn(|| outbox.pop());
                        events.take(count).for_each(|event| host.take(&event));
                    }
                    _ => {}
                }
                if let Act::Link(online) = *act {
                    world.online = Some(online);
                }
                // No more than one loss and one newcomer a name, the link, and the name taken.
                prop_assert!(outbox.len() <= 2 * 3 + 2, "{outbox:?}");
                prop_assert_eq!(outbox.places.len(), outbox.queue.len());
                let subjects: BTreeSet<_> = outbox
                    .queue
                    .values()
                    .map(|pending| format!("{:?}", pending.topic))
                    .collect();
                prop_assert_eq!(subjects.len(), outbox.len(), "two events about one thing");
            }
            while let Some(event) = outbox.pop() {
                host.take(&event);
            }
            let truth: Vec<_> = world.here.values().cloned().collect();
            let known: Vec<_> = host.peers.into_values().collect();
            prop_assert_eq!(known, truth);
            prop_assert_eq!(host.online, world.online);
            prop_assert_eq!(host.name_taken, world.name_taken);
        }
    }
}
