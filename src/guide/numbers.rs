//! What the pages quote is what the code decides.

use std::time::Duration;

use crate::cluster::{DROP_TIMEOUT, LEAVE_TIMEOUT};
use crate::config::{Config, MAX_MISSED, MAX_NAME, Settings};
use crate::core::roster::{BURST, UNSEEN, queries};
use crate::core::{roster_sync, session_check, wire};
use crate::link::seats::SEATS;
use crate::peer;
use crate::trust::seal::{MIN_SECRET, TOLERANCE};

const README: &str = include_str!("../../README.md");
const BENCHES: &str = include_str!("../../benches/README.md");
const CONFIG: &str = include_str!("../config.rs");
const DATABASE: &str = include_str!("database.md");
const DEPLOYMENT: &str = include_str!("deployment.md");
const FAULTS: &str = include_str!("faults.md");
const REGIONS: &str = include_str!("regions.md");
const SIGNING: &str = include_str!("signing.md");
const TUNING: &str = include_str!("tuning.md");
const WIRE: &str = include_str!("wire.md");

/// Fails unless the page says this, in whatever lines, comments of code among them.
#[track_caller]
fn says(page: &str, words: &str) {
    let said = page.split_whitespace().filter(|word| *word != "///");
    let page = said.collect::<Vec<_>>().join(" ");
    assert!(page.contains(words), "not said: {words}");
}

fn defaults() -> Settings {
    Settings::parse(&Config::new("a")).expect("valid")
}

/// With a comma before each three digits.
fn grouped(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}

fn millis(duration: Duration) -> String {
    grouped(millis_of(duration))
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("short")
}

#[test]
fn defaults_are_those_of_the_code() {
    let defaults = defaults();
    let row = |setter: &str, default: &str| {
        says(TUNING, &format!("Config::{setter}) | {default} |"));
    };
    let seconds = |duration: Duration| format!("{} s", duration.as_secs());
    row("channel", &format!("`{}`", defaults.channel));
    row("heartbeat_interval", &seconds(defaults.heartbeat));
    row("bare_heartbeat_interval", &seconds(defaults.bare_heartbeat));
    row("missed_heartbeats", &defaults.missed.to_string());
    row("delivery_budget", &defaults.delivery_budget.to_string());
    row("session_check", &format!("`{}`", defaults.session_check));
    row("max_peers", &grouped(defaults.max_peers as u64));
    let channel = format!("1 to {MAX_NAME} bytes");
    says(TUNING, &format!("| `{}` | {channel}", defaults.channel));
    says(CONFIG, &format!("The name has {channel}"));
    says(CONFIG, &format!("members meet: {channel}"));
    says(CONFIG, &format!("Defaults to `{}`", defaults.channel));
    for interval in [defaults.heartbeat, defaults.bare_heartbeat] {
        says(
            CONFIG,
            &format!("Defaults to {} seconds", interval.as_secs()),
        );
    }
    says(CONFIG, &format!("Defaults to {}.", defaults.missed));
    says(
        CONFIG,
        &format!("Defaults to {},", defaults.delivery_budget),
    );
    says(
        CONFIG,
        &format!("Defaults to {}.", grouped(defaults.max_peers as u64)),
    );
    says(
        CONFIG,
        &format!(
            "has left, with [`Reason::Expired`](crate::Reason::Expired): 1 to {}",
            grouped(MAX_MISSED.into())
        ),
    );
    says(
        CONFIG,
        &format!("one payload of {} bytes", grouped(wire::MAX_PAYLOAD as u64)),
    );
    says(
        CONFIG,
        &format!("The secret has at least {MIN_SECRET} bytes"),
    );
    let minute = TOLERANCE.as_secs();
    says(CONFIG, &format!("must agree within {minute} seconds"));
    says(TUNING, &format!("1 to {}", grouped(MAX_MISSED.into())));
    let budget = defaults.delivery_budget;
    says(
        README,
        &format!("about {budget} deliveries a second, at any size"),
    );
}

/// Seconds, rounded to a tenth.
fn tenths(millis: u64) -> String {
    let tenths = (millis + 50) / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

#[test]
fn times_at_a_distance_follow_from_round_trips() {
    // As the tests `few_round_trips_lead_to_online` count them, without TLS and with it.
    let [first, again] = [[11, 15], [8, 10]];
    let least = millis_of(wire::LEAST_BACK);
    for round_trip in [50, 150, 300, 700] {
        let times = |counts: [u64; 2]| counts.map(|count| tenths(count * round_trip)).join(", ");
        let noticed = again.map(|count| {
            let back = count * round_trip * 3 / 2 + 750;
            tenths(2_000 + back.max(least))
        });
        let (first, again) = (times(first), times(again));
        let noticed = noticed.join(", ");
        says(
            REGIONS,
            &format!("| {round_trip} ms | {first} | {again} | {noticed} |"),
        );
    }
}

/// How often each of this many members announces itself, in seconds.
fn interval(members: u32, heartbeat: f64) -> f64 {
    let deliveries = f64::from(members).powi(2);
    heartbeat.max(deliveries / f64::from(defaults().delivery_budget))
}

#[test]
fn intervals_follow_from_the_budget() {
    let Settings {
        heartbeat,
        delivery_budget,
        ..
    } = defaults();
    let heartbeat = heartbeat.as_secs_f64();
    let few = (heartbeat * f64::from(delivery_budget)).sqrt().floor();
    let [many, more] = [100, 400].map(|members| interval(members, heartbeat));
    says(
        TUNING,
        &format!(
            "every `N² / {delivery_budget}` seconds, but not more often than its heartbeat interval: {heartbeat} s up to {few} \
             members, {many} s at 100, {more} s at 400"
        ),
    );
    says(WIRE, &format!("`N² / {delivery_budget}` seconds"));
    let budget = f64::from(delivery_budget);
    for times in [BURST, UNSEEN] {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let budget = grouped((budget * times) as u64);
        says(WIRE, &format!("`N² / {budget}` seconds"));
    }
}

#[test]
fn the_table_of_costs_follows_from_the_budget() {
    let missed = f64::from(defaults().missed);
    for members in [10, 50, 100, 400_u32] {
        let mut cells = [1.0, 5.0, 15.0].map(|heartbeat| {
            let interval = interval(members, heartbeat);
            let deliveries = (f64::from(members).powi(2) / interval).round();
            if interval > heartbeat {
                let beats = (f64::from(members) / heartbeat).round();
                let known = missed * heartbeat + 2.0;
                format!("{known} s, {deliveries}/s, {beats}/s")
            } else {
                format!("{} s, {deliveries}/s", missed * heartbeat)
            }
        });
        // The first cells say what the numbers are.
        match members {
            10 => {
                cells[0] = cells[0].replace(" s, 100/s", " s, 100 deliveries/s, no beats");
                cells[0].insert_str(0, "a hang known after ");
            }
            50 => cells[0] = cells[0].replace(" 50/s", " 50 beats/s"),
            _ => {}
        }
        says(TUNING, &format!("| {members} | {} |", cells.join(" | ")));
    }
}

#[test]
fn times_are_those_of_the_code() {
    let leave = LEAVE_TIMEOUT.as_secs_f64();
    for page in [FAULTS, DEPLOYMENT] {
        says(page, &format!("{leave} s"));
    }
    assert_eq!(DROP_TIMEOUT, Duration::from_secs(1));
    says(FAULTS, "dropping the handle within a second");
    says(DATABASE, "never has more than three");
    assert_eq!(SEATS, 3);
    let tolerance = TOLERANCE.as_secs();
    says(SIGNING, &format!("within {tolerance} seconds"));
    says(WIRE, &format!("more than {tolerance} seconds"));
    let slowness = session_check::MOST_FOR_SLOWNESS.as_secs();
    let times = session_check::ANSWERS_TO_BE_BACK;
    says(
        FAULTS,
        &format!("up to {slowness} s more: {times} times the extra time"),
    );
    says(
        WIRE,
        &format!("longer, by {times} times the difference, and by {slowness} seconds at most"),
    );
    assert_eq!(session_check::INTERVAL, Duration::from_secs(2));
    assert_eq!(session_check::AT_EACH_END, 2);
    for page in [TUNING, WIRE] {
        says(page, "The two oldest");
        says(page, "every two seconds");
    }
    says(REGIONS, "noticed two seconds after it could have been back");
}

#[test]
fn the_wire_format_has_the_limits_of_the_code() {
    says(
        WIRE,
        &format!("at most {} bytes", grouped(wire::MAX_PAYLOAD as u64)),
    );
    says(
        WIRE,
        &format!("at most {} bytes of them", grouped(queries::PIECE as u64)),
    );
    says(WIRE, &format!("(1 to {})", millis(wire::MAX_DUE)));
    says(WIRE, &format!("without it {}", millis(wire::LEAST_BACK)));
    says(
        WIRE,
        &format!("more than {} is read as that", millis(wire::MOST_BACK)),
    );
    let patience = roster_sync::LEAST_PATIENCE.as_millis();
    says(WIRE, &format!("{patience} ms after each question"));
    says(TUNING, &format!("{patience} ms later"));
    says(WIRE, &format!("up to `try={}`", roster_sync::ASK_ALL));
}

#[test]
fn the_wire_format_lists_the_characters_that_no_name_has() {
    let code = |text: &str| {
        let digits = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        u32::from_str_radix(digits, 16).expect("a code point")
    };
    let (_, list) = WIRE.split_once("direction of text: ").expect("a list");
    let (list, _) = list.split_once(".\n").expect("its end");
    let ranges: Vec<_> = list
        .split(',')
        .map(|range| {
            let mut ends = range.split("U+").skip(1).map(code);
            let first = ends.next().expect("a first");
            first..=ends.next().unwrap_or(first)
        })
        .collect();
    assert!(ranges.len() > 10);
    for c in '\0'..=char::MAX {
        let is_listed = ranges.iter().any(|range| range.contains(&u32::from(c)));
        assert_eq!(c.is_control() || is_listed, peer::is_control(c), "{c:?}");
    }
}

/// The cells of the one row of the benches' tables that begins so.
fn measured(beginning: &str) -> Vec<&'static str> {
    let mut rows = BENCHES.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        cells.join(" | ").starts_with(beginning).then_some(cells)
    });
    rows.next().expect(beginning)
}

#[test]
fn the_readme_quotes_what_was_measured() {
    let number = |cells: &[&str], cell: usize| -> f64 {
        let text = cells[cell].replace(',', "");
        text.parse().expect(cells[cell])
    };
    let event = measured("ours: an event at the host");
    let floor = measured("floor:");
    for row in [event, floor] {
        says(README, &format!("{:.0} us", number(&row, 2)));
    }
    let [naive, ours, table] =
        ["naive", "ours", "table"].map(|protocol| measured(&format!("400 | {protocol} |")));
    let [wal, cpu] = [4, 6].map(|cell| [&naive, &ours, &table].map(|row| number(row, cell)));
    says(
        README,
        &format!(
            "{:.0}% of a core | {:.0}%: everybody announces itself every 5 s; {:.0}%: a table of heartbeats, with hundreds of \
             times the WAL",
            cpu[1], cpu[0], cpu[2],
        ),
    );
    assert!((200.0..1_000.0).contains(&(wal[2] / wal[1])));
    let of_alone = |beside: &str| format!("{:.2}", number(&measured(beside), 2));
    says(
        README,
        &format!(
            "| {} of what it does alone | {}: beside 100 that announce themselves every 5 s |",
            of_alone("100 members |"),
            of_alone("100 that announce")
        ),
    );
    // The column `max`: behind the last line there is an empty cell.
    let most = |beginning: &str| {
        let row = measured(beginning);
        number(&row, row.len() - 2)
    };
    let roster = most("join() to the roster of 400");
    assert!((100.0..=200.0).contains(&roster), "{roster} ms");
    says(README, "(0.2 s in a cluster of 400)");
    let slowest = |beginning: &str| {
        let sizes = [10, 100, 400].map(|size| format!("{beginning}, of {size} |"));
        let worst = sizes.map(|row| most(&row));
        format!("{:.1} s", worst.into_iter().fold(0.0, f64::max) / 1e3)
    };
    for (what, how) in [
        ("a killed peer is noticed", "kill -9"),
        ("a peer that hangs is noticed", "SIGSTOP"),
    ] {
        let slowest = slowest(&format!("{how} to the Leave at each other"));
        says(
            README,
            &format!("| {what}, with up to 400 members | after {slowest} at most |"),
        );
    }
}
