//! How a participant is doing.

use std::time::Duration;

use crate::error::Error;
use crate::peer::Incarnation;

/// How a participant is doing: its link to Postgres and its counts since it joined. A snapshot, as of what the thread did
/// last; as old as a call that waits for a server which does not answer: up to the heartbeat interval, between 1.5 and 5 seconds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// Whether the link to Postgres works, as far as is known.
    pub online: bool,
    /// Whether a newer process has this participant's name, so that no peer sees this one any more, however well its link works;
    /// see [`Event::NameTaken`](crate::Event::NameTaken). It stays so.
    pub name_taken: bool,
    /// The newest reason for which the link failed or could not be had, or for which in a flood of the channel an announcement
    /// over a further connection could not be made; it stays when the link is back.
    pub last_error: Option<Error>,
    /// This participant's own incarnation; `None` for an observer and for one that announces its bare name.
    pub incarnation: Option<Incarnation>,
    /// How many peers there are.
    pub peers: usize,
    /// How long Postgres took to answer last: to bring an announcement back to this participant that was its own, or to tell
    /// one that announces nothing, every [`heartbeat_interval`](crate::Config::heartbeat_interval), that it is there.
    pub round_trip: Option<Duration>,
    /// How often this participant announces itself now: its
    /// [`heartbeat_interval`](crate::Config::heartbeat_interval), or longer in a large cluster (see
    /// [`Config::delivery_budget`](crate::Config::delivery_budget)), and at least twice the round trip to the server.
    pub interval: Duration,
    /// Whether peers know by this participant's session that it is there, so that it announces itself no more often than the
    /// [`delivery_budget`](crate::Config::delivery_budget) allows. If not, since they have other roles than this one, so that it is
    /// not known what they see, since its role does not track what its sessions do (`track_activities`), or since this participant
    /// or all of its peers do not ask ([`session_check`](crate::Config::session_check)), it may spend ten times as much. An observer, and one that announces its bare name, is not judged by its session.
    pub judged_by_session: bool,
    /// How many announcements went out.
    pub announced: u64,
    /// How many newcomers this participant answered with the roster.
    pub answered: u64,
    /// How many times this participant asked Postgres whose session is gone; see
    /// [`Config::session_check`](crate::Config::session_check).
    pub checked: u64,
    /// How many payloads told something about a peer, if only that it is still there.
    pub heard: u64,
    /// How many payloads were ignored: not in this crate's format, cut short, of another version, repeated, out of order.
    pub ignored: u64,
    /// How many payloads were ignored since they are not signed with a secret of this participant, or were sent by another
    /// backend than signed them. See `Config::secret`, of the cargo feature `auth`; without a secret none are.
    pub forged: u64,
    /// How many payloads were ignored though they are well signed: more than 60 seconds before they came, or in the future by
    /// as much. A member's clock is wrong, or this one's; the log names it.
    pub clock_skewed: u64,
    /// How many announcements of newcomers were ignored since the roster is full; see
    /// [`Config::max_peers`](crate::Config::max_peers).
    pub refused: u64,
    /// How many times the link came up.
    pub connected: u64,
    /// How many attempts to connect failed.
    pub failed_attempts: u64,
    /// How many events wait for the host to drain those before them.
    pub undelivered: usize,
}
