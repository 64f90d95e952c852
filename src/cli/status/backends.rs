//! Declared backends, and what of lists was left out.

use std::fmt::Write as _;

use mapsmith_core::Invalid;
use mapsmith_core::server::list::RejectedServer;
use mapsmith_core::status::{BackendStatus, LeavingServer, SourceStatus};

use super::time;
use crate::cli::output::{Colour, ago, paint, pluralize};

/// The most lines of one kind: a list of thousands may go wrong as a whole.
const NAMED: usize = 10;

/// One line of a backend, and what stands between its list and what it has.
pub(super) fn text(backend: &BackendStatus) -> String {
    let servers = match (&backend.servers, &backend.waiting_for) {
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
    };
    let mut text = format!("  {}  {servers}\n", backend.name);
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
        let until =
            server.due.map_or("as the last one".to_owned(), |due| format!("until {}", time(due)));
        format!("{} is no longer listed and stays {until}", server.name)
    };
    for line in first_lines(backend.leaving.iter().map(leaving), backend.leaving.len() as u64) {
        let _ = writeln!(text, "    {line}");
    }
    if let Some(held) = &backend.held {
        let _ =
            writeln!(text, "    {}", paint(Colour::Red, &format!("a change is held: {}", held.id)));
    }
    text
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
    use super::*;

    #[test]
    fn however_many_rows_are_rejected_a_few_are_named_and_the_rest_is_counted() {
        let row = |number: u32| RejectedServer {
            place: format!("row {number}"),
            name: None,
            reason: "the weight 300 is not within 0 to 256".to_owned(),
        };
        let status = |rejected: u32| BackendStatus {
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
        };
        let shown = text(&status(1200));
        assert_eq!(shown.matches("rejected: row").count(), 10, "{shown}");
        assert!(shown.contains("and 1190 more"), "{shown}");
        assert_eq!(shown.lines().count(), 1 + 2 * 11, "{shown}");
        let few = text(&status(2));
        assert!(few.matches("rejected: row").count() == 2 && !few.contains("1190"), "{few}");
    }
}
