//! A real terminal, which tmux keeps: keys go in, the screen comes out.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, eventually};

/// A shell in a terminal that nobody looks at.
pub struct Terminal {
    socket: String,
    /// The terminal is gone when this one is, however this program ends.
    client: Child,
}

impl Terminal {
    /// With these variables in its environment. `None` where tmux is not installed, which is said, unless the environment
    /// variable `PG_PEERS_REQUIRE_TMUX` is set.
    pub fn open(columns: u16, rows: u16, environment: &[(&str, &str)]) -> Option<Self> {
        static OPENED: AtomicU32 = AtomicU32::new(0);
        if Command::new("tmux").arg("-V").output().is_err() {
            let required = std::env::var_os("PG_PEERS_REQUIRE_TMUX").is_some();
            assert!(!required, "tmux is required here and not found");
            eprintln!("SKIPPED: tmux is not installed");
            return None;
        }
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let socket = format!("pg-peers-{}-{number}", std::process::id());
        let mut client = tmux(&socket);
        let client = client
            .args(["-u", "-f", "/dev/null", "-C"])
            .args(["set-option", "-g", "destroy-unattached", "on", ";"])
            .args(["new-session", "sh"])
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tmux");
        let terminal = Self { socket, client };
        let size = [columns.to_string(), rows.to_string()];
        let resize = ["resize-window", "-x", &size[0], "-y", &size[1]];
        eventually("tmux has started", || terminal.try_run(&resize).is_some());
        terminal.expect_where("a prompt", |screen| !screen.trim().is_empty());
        Some(terminal)
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let [columns, rows] = [columns.to_string(), rows.to_string()];
        self.run(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// As if this was typed, with a return.
    pub fn enter(&self, line: &str) {
        self.run(&["send-keys", "-l", line]);
        self.press("Enter");
    }

    /// A key, by its name in tmux.
    pub fn press(&self, key: &str) {
        self.run(&["send-keys", key]);
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// The same with the escape codes that colour it.
    pub fn coloured_screen(&self) -> String {
        self.run(&["capture-pane", "-p", "-e"])
    }

    /// Whether a program has taken the whole screen, or hides the cursor.
    pub fn is_taken(&self) -> bool {
        self.run(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]) != "0 1\n"
    }

    /// The next screen on which this is.
    #[track_caller]
    pub fn expect(&self, text: &str) -> String {
        self.expect_where(text, |screen| screen.contains(text))
    }

    /// The next screen on which a line has all these.
    #[track_caller]
    pub fn expect_line(&self, parts: &[&str]) -> String {
        let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
        self.expect_where(&parts.join(" ... "), |screen| screen.lines().any(has_all))
    }

    /// The next screen of which this is so.
    #[track_caller]
    pub fn expect_where(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "never {what:?} on\n{screen}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments)
            .unwrap_or_else(|| panic!("tmux {arguments:?}"))
    }

    /// `None` if it fails.
    fn try_run(&self, arguments: &[&str]) -> Option<String> {
        let output = tmux(&self.socket).arg("-u").args(arguments).output();
        let output = output.expect("tmux");
        let text = String::from_utf8(output.stdout).expect("text");
        output.status.success().then_some(text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.try_run(&["kill-server"]);
        let _ = self.client.wait();
    }
}

fn tmux(socket: &str) -> Command {
    let mut command = Command::new("tmux");
    command.args(["-L", socket]);
    command
}
