//! A TCP proxy in front of a server: a network that is slow, or swallows everything. As over TCP, opening a connection costs a
//! round trip, and slow start applies.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::Server;

/// How many pieces of at most 64 kB are under way one way. A sender of more waits.
const MOST_UNDER_WAY: usize = 512;

/// What a connection may have under way one way at first: ten segments (RFC 6928).
const FIRST_WINDOW: usize = 14_600;

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
                forward(client, server, End::Client, &road);
                if let (Ok(server), Ok(client)) = back {
                    forward(server, client, End::Server, &road);
                }
            }
        });
        proxy
    }

    pub fn params(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres", self.port)
    }

    /// Connections from now on lead to what listens on this port.
    pub fn lead_to(&self, port: u16) {
        self.balance([port; 2]);
    }

    /// Connections from now on lead to these ports in turn.
    pub fn balance(&self, ports: [u16; 2]) {
        *self.upstream.lock().expect("no panic with it") = ports;
    }

    /// From now on each piece of data comes so much later.
    pub fn set_delay(&self, delay: Duration) {
        self.road.change(|state| state.delay = delay);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many round trips came one after the other so far, as the clients see it.
    pub fn round_trips(&self) -> u64 {
        self.road.halves(End::Client) / 2
    }

    /// Becomes a black hole: what is sent is taken and goes nowhere, and not even an end is passed on.
    pub fn stall(&self) {
        self.road.change(|state| state.open = false);
    }

    /// Becomes one when a client says this.
    pub fn stall_at(&self, said: &'static str) {
        self.road.change(|state| state.stall_at = Some(said));
    }

    /// Lets everything through that was held back.
    pub fn resume(&self) {
        self.road.change(|state| {
            (state.open, state.stall_at) = (true, None);
        });
    }
}

/// What all connections go over.
struct Road {
    state: Mutex<State>,
    changed: Condvar,
    /// How many halves of a round trip came before what was last seen at the clients, and at the server: what is sent after
    /// something arrived takes a half more (Lamport's clock).
    halves: Mutex<[u64; 2]>,
}

#[derive(Clone, Copy)]
struct State {
    delay: Duration,
    open: bool,
    stall_at: Option<&'static str>,
}

impl State {
    /// Whether a piece of data that comes from this end is what it stalls at.
    fn stalls_at(&self, end: End, piece: &[u8]) -> bool {
        let said = self.stall_at.filter(|_| matches!(end, End::Client));
        said.is_some_and(|said| piece.windows(said.len()).any(|it| it == said.as_bytes()))
    }
}

/// Which end of the road.
#[derive(Clone, Copy)]
enum End {
    Client,
    Server,
}

impl Road {
    fn new(delay: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                delay,
                open: true,
                stall_at: None,
            }),
            changed: Condvar::new(),
            halves: Mutex::new([0; 2]),
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

    /// The same, with this to be forwarded.
    fn wait_with(&self, end: End, piece: &[u8]) -> State {
        self.change(|state| state.open &= !state.stalls_at(end, piece));
        self.wait_until_open()
    }

    fn halves(&self, at: End) -> u64 {
        self.halves.lock().expect("no panic with it")[at as usize]
    }

    fn arrive(&self, at: End, halves: u64) {
        let seen = &mut self.halves.lock().expect("no panic with it")[at as usize];
        *seen = halves.max(*seen);
    }
}

/// What a sender may have under way: little at first, twice as much after each round trip in which it used all of it, and little
/// again after a rest (RFC 5681, slow start).
struct Window {
    size: usize,
    left: usize,
    /// When the round trip began in which this much is left.
    since: Instant,
    last_sent: Instant,
}

impl Window {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            size: FIRST_WINDOW,
            left: FIRST_WINDOW,
            since: now,
            last_sent: now,
        }
    }

    /// Waits until something may be sent. Returns how many of these bytes, and whether that took a round trip.
    fn take(&mut self, bytes: usize, round_trip: Duration) -> (usize, bool) {
        let begun = self.since.elapsed();
        if self.last_sent.elapsed() > round_trip * 2 {
            *self = Self::new();
        } else if self.left > 0 && begun >= round_trip {
            (self.left, self.since) = (self.size, Instant::now());
        }
        let waits = self.left == 0;
        if waits {
            thread::sleep(round_trip.saturating_sub(begun));
            self.size = self.size.saturating_mul(2);
            (self.left, self.since) = (self.size, Instant::now());
        }
        let taken = bytes.min(self.left);
        self.left -= taken;
        self.last_sent = Instant::now();
        (taken, waits)
    }
}

/// Forwards what comes from this end, each piece so much later and however many are under way. Slow start adds to that. Opening the
/// connection has cost a client one round trip by then.
fn forward(mut from: TcpStream, mut to: TcpStream, end: End, road: &Arc<Road>) {
    let (sender, under_way) = mpsc::sync_channel::<(Instant, u64, Vec<u8>)>(MOST_UNDER_WAY);
    let reading = Arc::clone(road);
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        let mut window = Window::new();
        let mut halves = match end {
            End::Client => 3,
            End::Server => 1,
        };
        loop {
            let read = from.read(&mut buffer);
            let piece = &buffer[..read.as_ref().map_or(0, |count| *count)];
            let state = reading.wait_with(end, piece);
            let Ok(count @ 1..) = read else {
                break;
            };
            let mut sent = reading.halves(end) + u64::from(halves);
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let (taken, waited) = window.take(rest.len(), state.delay * 2);
                reading.wait_until_open();
                let (piece, later) = rest.split_at(taken);
                sent += if waited { 2 } else { 0 };
                let due = Instant::now() + state.delay * halves;
                if sender.send((due, sent, piece.to_vec())).is_err() {
                    return;
                }
                (rest, halves) = (later, 1);
            }
        }
    });
    let road = Arc::clone(road);
    thread::spawn(move || {
        let other = match end {
            End::Client => End::Server,
            End::Server => End::Client,
        };
        for (due, halves, bytes) in under_way {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            road.arrive(other, halves);
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
