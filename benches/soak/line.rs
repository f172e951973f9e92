//! What a member tells the soak, a line each: fields with tabs between.

use std::collections::BTreeMap;
use std::fmt;

use pg_peers::{Cluster, Event, Peer, Reason};

use crate::HEAP;
use crate::rig::Usage;

/// The tag by which a change of tags is seen.
pub(crate) const VERSION: &str = "version";

/// What a roster says of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) incarnation: u64,
    pub(crate) version: String,
}

pub(crate) type Peers = BTreeMap<String, Seen>;

#[derive(Clone, Debug)]
pub(crate) enum Line {
    Told(Told),
    /// Everything that was told before the question with this number, and then what `peers()` returned.
    Roster {
        question: u64,
        online: bool,
        peers: Peers,
    },
    Usage {
        question: u64,
        usage: Usage,
        /// The most that it ever had allocated.
        peak_kb: u64,
    },
    /// For a person.
    Note,
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Join(String, Seen),
    Heal(String, Seen),
    Update(String, Seen),
    Leave(String, Seen, Why),
    /// With the member's own incarnation.
    Online(u64),
    Offline(String),
    NameTaken(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Goodbye,
    Expired,
    SessionGone,
    Replaced,
}

impl Line {
    pub(crate) fn roster(question: &str, cluster: &Cluster) -> String {
        let mut line = format!("roster\t{question}\t{}", cluster.status().online);
        for peer in cluster.peers() {
            line += &format!("\t{}", fields(&peer));
        }
        line
    }

    pub(crate) fn usage(question: &str) -> std::io::Result<String> {
        let Usage {
            descriptors,
            threads,
            ..
        } = Usage::of_this_process()?;
        let [memory_kb, peak_kb] = [HEAP.current_usage(), HEAP.peak_usage()].map(|it| it / 1_024);
        Ok(format!(
            "usage\t{question}\t{memory_kb}\t{descriptors}\t{threads}\t{peak_kb}"
        ))
    }

    pub(crate) fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        Self::understand(&fields).unwrap_or(Self::Note)
    }

    fn understand(fields: &[&str]) -> Option<Self> {
        Some(match *fields {
            ["roster", question, online, ref peers @ ..] => Self::Roster {
                question: question.parse().ok()?,
                online: online == "true",
                peers: peers.chunks(3).map(seen).collect::<Option<_>>()?,
            },
            ["usage", question, memory, descriptors, threads, peak] => Self::Usage {
                question: question.parse().ok()?,
                usage: Usage {
                    memory_kb: memory.parse().ok()?,
                    descriptors: descriptors.parse().ok()?,
                    threads: threads.parse().ok()?,
                },
                peak_kb: peak.parse().ok()?,
            },
            _ => Self::Told(Told::understand(fields)?),
        })
    }
}

impl Told {
    /// The line for an event; `own` is the member's own incarnation.
    pub(crate) fn line(event: &Event, own: u64) -> String {
        match event {
            Event::Join(peer) => format!("join\t{}", fields(peer)),
            Event::Heal(peer) => format!("heal\t{}", fields(peer)),
            Event::Update(peer) => format!("update\t{}", fields(peer)),
            Event::Leave(peer, why) => format!("leave\t{}\t{why:?}", fields(peer)),
            Event::Online => format!("online\t{own}"),
            Event::Offline(reason) => format!("offline\t{reason}"),
            Event::NameTaken(peer) => format!("name taken\t{}", peer.name()),
            other => format!("{other:?}"),
        }
    }

    fn understand(fields: &[&str]) -> Option<Self> {
        Some(match *fields {
            ["join", ref peer @ ..] => seen(peer).map(|(name, seen)| Self::Join(name, seen))?,
            ["heal", ref peer @ ..] => seen(peer).map(|(name, seen)| Self::Heal(name, seen))?,
            ["update", ref peer @ ..] => seen(peer).map(|(name, seen)| Self::Update(name, seen))?,
            ["leave", ref peer @ .., why] => {
                let (name, seen) = seen(peer)?;
                Self::Leave(name, seen, Why::parse(why)?)
            }
            ["online", own] => Self::Online(own.parse().ok()?),
            ["offline", reason] => Self::Offline(reason.to_owned()),
            ["name taken", name] => Self::NameTaken(name.to_owned()),
            _ => return None,
        })
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Join(..) => "join",
            Self::Heal(..) => "heal",
            Self::Update(..) => "update",
            Self::Leave(_, _, why) => why.kind(),
            Self::Online(_) => "online",
            Self::Offline(_) => "offline",
            Self::NameTaken(_) => "name taken",
        }
    }

    pub(crate) fn is_leave(kind: &str) -> bool {
        kind.starts_with("leave")
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Join(name, seen)
            | Self::Heal(name, seen)
            | Self::Update(name, seen)
            | Self::Leave(name, seen, _) => write!(f, "{kind} {name}, {seen}"),
            Self::Online(_) => f.write_str(kind),
            Self::Offline(text) | Self::NameTaken(text) => write!(f, "{kind}: {text}"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "incarnation {} version {}",
            self.incarnation, self.version
        )
    }
}

impl Why {
    fn parse(text: &str) -> Option<Self> {
        let all = [
            (Reason::Goodbye, Self::Goodbye),
            (Reason::Expired, Self::Expired),
            (Reason::SessionGone, Self::SessionGone),
            (Reason::Replaced, Self::Replaced),
        ];
        let mut all = all.iter();
        let found = all.find(|(reason, _)| format!("{reason:?}") == text)?;
        Some(found.1)
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Goodbye => "leave Goodbye",
            Self::Expired => "leave Expired",
            Self::SessionGone => "leave SessionGone",
            Self::Replaced => "leave Replaced",
        }
    }
}

fn fields(peer: &Peer) -> String {
    let incarnation = peer
        .incarnation()
        .map_or(0, |incarnation| incarnation.get());
    let version = peer.tag(VERSION).unwrap_or_default();
    format!("{}\t{incarnation}\t{version}", peer.name())
}

fn seen(fields: &[&str]) -> Option<(String, Seen)> {
    let [name, incarnation, version] = *fields else {
        return None;
    };
    let incarnation = incarnation.parse().ok()?;
    let version = version.to_owned();
    Some((
        name.to_owned(),
        Seen {
            incarnation,
            version,
        },
    ))
}
