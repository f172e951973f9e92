//! A TCP proxy in front of a server: a network that is slow, or swallows everything.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::Server;

pub struct Proxy {
    port: u16,
    /// Where the next connection leads, and the one after it.
    upstream: Arc<Mutex<[u16; 2]>>,
    road: Arc<Road>,
}

impl Proxy {
    /// Forwards to the server, each piece of data so much later. Lives as long as the process.
    pub fn start(server: &Server, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let upstream = Arc::new(Mutex::new([server.port(); 2]));
        let road = Arc::new(Road::new(delay));
        let proxy = Self {
            port,
            upstream: Arc::clone(&upstream),
            road: Arc::clone(&road),
        };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                road.wait_until_open();
                let port = {
                    let mut ports = upstream.lock().expect("no panic with it");
                    ports.reverse();
                    ports[1]
                };
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                let back = (server.try_clone(), client.try_clone());
                forward(client, server, &road);
                if let (Ok(server), Ok(client)) = back {
                    forward(server, client, &road);
                }
            }
        });
        proxy
    }

    pub fn params(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres", self.port)
    }

    /// Connections from now on lead to this server.
    pub fn lead_to(&self, server: &Server) {
        self.balance([server, server]);
    }

    /// Connections from now on lead to these servers in turn.
    pub fn balance(&self, servers: [&Server; 2]) {
        *self.upstream.lock().expect("no panic with it") = servers.map(Server::port);
    }

    /// From now on each piece of data comes so much later.
    pub fn set_delay(&self, delay: Duration) {
        self.road.change(|state| state.delay = delay);
    }

    /// Becomes a black hole: what is sent is taken and goes nowhere, and not even an end is passed on.
    pub fn stall(&self) {
        self.road.change(|state| state.open = false);
    }

    /// Lets everything through that was held back.
    pub fn resume(&self) {
        self.road.change(|state| state.open = true);
    }
}

/// What all connections go over.
struct Road {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct State {
    delay: Duration,
    open: bool,
}

impl Road {
    fn new(delay: Duration) -> Self {
        Self {
            state: Mutex::new(State { delay, open: true }),
            changed: Condvar::new(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no panic with it"));
        self.changed.notify_all();
    }

    fn wait_until_open(&self) -> State {
        let state = self.state.lock().expect("no panic with it");
        let state = self.changed.wait_while(state, |state| !state.open);
        *state.expect("no panic with it")
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, road: &Arc<Road>) {
    let road = Arc::clone(road);
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        loop {
            let read = from.read(&mut buffer);
            let state = road.wait_until_open();
            let Ok(count @ 1..) = read else {
                break;
            };
            thread::sleep(state.delay);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
