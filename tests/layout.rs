//! The house stays as `ARCHITECTURE.md` draws it: which wing may use what, how long a file may be, that each rule which is cited
//! exists, and what of it is in a package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most lines of a file.
const LONGEST: usize = 800;

/// What a part of the house must not name, and why.
const FORBIDDEN: [(&str, &[&str]); 11] = [
    (
        "src/core/",
        &[
            // No clock, thread, I/O or log.
            "Instant::now",
            "SystemTime",
            ".elapsed()",
            "std::thread",
            "std::net",
            "std::fs",
            "std::io",
            "std::process",
            "std::env",
            "Mutex",
            "Condvar",
            "log::",
            "crossbeam_channel",
            "postgres::",
            // Nothing above it.
            "crate::link",
            "crate::trust",
            "crate::host",
            "crate::worker",
            "crate::cluster",
            "crate::config",
            "crate::status",
            "crate::logging",
        ],
    ),
    (
        "src/link/",
        &[
            "crate::core",
            "crate::host",
            "crate::trust",
            "crate::worker",
            "crate::cluster",
            "crate::config",
            "crate::status",
            "crate::peer",
        ],
    ),
    ("src/round_trip.rs", PURE),
    ("src/link/hearing.rs", PURE),
    ("src/link/pace.rs", PURE),
    ("src/link/patience.rs", PURE),
    ("src/link/quoting.rs", PURE),
    ("src/link/redial.rs", PURE),
    ("src/link/sql.rs", PURE),
    (
        "src/trust/",
        &[
            "crate::core::roster",
            "crate::core::presence",
            "crate::link",
            "crate::host",
            "crate::worker",
            "crate::cluster",
            "crate::config",
            "postgres::",
        ],
    ),
    (
        "src/host/",
        &[
            "crate::core::presence",
            "crate::core::wire",
            "crate::link",
            "crate::trust",
            "crate::worker",
            "crate::cluster",
            "crate::config",
            "postgres::",
        ],
    ),
];

/// What decides about time and floods, with time as a parameter.
const PURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "std::thread",
    "Mutex",
    "log::",
    "postgres::",
    "crossbeam_channel",
    "Client",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below these folders, by their paths from the root.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        // A package has not all of them.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                let path = path.strip_prefix(root()).expect("below the root");
                files.push((path.to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    files.sort();
    files
}

/// The code of a file, without its unit tests and comments: those may do as they like.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line));
    lines
        .take_while(|(_, line)| *line != "mod tests {")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The rules that `ARCHITECTURE.md` lists.
fn rules() -> BTreeSet<u32> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, rules) = text
        .split_once("## Rules of membership\n")
        .expect("the section");
    let rules = rules.split("\n## ").next().expect("a section");
    let number = |line: &str| line.split_once(". ")?.0.parse().ok();
    rules.lines().filter_map(number).collect()
}

/// The numbers after each `rule ` or `rules ` of a text: "(rules 4 and 5)", "rule_6".
fn cited(text: &str) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    for prefix in ["(rule ", "(rules ", "rule_", "// Rule "] {
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            let end = rest.find(|c: char| c.is_alphabetic() && !"and,to".contains(c));
            let end = end
                .unwrap_or(rest.len())
                .min(rest.find(')').unwrap_or(rest.len()));
            let words = rest[..end].split(|c: char| !c.is_ascii_digit());
            numbers.extend(words.filter_map(|word| word.parse::<u32>().ok()));
        }
    }
    numbers
}

#[test]
fn no_wing_uses_what_it_must_not() {
    let sources = sources(&["src"]);
    assert!(sources.len() > 30, "where is the source?");
    let mut broken = Vec::new();
    for (part, forbidden) in FORBIDDEN {
        let files = sources.iter().filter(|(path, _)| path.starts_with(part));
        let files = files.filter(|(path, _)| !path.contains("/tests"));
        let mut count = 0;
        for (path, text) in files {
            count += 1;
            for (number, line) in code(text) {
                let named = forbidden.iter().filter(|name| line.contains(*name));
                broken.extend(named.map(|name| format!("{path}:{number} names {name}")));
            }
        }
        assert!(count > 0, "{part} is empty");
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn only_the_link_and_the_api_name_postgres() {
    // What the host passes in, and what it gets back.
    let api = ["src/lib.rs", "src/config.rs", "src/error.rs", "src/bin/"];
    let broken: Vec<String> = sources(&["src"])
        .iter()
        .filter(|(path, _)| !path.starts_with("src/link/"))
        .filter(|(path, _)| !api.iter().any(|part| path.starts_with(part)))
        .filter(|(_, text)| code(text).any(|(_, line)| line.contains("postgres::")))
        .map(|(path, _)| path.clone())
        .collect();
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn no_file_is_too_long() {
    let sources = sources(&["src", "tests", "benches", "examples", "fuzz"]);
    let lengths = sources
        .iter()
        .map(|(path, text)| (path, text.lines().count()));
    let long: Vec<_> = lengths.filter(|(_, lines)| *lines > LONGEST).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn each_rule_that_is_cited_exists() {
    let rules = rules();
    assert!(rules.len() >= 9, "{rules:?}");
    for (path, text) in sources(&["src", "tests"]) {
        if path == "tests/layout.rs" {
            continue;
        }
        let unknown: Vec<_> = cited(&text).difference(&rules).copied().collect();
        assert!(unknown.is_empty(), "{path} cites rules {unknown:?}");
    }
}

#[test]
fn each_rule_is_proven_under_its_number() {
    let proven: BTreeSet<u32> = sources(&["src/core", "tests"])
        .iter()
        .filter(|(path, _)| path != "tests/layout.rs")
        .flat_map(|(path, text)| cited(&format!("{path}\n{text}")))
        .collect();
    let missing: Vec<_> = rules().difference(&proven).copied().collect();
    assert!(missing.is_empty(), "no test cites rules {missing:?}");
}

/// What a package has beside what cargo puts there.
const PACKAGED: [&str; 11] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "benches",
    "examples",
    "proptest-regressions",
    "src",
    "tests",
];

/// Most of a package is source that somebody reads.
const LARGEST_PACKAGED: u64 = 100_000;

#[test]
fn the_package_has_what_is_read_and_built_and_nothing_large() {
    // A package cannot be packed again.
    if !root().join(".ci").exists() {
        return;
    }
    let list = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline", "--quiet"])
        .current_dir(root())
        .output()
        .expect("cargo");
    let list = String::from_utf8(list.stdout).expect("paths");
    let of_cargo = |path: &&str| path.starts_with("Cargo.") || path.starts_with(".cargo_vcs_info");
    let files: Vec<&str> = list.lines().filter(|path| !of_cargo(path)).collect();
    let top = files
        .iter()
        .map(|path| path.split('/').next().expect("a name"));
    let top: BTreeSet<&str> = top.collect();
    assert_eq!(top, BTreeSet::from(PACKAGED));
    let size = |path: &str| fs::metadata(root().join(path)).map_or(0, |file| file.len());
    let large: Vec<_> = files
        .into_iter()
        .filter(|path| size(path) > LARGEST_PACKAGED)
        .collect();
    assert!(large.is_empty(), "{large:?}");
}
