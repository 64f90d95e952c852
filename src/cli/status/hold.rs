//! What a rollback leaves, and what was rejected.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::Note;
use mapsmith_core::desired::hold::Rejected;

use crate::api::rollback::ends_soon;
use crate::api::types::{HoldReport, StatusReport};
use crate::cli::output::{Colour, ago, paint};

/// Nothing to tell while the sources are followed.
pub(super) fn text(report: &StatusReport, now: Timestamp) -> String {
    let mut text = String::new();
    report.hold.iter().for_each(|hold| text.push_str(&hold_text(hold, now)));
    if let Some(rejected @ Rejected { at, note, change, .. }) = report.rejected_change.as_ref()
        && report.hold.as_ref().is_none_or(|hold| hold.hold.ended.is_some())
    {
        let note = format!(
            "what the sources say was rejected {}{}, and is not applied while they say the same",
            ago(*at),
            who(note)
        );
        let _ = writeln!(text, "rejected   {}", paint(Colour::Yellow, &note));
        let what = change.as_ref().map_or(String::new(), |it| format!("{}; ", it.counts));
        let _ = writeln!(text, "  {what}`mapsmith unreject {}` takes that back", rejected.id());
    }
    text
}

fn hold_text(report: &HoldReport, now: Timestamp) -> String {
    let HoldReport { hold, waiting, error, text: what } = report;
    let mut text = String::new();
    let state = if hold.revision.is_some() { "rolled back" } else { "ROLLING BACK" };
    let note = format!("{state} to revision {} {}{}", hold.of, ago(hold.since), who(&hold.note));
    let _ = writeln!(text, "hold       {}", paint(Colour::Yellow, &note));
    let _ = writeln!(text, "  {what} (`mapsmith resume`)");
    let _ = writeln!(text, "  it would change: {waiting}");
    if let Some(until) = hold.until.filter(|_| ends_soon(hold, now)) {
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
        let soon = format!(
            "ENDS IN {left}: what the sources say is a held change then; roll back again \
                (--replace) for more time"
        );
        let _ = writeln!(text, "  {}", paint(Colour::Red, &soon));
    }
    if let Some(error) = error {
        let _ = writeln!(text, "  {}", paint(Colour::Red, &format!("not stored: {error}")));
    }
    text
}

/// ` by anna (cmdb lost site 7)`.
fn who(note: &Note) -> String {
    let by = note.by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
    let reason = note.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    by + &reason
}
