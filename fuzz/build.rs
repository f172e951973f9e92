//! `cargo fuzz` sets `cfg(fuzzing)`; so that plain cargo can test and lint this package, it is set here for both.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    println!("cargo::rustc-cfg=fuzzing");
    println!("cargo::rerun-if-changed=build.rs");
}
