//! What the host program is told, and what may follow what.

use std::fmt;

use crate::error::Error;
use crate::peer::Peer;

/// A change: in who is there, or in this member's link to Postgres.
///
/// # Order
///
/// For each peer (that is, each name and incarnation):
///
/// - The first event is a [`Join`](Event::Join), and there is never a second.
/// - [`Update`](Event::Update) and [`Leave`](Event::Leave) only follow when the peer is there by the events before.
/// - [`Heal`](Event::Heal) follows a `Leave`. It comes while the peer is there if the host program called
///   [`report_unreachable`](crate::Cluster::report_unreachable), or if the peer left and came back before the program was told.
/// - After `Leave` with [`Reason::Goodbye`] or [`Reason::Replaced`] nothing more comes.
/// - `Leave` with [`Reason::Replaced`] comes before the `Join` of the peer's successor.
///
/// Applied one by one, the events always lead to the roster: a program that keeps a set, inserts on `Join` and `Heal`, replaces on
/// `Update` and removes on `Leave` ends up with what [`peers`](crate::Cluster::peers) returns. When an event can be received, `peers`
/// already reflects it.
///
/// A program that does not drain its events loses nothing and delays nobody. Events beyond the channel's bound coalesce, to at most
/// one for each peer, which leads from what the program was told to what is true. A peer that joined and left before you drained is not
/// mentioned; if it returns, its first event is a `Heal`. A peer that left and returned is one `Heal`.
///
/// Two exceptions. A departed peer is remembered for an hour, or until as many others have departed as
/// [`max_peers`](crate::Config::max_peers) allows (at least 1,000), and is a `Join` when it is heard after that. And a name that is
/// announced both bare and in full can be a second `Join`, since a bare name tells nothing of its start.
///
/// ```
/// use std::collections::BTreeSet;
/// use pg_peers::Event;
///
/// fn follow(event: &Event, connected: &mut BTreeSet<String>) {
///     match event {
///         Event::Join(peer) | Event::Heal(peer) => drop(connected.insert(peer.name().to_owned())),
///         Event::Leave(peer, _) => drop(connected.remove(peer.name())),
///         _ => {}
///     }
/// }
///
/// # #[allow(dead_code, unreachable_pub)]
/// # mod support { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.rs")); }
/// # fn main() -> pg_peers::Result<()> {
/// # let server = support::Server::start();
/// # let [a, b] = ["a", "b"].map(|name| pg_peers::Config::new(name).join(&server.params()).unwrap());
/// let mut connected = BTreeSet::new();
/// for event in a.events() {
///     follow(&event, &mut connected);
/// #   if matches!(event, Event::Join(_)) { b.leave()?; }
/// #   if matches!(event, Event::Leave(..)) { break; }
/// }
/// # assert!(connected.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A new peer is there: connect to it.
    Join(Peer),
    /// The same start of a peer is heard again, after a `Leave`, or after the host program called
    /// [`report_unreachable`](crate::Cluster::report_unreachable): connect to it again.
    Heal(Peer),
    /// The tags of a peer changed.
    Update(Peer),
    /// A peer is gone, for this reason: disconnect from it.
    Leave(Peer, Reason),
    /// This member hears and is heard: it listens, its session was seen to carry notifications, and its hello is out. Comes before the
    /// events that the session brings.
    Online,
    /// There is no working session with Postgres, for this reason. Attempts to get one go on until one works. Comes once for an outage, not once
    /// for an attempt ([`Status::last_error`](crate::Status::last_error) has the newest reason). No peer leaves because of it.
    Offline(Error),
    /// A newer process announces this member's name, with the incarnation given. This member announces nothing from now on, and only
    /// listens. Comes at most once.
    NameTaken(Peer),
}

impl Event {
    /// The peer that the event is about; `None` for [`Online`](Event::Online) and [`Offline`](Event::Offline).
    ///
    /// ```
    /// assert!(pg_peers::Event::Online.peer().is_none());
    /// ```
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
///
/// Printed, it completes a sentence about the peer:
///
/// ```
/// assert_eq!(format!("worker-1 {}", pg_peers::Reason::Goodbye), "worker-1 said goodbye");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It said goodbye.
    Goodbye,
    /// It was silent for too long: while this member's own link was up it was not heard for
    /// [`missed_heartbeats`](crate::Config::missed_heartbeats) of the intervals that it announced (longer if its
    /// [reconnect](crate::PeerInfo::back) takes long, or where something [holds up or floods](crate::guide::faults) the channel), or its
    /// session has stood still for as many of its heartbeat intervals. It hangs, or it died behind a pooler.
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
            Self::Expired => "was silent for too long",
            Self::SessionGone => "lost its session with Postgres",
            Self::Replaced => "was replaced by a newer process of its name",
        })
    }
}
