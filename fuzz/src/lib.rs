//! What the three fuzz targets do with their input, as functions, so that the seeds run without a fuzzer, too.
//!
//! What they try is private, so its modules are compiled into this package.

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
#[path = "../../src/logging.rs"]
mod logging;
#[path = "../../src/outbox.rs"]
mod outbox;
#[path = "../../src/peer.rs"]
mod peer;
#[path = "../../src/presence.rs"]
mod presence;
#[path = "../../src/refusals.rs"]
mod refusals;
#[path = "../../src/roster.rs"]
mod roster;
#[path = "../../src/seal.rs"]
mod seal;
#[path = "../../src/session_check.rs"]
mod session_check;
#[path = "../../src/status.rs"]
mod status;
#[path = "../../src/wire.rs"]
mod wire;

mod forgeries;
mod payloads;
mod steps;

pub use forgeries::seal;
pub use payloads::decode;
pub use steps::core;
