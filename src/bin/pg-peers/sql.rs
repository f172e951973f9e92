//! The statements of this program that say something on a channel, and what all begin with. Pure.

use crate::quoting::{MARK, identifier, literal};

/// For the transaction alone: behind a pooler in transaction mode a setting of the session lands in somebody else's.
const LIMITS: &str = "SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '2s'; ";

/// Whether the server is told to give up what takes long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// It would take time, where that is measured.
    None,
    Seconds,
}

pub(crate) fn query(limits: Limits, statement: &str) -> String {
    match limits {
        Limits::None => format!("{MARK} {statement}"),
        Limits::Seconds => format!("{MARK} {LIMITS}{statement}"),
    }
}

/// Notifies by the function, which is one entry in `pg_stat_statements` whatever it says.
pub(crate) fn notify(limits: Limits, channel: &str, payload: &str) -> String {
    let (channel, payload) = (literal(channel), literal(payload));
    let statement = format!("SELECT pg_catalog.pg_notify({channel}, {payload})");
    query(limits, &statement)
}

pub(crate) fn notify_by_statement(limits: Limits, channel: &str, payload: &str) -> String {
    let (channel, payload) = (identifier(channel), literal(payload));
    query(limits, &format!("NOTIFY {channel}, {payload}"))
}

pub(crate) fn listen(channel: &str) -> String {
    query(Limits::Seconds, &format!("LISTEN {}", identifier(channel)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_broken_out_of() {
        assert_eq!(
            notify(Limits::None, "c'", r"p\"),
            r"/* pg-peers */ SELECT pg_catalog.pg_notify(E'c''', E'p\\')"
        );
        assert_eq!(
            notify_by_statement(Limits::None, "c\"", "p'"),
            r#"/* pg-peers */ NOTIFY "c""", E'p'''"#
        );
        assert!(listen("a").ends_with(r#"; LISTEN "a""#));
    }
}
