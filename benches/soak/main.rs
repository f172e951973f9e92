//! Injects random faults into thirty processes, for as long as you like, and checks after each that all has recovered.
//!
//! ```text
//! cargo bench --bench soak -- --quick                     # a minute
//! cargo bench --bench soak -- --minutes 60 --seed 42      # an hour, the faults of seed 42
//! ```
//!
//! It is a bench, since it wants optimized code and much time, and reports times and memory. A `cargo bench` that does not
//! say for how long does not run it.
//!
//! It starts a private PostgreSQL and thirty members. Each member is a process. Some connect through a proxy that can delay
//! or swallow everything, some through PgBouncer, if it is installed. Then PostgreSQL is stopped, killed, frozen, flooded
//! and replaced by a standby, logins and NOTIFY become slow, PgBouncer restarts, and sessions and members end and freeze: see
//! `fault.rs`.
//!
//! Every member reports every event that it sees. The events must come in the order that `Event` documents, and lead to what
//! `peers()` returns. After each fault every roster must soon be correct, and every thread, descriptor and session that was
//! needed meanwhile must be gone.
//!
//! The last line starts with `ok:` and the exit status is 0 only if all this holds and no member's memory grew. Memory is what a
//! member has allocated, not what the system counts as its own: an allocator's heap shrinks only if nothing is left at its end.
//! Needs Linux, for `/proc`.

mod crowd;
mod fault;
mod line;
mod member;
mod replay;
#[path = "../../tests/support/rig/mod.rs"]
mod rig;
mod soak;
mod summary;

use std::process::ExitCode;

use clap::Parser;
use peak_alloc::PeakAlloc;

/// Counts what this process has allocated.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Inflict random faults on a cluster, and check that it recovers from each.
#[derive(Parser)]
struct Arguments {
    /// For how many minutes new faults come
    #[arg(long)]
    minutes: Option<f64>,
    /// A short run: one minute
    #[arg(long)]
    quick: bool,
    /// Which faults come, and when; random if not given
    #[arg(long)]
    seed: Option<u64>,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let outcome = match member::name() {
        Some(name) => member::run(name),
        None => run(&Arguments::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    match arguments.minutes.or_else(|| arguments.quick.then_some(1.0)) {
        Some(minutes) => soak::run(minutes, arguments.seed),
        None => {
            println!(
                "The soak runs if it is told for how long: cargo bench --bench soak -- --minutes 10"
            );
            Ok(())
        }
    }
}
