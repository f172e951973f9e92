//! Hearing, held to a model of a session: a queue of notifications, with the answers of statements between them.

use proptest::prelude::*;

use super::*;

const HEARTBEAT: Duration = Duration::from_secs(5);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A notification that is still to be heard.
struct Notification {
    arrived: Instant,
    bytes: usize,
    /// When it was sent over the side channel, if it is our own.
    own: Option<Instant>,
}

/// What a driver and a server do.
#[derive(Clone, Debug)]
enum Act {
    Pass(u64),
    Arrive(usize),
    /// Our own announcement over the side channel, sent this many milliseconds ago or at the last arrival, if that is later.
    ArriveOwn(u64),
    /// The driver takes the next notification, or learns that there is none.
    Hear,
    /// A statement that takes this many milliseconds, during which this many notifications arrive; whether it is a NOTIFY, and whether
    /// it leaves a mark.
    Ask(u64, usize, bool, bool),
    /// A NOTIFY that something holds up until it is given up.
    HeldUp,
    Pause,
}

/// The truth about one session, beside what `Hearing` makes of it.
struct Model {
    hearing: Hearing<usize>,
    now: Instant,
    /// What has arrived: the first `received` of it came with the answer to a statement.
    queue: VecDeque<Notification>,
    received: usize,
    heard: u64,
    last_arrival: Instant,
    last_horizon: Instant,
    /// When the last NOTIFY was sent of which an answer, or itself, came back.
    proven: Instant,
    /// A NOTIFY was given up, and none was answered since.
    doubted: bool,
    /// The marks that are out: their numbers, and how many notifications are heard by then.
    marks: VecDeque<(usize, u64)>,
    next_mark: usize,
}

impl Model {
    fn new(announces: bool, flooded: bool) -> Self {
        let now = Instant::now();
        Self {
            hearing: Hearing::new(now, HEARTBEAT, announces, flooded),
            proven: now,
            doubted: false,
            now,
            queue: VecDeque::new(),
            received: 0,
            heard: 0,
            last_arrival: now,
            last_horizon: now,
            marks: VecDeque::new(),
            next_mark: 0,
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Pass(time) => self.now += ms(time),
            Act::Arrive(bytes) => self.arrive(bytes, None),
            Act::ArriveOwn(ago) => {
                let sent =
                    (self.now - ms(ago).min(self.now - self.last_arrival)).max(self.last_arrival);
                self.arrive(10, Some(sent));
            }
            Act::Hear => self.hear(),
            Act::Ask(time, arrive, notifies, marks) => {
                self.ask(ms(time), arrive, notifies, marks);
            }
            Act::HeldUp => {
                self.doubted = true;
                self.hearing.handle_held_up();
            }
            Act::Pause => {
                self.now += ms(2_000);
                self.hearing.handle_pause(self.now);
            }
        }
        self.check();
    }

    fn arrive(&mut self, bytes: usize, own: Option<Instant>) {
        self.last_arrival = self.now;
        self.queue.push_back(Notification {
            arrived: self.now,
            bytes,
            own,
        });
    }

    fn hear(&mut self) {
        let Some(next) = self.queue.pop_front() else {
            return self.hearing.handle_silence(self.now);
        };
        self.received = self.received.saturating_sub(1);
        self.heard += 1;
        if let Some(sent) = next.own {
            self.proven = self.proven.max(sent);
            self.hearing.handle_own(sent);
        }
        self.hearing.handle_notification(self.now, next.bytes);
    }

    fn ask(&mut self, time: Duration, arrive: usize, notifies: bool, marks: bool) {
        let asked = self.now;
        (0..arrive).for_each(|_| self.arrive(100, None));
        self.received = self.queue.len();
        // What comes between the answer and the driver's look at the clock is not received yet.
        self.now += time / 2;
        self.arrive(100, None);
        self.now += time / 2;
        let bytes = self.queue.iter().take(self.received).map(|it| it.bytes);
        let received = Received {
            count: self.received,
            bytes: bytes.sum(),
        };
        if notifies {
            (self.proven, self.doubted) = (self.proven.max(asked), false);
            self.hearing.handle_answer(asked, self.now, received);
        } else {
            self.hearing.handle_statement(asked, self.now, received);
        }
        if marks {
            let due = self.heard + self.received as u64;
            self.marks.push_back((self.next_mark, due));
            self.hearing.mark(self.received, self.next_mark);
            self.next_mark += 1;
        }
    }

    fn check(&mut self) {
        let horizon = self.hearing.horizon;
        assert!(horizon >= self.last_horizon, "it went back");
        assert!(horizon <= self.now, "it is ahead");
        let unheard = self.queue.front().map(|next| next.arrived);
        assert!(
            unheard.is_none_or(|arrived| horizon <= arrived),
            "not all was heard"
        );
        assert_eq!(
            self.hearing
                .poll_horizon()
                .is_some_and(|at| at > self.last_horizon),
            horizon > self.last_horizon
        );
        self.last_horizon = horizon;
        assert_eq!(self.hearing.proven(), self.proven);
        assert!(!self.doubted || self.hearing.is_silent(self.now));
        let is_due = |marks: &VecDeque<(usize, u64)>, heard| {
            marks.front().is_some_and(|(_, at)| *at <= heard)
        };
        while is_due(&self.marks, self.heard) {
            let due = self.marks.pop_front().map(|(number, _)| number);
            assert_eq!(self.hearing.poll_mark(), due, "each in its turn, at once");
        }
        assert_eq!(self.hearing.poll_mark(), None, "before its turn");
        assert_eq!(self.hearing.awaits_mark(), !self.marks.is_empty());
        for aside in [Aside::Ready, Aside::Busy] {
            for due in [None, Some(self.now), self.now.checked_sub(HEARTBEAT * 9)] {
                let speaks = self.hearing.speak(self.now, due, aside) == Speak::OnLink;
                assert!(!(speaks && self.hearing.is_flooded(self.now)), "in a flood");
            }
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = prop::sample::select(vec![0, 100, 7_999, FLOOD / 3, FLOOD + 1]);
    let time = || prop::sample::select(vec![0, 1, 40, 99, 400, 1_000, 6_000]);
    prop_oneof![
        3 => time().prop_map(Act::Pass),
        4 => bytes.prop_map(Act::Arrive),
        1 => time().prop_map(Act::ArriveOwn),
        8 => Just(Act::Hear),
        3 => (time(), 0..5usize, any::<bool>(), any::<bool>())
            .prop_map(|(time, arrive, notifies, marks)| Act::Ask(time, arrive, notifies, marks)),
        1 => Just(Act::HeldUp),
        1 => Just(Act::Pause),
    ]
}

proptest! {
    #[test]
    fn it_never_claims_more_than_was_heard(
        announces: bool,
        flooded: bool,
        acts in prop::collection::vec(act(), 1..200),
    ) {
        let mut model = Model::new(announces, flooded);
        for act in &acts {
            model.act(act);
        }
        // In the end all is heard, and each mark has come back.
        while !model.queue.is_empty() || model.hearing.awaits_mark() {
            model.act(&Act::Hear);
        }
        prop_assert!(model.marks.is_empty());
        model.act(&Act::Hear);
        prop_assert_eq!(model.hearing.horizon, model.now);
    }

    #[test]
    fn a_flood_ends_a_second_after_its_last_excess(
        burst in prop::collection::vec((0..20u64, 1_000..8_000usize), 80..200),
        trickle in prop::collection::vec((1..400u64, 0..8_000usize), 0..40),
    ) {
        let start = Instant::now();
        let mut hearing = Hearing::<()>::new(start, HEARTBEAT, true, false);
        let (mut now, mut last_excess, mut bytes, mut since) = (start, None, 0, start);
        for (gap, size) in burst {
            now += ms(gap);
            if since + FLOOD_COOLDOWN <= now {
                (bytes, since) = (0, now);
            }
            bytes += size;
            if bytes > FLOOD {
                last_excess = Some(now);
            }
            hearing.handle_notification(now, size);
        }
        hearing.handle_silence(now);
        let over = last_excess.map_or(start, |at| at + FLOOD_COOLDOWN);
        for (gap, size) in trickle {
            prop_assert_eq!(hearing.is_flooded(now), now < over);
            now += ms(gap);
            hearing.handle_notification(now, size);
            hearing.handle_silence(now);
        }
        prop_assert_eq!(hearing.is_flooded(now), now < over);
    }

    #[test]
    fn what_comes_with_an_answer_or_during_the_next_is_a_flood(
        took in 0..3_000u64,
        with_it in 0..2 * FLOOD,
        later in prop::collection::vec(
            (prop_oneof![8 => 0..300u64, 1 => 1_000..5_000u64], 0..FLOOD / 4),
            0..40,
        ),
    ) {
        let start = Instant::now();
        let mut hearing = Hearing::<()>::new(start, HEARTBEAT, true, false);
        let answered = start + ms(took);
        let received = Received { count: 1, bytes: with_it };
        hearing.handle_statement(start, answered, received);
        let mut over = if with_it > FLOOD { answered + FLOOD_COOLDOWN } else { start };
        let (mut now, mut bytes, mut since) = (answered, 0, start);
        for (gap, size) in later {
            prop_assert_eq!(hearing.is_flooded(now), now < over);
            now += ms(gap);
            if since + FLOOD_COOLDOWN <= now {
                (bytes, since) = (0, now);
            }
            bytes += size;
            // As much as in this second would come while the next statement is under way.
            let next = if now < answered + TELLING { took.min(1_000) } else { 0 };
            if bytes as u64 * next > FLOOD as u64 * 1_000 {
                over = now + FLOOD_COOLDOWN;
            }
            hearing.handle_notification(now, size);
            hearing.handle_silence(now);
        }
        prop_assert_eq!(hearing.is_flooded(now), now < over);
    }
}

/// That many notifications, short ones.
fn received(count: usize) -> Received {
    Received {
        count,
        bytes: count * 10,
    }
}

/// A session that has just been opened.
fn opened() -> (Hearing<()>, Instant) {
    let now = Instant::now();
    (Hearing::new(now, HEARTBEAT, true, false), now)
}

#[test]
fn a_session_after_a_flood_begins_in_one() {
    let now = Instant::now();
    let hearing = Hearing::<()>::new(now, HEARTBEAT, true, true);
    assert!(hearing.is_flooded(now));
    assert!(!hearing.is_flooded(now + FLOOD_COOLDOWN));
}

#[test]
fn silence_reaches_all_that_is_out() {
    let (mut hearing, now) = opened();
    hearing.mark(5, ());
    assert_eq!(hearing.poll_mark(), None);
    hearing.handle_silence(now);
    assert_eq!(hearing.poll_mark(), Some(()));
    assert_eq!(hearing.poll_mark(), None);
}

#[test]
fn in_a_flood_the_link_does_what_the_side_channel_cannot() {
    let (mut hearing, now) = opened();
    hearing.handle_notification(now, FLOOD + 1);
    let later = now + SLICE;
    for (aside, speaks) in [
        (Aside::Ready, Speak::Aside),
        (Aside::Busy, Speak::No),
        (Aside::Failed, Speak::OnLink),
    ] {
        assert_eq!(hearing.speak(later, Some(now), aside), speaks);
    }
    assert_eq!(hearing.speak(now, None, Aside::Ready), Speak::No);
}

#[test]
fn a_short_backlog_is_heard_before_anything_is_said() {
    let (mut hearing, now) = opened();
    assert_eq!(hearing.speak(now, Some(now), Aside::Ready), Speak::OnLink);
    hearing.handle_notification(now, 10);
    assert_eq!(hearing.speak(now, Some(now), Aside::Ready), Speak::No);
    assert_eq!(
        hearing.speak(now + SLICE, Some(now), Aside::Ready),
        Speak::OnLink
    );
    hearing.handle_silence(now);
    assert_eq!(hearing.speak(now, Some(now), Aside::Ready), Speak::OnLink);
}

#[test]
fn what_came_with_an_answer_is_heard_before_more_is_said() {
    let (mut hearing, due) = opened();
    let now = due + ms(300);
    hearing.handle_answer(due, now, received(5));
    for (heard, later) in [(1, ms(0)), (2, SLICE - ms(1))] {
        hearing.handle_notification(now + later, 10);
        let speaks = hearing.speak(now + later, Some(due), Aside::Ready);
        assert_eq!(speaks, Speak::No, "{heard} of 5 heard");
    }
    let later = now + SLICE;
    assert_eq!(
        hearing.speak(later, Some(due), Aside::Ready),
        Speak::OnLink,
        "it takes too long"
    );
    hearing.handle_silence(now);
    assert_eq!(hearing.speak(now, Some(due), Aside::Ready), Speak::OnLink);
}

#[test]
fn after_a_pause_what_waits_is_heard_first() {
    let (mut hearing, now) = opened();
    hearing.handle_pause(now);
    let overdue = now.checked_sub(HEARTBEAT);
    assert_eq!(hearing.speak(now, overdue, Aside::Ready), Speak::No);
    assert_eq!(
        hearing.speak(now + SLICE, overdue, Aside::Ready),
        Speak::OnLink
    );
    hearing.handle_pause(now);
    hearing.handle_silence(now);
    assert_eq!(hearing.speak(now, overdue, Aside::Ready), Speak::OnLink);
}

#[test]
fn a_silent_link_is_asked_for_a_sign_of_life() {
    let (mut hearing, now) = opened();
    let late = now + HEARTBEAT;
    assert!(hearing.is_silent(late));
    assert_eq!(hearing.until(now, None, Aside::Ready, HEARTBEAT * 2), late);
    assert_eq!(hearing.speak(late, None, Aside::Ready), Speak::OnLink);
    hearing.handle_notification(now + ms(1), 10);
    hearing.handle_silence(now + ms(1));
    assert!(!hearing.is_silent(late));
    // What is heard where there is always more proves nothing.
    hearing.handle_notification(now + ms(2), 10);
    assert!(hearing.is_silent(late));
    hearing.handle_answer(now + ms(3), now + ms(4), received(0));
    assert!(!hearing.is_silent(late));
}

#[test]
fn after_a_question_that_was_held_up_the_next_must_be_answered() {
    let (mut hearing, now) = opened();
    hearing.handle_held_up();
    hearing.handle_notification(now + ms(1), 10);
    hearing.handle_silence(now + ms(1));
    assert!(hearing.is_silent(now + ms(1)));
    assert_eq!(
        hearing.speak(now + ms(1), None, Aside::Ready),
        Speak::OnLink
    );
    hearing.handle_answer(now + ms(2), now + ms(3), received(0));
    assert!(!hearing.is_silent(now + ms(3)));
}

#[test]
fn much_that_is_heard_in_time_is_no_flood_and_loud() {
    let (mut hearing, start) = opened();
    assert_eq!(hearing.loud_until(), None);
    const PIECE: usize = FLOOD / 2;
    let mut hear = |millis: u64, pieces: usize| {
        let now = start + ms(millis);
        for _ in 0..pieces {
            hearing.handle_notification(now, PIECE);
            hearing.handle_silence(now);
        }
        assert!(!hearing.is_flooded(now));
        let until = hearing.loud_until().unwrap_or(now);
        until.saturating_duration_since(now)
    };
    // As much in two seconds is not.
    assert_eq!(hear(0, LOUD / PIECE), ms(0));
    assert_eq!(hear(1_000, LOUD / PIECE), ms(0));
    assert_eq!(hear(1_500, 1), ms(1_000));
    assert_eq!(hear(2_000, 1), ms(500));
}

#[test]
fn what_comes_with_an_answer_is_a_flood_if_it_is_as_much() {
    for (bytes, flooded) in [(FLOOD, false), (FLOOD + 1, true)] {
        let (mut hearing, now) = opened();
        hearing.handle_answer(now, now, Received { count: 40, bytes });
        assert_eq!(hearing.is_flooded(now), flooded);
    }
}

#[test]
fn as_much_during_a_statement_is_a_flood() {
    for (took, flooded) in [
        (ms(1), false),
        (ms(249), false),
        (ms(251), true),
        (ms(9_000), true),
    ] {
        let (mut hearing, start) = opened();
        let now = start + took;
        hearing.handle_answer(start, now, received(0));
        // As much as is loud, in pieces, and heard in time.
        for _ in 0..16 {
            hearing.handle_notification(now, LOUD / 16);
            hearing.handle_silence(now);
        }
        assert_eq!(hearing.is_flooded(now), flooded, "{took:?}");
    }
}

#[test]
fn one_slow_statement_is_no_reason_to_ask_nothing_for_long() {
    let (mut hearing, start) = opened();
    let asked = start + ms(2_000);
    hearing.handle_answer(start, asked, received(0));
    let mut flooded = Vec::new();
    for millis in (0..15_000).step_by(100) {
        let now = asked + ms(millis);
        // Less than is loud, and heard in time.
        hearing.handle_notification(now, LOUD / 30);
        hearing.handle_silence(now);
        flooded.push(hearing.is_flooded(now));
    }
    assert!(flooded[20..100].iter().all(|&flooded| flooded));
    assert!(!flooded[120..].contains(&true));
}

#[test]
fn what_an_observer_hears_does_not_prove_its_link() {
    let now = Instant::now();
    let mut hearing = Hearing::<()>::new(now, HEARTBEAT, false, false);
    hearing.handle_notification(now + ms(1), 10);
    hearing.handle_silence(now + ms(1));
    assert!(hearing.is_silent(now + HEARTBEAT));
}

#[test]
fn it_waits_no_longer_than_for_what_is_due() {
    let (hearing, now) = opened();
    let due = now + ms(40);
    assert_eq!(hearing.until(now, Some(due), Aside::Ready, SLICE), due);
    assert_eq!(hearing.until(now, None, Aside::Ready, SLICE), now + SLICE);
}

#[test]
fn a_mark_that_came_back_is_not_kept_waiting() {
    let now = Instant::now();
    let mut hearing = Hearing::new(now, HEARTBEAT, true, false);
    hearing.mark(1, 7);
    assert_eq!(hearing.until(now, None, Aside::Ready, SLICE), now + SLICE);
    hearing.handle_notification(now, 10);
    assert_eq!(hearing.until(now, None, Aside::Ready, SLICE), now);
    assert_eq!(hearing.poll_mark(), Some(7));
    assert_eq!(hearing.until(now, None, Aside::Ready, SLICE), now + SLICE);
    hearing.mark(0, 8);
    assert_eq!(hearing.until(now, None, Aside::Ready, SLICE), now);
}

#[test]
fn what_is_overdue_takes_no_silence_of_long_ago_for_one_of_now() {
    let (mut hearing, now) = opened();
    let later = now + ms(500);
    hearing.handle_answer(later, later, received(0));
    let until = hearing.until(later, Some(now + ms(100)), Aside::Ready, SLICE);
    assert_eq!(until, later);
    hearing.handle_silence(until);
    assert_eq!(hearing.poll_horizon(), Some(later));
}

#[test]
fn our_own_announcement_aside_proves_the_link_and_all_before_it() {
    let (mut hearing, now) = opened();
    let sent = now + ms(7);
    hearing.handle_own(sent);
    assert_eq!(hearing.proven(), sent);
    assert_eq!(hearing.poll_horizon(), Some(sent));
    // One that comes late proves nothing more.
    hearing.handle_own(now);
    assert_eq!((hearing.proven(), hearing.poll_horizon()), (sent, None));
}

#[test]
fn what_waits_for_the_side_channel_ends_no_wait() {
    let (mut hearing, now) = opened();
    hearing.handle_notification(now, FLOOD + 1);
    for (aside, until) in [
        (Aside::Ready, now),
        (Aside::Busy, now + SLICE),
        (Aside::Failed, now),
    ] {
        assert_eq!(hearing.until(now, Some(now), aside, SLICE), until);
    }
    let calm = now + FLOOD_COOLDOWN;
    assert_eq!(hearing.until(calm, Some(calm), Aside::Busy, SLICE), calm);
}

#[test]
fn one_barrier_is_out_at_a_time() {
    let (mut hearing, now) = opened();
    assert_eq!(hearing.poll_horizon(), Some(now));
    hearing.handle_answer(now + ms(1), now + ms(2), received(2));
    hearing.handle_answer(now + ms(3), now + ms(4), received(3));
    hearing.handle_notification(now + ms(5), 10);
    assert_eq!(hearing.poll_horizon(), None);
    hearing.handle_notification(now + ms(5), 10);
    assert_eq!(hearing.poll_horizon(), Some(now + ms(1)));
    hearing.handle_notification(now + ms(6), 10);
    assert_eq!(hearing.poll_horizon(), None, "the second was not put out");
}

#[test]
fn just_what_may_wait_is_no_flood() {
    let (mut hearing, now) = opened();
    hearing.handle_notification(now, FLOOD);
    assert!(!hearing.is_flooded(now));
    hearing.handle_notification(now, 1);
    assert!(hearing.is_flooded(now));
}

#[test]
fn just_what_may_come_in_a_second_is_not_loud() {
    let (mut hearing, now) = opened();
    let piece = FLOOD / 4;
    for _ in 0..16 {
        hearing.handle_notification(now, piece);
        hearing.handle_silence(now);
    }
    assert_eq!(hearing.loud_until(), None);
    hearing.handle_notification(now, 1);
    assert_eq!(hearing.loud_until(), Some(now + FLOOD_COOLDOWN));
}
