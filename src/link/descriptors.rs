//! Whether this process can open what a connection takes. `postgres` builds an asynchronous runtime for each and panics if it
//! cannot, which ends a program that was built with `panic = "abort"`.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::targets::Cause;

/// What a connection takes: the runtime's three, the socket, and what looking up a name does for a moment; and some, since
/// another thread may take them before we do.
const ENOUGH: usize = 12;

/// Another one that connects right now may have to take its own yet. Of those that hang no more than this count.
const MOST_OTHERS: usize = 4;

static CONNECTING: AtomicUsize = AtomicUsize::new(0);

/// Connects, if there are enough descriptors.
pub(super) fn with_enough<T, E: Into<Cause>>(
    connect: impl FnOnce() -> Result<T, E>,
) -> Result<T, Cause> {
    check()?;
    let _connecting = Connecting::new();
    connect().map_err(Into::into)
}

/// Fails if there are not enough. They are held all at once, and given back right before they are taken.
pub(super) fn check() -> io::Result<()> {
    let others = CONNECTING.load(Ordering::Relaxed).min(MOST_OTHERS);
    let count = ENOUGH * (1 + others);
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        match imp::take() {
            Ok(one) => held.push(one),
            Err(error) if imp::is_exhausted(&error) => return Err(error),
            // There is nothing of that name here, so nothing can be told.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// One that connects.
struct Connecting;

impl Connecting {
    fn new() -> Self {
        CONNECTING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        CONNECTING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this is why something failed: the process, or the system, has no descriptors left.
pub(super) fn is_exhausted(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(imp::is_exhausted)
}

#[cfg(unix)]
mod imp {
    use std::fs::File;
    use std::io;

    /// EMFILE and ENFILE, on all systems with Unix's numbers.
    const EXHAUSTED: [i32; 2] = [24, 23];

    pub(super) fn take() -> io::Result<File> {
        File::open("/dev/null")
    }

    pub(super) fn is_exhausted(error: &io::Error) -> bool {
        let code = error.raw_os_error();
        code.is_some_and(|code| EXHAUSTED.contains(&code))
    }
}

/// Windows has no such limit.
#[cfg(not(unix))]
mod imp {
    use std::io;

    pub(super) fn take() -> io::Result<()> {
        Ok(())
    }

    pub(super) fn is_exhausted(_: &io::Error) -> bool {
        false
    }
}
