//! What is told of a connection string that is not valid, without showing its password.
//!
//! The parser's own words can contain a part of the password: one with a space, `&`, `?` or `@` in it is taken apart, and a
//! piece is taken for an option that is not known. So they are passed on only if they cannot come from there.

use std::error::Error as StdError;

use crate::error::Error;

/// What libpq can be told of TLS besides, and providers put into their URLs.
const OTHERS_TLS_OPTIONS: [&str; 22] = [
    "gssencmode",
    "requiressl",
    "ssl",
    "ssl_ca_certs",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslaccept",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslfactory",
    "sslhostnameverifier",
    "sslidentity",
    "sslinline",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "sslsnihost",
    "uselibpqcompat",
];

/// What other drivers, their pools and their frameworks take in a connection string, in small letters: those of Prisma, JDBC,
/// SQLAlchemy and asyncpg, pgx and lib/pq, Django, node-postgres, Npgsql, Ecto, Rails, sqlx, and libpq itself. Nothing here needs
/// them.
const OTHERS_OPTIONS: [&str; 102] = [
    "advisory_locks",
    "application_name_prefix",
    "applicationname",
    "async_fallback",
    "autosave",
    "binary_parameters",
    "binarytransfer",
    "cancelsignaltimeout",
    "checkout_timeout",
    "client_encoding",
    "command_timeout",
    "conn_health_checks",
    "conn_max_age",
    "connection_limit",
    "connectionlimit",
    "connectiontimeoutmillis",
    "connecttimeout",
    "currentschema",
    "datestyle",
    "default_query_exec_mode",
    "default_transaction_isolation",
    "defaultrowfetchsize",
    "description_cache_capacity",
    "disable_prepared_binary_result",
    "disable_server_side_cursors",
    "encoding",
    "fallback_application_name",
    "hostrecheckseconds",
    "idle_in_transaction_session_timeout",
    "idle_timeout",
    "idletimeoutmillis",
    "keepalive",
    "krbspn",
    "krbsrvname",
    "loadbalancehosts",
    "lock_timeout",
    "logintimeout",
    "max",
    "max_cacheable_statement_size",
    "max_cached_statement_lifetime",
    "max_connections",
    "max_idle_connection_lifetime",
    "max_lifetime",
    "max_overflow",
    "max_pool_size",
    "maxpoolsize",
    "min_pool_size",
    "minpoolsize",
    "multiplexing",
    "passfile",
    "pgbouncer",
    "pool",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_max_conns",
    "pool_min_conns",
    "pool_mode",
    "pool_pre_ping",
    "pool_recycle",
    "pool_size",
    "pool_timeout",
    "pooling",
    "prefer_simple_protocol",
    "preferquerymode",
    "prepare",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "prepared_statements",
    "preparedstatementcachequeries",
    "preparedstatementcachesizemib",
    "preparethreshold",
    "query_timeout",
    "queue_target",
    "reaping_frequency",
    "replication",
    "require_auth",
    "requirepeer",
    "rewritebatchedinserts",
    "schema",
    "search_path",
    "server_settings",
    "service",
    "servicefile",
    "single_use_connections",
    "socket_timeout",
    "sockettimeout",
    "statement-cache-capacity",
    "statement_cache_capacity",
    "statement_cache_mode",
    "statement_cache_size",
    "statement_limit",
    "statement_timeout",
    "stringtype",
    "supa",
    "targetservertype",
    "tcpkeepalive",
    "timeout",
    "timezone",
    "variables",
    "workaround",
];

const URLS: [&str; 2] = ["postgres://", "postgresql://"];

/// Tells what is wrong with a connection string that the parser refused.
pub(super) fn unparsable(params: &str, error: &postgres::Error) -> Error {
    let reason = reason(error);
    let option = reason
        .strip_prefix("unknown option `")
        .and_then(|rest| rest.strip_suffix('`'))
        .unwrap_or_default();
    let is_of = |options: &[&str]| options.contains(&&*option.to_ascii_lowercase());
    let (is_tls, is_others) = (is_of(&OTHERS_TLS_OPTIONS), is_of(&OTHERS_OPTIONS));
    let invalid = reason.starts_with("invalid value for option");
    let advice = if is_tls {
        "leave it out: certificates and what is verified are up to the connector that `join_tls` takes"
    } else if option.eq_ignore_ascii_case("keepalives_count") {
        "write keepalives_retries"
    } else if is_others {
        "leave it out: it is for other drivers, and nothing here needs it"
    } else if invalid && reason.contains("`sslmode`") {
        "sslmode may be disable, prefer or require; for verify-ca or verify-full write require, since what is verified is \
         up to the connector that `join_tls` takes"
    } else if invalid && reason.contains("`channel_binding`") {
        "channel_binding may be disable, prefer or require"
    } else if invalid && reason.contains("`target_session_attrs`") {
        "target_session_attrs may be any, read-write or read-only; for primary write read-write"
    } else if has_other_scheme(params) {
        "a URL begins with postgres:// or postgresql://, without the name of a driver"
    } else {
        "write host=... user=... dbname=... or postgres://user@host/dbname, with special characters percent-encoded in a URL \
         and in single quotes elsewhere; leave out what is for other drivers"
    };
    let harmless = is_tls || is_others || invalid || cannot_be_of_password(params, option, &reason);
    let reason = match harmless {
        true => &reason,
        false => "the reason is not shown, since it may show the password",
    };
    Error::config(format!(
        "the connection string is not valid ({reason}): {advice}"
    ))
}

fn reason(error: &postgres::Error) -> String {
    error.source().map_or_else(String::new, ToString::to_string)
}

/// Whether the parser cannot have its reason from a piece of the password.
fn cannot_be_of_password(params: &str, option: &str, reason: &str) -> bool {
    let is_url = URLS.iter().any(|scheme| params.starts_with(scheme));
    let may_hold_credentials = params.contains('@');
    if option.is_empty() {
        return !may_hold_credentials && find_pass(params).is_none();
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !option.chars().all(is_plain) || params.matches(option).count() > 1 {
        return false;
    }
    // Where the option is. What comes before is not the password, or ends with it.
    let options = match is_url {
        true => {
            // As the parser does: a password with `@` and `?` in it, wherever it stands, leads it into the midst of it.
            let (user, host) = params.split_once('@').unwrap_or(("", params));
            match host.split_once('?') {
                Some((_, query)) if !user.contains('?') && !query.contains('@') => query,
                _ => return false,
            }
        }
        false if may_hold_credentials => return false,
        false => params,
    };
    let Some(at) = find_pass(options) else {
        return true;
    };
    // What comes before the password is enough to fail for this reason.
    let before = &params[..params.len() - options.len() + at];
    let failed = before.parse::<postgres::Config>().err();
    failed.is_some_and(|error| self::reason(&error) == reason)
}

/// Where something begins that is called a password.
fn find_pass(text: &str) -> Option<usize> {
    let text = text.to_ascii_lowercase();
    ["pass", "pwd"]
        .iter()
        .filter_map(|word| text.find(word))
        .min()
}

/// Whether this is a URL as other drivers write it.
fn has_other_scheme(params: &str) -> bool {
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+:.-_".contains(c);
    let scheme = params.split_once("://").map(|(scheme, _)| scheme);
    let is_known = URLS.iter().any(|url| params.starts_with(url));
    !is_known && scheme.is_some_and(|scheme| scheme.chars().all(is_scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(params: &str) -> String {
        let error = params.parse::<postgres::Config>().expect_err(params);
        let error = unparsable(params, &error);
        assert!(error.is_config(), "{params}");
        assert!(error.source().is_none(), "{params}");
        assert!(
            format!("{error:?}").contains(&error.to_string()),
            "{error:?}"
        );
        error.to_string()
    }

    #[test]
    fn no_piece_of_a_password_is_shown() {
        let passwords = [
            "sekrit7 sekrit8=1",
            "sekrit7&sekrit8=1",
            "sekrit7?sekrit8=1",
            "sekrit7@sekrit8?sekrit9=1",
            "sekrit7@sekrit8/sekrit9?sekrit6=1&sekrit5=2",
            "sekrit7@?a@?sekrit8=1",
            "sekrit7/sekrit8?sekrit9=1",
            "sekrit7' sekrit8=1",
            "'sekrit7' sekrit8=1",
            "'sekrit7 sekrit8=1",
            "sekrit7:sekrit8",
            "sekrit7=sekrit8 sekrit9",
            "%73ekrit7%sekrit8&%ff=sekrit9",
            "1?sekrit7=1",
        ];
        let forms = [
            "host=h user=u password={}",
            "password={} host=h hots=x",
            "user=u PASSWORD={}",
            "user=u passwort={}",
            "user=u pwd={} host=h",
            "host=h;username=u;password={}",
            "dbname=postgres://u:{}@h/db",
            "u:{}@h/db",
            "postgres://u:{}@h/db",
            "postgres://u:{}@h/db?hots=x",
            "postgres://u:{}@h/db?schema=public&application_name=a@b",
            "postgres://u@h/db?password={}",
            "postgres://u@h/db?sslpassword={}",
            "postgres://u@h/db?password={}&schema=public",
            "postgres://h/db?user=u&password={}",
            "postgresql+asyncpg://u:{}@h/db",
            "jdbc:postgresql://h/db?user=u&password={}",
        ];
        for form in forms {
            for password in passwords {
                let params = form.replace("{}", password);
                if params.parse::<postgres::Config>().is_err() {
                    let told = told(&params);
                    assert!(!told.contains("ekrit"), "{params}: {told}");
                }
            }
        }
        assert!(!told("postgres://u:hunter2@h/db?hunter2=1").contains("hunter2"));
    }

    #[test]
    fn options_of_other_drivers_are_named_and_can_be_left_out() {
        for option in [
            "schema=public",
            "pgbouncer=true",
            "pool_timeout=5",
            "connection_limit=1",
            "statement_cache_size=0",
            "prepareThreshold=0",
            "currentSchema=app",
            "socket_timeout=3",
            "sslrootcert=system",
            "default_query_exec_mode=simple_protocol",
            "service=app",
        ] {
            let name = option.split('=').next().expect("a name");
            for params in [
                format!("postgres://u@h/db?{option}"),
                format!("postgres://u:hunter2@h/db?sslmode=require&{option}"),
                format!("host=h user=u {option} password=hunter2"),
                format!("host=h user=u password=hunter2 {option}"),
            ] {
                let told = told(&params);
                let named = format!("(unknown option `{name}`): leave it out");
                assert!(told.contains(&named), "{told}");
                assert!(!told.contains("hunter2"), "{told}");
            }
        }
    }

    #[test]
    fn what_is_no_option_of_anybody_is_named() {
        for params in [
            "hots=localhost",
            "hots=localhost password=hunter2",
            "postgres://h/db?hots=x",
            "postgres://u:hunter2@h/db?hots=x",
            "postgres://u:hunt@er2@h/db?hots=x",
            "postgres://u@h/db?hots=x&password=hunter2",
        ] {
            let told = told(params);
            assert!(told.contains("unknown option `hots`"), "{told}");
            assert!(!told.contains("er2"), "{told}");
        }
        assert!(told("host=h hots_1=x").contains("unknown option `hots_1`"));
        assert!(told("host=h hots-1=x").contains("is not shown"));
    }

    #[test]
    fn a_reason_without_an_option_is_shown_if_there_is_no_password() {
        for (params, shown) in [
            ("host=h x y", true),
            ("host=h password=x y z", false),
            ("host=h application_name=a@b x y", false),
        ] {
            let told = told(params);
            assert_eq!(!told.contains("is not shown"), shown, "{told}");
        }
    }

    #[test]
    fn what_may_be_written_instead_is_said() {
        for (params, advice) in [
            (
                "host=h sslmode=verify-full",
                "for verify-ca or verify-full write require",
            ),
            ("host=h channel_binding=yes", "disable, prefer or require"),
            ("host=h target_session_attrs=primary", "write read-write"),
            ("host=h keepalives_count=3", "write keepalives_retries"),
            (
                "jdbc:postgresql://h/db?user=u",
                "without the name of a driver",
            ),
            (
                "postgresql+psycopg://u:p@h/db",
                "without the name of a driver",
            ),
            ("localhost", "write host=..."),
            ("host=h port=x", "write host=..."),
        ] {
            let told = told(params);
            assert!(told.contains(advice), "{told}");
        }
    }

    #[test]
    fn the_lists_are_sorted_and_in_small_letters() {
        for list in [&OTHERS_TLS_OPTIONS[..], &OTHERS_OPTIONS[..]] {
            assert!(list.is_sorted(), "{list:?}");
            assert!(
                list.iter()
                    .all(|option| *option == option.to_ascii_lowercase())
            );
        }
    }
}
