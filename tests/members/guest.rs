//! Members as guests in somebody else's database: what its operator sees of them, and what its users could do to them.

use std::time::{Duration, Instant};

use pg_peers::postgres::{Client, NoTls};
use pg_peers::{Cluster, Config};

use crate::support::*;

/// A server that keeps statistics of statements, whose entries are few; `None` where PostgreSQL came without the extension.
fn start_with_statistics() -> Option<Server> {
    let mut server = Server::start();
    let available = "SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'";
    let rows = server.client().query(available, &[]).expect("rows");
    if rows.is_empty() {
        let fetched = std::env::var_os("PG_PEERS_FETCH").is_some();
        assert!(fetched, "PostgreSQL has no pg_stat_statements");
        eprintln!("skipped: this PostgreSQL came without pg_stat_statements");
        return None;
    }
    server.run("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
    server.restart(Stop::Fast);
    server.run("CREATE EXTENSION pg_stat_statements");
    server.run("ALTER SYSTEM SET pg_stat_statements.track_utility = on");
    server.run("SELECT pg_reload_conf()");
    Some(server)
}

#[test]
fn ten_members_leave_few_entries_among_the_statements() {
    let Some(server) = start_with_statistics() else {
        return;
    };
    let mut operator = server.client();
    let mut entries = move || -> i64 {
        let count = "SELECT count(*) FROM pg_stat_statements";
        operator.query_one(count, &[]).expect("a row").get(0)
    };
    entries();
    let before = entries();
    let members: Vec<Cluster> = (0..10)
        .map(|n| {
            Config::new(format!("m{n}"))
                .heartbeat_interval(Duration::from_secs(1))
                .join(&server.params())
                .expect("valid")
        })
        .collect();
    for member in &members {
        member.wait_for_peers(9, PATIENCE).expect("everybody");
    }
    let joined = entries();
    let announced =
        |members: &[Cluster]| -> u64 { members.iter().map(|it| it.status().announced).sum() };
    let (said, start) = (announced(&members), Instant::now());
    let time = Duration::from_secs(match std::env::var_os("PG_PEERS_LONG") {
        Some(_) => 60,
        None => 10,
    });
    std::thread::sleep(time.saturating_sub(start.elapsed()));
    assert!(announced(&members) - said > 9 * time.as_secs() / 2);
    let after = entries();
    println!(
        "entries: {} by the time all have joined, {} after",
        joined - before,
        after - joined
    );
    assert!(joined - before <= 60, "{before} {joined}");
    assert!(after - joined <= 5, "{joined} {after}");
}

/// What the search path of the role finds first, instead of what the system has of that name: each notes that it was called.
const TRAPS: &str = "
    CREATE SEQUENCE public.trapped;
    GRANT ALL ON SEQUENCE public.trapped TO PUBLIC;
    CREATE FUNCTION public.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN ''; END $$;
    CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN ''; END $$;
    CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); END $$;
    CREATE FUNCTION public.pg_backend_pid() RETURNS integer LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN 1; END $$;
    CREATE FUNCTION public.pg_postmaster_start_time() RETURNS timestamptz LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN NULL; END $$;
    CREATE FUNCTION public.octet_length(text) RETURNS integer LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN 1; END $$;
    CREATE FUNCTION public.pg_terminate_backend(integer) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN true; END $$;
    CREATE FUNCTION public.pg_stat_get_activity(integer) RETURNS TABLE (pid integer) LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); END $$;
    CREATE FUNCTION public.same(integer, integer) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN false; END $$;
    CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN false; END $$;
    CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = integer, RIGHTARG = integer);
    CREATE OPERATOR public.<> (FUNCTION = public.same, LEFTARG = integer, RIGHTARG = integer);
    CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = text, RIGHTARG = text);
    CREATE FUNCTION public.is_checked(text) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN true; END $$;
    CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.is_checked(VALUE));
    CREATE DOMAIN public.int4 AS pg_catalog.int4 CHECK (public.is_checked(VALUE::pg_catalog.text));
    CREATE FUNCTION public.to_numbers(pg_catalog.text) RETURNS pg_catalog.int4[] LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_catalog.nextval('public.trapped'); RETURN NULL; END $$;
    CREATE CAST (pg_catalog.text AS pg_catalog.int4[]) WITH FUNCTION public.to_numbers(pg_catalog.text) AS IMPLICIT;
    CREATE ROLE app LOGIN;
    ALTER ROLE app SET search_path = pg_temp, public, pg_catalog;
";

/// Statements that meet one trap each, as who does not qualify names would say them.
const CARELESS: [&str; 13] = [
    "SELECT set_config('work_mem', '1MB', false)",
    "SELECT current_setting('work_mem')",
    "SELECT pg_notify('c', 'p')",
    "SELECT pg_backend_pid()",
    "SELECT pg_postmaster_start_time()",
    "SELECT octet_length('abc')",
    "SELECT pg_terminate_backend(1)",
    "SELECT pid FROM pg_stat_get_activity(1)",
    "SELECT 1 = 1",
    "SELECT 1 <> 1",
    "SELECT 'a'::pg_catalog.text = 'a'",
    "SELECT CAST('a' AS text)",
    "SELECT pid FROM pg_stat_activity",
];

/// A session of the role's, in which a table of that role hides the view of the sessions.
fn shadowed(params: &str) -> Result<Client, postgres::Error> {
    let mut client = Client::connect(params, NoTls)?;
    client.batch_execute(
        "CREATE TEMPORARY VIEW pg_stat_activity AS \
         SELECT pg_catalog.nextval('public.trapped')::pg_catalog.int4 AS pid, ''::pg_catalog.text AS application_name",
    )?;
    Ok(client)
}

#[test]
fn nothing_runs_that_others_planted() {
    let mut server = Server::start();
    server.run(TRAPS);
    let params = server
        .params()
        .replace("user=postgres", "user=app dbname=postgres");
    let mut operator = server.client();
    let mut trapped = move || -> i64 {
        let last = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.trapped";
        operator.query_one(last, &[]).expect("a row").get(0)
    };
    let mut careless = shadowed(&params).expect("a session");
    for (n, statement) in CARELESS.iter().enumerate() {
        careless.batch_execute(statement).expect(statement);
        assert!(trapped() > n as i64, "no trap: {statement}");
    }
    let before = trapped();
    let members = ["a", "b", "c"].map(|name| {
        let params = params.clone();
        Config::new(name)
            .heartbeat_interval(Duration::from_secs(1))
            .join_with(move || shadowed(&params))
            .expect("valid")
    });
    for member in &members {
        member.wait_for_peers(2, PATIENCE).expect("everybody");
    }
    for member in &members {
        (0..3).for_each(|_| drop(next(member, "online, or a join")));
    }
    let killed = Process::join_at(&params, "killed", SHORT * 100);
    for member in &members {
        expect(member, "join killed");
    }
    killed.kill();
    for member in &members {
        expect(member, "leave killed: SessionGone");
    }
    // A session that hangs is given up, and ended by the next.
    let [a, ..] = &members;
    server.freeze_backends(&["a"]);
    expect(a, "offline");
    server.thaw();
    expect(a, "online");
    assert_eq!(trapped(), before, "something ran");
}

#[test]
fn an_operator_knows_our_statements_by_their_mark() {
    let server = Server::start();
    let _members = acquainted(["a", "b"].map(Config::new), &server.params());
    let mut operator = server.client();
    let rows = operator
        .query(
            "SELECT query FROM pg_stat_activity WHERE application_name IN ('a', 'b')",
            &[],
        )
        .expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        let query: String = row.get(0);
        assert!(query.starts_with("/* pg-peers */ "), "{query}");
    }
}

#[test]
fn a_role_without_the_functions_uses_statements() {
    let server = Server::start();
    server.run(
        "CREATE ROLE app LOGIN; \
         REVOKE EXECUTE ON FUNCTION pg_notify, set_config FROM PUBLIC",
    );
    let params = server
        .params()
        .replace("user=postgres", "user=app dbname=postgres");
    let [a, b] = acquainted([Config::new("a"), Config::new("b")], &params);
    fence(&a, &b);
    let query = "SELECT query FROM pg_stat_activity WHERE pid = $1";
    let row = server
        .client()
        .query_one(query, &[&backend_of(&server, "a")]);
    let query: String = row.expect("a row").get(0);
    assert!(query.starts_with("/* pg-peers */ NOTIFY "), "{query}");
}
