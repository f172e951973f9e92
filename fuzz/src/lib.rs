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

include!("../../tests/support/internals.rs");

mod forgeries;
mod payloads;
mod steps;

pub use forgeries::seal;
pub use payloads::decode;
pub use steps::core;
