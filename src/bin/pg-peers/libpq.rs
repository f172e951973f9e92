//! What `psql` finds out by itself: the environment, the service file and the password file of libpq. Pure: what there is to
//! read is a parameter.

use std::path::PathBuf;

use crate::conninfo::Options;

/// Which option of a connection a variable is (PostgreSQL manual, 34.15).
const VARIABLES: [(&str, &str); 11] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
];

/// What a service may say besides. All else that libpq knows is of no use here.
const OF_SERVICE: [&str; 4] = [
    "channel_binding",
    "keepalives",
    "keepalives_idle",
    "load_balance_hosts",
];

/// Where Debian's and PostgreSQL's own packages have their sockets.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Where the file of a system's services is, in Debian's packages and in others.
const SYSTEM_SERVICES: [&str; 2] = ["/etc/postgresql-common", "/etc"];

/// What is read: the environment and files, or what a test has instead.
pub(crate) trait Surroundings {
    fn variable(&self, name: &str) -> Option<String>;
    /// `None` if it is not there, or has secrets and others may read it. An error if it cannot be read, with the reason.
    fn file(&self, path: &std::path::Path, is_secret: bool) -> Result<Option<String>, String>;
    fn exists(&self, path: &std::path::Path) -> bool;
    /// The name of the user who runs this program.
    fn user(&self) -> Option<String>;
}

/// Completes the options as libpq does: by the service, then by the environment, then by its defaults, and the password by the
/// password file.
pub(crate) fn complete(options: &mut Options, around: &impl Surroundings) -> Result<(), String> {
    let variable = |name| around.variable(name).unwrap_or_default();
    options.complete("service", &variable("PGSERVICE"));
    if let Some(service) = options.take("service") {
        read_service(options, &service, around)?;
    }
    for (name, key) in VARIABLES {
        options.complete(key, &variable(name));
    }
    options.complete("user", &around.user().unwrap_or_default());
    if options.get("host").is_none() && options.get("hostaddr").is_none() {
        complete_host(options, around)?;
    }
    let passfile = options.take("passfile");
    if options.get("password").is_none() {
        read_password(options, passfile, around)?;
    }
    Ok(())
}

/// The socket of a server on this machine, as `psql` takes it, if there is one.
fn complete_host(options: &mut Options, around: &impl Surroundings) -> Result<(), String> {
    let socket = format!(".s.PGSQL.{}", options.get("port").unwrap_or("5432"));
    let has_socket = |directory: &&&str| around.exists(&PathBuf::from(directory).join(&socket));
    let Some(directory) = SOCKETS.iter().find(has_socket) else {
        return Err(format!(
            "no host: write CONNECTION as host=... user=... dbname=... or postgres://user@host/dbname, or set DATABASE_URL \
             or PGHOST (there is no server on this machine either: no {socket} in {})",
            SOCKETS.join(" or ")
        ));
    };
    options.set("host", directory);
    Ok(())
}

fn read_service(
    options: &mut Options,
    service: &str,
    around: &impl Surroundings,
) -> Result<(), String> {
    let files = service_files(options, around);
    options.take("servicefile");
    for file in &files {
        let Some(text) = around.file(file, false)? else {
            continue;
        };
        let Some(found) = find_service(&text, service) else {
            continue;
        };
        for (key, value) in found {
            match service_option(key, value) {
                Some((key, value)) => options.complete(key, &value),
                None => continue,
            }
        }
        return Ok(());
    }
    let files: Vec<String> = files.iter().map(|it| it.display().to_string()).collect();
    Err(format!(
        "no service {service:?} in {}: it is a line [{service}], and lines such as host=... below it",
        files.join(" or ")
    ))
}

fn service_files(options: &Options, around: &impl Surroundings) -> Vec<PathBuf> {
    let variable = |name| around.variable(name).filter(|value| !value.is_empty());
    let own = options.get("servicefile").map(str::to_owned);
    let own = own.or_else(|| variable("PGSERVICEFILE")).map(PathBuf::from);
    let home = variable("HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(home?.join(".pg_service.conf")));
    let systems = match variable("PGSYSCONFDIR") {
        Some(directory) => vec![directory],
        None => SYSTEM_SERVICES.map(str::to_owned).to_vec(),
    };
    let systems = systems.into_iter().map(PathBuf::from);
    own.into_iter()
        .chain(systems.map(|directory| directory.join("pg_service.conf")))
        .collect()
}

/// What the service file says of a service (manual, 34.17).
fn find_service<'a>(text: &'a str, service: &str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(Vec::new);
        } else if let (Some(pairs), Some(pair)) = (&mut found, line.split_once('=')) {
            pairs.push(pair);
        }
    }
    found
}

/// An option of a service in the words of the driver; `None` for what is of no use here.
fn service_option<'a>(key: &'a str, value: &str) -> Option<(&'a str, String)> {
    let is_known = VARIABLES.iter().any(|(_, known)| *known == key) || OF_SERVICE.contains(&key);
    match key {
        "keepalives_count" => Some(("keepalives_retries", value.to_owned())),
        // In milliseconds there, in seconds here.
        "tcp_user_timeout" => {
            let millis: u64 = value.parse().ok()?;
            Some((key, millis.div_ceil(1_000).to_string()))
        }
        _ => is_known.then(|| (key, value.to_owned())),
    }
}

fn read_password(
    options: &mut Options,
    passfile: Option<String>,
    around: &impl Surroundings,
) -> Result<(), String> {
    let home = || Some(PathBuf::from(around.variable("HOME")?).join(".pgpass"));
    let Some(path) = passfile.map(PathBuf::from).or_else(home) else {
        return Ok(());
    };
    let Some(text) = around.file(&path, true)? else {
        return Ok(());
    };
    let passwords: Vec<Option<String>> = places(options)
        .iter()
        .map(|place| find_password(&text, place))
        .collect();
    match &passwords[..] {
        [Some(first), others @ ..] if others.iter().all(|it| it.as_ref() == Some(first)) => {
            options.set("password", first);
            Ok(())
        }
        all if all.iter().all(Option::is_none) => Ok(()),
        // The driver has one password for all, and no host must see the password of another.
        _ => Err(format!(
            "the hosts do not have the same password in {}: connect to one of them, or set PGPASSWORD",
            path.display()
        )),
    }
}

/// Host, port, database and user of each host.
fn places(options: &Options) -> Vec<[String; 4]> {
    let list = |key| -> Vec<&str> { options.get(key).unwrap_or_default().split(',').collect() };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let user = options.get("user").unwrap_or_default();
    let database = options.get("dbname").unwrap_or(user);
    let place = |n: usize| {
        let of = |list: &[&str]| list.get(n).copied().unwrap_or_default().to_owned();
        let name = Some(of(&names)).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| of(&addresses));
        let name = match SOCKETS.contains(&&*name) {
            true => "localhost".to_owned(),
            false => name,
        };
        let port = ports.get(n).or_else(|| ports.first()).copied();
        let port = port.filter(|port| !port.is_empty()).unwrap_or("5432");
        [name, port.to_owned(), database.to_owned(), user.to_owned()]
    };
    (0..names.len().max(addresses.len())).map(place).collect()
}

/// The password of the first line that fits: `host:port:database:user:password` (manual, 34.16).
fn find_password(text: &str, place: &[String; 4]) -> Option<String> {
    let fits = |line: &str| {
        let mut fields = fields(line);
        let password = (fields.len() == 5).then(|| fields.pop())??;
        let mut wanted = fields.iter().zip(place);
        let all = wanted.all(|(field, value)| field == "*" || field == value);
        (all && !password.is_empty()).then_some(password)
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(fits).next()
}

/// The five fields of a line. A colon or a backslash in one has a backslash before it; the password goes on to the end.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.trim_end_matches('\r').chars();
    while let Some(c) = chars.next() {
        let is_end = c == ':' && fields.len() < 5;
        if is_end {
            fields.push(String::new());
        } else if let Some(field) = fields.last_mut() {
            match c {
                '\\' => field.extend(chars.next()),
                c => field.push(c),
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use pg_peers::postgres;

    use super::*;

    #[derive(Default)]
    struct Around {
        variables: BTreeMap<&'static str, &'static str>,
        files: BTreeMap<&'static str, &'static str>,
    }

    impl Surroundings for Around {
        fn variable(&self, name: &str) -> Option<String> {
            self.variables.get(name).map(ToString::to_string)
        }

        fn file(&self, path: &Path, _: bool) -> Result<Option<String>, String> {
            let text = self.files.get(path.to_str().expect("a path"));
            Ok(text.map(ToString::to_string))
        }

        fn exists(&self, path: &Path) -> bool {
            self.files.contains_key(path.to_str().expect("a path"))
        }

        fn user(&self) -> Option<String> {
            Some("me".to_owned())
        }
    }

    fn around(variables: &[(&'static str, &'static str)]) -> Around {
        Around {
            variables: variables.iter().copied().collect(),
            ..Around::default()
        }
    }

    fn completed(text: &str, around: &Around) -> Result<String, String> {
        let mut options = Options::parse(text).expect(text);
        complete(&mut options, around).map(|()| options.to_text())
    }

    #[test]
    fn the_environment_completes_what_is_not_written() {
        let variables = [
            ("PGHOST", "h"),
            ("PGPORT", "1"),
            ("PGUSER", "u"),
            ("PGDATABASE", "d"),
            ("PGPASSWORD", "p"),
            ("PGSSLMODE", "require"),
            ("PGCONNECT_TIMEOUT", "7"),
        ];
        assert_eq!(
            completed("", &around(&variables)).expect("options"),
            "connect_timeout='7' dbname='d' host='h' password='p' port='1' sslmode='require' user='u'"
        );
        assert_eq!(
            completed("host=x user=y", &around(&variables[..3])).expect("options"),
            "host='x' port='1' user='y'"
        );
    }

    #[test]
    fn without_a_host_it_is_the_server_of_this_machine() {
        let mut here = around(&[]);
        let error = completed("user=nobody", &here).expect_err("no host");
        assert!(error.contains("no host") && error.contains("PGHOST"));
        here.files.insert("/tmp/.s.PGSQL.5432", "");
        assert_eq!(completed("", &here).expect("one"), "host='/tmp' user='me'");
        assert!(completed("port=1", &here).is_err());
    }

    #[test]
    fn a_service_comes_before_the_environment() {
        let mut here = around(&[("PGSERVICE", "prod"), ("HOME", "/home/me"), ("PGPORT", "1")]);
        let text = "# ours\n[test]\nhost=t\n[prod]\nhost=p\nport=2\nuser=u\ntcp_user_timeout=1500\n\
                    gssencmode=disable\nkeepalives_count=4\n[other]\nhost=o\n";
        here.files.insert("/home/me/.pg_service.conf", text);
        assert_eq!(
            completed("user=x", &here).expect("options"),
            "host='p' keepalives_retries='4' port='2' tcp_user_timeout='2' user='x'"
        );
        assert_eq!(
            completed("service=test", &here).expect("options"),
            "host='t' port='1' user='me'"
        );
        let error = completed("service=nope", &here).expect_err("none");
        assert!(error.contains("\"nope\"") && error.contains("/home/me/.pg_service.conf"));
    }

    #[test]
    fn a_missing_password_is_looked_up() {
        let mut here = around(&[("HOME", "/home/me"), ("PGPASSFILE", "")]);
        let text = "#h:5432:*:u:commented\nh:5432:other:u:wrong\nh:*:d\\:b:u:a\\:b:c\\\\\n*:*:*:me:mine\n\
                    localhost:5432:*:s:socket\nshort:line\n";
        here.files.insert("/home/me/.pgpass", text);
        let password = |text: &str| {
            let completed = completed(text, &here).expect("options");
            let config: postgres::Config = completed.parse().expect("options");
            let password = config.get_password().map(<[u8]>::to_vec);
            password.map(|it| String::from_utf8(it).expect("text"))
        };
        let found = |text| password(text).unwrap_or_default();
        assert_eq!(found("host=h user=u dbname=d:b"), "a:b:c\\");
        assert_eq!(found("host=h user=u dbname=other"), "wrong");
        assert_eq!(found("host=any"), "mine");
        assert_eq!(found("host=/tmp user=s"), "socket");
        assert_eq!(found("host=h user=u dbname=other password=own"), "own");
        assert_eq!(password("host=x user=u"), None);
    }

    #[test]
    fn no_host_is_shown_the_password_of_another() {
        let mut here = around(&[("PGPASSFILE", "/p")]);
        here.files
            .insert("/p", "a:*:*:*:first\nb:*:*:*:second\nc:*:*:*:first\n");
        let password = |hosts: &str| completed(&format!("host={hosts} user=u"), &here);
        assert!(password("a,c").expect("one").contains("password='first'"));
        for hosts in ["a,b", "a,x"] {
            let error = password(hosts).expect_err(hosts);
            assert!(error.contains("PGPASSWORD") && !error.contains("first"));
        }
    }
}
