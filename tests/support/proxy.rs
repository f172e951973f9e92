//! A TCP proxy in front of a server: a network that is slow, or carries nothing for a while without telling anybody.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::Server;

pub struct Proxy {
    port: u16,
    network: Arc<Network>,
}

#[derive(Default)]
struct Network {
    stalled: Mutex<bool>,
    changed: Condvar,
    delay: Duration,
}

impl Proxy {
    /// Forwards to the server, each piece of data so much later. Lives as long as the process.
    pub fn start(server: &Server, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let upstream = server.port();
        let network = Arc::new(Network {
            delay,
            ..Network::default()
        });
        let between = Arc::clone(&network);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else {
                    continue;
                };
                let back = (server.try_clone(), client.try_clone());
                forward(client, server, &between);
                if let (Ok(server), Ok(client)) = back {
                    forward(server, client, &between);
                }
            }
        });
        Self { port, network }
    }

    pub fn params(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres", self.port)
    }

    /// Forwards nothing any more, not even that a connection was closed.
    pub fn stall(&self) {
        self.set_stalled(true);
    }

    /// Forwards what came meanwhile, and goes on.
    pub fn flow(&self) {
        self.set_stalled(false);
    }

    fn set_stalled(&self, stalled: bool) {
        *self.network.stalled.lock().expect("a lock") = stalled;
        self.network.changed.notify_all();
    }
}

impl Network {
    fn carry(&self) {
        thread::sleep(self.delay);
        let stalled = self.stalled.lock().expect("a lock");
        let flowing = self.changed.wait_while(stalled, |stalled| *stalled);
        drop(flowing.expect("a lock"));
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, network: &Arc<Network>) {
    let network = Arc::clone(network);
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            network.carry();
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        network.carry();
        let _ = to.shutdown(Shutdown::Both);
    });
}
