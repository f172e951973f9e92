//! Sessions that say as much junk as they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::Server;

/// Two sessions, until [`stop`](Self::stop).
pub struct Flood {
    over: Arc<AtomicBool>,
    sessions: [JoinHandle<u64>; 2],
}

impl Flood {
    /// Floods these channels, each with this many payloads a statement: large statements send more than small ones.
    pub fn start(server: &Server, channels: &[(&str, u64)]) -> Self {
        let mut batch = String::new();
        for (channel, count) in channels {
            for n in 0..*count {
                // Of those that are equal only one would be sent.
                let junk = "junk ".repeat(1_599);
                batch += &format!("NOTIFY {channel}, '{n:02}{junk}';");
            }
        }
        let size: u64 = channels.iter().map(|(_, count)| count).sum();
        let over = Arc::new(AtomicBool::new(false));
        let session = || {
            let (batch, over) = (batch.clone(), Arc::clone(&over));
            let mut client = server.client();
            thread::spawn(move || {
                let mut said = 0;
                while !over.load(Ordering::Relaxed) {
                    client.batch_execute(&batch).expect("NOTIFY");
                    said += size;
                }
                said
            })
        };
        let sessions = [session(), session()];
        Self { over, sessions }
    }

    /// How many payloads there were.
    pub fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let said = self.sessions.map(|it| it.join().expect("a session"));
        said.iter().sum()
    }
}
