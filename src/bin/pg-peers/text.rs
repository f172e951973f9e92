//! How times and texts are written for people.

use std::time::Duration;

use jiff::{Timestamp, Zoned};

/// Whether a character only stands for itself: it neither acts on a terminal nor changes what others look like. No name and
/// no tag has others, by the library's rule, but an error may quote what a server says.
pub(crate) fn is_plain(c: char) -> bool {
    // Quotes and backslashes are what else is escaped for Rust.
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

/// A text in which what is not [plain](is_plain) is replaced.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c| {
        if is_plain(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    text.chars().map(shown).collect()
}

/// A text without the selector that makes a heart red: terminals disagree on how wide it makes the character before it, and
/// what comes after would be drawn in the wrong place.
pub(crate) fn of_certain_width(text: &str) -> String {
    text.replace('\u{fe0f}', "")
}

/// A number of things: `1 member`, `2 members`.
pub(crate) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// A time span as short as it can be said: `0.4 ms`, `1.2 s`, `42 s`, `3m07s`, `2h05m`, `4d07h`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 if span < Duration::from_millis(10) => format!("{:.1} ms", span.as_secs_f64() * 1e3),
        0 => format!("{} ms", span.as_millis()),
        1..10 if span.subsec_millis() < 100 => format!("{seconds} s"),
        1..10 => age(span),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The same for what changes all the time, and is not worth reading more closely: `0.2 s`, `2.0 s`.
pub(crate) fn age(age: Duration) -> String {
    match age.as_secs() {
        // Cut, not rounded.
        seconds @ 0..10 => format!("{seconds}.{} s", age.subsec_millis() / 100),
        _ => span(age),
    }
}

/// When a process started, by its incarnation: the time of day, if that was today. `None` if it is no time.
pub(crate) fn start(incarnation: u64, now: &Zoned) -> Option<String> {
    let time = Timestamp::from_microsecond(incarnation.try_into().ok()?).ok()?;
    let time = time.to_zoned(now.time_zone().clone());
    let form = if time.date() == now.date() {
        "%H:%M:%S"
    } else if time.year() == now.year() {
        "%b %d %H:%M"
    } else {
        "%Y-%m-%d"
    };
    Some(time.strftime(form).to_string())
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn one_is_not_many() {
        let texts = [0, 1, 2].map(|number| count(number, "member"));
        assert_eq!(texts, ["0 members", "1 member", "2 members"]);
    }

    #[test]
    fn spans_are_short() {
        for (millis, text) in [
            (0.42, "0.4 ms"),
            (12.0, "12 ms"),
            (999.9, "999 ms"),
            (5_000.0, "5 s"),
            (1_250.0, "1.2 s"),
            (59_999.0, "59 s"),
            (187_000.0, "3m07s"),
            (7_500_000.0, "2h05m"),
            (370_800_000.0, "4d07h"),
        ] {
            assert_eq!(span(Duration::from_secs_f64(millis / 1e3)), text);
        }
    }

    #[test]
    fn ages_keep_their_tenths() {
        for (millis, text) in [
            (9, "0.0 s"),
            (290, "0.2 s"),
            (2_000, "2.0 s"),
            (10_000, "10 s"),
        ] {
            assert_eq!(age(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_start_is_told_as_precisely_as_it_is_near() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let now = now.to_zoned(TimeZone::UTC);
        let start = |seconds: u64| start(seconds * 1_000_000, &now);
        assert_eq!(start(1_800_000_000 - 60).as_deref(), Some("07:59:00"));
        assert_eq!(
            start(1_800_000_000 - 86_400).as_deref(),
            Some("Jan 14 08:00")
        );
        assert_eq!(start(1_000_000_000).as_deref(), Some("2001-09-09"));
        assert_eq!(super::start(u64::MAX, &now), None);
        // A clock that is ahead is told as well.
        assert_eq!(start(1_800_000_060).as_deref(), Some("08:01:00"));
    }

    #[test]
    fn what_acts_on_a_terminal_is_replaced() {
        assert_eq!(
            plain("a\u{1b}[31m \"b\" \u{202e}ß"),
            "a\u{fffd}[31m \"b\" \u{fffd}ß"
        );
    }
}
