//! Processes that take orders and report, a line each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use pg_peers::crossbeam_channel::{Receiver, unbounded};
use rustix::process::{Pid, Signal, kill_process};

use super::becomes_true;

/// A process whose standard input and output are ours. It is killed with -9 when this is dropped, and always reaped.
pub struct Subprocess {
    child: Child,
    input: Option<ChildStdin>,
}

impl Subprocess {
    /// Starts it. `hear` gets each line of its output, and `None` at the end, on a separate thread.
    pub fn start(
        command: &mut Command,
        hear: impl FnMut(Option<String>) + Send + 'static,
    ) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        if let Some(output) = child.stdout.take() {
            follow(output, hear);
        }
        Ok(Self { child, input })
    }

    /// Starts it; its lines come from the receiver, which ends when its output does.
    pub fn start_and_listen(command: &mut Command) -> io::Result<(Self, Receiver<String>)> {
        let (sender, lines) = unbounded();
        let process = Self::start(command, move |line| {
            line.map(|line| sender.send(line));
        })?;
        Ok((process, lines))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its input.
    pub fn order(&mut self, order: &str) -> io::Result<()> {
        let ended = || io::Error::other("its input has ended");
        writeln!(self.input.as_mut().ok_or_else(ended)?, "{order}")
    }

    pub fn end_input(&mut self) {
        self.input = None;
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Stops it with SIGSTOP, until [`thaw`](Self::thaw).
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it with -9.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ends by itself; an error if it does not within that time.
    pub fn reap(&mut self, within: Duration) -> io::Result<ExitStatus> {
        reap(&mut self.child, within)
    }
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ends by itself; an error if it does not within that time.
pub fn reap(child: &mut Child, within: Duration) -> io::Result<ExitStatus> {
    let mut status = Ok(None);
    becomes_true(within, || {
        status = child.try_wait();
        !matches!(status, Ok(None))
    });
    status?.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// The lines of a stream, until it ends.
pub fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = unbounded();
    follow(stream, move |line| {
        line.map(|line| sender.send(line));
    });
    lines
}

/// Reads to the end, also if nobody wants to hear it any more: who writes must not wait for us.
fn follow(
    stream: impl Read + Send + 'static,
    mut hear: impl FnMut(Option<String>) + Send + 'static,
) {
    thread::spawn(move || {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.map(Some).chain([None]).for_each(&mut hear);
    });
}
