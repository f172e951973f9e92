//! A member: a host that prints every event, and on request what it knows and what it takes.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use pg_peers::crossbeam_channel::{never, select};
use pg_peers::{Cluster, Config, Event};

use crate::Outcome;
use crate::line::{Line, Told, VERSION};
use crate::rig::{Subprocess, lines_of};

/// Short, so that expiry happens within a soak. All else is as it is by default.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// In the environment of a member's process.
const NAME: &str = "PG_PEERS_SOAK_MEMBER";
const PARAMS: &str = "PG_PEERS_SOAK_PARAMS";
const INITIAL_VERSION: &str = "PG_PEERS_SOAK_VERSION";

/// The name of the member that this process is to be.
pub(crate) fn name() -> Option<String> {
    std::env::var(NAME).ok()
}

/// Runs this program again as a member, whose lines `hear` gets. It ends with the thread that calls this.
pub(crate) fn start(
    name: &str,
    params: &str,
    version: u32,
    hear: impl FnMut(Option<String>) + Send + 'static,
) -> Outcome<Subprocess> {
    let mut program = Command::new(std::env::current_exe()?);
    program
        .env(NAME, name)
        .env(PARAMS, params)
        .env(INITIAL_VERSION, version.to_string());
    Ok(Subprocess::start(&mut program, hear)?)
}

pub(crate) fn run(name: String) -> Outcome<()> {
    // The end of standard input ends a member, but not while it is stopped.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let label = name.clone();
    env_logger::builder()
        .format(move |out, record| {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
            let millis = now.unwrap_or_default().as_millis() % 1_000_000;
            writeln!(out, "[{millis:06} {label}] {}", record.args())
        })
        .init();
    let cluster = Config::new(name)
        .heartbeat_interval(HEARTBEAT)
        .tag(VERSION, std::env::var(INITIAL_VERSION)?)
        .join(&std::env::var(PARAMS)?)?;
    let orders = lines_of(std::io::stdin());
    let mut drains = true;
    loop {
        let events = if drains {
            cluster.events().clone()
        } else {
            never()
        };
        select! {
            recv(events) -> event => tell(&event?, &cluster),
            recv(orders) -> order => match order.as_deref() {
                Ok("stop draining") => drains = false,
                Ok("drain") => drains = true,
                Ok("leave") => break,
                Ok(order) => obey(order, drains, &cluster)?,
                // The soak is gone.
                Err(_) => return Ok(()),
            },
        }
    }
    if let Err(error) = cluster.leave() {
        println!("left without a goodbye: {error}");
    }
    Ok(())
}

fn obey(order: &str, drains: bool, cluster: &Cluster) -> Outcome<()> {
    match order.split_once(' ') {
        Some(("roster", question)) => {
            if drains {
                cluster
                    .events()
                    .try_iter()
                    .for_each(|event| tell(&event, cluster));
            }
            println!("{}", Line::roster(question, cluster));
        }
        Some(("usage", question)) => println!("{}", Line::usage(question)?),
        Some(("version", version)) => cluster.set_tags([(VERSION, version)])?,
        Some(("lost", name)) => {
            if let Some(peer) = cluster.peer(name) {
                cluster.report_unreachable(&peer);
            }
        }
        _ if order == "status" => println!("{:?}", cluster.status()),
        _ => return Err(format!("an order that no member knows: {order}").into()),
    }
    Ok(())
}

fn tell(event: &Event, cluster: &Cluster) {
    let own = match event {
        Event::Online => cluster.status().incarnation,
        _ => None,
    };
    println!("{}", Told::line(event, own.map_or(0, |own| own.get())));
}
