//! Signatures as `src/core/wire.rs` documents them, written from that alone: what a member in another language would do.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Signs a payload as of now, for everybody on this channel, or for who listens to that inbox.
pub fn sign(secret: &str, channel: &str, inbox: &str, pid: i32, payload: &str) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
    sign_at(now, secret, channel, inbox, pid, payload)
}

pub fn sign_at(
    time: Duration,
    secret: &str,
    channel: &str,
    inbox: &str,
    pid: i32,
    payload: &str,
) -> String {
    let content = payload.strip_suffix(';').expect("a message in full");
    let content = format!("{content} time={}", time.as_millis());
    let text = format!("pg-peers/1 signature\n{channel}\n{inbox}\n{pid}\n{content}");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(text.as_bytes());
    let digits = mac.finalize().into_bytes();
    let digits = digits.iter().map(|byte| format!("{byte:02x}"));
    format!("{content} sig={};", digits.collect::<String>())
}
