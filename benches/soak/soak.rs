//! Inflicts faults on a cluster, one after the other, and checks after each that all is as it must be.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use postgres::Client;
use rustix::process::Signal;

use crate::Outcome;
use crate::crowd::{self, Crowd, Events, Id, Lived, Route, STRANGERS};
use crate::fault::{Back, Fault, Schedule, Step};
use crate::line::Told;
use crate::rig::{
    Flood, Holder, NOBODY_WAITS, PATIENCE, PgBouncer, Proxy, Server, Stop, Usage, free_port,
};
use crate::summary::{self, Tally, clock, seconds};

/// The channel that members meet on by default.
const CHANNEL: &str = "cluster";

/// While all connect anew, those that hang count too.
const SETTINGS: &[&str] = &["max_connections = 200", NOBODY_WAITS];

/// A pooler that tries again soon when it cannot connect.
const POOLER: &str = "server_login_retry = 0.2";

/// How often to look for what no event tells.
const PAUSE: Duration = Duration::from_millis(50);

/// How many payloads of junk come at a time.
const JUNK: usize = 100;

pub(crate) struct Soak {
    /// While NOTIFY is slow or held up. Before the server, so that it ends first.
    holder: Option<Holder>,
    server: Server,
    /// Where its next standby will be.
    other_port: u16,
    links: Vec<Proxy>,
    /// If one is installed.
    pooler: Option<PgBouncer>,
    /// While there is one.
    flood: Option<Flood>,
    crowd: Crowd,
    start: Instant,
    /// By kind of fault.
    tally: BTreeMap<&'static str, Tally>,
    /// The least that any member took at the first quiet point: what a member takes that has nothing under way.
    least: Usage,
    /// When this step began.
    began: Instant,
    /// How long it took after that until all had noticed who was gone.
    noticed: Option<Duration>,
    /// Steps after which something happened although all had been well again.
    disturbed: usize,
}

pub(crate) fn run(minutes: f64, seed: Option<u64>) -> Outcome<()> {
    let seed = seed.unwrap_or_else(|| Rng::new().u64(0..100_000));
    let time = Duration::try_from_secs_f64(minutes * 60.0)?;
    println!(
        "seed {seed}: {} members, faults for {minutes} min. Each line: when it began, what was done, and how long it took after \
         that until every member was online and knew just the others, with the events that members saw.\n",
        crowd::SIZE
    );
    let mut soak = Soak::start()?;
    let mut schedule = Schedule::new(seed, soak.pooler.is_some());
    while soak.start.elapsed() < time {
        soak.step(&schedule.next())
            .map_err(|e| format!("with seed {seed}, {e}"))?;
    }
    soak.finish(seed)
}

impl Soak {
    fn start() -> Outcome<Self> {
        let server = Server::try_start(SETTINGS)?;
        let other_port = free_port();
        let link = |(_, delay)| Proxy::start(&server, delay);
        let links: Vec<Proxy> = crowd::LINKS.into_iter().map(link).collect();
        let pooler = PgBouncer::start_with(&server, "session", POOLER);
        let start = Instant::now();
        let params = |route: Route| match (route, &pooler) {
            (Route::Link(link), _) => links[link].params(),
            (Route::Pooler, Some(pooler)) => pooler.params(),
            (Route::Direct | Route::Pooler, _) => server.params_or_at(other_port),
        };
        let crowd = Crowd::start(start, params)?;
        let mut soak = Self {
            server,
            other_port,
            links,
            pooler,
            flood: None,
            holder: None,
            crowd,
            start,
            tally: BTreeMap::new(),
            least: Usage::default(),
            began: start,
            noticed: None,
            disturbed: 0,
        };
        soak.begin_line(Duration::ZERO, "all members start")?;
        let took = soak.recover()?;
        soak.end_line(took, soak.crowd.events());
        soak.crowd.take_recent();
        Ok(soak)
    }

    fn step(&mut self, step: &Step) -> Outcome<()> {
        self.crowd.listen_for(step.calm)?;
        self.report_disturbance();
        let (at, before) = (self.start.elapsed(), self.crowd.events().clone());
        (self.began, self.noticed) = (Instant::now(), None);
        self.begin_line(at, &step.to_string())?;
        let recovered = self.inflict(step).and_then(|()| self.recover());
        let events = since(self.crowd.events(), &before);
        let left = events.keys().any(|kind| Told::is_leave(kind));
        let spared = match recovered {
            Ok(_) if left && step.spares_all() => Err(self.lost_for_nothing().into()),
            recovered => recovered,
        };
        let took = spared.map_err(|error| {
            println!("FAILED");
            format!("at {}, after: {step}\n{error}", clock(at).trim())
        })?;
        self.end_line(took, &events);
        self.crowd.take_recent();
        let tally = self.tally.entry(step.kind()).or_default();
        tally.add(at, took, self.noticed);
        Ok(())
    }

    fn begin_line(&self, at: Duration, text: &str) -> Outcome<()> {
        print!("{} {text} ... ", clock(at));
        Ok(std::io::stdout().flush()?)
    }

    fn end_line(&self, took: Duration, events: &Events) {
        let noticed = self.noticed.map_or_else(String::new, |noticed| {
            format!("noticed in {}, ", seconds(noticed))
        });
        let (took, events) = (seconds(took), words(events));
        println!("{noticed}recovered in {took} ({events})");
    }

    fn lost_for_nothing(&mut self) -> String {
        let mut events = self.crowd.take_recent();
        events.retain(|event| event.contains(" leave "));
        format!("nobody should have left:\n    {}", events.join("\n    "))
    }

    /// All was well after the last step; what happened since has no cause but that step.
    fn report_disturbance(&mut self) {
        let events = self.crowd.take_recent();
        if !events.is_empty() {
            self.disturbed += 1;
            println!("         after that, {} more:", events.len());
        }
        for event in events.iter().take(5) {
            println!("           {event}");
        }
    }

    fn inflict(&mut self, step: &Step) -> Outcome<()> {
        self.begin(&step.fault)?;
        if let Some(fault) = &step.meanwhile {
            self.begin(fault)?;
            self.hold(fault)?;
            self.end(fault)?;
        }
        self.hold(&step.fault)?;
        self.end(&step.fault)
    }

    fn begin(&mut self, fault: &Fault) -> Outcome<()> {
        match *fault {
            Fault::ServerStops { hard, .. } => self.server.stop(match hard {
                true => Stop::Immediate,
                false => Stop::Fast,
            }),
            Fault::ServerKilled { .. } => self.server.kill(),
            Fault::ServerFreezes { .. } => self.server.freeze(),
            Fault::Failover => self.fail_over(),
            Fault::SessionEnds { member } => {
                let name = crowd::name(member);
                self.terminate(&format!("application_name = '{name}'"), &[member])?;
            }
            Fault::AllSessionsEnd => {
                let everybody: Vec<Id> = (0..crowd::SIZE).collect();
                self.terminate("pid <> pg_backend_pid()", &everybody)?;
            }
            Fault::BackendFreezes { member, .. } => {
                self.server.freeze_backends(&[&crowd::name(member)]);
            }
            Fault::MemberFreezes { member, .. } => {
                self.crowd.signal(member, Signal::STOP)?;
                self.crowd.set_away(member, true);
            }
            Fault::Killed { ref members, .. } => {
                members.iter().try_for_each(|&id| self.crowd.kill(id))?;
            }
            Fault::Leave { ref members, .. } => self.crowd.leave(members)?,
            Fault::PoolerRestarts => {
                if let Some(pooler) = &mut self.pooler {
                    pooler.stop();
                    pooler.start_again();
                }
            }
            Fault::LinkStalls { link, .. } => self.links[link].stall(),
            Fault::LinkSlow { link, delay, .. } => {
                self.links[link].set_delay(crowd::LINKS[link].1 + delay);
            }
            Fault::LoginsSlow { delay, ref members } => {
                // Each statement here is a login, too.
                let seconds = delay.as_secs();
                self.server
                    .run(&format!("ALTER SYSTEM SET post_auth_delay = {seconds}"));
                self.server.run("SELECT pg_reload_conf()");
                let names = members.iter().map(|&id| format!("'{}'", crowd::name(id)));
                let names = names.collect::<Vec<_>>().join(", ");
                self.terminate(&format!("application_name IN ({names})"), members)?;
            }
            Fault::NotifySlow { each, .. } => {
                self.holder = Some(Holder::slow_down(&self.server, each));
            }
            Fault::NotifyHeldUp { .. } => self.holder = Some(Holder::hold(&self.server)),
            Fault::Junk { seed } => self.say(&junk(seed))?,
            Fault::Flood { .. } => {
                self.crowd.begin_flood();
                self.flood = Some(Flood::start(&self.server, &[(CHANNEL, 50)]));
            }
            Fault::FalseGone { member } => self.say(&[self.gone_message(member)?])?,
            Fault::Lost { member } => self.crowd.lose_all(member)?,
            Fault::Retagged { member } => self.crowd.retag(member)?,
            Fault::StopsDraining { member, restarts } => self.overflow(member, restarts)?,
        }
        Ok(())
    }

    fn hold(&mut self, fault: &Fault) -> Outcome<()> {
        match *fault {
            Fault::ServerStops { down: time, .. }
            | Fault::ServerKilled { down: time }
            | Fault::ServerFreezes { time }
            | Fault::BackendFreezes { time, .. }
            | Fault::LinkStalls { time, .. }
            | Fault::Flood { time }
            | Fault::LinkSlow { time, .. }
            | Fault::NotifySlow { time, .. }
            | Fault::NotifyHeldUp { time } => self.crowd.listen_for(time),
            Fault::LoginsSlow { delay, ref members } => {
                self.hold_until_online(members, delay * 3 + Duration::from_secs(3))
            }
            Fault::MemberFreezes { member, back } => self.hold_back(&[member], back),
            Fault::Killed { ref members, back } | Fault::Leave { ref members, back } => {
                self.hold_back(members, back)
            }
            Fault::Failover
            | Fault::SessionEnds { .. }
            | Fault::AllSessionsEnd
            | Fault::PoolerRestarts
            | Fault::Junk { .. }
            | Fault::FalseGone { .. }
            | Fault::Lost { .. }
            | Fault::Retagged { .. }
            | Fault::StopsDraining { .. } => Ok(()),
        }
    }

    /// Waits until they are online again, which must be within `limit`.
    fn hold_until_online(&mut self, members: &[Id], limit: Duration) -> Outcome<()> {
        let online = |crowd: &Crowd| crowd.are_online(members);
        if self.crowd.wait_until(Instant::now() + limit, online)? {
            return Ok(());
        }
        Err(format!("not online again within {limit:?}").into())
    }

    fn hold_back(&mut self, gone: &[Id], back: Back) -> Outcome<()> {
        if let Back::After(time) = back {
            return self.crowd.listen_for(time);
        }
        let noticed = |crowd: &Crowd| crowd.have_noticed(gone);
        if self.crowd.wait_until(Instant::now() + PATIENCE, noticed)? {
            self.noticed = Some(self.began.elapsed());
            return Ok(());
        }
        let text = format!("not all have noticed within {PATIENCE:?} that they are gone");
        Err(text.into())
    }

    fn end(&mut self, fault: &Fault) -> Outcome<()> {
        match *fault {
            Fault::ServerStops { .. } | Fault::ServerKilled { .. } => self.server.start_again(),
            Fault::ServerFreezes { .. } | Fault::BackendFreezes { .. } => self.server.thaw(),
            Fault::MemberFreezes { member, .. } => {
                self.crowd.signal(member, Signal::CONT)?;
                self.crowd.set_away(member, false);
            }
            Fault::Killed { ref members, .. } | Fault::Leave { ref members, .. } => {
                members.iter().try_for_each(|&id| self.crowd.spawn(id))?;
            }
            Fault::LinkStalls { link, .. } => self.links[link].resume(),
            Fault::LinkSlow { link, .. } => self.links[link].set_delay(crowd::LINKS[link].1),
            Fault::LoginsSlow { .. } => {
                let mut client = self.server.client();
                client.batch_execute("ALTER SYSTEM RESET post_auth_delay")?;
                client.batch_execute("SELECT pg_reload_conf()")?;
            }
            Fault::NotifySlow { .. } | Fault::NotifyHeldUp { .. } => {
                if let Some(holder) = self.holder.take() {
                    holder.release();
                }
            }
            Fault::Flood { .. } => {
                if let Some(flood) = self.flood.take() {
                    flood.stop();
                }
            }
            Fault::StopsDraining { member, .. } => {
                self.crowd.order(member, "drain")?;
                self.crowd.set_away(member, false);
            }
            Fault::Failover
            | Fault::SessionEnds { .. }
            | Fault::AllSessionsEnd
            | Fault::PoolerRestarts
            | Fault::Junk { .. }
            | Fault::FalseGone { .. }
            | Fault::Lost { .. }
            | Fault::Retagged { .. } => {}
        }
        Ok(())
    }

    /// Members find the new primary among their hosts, or are led there by their link or pooler.
    fn fail_over(&mut self) {
        let standby = self.server.standby_at(self.other_port);
        self.other_port = self.server.port();
        let mut old = std::mem::replace(&mut self.server, standby);
        old.kill();
        self.server.promote();
        for link in &self.links {
            link.lead_to(self.server.port());
        }
        if let Some(pooler) = &mut self.pooler {
            pooler.lead_to(&self.server);
        }
    }

    /// Ends sessions, of these members, and waits until they have seen it.
    fn terminate(&mut self, whose: &str, members: &[Id]) -> Outcome<()> {
        let before = self.crowd.outages();
        self.server.run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND {whose}"
        ));
        let offline = |crowd: &Crowd| crowd.went_offline(members, &before);
        if self.crowd.wait_until(Instant::now() + PATIENCE, offline)? {
            return Ok(());
        }
        Err(
            format!("with its session terminated, a member was not offline within {PATIENCE:?}")
                .into(),
        )
    }

    fn say(&self, payloads: &[String]) -> Outcome<()> {
        let mut client = self.server.client();
        payloads
            .iter()
            .try_for_each(|payload| notify(&mut client, payload))
    }

    /// A message that this member is gone, with a higher number than any that it has sent.
    fn gone_message(&self, member: Id) -> Outcome<String> {
        let incarnation = self.crowd.incarnation(member).ok_or("it is not online")?;
        let name = crowd::name(member);
        Ok(format!(
            "pg-peers/1 gone name={name} inc={incarnation} seq=1000000000;"
        ))
    }

    /// A host does not drain its events, and more happen than its queue holds.
    fn overflow(&mut self, member: Id, restarts: Id) -> Outcome<()> {
        self.crowd.order(member, "stop draining")?;
        self.crowd.set_away(member, true);
        self.crowd.kill(restarts)?;
        self.crowd.spawn(restarts)?;
        // Even a host that drains may be slower than this many strangers.
        self.crowd.set_lag(true);
        let start = SystemTime::UNIX_EPOCH.elapsed()?.as_micros();
        let beat = |name: &str| format!("pg-peers/1 beat name={name} inc={start} seq=1 due=60000;");
        let bye = |name: &str| format!("pg-peers/1 bye name={name} inc={start} seq=2;");
        let names = (0..STRANGERS).map(|number| format!("stranger-{number}"));
        let come_and_go: Vec<String> = names.flat_map(|name| [beat(&name), bye(&name)]).collect();
        self.say(&come_and_go)?;
        // A member that hears this one has heard all before.
        let last = "last-stranger";
        self.say(&[beat(last)])?;
        let deadline = Instant::now() + PATIENCE;
        if !self
            .crowd
            .wait_until(deadline, |crowd| crowd.all_know(last))?
        {
            return Err(format!("not all know {last} within {PATIENCE:?}").into());
        }
        self.say(&[bye(last)])
    }

    /// Waits until all is as it must be; how long it took until every roster was right.
    fn recover(&mut self) -> Outcome<Duration> {
        let ended = Instant::now();
        let deadline = ended + PATIENCE;
        let took = loop {
            if !self.crowd.wait_until(deadline, Crowd::is_right)? {
                return Err(self.explain()?);
            }
            let took = ended.elapsed();
            self.crowd.ask("roster", deadline)?;
            if self.crowd.is_right() && self.crowd.is_confirmed() {
                self.settle()?;
                // A member may find out late that its session did not outlive a short fault.
                if self.crowd.is_right() {
                    break took;
                }
            }
            if Instant::now() > deadline {
                return Err(self.explain()?);
            }
            self.crowd.listen_for(PAUSE)?;
        };
        self.crowd.set_lag(false);
        self.crowd.note_usage();
        Ok(took)
    }

    /// Waits until nothing is left of what was under way: no thread, no descriptor, no session.
    fn settle(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        self.crowd.begin_rest();
        loop {
            self.crowd.ask("usage", Instant::now() + PATIENCE)?;
            if self.least == Usage::default() {
                let all = self.crowd.usage().map(|(_, usage)| usage);
                self.least = all.reduce(Usage::min).unwrap_or_default();
            }
            let Some(left) = self.left_behind()? else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(format!("left behind, {PATIENCE:?} later: {left}").into());
            }
            self.crowd.listen_for(PAUSE)?;
        }
    }

    fn left_behind(&self) -> Outcome<Option<String>> {
        let least = self.least;
        let surplus =
            |what: Usage| what.threads > least.threads || what.descriptors > least.descriptors;
        let mut left: Vec<String> = self
            .crowd
            .usage()
            .filter(|(_, usage)| surplus(*usage))
            .map(|(name, has)| {
                let (threads, descriptors) = (has.threads, has.descriptors);
                let called = self.crowd.threads(name).join(", ");
                format!("{name} has {threads} threads ({called}) and {descriptors} descriptors")
            })
            .collect();
        if !left.is_empty() {
            let (threads, descriptors) = (least.threads, least.descriptors);
            left.push(format!("expected {threads} and {descriptors}"));
        }
        // What a pooler keeps for others has no name, after its DISCARD ALL.
        let kept = match self.pooler {
            Some(_) => "AND NOT (application_name = '' AND state = 'idle')",
            None => "",
        };
        let query = format!(
            "SELECT coalesce(nullif(application_name, ''), concat_ws(' ', state, wait_event, query)) \
             FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() {kept} ORDER BY 1"
        );
        let sessions = self.server.client().query(&query, &[])?;
        if sessions.len() != crowd::SIZE {
            let names: Vec<&str> = sessions.iter().map(|row| row.get(0)).collect();
            let (count, size) = (sessions.len(), crowd::SIZE);
            left.push(format!(
                "the server has {count} sessions, expected {size}: {}",
                names.join(", ")
            ));
        }
        Ok((!left.is_empty()).then(|| left.join(", ")))
    }

    /// What is wrong, with what those members say of themselves.
    fn explain(&mut self) -> Outcome<Box<dyn std::error::Error + Send + Sync>> {
        for id in 0..crowd::SIZE {
            self.crowd.order(id, "status")?;
        }
        self.crowd.listen_for(Duration::from_secs(1))?;
        let complaints = self.crowd.complaints();
        Ok(format!("not within {PATIENCE:?}:\n{complaints}").into())
    }

    /// Says what there was, or what grew.
    fn finish(&mut self, seed: u64) -> Outcome<()> {
        self.report_disturbance();
        let ran = self.start.elapsed();
        let everybody: Vec<Id> = (0..crowd::SIZE).collect();
        let lived = self.crowd.first_and_last();
        self.crowd.leave(&everybody)?;
        println!("\n{}", summary::of_faults(&self.tally));
        println!(
            "{} times something happened after a recovery\n",
            self.disturbed
        );
        println!("{}", summary::of_usage(&lived));
        let grown: Vec<String> = lived.iter().filter_map(Lived::grown).collect();
        if !grown.is_empty() {
            return Err(format!("with seed {seed}: {}", grown.join(", ")).into());
        }
        let faults: usize = self.tally.values().map(|tally| tally.count).sum();
        let events: usize = self.crowd.events().values().sum();
        let slowest = self.tally.values().map(|tally| tally.slowest).max();
        println!(
            "ok: seed {seed}, {faults} faults in {} min, every roster right within {} of the end of each; {events} events \
             ({}), each where it may come; {}",
            clock(ran).trim(),
            seconds(slowest.unwrap_or_default()),
            words(self.crowd.events()),
            summary::of_growth(&lived),
        );
        Ok(())
    }
}

fn notify(client: &mut Client, payload: &str) -> Outcome<()> {
    client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &payload])?;
    Ok(())
}

/// What is no message of this version, or says what is long known.
fn junk(seed: u64) -> Vec<String> {
    let mut rng = Rng::with_seed(seed);
    let one = |_| {
        let name = crowd::name(rng.usize(0..crowd::SIZE));
        match rng.u32(0..8) {
            0 => String::new(),
            // Nothing that looks like a node name, which would be a peer.
            1 => (0..rng.usize(0..300)).map(|_| rng.alphanumeric()).collect(),
            2 => "x".repeat(7_999),
            3 => format!("pg-peers/2 hello name={name} inc=1 seq=1 due=1000;"),
            4 => format!("pg-peers/1 dance name={name};"),
            5 => format!("pg-peers/1 beat name={name} inc=17"),
            6 => format!("pg-peers/1 hello name={name} inc=1 seq=1 due=1000;"),
            _ => format!("pg-peers/1 bye name={name} inc=1 seq=9;"),
        }
    };
    (0..JUNK).map(one).collect()
}

fn since(events: &Events, before: &Events) -> Events {
    let more = events.iter().map(|(kind, count)| {
        let known = before.get(kind).copied().unwrap_or_default();
        (*kind, count - known)
    });
    more.filter(|(_, count)| *count > 0).collect()
}

fn words(events: &Events) -> String {
    if events.is_empty() {
        return "no events".to_owned();
    }
    let words = events.iter().map(|(kind, count)| format!("{count} {kind}"));
    words.collect::<Vec<_>>().join(", ")
}
