//! What a host may rely on, for tests and for fuzzing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::event::{Event, Reason};
use crate::peer::{Incarnation, Peer};

/// A host that keeps a set of peers as the docs of [`Event`] say, and panics at an event that breaks their promises.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) peers: BTreeMap<String, Peer>,
    pub(crate) online: Option<bool>,
    pub(crate) name_taken: bool,
    /// How each peer left that did; `None` while it is there.
    past: HashMap<Identity, Option<Reason>>,
    /// The peers to which its own connection broke, as it reported.
    unreachable: BTreeSet<String>,
    leniency: Leniency,
}

type Identity = (String, Option<Incarnation>);

#[derive(Clone, Copy, Debug, Default)]
struct Leniency {
    /// Events had to wait, so that what happened meanwhile came as one.
    waited: bool,
    /// A peer that left may have been forgotten, and then is a newcomer.
    forgotten: bool,
}

impl Host {
    pub(crate) fn forgotten_peers_may_join_again(mut self) -> Self {
        self.leniency.forgotten = true;
        self
    }

    pub(crate) fn lets_events_wait(&mut self) {
        self.leniency.waited = true;
    }

    pub(crate) fn reports_unreachable(&mut self, name: &str) {
        self.unreachable.insert(name.to_owned());
    }

    pub(crate) fn take(&mut self, event: &Event) {
        let fits = match event {
            Event::Join(peer) => self.may_join(peer),
            Event::Heal(peer) => self.may_heal(peer),
            Event::Update(peer) => self.may_update(peer),
            Event::Leave(peer, _) => self.has(peer),
            Event::Online => self.online != Some(true),
            Event::Offline(_) => self.online != Some(false),
            Event::NameTaken(_) => !self.name_taken,
        };
        assert!(fits, "{} does not fit {self:#?}", say(event));
        if let Event::Heal(peer) | Event::Leave(peer, _) = event {
            self.unreachable.remove(peer.name());
        }
        match event {
            Event::Join(peer) | Event::Heal(peer) | Event::Update(peer) => {
                self.past.insert(identity(peer), None);
                self.peers.insert(peer.name().to_owned(), peer.clone());
            }
            Event::Leave(peer, reason) => {
                self.past.insert(identity(peer), Some(*reason));
                self.peers.remove(peer.name());
            }
            Event::Online => self.online = Some(true),
            Event::Offline(_) => self.online = Some(false),
            Event::NameTaken(_) => self.name_taken = true,
        }
    }

    fn has(&self, peer: &Peer) -> bool {
        self.peers
            .get(peer.name())
            .is_some_and(|known| known.incarnation() == peer.incarnation())
    }

    fn may_join(&self, peer: &Peer) -> bool {
        let newcomer = match self.past.get(&identity(peer)) {
            None => true,
            // A peer without incarnation cannot be told from those of its name before.
            Some(Some(Reason::Replaced)) if peer.incarnation().is_none() => true,
            Some(_) => self.leniency.forgotten,
        };
        newcomer && !self.peers.contains_key(peer.name())
    }

    fn may_heal(&self, peer: &Peer) -> bool {
        if self.has(peer) {
            return self.unreachable.contains(peer.name()) || self.leniency.waited;
        }
        if self.peers.contains_key(peer.name()) {
            return false;
        }
        match self.past.get(&identity(peer)).copied().flatten() {
            Some(Reason::Goodbye | Reason::Replaced) => self.leniency.forgotten,
            Some(Reason::Expired | Reason::SessionGone) => true,
            // Its join and its leave cancelled out before the host could take them.
            None => self.leniency.waited,
        }
    }

    fn may_update(&self, peer: &Peer) -> bool {
        self.has(peer) && (self.leniency.waited || self.peers[peer.name()] != *peer)
    }
}

fn identity(peer: &Peer) -> Identity {
    (peer.name().to_owned(), peer.incarnation())
}

/// An event in a few words: `join a.5 zone=eu`.
pub(crate) fn say(event: &Event) -> String {
    let (verb, reason) = match event {
        Event::Join(_) => ("join", None),
        Event::Heal(_) => ("heal", None),
        Event::Update(_) => ("update", None),
        Event::Leave(_, reason) => ("leave", Some(reason)),
        Event::NameTaken(_) => ("name taken by", None),
        Event::Online => return "online".to_owned(),
        Event::Offline(_) => return "offline".to_owned(),
    };
    let mut words = vec![verb.to_owned()];
    words.extend(event.peer().map(describe));
    words.extend(reason.map(|reason| format!("{reason:?}")));
    words.join(" ")
}

/// Peers in a few words each, sorted.
pub(crate) fn described<'a>(peers: impl Iterator<Item = &'a Peer>) -> Vec<String> {
    let mut described: Vec<_> = peers.map(describe).collect();
    described.sort();
    described
}

/// A peer in a few words: `a.5 zone=eu`, and a bare name as it is.
pub(crate) fn describe(peer: &Peer) -> String {
    let mut text = peer.name().to_owned();
    if let Some(incarnation) = peer.incarnation() {
        text += &format!(".{incarnation}");
    }
    for (key, value) in peer.tags() {
        text += &format!(" {key}={value}");
    }
    text
}
