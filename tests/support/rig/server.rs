// Private throwaway PostgreSQL servers.
//
// A server lives in a new directory, listens on loopback and on a socket in that directory, and is gone when its
// [`Server`] is dropped, also by a panic. A watcher process sees to it even if this process is killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};

use super::{as_server_user, becomes_true, command, eventually, server_user};

/// The longest any step of starting or stopping a server may take.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// One that is free when the server starts.
const ANY_PORT: u16 = 0;

/// Ends the server and removes its directory when standard input ends: that is, when the `Server` is dropped or its
/// process is gone, for whatever reason.
const WATCHER: &str = r#"
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
    kill -CONT "$pid"
    n=0
    while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
    kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"#;

/// A private server with the superuser `postgres`, who needs no password.
pub struct Server {
    directory: Directory,
    port: u16,
    options: Vec<String>,
    postmaster: Option<Child>,
    frozen: Vec<Pid>,
}

/// Where a server lives. It is removed when this is dropped or the process ends.
struct Directory {
    path: PathBuf,
    watcher: Child,
}

/// How to stop a server, as `pg_ctl stop -m` names it.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Ends sessions, then the server.
    Fast,
    /// As a crash, but at once.
    Immediate,
}

impl Server {
    /// Starts a server.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with settings, each `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::try_start(settings).unwrap_or_else(|e| panic!("no PostgreSQL server: {e}"))
    }

    /// As [`start_with`](Self::start_with), for programs that report the error themselves.
    pub fn try_start(settings: &[&str]) -> Result<Self, String> {
        let mut server = Self::prepare(settings)?;
        server.initialise()?;
        server.begin()?;
        Ok(server)
    }

    /// Starts a streaming standby of this server, which accepts sessions that only read.
    pub fn standby(&self) -> Self {
        self.standby_at(ANY_PORT)
    }

    /// The same, on this port.
    pub fn standby_at(&self, port: u16) -> Self {
        self.try_standby(port)
            .unwrap_or_else(|e| panic!("no standby: {e}"))
    }

    fn try_standby(&self, port: u16) -> Result<Self, String> {
        let mut standby = Self::prepare(&[])?;
        standby.port = port;
        let mut backup = command("pg_basebackup")?;
        backup
            .args(["--checkpoint=fast", "--write-recovery-conf", "--no-sync"])
            .arg(format!("--dbname={}", self.params()))
            .arg("--pgdata")
            .arg(standby.data());
        standby.directory.make(backup)?;
        standby.configure()?;
        standby.begin()?;
        Ok(standby)
    }

    /// From now on this role must give its password.
    pub fn require_password(&self, role: &str) {
        self.admit(&format!("host all {role} 127.0.0.1/32 scram-sha-256"));
    }

    /// Puts a line before those of `pg_hba.conf`, and waits until the server goes by it.
    pub fn admit(&self, line: &str) {
        let path = self.data().join("pg_hba.conf");
        let others = fs::read_to_string(&path).expect("pg_hba.conf");
        fs::write(&path, format!("{line}\n{others}")).expect("pg_hba.conf");
        let mut client = self.client();
        let mut loaded = || -> SystemTime {
            let row = client.query_one("SELECT pg_conf_load_time()", &[]);
            row.expect("a time").get(0)
        };
        let before = loaded();
        self.run("SELECT pg_reload_conf()");
        eventually("the server reloads", || loaded() != before);
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.run("SELECT pg_promote()");
    }

    fn prepare(settings: &[&str]) -> Result<Self, String> {
        Ok(Self {
            directory: Directory::new()?,
            port: ANY_PORT,
            options: settings.iter().map(ToString::to_string).collect(),
            postmaster: None,
            frozen: Vec::new(),
        })
    }

    /// Starts the server for the first time.
    fn begin(&mut self) -> Result<(), String> {
        let mut tries = 0;
        while let Err(error) = self.launch() {
            // Somebody else may have taken the port since it was found free.
            tries += 1;
            if tries == 5 || !error.contains("could not bind") {
                return Err(error);
            }
        }
        Ok(())
    }

    /// A connection string over TCP.
    pub fn params(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres", self.port)
    }

    /// A connection string that leads to whichever of the two is the primary.
    pub fn params_or(&self, standby: &Self) -> String {
        self.params_or_at(standby.port)
    }

    /// The same, for a standby that is yet to come.
    pub fn params_or_at(&self, port: u16) -> String {
        format!(
            "host=127.0.0.1,127.0.0.1 port={},{port} user=postgres target_session_attrs=read-write",
            self.port
        )
    }

    /// A connection string over the server's unix socket.
    pub fn socket_params(&self) -> String {
        let directory = self.directory.path.display();
        format!("host={directory} port={} user=postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data(&self) -> PathBuf {
        self.directory.data()
    }

    /// What the server has logged since it was last started.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path.join("log")).unwrap_or_default()
    }

    /// A superuser's session.
    pub fn client(&self) -> Client {
        self.connect(self.port).expect("a session")
    }

    /// Runs statements as the superuser.
    pub fn run(&self, statements: &str) {
        self.client().batch_execute(statements).expect(statements);
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&mut self, how: Stop) {
        self.thaw();
        self.end(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        });
    }

    /// Kills the postmaster with -9; its backends then end by themselves.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
        self.thaw();
    }

    /// Starts the server again, on the same port with the same data, and waits until it accepts.
    pub fn start_again(&mut self) {
        // After a kill, the backends of the last run may still hold the shared memory for a moment.
        let mut error = String::new();
        let started = becomes_true(STEP_LIMIT, || {
            self.launch().map_err(|reason| error = reason).is_ok()
        });
        assert!(started, "no restart: {error}");
    }

    pub fn restart(&mut self, how: Stop) {
        self.stop(how);
        self.start_again();
    }

    /// Stops the postmaster and all its processes with SIGSTOP: connections stay, and nothing answers.
    pub fn freeze(&mut self) {
        let mut pids = vec![self.postmaster()];
        let rows = self
            .client()
            .query(
                "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
                &[],
            )
            .expect("the server's processes");
        pids.extend(rows.iter().filter_map(|row| Pid::from_raw(row.get(0))));
        for pid in pids {
            if kill_process(pid, Signal::STOP).is_ok() {
                self.frozen.push(pid);
            }
        }
    }

    /// The postmaster and its children, on a system with /proc.
    pub fn processes(&self) -> Vec<i32> {
        let postmaster = self.postmaster().as_raw_nonzero().get();
        let parent = |pid: i32| -> Option<i32> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // After the name in parentheses: the state, then the parent.
            let (_, rest) = stat.rsplit_once(')')?;
            rest.split_whitespace().nth(1)?.parse().ok()
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&pid| pid == postmaster || parent(pid) == Some(postmaster))
            .collect()
    }

    /// Lets everything frozen go on.
    pub fn thaw(&mut self) {
        for pid in self.frozen.drain(..) {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Stops the backends of the sessions of these names with SIGSTOP, until [`thaw`](Self::thaw), and no other with them: a
    /// backend that happens to hold a lock of the whole server stops all, so it gets the time to let it go.
    pub fn freeze_backends(&mut self, names: &[&str]) {
        let query = "SELECT pid FROM pg_stat_activity WHERE application_name = ANY($1)";
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let rows = self.client().query(query, &[&names]).expect("backends");
            assert!(rows.len() >= names.len(), "one backend each of {names:?}");
            for pid in rows.iter().filter_map(|row| Pid::from_raw(row.get(0))) {
                // One that only proved that another works may have ended since.
                if kill_process(pid, Signal::STOP).is_ok() {
                    self.frozen.push(pid);
                }
            }
            if self.serves_others() {
                return;
            }
            assert!(Instant::now() < deadline, "{names:?} hold up the server");
        }
    }

    /// Whether a newcomer can do what a participant does, beside what is frozen. Thaws all if not.
    fn serves_others(&mut self) -> bool {
        let params = self.params();
        let (tell, told) = mpsc::channel();
        let newcomer = thread::spawn(move || {
            let statements =
                "SELECT count(*) FROM pg_stat_activity; LISTEN pg_peers_thaw; NOTIFY pg_peers_thaw";
            let mut client = Client::connect(&params, NoTls)?;
            client.batch_execute(statements)?;
            let _ = tell.send(());
            Ok::<_, postgres::Error>(())
        });
        let served = told.recv_timeout(Duration::from_millis(500)).is_ok();
        if !served {
            self.thaw();
        }
        newcomer.join().expect("a thread").expect("an answer");
        served
    }

    /// Takes a copy of what `initdb` makes: that takes a second of a core, which adds up when every test has a server.
    fn initialise(&self) -> Result<(), String> {
        static MADE: OnceLock<Result<Directory, String>> = OnceLock::new();
        let made = MADE.get_or_init(|| {
            let directory = Directory::new()?;
            let mut initdb = command("initdb")?;
            initdb
                .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
                .args(["--locale=C", "--no-sync", "--no-instructions"])
                // Less to copy.
                .arg("--wal-segsize=1")
                .arg("--pgdata")
                .arg(directory.data());
            directory.make(initdb)?;
            Ok(directory)
        });
        let mut copy = as_server_user(Command::new("cp"));
        copy.arg("-R")
            .arg(made.as_ref()?.data())
            .arg(self.directory.data());
        self.directory.make(copy)?;
        self.configure()
    }

    fn configure(&self) -> Result<(), String> {
        let mut settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             fsync = off\nfull_page_writes = off\nshared_buffers = 16MB\n",
            self.directory.path.display()
        );
        for option in &self.options {
            settings.push_str(option);
            settings.push('\n');
        }
        fs::OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .map_err(|e| format!("cannot write postgresql.conf: {e}"))
    }

    /// Runs the server, on a new port if it has none yet, and waits until it accepts.
    fn launch(&mut self) -> Result<(), String> {
        let port = match self.port {
            ANY_PORT => free_port(),
            port => port,
        };
        let log_path = self.directory.path.join("log");
        let log = fs::File::create(&log_path).map_err(|e| format!("cannot write a log: {e}"))?;
        let stderr = log
            .try_clone()
            .map_err(|e| format!("cannot write a log: {e}"))?;
        let mut postmaster = command("postgres")?
            .arg("-D")
            .arg(self.data())
            .args(["-p", &port.to_string()])
            .current_dir(&self.directory.path)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot run postgres: {e}"))?;
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            if let Ok(Some(status)) = postmaster.try_wait() {
                let words = fs::read_to_string(&log_path).unwrap_or_default();
                return Err(format!("postgres ended with {status}: {words}"));
            }
            if self.is_ours(port) {
                break;
            }
            if Instant::now() > deadline {
                let _ = postmaster.kill();
                return Err(format!("postgres did not accept within {STEP_LIMIT:?}"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.port = port;
        self.postmaster = Some(postmaster);
        Ok(())
    }

    /// Whether the server on that port accepts, and is not somebody else's who was faster.
    fn is_ours(&self, port: u16) -> bool {
        let directory = self
            .connect(port)
            .and_then(|mut client| client.query_one("SHOW data_directory", &[]));
        directory.is_ok_and(|row| Path::new(row.get::<_, &str>(0)) == self.data())
    }

    /// Over TCP; or over the socket, if the server was told to refuse that.
    fn connect(&self, port: u16) -> Result<Client, postgres::Error> {
        let connect = |host: &str| {
            let params = format!("host={host} port={port} user=postgres");
            Client::connect(&params, NoTls)
        };
        connect("127.0.0.1").or_else(|_| connect(&self.directory.path.display().to_string()))
    }

    fn postmaster(&self) -> Pid {
        let child = self.postmaster.as_ref().expect("a running server");
        Pid::from_child(child)
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut postmaster) = self.postmaster.take() else {
            return;
        };
        let _ = kill_process(Pid::from_child(&postmaster), signal);
        let _ = postmaster.wait();
        // The watcher must not signal another process that gets this pid.
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
    }
}

impl Directory {
    fn new() -> Result<Self, String> {
        let path = tempfile::Builder::new()
            .prefix("pg-peers-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|e| format!("cannot make a directory for it: {e}"))?
            .keep();
        let watcher = Command::new("sh")
            .args(["-c", WATCHER, "pg-peers-watcher"])
            .arg(&path)
            .stdin(Stdio::piped())
            // Ctrl-C is for the program; the watcher ends when the program does.
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot start its watcher: {e}"))?;
        let directory = Self { path, watcher };
        if let Some((uid, gid)) = server_user() {
            let path = &directory.path;
            chown(path, Some(uid), Some(gid))
                .map_err(|e| format!("cannot give away {}: {e}", path.display()))?;
        }
        Ok(directory)
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Makes the data, by such a command.
    fn make(&self, mut command: Command) -> Result<(), String> {
        let output = command
            .current_dir(&self.path)
            .output()
            .map_err(|e| format!("cannot run {command:?}: {e}"))?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let words = String::from_utf8_lossy(&output.stderr);
                Err(format!("{command:?} failed: {words}"))
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The end of its input is its sign to clean up.
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
    }
}

/// A port that is free now, below the range from which outgoing connections take theirs, and that this process gives to
/// nobody else: so it stays free while the server is down, or its members would meet those of another there.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let random = u64::from(std::process::id()) ^ u64::from(clock_noise());
        let port = 15_000 + (random % 15_000) as u16;
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if free && given.insert(port) {
            return port;
        }
    }
}

fn clock_noise() -> u32 {
    let now = SystemTime::UNIX_EPOCH.elapsed();
    now.unwrap_or_default()
        .subsec_nanos()
        .wrapping_mul(2_654_435_761)
        >> 8
}
