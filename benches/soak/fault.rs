//! The faults, and which come when: drawn from a seed alone, so that the same seed brings the same again.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::crowd::{self, Id};

/// Something that is done to the cluster, and undone in the end.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    ServerStops {
        hard: bool,
        down: Duration,
    },
    ServerKilled {
        down: Duration,
    },
    ServerFreezes {
        time: Duration,
    },
    Failover,
    SessionEnds {
        member: Id,
    },
    AllSessionsEnd,
    BackendFreezes {
        member: Id,
        time: Duration,
    },
    MemberFreezes {
        member: Id,
        back: Back,
    },
    Killed {
        members: Vec<Id>,
        back: Back,
    },
    Leave {
        members: Vec<Id>,
        back: Back,
    },
    PoolerRestarts,
    LinkStalls {
        link: usize,
        time: Duration,
    },
    LinkSlow {
        link: usize,
        delay: Duration,
        time: Duration,
    },
    LoginsSlow {
        delay: Duration,
        /// The members that must log in meanwhile.
        members: Vec<Id>,
    },
    NotifySlow {
        /// How long each NOTIFY waits.
        each: Duration,
        time: Duration,
    },
    NotifyHeldUp {
        time: Duration,
    },
    Junk {
        seed: u64,
    },
    Flood {
        time: Duration,
    },
    FalseGone {
        member: Id,
    },
    Lost {
        member: Id,
    },
    Retagged {
        member: Id,
    },
    StopsDraining {
        member: Id,
        restarts: Id,
    },
}

/// When members that are gone start again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Back {
    After(Duration),
    /// When all others have noticed that they are gone.
    Noticed,
}

/// A fault, sometimes with another while it lasts, and how calm it is before.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) calm: Duration,
    pub(crate) fault: Fault,
    pub(crate) meanwhile: Option<Fault>,
}

/// The last needs a pooler.
const KINDS: usize = 23;

/// One step in this many has two faults at once.
const DOUBLE: u32 = 4;

/// Draws steps without end.
pub(crate) struct Schedule {
    rng: Rng,
    kinds: usize,
    /// Every kind comes once before any comes again.
    deck: Vec<usize>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, has_pooler: bool) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            kinds: KINDS - usize::from(!has_pooler),
            deck: Vec::new(),
        }
    }

    pub(crate) fn next(&mut self) -> Step {
        if self.deck.is_empty() {
            self.deck = (0..self.kinds).collect();
            self.rng.shuffle(&mut self.deck);
        }
        let calm = self.between(0.3, 2.0);
        let mut members: Vec<Id> = (0..crowd::SIZE).collect();
        self.rng.shuffle(&mut members);
        // Two faults at once are never of the same member.
        let (some, others) = members.split_at(members.len() / 2);
        let kind = self.deck.pop().unwrap_or_default();
        let fault = self.draw(kind, some);
        let double = self.rng.u32(0..DOUBLE) == 0;
        let kind = self.rng.usize(0..self.kinds);
        let other = self.draw(kind, others).hurried();
        let meanwhile = (double && fault.bears(&other)).then_some(other);
        Step {
            calm,
            fault,
            meanwhile,
        }
    }

    /// A fault of that kind, of some of these members.
    fn draw(&mut self, kind: usize, members: &[Id]) -> Fault {
        let member = members[0];
        let mut all_mortals = members.to_vec();
        all_mortals.retain(|&id| crowd::is_mortal(id));
        let few = self.rng.usize(1..=5).min(all_mortals.len());
        let mortals = all_mortals[..few].to_vec();
        let down = self.between(0.0, 6.0);
        match kind {
            0 | 1 => Fault::ServerStops {
                hard: kind == 1,
                down,
            },
            2 => Fault::ServerKilled { down },
            3 => Fault::ServerFreezes {
                time: self.between(0.5, 12.0),
            },
            4 => Fault::SessionEnds { member },
            5 => Fault::AllSessionsEnd,
            6 => Fault::BackendFreezes {
                member,
                time: self.between(0.5, 8.0),
            },
            7 => Fault::MemberFreezes {
                member,
                back: Back::Noticed,
            },
            8 => Fault::Killed {
                members: mortals,
                back: self.back(),
            },
            9 => Fault::Killed {
                members: all_mortals,
                back: self.back(),
            },
            10 => Fault::Leave {
                members: mortals,
                back: self.back(),
            },
            11 => Fault::LinkStalls {
                link: self.rng.usize(0..crowd::LINKS.len()),
                time: self.between(0.5, 12.0),
            },
            12 => Fault::LinkSlow {
                link: self.rng.usize(0..crowd::LINKS.len()),
                delay: self.between(0.05, 0.4),
                time: self.between(2.0, 6.0),
            },
            13 => Fault::Junk {
                seed: self.rng.u64(..),
            },
            14 => Fault::FalseGone { member },
            15 => self.of_the_host(members),
            16 => Fault::Failover,
            17 => Fault::Flood {
                time: self.between(1.0, 10.0),
            },
            18 => Fault::StopsDraining {
                member,
                restarts: members[1..]
                    .iter()
                    .copied()
                    .find(|&id| crowd::is_mortal(id))
                    .unwrap_or_default(),
            },
            19 => Fault::LoginsSlow {
                delay: Duration::from_secs(self.rng.u64(1..=4)),
                members: members[..few.max(1)].to_vec(),
            },
            20 => Fault::NotifySlow {
                // A member that cannot say within a heartbeat that it is there may be taken for gone.
                each: self.between(0.2, 0.8),
                time: self.between(2.0, 8.0),
            },
            21 => Fault::NotifyHeldUp {
                time: self.between(1.0, 12.0),
            },
            _ => Fault::PoolerRestarts,
        }
    }

    fn of_the_host(&mut self, members: &[Id]) -> Fault {
        let member = members[0];
        if self.rng.bool() {
            Fault::Lost { member }
        } else {
            Fault::Retagged { member }
        }
    }

    fn back(&mut self) -> Back {
        if self.rng.bool() {
            Back::Noticed
        } else {
            Back::After(self.between(0.0, 1.5))
        }
    }

    fn between(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(least + (most - least) * self.rng.f64())
    }
}

impl Step {
    pub(crate) fn kind(&self) -> &'static str {
        match self.meanwhile {
            None => self.fault.kind(),
            Some(_) => "two of these at once",
        }
    }

    /// Whether no peer may leave because of it.
    pub(crate) fn spares_all(&self) -> bool {
        self.fault.spares_all() && self.meanwhile.as_ref().is_none_or(Fault::spares_all)
    }
}

impl Fault {
    fn kind(&self) -> &'static str {
        match self {
            Self::ServerStops { hard: false, .. } => "server: fast stop",
            Self::ServerStops { hard: true, .. } => "server: immediate stop",
            Self::ServerKilled { .. } => "server: kill -9",
            Self::ServerFreezes { .. } => "server: frozen",
            Self::Failover => "server: failover",
            Self::SessionEnds { .. } => "a session terminated",
            Self::AllSessionsEnd => "all sessions terminated",
            Self::BackendFreezes { .. } => "a backend frozen",
            Self::MemberFreezes { .. } => "a member frozen",
            Self::Killed { .. } => "members: kill -9",
            Self::Leave { .. } => "members left",
            Self::PoolerRestarts => "pooler: kill -9, start",
            Self::LinkStalls { .. } => "link: black hole",
            Self::LinkSlow { .. } => "link: slow",
            Self::LoginsSlow { .. } => "logins: slow",
            Self::NotifySlow { .. } => "NOTIFY: slow",
            Self::NotifyHeldUp { .. } => "NOTIFY: held up",
            Self::Junk { .. } => "junk on the channel",
            Self::Flood { .. } => "a flood of junk",
            Self::FalseGone { .. } => "a false gone message",
            Self::Lost { .. } => "peers reported lost",
            Self::Retagged { .. } => "tags changed",
            Self::StopsDraining { .. } => "a host not draining",
        }
    }

    /// Outages of Postgres are not outages of the peers.
    fn spares_all(&self) -> bool {
        match self {
            Self::ServerStops { .. }
            | Self::ServerKilled { .. }
            | Self::ServerFreezes { .. }
            | Self::Failover
            | Self::SessionEnds { .. }
            | Self::AllSessionsEnd
            | Self::PoolerRestarts
            | Self::NotifySlow { .. }
            | Self::NotifyHeldUp { .. }
            | Self::Junk { .. }
            | Self::Flood { .. }
            | Self::Lost { .. }
            | Self::Retagged { .. } => true,
            // A member that is not heard for so long that it expires has left, and so has one that is away for longer than a login
            // took before.
            Self::LoginsSlow { .. }
            | Self::BackendFreezes { .. }
            | Self::MemberFreezes { .. }
            | Self::Killed { .. }
            | Self::Leave { .. }
            | Self::LinkStalls { .. }
            | Self::LinkSlow { .. }
            | Self::FalseGone { .. }
            | Self::StopsDraining { .. } => false,
        }
    }

    /// This fault as part of another, during which members may not notice a departure.
    fn hurried(self) -> Self {
        let back = Back::After(Duration::from_secs(1));
        match self {
            Self::MemberFreezes { member, .. } => Self::MemberFreezes { member, back },
            Self::Killed { members, .. } => Self::Killed { members, back },
            Self::Leave { members, .. } => Self::Leave { members, back },
            other => other,
        }
    }

    /// Whether the other can come and go while this lasts.
    fn bears(&self, other: &Self) -> bool {
        // A member that must log in may be behind a link that stalls.
        if self.kind() == other.kind() || matches!(other, Self::LoginsSlow { .. }) {
            return false;
        }
        match self {
            Self::ServerStops { .. } | Self::ServerKilled { .. } | Self::ServerFreezes { .. } => {
                !other.needs_server()
            }
            // It may have been frozen with a lock that every NOTIFY takes.
            Self::BackendFreezes { .. } => !other.speaks(),
            // What is said and heard in it takes its time.
            Self::Flood { .. }
            | Self::LoginsSlow { .. }
            | Self::NotifySlow { .. }
            | Self::NotifyHeldUp { .. } => false,
            // Over before another could begin.
            Self::Failover
            | Self::SessionEnds { .. }
            | Self::AllSessionsEnd
            | Self::PoolerRestarts
            | Self::Junk { .. }
            | Self::FalseGone { .. }
            | Self::Lost { .. }
            | Self::Retagged { .. } => false,
            // The member that tells when the strangers have gone must not be gone itself.
            Self::StopsDraining { .. } => false,
            Self::MemberFreezes { .. }
            | Self::Killed { .. }
            | Self::Leave { .. }
            | Self::LinkStalls { .. }
            | Self::LinkSlow { .. } => !matches!(other, Self::StopsDraining { .. }),
        }
    }

    fn needs_server(&self) -> bool {
        match self {
            Self::ServerStops { .. }
            | Self::ServerKilled { .. }
            | Self::ServerFreezes { .. }
            | Self::Failover
            | Self::SessionEnds { .. }
            | Self::AllSessionsEnd
            | Self::BackendFreezes { .. }
            | Self::LoginsSlow { .. } => true,
            _ => self.speaks(),
        }
    }

    /// Whether it is made of notifications.
    fn speaks(&self) -> bool {
        matches!(
            self,
            Self::Junk { .. }
                | Self::Flood { .. }
                | Self::NotifySlow { .. }
                | Self::NotifyHeldUp { .. }
                | Self::FalseGone { .. }
                | Self::StopsDraining { .. }
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id: &Id| crowd::name(*id);
        match self {
            Self::ServerStops { hard, down } => {
                let how = if *hard { "immediate" } else { "fast" };
                write!(f, "PostgreSQL stopped ({how}), down for {down:.1?}")
            }
            Self::ServerKilled { down } => {
                write!(f, "the postmaster killed with -9, down for {down:.1?}")
            }
            Self::ServerFreezes { time } => write!(f, "PostgreSQL frozen for {time:.1?}"),
            Self::Failover => f.write_str("the postmaster killed with -9, a standby promoted"),
            Self::SessionEnds { member } => write!(f, "{}'s session terminated", name(member)),
            Self::AllSessionsEnd => f.write_str("all sessions terminated"),
            Self::BackendFreezes { member, time } => {
                write!(f, "{}'s backend frozen for {time:.1?}", name(member))
            }
            Self::MemberFreezes { member, back } => {
                write!(f, "{} frozen, thawed {back}", name(member))
            }
            Self::Killed { members, back } => {
                let names = names(members);
                write!(f, "{names} killed with -9, started again {back}")
            }
            Self::Leave { members, back } => {
                write!(f, "{} left, started again {back}", names(members))
            }
            Self::PoolerRestarts => f.write_str("PgBouncer killed with -9, and started again"),
            Self::LinkStalls { link, time } => {
                let (link, _) = crowd::LINKS[*link];
                write!(f, "the link of {link} a black hole for {time:.1?}")
            }
            Self::LinkSlow { link, delay, time } => {
                let (link, _) = crowd::LINKS[*link];
                write!(f, "the link of {link} {delay:.0?} slow for {time:.1?}")
            }
            Self::LoginsSlow { delay, members } => {
                let names = names(members);
                write!(
                    f,
                    "logins take {delay:?}, the sessions of {names} terminated"
                )
            }
            Self::NotifySlow { each, time } => {
                write!(f, "each NOTIFY held up for {each:.1?}, for {time:.1?}")
            }
            Self::NotifyHeldUp { time } => write!(f, "NOTIFY held up for {time:.1?}"),
            Self::Junk { .. } => f.write_str("junk on the channel"),
            Self::Flood { time } => write!(f, "the channel flooded with junk for {time:.1?}"),
            Self::FalseGone { member } => write!(f, "{} falsely said gone", name(member)),
            Self::Lost { member } => write!(f, "{} reported all its peers lost", name(member)),
            Self::Retagged { member } => write!(f, "{} changed its tags", name(member)),
            Self::StopsDraining { member, restarts } => write!(
                f,
                "{} did not drain while {} strangers came and went and {} restarted",
                name(member),
                crowd::STRANGERS,
                name(restarts)
            ),
        }
    }
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(time) => write!(f, "after {time:.1?}"),
            Self::Noticed => f.write_str("when all had noticed"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)?;
        if let Some(fault) = &self.meanwhile {
            write!(f, "; meanwhile {fault}")?;
        }
        Ok(())
    }
}

fn names(members: &[Id]) -> String {
    let names: Vec<String> = members.iter().map(|&id| crowd::name(id)).collect();
    names.join(" ")
}
