//! Connection strings with several hosts, of which some are dead in one way or another.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pg_peers::{Config, Event};

use super::*;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How a host is dead.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its system takes connections, and nobody answers.
    Frozen,
    /// It swallows packets.
    BlackHole,
    Refusing,
}

/// A dead host. It is as dead as this is kept.
struct Dead {
    port: u16,
    _listener: Option<TcpListener>,
    _queue: Vec<TcpStream>,
}

impl Dead {
    fn new(how: Death) -> Self {
        let mut dead = Self {
            port: free_port(),
            _listener: None,
            _queue: Vec::new(),
        };
        if let Death::Refusing = how {
            return dead;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        dead.port = address.port();
        dead._listener = Some(listener);
        if let Death::BlackHole = how {
            dead._queue = fill(address);
        }
        dead
    }
}

/// Fills the queue of connections that were not accepted. The system then answers no packet that asks for another.
fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
    let queue: Vec<_> = (0..10_000).map_while(connect).collect();
    assert!(queue.len() < 10_000, "the queue has no end");
    queue
}

#[test]
fn the_first_hosts_are_dead_and_the_last_one_works() {
    // It looks at the threads of its process.
    let test = "hosts::the_first_hosts_are_dead_and_the_last_one_works";
    alone(test, || {
        let server = Server::start();
        let server = &server;
        // Members and dead hosts are kept until the threads were counted.
        let kept: Vec<_> = thread::scope(|scope| {
            let mut runs = Vec::new();
            for how in [Death::Frozen, Death::BlackHole, Death::Refusing] {
                for count in [1, 2] {
                    runs.push(scope.spawn(move || works_behind(server, how, count)));
                }
            }
            let join = |run: thread::ScopedJoinHandle<'_, _>| run.join().expect("no panic");
            runs.into_iter().map(join).collect()
        });
        let still = Instant::now();
        eventually("nothing left behind", || left_behind() == 0);
        within("nothing left behind", still, CONNECT_TIMEOUT);
        drop(kept);
    });
}

/// How many threads of ours do what may hang; none on systems without /proc.
fn left_behind() -> usize {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let names = threads.filter_map(|it| fs::read_to_string(it.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("pg-peers-")).count()
}

/// Online within one `connect_timeout` for each dead host and two seconds; at once the next times, by the host that worked.
fn works_behind(server: &Server, how: Death, count: usize) -> (Cluster, Vec<Dead>) {
    let name = format!("{how:?} {count}");
    let dead: Vec<Dead> = (0..count).map(|_| Dead::new(how)).collect();
    let mut ports: Vec<String> = dead.iter().map(|dead| dead.port.to_string()).collect();
    ports.push(server.port().to_string());
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let params = format!(
        "host={hosts} port={} user=postgres connect_timeout={}",
        ports.join(","),
        CONNECT_TIMEOUT.as_secs()
    );
    let start = Instant::now();
    let config = Config::new(&name).channel(&name);
    let member = config.join(&params).expect("valid");
    eventually("online", || {
        let mut events = member.events().try_iter();
        events.any(|event| matches!(event, Event::Online))
    });
    let limit = CONNECT_TIMEOUT * count as u32 + Duration::from_secs(2);
    within(&name, start, limit);

    for _ in 0..5 {
        let again = Instant::now();
        let pid = backend_of(server, &name);
        server.run(&format!("SELECT pg_terminate_backend({pid})"));
        expect(&member, "offline");
        expect(&member, "online");
        within(&format!("{name}, again"), again, Duration::from_secs(2));
    }
    (member, dead)
}
