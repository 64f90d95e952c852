//! The arrows between the rooms of `src/`, held by reading every file: which top-level module may use which, what a pure room
//! must not touch, and where a panic may stand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which top-level modules each of them may use. A module that is not here does not pass.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("plan", &["model"]),
    ("desire", &["model"]),
    ("guard", &["model"]),
    ("damp", &["guard"]),
    ("references", &["model"]),
    ("http", &["model", "references", "telemetry"]),
    // Leaves that the edges may use.
    ("telemetry", &[]),
    ("heartbeat", &[]),
    ("settings", &["model", "guard", "damp", "references"]),
    // The edges. Of `haproxy` only the client is one: see PURE.
    ("haproxy", &["model", "settings"]),
    ("source", &["heartbeat", "model", "settings", "telemetry"]),
    ("store", &["heartbeat", "model"]),
    ("reconcile", &["heartbeat", "model", "plan", "desire", "guard", "damp", "references", "haproxy", "settings", "telemetry"]),
    ("app", &["model", "desire", "haproxy", "heartbeat", "http", "reconcile", "settings", "source", "store", "telemetry"]),
];

/// The command line stands over all of them.
const FREE: [&str; 3] = ["cli", "lib", "main"];

/// Files and folders that do no I/O and read no clock.
const PURE: &[&str] = &[
    "model/",
    "plan/",
    "desire",
    "guard.rs",
    "references.rs",
    "damp.rs",
    "haproxy/codec.rs",
    "haproxy/command.rs",
    "haproxy/pace.rs",
    "haproxy/reply.rs",
    "haproxy/server_command.rs",
    "haproxy/server_reply.rs",
    "haproxy/table.rs",
];

/// What would make them impure: paths, from their first part on.
const IMPURE: [&str; 17] = [
    "crate::settings",
    "crate::telemetry",
    "tokio",
    "tokio_util",
    "reqwest",
    "axum",
    "notify",
    "rusqlite",
    "tracing",
    "metrics",
    "fastrand",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::os",
];

/// Where a panic may stand outside of tests, each for the reason given beside it in the code.
const PANICS: &[(&str, &str)] = &[
    ("desire.rs", ".expect(\"entries of a map are legal, and two maps fit into one\")"),
    ("desire/overrides.rs", ".expect(\"entries of a map and overrides are legal, and fit into one map\")"),
    ("reconcile/decide/screens.rs", ".expect(\"entries of a map are legal, and a part of a map fits into one\")"),
    ("references.rs", ".expect(\"entries of a map are legal, and a part of a map fits into one\")"),
    ("source/delta.rs", ".expect(\"entries of a map are legal, and a map with its changes fits into one\")"),
    ("reconcile/instance.rs", "unreachable!(\"nothing is applied where nothing is to do\")"),
];

/// A file of `src/` without its tests and comments.
struct Source {
    /// Its path below `src/`.
    path: String,
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().expect("a path has a first part")
    }

    /// How many modules stand between this file's items and the crate's root.
    fn depth(&self) -> usize {
        self.path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count()
    }
}

/// Every file that is compiled into the program.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                sources.push(read(&root, &path));
            }
        }
    }
    assert!(sources.len() > 40, "only {} files were found", sources.len());
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn read(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.strip_prefix(root).expect("it was found there").to_str().expect("in UTF-8").to_owned();
    let (code, tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
    // Cutting the tests off must not cut anything else off.
    let tests = tests.trim_start().trim_start_matches("pub(crate) ");
    let whole = tests.is_empty() || tests.trim_end() == "mod tests;" || tests.starts_with("mod tests {");
    assert!(whole && tests.matches("\n}").count() <= 1, "{path}: the module of tests must be the last thing in the file");
    let code = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    Source { path, code }
}

/// All paths of the code, with the braces of `use` trees multiplied out: `use a::{b, c::d};` has `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for declaration in code.split("use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let tree: String = declaration.split_whitespace().collect();
        if tree.contains('{') {
            expand("", &tree, &mut paths);
        }
    }
    let is_part = |character: char| character.is_alphanumeric() || matches!(character, '_' | ':');
    paths.extend(code.split(|character| !is_part(character)).filter(|word| word.contains("::")).map(str::to_owned));
    paths
}

fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let mut depth = 0;
    let mut start = 0;
    let ends = tree.char_indices().chain([(tree.len(), ',')]);
    for (at, character) in ends {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let branch = &tree[start..at];
                match branch.split_once('{') {
                    Some((stem, rest)) => expand(&format!("{prefix}{stem}"), rest.strip_suffix('}').unwrap_or(rest), paths),
                    None => paths.push(format!("{prefix}{branch}")),
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

fn assert_none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

#[test]
fn the_arrows_between_the_rooms_point_one_way() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut offences = Vec::new();
    for source in sources() {
        let module = source.module();
        if FREE.contains(&module) {
            continue;
        }
        let Some(allowed) = arrows.get(module) else {
            offences.push(format!("src/{}: the room {module} has no arrows in this test's table", source.path));
            continue;
        };
        for path in paths(&source.code) {
            let used = path.strip_prefix("crate::").and_then(|rest| rest.split("::").next());
            if let Some(used) = used.filter(|used| *used != module && !allowed.contains(used)) {
                offences.push(format!("src/{}: {path} ({module} may not use {used})", source.path));
            }
            let climbed = path.split("::").take_while(|part| *part == "super").count();
            if climbed >= source.depth() {
                offences.push(format!("src/{}: {path} climbs to the crate's root; write crate::", source.path));
            }
        }
    }
    assert_none("an arrow points the wrong way", &offences);
}

#[test]
fn the_table_of_arrows_has_no_circle_and_no_room_that_is_gone() {
    // Each room uses only rooms that stand before it in some order: take away those that use none of the rest until none is left.
    let mut left: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    while !left.is_empty() {
        let free: Vec<_> =
            left.iter().filter(|(_, uses)| !uses.iter().any(|used| left.contains_key(used))).map(|(room, _)| *room).collect();
        assert!(!free.is_empty(), "a circle among {:?}", left.keys());
        left.retain(|room, _| !free.contains(room));
    }
    let sources = sources();
    for (room, _) in ARROWS {
        assert!(sources.iter().any(|source| source.module() == *room), "there is no room {room} any more");
    }
    for pure in PURE {
        assert!(sources.iter().any(|source| source.path.starts_with(pure)), "there is no src/{pure} any more");
    }
}

#[test]
fn pure_rooms_do_no_io_and_read_no_clock() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| PURE.iter().any(|pure| source.path.starts_with(pure))) {
        for path in paths(&source.code) {
            let impure = IMPURE
                .iter()
                .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")));
            let reads_a_clock = path.ends_with("::now") || path.ends_with("::elapsed");
            if impure || reads_a_clock {
                offences.push(format!("src/{}: {path}", source.path));
            }
        }
        for call in ["async fn", ".await", ".elapsed()", "println!", "eprintln!"] {
            if source.code.contains(call) {
                offences.push(format!("src/{}: {call}", source.path));
            }
        }
    }
    assert_none("a pure room does I/O or reads a clock", &offences);
}

#[test]
fn only_listed_places_may_panic() {
    let mut offences = Vec::new();
    let mut seen = 0;
    for source in sources() {
        for line in source.code.lines() {
            let panics = [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
            if !panics.iter().any(|panic| line.contains(panic)) {
                continue;
            }
            if PANICS.iter().any(|(path, text)| source.path == *path && line.contains(text)) {
                seen += 1;
            } else {
                offences.push(format!("src/{}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none("a panic where none is listed", &offences);
    assert_eq!(seen, PANICS.len(), "the list of panics has entries that are gone");
}

#[test]
fn the_reader_of_paths_sees_through_braces() {
    let code = "use crate::{a, b::{c, d::e}, f as g};\nfn x() { crate::h::i(); super::super::j() }\n";
    let mut found = paths(code);
    found.sort();
    for path in ["crate::a", "crate::b::c", "crate::b::d::e", "crate::fasg", "crate::h::i", "super::super::j"] {
        assert!(found.iter().any(|found| found == path), "{path} is not in {found:?}");
    }
}
