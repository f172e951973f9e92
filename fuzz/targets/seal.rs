//! Forgeries to a member that holds secrets.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pg_peers_fuzz::seal(data));
