//! Announcing over a separate connection, while a flood makes it costly to ask anything on the link. One at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use super::Pid;
use super::connector::Connect;
use super::detached::{close, start};
use super::hearing::Aside;
use super::seats::Seated;
use super::session::{SessionNames, own_backend, say};
use crate::error::{Error, Kind, Result};

/// The least time between two looks at what there is to announce.
const REST: Duration = Duration::from_millis(100);

/// The least and the most that an announcement may take before the link must do, whatever the heartbeat interval is.
const FIRST_ASIDE: Duration = Duration::from_millis(1_500);
const LAST_ASIDE: Duration = Duration::from_secs(10);

/// Announcements over a connection that hears nothing, and so has nothing to read before its answers come. It is kept until the
/// flood is over: far away a login takes as long as several announcements.
pub(crate) struct SideChannel {
    connect: Connect,
    names: SessionNames,
    /// The longest that an announcement may take. Peers wait for three heartbeats, if they are not told otherwise.
    patience: Duration,
    looked: Option<Instant>,
    last: Option<Announcing>,
    /// When the last attempt failed; `None` if it succeeded, or there was none. What made it fail may pass, so connecting is tried again
    /// some time after that.
    failed: Option<Instant>,
    session: Option<Session>,
}

/// A connection, and its backend, if that could be told.
type Session = (Seated, Option<Pid>);

/// What comes of announcing: the connection, to be used again.
type Outcome = Result<Option<Session>>;

struct Announcing {
    sent: Instant,
    /// What it says of this member, without what a signature adds. Of others somebody else may say the very same.
    own: Option<String>,
    /// How many announcements of this member it has; `None` if there was nothing to say yet.
    announcements: Option<u64>,
    /// `None` once it has come.
    outcome: Option<Receiver<Outcome>>,
}

impl SideChannel {
    /// `connecting`: how long opening a connection may take.
    pub(crate) fn new(
        connect: Connect,
        names: SessionNames,
        heartbeat: Duration,
        connecting: Duration,
    ) -> Self {
        Self {
            connect,
            names,
            patience: (2 * heartbeat)
                .clamp(FIRST_ASIDE, LAST_ASIDE)
                .max(connecting),
            looked: None,
            last: None,
            failed: None,
            session: None,
        }
    }

    /// Whether to announce here now what is due.
    pub(crate) fn state(&self, now: Instant) -> Aside {
        let under_way = self.under_way();
        let is_late = |last: &Announcing| now.saturating_duration_since(last.sent) > self.patience;
        let rests = self.looked.is_some_and(|at| now < at + REST);
        if self.failed.is_some() || under_way.is_some_and(is_late) {
            Aside::Failed
        } else if rests || under_way.is_some() {
            Aside::Busy
        } else {
            Aside::Ready
        }
    }

    fn under_way(&self) -> Option<&Announcing> {
        self.last.as_ref().filter(|last| last.outcome.is_some())
    }

    /// There is a flood: connects, unless that was done, so that what is due next need not wait for that.
    pub(crate) fn prepare(&mut self, now: Instant) -> Result<()> {
        let is_due = match self.failed {
            None => self.last.is_none(),
            Some(at) => self.under_way().is_none() && at + self.patience <= now,
        };
        if is_due {
            let outcome = self.notify(|_| Some(Vec::new()))?;
            self.start(now, None, None, outcome);
        }
        Ok(())
    }

    /// Makes these announcements, if there are any; those at the places `own` are of this member. `sign` is told the backend that makes
    /// them, if that is known.
    pub(crate) fn announce(
        &mut self,
        now: Instant,
        payloads: &[String],
        own: &[usize],
        sign: impl FnOnce(Option<Pid>) -> Option<Vec<String>> + Send + 'static,
    ) -> Result<()> {
        self.looked = Some(now);
        if !payloads.is_empty() {
            let outcome = self.notify(sign)?;
            let last = own.last().and_then(|&at| payloads.get(at));
            let last = last.map(String::as_str);
            self.start(now, last, Some(own.len() as u64), outcome);
        }
        Ok(())
    }

    /// Makes one announcement, and waits a moment for it.
    pub(crate) fn announce_now(
        &mut self,
        sign: impl FnOnce(Option<Pid>) -> Option<Vec<String>> + Send + 'static,
    ) -> Result<()> {
        let outcome = self.notify(sign)?;
        let outcome = outcome.recv_timeout(FIRST_ASIDE);
        let session = outcome.unwrap_or_else(|_| Err(ended_early()))?;
        session.into_iter().for_each(end);
        Ok(())
    }

    fn notify(
        &mut self,
        sign: impl FnOnce(Option<Pid>) -> Option<Vec<String>> + Send + 'static,
    ) -> Result<Receiver<Outcome>> {
        let (connect, channel) = (Arc::clone(&self.connect), self.names.channel.clone());
        let (session, patience) = (self.session.take(), self.patience);
        start("notify", move || {
            let (mut client, backend) = match session {
                Some(session) => session,
                None => {
                    let mut client = connect.open_aside(patience)?;
                    let backend = own_backend(&mut client);
                    (client, backend)
                }
            };
            let payloads = sign(backend).ok_or_else(|| {
                Error::new(
                    Kind::Link,
                    "not announced over a further connection: a signature names its backend, which could not be told",
                )
            })?;
            if !payloads.is_empty() {
                say(&mut client, |it| it.notify_aside(&channel, &payloads))?;
            }
            Ok(Some((client, backend)))
        })
    }

    fn start(
        &mut self,
        now: Instant,
        own: Option<&str>,
        announcements: Option<u64>,
        outcome: Receiver<Outcome>,
    ) {
        self.last = Some(Announcing {
            sent: now,
            own: own.map(|own| own.trim_end_matches(';').to_owned()),
            announcements,
            outcome: Some(outcome),
        });
    }

    /// What came of the last announcements, once: how many were made.
    pub(crate) fn poll_outcome(&mut self, now: Instant) -> Option<Result<u64>> {
        let last = self.last.as_mut()?;
        let outcome = match last.outcome.as_ref()?.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(ended_early()),
        };
        last.outcome = None;
        self.failed = outcome.is_err().then_some(now);
        let announcements = last.announcements;
        match outcome {
            // Where there was nothing to say yet nobody waits to hear that it was said.
            Ok(session) => {
                self.session = session;
                announcements.map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// When the last announcement was made, if this is what it says. Postgres keeps the order, so all from before has been
    /// heard.
    pub(crate) fn sent_at_if_own(&self, payload: &str) -> Option<Instant> {
        let last = self.last.as_ref()?;
        let rest = payload.strip_prefix(last.own.as_deref()?)?;
        // A longer name or number begins with ours, too.
        let ends = rest.is_empty() || rest.starts_with([' ', ';']);
        ends.then_some(last.sent)
    }

    /// The flood is over.
    pub(crate) fn stop(&mut self) {
        (self.looked, self.last, self.failed) = (None, None, None);
        self.session.take().into_iter().for_each(end);
    }
}

impl Drop for SideChannel {
    fn drop(&mut self) {
        self.session.take().into_iter().for_each(end);
    }
}

fn end((client, _): Session) {
    close(client);
}

fn ended_early() -> Error {
    Error::new(
        Kind::Link,
        "an announcement over a further connection did not end",
    )
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;
    use postgres::Client;

    use super::*;
    use crate::link::connector::custom_connector;

    fn side_channel() -> SideChannel {
        let connect = custom_connector(|| Err::<Client, _>("nobody dials"));
        let names = SessionNames {
            channel: "c".to_owned(),
            inbox: "i".to_owned(),
            application_name: "a".to_owned(),
        };
        SideChannel::new(connect, names, Duration::from_secs(1), Duration::ZERO)
    }

    #[test]
    fn what_merely_begins_as_our_announcement_is_not_it() {
        let now = Instant::now();
        let is_own = |payload, heard| {
            let mut side_channel = side_channel();
            let (_outcome, never) = bounded(1);
            side_channel.start(now, Some(payload), Some(1), never);
            side_channel.sent_at_if_own(heard) == Some(now)
        };
        let beat = "pg-peers/1 beat name=a@h inc=7 seq=1 due=5000 pid=4;";
        let signed = "pg-peers/1 beat name=a@h inc=7 seq=1 due=5000 pid=4 time=9 sig=ab;";
        for (payload, heard) in [("a@h", "a@h"), (beat, beat), (beat, signed)] {
            assert!(is_own(payload, heard), "{heard}");
        }
        let other = "pg-peers/1 beat name=a@h inc=7 seq=1 due=5000 pid=42;";
        for (payload, heard) in [
            ("a@h", "a@h2"),
            ("a@h", "a@"),
            ("a@h2", "a@h"),
            (beat, other),
            (beat, "a@h"),
        ] {
            assert!(!is_own(payload, heard), "{heard}");
        }
    }

    #[test]
    fn one_announcement_at_a_time_and_none_soon_after_a_failure() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut side_channel = side_channel();
        assert_eq!(side_channel.state(start), Aside::Ready);
        side_channel
            .announce(start, &[], &[], |_| Some(Vec::new()))
            .expect("nothing to do");
        assert_eq!(side_channel.state(at(99)), Aside::Busy);
        assert_eq!(side_channel.state(at(100)), Aside::Ready);
        let (done, outcome) = bounded(1);
        side_channel.start(at(100), Some("a@h"), Some(3), outcome);
        assert!(side_channel.poll_outcome(at(2_100)).is_none());
        assert_eq!(side_channel.state(at(2_100)), Aside::Busy);
        assert_eq!(
            side_channel.state(at(2_101)),
            Aside::Failed,
            "it takes too long"
        );
        done.send(Ok(None)).expect("room");
        assert!(matches!(side_channel.poll_outcome(at(2_101)), Some(Ok(3))));
        assert!(side_channel.poll_outcome(at(2_101)).is_none(), "once");
        assert_eq!(side_channel.state(at(2_101)), Aside::Ready);
        let (done, outcome) = bounded(1);
        side_channel.start(at(2_200), Some("a@h"), Some(1), outcome);
        drop(done);
        assert!(matches!(side_channel.poll_outcome(at(3_000)), Some(Err(_))));
        assert_eq!(side_channel.state(at(60_000)), Aside::Failed);
        side_channel.stop();
        assert_eq!(side_channel.state(at(60_000)), Aside::Ready);
    }

    #[test]
    fn after_a_failure_connecting_is_tried_again_with_nothing_to_say() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut side_channel = side_channel();
        let fail = |side_channel: &mut SideChannel, now| {
            let (_, outcome) = bounded(1);
            side_channel.start(now, None, None, outcome);
            assert!(matches!(side_channel.poll_outcome(now), Some(Err(_))));
        };
        fail(&mut side_channel, at(0));
        for (millis, tried) in [(0, false), (1_999, false), (2_000, true)] {
            side_channel.prepare(at(millis)).expect("a thread");
            assert_eq!(side_channel.under_way().is_some(), tried, "{millis}");
            assert_eq!(
                side_channel.state(at(millis)),
                Aside::Failed,
                "the link does"
            );
        }
        side_channel.prepare(at(9_000)).expect("nothing to do");
        assert_eq!(
            side_channel.under_way().map(|last| last.sent),
            Some(at(2_000)),
            "one at a time"
        );
        let (done, outcome) = bounded(1);
        side_channel.start(at(9_000), None, None, outcome);
        done.send(Ok(None)).expect("room");
        assert!(
            side_channel.poll_outcome(at(9_001)).is_none(),
            "nobody waits for that"
        );
        assert_eq!(side_channel.state(at(9_001)), Aside::Ready);
    }
}
