//! How a simulated process takes part.

use std::sync::Arc;
use std::time::Duration;

use crate::core::presence::{Presence, Style};
use crate::core::roster::{Limits, Roster};
use crate::core::wire::{self, Inbox};
use crate::jitter::Jitter;
use crate::peer::{Incarnation, Tags};
use crate::trust::seal::Keys;

pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
pub(crate) const MISSED: u32 = 3;

/// The name, the limits and the secrets of a process that is to be started.
pub(crate) struct Setup {
    pub(crate) name: String,
    /// `None` for an observer.
    pub(crate) style: Option<Style>,
    pub(crate) incarnation: u64,
    pub(crate) tags: Tags,
    pub(crate) heartbeat: Duration,
    pub(crate) max_peers: usize,
    pub(crate) delivery_budget: u32,
    pub(crate) session_check: bool,
    pub(crate) observer_asks: bool,
    pub(crate) keys: Keys,
    /// Where it is answered; `None` for a random inbox.
    pub(crate) inbox: Option<Inbox>,
    /// Whether it receives what is sent. A process that does not is cheap, since its roster stays empty.
    pub(crate) hears: bool,
}

impl Setup {
    pub(crate) fn new(name: &str, incarnation: u64) -> Self {
        Self {
            name: name.to_owned(),
            style: Some(Style::Full),
            incarnation,
            tags: Tags::default(),
            heartbeat: HEARTBEAT,
            max_peers: 1_000,
            delivery_budget: 2_000,
            session_check: true,
            observer_asks: true,
            keys: Keys::default(),
            inbox: None,
            hears: true,
        }
    }

    pub(crate) fn bare(name: &str) -> Self {
        Self {
            style: Some(Style::Bare),
            ..Self::new(name, 0)
        }
    }

    pub(crate) fn observer() -> Self {
        Self {
            style: None,
            ..Self::new("an observer", 0)
        }
    }

    pub(crate) fn roster(&self, seed: u64, inbox: Inbox) -> Roster {
        let presence = self.style.map(|style| {
            let name = Arc::from(&*self.name);
            let incarnation = Incarnation::new(self.incarnation);
            let tags = wire::encode_tags(&self.tags);
            Presence::new(name, incarnation, style, tags)
        });
        let limits = Limits {
            heartbeat: self.heartbeat,
            delivery_budget: self.delivery_budget,
            session_check: self.session_check,
            observer_asks: self.observer_asks,
            bare_heartbeat: self.heartbeat,
            missed: MISSED,
            max_peers: self.max_peers,
            max_departed: self.max_peers,
        };
        Roster::new(presence, inbox, limits, Jitter::new(seed))
    }
}
