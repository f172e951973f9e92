//! The house stays as `ARCHITECTURE.md` draws it: which wing may use what, how long files, names and the worker may be, that each
//! rule is cited and exists, and what is in a package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most lines of a file.
const LONGEST: usize = 800;

/// The most characters of a function's name, of a test's as well: it is read at a glance.
const LONGEST_NAME: usize = 64;

/// What of this crate each part may name, its own included: nothing else.
const MAY_NAME: [(&str, &[&str]); 12] = [
    (
        "src/core/",
        &["core", "event", "jitter", "peer", "round_trip"],
    ),
    (
        "src/link/",
        &["error", "jitter", "link", "logging", "round_trip"],
    ),
    (
        "src/trust/",
        &["core::wire", "logging", "peer", "status", "trust"],
    ),
    (
        "src/host/",
        &[
            "core::roster",
            "error",
            "event",
            "host",
            "logging",
            "peer",
            "status",
        ],
    ),
    (
        "src/simulator/",
        &[
            "core",
            "error",
            "event",
            "host::outbox",
            "jitter",
            "peer",
            "simulator",
            "trust::seal",
        ],
    ),
    // The nouns of the hall, which the wings name.
    ("src/error.rs", &[]),
    ("src/event.rs", &["error", "peer"]),
    ("src/jitter.rs", &[]),
    ("src/logging.rs", &[]),
    ("src/peer.rs", &[]),
    ("src/round_trip.rs", &[]),
    ("src/status.rs", &["error", "peer"]),
];

/// What is pure: time is a parameter.
const PURE: [&str; 13] = [
    "src/core/",
    "src/host/directory.rs",
    "src/host/outbox.rs",
    "src/link/hearing.rs",
    "src/link/pace.rs",
    "src/link/patience.rs",
    "src/link/quoting.rs",
    "src/link/redial.rs",
    "src/link/sql.rs",
    "src/peer.rs",
    "src/round_trip.rs",
    "src/simulator/",
    "src/trust/seal.rs",
];

/// Clocks, threads, I/O and logs, and the modules that have them.
const IMPURE: [&str; 29] = [
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "Condvar",
    "Mutex",
    "crossbeam_channel",
    "log::",
    "postgres::",
    "Client",
    "::connection",
    "::connector",
    "::delivery",
    "::detached",
    "::dialer",
    "::guard",
    "::knock",
    "::outage",
    "::proof",
    "::published",
    "::seats",
    "::session::",
    "::shared",
    "::side_channel",
];

/// The simulator's epoch is when it starts: there is no other way to make an `Instant`.
const EPOCH: (&str, &str) = ("src/simulator/net.rs", "epoch: Instant::now(),");

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

/// The code of the files of a part, without their tests.
fn code_of<'a>(
    sources: &'a [(String, String)],
    part: &str,
) -> impl Iterator<Item = (String, &'a str)> {
    let files = sources
        .iter()
        .filter(move |(path, _)| path.starts_with(part) && !path.contains("/tests"));
    let lines: Vec<_> = files
        .flat_map(|(path, text)| {
            code(text).map(move |(number, line)| (format!("{path}:{number}"), line))
        })
        .collect();
    assert!(!lines.is_empty(), "{part} is empty");
    lines.into_iter()
}

#[test]
fn each_part_names_only_what_it_may() {
    let sources = sources(&["src"]);
    assert!(sources.len() > 30, "where is the source?");
    let mut broken = Vec::new();
    for (part, may) in MAY_NAME {
        let is_allowed = |path: &str| {
            may.iter().any(|name| {
                path.strip_prefix(name).is_some_and(|rest| {
                    !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                })
            })
        };
        for (place, line) in code_of(&sources, part) {
            // Each by its whole path, so that this test sees it: from a file of the hall or the head of a wing, `super` is the crate.
            let above = match place.matches('/').count() {
                1 => "super::",
                _ if place.contains("/mod.rs:") => "super::",
                _ => "super::super::",
            };
            let hidden = line.contains("crate::{") || line.contains(above);
            let mut named = line.split("crate::").skip(1);
            if hidden || named.any(|path| !is_allowed(path)) {
                broken.push(format!("{place}: {}", line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn what_is_pure_has_no_clock_thread_io_or_log() {
    let sources = sources(&["src"]);
    let mut broken = Vec::new();
    for part in PURE {
        for (place, line) in code_of(&sources, part) {
            let is_epoch = place.starts_with(EPOCH.0) && line.trim() == EPOCH.1;
            if !is_epoch && IMPURE.iter().any(|name| line.contains(name)) {
                broken.push(format!("{place}: {}", line.trim()));
            }
        }
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
fn no_name_is_too_long() {
    for (path, text) in sources(&["src", "tests", "benches", "examples", "fuzz"]) {
        let names = text.split("fn ").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        });
        let long: Vec<&str> = names.filter(|name| name.len() > LONGEST_NAME).collect();
        assert!(long.is_empty(), "{path}: {long:?}");
    }
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

/// The rules that these files cite, in their text or by their names.
fn cited_in(is_one: impl Fn(&str) -> bool) -> BTreeSet<u32> {
    sources(&["src", "tests"])
        .iter()
        .filter(|(path, _)| path != "tests/layout.rs" && is_one(path))
        .flat_map(|(path, text)| cited(&format!("{path}\n{text}")))
        .collect()
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests")
}

#[test]
fn tests_cite_each_rule() {
    let missing: Vec<_> = rules().difference(&cited_in(is_test)).copied().collect();
    assert!(missing.is_empty(), "no test cites rules {missing:?}");
}

#[test]
fn the_code_cites_each_rule() {
    let cited = cited_in(|path| !is_test(path));
    let missing: Vec<_> = rules().difference(&cited).copied().collect();
    assert!(missing.is_empty(), "no code cites rules {missing:?}");
}

/// The hall is read from its first line to its last.
#[test]
fn the_worker_stays_small() {
    let text = fs::read_to_string(root().join("src/worker.rs")).expect("the worker");
    assert!(text.lines().count() <= 450, "{}", text.lines().count());
    let (_, fields) = text.split_once("struct Worker {\n").expect("the worker");
    let fields = fields.split("\n}").next().expect("its end").lines();
    assert!(fields.count() <= 15);
    let mut start = 0;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("fn ") || line.trim_start().starts_with("pub(crate) fn ") {
            start = number;
        }
        assert!(
            line != "    }" || number - start < 40,
            "the method at {}",
            start + 1
        );
    }
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
