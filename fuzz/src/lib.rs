//! What the two fuzz targets do with their input, as functions, so that the seeds run without a fuzzer, too.
//!
//! The core is private, so its modules are compiled into this package.

#![forbid(unsafe_code)]
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "modules of the library, of which a part is used here"
)]

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/event.rs"]
mod event;
#[path = "../../src/inquiry.rs"]
mod inquiry;
#[path = "../../src/jitter.rs"]
mod jitter;
#[path = "../../src/outbox.rs"]
mod outbox;
#[path = "../../src/peer.rs"]
mod peer;
#[path = "../../src/presence.rs"]
mod presence;
#[path = "../../src/roster.rs"]
mod roster;
#[path = "../../src/session_check.rs"]
mod session_check;
#[path = "../../src/wire.rs"]
mod wire;

mod payloads;
mod steps;

pub use payloads::decode;
pub use steps::core;
