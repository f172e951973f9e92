//! The members' processes, and what each has told.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::time::{Duration, Instant};

use pg_peers::crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::Signal;

use crate::line::{Line, Peers, Seen, Told};
use crate::replay::Replay;
use crate::rig::{PATIENCE, Subprocess, Usage};
use crate::{Outcome, member};

/// The place of a member, which it keeps when it starts again.
pub(crate) type Id = usize;

/// How many events of each kind there have been.
pub(crate) type Events = BTreeMap<&'static str, usize>;

pub(crate) const SIZE: usize = 30;

/// Groups of members, each behind a separate link, with what that delays one way: a third of the members are far from the server.
/// One more group is behind a pooler.
pub(crate) const LINKS: [(&str, Duration); 2] = [
    ("east", Duration::from_millis(25)),
    ("west", Duration::from_millis(150)),
];
const POOLED: &str = "pool";
const GROUP: usize = 5;
const DIRECT: usize = SIZE - (LINKS.len() + 1) * GROUP;

/// Every fifth member is never made to end, so that its memory can be compared over the whole time.
const IMMORTAL: usize = 5;

/// How many strangers come and go while a host does not drain: more events than its queue holds.
pub(crate) const STRANGERS: usize = 300;

/// How many of a member's last lines are shown when it breaks a rule.
const HISTORY: usize = 30;

/// Of how many members the last lines are shown.
const SHOWN: usize = 3;

pub(crate) fn name(id: Id) -> String {
    let group = match route(id) {
        Route::Direct => return format!("m{:02}", id + 1),
        Route::Link(link) => LINKS[link].0,
        Route::Pooler => POOLED,
    };
    format!("{group}{}", (id - DIRECT) % GROUP + 1)
}

/// How a member reaches the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    Direct,
    Link(usize),
    Pooler,
}

fn route(id: Id) -> Route {
    match id.checked_sub(DIRECT).map(|place| place / GROUP) {
        None => Route::Direct,
        Some(link) if link < LINKS.len() => Route::Link(link),
        Some(_) => Route::Pooler,
    }
}

pub(crate) fn is_mortal(id: Id) -> bool {
    id % IMMORTAL != IMMORTAL - 1
}

pub(crate) struct Crowd {
    start: Instant,
    members: Vec<Member>,
    lines: Receiver<Said>,
    say: Sender<Said>,
    lives: u64,
    question: u64,
    events: Events,
    /// All events since that was last asked for.
    recent: Vec<String>,
    /// What no member may do, and one did.
    broken: Option<String>,
    /// What lives that have ended took at their first and at their last quiet point.
    ended: Vec<Lived>,
}

struct Member {
    name: String,
    params: String,
    version: u32,
    life: Option<Life>,
    /// It is stopped, or does not drain: what it knows cannot be known.
    away: bool,
}

/// One start of a member.
struct Life {
    number: u64,
    process: Subprocess,
    /// Once it is online.
    incarnation: Option<u64>,
    replay: Replay,
    /// The last question that it answered.
    answered: u64,
    /// Whether the roster that it answered with was right.
    roster: Result<(), String>,
    /// The least that it took since it was to come to rest: far from the server, a statement is under way a third of the time.
    usage: Option<Usage>,
    /// The most memory that it ever had.
    peak_kb: u64,
    /// At its first quiet point.
    first: Option<Usage>,
    /// It recovers from a flood.
    flooded: bool,
    /// How much more memory it had after a flood than at its first quiet point, at most.
    flooded_kb: u64,
    departures: u64,
    /// How many times it went offline.
    outages: u64,
    /// It was told or made to end.
    ends: bool,
    over: bool,
    history: VecDeque<String>,
}

/// What one life of a member took at its first and at its last quiet point.
#[derive(Clone, Debug)]
pub(crate) struct Lived {
    pub(crate) name: String,
    /// It is there since all started, and did not end.
    pub(crate) throughout: bool,
    pub(crate) first: Usage,
    pub(crate) last: Usage,
    /// How much more memory it had after a flood than at its first quiet point, at most.
    pub(crate) flooded_kb: u64,
    /// The most memory that it ever had.
    pub(crate) peak_kb: u64,
    /// How many peers left that it knew.
    pub(crate) departures: u64,
}

/// A line from the process with this number, and when it came; `None` at its end.
struct Said {
    at: Instant,
    id: Id,
    life: u64,
    line: Option<String>,
}

impl Crowd {
    /// Starts all members; `params` says how one connects.
    pub(crate) fn start(start: Instant, params: impl Fn(Route) -> String) -> Outcome<Self> {
        let (say, lines) = unbounded();
        let members = (0..SIZE).map(|id| Member {
            name: name(id),
            params: params(route(id)),
            version: 0,
            life: None,
            away: false,
        });
        let mut crowd = Self {
            start,
            members: members.collect(),
            lines,
            say,
            lives: 0,
            question: 0,
            events: Events::new(),
            recent: Vec::new(),
            broken: None,
            ended: Vec::new(),
        };
        (0..SIZE).try_for_each(|id| crowd.spawn(id))?;
        Ok(crowd)
    }

    pub(crate) fn spawn(&mut self, id: Id) -> Outcome<()> {
        let member = &mut self.members[id];
        self.lives += 1;
        let (say, life) = (self.say.clone(), self.lives);
        let hear = move |line| {
            let at = Instant::now();
            let _ = say.send(Said { at, id, life, line });
        };
        let process = member::start(&member.name, &member.params, member.version, hear)?;
        member.life = Some(Life {
            number: life,
            process,
            incarnation: None,
            replay: Replay::default(),
            answered: 0,
            roster: Ok(()),
            usage: None,
            peak_kb: 0,
            first: None,
            flooded: false,
            flooded_kb: 0,
            departures: 0,
            outages: 0,
            ends: false,
            over: false,
            history: VecDeque::new(),
        });
        Ok(())
    }

    /// Kills a member with -9.
    pub(crate) fn kill(&mut self, id: Id) -> Outcome<()> {
        let mut life = self.members[id].life.take().ok_or("it is not alive")?;
        life.process.kill()?;
        self.note_end(id, &life);
        Ok(())
    }

    /// Tells members to leave, and waits until they have.
    pub(crate) fn leave(&mut self, ids: &[Id]) -> Outcome<()> {
        for &id in ids {
            self.order(id, "leave")?;
            self.life_mut(id)?.ends = true;
        }
        let over = |crowd: &Self| ids.iter().all(|&id| crowd.is_over(id));
        if !self.wait_until(Instant::now() + PATIENCE, over)? {
            return Err(format!("told to leave, a member did not end within {PATIENCE:?}").into());
        }
        for &id in ids {
            let mut life = self.members[id].life.take().ok_or("it is not alive")?;
            let status = life.process.reap(PATIENCE)?;
            if !status.success() {
                return Err(format!("told to leave, {} ended with {status}", name(id)).into());
            }
            self.note_end(id, &life);
        }
        Ok(())
    }

    fn note_end(&mut self, id: Id, life: &Life) {
        let lived = life.lived(&name(id));
        self.ended.extend(lived.map(|lived| Lived {
            throughout: false,
            ..lived
        }));
    }

    fn is_over(&self, id: Id) -> bool {
        self.members[id].life.as_ref().is_none_or(|life| life.over)
    }

    pub(crate) fn signal(&self, id: Id, signal: Signal) -> Outcome<()> {
        let life = self.members[id].life.as_ref().ok_or("it is not alive")?;
        Ok(life.process.signal(signal)?)
    }

    pub(crate) fn order(&mut self, id: Id, order: &str) -> Outcome<()> {
        let life = self.life_mut(id)?;
        let said = life.process.order(order);
        said.map_err(|e| format!("{}: {order}: {e}", name(id)).into())
    }

    fn life_mut(&mut self, id: Id) -> Outcome<&mut Life> {
        let life = self.members[id].life.as_mut();
        life.ok_or_else(|| format!("{} is not alive", name(id)).into())
    }

    pub(crate) fn set_away(&mut self, id: Id, away: bool) {
        self.members[id].away = away;
    }

    /// Whether events may come as one, since there are more than hosts can take.
    pub(crate) fn set_lag(&mut self, lags: bool) {
        for life in self.lives_mut() {
            life.replay.lags = lags;
        }
    }

    /// Has a member change its tags.
    pub(crate) fn retag(&mut self, id: Id) -> Outcome<()> {
        self.members[id].version += 1;
        let order = format!("version {}", self.members[id].version);
        self.order(id, &order)
    }

    /// Has a member report all its peers as lost.
    pub(crate) fn lose_all(&mut self, id: Id) -> Outcome<()> {
        let peers: Vec<String> = self.life_mut(id)?.replay.peers.keys().cloned().collect();
        for peer in peers {
            self.order(id, &format!("lost {peer}"))?;
            self.life_mut(id)?.replay.lost.insert(peer);
        }
        Ok(())
    }

    pub(crate) fn incarnation(&self, id: Id) -> Option<u64> {
        self.members[id].life.as_ref()?.incarnation
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// All events since this was last called.
    pub(crate) fn take_recent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.recent)
    }

    /// Listens to the members until something is so; whether it became so in time.
    pub(crate) fn wait_until(
        &mut self,
        deadline: Instant,
        is_so: impl Fn(&Self) -> bool,
    ) -> Outcome<bool> {
        loop {
            if let Some(broken) = self.broken.take() {
                return Err(broken.into());
            }
            if is_so(self) {
                return Ok(true);
            }
            let Ok(said) = self.lines.recv_deadline(deadline) else {
                return Ok(false);
            };
            self.hear(said);
            while let Ok(said) = self.lines.try_recv() {
                self.hear(said);
            }
        }
    }

    pub(crate) fn listen_for(&mut self, time: Duration) -> Outcome<()> {
        self.wait_until(Instant::now() + time, |_| false).map(drop)
    }

    /// Asks every member the same, and waits until all have answered.
    pub(crate) fn ask(&mut self, what: &str, deadline: Instant) -> Outcome<()> {
        self.question += 1;
        let question = self.question;
        for id in 0..SIZE {
            self.order(id, &format!("{what} {question}"))?;
        }
        let all_answered = |crowd: &Self| crowd.lives().all(|life| life.answered == question);
        if self.wait_until(deadline, all_answered)? {
            return Ok(());
        }
        let silent = self.members.iter().filter(|member| {
            let life = member.life.as_ref();
            life.is_none_or(|life| life.answered != question)
        });
        let silent: Vec<&str> = silent.map(|member| &*member.name).collect();
        Err(format!("asked for its {what}, did not answer: {}", silent.join(" ")).into())
    }

    fn hear(&mut self, said: Said) {
        let since = said.at - self.start;
        let member = &mut self.members[said.id];
        let life = member.life.as_mut();
        // Others have died by now, with whatever was on its way.
        let Some(life) = life.filter(|life| life.number == said.life) else {
            return;
        };
        let Some(line) = said.line else {
            life.over = true;
            if !life.ends {
                self.breaks(said.id, "its process ended unasked");
            }
            return;
        };
        let text = format!("{:8.3} {}", since.as_secs_f64(), line.replace('\t', " "));
        let line = Line::parse(&line);
        if let Line::Told(_) = line {
            self.recent.push(format!("{} {text}", member.name));
        }
        if let Line::Told(_) | Line::Note = line {
            life.history.truncate(HISTORY - 1);
            life.history.push_front(text);
        }
        if let Err(reason) = life.take(line, said.at, &mut self.events) {
            self.breaks(said.id, &reason);
        }
    }

    fn breaks(&mut self, id: Id, reason: &str) {
        let text = format!("{}: {reason}\n{}", name(id), self.history(id));
        self.broken.get_or_insert(text);
    }

    /// The last that a member told.
    fn history(&self, id: Id) -> String {
        let Some(life) = &self.members[id].life else {
            return String::new();
        };
        let lines = life
            .history
            .iter()
            .rev()
            .map(|line| format!("    {line}\n"));
        lines.collect()
    }

    fn lives(&self) -> impl Iterator<Item = &Life> {
        self.members
            .iter()
            .filter_map(|member| member.life.as_ref())
    }

    fn lives_mut(&mut self) -> impl Iterator<Item = &mut Life> {
        self.members
            .iter_mut()
            .filter_map(|member| member.life.as_mut())
    }
}

impl Life {
    fn take(&mut self, line: Line, at: Instant, events: &mut Events) -> Result<(), String> {
        match line {
            Line::Told(told) => {
                *events.entry(told.kind()).or_default() += 1;
                self.departures += u64::from(Told::is_leave(told.kind()));
                self.outages += u64::from(matches!(told, Told::Offline(_)));
                if let Told::Online(incarnation) = told {
                    self.incarnation = Some(incarnation);
                }
                return self.replay.take(&told, at);
            }
            Line::Roster {
                question,
                online,
                peers,
            } => {
                self.answered = question;
                self.roster = self.judge(online, &peers);
            }
            Line::Usage {
                question,
                usage,
                peak_kb,
            } => {
                self.answered = question;
                self.usage = Some(self.usage.map_or(usage, |least| least.min(usage)));
                self.peak_kb = peak_kb;
            }
            Line::Note => {}
        }
        Ok(())
    }

    fn lived(&self, name: &str) -> Option<Lived> {
        Some(Lived {
            name: name.to_owned(),
            throughout: self.number <= SIZE as u64,
            first: self.first?,
            last: self.usage.or(self.first)?,
            flooded_kb: self.flooded_kb,
            peak_kb: self.peak_kb,
            departures: self.departures,
        })
    }

    /// What it says itself must be what its events led to.
    fn judge(&self, online: bool, peers: &Peers) -> Result<(), String> {
        if online != self.replay.is_online() {
            return Err(format!("status() says online: {online}, its events do not"));
        }
        match differences(peers, &self.replay.peers) {
            None => Ok(()),
            Some(text) => Err(format!("peers(), beside what its events led to: {text}")),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What must be so at a quiet point.

impl Crowd {
    /// Those who are there, as every roster must show them.
    fn truth(&self) -> Option<Peers> {
        let all = self.members.iter().map(|member| {
            let incarnation = member.life.as_ref()?.incarnation?;
            let version = member.version.to_string();
            let seen = Seen {
                incarnation,
                version,
            };
            Some((member.name.clone(), seen))
        });
        all.collect()
    }

    /// Whether everybody is online, and knows all others, by the events it told.
    pub(crate) fn is_right(&self) -> bool {
        self.truth().is_some_and(|truth| {
            let mut members = self.members.iter();
            members.all(|member| member.wrong(&truth).is_none())
        })
    }

    /// Whether every member said the same of itself when it was asked.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.lives().all(|life| life.roster.is_ok())
    }

    /// What is not as it must be, and what some of those members told last.
    pub(crate) fn complaints(&self) -> String {
        let truth = self.truth();
        let complaint = |member: &Member| match (&truth, &member.life) {
            (_, None) => Some("is not alive".to_owned()),
            (None, Some(life)) => {
                (life.incarnation.is_none()).then(|| "has never been online".to_owned())
            }
            (Some(truth), Some(life)) => member.wrong(truth).or_else(|| life.roster.clone().err()),
        };
        let members = self.members.iter().enumerate();
        let wrong = members.filter_map(|(id, member)| Some((id, complaint(member)?)));
        let wrong: Vec<(Id, String)> = wrong.collect();
        let complaints = wrong
            .iter()
            .map(|(id, text)| format!("{}: {text}\n", name(*id)));
        let histories = wrong.iter().take(SHOWN);
        let histories = histories.map(|(id, _)| format!("{}\n{}", name(*id), self.history(*id)));
        complaints.chain(histories).collect()
    }

    /// Whether all who can be asked have noticed that these are gone.
    pub(crate) fn have_noticed(&self, gone: &[Id]) -> bool {
        let mut others = self.members.iter().filter(|member| !member.away);
        others.all(|member| {
            let Some(life) = &member.life else {
                return true;
            };
            let knows = |&id: &Id| life.replay.peers.contains_key(&*self.members[id].name);
            !gone.iter().any(knows)
        })
    }

    /// Whether all who can be asked have a peer of this name.
    pub(crate) fn all_know(&self, name: &str) -> bool {
        let mut here = self.members.iter().filter(|member| !member.away);
        here.all(|member| {
            let life = member.life.as_ref();
            life.is_some_and(|life| life.replay.peers.contains_key(name))
        })
    }

    /// How many times each member went offline.
    pub(crate) fn outages(&self) -> Vec<u64> {
        let lives = self.members.iter().map(|member| member.life.as_ref());
        lives
            .map(|life| life.map_or(0, |life| life.outages))
            .collect()
    }

    /// Whether these are online, as far as they are there.
    pub(crate) fn are_online(&self, ids: &[Id]) -> bool {
        let mut lives = ids.iter().filter_map(|&id| self.members[id].life.as_ref());
        lives.all(|life| life.replay.is_online())
    }

    /// Whether these, as far as they can be asked, went offline since.
    pub(crate) fn went_offline(&self, ids: &[Id], before: &[u64]) -> bool {
        let now = self.outages();
        let can_tell = |id: Id| self.members[id].life.is_some() && !self.members[id].away;
        ids.iter().all(|&id| !can_tell(id) || now[id] > before[id])
    }

    /// What the members take, by their answers.
    pub(crate) fn usage(&self) -> impl Iterator<Item = (&str, Usage)> {
        let members = self.members.iter();
        members.filter_map(|member| Some((&*member.name, member.life.as_ref()?.usage?)))
    }

    /// What the threads of a member are called.
    pub(crate) fn threads(&self, name: &str) -> Vec<String> {
        let is_it = |member: &&Member| member.name == name;
        let life = self
            .members
            .iter()
            .find(is_it)
            .and_then(|it| it.life.as_ref());
        let tasks =
            life.and_then(|it| fs::read_dir(format!("/proc/{}/task", it.process.pid())).ok());
        let tasks = tasks.into_iter().flatten().flatten();
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        tasks
            .filter_map(name)
            .map(|it| it.trim().to_owned())
            .collect()
    }

    /// From here on all come to rest.
    pub(crate) fn begin_rest(&mut self) {
        for life in self.lives_mut() {
            life.usage = None;
        }
    }

    /// From here to the next quiet point there is a flood.
    pub(crate) fn begin_flood(&mut self) {
        for life in self.lives_mut() {
            life.flooded = true;
        }
    }

    /// A quiet point: the first for those who have seen none.
    pub(crate) fn note_usage(&mut self) {
        for life in self.lives_mut() {
            let Some(now) = life.usage else {
                continue;
            };
            let first = *life.first.get_or_insert(now);
            if std::mem::take(&mut life.flooded) {
                let grown = now.memory_kb.saturating_sub(first.memory_kb);
                life.flooded_kb = life.flooded_kb.max(grown);
            }
        }
    }

    /// What each life took at its first and at its last quiet point: first of those that go on.
    pub(crate) fn first_and_last(&self) -> Vec<Lived> {
        let members = self.members.iter();
        let living = members.filter_map(|member| member.life.as_ref()?.lived(&member.name));
        living.chain(self.ended.iter().cloned()).collect()
    }
}

impl Member {
    /// What is wrong with its view of the truth.
    fn wrong(&self, truth: &Peers) -> Option<String> {
        let life = self.life.as_ref()?;
        if !life.replay.is_online() {
            return Some("is not online".to_owned());
        }
        if let Some(name) = life.replay.lost.first() {
            return Some(format!("reported {name} as lost, which has not healed"));
        }
        // Most of the time all is well, and then nothing is to be copied.
        let peers = &life.replay.peers;
        let others = truth.iter().filter(|(name, _)| **name != self.name);
        if peers.iter().eq(others) {
            return None;
        }
        let mut others = truth.clone();
        others.remove(&self.name);
        differences(peers, &others).map(|text| format!("its roster, beside the truth: {text}"))
    }
}

/// What is different about these peers from what they should be.
fn differences(peers: &Peers, expected: &Peers) -> Option<String> {
    let surplus = peers.iter().filter_map(|(name, seen)| {
        let what = match expected.get(name) {
            None => format!("has {name} ({seen}), which is not there"),
            Some(truth) if truth != seen => format!("has {name} ({seen}), expected {truth}"),
            Some(_) => return None,
        };
        Some(what)
    });
    let missing = expected
        .iter()
        .filter(|(name, _)| !peers.contains_key(*name));
    let missing = missing.map(|(name, seen)| format!("lacks {name} ({seen})"));
    let all: Vec<String> = surplus.chain(missing).collect();
    (!all.is_empty()).then(|| all.join(", "))
}
