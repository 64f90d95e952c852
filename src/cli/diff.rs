//! `mapsmith render --diff`: what would change in HAProxy's file.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use mapsmith_core::render::secrets::{HIDDEN, masked};
use mapsmith_core::render::stamp;
use serde::Serialize;
use similar::TextDiff;

use super::output::{Colour, paint};

/// What people see of a secret that the other text does not have.
const OTHER: &str = "*** (another)";
#[derive(Debug, Serialize)]
pub(super) struct DiffReport {
    /// The file that HAProxy starts from.
    pub path: String,
    /// Whether anything would change.
    pub differs: bool,
    /// As `diff -u` writes it; empty where nothing would change.
    pub diff: String,
}

/// The file in place beside what would be written.
pub(super) fn report(path: &Path, rendered: &str) -> anyhow::Result<DiffReport> {
    let in_place = match std::fs::read(path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("{} can't be read", path.display()));
        }
    };
    let name = path.display().to_string();
    let from = if in_place.is_some() { name.as_str() } else { "/dev/null" };
    let in_place = in_place.unwrap_or_default();
    let diff = diff(from, stamp::unstamped(&in_place), &name, rendered);
    Ok(DiffReport { differs: !diff.is_empty(), path: name, diff })
}

fn diff(from: &str, old: &str, to: &str, new: &str) -> String {
    let lines: BTreeSet<&str> = new.lines().collect();
    let old = shown(old, |line| lines.contains(line));
    let new = shown(new, |_| true);
    let diff = TextDiff::from_lines(&old, &new);
    diff.unified_diff().context_radius(3).header(from, &format!("{to} (rendered)")).to_string()
}

/// A text without its secrets. Those that the other text does not have differ from its own.
fn shown(text: &str, has: impl Fn(&str) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.lines() {
        match masked(line) {
            Some(hidden) if has(line) => shown.push_str(&format!("{hidden}\n")),
            Some(hidden) => shown.push_str(&format!("{}\n", hidden.replace(HIDDEN, OTHER))),
            None => shown.push_str(&format!("{line}\n")),
        }
    }
    shown
}

/// For a person; in colours on a terminal.
pub(super) fn text(report: &DiffReport) -> String {
    if !report.differs {
        return format!("{} is as it would be rendered\n", report.path);
    }
    report.diff.lines().map(|line| coloured(line) + "\n").collect()
}

/// A line of a difference, in colours on a terminal.
pub(super) fn coloured(line: &str) -> String {
    match line.as_bytes().first() {
        Some(b'+') => paint(Colour::Green, line),
        Some(b'-') => paint(Colour::Red, line),
        Some(b'@') => paint(Colour::Yellow, line),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_with_the_lines_around_it() {
        let old: String = (1..=9).map(|number| format!("line {number}\n")).collect();
        let new = old.replace("line 5\n", "line five\nline 5b\n");
        insta::assert_snapshot!(diff("a", &old, "a", &new), @"
        --- a
        +++ a (rendered)
        @@ -2,7 +2,8 @@
         line 2
         line 3
         line 4
        -line 5
        +line five
        +line 5b
         line 6
         line 7
         line 8
        ");
        assert_eq!(diff("a", &old, "a", &old), "");
    }

    #[test]
    fn a_secret_is_never_shown_and_a_change_of_one_is() {
        let old =
            "    stats auth admin:old\n    user a insecure-password x\n    dynamic-cookie-key k\n";
        let new = "    stats auth admin:new\n    dynamic-cookie-key k\n";
        insta::assert_snapshot!(diff("a", old, "a", new), @"
        --- a
        +++ a (rendered)
        @@ -1,3 +1,2 @@
        -    stats auth *** (another)
        -    user a insecure-password *** (another)
        +    stats auth ***
             dynamic-cookie-key ***
        ");
    }

    #[test]
    fn the_stamp_of_a_file_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("haproxy.cfg");
        assert!(report(&path, "a\n").unwrap().diff.starts_with("--- /dev/null\n"));
        std::fs::write(&path, stamp::stamped("a\n", "1")).unwrap();
        let same = report(&path, "a\n").unwrap();
        assert!(!same.differs, "{}", same.diff);
        assert!(report(&path, "b\n").unwrap().diff.ends_with("-a\n+b\n"));
    }
}
