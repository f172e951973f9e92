//! What happens in a cluster, as this program's own values: those of the library are made by the library only, and the
//! model is to be fed by tests, too.

use pg_peers::{Event, Peer, Reason};

/// One start of a peer. They sort by name, then from the oldest start to the newest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// `None` for a peer that announces its bare name.
    pub(crate) incarnation: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) identity: Identity,
    pub(crate) tags: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Join(Member),
    Heal(Member),
    Update(Member),
    Leave(Member, Reason),
    Online,
    /// With the reason.
    Offline(String),
}

impl Identity {
    pub(crate) fn of(peer: &Peer) -> Self {
        Self {
            name: peer.name().to_owned(),
            incarnation: peer.incarnation().map(|incarnation| incarnation.get()),
        }
    }
}

impl Member {
    pub(crate) fn of(peer: &Peer) -> Self {
        let tags = peer.tags();
        Self {
            identity: Identity::of(peer),
            tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    }
}

impl News {
    /// `None` for what does not happen to an observer.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Join(peer) => Self::Join(Member::of(peer)),
            Event::Heal(peer) => Self::Heal(Member::of(peer)),
            Event::Update(peer) => Self::Update(Member::of(peer)),
            Event::Leave(peer, reason) => Self::Leave(Member::of(peer), *reason),
            Event::Online => Self::Online,
            Event::Offline(reason) => Self::Offline(reason.to_string()),
            _ => return None,
        })
    }
}
