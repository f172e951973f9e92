//! A private PgBouncer in front of a server.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Server, as_server_user, eventually, free_port, server_user};

/// How the entry of the only database begins.
const DATABASE: &str = "postgres = ";

pub struct PgBouncer {
    child: Child,
    port: u16,
    config: PathBuf,
    _directory: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts one in a pool mode; `None` where the program is not installed, which is said, unless the environment
    /// variable `PG_PEERS_REQUIRE_PGBOUNCER` is set.
    pub fn start(server: &Server, pool_mode: &str) -> Option<Self> {
        Self::start_with(server, pool_mode, "")
    }

    /// The same, with further settings, a line each.
    pub fn start_with(server: &Server, pool_mode: &str, settings: &str) -> Option<Self> {
        let directory = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .expect("a directory");
        let port = free_port();
        let users = directory.path().join("users");
        let config = directory.path().join("ini");
        fs::write(&users, "\"postgres\" \"\"\n").expect("users");
        let text = format!(
            "[databases]\n{}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {}\n\
             pool_mode = {pool_mode}\nlogfile = {}\n{settings}\n",
            database(server),
            users.display(),
            directory.path().join("log").display()
        );
        fs::write(&config, text).expect("configuration");
        if let Some((uid, gid)) = server_user() {
            for path in [directory.path(), &users, &config] {
                chown(path, Some(uid), Some(gid)).expect("a file to give away");
            }
        }
        let child = match spawn(&config) {
            Ok(child) => child,
            Err(e) if std::env::var_os("PG_PEERS_REQUIRE_PGBOUNCER").is_some() => {
                panic!("PgBouncer is required here and cannot be run: {e}")
            }
            Err(e) => {
                eprintln!("SKIPPED: PgBouncer cannot be run: {e}");
                return None;
            }
        };
        let pooler = Self {
            child,
            port,
            config,
            _directory: directory,
        };
        pooler.await_acceptance();
        Some(pooler)
    }

    /// Ends it, with all its sessions.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it and starts it again, in front of this server.
    pub fn lead_to(&mut self, server: &Server) {
        self.stop();
        let text = fs::read_to_string(&self.config).expect("configuration");
        let lines = text.lines().map(|line| match line.starts_with(DATABASE) {
            true => database(server),
            false => line.to_owned(),
        });
        let text: Vec<String> = lines.collect();
        fs::write(&self.config, text.join("\n") + "\n").expect("configuration");
        self.start_again();
    }

    /// Starts it again, on the same port, and waits until it accepts.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.config).expect("PgBouncer");
        self.await_acceptance();
    }

    fn await_acceptance(&self) {
        eventually("PgBouncer accepts", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn params(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres",
            self.port
        )
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `auth_type = any` logs everybody in as the user that this names.
fn database(server: &Server) -> String {
    format!(
        "{DATABASE}user=postgres host=127.0.0.1 port={}",
        server.port()
    )
}

fn spawn(config: &Path) -> std::io::Result<Child> {
    program()
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn program() -> Command {
    // Debian puts it where only root's PATH leads.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("pgbouncer");
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    as_server_user(command)
}
