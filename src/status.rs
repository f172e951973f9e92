//! How a member is doing.

use std::time::Duration;

use crate::error::Error;
use crate::peer::Incarnation;

/// How a member is doing: its link to Postgres, and its counts since it joined.
///
/// A snapshot of what the thread did last. If the server does not answer, it is as old as the call that waits: up to the heartbeat
/// interval (at least 1.5 and at most 5 seconds) and four round trips.
///
/// ```
/// fn is_healthy(cluster: &pg_peers::Cluster) -> bool {
///     let status = cluster.status();
///     status.online && !status.name_taken
/// }
///
/// # fn main() -> pg_peers::Result<()> {
/// let member = pg_peers::Config::new("a").join("host=127.0.0.1 port=1")?; // nobody listens there
/// assert!(!is_healthy(&member));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// Whether the link to Postgres works, as far as is known.
    pub online: bool,
    /// Whether a newer process has this member's name. No peer sees this member any more, however well its link works; see
    /// [`Event::NameTaken`](crate::Event::NameTaken). It stays so.
    pub name_taken: bool,
    /// The most recent connection error, or the reason why an announcement over a second connection failed while the channel was flooded.
    /// It stays when the link is back.
    pub last_error: Option<Error>,
    /// This member's own incarnation; `None` for an observer, and for a member that announces its bare name.
    pub incarnation: Option<Incarnation>,
    /// How many peers there are.
    pub peers: usize,
    /// How long Postgres took for this participant's last NOTIFY: an announcement, a piece of an answer to a newcomer, or, for an
    /// observer, the question whether Postgres still answers, which it asks every
    /// [`heartbeat_interval`](crate::Config::heartbeat_interval).
    pub round_trip: Option<Duration>,
    /// How often this member announces itself now: every [`heartbeat_interval`](crate::Config::heartbeat_interval), less often in a large
    /// cluster (see [`Config::delivery_budget`](crate::Config::delivery_budget)), and never more often than every two round trips.
    pub interval: Duration,
    /// Whether peers know by this member's session that it is there. Then it announces itself no more often than the
    /// [`delivery_budget`](crate::Config::delivery_budget) allows; otherwise it may spend ten times as much. It is false if peers have
    /// another role, so that they may not see this session; if this role does not track what its sessions do (`track_activities`); if this
    /// member, or all of its peers, do not ask ([`session_check`](crate::Config::session_check)); until it has asked, some two seconds after
    /// each connect; while the channel is flooded, and for a minute after; for an observer; and for a member that announces its bare name.
    pub judged_by_session: bool,
    /// How many announcements went out.
    pub announced: u64,
    /// How many newcomers this member answered with the roster.
    pub answered: u64,
    /// How many times this member asked Postgres whose session is gone; see [`Config::session_check`](crate::Config::session_check).
    pub checked: u64,
    /// How many payloads told of a peer, also those that only showed that it is still there.
    pub heard: u64,
    /// How many payloads were ignored: not in this crate's format, cut short, of another version, repeated, out of order.
    pub ignored: u64,
    /// How many payloads were ignored because they are not signed with a secret of this member, or came from another backend than the one
    /// that signed them. See `Config::secret` (feature `auth`); without a secret it stays 0.
    pub forged: u64,
    /// How many payloads were ignored because of their time, though their signature is right: signed more than 60 seconds before they
    /// came, or that far in the future. A peer's clock is wrong, or this member's; the log names the peer.
    pub clock_skewed: u64,
    /// How many announcements of newcomers were ignored because the roster is full; see [`Config::max_peers`](crate::Config::max_peers).
    pub refused: u64,
    /// How many times the link came up.
    pub connected: u64,
    /// How many attempts to connect failed.
    pub failed_attempts: u64,
    /// How many events wait for the host program to drain those before them.
    pub undelivered: usize,
}
