//! What the view shows: news go in, rows come out. Pure: time is a parameter, there is no clock and no terminal.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Zoned;
use pg_peers::{PeerInfo, Reason};

use crate::news::{Identity, Member, News};
use crate::text;

/// A peer that left stays visible for this long, unless more than this many have left since.
const DEPARTED_SHOWN: Duration = Duration::from_secs(60);
const DEPARTED: usize = 1_000;

/// The most entries of the log that are kept.
const LOG: usize = 1_000;

/// A peer that was not heard for this many of its intervals is late: it missed an announcement.
const LATE: f64 = 1.5;

/// After so long on a channel where nobody is, it is said how to find another.
pub(crate) const ALONE: Duration = Duration::from_secs(15);

/// What a cell shows that is not known.
const UNKNOWN: &str = "-";

/// The two ways to tell the time, read at once.
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) wall: Zoned,
}

pub(crate) struct Model {
    /// Those who are there, and those who left lately.
    rows: BTreeMap<Identity, Row>,
    /// In the order of their departure; those who came back since have other rows by now.
    departed: VecDeque<(Instant, Identity)>,
    log: VecDeque<Entry>,
    link: Link,
    /// When it was last asked who was heard when.
    looked: Instant,
    /// When somebody last left.
    emptied: Instant,
}

struct Row {
    tags: String,
    standing: Standing,
    seen: Option<Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Here,
    Gone { reason: Reason, at: Instant },
}

/// What is known of a peer besides what it announces.
pub(crate) struct Seen {
    pub(crate) heard: Instant,
    pub(crate) interval: Duration,
    pub(crate) backend: Option<i32>,
    pub(crate) back: Option<Duration>,
}

/// This program's link to Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Connecting,
    Online { since: Instant },
    Offline { since: Instant, why: String },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those who are there and not late.
    pub(crate) here: usize,
    pub(crate) late: usize,
    /// Those who left and are still shown.
    pub(crate) departed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Here,
    Late,
    Gone(Reason),
}

/// What the operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    NobodyIsHere,
    /// They take what this program says for the name of a node.
    BareNamesAreHere,
}

/// One row of the table, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cells<'a> {
    pub(crate) name: &'a str,
    pub(crate) state: State,
    /// Whether it announces only its name.
    pub(crate) bare: bool,
    pub(crate) heard: String,
    pub(crate) interval: String,
    pub(crate) back: String,
    pub(crate) started: String,
    pub(crate) backend: String,
    pub(crate) tags: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) time: String,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Join,
    Heal,
    Update,
    Leave(Reason),
    Online,
    Offline,
}

impl Model {
    pub(crate) fn new(now: &Now) -> Self {
        Self {
            rows: BTreeMap::new(),
            departed: VecDeque::new(),
            log: VecDeque::new(),
            link: Link::Connecting,
            looked: now.instant,
            emptied: now.instant,
        }
    }

    pub(crate) fn hear(&mut self, now: &Now, news: News) {
        let (kind, text) = match news {
            News::Join(member) => (Kind::Join, self.put(member)),
            News::Heal(member) => (Kind::Heal, self.put(member)),
            News::Update(member) => (Kind::Update, self.put(member)),
            News::Leave(member, reason) => (Kind::Leave(reason), self.depart(now, &member, reason)),
            News::Online => {
                self.link = Link::Online { since: now.instant };
                (Kind::Online, String::new())
            }
            News::Offline(why) => {
                let why = text::plain(&why);
                self.link = Link::Offline {
                    since: now.instant,
                    why: why.clone(),
                };
                (Kind::Offline, why)
            }
        };
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back(Entry {
            time: now.wall.strftime("%H:%M:%S").to_string(),
            kind,
            text,
        });
    }

    /// Takes up when peers were heard; of one whose news have not come yet it is none of our business.
    pub(crate) fn see(&mut self, now: &Now, infos: impl IntoIterator<Item = (Identity, Seen)>) {
        self.looked = now.instant;
        for (identity, seen) in infos {
            if let Some(row) = self.rows.get_mut(&identity) {
                if row.standing == Standing::Here {
                    row.seen = Some(seen);
                }
            }
        }
    }

    /// The newest reason for which there is no link.
    pub(crate) fn still_offline(&mut self, reason: &str) {
        if let Link::Offline { why, .. } = &mut self.link {
            *why = text::plain(reason);
        }
    }

    /// Forgets those who left long ago, or before many others.
    pub(crate) fn tidy(&mut self, now: &Now) {
        while let Some((at, identity)) = self.departed.front() {
            let shown = now.instant.saturating_duration_since(*at) < DEPARTED_SHOWN;
            if shown && self.departed.len() <= DEPARTED {
                return;
            }
            if self.rows.get(identity).and_then(Row::left) == Some(*at) {
                self.rows.remove(identity);
            }
            self.departed.pop_front();
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for row in self.rows.values() {
            match self.state(row) {
                State::Here => counts.here += 1,
                State::Late => counts.late += 1,
                State::Gone(_) => counts.departed += 1,
            }
        }
        counts
    }

    /// `silent`: this program says nothing on the channel.
    pub(crate) fn advice(&self, now: &Now, silent: bool) -> Option<Advice> {
        let Link::Online { since } = self.link else {
            return None;
        };
        let mut here = self
            .rows
            .iter()
            .filter(|(_, row)| row.standing == Standing::Here);
        let is_bare = |(identity, _): (&Identity, _)| identity.incarnation.is_none();
        match here.next() {
            None => {
                let alone = now
                    .instant
                    .saturating_duration_since(since.max(self.emptied));
                (alone >= ALONE).then_some(Advice::NobodyIsHere)
            }
            Some(first) => {
                let any_bare = is_bare(first) || here.any(is_bare);
                (any_bare && !silent).then_some(Advice::BareNamesAreHere)
            }
        }
    }

    /// By name, and the starts of one name from the oldest to the newest.
    pub(crate) fn rows<'a>(&'a self, now: &'a Now) -> impl ExactSizeIterator<Item = Cells<'a>> {
        self.rows
            .iter()
            .map(|(identity, row)| self.cells(now, identity, row))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(|identity| &*identity.name)
    }

    /// From the oldest to the newest.
    pub(crate) fn log(&self) -> &VecDeque<Entry> {
        &self.log
    }

    /// Returns how the log tells of it.
    fn put(&mut self, Member { identity, tags }: Member) -> String {
        let tags: Vec<String> = tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let tags = tags.join(" ");
        let text = format!("{} {tags}", identity.name);
        let row = self.rows.entry(identity).or_insert_with(|| Row {
            tags: String::new(),
            standing: Standing::Here,
            seen: None,
        });
        row.tags = tags;
        if row.standing != Standing::Here {
            // What was known is from before it left.
            row.seen = None;
            row.standing = Standing::Here;
        }
        text.trim_end().to_owned()
    }

    fn depart(&mut self, now: &Now, member: &Member, reason: Reason) -> String {
        self.emptied = now.instant;
        if let Some(row) = self.rows.get_mut(&member.identity) {
            row.standing = Standing::Gone {
                reason,
                at: now.instant,
            };
            let identity = member.identity.clone();
            self.departed.push_back((now.instant, identity));
        }
        format!("{}: {reason}", member.identity.name)
    }

    fn state(&self, row: &Row) -> State {
        if let Standing::Gone { reason, .. } = row.standing {
            return State::Gone(reason);
        }
        let is_late = |seen: &Seen| seen.age(self.looked) > seen.interval.mul_f64(LATE);
        let late = row.seen.as_ref().is_some_and(is_late);
        // An observer that cannot hear cannot tell.
        match self.link {
            Link::Online { .. } if late => State::Late,
            _ => State::Here,
        }
    }

    fn cells<'a>(&self, now: &Now, identity: &'a Identity, row: &'a Row) -> Cells<'a> {
        let seen = row.seen.as_ref();
        let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
        // A peer that is gone will not be heard: since when is what counts then.
        let heard = match row.standing {
            // By what was seen then, since what was heard later is not known yet.
            Standing::Here => seen.map(|seen| seen.age(self.looked)),
            Standing::Gone { .. } => seen.map(|seen| seen.age(now.instant)),
        };
        let start = |incarnation| text::start(incarnation, &now.wall);
        Cells {
            name: &identity.name,
            state: self.state(row),
            bare: identity.incarnation.is_none(),
            heard: known(heard.map(text::age)),
            interval: known(seen.map(|seen| text::span(seen.interval))),
            back: known(seen.and_then(|seen| seen.back).map(text::age)),
            started: known(identity.incarnation.and_then(start)),
            backend: known(
                seen.and_then(|seen| seen.backend)
                    .map(|pid| pid.to_string()),
            ),
            tags: &row.tags,
        }
    }
}

impl Row {
    fn left(&self) -> Option<Instant> {
        match self.standing {
            Standing::Here => None,
            Standing::Gone { at, .. } => Some(at),
        }
    }
}

impl Seen {
    /// The peer, and what is known of it.
    pub(crate) fn of(info: &PeerInfo) -> (Identity, Self) {
        let seen = Self {
            heard: info.heard,
            interval: info.interval,
            backend: info.backend,
            back: info.back,
        };
        (Identity::of(&info.peer), seen)
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;

    /// A view, and the time that it is told.
    struct View {
        model: Model,
        start: Instant,
        now: Now,
    }

    impl View {
        fn new() -> Self {
            let start = Instant::now();
            let now = at(start, Duration::ZERO);
            let mut view = Self {
                model: Model::new(&now),
                start,
                now,
            };
            view.hear(News::Online);
            view
        }

        fn wait(&mut self, seconds: u64) {
            let passed = self.now.instant - self.start + Duration::from_secs(seconds);
            self.now = at(self.start, passed);
            self.model.tidy(&self.now);
        }

        fn hear(&mut self, news: News) {
            self.model.hear(&self.now, news);
        }

        /// Looks, and finds that all these were heard `age` seconds ago, at an interval of 5 s.
        fn see(&mut self, members: &[&Member], age: u64) {
            let heard = self.now.instant - Duration::from_secs(age);
            let seen = members.iter().map(|member| {
                let full = member.identity.incarnation.is_some();
                let seen = Seen {
                    heard,
                    interval: Duration::from_secs(5),
                    backend: full.then_some(4711),
                    back: full.then_some(Duration::from_millis(1_250)),
                };
                (member.identity.clone(), seen)
            });
            self.model.see(&self.now, seen);
        }

        /// The rows, a line each.
        fn rows(&self) -> Vec<String> {
            let line = |row: Cells<'_>| {
                format!(
                    "{} {:?} heard {} every {} back in {} since {} at {} {}",
                    row.name,
                    row.state,
                    row.heard,
                    row.interval,
                    row.back,
                    row.started,
                    row.backend,
                    row.tags
                )
            };
            let rows = self.model.rows(&self.now);
            rows.map(|row| line(row).trim_end().to_owned()).collect()
        }

        fn states(&self) -> Vec<(&str, State)> {
            let rows = self.model.rows(&self.now);
            rows.map(|row| (row.name, row.state)).collect()
        }
    }

    fn at(start: Instant, passed: Duration) -> Now {
        let noon = Timestamp::from_second(1_799_971_200 + 43_200).expect("a time");
        Now {
            instant: start + passed,
            wall: (noon + passed).to_zoned(TimeZone::UTC),
        }
    }

    /// Started this many seconds before noon.
    fn member(name: &str, before: u64) -> Member {
        Member {
            identity: Identity {
                name: name.to_owned(),
                incarnation: Some((1_799_971_200 + 43_200 - before) * 1_000_000),
            },
            tags: Vec::new(),
        }
    }

    fn bare(name: &str) -> Member {
        Member {
            identity: Identity {
                name: name.to_owned(),
                incarnation: None,
            },
            tags: Vec::new(),
        }
    }

    #[test]
    fn a_peer_is_a_row_with_all_that_is_known_of_it() {
        let mut view = View::new();
        let mut a = member("a", 60);
        a.tags = vec![
            ("role".to_owned(), "leader".to_owned()),
            ("zone".to_owned(), "eu-1".to_owned()),
        ];
        let elixir = bare("app@10.0.0.1");
        view.hear(News::Join(elixir.clone()));
        view.hear(News::Join(a.clone()));
        let unseen = "a Here heard - every - back in - since 11:59:00 at - role=leader zone=eu-1";
        assert_eq!(view.rows()[0], unseen);
        view.see(&[&a, &elixir], 2);
        assert_eq!(
            view.rows(),
            [
                "a Here heard 2.0 s every 5 s back in 1.2 s since 11:59:00 at 4711 role=leader zone=eu-1",
                "app@10.0.0.1 Here heard 2.0 s every 5 s back in - since - at -",
            ]
        );
        a.tags.clear();
        view.hear(News::Update(a));
        assert_eq!(
            view.rows()[0],
            "a Here heard 2.0 s every 5 s back in 1.2 s since 11:59:00 at 4711"
        );
    }

    #[test]
    fn a_member_that_misses_an_announcement_is_late_until_heard_again() {
        let mut view = View::new();
        let (a, elixir) = (member("a", 0), bare("b@h"));
        view.hear(News::Join(a.clone()));
        view.hear(News::Join(elixir.clone()));
        let both = |state| [("a", state), ("b@h", state)];
        view.wait(10);
        view.see(&[&a, &elixir], 7);
        assert_eq!(view.states(), both(State::Here));
        view.see(&[&a, &elixir], 8);
        assert_eq!(view.states(), both(State::Late));
        let counts = Counts {
            here: 0,
            late: 2,
            departed: 0,
        };
        assert_eq!(view.model.counts(), counts);
        view.see(&[&a, &elixir], 0);
        assert_eq!(view.states(), both(State::Here));
        // Until it is looked again nothing is known.
        view.wait(60);
        assert_eq!(view.states(), both(State::Here));
    }

    #[test]
    fn nobody_is_late_while_the_link_is_down() {
        let mut view = View::new();
        let a = member("a", 0);
        view.hear(News::Join(a.clone()));
        view.hear(News::Offline("the server\u{1b}[2J is down".to_owned()));
        view.wait(30);
        view.see(&[&a], 30);
        assert_eq!(view.states(), [("a", State::Here)]);
        let Link::Offline { since, why } = view.model.link() else {
            panic!("{:?}", view.model.link());
        };
        assert_eq!(*since, view.start);
        assert_eq!(why, "the server\u{fffd}[2J is down");
        view.model.still_offline("too many connections");
        assert!(
            matches!(view.model.link(), Link::Offline { why, .. } if why == "too many connections")
        );
        view.hear(News::Online);
        assert_eq!(view.states(), [("a", State::Late)]);
    }

    #[test]
    fn a_member_that_left_stays_for_a_minute_with_the_reason() {
        let mut view = View::new();
        let reasons = [
            Reason::Goodbye,
            Reason::Expired,
            Reason::SessionGone,
            Reason::Replaced,
        ];
        let names = ["a", "b", "c", "d"];
        for (name, reason) in names.into_iter().zip(reasons) {
            let peer = member(name, 0);
            view.hear(News::Join(peer.clone()));
            view.see(&[&peer], 0);
            view.hear(News::Leave(peer, reason));
        }
        view.wait(59);
        let gone: Vec<_> = names.into_iter().zip(reasons.map(State::Gone)).collect();
        assert_eq!(view.states(), gone);
        assert!(view.rows()[0].contains("heard 59 s"), "{:?}", view.rows());
        assert_eq!(view.model.counts().departed, 4);
        view.wait(1);
        assert_eq!(view.states(), []);
        assert_eq!(view.model.counts(), Counts::default());
    }

    #[test]
    fn an_empty_channel_is_told_from_one_that_has_not_answered() {
        let mut view = View::new();
        view.wait(14);
        assert_eq!(view.model.advice(&view.now, false), None);
        view.wait(1);
        let nobody = Some(Advice::NobodyIsHere);
        assert_eq!(view.model.advice(&view.now, false), nobody);
        let a = member("a", 0);
        view.hear(News::Join(a.clone()));
        assert_eq!(view.model.advice(&view.now, false), None);
        view.wait(60);
        view.hear(News::Leave(a, Reason::Goodbye));
        assert_eq!(view.model.advice(&view.now, false), None);
        view.wait(15);
        assert_eq!(view.model.advice(&view.now, false), nobody);
        view.hear(News::Offline("down".to_owned()));
        assert_eq!(view.model.advice(&view.now, false), None);
    }

    #[test]
    fn bare_names_are_marked_and_said_where_this_program_is_not_silent() {
        let mut view = View::new();
        view.hear(News::Join(member("a", 0)));
        assert_eq!(view.model.advice(&view.now, false), None);
        view.hear(News::Join(bare("b@h")));
        let bare: Vec<bool> = view.model.rows(&view.now).map(|row| row.bare).collect();
        assert_eq!(bare, [false, true]);
        let there = Some(Advice::BareNamesAreHere);
        assert_eq!(view.model.advice(&view.now, false), there);
        assert_eq!(view.model.advice(&view.now, true), None);
    }

    #[test]
    fn a_restart_is_two_rows_and_a_return_is_one() {
        let mut view = View::new();
        let (old, new) = (member("a", 60), member("a", 0));
        view.hear(News::Join(old.clone()));
        view.hear(News::Leave(old, Reason::Replaced));
        view.hear(News::Join(new.clone()));
        let gone = ("a", State::Gone(Reason::Replaced));
        assert_eq!(view.states(), [gone, ("a", State::Here)]);
        view.hear(News::Leave(new.clone(), Reason::Expired));
        view.hear(News::Heal(new));
        assert_eq!(view.states(), [gone, ("a", State::Here)]);
    }

    #[test]
    fn a_name_that_flaps_leaves_a_bounded_trace() {
        let mut view = View::new();
        for before in 0..10_000 {
            let peer = member("a", before);
            view.hear(News::Join(peer.clone()));
            view.hear(News::Leave(peer, Reason::Replaced));
        }
        view.wait(0);
        assert_eq!(view.model.counts().departed, DEPARTED);
        assert_eq!(view.model.departed.len(), DEPARTED);
        assert_eq!(view.model.log().len(), LOG);
    }

    #[test]
    fn the_log_tells_what_happened_when() {
        let mut view = View::new();
        let mut a = member("a", 0);
        a.tags.push(("zone".to_owned(), "eu-1".to_owned()));
        view.hear(News::Join(a.clone()));
        view.wait(61);
        view.hear(News::Leave(a, Reason::SessionGone));
        let log = view.model.log().iter();
        let lines: Vec<String> = log
            .map(|entry| format!("{} {:?} {}", entry.time, entry.kind, entry.text))
            .collect();
        assert_eq!(
            lines,
            [
                "12:00:00 Online ",
                "12:00:00 Join a zone=eu-1",
                "12:01:01 Leave(SessionGone) a: lost its session with Postgres",
            ]
        );
    }
}
