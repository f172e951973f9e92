// The private wings of the library, compiled into what includes this file: a bench, an example and the fuzz targets measure
// and try them. All but the link, the thread and the handle.

#[path = "../../src/core/mod.rs"]
mod core;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/event.rs"]
mod event;
#[path = "../../src/host/mod.rs"]
mod host;
#[path = "../../src/jitter.rs"]
mod jitter;
#[path = "../../src/logging.rs"]
mod logging;
#[path = "../../src/peer.rs"]
mod peer;
#[path = "../../src/round_trip.rs"]
mod round_trip;
#[path = "../../src/simulator/mod.rs"]
mod simulator;
#[path = "../../src/status.rs"]
mod status;
#[path = "../../src/trust/mod.rs"]
mod trust;
