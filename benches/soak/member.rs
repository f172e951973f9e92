//! A member: a host that prints every event, and on request what it knows and what it takes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pg_peers::crossbeam_channel::{Receiver, never, select, unbounded};
use pg_peers::{Cluster, Config, Event};

use crate::Outcome;
use crate::line::{Line, Told, VERSION};

/// Short, so that expiry happens within a soak. All else is as it is by default.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// In the environment of a member's process.
const NAME: &str = "PG_PEERS_SOAK_MEMBER";
const PARAMS: &str = "PG_PEERS_SOAK_PARAMS";
const INITIAL_VERSION: &str = "PG_PEERS_SOAK_VERSION";

/// Has glibc's allocator give back at once what was freed, so that what is left is what is needed.
const GIVES_BACK: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_TRIM_THRESHOLD_", "65536"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
];

/// The name of the member that this process is to be.
pub(crate) fn name() -> Option<String> {
    std::env::var(NAME).ok()
}

/// Runs this program again as a member. It ends with the thread that calls this.
pub(crate) fn spawn(name: &str, params: &str, version: u32) -> Outcome<Child> {
    let child = Command::new(std::env::current_exe()?)
        .env(NAME, name)
        .env(PARAMS, params)
        .env(INITIAL_VERSION, version.to_string())
        .envs(GIVES_BACK)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
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
    let orders = read_lines(std::io::stdin());
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
        Some(("resources", question)) => println!("{}", Line::resources(question)?),
        Some(("version", version)) => cluster.set_tags([(VERSION, version)])?,
        Some(("lost", name)) => cluster.lost(name),
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

/// The lines of a stream, until it ends.
fn read_lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = unbounded();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
