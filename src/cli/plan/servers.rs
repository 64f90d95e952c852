//! What of backends' servers would change.

use std::fmt::Write as _;

use crate::cli::output::{Colour, paint, pluralize, table};
use crate::engine::preview::ServersChange;

pub(super) fn is_held(change: &ServersChange) -> bool {
    change.held.is_some()
}

/// `web:  3 -> 4 servers:  1 added, 0 changed, 0 removed`.
fn row(change: &ServersChange) -> Vec<String> {
    let before = change.servers_before.map_or("none".to_owned(), |before| before.to_string());
    let after = pluralize(change.servers_after, "server");
    vec![format!("{}:", change.backend), format!("{before} -> {after}:"), change.to_string()]
}

/// For a person, with so many names of each backend.
pub(super) fn text(changes: &[ServersChange], shown: usize) -> String {
    let mut text = String::new();
    if !changes.is_empty() {
        text.push_str("servers\n");
    }
    let lines = table("  ", &changes.iter().map(row).collect::<Vec<_>>());
    for (line, change) in lines.lines().zip(changes) {
        let _ = writeln!(text, "{line}");
        let marked = |mark, colour, names: &[String]| -> Vec<String> {
            names.iter().map(|name| paint(colour, &format!("{mark} {name}"))).collect()
        };
        let mut names = marked('+', Colour::Green, &change.added);
        names.extend(marked('~', Colour::Yellow, &change.changed));
        names.extend(marked('-', Colour::Red, &change.removed));
        for name in names.iter().take(shown) {
            let _ = writeln!(text, "    {name}");
        }
        let more = names.len().saturating_sub(shown);
        if more > 0 {
            let _ = writeln!(text, "    and {more} more (--all prints them)");
        }
        if let Some(reason) = &change.held {
            let held = paint(Colour::Red, "the guard would hold this back");
            let _ = writeln!(text, "    {held}: {reason}");
        }
    }
    text
}
