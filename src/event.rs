//! What the host is told, and what may follow what.

use std::fmt;

use crate::error::Error;
use crate::peer::Peer;

/// What changed: in who is there, or in this process's link to Postgres.
///
/// # Order
///
/// For each peer (that is, each name and incarnation):
///
/// - The first event is a [`Join`](Event::Join), and there is never a second.
/// - [`Update`](Event::Update) and [`Leave`](Event::Leave) only follow when the peer is there by the events before;
///   [`Heal`](Event::Heal) follows a `Leave`, or comes while the peer is there if the host called
///   [`report_unreachable`](crate::Cluster::report_unreachable), or if it left and came back before the host was told.
/// - After `Leave` with [`Reason::Goodbye`] or [`Reason::Replaced`] nothing more comes.
/// - A peer's `Leave` with [`Reason::Replaced`] comes before the `Join` of the one that replaced it.
///
/// Applied one by one, the events always lead to the roster: a host that keeps a set, inserts on `Join` and `Heal`, replaces
/// on `Update` and removes on `Leave`, has in the end what [`peers`](crate::Cluster::peers) returns. By the time an
/// event can be received, `peers` already reflects it.
///
/// A host that does not drain its events loses nothing and delays nobody: events beyond the channel's bound coalesce, at
/// most one for each peer, into what still leads from what the host was told to what is true. A peer that came and went
/// in the meantime is then not mentioned (should it return, that is its first event, a `Heal`); one that left and came
/// back is one `Heal`.
///
/// Two exceptions: a departed peer is remembered for an hour, or until as many others have departed as
/// [`max_peers`](crate::Config::max_peers) allows (but at least 1,000), and is a `Join` when heard after that; and so can be a
/// name that is announced both bare and in full, since a bare name tells nothing of its start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is there that was not: connect to it.
    Join(Peer),
    /// The same incarnation of a peer is heard again, after a `Leave`, or after the host reported that its own
    /// connection to it broke, with [`report_unreachable`](crate::Cluster::report_unreachable): connect to it again.
    Heal(Peer),
    /// A peer that is there announces other tags.
    Update(Peer),
    /// A peer is gone, for the reason given: disconnect from it.
    Leave(Peer, Reason),
    /// This process hears and is heard: LISTEN is in place, the connection was proven to carry notifications, and the
    /// hello is out. Comes before the events that the session brings.
    Online,
    /// There is no working session with Postgres, for the reason given; attempts to get one go on for ever. Comes once,
    /// not once an attempt ([`Status::last_error`](crate::Status::last_error) has the newest reason). No peer leaves
    /// because of it.
    Offline(Error),
    /// A newer process announces this participant's name, with the incarnation given: this one has stopped announcing
    /// and only listens from now on. Comes at most once.
    NameTaken(Peer),
}

impl Event {
    /// The peer that the event is about; `None` for [`Online`](Event::Online) and [`Offline`](Event::Offline).
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Join(peer)
            | Self::Heal(peer)
            | Self::Update(peer)
            | Self::Leave(peer, _)
            | Self::NameTaken(peer) => Some(peer),
            Self::Online | Self::Offline(_) => None,
        }
    }
}

/// Why a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It said goodbye.
    Goodbye,
    /// It was not heard for as many of the intervals that it announced as this process's
    /// [`missed_heartbeats`](crate::Config::missed_heartbeats) says, while this process's own link was up; or its session has
    /// stood still for as many of its heartbeat intervals: it hangs, or died behind a pooler.
    Expired,
    /// Postgres no longer has its session: the process was killed, its host died, or it was cut off. See
    /// [`Config::session_check`](crate::Config::session_check).
    SessionGone,
    /// A newer process announces its name.
    Replaced,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Goodbye => "said goodbye",
            Self::Expired => "was not heard for too long",
            Self::SessionGone => "lost its session with Postgres",
            Self::Replaced => "was replaced by a newer process of its name",
        })
    }
}
