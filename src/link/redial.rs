//! When to dial again, for how long a step of an attempt may hang before another attempt starts beside it, and what follows from a
//! login that was rejected. Pure: time is a parameter.

use std::time::{Duration, Instant};

use crate::jitter::Jitter;

/// The back-off doubles from the first to the last. No longer, so that recovery takes about a second however long the outage
/// was; nor longer than the heartbeat interval, so that this participant is back before the grace period ends that its peers
/// give it once they are back themselves; nor so long that a session check could find it gone meanwhile.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_millis(750);

/// After a link that lasted this long the next failure starts to back off anew.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// After this long a step of an attempt counts as hung, and another attempt may start beside it. The limit doubles with each
/// attempt that hangs, so that they stay few.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_DOUBLINGS: u32 = 5;

/// The least that the second connection of an attempt may take. One that does not fit into a full pool never opens.
const SECOND_TIMEOUT: Duration = Duration::from_secs(3);

/// A part of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Connecting, logging in, listening to the inbox.
    First,
    /// As [`First`](Self::First), with a server that has answered when it was asked.
    Answered,
    /// The second connection, which proves that notifications arrive. The first took this long, and NOTIFY waits for a lock no longer
    /// than `lock`.
    Second { first: Duration, lock: Duration },
    /// Making the session ready.
    SetUp,
}

/// What an attempt can choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// How many addresses the connection string leads to, as far as it is known.
    pub(super) places: usize,
    pub(super) connect_timeout: Duration,
}

/// Where the credentials come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// They stand in the connection string.
    Fixed,
    /// A closure supplies them anew at every attempt.
    Supplied,
}

impl Credentials {
    /// The longest time between two logins of which the first was rejected. Providers ban addresses for such logins, and who
    /// goes on is banned for longer.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::Fixed => Duration::from_secs(30),
            Self::Supplied => Duration::from_secs(5),
        }
    }

    /// What fails for good need not be tried soon. What is supplied anew may be right the next time.
    fn first_pause(self) -> Duration {
        match self {
            Self::Fixed => self.pause(),
            Self::Supplied => Duration::from_secs(1),
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server rejects the credentials, or does not say a word since it did: it may have banned this address.
    Rejected,
    Other,
}

/// Whether the server rejects the login, by its SQLSTATE: all of class 28 (manual, appendix A).
pub(super) fn is_rejection(code: &str) -> bool {
    code.starts_with("28")
}

/// What came of the logins so far.
#[derive(Debug, Default)]
pub(super) struct Logins {
    /// When the last was rejected, if the server took none since, and refused none for another reason.
    rejected: Option<Instant>,
}

impl Logins {
    pub(super) fn handle_success(&mut self) {
        self.rejected = None;
    }

    /// A login failed, with this SQLSTATE if the server gave one.
    pub(super) fn handle_failure(&mut self, now: Instant, code: Option<&str>) {
        match code.map(is_rejection) {
            Some(true) => self.rejected = Some(now),
            Some(false) => self.rejected = None,
            None => {}
        }
    }

    /// Why a login that fails now does.
    pub(super) fn failure(&self) -> Failure {
        match self.rejected {
            Some(_) => Failure::Rejected,
            None => Failure::Other,
        }
    }

    /// Whether to try one that can be done without.
    pub(super) fn may_try(&self, now: Instant, credentials: Credentials) -> bool {
        let pause = credentials.pause();
        self.rejected
            .is_none_or(|at| now.saturating_duration_since(at) >= pause)
    }
}

/// When to dial again, after attempts that failed and links that broke.
#[derive(Debug)]
pub(crate) struct Redial {
    credentials: Credentials,
    /// The longest back-off.
    longest: Duration,
    /// The last back-off, before its jitter.
    backoff: Duration,
    /// The last back-off after a login that was rejected; zero if the last was not.
    pause: Duration,
    /// When the next attempt is due.
    at: Instant,
    /// How long the last link took to open, and the one before: a machine that was busy may be busy again.
    took: [Duration; 2],
}

impl Redial {
    /// The first attempt is due at once.
    pub(crate) fn new(now: Instant, heartbeat: Duration, credentials: Credentials) -> Self {
        Self {
            credentials,
            longest: LAST_BACKOFF.min(heartbeat).max(FIRST_BACKOFF),
            backoff: Duration::ZERO,
            pause: Duration::ZERO,
            at: now,
            took: [Duration::ZERO; 2],
        }
    }

    /// A link was opened, which took this long.
    pub(crate) fn handle_open(&mut self, took: Duration) {
        self.took = [took, self.took[0]];
    }

    /// Within how much time a link is back: one and a half times what the slower of the last two took, which allows for a
    /// slower one and the hello, and the longest back-off.
    pub(crate) fn back(&self) -> Duration {
        let [last, before] = self.took;
        last.max(before).mul_f64(1.5) + self.longest
    }

    /// How long until the next attempt is due.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// An attempt failed.
    pub(crate) fn handle_failure(&mut self, now: Instant, why: Failure, jitter: &mut Jitter) {
        match why {
            Failure::Rejected => self.back_off_long(now),
            Failure::Other => self.back_off(now, jitter),
        }
    }

    /// Without jitter: who was rejected first is first again.
    fn back_off_long(&mut self, now: Instant) {
        let (first, longest) = (self.credentials.first_pause(), self.credentials.pause());
        self.pause = (self.pause * 2).clamp(first, longest);
        self.at = now + self.pause;
    }

    fn back_off(&mut self, now: Instant, jitter: &mut Jitter) {
        self.pause = Duration::ZERO;
        // The first time at once or almost: not all members should dial in step when their server is back.
        let least = if self.backoff.is_zero() { 0.0 } else { 0.5 };
        self.backoff = (self.backoff * 2).clamp(FIRST_BACKOFF, self.longest);
        self.at = now + jitter.between(least, self.backoff);
    }

    /// A link broke that had lasted for this long.
    pub(crate) fn handle_loss(&mut self, now: Instant, lasted: Duration, jitter: &mut Jitter) {
        if lasted >= STABLE_AFTER {
            self.backoff = Duration::ZERO;
        }
        self.back_off(now, jitter);
    }
}

/// How long a step may take, in an attempt beside this many that hang already, each at a different address. As long as
/// there is another one, that has its turn soon after the time that `connect_timeout` gives to what the system knows of.
pub(super) fn limit(step: Step, hung: u32, choice: Choice) -> Duration {
    match step {
        Step::First => {
            let others = u32::try_from(choice.places.saturating_sub(1)).unwrap_or(u32::MAX);
            match hung.checked_sub(others) {
                None => choice.connect_timeout.mul_f64(1.1),
                Some(hung) => doubled(hung),
            }
        }
        // Logging in can take seconds and be healthy, and then it does so twice; and so can NOTIFY.
        Step::Second { first, lock } => SECOND_TIMEOUT.max(first * 2).max(first + lock),
        Step::Answered | Step::SetUp => doubled(hung),
    }
}

fn doubled(hung: u32) -> Duration {
    STEP_TIMEOUT * 2u32.pow(hung.min(MAX_DOUBLINGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redial(now: Instant, heartbeat: Duration) -> Redial {
        Redial::new(now, heartbeat, Credentials::Fixed)
    }

    /// The waits after failures in a row.
    fn waits(
        redial: &mut Redial,
        now: Instant,
        jitter: &mut Jitter,
        count: usize,
    ) -> Vec<Duration> {
        let wait = |_| {
            redial.handle_failure(now, Failure::Other, jitter);
            redial.wait(now)
        };
        (0..count).map(wait).collect()
    }

    #[test]
    fn the_first_attempt_is_due_at_once() {
        let now = Instant::now();
        assert_eq!(
            redial(now, Duration::from_secs(5)).wait(now),
            Duration::ZERO
        );
    }

    #[test]
    fn failures_back_off_to_less_than_a_second() {
        let now = Instant::now();
        for seed in 0..100 {
            let mut redial = redial(now, Duration::from_secs(5));
            let waits = waits(&mut redial, now, &mut Jitter::new(seed), 20);
            for (at, wait) in waits.iter().enumerate() {
                let whole = (FIRST_BACKOFF * 2u32.pow(at.min(3) as u32)).min(LAST_BACKOFF);
                let least = if at == 0 { Duration::ZERO } else { whole / 2 };
                assert!(
                    (least..=whole).contains(wait),
                    "{wait:?} of {whole:?} at {at}"
                );
            }
        }
    }

    #[test]
    fn no_back_off_is_longer_than_the_heartbeat_interval() {
        let now = Instant::now();
        let mut redial = redial(now, Duration::from_millis(200));
        let waits = waits(&mut redial, now, &mut Jitter::new(1), 20);
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(200)));
    }

    #[test]
    fn a_link_that_lasted_starts_the_back_off_anew() {
        let now = Instant::now();
        for (lasted, longest) in [
            (STABLE_AFTER, FIRST_BACKOFF),
            (STABLE_AFTER - Duration::from_millis(1), LAST_BACKOFF),
        ] {
            let jitter = &mut Jitter::new(1);
            let mut redial = redial(now, Duration::from_secs(5));
            waits(&mut redial, now, jitter, 20);
            redial.handle_loss(now, lasted, jitter);
            assert!(redial.wait(now) <= longest);
            assert_eq!(redial.backoff, longest);
        }
    }

    #[test]
    fn a_link_is_back_soon_after_what_it_took_and_the_back_off() {
        let mut redial = redial(Instant::now(), Duration::from_secs(5));
        redial.handle_open(Duration::from_secs(2));
        assert_eq!(redial.back(), Duration::from_secs(3) + LAST_BACKOFF);
    }

    #[test]
    fn a_slow_link_is_remembered_for_one_more() {
        let mut redial = redial(Instant::now(), Duration::from_secs(5));
        for (seconds, slower) in [(4, 4), (1, 4), (1, 1)] {
            redial.handle_open(Duration::from_secs(seconds));
            let back = Duration::from_secs(slower).mul_f64(1.5) + LAST_BACKOFF;
            assert_eq!(redial.back(), back);
        }
    }

    /// That many addresses, with a `connect_timeout` of five seconds.
    fn choice(places: usize) -> Choice {
        Choice {
            places,
            connect_timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn an_attempt_that_hangs_has_the_next_wait_longer() {
        let seconds = [10, 20, 40, 80, 160, 320, 320, 320];
        for (hung, seconds) in (0..).zip(seconds) {
            for step in [Step::First, Step::Answered, Step::SetUp] {
                let limit = limit(step, hung, choice(1));
                assert_eq!(limit, Duration::from_secs(seconds));
            }
        }
    }

    #[test]
    fn each_further_address_has_its_turn_after_the_connect_timeout() {
        let millis = [5_500, 5_500, 10_000, 20_000, 40_000];
        for (hung, millis) in (0..).zip(millis) {
            let limit = limit(Step::First, hung, choice(3));
            assert_eq!(limit, Duration::from_millis(millis));
        }
    }

    #[test]
    fn an_address_that_has_answered_has_as_long_as_one_alone() {
        assert_eq!(limit(Step::Answered, 0, choice(3)), STEP_TIMEOUT);
    }

    #[test]
    fn the_second_connection_has_twice_the_time_of_the_first() {
        for (first, lock, second) in [
            (10, 1_200, 3_000),
            (10, 4_000, 4_010),
            (1_500, 1_200, 3_000),
            (4_000, 1_200, 8_000),
            (8_000, 4_000, 16_000),
        ] {
            let [first, lock] = [first, lock].map(Duration::from_millis);
            for hung in 0..5 {
                let limit = limit(Step::Second { first, lock }, hung, choice(3));
                assert_eq!(limit, Duration::from_millis(second));
            }
        }
    }

    /// When the logins are made, in seconds since the first, if each fails with what the server says then.
    fn logins(
        credentials: Credentials,
        until: u64,
        says: impl Fn(u64) -> Option<&'static str>,
    ) -> Vec<u64> {
        let start = Instant::now();
        let (mut now, mut jitter) = (start, Jitter::new(1));
        let mut logins = Logins::default();
        let mut redial = Redial::new(now, Duration::from_secs(5), credentials);
        let mut seconds = Vec::new();
        loop {
            // A login takes a moment.
            now += redial.wait(now) + Duration::from_millis(1);
            let second = (now - start).as_secs();
            if second >= until {
                return seconds;
            }
            seconds.push(second);
            logins.handle_failure(now, says(second));
            redial.handle_failure(now, logins.failure(), &mut jitter);
        }
    }

    #[test]
    fn rejected_logins_are_few() {
        let rejected = |_| Some("28P01");
        let fixed = logins(Credentials::Fixed, 600, rejected);
        assert_eq!(fixed.len(), 20);
        assert!(fixed.windows(2).all(|two| two[1] - two[0] <= 30));
        let supplied = logins(Credentials::Supplied, 600, rejected);
        assert_eq!(supplied[..6], [0, 1, 3, 7, 12, 17]);
        assert!(supplied.windows(2).all(|two| two[1] - two[0] <= 5));
    }

    #[test]
    fn an_address_that_may_be_banned_goes_on_waiting() {
        let says = |second| (second == 0).then_some("28000");
        assert_eq!(logins(Credentials::Fixed, 600, says).len(), 20);
    }

    #[test]
    fn a_server_that_says_something_else_is_tried_often() {
        let says = |second| Some(if second < 30 { "28P01" } else { "57P03" });
        let logins = logins(Credentials::Fixed, 40, says);
        assert_eq!(logins[..2], [0, 30]);
        assert!(logins.len() > 10, "{logins:?}");
    }

    #[test]
    fn what_can_be_done_without_is_not_tried_soon_after_a_rejection() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut logins = Logins::default();
        assert!(logins.may_try(start, Credentials::Fixed));
        logins.handle_failure(start, Some("28P01"));
        logins.handle_failure(at(1), None);
        assert!(!logins.may_try(at(29), Credentials::Fixed));
        assert!(logins.may_try(at(30), Credentials::Fixed));
        assert!(!logins.may_try(at(4), Credentials::Supplied));
        assert!(logins.may_try(at(5), Credentials::Supplied));
        logins.handle_success();
        assert!(logins.may_try(at(1), Credentials::Fixed));
    }
}
