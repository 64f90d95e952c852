//! Declared backends, and what of lists was left out.

use std::fmt::Write as _;

use mapsmith_core::server::list::RejectedServer;
use mapsmith_core::status::{BackendStatus, LeavingServer, SourceStatus};
use mapsmith_core::{Invalid, ServerOverride};

use super::time;
use crate::cli::output::{Colour, ago, paint, pluralize, table};

/// The most lines of one kind: a list of thousands may go wrong as a whole.
const NAMED: usize = 10;

/// A line of each backend, and what stands between its list and what it has.
pub(super) fn text(backends: &[BackendStatus]) -> String {
    let row = |backend: &BackendStatus| vec![backend.name.clone(), servers(backend)];
    let lines = table("  ", &backends.iter().map(row).collect::<Vec<_>>());
    let with_notes = |(line, backend)| format!("{line}\n{}", notes(backend));
    lines.lines().zip(backends).map(with_notes).collect()
}

/// What it has.
fn servers(backend: &BackendStatus) -> String {
    match (&backend.servers, &backend.waiting_for) {
        (Some(servers), None) => {
            format!("{} from {}", pluralize(servers.len(), "server"), backend.from)
        }
        (Some(servers), Some(waiting_for)) => {
            let servers = pluralize(servers.len(), "server");
            let confirmed = backend
                .confirmed_at
                .map_or(String::new(), |confirmed| format!(", confirmed {}", ago(confirmed)));
            let since = backend.stored_since.map_or(String::new(), |since| {
                format!(", in force since {} ({})", time(since), ago(since))
            });
            let stored = format!("{servers} as last stored{confirmed}{since}");
            paint(Colour::Yellow, &format!("{stored}: waiting for {waiting_for}"))
        }
        (None, Some(waiting_for)) => {
            paint(Colour::Yellow, &format!("not touched: waiting for {waiting_for}"))
        }
        (None, None) => paint(Colour::Yellow, "not touched: no list is in force yet"),
    }
}

/// What stands between its list and that.
fn notes(backend: &BackendStatus) -> String {
    let mut text = String::new();
    let stale =
        |row: &RejectedServer| format!("keeps its last address: {}: {}", row.place, row.reason);
    let stale = first_lines(backend.stale.iter().map(stale), backend.stale.len() as u64);
    for note in rejected_rows(&backend.rejected, backend.rejected_count).iter().chain(&stale) {
        let _ = writeln!(text, "    {}", paint(Colour::Yellow, note));
    }
    if backend.beyond_max > 0 {
        let beyond = pluralize(backend.beyond_max, "more server");
        let _ = writeln!(text, "    {beyond} listed, which max_servers leaves out");
    }
    if let Some(due) = backend.change_due {
        let _ = writeln!(
            text,
            "    a change waits for the list to be quiet, until {} at the latest",
            time(due)
        );
    }
    let leaving = |server: &LeavingServer| {
        let what = match server.due {
            Some(due) => format!("goes not before {}", time(due)),
            None => "stays as the last one".to_owned(),
        };
        format!("{} is no longer listed and {what}", server.name)
    };
    for line in first_lines(backend.leaving.iter().map(leaving), backend.leaving.len() as u64) {
        let _ = writeln!(text, "    {line}");
    }
    let ordered = backend.ordered.iter().map(ordered);
    for line in first_lines(ordered, backend.ordered.len() as u64) {
        let _ = writeln!(text, "    {}", paint(Colour::Yellow, &line));
    }
    if let Some(held) = &backend.held {
        let _ =
            writeln!(text, "    {}", paint(Colour::Red, &format!("a change is held: {}", held.id)));
    }
    text
}

/// `a: maint, weight 5, by anna 3h ago (kernel), until 2026-11-27 12:00`.
fn ordered(ordered: &ServerOverride) -> String {
    let ServerOverride { server, order, since, until, note, .. } = ordered;
    let by = note.by.as_deref().unwrap_or("an operator");
    let reason = note.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let until = until.map_or(String::new(), |until| format!(", until {}", time(until)));
    format!("{server}: {order}, by {by} {}{reason}{until}", ago(*since))
}

/// `3 rejected: no master, as "node7"`, for each reason.
pub(super) fn rejections(source: &SourceStatus) -> Vec<String> {
    let rejections = &source.rejections;
    let note = |(reason, count): (&Invalid, &u64)| {
        let example = rejections.named.iter().find(|(_, found)| *found == reason);
        let example = example.map_or(String::new(), |(node, _)| format!(", as {node:?}"));
        format!("{count} rejected: {reason}{example}")
    };
    rejections.counts.iter().map(note).collect()
}

/// The first rows of a list that were left out, and how many more.
pub(super) fn rejected_rows(rows: &[RejectedServer], count: u64) -> Vec<String> {
    let line = |row: &RejectedServer| format!("rejected: {}: {}", row.place, row.reason);
    first_lines(rows.iter().map(line), count)
}

/// The first of so many lines, and how many more.
pub(super) fn first_lines(lines: impl Iterator<Item = String>, count: u64) -> Vec<String> {
    let mut lines: Vec<_> = lines.take(NAMED).collect();
    let more = count.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more, see --output json"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn status(rejected: u32) -> BackendStatus {
        BackendStatus {
            name: "web".to_owned(),
            from: "source cmdb".to_owned(),
            servers: Some(Vec::new()),
            waiting_for: None,
            stored_since: None,
            confirmed_at: None,
            rejected: (0..rejected.min(1000)).map(row).collect(),
            rejected_count: rejected.into(),
            beyond_max: 0,
            stale: (0..200).map(row).collect(),
            held: None,
            change_due: None,
            leaving: Vec::new(),
            ordered: Vec::new(),
        }
    }

    fn row(number: u32) -> RejectedServer {
        RejectedServer {
            place: format!("row {number}"),
            name: None,
            reason: "the weight 300 is not within 0 to 256".to_owned(),
        }
    }

    #[test]
    fn however_many_rows_are_rejected_a_few_are_named_and_the_rest_is_counted() {
        let shown = text(&[status(1200)]);
        assert_eq!(shown.matches("rejected: row").count(), 10, "{shown}");
        assert!(shown.contains("and 1190 more"), "{shown}");
        assert_eq!(shown.lines().count(), 1 + 2 * 11, "{shown}");
        let few = text(&[status(2)]);
        assert!(few.matches("rejected: row").count() == 2 && !few.contains("1190"), "{few}");
    }

    #[test]
    fn backends_are_aligned_and_a_server_that_is_to_go_has_its_earliest_time() {
        let of = |name: &str, leaving: &[(&str, Option<Timestamp>)]| {
            let leaving = leaving
                .iter()
                .map(|(name, due)| LeavingServer { name: (*name).to_owned(), due: *due });
            let (stale, leaving) = (Vec::new(), leaving.collect());
            BackendStatus { name: name.to_owned(), stale, leaving, ..status(0) }
        };
        let due = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(
            text(&[of("a", &[("s1", due), ("s2", None)]), of("longer", &[])]),
            "  a       0 servers from source cmdb\n    \
                 s1 is no longer listed and goes not before 1970-01-01 00:00:00Z\n    \
                 s2 is no longer listed and stays as the last one\n  \
               longer  0 servers from source cmdb\n"
        );
    }
}
