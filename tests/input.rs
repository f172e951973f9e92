//! Bad input and odd input, from the host and from the channel; and secrets.

mod support;

use std::error::Error;

use pg_peers::Config;
use support::*;

#[test]
fn bad_arguments_are_refused_before_anything_starts() {
    let error = Config::new("")
        .join("host=localhost")
        .expect_err("a bad name");
    assert!(error.is_config());
    assert_eq!(
        error.to_string(),
        "name \"\" is not valid: it must not be empty"
    );
    let error = Config::new("a")
        .join("host=localhost port=high")
        .expect_err("a bad port");
    assert!(
        error.is_config() && error.to_string().contains("port"),
        "{error}"
    );
}

#[test]
fn a_password_appears_in_no_log_error_or_debug_output() {
    keep_logs();
    let server = Server::start();
    server.run("CREATE ROLE app LOGIN PASSWORD 'right'");
    let hba = "host all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(server.data().join("pg_hba.conf"), hba).expect("pg_hba.conf");
    server.run("SELECT pg_reload_conf()");
    let mut shown = String::new();
    for params in [
        format!(
            "host=127.0.0.1 port={} user=app password=hunter2 dbname=postgres",
            server.port()
        ),
        format!(
            "postgres://app:hunter2@127.0.0.1:{}/postgres",
            server.port()
        ),
        "postgres://app:hunter2@127.0.0.1:1/postgres".to_owned(),
    ] {
        let config = Config::new("a");
        shown.push_str(&format!("{config:?}"));
        let a = config.join(&params).expect("valid");
        let event = expect(&a, "offline");
        let status = a.status();
        let error = a
            .wait_online(std::time::Duration::ZERO)
            .expect_err("refused");
        shown.push_str(&format!(
            "{a:?} {event:?} {status:?} {error} {error:?} {:?}",
            error.source()
        ));
    }
    for params in [
        "host=h password=hunter2 x=hunter2",
        "postgres://u:hunter2@h:hunter2/",
    ] {
        let error = Config::new("a").join(params).expect_err("not valid");
        shown.push_str(&format!("{error} {error:?} {:?}", error.source()));
    }
    shown.push_str(&logged().join("\n"));
    assert!(shown.contains("password authentication failed"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
