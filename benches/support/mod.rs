//! What the benches share: histograms, tables, plots and command lines.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by benches that each use a part of it"
)]

pub mod bare;
pub mod latency;
pub mod plot;
#[path = "../../tests/support/rig/mod.rs"]
mod rig;

use std::process::Command;

pub use rig::*;

/// What kind of machine the numbers come from.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let server = command("postgres")
        .and_then(|mut command| command.arg("--version").output().map_err(|e| e.to_string()))
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    let compiler = Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    format!(
        "{} cores of {model}, {}, {server}, {compiler}",
        cores,
        std::env::consts::OS
    )
}

/// What the server's processes have used, in microseconds.
pub fn server_cpu(server: &Server) -> f64 {
    let pids = server.processes();
    let nanoseconds = pids.iter().filter_map(|pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e3
}
