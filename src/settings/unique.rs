//! Names of a section's elements: valid, and each one's own.

use std::collections::BTreeSet;

use mapsmith_core::names;

/// Reports names that can be none, or that two elements of a section have.
pub(super) fn check_names<'a>(
    section: &str,
    names: impl Iterator<Item = &'a String>,
    problems: &mut Vec<String>,
) {
    let mut seen = BTreeSet::new();
    for name in names {
        if names::check_key(name).is_err() {
            problems.push(format!(
                "{section}: {name:?} is not a name: 1 to 255 bytes without whitespace"
            ));
        }
        if !seen.insert(name) {
            problems.push(format!("{section}: there are two of the name {name:?}"));
        }
    }
}
