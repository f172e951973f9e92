//! x
mod cluster;
mod config;
mod error;
mod event;
mod jitter;
mod link;
mod outbox;
mod peer;
mod presence;
mod roster;
mod status;
mod wire;
mod worker;

pub use crossbeam_channel;
pub use postgres;

pub use crate::cluster::Cluster;
pub use crate::config::Config;
pub use crate::error::{Error, Result};
pub use crate::event::{Event, Reason};
pub use crate::peer::{Incarnation, Peer};
pub use crate::status::Status;
