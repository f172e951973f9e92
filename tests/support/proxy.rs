//! A TCP proxy in front of a server: a network that is slow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::Server;

pub struct Proxy {
    port: u16,
}

impl Proxy {
    /// Forwards to the server, each piece of data so much later. Lives as long as the process.
    pub fn start(server: &Server, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let upstream = server.port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else {
                    continue;
                };
                let back = (server.try_clone(), client.try_clone());
                forward(client, server, delay);
                if let (Ok(server), Ok(client)) = back {
                    forward(server, client, delay);
                }
            }
        });
        Self { port }
    }

    pub fn params(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres", self.port)
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            thread::sleep(delay);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
