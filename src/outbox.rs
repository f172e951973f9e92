//! What the host has still to be told: at most one event a peer, whatever happened since it last listened. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::Error;
use crate::event::Event;
use crate::peer::Incarnation;
use crate::roster::{Change, Kind};

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
