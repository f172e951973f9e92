//! What the library logs, kept to be looked at.

use std::sync::{Mutex, Once, PoisonError};

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // Only our own lines: below, `postgres` and its helpers log what they like at trace level.
        if record.target().starts_with("pg_peers") {
            let line = format!("{} {}: {}", record.level(), record.target(), record.args());
            LOGGED
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }
    }

    fn flush(&self) {}
}

/// Keeps everything that is logged from now on.
pub fn keep_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).expect("the only logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// Everything that was logged, by all tests of the program, with its level and target.
pub fn logged() -> Vec<String> {
    LOGGED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}
