//! A roster with an outbox and a host behind it: what is left of a participant without its link.

use std::collections::HashSet;
use std::time::Instant;

use crate::core::roster::{Kind, Roster};
use crate::core::wire::Pid;
use crate::error::{Error, Kind as ErrorKind};
use crate::event::Event;
use crate::host::outbox::Outbox;
use crate::peer::Incarnation;
use crate::simulator::host::{Host, say};

/// Brings what the roster learns to a host, which checks that each event fits those before it.
pub(crate) struct Participant {
    pub(crate) roster: Roster,
    pub(crate) outbox: Outbox,
    pub(crate) host: Host,
    /// The events that the host took, in words.
    pub(crate) transcript: Vec<String>,
    /// A newer process has its name.
    pub(crate) silenced: bool,
    host_sleeps: bool,
}

impl Participant {
    pub(crate) fn new(roster: Roster) -> Self {
        Self {
            roster,
            outbox: Outbox::default(),
            host: Host::default(),
            transcript: Vec::new(),
            silenced: false,
            host_sleeps: false,
        }
    }

    pub(crate) fn link_up(&mut self, now: Instant, pid: Option<Pid>) {
        self.roster.handle_link_up(now, pid);
        self.outbox.push_online();
        self.settle();
    }

    pub(crate) fn link_down(&mut self) {
        self.roster.handle_link_down();
        assert_eq!(
            self.roster.poll_timeout(),
            None,
            "there is nothing to wait for"
        );
        let reason = Error::new(ErrorKind::Link, "the server is gone");
        self.outbox.push_offline(reason);
        self.settle();
    }

    /// The host's own connection to this peer broke. It may know another start of the peer than the roster does.
    pub(crate) fn report_unreachable(&mut self, now: Instant, name: &str) {
        self.host.reports_unreachable(name);
        if let Some(peer) = self.host.peers.get(name) {
            self.roster.report_unreachable(now, peer);
        }
        let shown = self.roster.peer_infos();
        if let Some(shown) = shown.iter().find(|shown| shown.peer.name() == name) {
            self.roster.report_unreachable(now, &shown.peer);
        }
    }

    /// Brings changes to the host, if it takes them.
    pub(crate) fn settle(&mut self) {
        while let Some(change) = self.roster.poll_change() {
            if change.kind == Kind::TookName {
                assert!(!self.silenced, "a name is taken once");
                self.silenced = true;
            }
            self.outbox.push(change);
        }
        if !self.host_sleeps {
            self.host_takes(usize::MAX);
        }
    }

    /// The host takes this many events, or all if there are fewer.
    pub(crate) fn host_takes(&mut self, count: usize) {
        let (mut topics, mut told) = (HashSet::new(), Vec::new());
        for _ in 0..count {
            let Some(event) = self.outbox.pop() else {
                break;
            };
            assert!(topics.insert(topic(&event)), "two about one thing wait");
            self.transcript.push(say(&event));
            self.host.take(&event);
            told.extend(event.peer().map(|peer| peer.name().to_owned()));
            if self.outbox.len() == 0 {
                told.drain(..).for_each(|name| self.check_peer(&name));
            }
        }
    }

    /// The host does not mind that a peer which left joins again.
    pub(crate) fn host_forgets(&mut self) {
        let host = std::mem::take(&mut self.host);
        self.host = host.forgotten_peers_may_join_again();
    }

    pub(crate) fn host_sleeps(&mut self) {
        self.host_sleeps = true;
        self.host.lets_events_wait();
    }

    pub(crate) fn host_wakes(&mut self) {
        self.host_sleeps = false;
        self.settle();
    }

    /// Panics where something does not hold that holds between any two calls. It looks at every peer, so the example
    /// `simulate` goes without.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self) {
        use crate::core::roster::checks;

        checks::check_bounds(&self.roster);
        if self.outbox.len() == 0 {
            self.check_host();
        }
        // What waits is at most that everybody the host knows has left, that everybody else has come, and two words more.
        let (known, there) = (self.host.peers.len(), checks::peers(&self.roster).count());
        assert!(self.outbox.len() <= known + there + 2);
    }

    #[cfg(not(any(test, fuzzing)))]
    pub(crate) fn check(&self) {}

    /// Panics if a host that took all events does not know what the roster knows.
    #[cfg(any(test, fuzzing))]
    fn check_host(&self) {
        use crate::core::roster::checks::peers;

        let known = &self.host.peers;
        assert!(peers(&self.roster).all(|peer| known.get(peer.name()) == Some(peer)));
        assert_eq!(peers(&self.roster).count(), known.len());
    }

    /// Panics if a host that took all events knows something else of this peer than the roster, or another number of peers.
    #[cfg(any(test, fuzzing))]
    fn check_peer(&self, name: &str) {
        let known = &self.host.peers;
        let there = crate::core::roster::checks::find(&self.roster, name);
        assert_eq!((known.len(), known.get(name)), there);
    }

    #[cfg(not(any(test, fuzzing)))]
    fn check_peer(&self, _: &str) {}
}

/// What an event is about. No more than one event about it waits.
fn topic(event: &Event) -> (&'static str, String, Option<Incarnation>) {
    let (kind, peer) = match event {
        Event::Online | Event::Offline(_) => ("link", None),
        Event::NameTaken(_) => ("name", None),
        Event::Join(peer) | Event::Heal(peer) | Event::Update(peer) | Event::Leave(peer, _) => {
            ("peer", Some(peer))
        }
    };
    let name = peer.map_or_else(String::new, |peer| peer.name().to_owned());
    (kind, name, peer.and_then(crate::peer::Peer::incarnation))
}
