//! The seeds, without a fuzzer.

use std::fs;
use std::path::Path;

fn run(target: &str, run: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let mut count = 0;
    for seed in fs::read_dir(seeds).expect("the seeds") {
        let path = seed.expect("a seed").path();
        println!("{}", path.display());
        run(&fs::read(path).expect("a seed"));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_decoder_takes_all_seeds() {
    run("decode", pg_peers_fuzz::decode);
}

#[test]
fn the_core_takes_all_seeds() {
    run("core", pg_peers_fuzz::core);
}

#[test]
fn the_seal_takes_all_seeds() {
    run("seal", pg_peers_fuzz::seal);
}
