//! What the core costs: from payload to roster, expiry, snapshots, the outbox.
//!
//! ```text
//! cargo bench --bench core
//! ```
//!
//! With `--features auth` also what a signature costs.
//!
//! The core is private, so its modules are compiled into this program.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    reason = "modules of the library, of which a part is used here"
)]

include!("../tests/support/internals.rs");

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

use crate::core::presence::{Presence, Style};
use crate::core::roster::{Kind, Limits, Outcome, Roster};
use crate::core::wire::{self, Inbox, Pid};
use crate::host::outbox::Outbox;
use crate::host::shared::{Shared, View};
use crate::jitter::Jitter;
use crate::peer::{Incarnation, Peer, Tags};
#[cfg(feature = "auth")]
use crate::trust::seal;

const SIZES: [u32; 3] = [10, 1_000, 10_000];
const HEARTBEAT: Duration = Duration::from_secs(5);
const SENDER: Pid = Pid::MAX;
const INBOX: wire::Inbox = wire::Inbox::new(1);

fn payload(peer: u32, seq: u64) -> String {
    payload_due(peer, seq, HEARTBEAT)
}

fn payload_due(peer: u32, seq: u64, due: Duration) -> String {
    let due = due.as_millis();
    format!(
        "pg-peers/1 beat name=worker-{peer}@10.0.0.1:7000 inc=1795443184000000 seq={seq} due={due} \
         tag.role=db tag.zone=eu-1;"
    )
}

fn limits() -> Limits {
    Limits {
        heartbeat: HEARTBEAT,
        delivery_budget: 200,
        session_check: true,
        observer_asks: true,
        bare_heartbeat: HEARTBEAT,
        missed: 3,
        max_peers: 10_000,
        max_departed: 10_000,
    }
}

/// A roster that has heard this many peers, and whose announcements are out.
fn roster(now: Instant, peers: u32) -> Roster {
    let presence = Presence::new(
        "me@10.0.0.1:7000".into(),
        Incarnation::new(1_795_443_184_000_000),
        Style::Full,
        String::new(),
    );
    let mut roster = Roster::new(Some(presence), INBOX, limits(), Jitter::new(1));
    roster.handle_link_up(now, Some(SENDER));
    for peer in 0..peers {
        let payload = payload(peer, 1);
        roster.handle_message(now, SENDER, &wire::decode(&payload).expect("ours"));
    }
    while roster.poll_change().is_some() {}
    while roster.poll_announcement(now).is_some() {
        roster.handle_sent(now);
    }
    roster
}

fn messages(c: &mut Criterion) {
    let text = payload(1, 1);
    c.bench_function("decode", |b| {
        b.iter(|| wire::decode(black_box(&text)).expect("ours"));
    });
    let message = wire::decode(&text).expect("ours");
    c.bench_function("encode", |b| b.iter(|| wire::encode(black_box(&message))));
}

#[cfg(not(feature = "auth"))]
fn signatures(_: &mut Criterion) {}

#[cfg(feature = "auth")]
fn signatures(c: &mut Criterion) {
    let secret = |text: &str| seal::Secret::new(text.as_bytes());
    let seal = |secrets: &[seal::Secret]| {
        let keys = seal::Keys::parse(secrets).expect("long enough");
        seal::Seal::new("cluster".to_owned(), keys)
    };
    let (one, two) = (
        secret("the secret of the cluster"),
        secret("the one before that"),
    );
    let now = Duration::from_secs(1_795_443_184);
    let seal_by_one = seal(std::slice::from_ref(&one));
    let text = payload(1, 1);
    c.bench_function("sign", |b| {
        b.iter(|| seal_by_one.sign(now, SENDER, None, black_box(&text).clone()));
    });
    let signed = seal_by_one.sign(now, SENDER, None, text.clone());
    let mut group = c.benchmark_group("verify");
    for (name, mut seal, payload, passes) in [
        ("signed", seal_by_one, &signed, true),
        (
            "signed with the second secret",
            seal(&[two.clone(), one]),
            &signed,
            true,
        ),
        ("forged", seal(&[two]), &signed, false),
        ("without a secret", seal(&[]), &text, true),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let verdict = seal.verify(now, SENDER, None, black_box(payload));
                assert_eq!(verdict.is_ok(), passes);
            });
        });
    }
}

fn known_peers(c: &mut Criterion) {
    let mut group = c.benchmark_group("payload to roster, known peer");
    for size in SIZES {
        let now = Instant::now();
        let mut roster = roster(now, size);
        // Payloads that differ in nothing but a sequence number that rises.
        let mut payloads: Vec<String> = (0..64 * 1_024)
            .map(|i| payload(i % size, u64::from(2 + i / size)))
            .collect();
        let mut next = 0;
        let mut round = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                let mut left = count;
                while left > 0 {
                    if next == payloads.len() {
                        // A new supply, made outside of the time that is measured.
                        next = 0;
                        round += 1;
                        for (i, payload_) in payloads.iter_mut().enumerate() {
                            let i = i as u32;
                            let seq = u64::from(2 + i / size) + round * 64 * 1_024;
                            *payload_ = payload(i % size, seq);
                        }
                    }
                    let batch = left.min((payloads.len() - next) as u64);
                    let start = Instant::now();
                    for payload in &payloads[next..next + batch as usize] {
                        let message = wire::decode(black_box(payload)).expect("ours");
                        let heard = roster.handle_message(now, SENDER, &message);
                        assert_eq!(heard, Outcome::News);
                    }
                    spent += start.elapsed();
                    next += batch as usize;
                    left -= batch;
                }
                spent
            });
        });
    }
}

fn ticks(c: &mut Criterion) {
    let mut group = c.benchmark_group("tick with nothing due");
    for size in SIZES {
        let now = Instant::now();
        let mut roster = roster(now, size);
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                let overdue = roster.handle_timeout(black_box(now), now);
                assert!(!overdue);
                black_box(roster.poll_timeout())
            });
        });
    }
}

/// A peer joins or returns with the shortest promise, and expires before anybody else.
fn expiry(c: &mut Criterion) {
    let mut group = c.benchmark_group("one of many expires");
    for size in SIZES {
        let mut now = Instant::now();
        let mut roster = roster(now, 0);
        for peer in 0..size {
            let payload = payload_due(peer, 1, wire::MAX_DUE);
            roster.handle_message(now, SENDER, &wire::decode(&payload).expect("ours"));
        }
        let mut seq = 1;
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                seq += 1;
                let payload = payload_due(0, seq, Duration::from_millis(1));
                roster.handle_message(now, SENDER, &wire::decode(&payload).expect("ours"));
                // Longer than looks at all peers are apart.
                now += Duration::from_millis(200);
                assert!(!roster.handle_timeout(now, now));
                let mut left = 0;
                while let Some(change) = roster.poll_change() {
                    left += usize::from(matches!(change.kind, Kind::Left(_)));
                }
                assert!(left >= 1);
            });
        });
    }
}

fn snapshots(c: &mut Criterion) {
    let mut views = Vec::new();
    let mut group = c.benchmark_group("snapshot");
    for size in SIZES {
        let mut view = View::default();
        for i in 0..size {
            let name = format!("worker-{i}@10.0.0.1:7000");
            Arc::make_mut(&mut view.peers).put(&Peer::new(name.into(), None, Tags::default()));
        }
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| black_box(&view.peers).to_vec());
        });
        views.push((size, view));
    }
    group.finish();
    let mut group = c.benchmark_group("a change, shown to the host");
    for (size, mut view) in views {
        let shared = Shared::default();
        let changed = Peer::new("worker-5@10.0.0.1:7000".into(), None, Tags::default());
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                Arc::make_mut(&mut view.peers).put(black_box(&changed));
                shared.show(&view);
            });
        });
    }
}

fn events(c: &mut Criterion) {
    let now = Instant::now();
    let joins = |count: u32| {
        let mut roster = Roster::new(None, INBOX, limits(), Jitter::new(1));
        roster.handle_link_up(now, Some(SENDER));
        for i in 0..count {
            let payload = payload(i, 1);
            roster.handle_message(now, SENDER, &wire::decode(&payload).expect("ours"));
        }
        std::iter::from_fn(move || roster.poll_change()).collect::<Vec<_>>()
    };
    let mut group = c.benchmark_group("outbox push and drain");
    for size in [1, 1_000] {
        let changes = joins(size);
        let mut outbox = Outbox::default();
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_batched(
                || changes.clone(),
                |changes| {
                    changes.into_iter().for_each(|change| outbox.push(change));
                    while let Some(event) = outbox.pop() {
                        black_box(event);
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(
    benches,
    messages,
    signatures,
    known_peers,
    ticks,
    expiry,
    snapshots,
    events
);
criterion_main!(benches);
