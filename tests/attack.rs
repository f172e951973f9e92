//! A hostile session on the same server, which hears everything and says what it likes: to members without a secret, who
//! must survive it, and to members with one, whose roster never moves.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_peers::{Cluster, Config, Event};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use support::*;

/// What must not reach a terminal: it acts there, or changes how what stands around it is read.
fn acts_on_a_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[track_caller]
fn assert_can_be_shown(text: &str) {
    let bad = text.chars().find(|&c| acts_on_a_terminal(c));
    assert_eq!(bad, None, "in {text:?}");
}

/// Takes all events that wait; everything that a program may print is fit to be printed.
#[track_caller]
fn assert_all_can_be_shown(cluster: &Cluster) -> Vec<Event> {
    let events: Vec<Event> = cluster.events().try_iter().collect();
    for event in &events {
        assert_can_be_shown(&format!("{event:?} {}", words(event)));
        match event {
            Event::Offline(error) => assert_can_be_shown(&error.to_string()),
            Event::Leave(_, reason) => assert_can_be_shown(&reason.to_string()),
            _ => {}
        }
    }
    for peer in cluster.peers() {
        assert_can_be_shown(&format!("{peer:?} {}", peer.name()));
        peer.tags()
            .for_each(|(key, value)| assert_can_be_shown(&format!("{key} {value}")));
    }
    assert_can_be_shown(&format!("{cluster:?} {:?}", cluster.status()));
    logged().iter().for_each(|line| assert_can_be_shown(line));
    events
}

/// It still hears and is heard: by a newcomer, whatever it has been told of others.
#[track_caller]
fn assert_is_alive(cluster: &Cluster, server: &Server, newcomer: Config) {
    let newcomer = newcomer.join(&server.params()).expect("valid");
    let name = newcomer.name().expect("a member").to_owned();
    eventually("they see each other", || {
        let known = names(cluster).contains(&name);
        known
            && names(&newcomer)
                .iter()
                .any(|known| Some(&**known) == cluster.name())
    });
    let start = Instant::now();
    newcomer.leave().expect("a goodbye");
    assert!(start.elapsed() < Duration::from_secs(3));
    eventually("it has left", || !names(cluster).contains(&name));
}

/// Every forgery about the members that sent these payloads, on the channels that they came on.
fn slander(heard: &[(String, String)]) -> Vec<(String, String)> {
    let to_all = |payload: String| ("cluster".to_owned(), payload);
    let mut said = Vec::new();
    for (channel, payload) in heard {
        let Some(start) = payload.find(" name=") else {
            continue;
        };
        let fields = payload[start..].trim_end_matches(';').to_owned();
        let again = fields.replace(" seq=", " seq=99");
        let risen = fields.replace(" inc=1", " inc=9");
        for kind in ["hello", "beat", "bye", "gone", "newer", "ask"] {
            for fields in [&fields, &again, &risen] {
                said.push(to_all(format!("pg-peers/1 {kind}{fields};")));
                said.push(to_all(format!("pg-peers/1 {kind}{fields} try=3;")));
            }
        }
        for channel in [Some(channel.clone()), inbox(payload)]
            .into_iter()
            .flatten()
        {
            let head = "pg-peers/1 roster part=1 parts=1;";
            said.push((channel.clone(), format!("{head}{again} age=1;")));
            said.push((channel.clone(), format!("{head}{risen} age=1;")));
            said.push((channel.clone(), head.to_owned()));
            said.push((channel, "wake".to_owned()));
        }
    }
    for bare in ["evil@host", "a@b", "@"] {
        said.push(to_all(bare.to_owned()));
    }
    // What Postgres takes.
    said.retain(|(_, payload)| payload.len() < 8_000 && !payload.contains('\0'));
    said
}

/// Real payloads, mangled.
fn mangled(real: Vec<String>) -> impl Strategy<Value = String> {
    let numbers = prop::sample::select(vec![
        "0",
        "1",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "86400000",
        "99999999999999999999999999",
        "",
    ]);
    let words = prop::sample::select(vec![
        "%00",
        "%1B%5B2J",
        "%FF",
        "%",
        "%E2%80%AE",
        "%F0%9F%98%80",
        "'; DROP TABLE x; --",
        "%s%n{}",
        " ",
        ";",
        "=",
        "name=",
        " tag.a=1 tag.a=2",
        " sig=",
        " time=1",
        "\u{202e}",
        "\u{1b}[2J",
        "😀",
        "\n",
    ]);
    let real = prop::sample::select(real);
    let place = any::<prop::sample::Index>;
    let change = prop_oneof![
        (place(), place()).prop_map(|(from, to)| Change::Cut(from, to)),
        (place(), words).prop_map(|(at, word)| Change::Insert(at, word.to_owned())),
        (place(), any::<char>()).prop_map(|(at, c)| Change::Insert(at, c.to_string())),
        (place(), numbers).prop_map(|(at, number)| Change::Number(at, number)),
        place().prop_map(Change::Double),
    ];
    (real, vec(change, 0..6)).prop_map(|(payload, changes)| {
        let changed = changes
            .iter()
            .fold(payload, |payload, change| change.apply(payload));
        let mut sendable = changed.replace('\0', "");
        while sendable.len() > 7_999 {
            sendable.pop();
        }
        sendable
    })
}

#[derive(Clone, Debug)]
enum Change {
    Cut(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index, String),
    /// Another value for one of the fields.
    Number(prop::sample::Index, &'static str),
    /// One of the fields comes twice.
    Double(prop::sample::Index),
}

impl Change {
    fn apply(&self, payload: String) -> String {
        let chars: Vec<char> = payload.chars().collect();
        let fields: Vec<&str> = payload.split(' ').collect();
        match self {
            Self::Cut(from, to) => {
                let (from, to) = (from.index(chars.len() + 1), to.index(chars.len() + 1));
                let kept = chars[..from.min(to)].iter().chain(&chars[from.max(to)..]);
                kept.collect()
            }
            Self::Insert(at, word) => {
                let (before, after) = chars.split_at(at.index(chars.len() + 1));
                let word: Vec<char> = word.chars().collect();
                before.iter().chain(&word).chain(after).collect()
            }
            Self::Number(at, number) => {
                let at = at.index(fields.len());
                let field = fields[at].split('=').next().unwrap_or_default();
                let mut fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
                fields[at] = format!("{field}={number}");
                fields.join(" ")
            }
            Self::Double(at) => {
                let at = at.index(fields.len());
                let fields = fields[..=at].iter().chain(&fields[at..]);
                fields.copied().collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// This many mangled payloads, the same ones in every run.
fn many_mangled(real: &[(String, String)], count: usize) -> Vec<String> {
    let real = real.iter().map(|(_, payload)| payload.clone()).collect();
    let strategy = mangled(real);
    let mut runner = TestRunner::deterministic();
    let mut next = || strategy.new_tree(&mut runner).expect("a payload").current();
    (0..count).map(|_| next()).collect()
}

/// What a stranger hears while members come and go.
fn overhear_members(intruder: &mut Intruder, server: &Server) {
    let a = online(Config::new("a").tag("zone", "eu-1"), server);
    let b = online(Config::new("b"), server);
    expect(&b, "join a");
    intruder.hear(" hello name=b ");
    intruder.hear_an_answer(server, &b);
    b.leave().expect("a goodbye");
    intruder.hear(" bye name=b ");
    drop(a);
    intruder.hear(" bye name=a ");
}

#[test]
fn mangled_messages_harm_nobody() {
    keep_logs();
    let server = Server::start();
    let mut intruder = Intruder::enter(&server);
    overhear_members(&mut intruder, &server);
    let member = online(Config::new("member").max_peers(500), &server);
    let hello = intruder.hear("hello name=member ");
    let its_inbox = inbox(&hello).expect("an inbox");
    let payloads = many_mangled(&intruder.heard, 4_000);
    for payloads in payloads.chunks(500) {
        let said = payloads.iter().enumerate().map(|(n, payload)| {
            let channel = if n % 4 == 0 { &*its_inbox } else { "cluster" };
            (channel, payload)
        });
        intruder.say_all(&said.collect::<Vec<_>>());
        assert_all_can_be_shown(&member);
    }
    // One of them may have taken its name; it hears all the same.
    intruder.say("pg-peers/1 beat name=the%20last inc=5 seq=5 due=60000;");
    eventually("all is heard", || {
        names(&member).contains(&"the last".to_owned())
    });
    assert_all_can_be_shown(&member);
    let other = online(Config::new("other"), &server);
    assert_is_alive(&other, &server, Config::new("newcomer"));
    member.leave().expect("a goodbye");
}

#[test]
fn without_a_secret_lies_end_with_the_liar() {
    keep_logs();
    let server = Server::start();
    let mut intruder = Intruder::enter(&server);
    let members: Vec<Cluster> = ["a1", "a2"].map(|name| join(&server, name)).into();
    intruder.hear("hello name=a1 ");
    intruder.hear("hello name=a2 ");
    for _ in 0..3 {
        let said = slander(&intruder.heard);
        intruder.say_all(&said);
        intruder.replay();
    }
    let mut new = Vec::new();
    for name in ["n1", "n2"] {
        new.push(join(&server, name));
        let said = slander(&[(
            "cluster".to_owned(),
            intruder.hear(&format!("hello name={name} ")),
        )]);
        // A name that is taken is no more, so not that.
        let harmless = said.iter().filter(|(_, said)| !said.contains(" name=n"));
        intruder.say_all(&harmless.cloned().collect::<Vec<_>>());
    }
    eventually("they see each other", || {
        let sees = |of: usize, name: &str| names(&new[of]).contains(&name.to_owned());
        sees(0, "n2") && sees(1, "n1")
    });
    for member in new.iter().chain(&members) {
        assert_all_can_be_shown(member);
        assert!(member.status().online);
    }
    for member in members {
        // One whose name was taken has nothing to say, and all of them are quick to say it.
        let start = Instant::now();
        member.leave().expect("a goodbye");
        assert!(start.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn names_that_act_on_a_terminal_are_refused() {
    keep_logs();
    let server = Server::start();
    let member = join(&server, "member");
    let mut intruder = Intruder::enter(&server);
    let refused = [
        "%1B%5B2J%1B]0;owned%07",
        "%1B%5D0%3Bowned%07",
        "a%0Ab",
        "a%0Db",
        "a%00b",
        "%C2%9B31m",
        "%E2%80%AEgnp.exe",
        "%E2%81%A6a%E2%81%A9",
        "%D8%9C",
        "a%E2%80%8Bb",
        "%F3%A0%81%A1",
        "%EF%BB%BFa",
        "a%C2%ADb",
    ];
    let shown = [
        ("%F0%9F%98%80%F0%9F%92%A3", "😀💣"),
        (
            "'%3B%20DROP%20TABLE%20peers%3B%20--",
            "'; DROP TABLE peers; --",
        ),
        ("$$%20%5C%5C%20E'%5C''", "$$ \\\\ E'\\''"),
        ("%25s%25n%25x%7B%7D%7B0%7D%7B%3A%3F%7D", "%s%n%x{}{0}{:?}"),
        ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        ("%3Cscript%3E", "<script>"),
    ];
    for name in refused {
        intruder.say(&format!(
            "pg-peers/1 hello name={name} inc=5 seq=1 due=60000;"
        ));
        intruder.say(&format!(
            "pg-peers/1 beat name=ok inc=5 seq=9 due=60000 tag.a={name};"
        ));
        intruder.say(&format!(
            "pg-peers/1 beat name=ok inc=5 seq=9 due=60000 tag.{name}=a;"
        ));
        intruder.say(&format!("{name}@host").replace('%', "\u{202e}"));
    }
    for (name, _) in shown {
        intruder.say(&format!(
            "pg-peers/1 hello name={name} inc=5 seq=1 due=60000 tag.{name}={name};"
        ));
    }
    let mut expected: Vec<&str> = shown.iter().map(|(_, name)| *name).collect();
    expected.sort_unstable();
    eventually("all are there", || names(&member) == expected);
    for peer in member.peers() {
        assert_eq!(peer.tag(peer.name()), Some(peer.name()));
    }
    let events = assert_all_can_be_shown(&member);
    assert_eq!(events.len(), shown.len());
    let full = online(Config::new("full").max_peers(1), &server);
    intruder.say("pg-peers/1 hello name='%20one%20more%20😀 inc=5 seq=1 due=60000;");
    intruder.say("pg-peers/1 hello name='%20one%20more%20%F0%9F%98%80 inc=5 seq=1 due=60000;");
    eventually("refused", || full.status().refused > 0);
    assert_all_can_be_shown(&full);
}

#[test]
fn a_flood_of_new_names_keeps_the_bound_and_the_peers() {
    keep_logs();
    let server = Server::start();
    let config = |name| {
        Config::new(name)
            .max_peers(200)
            .heartbeat_interval(SHORT * 5)
    };
    let (a, b) = (online(config("a"), &server), online(config("b"), &server));
    expect(&a, "join b");
    expect(&b, "join a");
    let mut intruder = Intruder::enter(&server);
    let tag = "x".repeat(500);
    for round in 0..20 {
        let flood = (0..1_000).map(|n| {
            let payload =
                format!("pg-peers/1 hello name=p{round}-{n} inc=5 seq=1 due=60000 tag.a={tag};");
            ("cluster", payload)
        });
        intruder.say_all(&flood.collect::<Vec<_>>());
        assert!(a.peers().len() <= 200);
    }
    for (member, other) in [(&a, "b"), (&b, "a")] {
        eventually("all is heard", || member.status().refused >= 20_000 - 200);
        assert_all_can_be_shown(member);
        let known = names(member);
        assert!(known.len() == 200 && known.contains(&other.to_owned()));
    }
    fence(&a, &b);
    fence(&b, &a);
    let full = logged()
        .iter()
        .filter(|line| line.contains("first \"p0-"))
        .count();
    assert!((1..=2).contains(&full), "{full} lines");
}

#[test]
fn a_stranger_at_the_inbox_keeps_nobody_offline() {
    keep_logs();
    let server = Server::start();
    let mut intruder = Intruder::enter(&server);
    let a = join(&server, "a");
    let its_inbox = inbox(&intruder.hear("hello name=a ")).expect("an inbox");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = Cleanup(&stop);
        for _ in 0..3 {
            scope.spawn(|| {
                let mut intruder = Intruder::enter(&server);
                // What the library itself says there, or might.
                let said = (0..30).map(|n| format!("own {n}"));
                let said = said.chain(["other", "wake", ""].map(str::to_owned));
                let said: Vec<_> = said.map(|said| (&*its_inbox, said)).collect();
                while !stop.load(Ordering::Relaxed) {
                    intruder.say_all(&said);
                }
            });
        }
        for _ in 0..5 {
            server.run(&format!(
                "SELECT pg_terminate_backend({})",
                backend_of(&server, "a")
            ));
            expect(&a, "offline");
            expect(&a, "online");
        }
        drop(end);
    });
    // Were it deceived by what they say, one attempt in two would fail; a slow machine may fail one.
    assert!(a.status().failed_attempts <= 1, "{:?}", a.status());
    assert_all_can_be_shown(&a);
}

/// Ends what goes on beside a test, also when it fails.
struct Cleanup<'a>(&'a AtomicBool);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(feature = "auth")]
mod signed {
    use super::*;

    /// No heartbeat puts anything right.
    const HOUR: Duration = Duration::from_secs(60 * 60);

    const SECRET: &str = "the secret of this cluster";
    const OTHER: &str = "the secret of another one";

    fn member(name: &str) -> Config {
        Config::new(name).secret(SECRET).heartbeat_interval(HOUR)
    }

    /// Two members that know each other.
    fn pair(server: &Server) -> (Cluster, Cluster) {
        let a = online(member("a"), server);
        let b = online(member("b"), server);
        expect(&a, "join b");
        expect(&b, "join a");
        (a, b)
    }

    /// The next event about a peer. A server that is kept busy may answer too late, which is an outage.
    #[track_caller]
    fn expect_but_outages(cluster: &Cluster, expected: &str) {
        loop {
            let event = cluster.events().recv_timeout(PATIENCE).expect(expected);
            match event {
                Event::Online | Event::Offline(_) => {}
                event => return assert_eq!(words(&event), expected),
            }
        }
    }

    fn warnings(part: &str) -> usize {
        let logged = logged();
        let warnings = logged.iter().filter(|line| line.starts_with("WARN"));
        warnings.filter(|line| line.contains(part)).count()
    }

    #[test]
    fn nothing_that_an_intruder_says_moves_the_roster() {
        keep_logs();
        let server = Server::start();
        let mut intruder = Intruder::enter(&server);
        let channel = "forged";
        let (a, b) = pair(&server);
        intruder.hear("hello name=b ");
        intruder.hear_an_answer(&server, &b);
        let me = intruder.pid();
        let unsigned = slander(&intruder.heard);
        let mut said = unsigned.clone();
        // Its own secret; the right one, of which it has only a recording; and the right one for elsewhere.
        for (to, payload) in &unsigned {
            let to_inbox = if to == "cluster" { "" } else { to };
            if payload.ends_with(';') {
                said.push((to.clone(), sign(OTHER, "cluster", to_inbox, me, payload)));
                said.push((to.clone(), sign(SECRET, channel, to_inbox, me, payload)));
                said.push((
                    to.clone(),
                    sign(SECRET, "cluster", "pg_peers_0", me, payload),
                ));
                said.push((
                    to.clone(),
                    sign(SECRET, "cluster", to_inbox, me + 1, payload),
                ));
            }
        }
        said.retain(|(_, payload)| payload.len() < 8_000);
        let to_all = said.iter().filter(|(to, _)| to == "cluster").count() as u64;
        said.chunks(500).for_each(|said| intruder.say_all(said));
        for mangled in many_mangled(&intruder.heard, 3_000).chunks(500) {
            let said = mangled.iter().map(|payload| ("cluster", payload));
            intruder.say_all(&said.collect::<Vec<_>>());
        }
        fence(&a, &b);
        fence(&b, &a);
        for (member, other) in [(&a, "b"), (&b, "a")] {
            assert_eq!(names(member), [other]);
            expect_nothing(member);
            let status = member.status();
            // Equal ones in one transaction are one.
            assert!(status.forged > to_all / 2, "{status:?}");
            assert_eq!((status.refused, status.clock_skewed), (0, 0), "{status:?}");
            assert_all_can_be_shown(member);
        }
        let newcomer = online(member("n"), &server);
        newcomer.wait_for_peers(2, PATIENCE).expect("both");
        assert_eq!(names(&newcomer), ["a", "b"]);
    }

    #[test]
    fn forgeries_are_counted_each_and_logged_once() {
        keep_logs();
        let server = Server::start();
        let channel = "counted";
        let config = |name| member(name).channel(channel);
        let a = online(config("a"), &server);
        let b = online(config("b"), &server);
        expect(&a, "join b");
        expect(&b, "join a");
        let mut intruder = Intruder::enter(&server);
        let pid = intruder.pid();
        for n in 0..100 {
            let payload = format!("pg-peers/1 hello name=x inc=5 seq={n} due=60000;");
            intruder.say_to(channel, &payload);
            let signed = sign(OTHER, channel, "", pid, &payload);
            intruder.say_to(channel, &signed);
        }
        intruder.say_to(channel, "elixir@host");
        fence(&b, &a);
        assert_eq!(a.status().forged, 201);
        assert_eq!(names(&a), ["b"]);
        // At each of the two.
        assert_eq!(
            warnings(&format!(
                "{channel:?}: ignoring payloads that are not signed;"
            )),
            2
        );
        assert_eq!(
            warnings(&format!(
                "{channel:?}: ignoring payloads that are not signed with"
            )),
            2
        );
        assert_eq!(warnings(&format!("backend {pid}, about \"x\"")), 4);
        assert!(!logged().iter().any(|line| line.contains(SECRET)));
    }

    #[test]
    fn what_is_said_again_at_once_changes_nothing_for_anybody() {
        keep_logs();
        let server = Server::start();
        let mut intruder = Intruder::enter(&server);
        let (a, b) = pair(&server);
        intruder.hear("hello name=b ");
        intruder.hear_an_answer(&server, &b);
        let c = online(member("c"), &server);
        expect(&a, "join c");
        expect(&b, "join c");
        c.leave().expect("a goodbye");
        expect(&a, "leave c: Goodbye");
        expect(&b, "leave c: Goodbye");
        intruder.hear(" bye name=c ");
        intruder.replay();
        // To those who never heard the original, too.
        for round in 0..5 {
            let newcomer = online(member(&format!("n{round}")), &server);
            intruder.replay();
            expect_all(&newcomer, &["join a", "join b"]);
            fence(&a, &newcomer);
            expect_nothing(&newcomer);
            intruder.hear(&format!("hello name=n{round} "));
            newcomer.leave().expect("a goodbye");
            intruder.hear(&format!(" bye name=n{round} "));
            expect(&a, &format!("join n{round}"));
            expect(&a, &format!("leave n{round}: Goodbye"));
        }
        intruder.replay();
        fence(&b, &a);
        expect_nothing(&a);
        assert_eq!(names(&a), ["b"]);
    }

    #[test]
    fn a_newcomer_believes_no_answer_but_that_of_a_member() {
        keep_logs();
        let server = Server::start();
        let mut intruder = Intruder::enter(&server);
        let (_a, _b) = pair(&server);
        let head = "pg-peers/1 roster part=1 parts=1;";
        for round in 0..10 {
            let name = format!("n{round}");
            let newcomer = member(&name).join(&server.params()).expect("valid");
            // As fast as can be: before the answer, or after.
            let hello = intruder.hear(&format!("hello name={name} "));
            let its_inbox = inbox(&hello).expect("an inbox");
            let entry = " name=evil inc=5 seq=5 due=600000 age=1;";
            let forged = format!("{head}{entry}");
            let signed = sign(OTHER, "cluster", &its_inbox, intruder.pid(), &forged);
            intruder.say_all(&[
                (&*its_inbox, &*forged),
                (&its_inbox, &signed),
                (&its_inbox, head),
            ]);
            intruder.replay();
            newcomer.wait_for_peers(2, PATIENCE).expect("both");
            eventually("the forgeries came", || newcomer.status().forged >= 3);
            assert_eq!(names(&newcomer), ["a", "b"]);
            newcomer.leave().expect("a goodbye");
            intruder.hear(&format!(" bye name={name} "));
        }
    }

    #[test]
    fn a_flood_of_forgeries_keeps_nobody_out() {
        keep_logs();
        let server = Server::start();
        let (a, b) = pair(&server);
        let mut intruder = Intruder::enter(&server);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let tag = "x".repeat(1_000);
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) && count < 100_000 {
                    let flood = (0..100).map(|n| {
                        let name = format!("p{}", count + n);
                        (
                            "cluster",
                            format!(
                                "pg-peers/1 hello name={name} inc=5 seq=1 due=60000 tag.a={tag};"
                            ),
                        )
                    });
                    intruder.say_all(&flood.collect::<Vec<_>>());
                    count += 100;
                }
            });
            let end = Cleanup(&stop);
            for round in 0..5 {
                let newcomer = online(member(&format!("n{round}")), &server);
                newcomer.wait_for_peers(2, PATIENCE).expect("both");
                expect_but_outages(&a, &format!("join n{round}"));
                newcomer.leave().expect("a goodbye");
                expect_but_outages(&a, &format!("leave n{round}: Goodbye"));
                // What is announced meanwhile may go over another connection than usual.
                b.set_tags([("round", format!("{round}"))]).expect("tags");
                expect_but_outages(&a, "update b");
            }
            drop(end);
        });
        eventually("only they are left", || {
            names(&a) == ["b"] && names(&b) == ["a"]
        });
        assert!(a.status().forged > 100);
    }
}
