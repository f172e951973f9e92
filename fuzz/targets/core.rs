//! Steps to the membership core.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pg_peers_fuzz::core(data));
