//! What a process takes of the machine.

use std::fs;
use std::io;

/// Needs Linux's /proc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Anonymous memory: what it shares with files is not its own.
    pub memory_kb: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl Usage {
    pub fn of_this_process() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// The least of each.
    pub fn min(self, other: Self) -> Self {
        Self {
            memory_kb: self.memory_kb.min(other.memory_kb),
            descriptors: self.descriptors.min(other.descriptors),
            threads: self.threads.min(other.threads),
        }
    }

    pub fn of(pid: u32) -> io::Result<Self> {
        let process = format!("/proc/{pid}");
        let rollup = fs::read_to_string(format!("{process}/smaps_rollup"))?;
        let memory_kb = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Anonymous:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
            .ok_or_else(|| io::Error::other("smaps_rollup has no Anonymous"))?;
        Ok(Self {
            memory_kb,
            descriptors: fs::read_dir(format!("{process}/fd"))?.count() as u64,
            threads: fs::read_dir(format!("{process}/task"))?.count() as u64,
        })
    }
}
