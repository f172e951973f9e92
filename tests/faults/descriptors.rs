//! The process has no descriptors left. In processes of their own, which end at any panic, as with `panic = "abort"`.

use std::error::Error as _;
use std::fs::File;
use std::io;

use pg_peers::Event;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// As many descriptors as a member, and a test, can do with.
const LIMIT: u64 = 128;

/// All that is left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn without_descriptors_a_member_is_offline_until_there_are_some() {
    let this = "descriptors::without_descriptors_a_member_is_offline_until_there_are_some";
    alone(this, || {
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            std::process::abort();
        }));
        let server = Server::start();
        let a = join(&server, "a");
        let mut admin = server.client();
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit {
            current: Some(LIMIT),
            maximum,
        };
        setrlimit(Resource::Nofile, limit).expect("a limit");
        let mut taken = take_all();
        let b = Config::new("b").join(&server.params()).expect("valid");
        let Event::Offline(reason) = expect(&b, "offline") else {
            panic!("offline")
        };
        assert_eq!(
            reason.to_string(),
            "cannot connect to Postgres: Too many open files (os error 24)"
        );
        let source = reason
            .source()
            .and_then(|it| it.downcast_ref::<io::Error>());
        assert_eq!(source.and_then(io::Error::raw_os_error), Some(24));
        assert!(reason.is_link());
        admin
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a'",
            )
            .expect("a session that ends");
        expect(&a, "offline");
        let members = [&a, &b];
        // A few are not enough, wherever they run out.
        for _ in 0..12 {
            taken.pop();
            let before = members.map(|member| member.status().failed_attempts);
            eventually("another attempt", || {
                let status = members.map(Cluster::status);
                status.iter().any(|it| it.online)
                    || status
                        .iter()
                        .zip(before)
                        .all(|(it, before)| it.failed_attempts > before)
            });
        }
        drop(taken);
        let free = Instant::now();
        for member in members {
            member.wait_online(PATIENCE).expect("online");
        }
        within("online with descriptors", free, RECOVERY);
        eventually("they know each other", || {
            a.peers().len() == 1 && b.peers().len() == 1
        });
    });
}
