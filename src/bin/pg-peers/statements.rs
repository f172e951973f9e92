//! What a session's last statement, as `pg_stat_activity` shows it, tells of channels. Pure.
//!
//! Nothing tells which channels another session listens to. But one that only listens says `LISTEN` and nothing after it, and
//! one that announces says its channel each time.

use crate::quoting::MARK;

/// What the name of a channel to measure on begins with.
pub(crate) const PRIVATE: &str = "pg_peers_ping_";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    Listen(String),
    /// With what was announced, if that can be read.
    Notify(String, Option<String>),
}

impl Said {
    pub(crate) fn channel(&self) -> &str {
        match self {
            Self::Listen(channel) | Self::Notify(channel, _) => channel,
        }
    }
}

/// Whether it was said by the library.
pub(crate) fn is_marked(query: &str) -> bool {
    query.starts_with(MARK)
}

/// A channel on which a member of pg-peers is answered, and nobody meets; or one to measure on.
pub(crate) fn is_private(channel: &str) -> bool {
    let number = channel.strip_prefix("pg_peers_").unwrap_or_default();
    let is_hex = |c: char| c.is_ascii_hexdigit();
    channel.starts_with(PRIVATE) || (number.len() == 16 && number.chars().all(is_hex))
}

/// A node name as Elixir nodes announce it.
pub(crate) fn is_node_name(payload: &str) -> bool {
    let shape = payload
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    shape && !payload.contains(char::is_whitespace)
}

/// What a query says of channels. It may have been cut short.
pub(crate) fn read(query: &str) -> Vec<Said> {
    let tokens = tokens(query);
    let said = |at: usize| {
        let (word, rest) = tokens[at..].split_first()?;
        match (word, rest) {
            (Token::Word(word), [Token::Word(name) | Token::Quoted(name), ..])
                if word == "listen" =>
            {
                Some(Said::Listen(name.clone()))
            }
            (Token::Word(word), [Token::Word(name) | Token::Quoted(name), rest @ ..])
                if word == "notify" =>
            {
                let payload = match rest {
                    [Token::Symbol(','), Token::Text(payload), ..] => Some(payload.clone()),
                    _ => None,
                };
                Some(Said::Notify(name.clone(), payload))
            }
            (Token::Word(word), [Token::Symbol('('), Token::Text(name), rest @ ..])
                if word == "pg_notify" =>
            {
                let payload = match rest {
                    [Token::Symbol(','), Token::Text(payload), ..] => Some(payload.clone()),
                    _ => None,
                };
                Some(Said::Notify(name.clone(), payload))
            }
            _ => None,
        }
    };
    (0..tokens.len()).filter_map(said).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// In small letters, as Postgres folds it.
    Word(String),
    Quoted(String),
    Text(String),
    Symbol(char),
}

/// The tokens of SQL (manual, 4.1), as far as they are whole.
fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        let is_escaped = matches!(c, 'e' | 'E') && rest[1..].starts_with('\'');
        let read = match c {
            c if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '/' if rest.starts_with("/*") => match rest.split_once("*/") {
                Some((_, after)) => {
                    rest = after;
                    continue;
                }
                None => None,
            },
            '"' => quoted(&rest[1..], '"', false).map(|(text, rest)| (Token::Quoted(text), rest)),
            '\'' => quoted(&rest[1..], '\'', false).map(|(text, rest)| (Token::Text(text), rest)),
            _ if is_escaped => {
                quoted(&rest[2..], '\'', true).map(|(text, rest)| (Token::Text(text), rest))
            }
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                Some((Token::Word(rest[..end].to_lowercase()), &rest[end..]))
            }
            c => Some((Token::Symbol(c), &rest[c.len_utf8()..])),
        };
        let Some((token, after)) = read else {
            break;
        };
        tokens.push(token);
        rest = after;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$')
}

/// What stands before the closing quote, and what comes after it.
fn quoted(text: &str, quote: char, escaped: bool) -> Option<(String, &str)> {
    let mut inner = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && escaped {
            inner.push(chars.next()?.1);
        } else if c != quote {
            inner.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return Some((inner, &text[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(channel: &str, payload: Option<&str>) -> Said {
        Said::Notify(channel.to_owned(), payload.map(str::to_owned))
    }

    fn listen(channel: &str) -> Said {
        Said::Listen(channel.to_owned())
    }

    #[test]
    fn channels_are_read_from_what_sessions_say() {
        let cases = [
            ("LISTEN \"Prod_Cookie_v1\"", vec![listen("Prod_Cookie_v1")]),
            ("listen Jobs;", vec![listen("jobs")]),
            (
                "NOTIFY \"Prod\", 'app@10.0.0.9'",
                vec![notify("Prod", Some("app@10.0.0.9"))],
            ),
            (
                "/* pg-peers */ SELECT pg_catalog.pg_notify(E'c''\\\\', E'pg-peers/1 beat')",
                vec![notify("c'\\", Some("pg-peers/1 beat"))],
            ),
            ("SELECT pg_notify($1, $2)", vec![]),
            (
                "/* pg-peers */ SELECT set_config('a', E'1', false); LISTEN \"a\"\"b\"; SHOW server_encoding",
                vec![listen("a\"b")],
            ),
            // Cut short.
            ("SELECT pg_notify('c', 'a long", vec![notify("c", None)]),
            ("NOTIFY \"half", vec![]),
            ("/* half", vec![]),
            ("SELECT 'LISTEN x'", vec![]),
            ("NOTIFY é, 'ü'", vec![notify("é", Some("ü"))]),
            ("", vec![]),
        ];
        for (query, said) in cases {
            assert_eq!(read(query), said, "{query}");
        }
    }

    #[test]
    fn private_channels_are_known_by_their_names() {
        assert!(is_private("pg_peers_0123456789abcdef"));
        assert!(is_private("pg_peers_ping_1_2"));
        for shared in [
            "cluster",
            "pg_peers_",
            "pg_peers_0123",
            "pg_peers_app_cluster_x",
        ] {
            assert!(!is_private(shared), "{shared}");
        }
    }

    #[test]
    fn a_node_name_is_two_words() {
        assert!(is_node_name("app@10.0.0.9"));
        for other in ["pg-peers/1 beat name=a@b", "a", "@b", "a@", "a@b@c"] {
            assert!(!is_node_name(other), "{other}");
        }
    }
}
