//! The way of what happened to the host: first into its view, then into its events.
//!
//! What an event says, [`peers`](crate::Cluster::peers) and [`status`](crate::Cluster::status) already show when the event can be
//! received: [`send`](Delivery::send) shows what was taken and not shown yet, first.

use std::sync::{Arc, MutexGuard};

use crossbeam_channel::Sender;

use super::outbox::Outbox;
use super::shared::{Requests, Shared, View};
use crate::core::roster::{Change, Kind, Outcome};
use crate::error::Error;
use crate::event::Event;
use crate::logging::PEERS;
use crate::peer::Peer;
use crate::status::Status;

pub(crate) struct Delivery {
    /// The channel, for the log.
    channel: String,
    shared: Arc<Shared>,
    view: View,
    outbox: Outbox,
    events: Sender<Event>,
    /// What was taken and not logged in detail yet: the host comes first.
    unlogged: Vec<(Peer, Kind)>,
    /// Something was taken that the view does not show to the host yet.
    unshown: bool,
    /// Nodes that announce their bare name are to be warned of: they keep what this participant says for ever.
    warns_of_bare: bool,
    /// The host made room for events since this was last asked.
    draining: bool,
}

impl Delivery {
    /// `in_full` if this participant says more than a bare name.
    pub(crate) fn new(
        channel: String,
        shared: Arc<Shared>,
        events: Sender<Event>,
        in_full: bool,
    ) -> Self {
        Self {
            channel,
            shared,
            view: View::default(),
            outbox: Outbox::default(),
            events,
            unlogged: Vec::new(),
            unshown: false,
            warns_of_bare: in_full,
            draining: false,
        }
    }

    /// What the host asks for.
    pub(crate) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.shared.requests()
    }

    pub(crate) fn status(&self) -> &Status {
        &self.view.status
    }

    /// The counters. What is written here is shown with the next [`show`](Self::show).
    pub(crate) fn status_mut(&mut self) -> &mut Status {
        &mut self.view.status
    }

    /// Counts what became of a message about this name.
    pub(crate) fn count(&mut self, outcome: Outcome, name: &str) {
        let status = &mut self.view.status;
        match outcome {
            Outcome::News => status.heard += 1,
            Outcome::Stale => status.ignored += 1,
            Outcome::Refused => {
                if status.refused == 0 {
                    log::warn!(
                        target: PEERS,
                        "{:?}: ignoring newcomers, first {name:?}: {} peers are all that max_peers allows",
                        self.channel,
                        status.peers,
                    );
                }
                status.refused += 1;
            }
        }
    }

    /// Brings a change into the view and the outbox.
    pub(crate) fn take(&mut self, change: Change) {
        match change.kind {
            Kind::Joined | Kind::Returned | Kind::Recovered | Kind::Updated => {
                Arc::make_mut(&mut self.view.peers).put(&change.peer);
            }
            Kind::Left(_) => Arc::make_mut(&mut self.view.peers).remove(change.peer.name()),
            Kind::TookName => self.view.status.name_taken = true,
        }
        self.warn(&change);
        if change.kind != Kind::TookName {
            self.unlogged.push((change.peer.clone(), change.kind));
        }
        self.outbox.push(change);
        self.unshown = true;
    }

    /// Comes before the event, after which a host may end its process.
    fn warn(&mut self, change: &Change) {
        let is_bare = change.kind == Kind::Joined && change.peer.incarnation().is_none();
        let warns = is_bare && std::mem::take(&mut self.warns_of_bare);
        let (channel, name) = (&self.channel, change.peer.name());
        if warns {
            log::warn!(
                target: PEERS,
                "{channel:?}: {name:?} announces its bare name, as nodes of libcluster_postgres do, and those keep each payload of \
                 this member for ever, as an atom, until their VM dies: set bare_name(true), or use another channel"
            );
        }
        if change.kind == Kind::TookName {
            log::warn!(
                target: PEERS,
                "{channel:?}: a newer process has the name {name:?}: this one is not announced any more"
            );
        }
    }

    /// The link is up.
    pub(crate) fn take_online(&mut self) {
        self.view.status.online = true;
        self.view.status.connected += 1;
        self.outbox.push_online();
        self.unshown = true;
    }

    /// The link broke, for this reason.
    pub(crate) fn take_offline(&mut self, reason: Error) {
        self.view.status.online = false;
        self.view.status.last_error = Some(reason.clone());
        self.outbox.push_offline(reason);
        self.unshown = true;
    }

    /// An attempt to connect failed, for this reason. The host is told of it where no link was ever up, once.
    pub(crate) fn take_failure(&mut self, reason: Error) {
        let status = &mut self.view.status;
        status.failed_attempts += 1;
        status.last_error = Some(reason.clone());
        if status.connected == 0 && status.failed_attempts == 1 {
            self.outbox.push_offline(reason);
        }
        self.unshown = true;
    }

    /// Shows the view to the host.
    pub(crate) fn show(&mut self) {
        self.view.status.peers = self.view.peers.len();
        self.view.status.undelivered = self.outbox.len();
        self.shared.show(&self.view);
        self.unshown = false;
    }

    /// Sends events for which there is room, then logs all that was taken. Never waits for the host: what does not fit stays in the
    /// outbox.
    pub(crate) fn send(&mut self) {
        if self.unshown {
            self.show();
        }
        while !self.events.is_full() {
            let Some(event) = self.outbox.pop() else {
                break;
            };
            // The one sender found room, so this does not block; that nobody receives any more is the host's choice.
            let _ = self.events.send(event);
            self.draining = true;
        }
        for (peer, kind) in std::mem::take(&mut self.unlogged) {
            log::debug!(target: PEERS, "{:?}: {}: {kind:?}", self.channel, peer.name());
        }
    }

    /// Whether the host took events since this was last asked, and more are pending.
    pub(crate) fn take_draining(&mut self) -> bool {
        std::mem::take(&mut self.draining) && self.is_pending()
    }

    /// Whether events wait for room at the host.
    pub(crate) fn is_pending(&self) -> bool {
        self.outbox.len() > 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error;
    use crate::peer::{Peer, Tags};

    fn delivery(room: usize) -> (Delivery, Arc<Shared>, crossbeam_channel::Receiver<Event>) {
        let shared = Arc::new(Shared::default());
        let (events, received) = crossbeam_channel::bounded(room);
        let delivery = Delivery::new("c".to_owned(), Arc::clone(&shared), events, true);
        (delivery, shared, received)
    }

    fn joined(name: &str) -> Change {
        Change {
            peer: Peer::new(name.into(), None, Tags::default()),
            kind: Kind::Joined,
        }
    }

    fn reason() -> Error {
        Error::new(error::Kind::Link, "the server is gone")
    }

    #[test]
    fn what_an_event_says_is_shown_by_then() {
        let (mut delivery, shared, events) = delivery(10);
        delivery.take_failure(reason());
        delivery.send();
        assert!(matches!(events.try_recv(), Ok(Event::Offline(_))));
        assert_eq!(shared.look(|view| view.status.failed_attempts), 1);
        delivery.take_online();
        delivery.send();
        assert!(matches!(events.try_recv(), Ok(Event::Online)));
        assert!(shared.look(|view| view.status.online));
        delivery.take(joined("a"));
        delivery.send();
        assert!(matches!(events.try_recv(), Ok(Event::Join(_))));
        assert_eq!(
            shared.look(|view| (view.peers.len(), view.status.peers)),
            (1, 1)
        );
        delivery.take_offline(reason());
        delivery.send();
        assert!(matches!(events.try_recv(), Ok(Event::Offline(_))));
        assert!(!shared.look(|view| view.status.online));
    }

    #[test]
    fn a_host_that_drains_is_told_from_one_that_sleeps() {
        let (mut delivery, _shared, events) = delivery(1);
        for name in ["a", "b", "c"] {
            delivery.take(joined(name));
        }
        delivery.send();
        assert!(delivery.take_draining() && delivery.is_pending());
        delivery.send();
        assert!(!delivery.take_draining(), "it took nothing");
        let taken = events.recv_timeout(Duration::ZERO);
        assert!(taken.is_ok());
        delivery.send();
        assert!(delivery.take_draining());
        assert!(events.try_recv().is_ok());
        delivery.send();
        assert!(!delivery.is_pending() && !delivery.take_draining());
    }
}
