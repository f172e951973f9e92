// Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// The longest a program waits for something that must come. Only a failure takes this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until something is so; whether it became so within that time.
pub fn becomes_true(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until something is so, and panics if it takes longer than [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    assert!(becomes_true(PATIENCE, is_so), "never: {what}");
}
