//! What a host knows that does as the docs of `Event` say, and whether each event may follow those before it.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::line::{Peers, Seen, Told, Why};

/// A departed peer is remembered for so long, and may be a newcomer after that.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) peers: Peers,
    online: Option<bool>,
    /// Those that the host reported as lost and that did not heal since.
    pub(crate) lost: BTreeSet<String>,
    /// Events may have to wait for the host, and then come as one.
    pub(crate) lags: bool,
    /// How each start of a peer left, and when; `None` while it is there.
    past: HashMap<(String, u64), Option<(Why, Instant)>>,
}

impl Replay {
    pub(crate) fn is_online(&self) -> bool {
        self.online == Some(true)
    }

    /// Applies an event; what is wrong with it, if something is.
    pub(crate) fn take(&mut self, told: &Told, at: Instant) -> Result<(), String> {
        let wrong = match told {
            Told::Join(name, seen) => self.wrong_join(name, seen, at),
            Told::Heal(name, seen) => self.wrong_heal(name, seen, at),
            Told::Update(name, seen) => self.wrong_update(name, seen),
            Told::Leave(name, seen, _) => self.wrong_leave(name, seen),
            Told::Online(_) => self.is_online().then_some("it was online"),
            Told::Offline(_) => (self.online == Some(false)).then_some("it was offline"),
            Told::NameTaken(_) => Some("no other process has its name"),
        };
        let about_a_peer = !matches!(told, Told::Online(_) | Told::Offline(_));
        let wrong = wrong.or_else(|| {
            (about_a_peer && !self.is_online() && !self.lags).then_some("the link is down")
        });
        self.apply(told, at);
        match wrong {
            None => Ok(()),
            Some(reason) => Err(format!("the event \"{told}\" must not come here: {reason}")),
        }
    }

    fn apply(&mut self, told: &Told, at: Instant) {
        if let Told::Heal(name, _) | Told::Leave(name, ..) = told {
            self.lost.remove(name);
        }
        match told {
            Told::Join(name, seen) | Told::Heal(name, seen) | Told::Update(name, seen) => {
                self.past.insert((name.clone(), seen.incarnation), None);
                self.peers.insert(name.clone(), seen.clone());
            }
            Told::Leave(name, seen, why) => {
                let departure = Some((*why, at));
                self.past
                    .insert((name.clone(), seen.incarnation), departure);
                self.peers.remove(name);
            }
            Told::Online(_) => self.online = Some(true),
            Told::Offline(_) => self.online = Some(false),
            Told::NameTaken(_) => {}
        }
    }

    fn has(&self, name: &str, seen: &Seen) -> bool {
        let known = self.peers.get(name);
        known.is_some_and(|known| known.incarnation == seen.incarnation)
    }

    fn past(&self, name: &str, seen: &Seen) -> Option<Option<(Why, Instant)>> {
        self.past.get(&(name.to_owned(), seen.incarnation)).copied()
    }

    fn wrong_join(&self, name: &str, seen: &Seen, now: Instant) -> Option<&'static str> {
        if self.peers.contains_key(name) {
            return Some("a peer of that name is there");
        }
        match self.past(name, seen) {
            None => None,
            Some(Some((_, at))) if now.duration_since(at) > REMEMBERED => None,
            Some(_) => Some("this start of it was there before, and is remembered"),
        }
    }

    fn wrong_heal(&self, name: &str, seen: &Seen, now: Instant) -> Option<&'static str> {
        if self.has(name, seen) {
            let may = self.lost.contains(name) || self.lags;
            return (!may).then_some("it is there, and was not reported as lost");
        }
        if self.peers.contains_key(name) {
            return Some("another start of it is there");
        }
        match self.past(name, seen) {
            Some(Some((Why::Goodbye | Why::Replaced, at))) => {
                let forgotten = now.duration_since(at) > REMEMBERED;
                (!forgotten).then_some("it left for good")
            }
            Some(Some((Why::Expired | Why::SessionGone, _))) => None,
            Some(None) | None => (!self.lags).then_some("it has never been there"),
        }
    }

    fn wrong_update(&self, name: &str, seen: &Seen) -> Option<&'static str> {
        if !self.has(name, seen) {
            return Some("this start of it is not there");
        }
        let same = self.peers.get(name) == Some(seen);
        (same && !self.lags).then_some("nothing is new")
    }

    fn wrong_leave(&self, name: &str, seen: &Seen) -> Option<&'static str> {
        (!self.has(name, seen)).then_some("this start of it is not there")
    }
}
