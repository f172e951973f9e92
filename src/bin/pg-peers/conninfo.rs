//! Connection strings as libpq reads them, taken apart and put together again. Pure.
//!
//! The library takes what its driver knows. The people who run a cluster write what `psql` knows: a service, a password file,
//! `sslmode=verify-full`. So options are read here, completed, and written as a string that the library takes.

use std::collections::BTreeMap;

const URLS: [&str; 2] = ["postgres://", "postgresql://"];

/// The options of a connection, by the names that they have in a connection string. Holds the password, so there is no `Debug`.
#[derive(Clone, Default)]
pub(crate) struct Options(BTreeMap<String, String>);

impl Options {
    /// `None` for a text that is not a connection string. It may have options that nobody knows.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match URLS.iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) => Self::parse_url(rest),
            None => Self::parse_pairs(text),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?;
        // As libpq has it: an empty value is none.
        (!value.is_empty()).then_some(value)
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// Sets what is not set yet.
    pub(crate) fn complete(&mut self, key: &str, value: &str) {
        if self.get(key).is_none() && !value.is_empty() {
            self.set(key, value);
        }
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let value = self.0.remove(key)?;
        (!value.is_empty()).then_some(value)
    }

    /// The options as a connection string, which `postgres` reads.
    pub(crate) fn to_text(&self) -> String {
        let pair = |(key, value): (&String, &String)| {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            format!("{key}='{value}'")
        };
        let set = self.0.iter().filter(|(_, value)| !value.is_empty());
        set.map(pair).collect::<Vec<_>>().join(" ")
    }

    /// `host=h port=5432` (PostgreSQL manual, 34.1.1.1).
    fn parse_pairs(text: &str) -> Option<Self> {
        let mut options = Self::default();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let key = key.trim_end();
            if key.is_empty() || key.contains(char::is_whitespace) {
                return None;
            }
            let (value, after) = value(after.trim_start())?;
            options.set(key, &value);
            rest = after.trim_start();
        }
        Some(options)
    }

    /// `user:password@host:port,host:port/dbname?key=value` (manual, 34.1.1.2).
    fn parse_url(rest: &str) -> Option<Self> {
        let mut options = Self::default();
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = place.split_once('/').unwrap_or((place, ""));
        let (login, hosts) = place.rsplit_once('@').unwrap_or(("", place));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let login = [("user", user), ("password", password), ("dbname", database)];
        for (key, value) in login {
            options.complete(key, &decode(value)?);
        }
        let hosts: Vec<(String, &str)> = hosts.split(',').map(host).collect::<Option<_>>()?;
        let names: Vec<&str> = hosts.iter().map(|(name, _)| &**name).collect();
        let ports: Vec<&str> = hosts.iter().map(|(_, port)| *port).collect();
        for (key, list) in [("host", names), ("port", ports)] {
            if list.iter().any(|it| !it.is_empty()) {
                options.set(key, &list.join(","));
            }
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=')?;
            options.set(&decode(key)?, &decode(value)?);
        }
        Some(options)
    }
}

/// A value, quoted or not, and what comes after it.
fn value(text: &str) -> Option<(String, &str)> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Some((value, &text[at..])),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

/// A host and its port. An address of IPv6 is in brackets.
fn host(text: &str) -> Option<(String, &str)> {
    if let Some(text) = text.strip_prefix('[') {
        let (address, port) = text.split_once(']')?;
        let port = match port {
            "" => "",
            port => port.strip_prefix(':')?,
        };
        return Some((address.to_owned(), port));
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    Some((decode(name)?, port))
}

/// Replaces `%41` by `A`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use pg_peers::postgres;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let options = Options::parse(text).unwrap_or_else(|| panic!("{text}"));
        options.0.into_iter().collect()
    }

    fn expect(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assert_eq!(pairs(text), expected, "{text}");
    }

    #[test]
    fn pairs_are_read_as_libpq_reads_them() {
        expect("", &[]);
        expect(
            r"host = h  password='a \'b\\ c' user=x\ y dbname=''",
            &[
                ("dbname", ""),
                ("host", "h"),
                ("password", r"a 'b\ c"),
                ("user", "x y"),
            ],
        );
        for wrong in ["localhost", "a b=c", "=c", "password='a"] {
            assert!(Options::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        expect(
            "postgres://u%40x:p%2Fw@h:5433/db?sslmode=require&service=s",
            &[
                ("dbname", "db"),
                ("host", "h"),
                ("password", "p/w"),
                ("port", "5433"),
                ("service", "s"),
                ("sslmode", "require"),
                ("user", "u@x"),
            ],
        );
        expect(
            "postgresql://[::1]:1,b/",
            &[("host", "::1,b"), ("port", "1,")],
        );
        expect("postgres://%2Frun%2Fpg/", &[("host", "/run/pg")]);
        expect("postgres://", &[]);
        for wrong in [
            "postgres://h/db?x",
            "postgres://%zz@h",
            "postgres://[::1",
            "postgres://%ff@h",
        ] {
            assert!(Options::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_by_the_driver() {
        let mut options =
            Options::parse("postgres://u:a%27b%5C%20c@h1:1,h2:2/db").expect("options");
        options.complete("user", "other");
        options.complete("connect_timeout", "3");
        let text = options.to_text();
        let config: postgres::Config = text.parse().expect(&text);
        assert_eq!(config.get_user(), Some("u"));
        assert_eq!(config.get_password(), Some(&br"a'b\ c"[..]));
        assert_eq!(config.get_ports(), [1, 2]);
        assert_eq!(config.get_hosts().len(), 2);
    }
}
