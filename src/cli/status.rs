//! `mapsmith status`.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::Method;

use super::output::{Colour, ago, paint, steps, table};
use super::remote::{Connection, NOTHING};
use super::{FAILED, Form, GOOD, HELD, print};
use crate::http::dto::StatusReport;
use crate::model::HeldChange;
use crate::model::status::{InstanceState, PollKind, SourceStatus};

pub(super) async fn status(connection: Connection, form: Form) -> anyhow::Result<u8> {
    let report: StatusReport = connection.ask(Method::GET, &["v1", "status"], None, NOTHING, Duration::ZERO).await?.good()?;
    print(form, &report, text)?;
    let in_step = report.instances.iter().all(|instance| matches!(instance.state, InstanceState::InStep { .. }));
    let sources = report.sources.iter().all(|source| source.error.is_none() || !source.required);
    let file = report.map_file.as_ref().is_none_or(|file| file.error.is_none());
    Ok(if report.held.is_some() {
        HELD
    } else if in_step && sources && file {
        GOOD
    } else {
        FAILED
    })
}

fn text(report: &StatusReport) -> String {
    let mut text = String::new();
    let revision = match report.revision {
        None => "none yet".to_owned(),
        Some(0) => "0 (the map file as it was found)".to_owned(),
        Some(revision) => revision.to_string(),
    };
    let _ = writeln!(text, "revision   {revision}, {} entries", report.entries);
    if let Some(change) = &report.last_change {
        let _ = writeln!(text, "changed    {} by {}: {}", ago(change.at), change.sources.join(", "), change.counts);
    }
    if !report.masters.is_empty() {
        let load: Vec<_> = report.masters.iter().take(12).map(|load| format!("{} {}", load.master, load.nodes)).collect();
        let more = report.masters.len().saturating_sub(load.len());
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let _ = writeln!(text, "masters    {}{more}", load.join(", "));
    }
    if let Some(file) = &report.map_file {
        let state = match &file.error {
            Some(error) => paint(Colour::Red, error),
            None if file.healed > 0 => format!("{} (lost or changed behind our back, and healed: {})", file.path, file.healed),
            None => file.path.clone(),
        };
        let _ = writeln!(text, "map file   {state}");
    }
    if !report.waiting_for.is_empty() {
        let waiting = format!("WAITING for a first answer of {}: nothing is applied until then", report.waiting_for.join(", "));
        let _ = writeln!(text, "{}", paint(Colour::Yellow, &waiting));
    }
    if let Some(held) = &report.held {
        text.push_str(&held_text(held));
    }
    text.push_str("\nsources\n");
    text.push_str(&table("  ", &report.sources.iter().map(source_row).collect::<Vec<_>>()));
    for source in &report.sources {
        if let Some(error) = &source.error {
            let _ = writeln!(text, "  {} {}", paint(Colour::Red, &format!("{}:", source.name)), error);
        }
        for (reason, count) in &source.rejections.counts {
            let example =
                source.rejections.named.iter().find(|(_, found)| *found == reason).map(|(node, _)| format!(", as {node:?}"));
            let note = format!("{}: {count} left out: {reason}{}", source.name, example.unwrap_or_default());
            let _ = writeln!(text, "  {}", paint(Colour::Yellow, &note));
        }
    }
    text.push_str("\ninstances\n");
    for instance in &report.instances {
        let colour = match instance.state {
            InstanceState::InStep { .. } => Colour::Green,
            InstanceState::Starting | InstanceState::Connected => Colour::Yellow,
            _ => Colour::Red,
        };
        let process = instance.process.as_ref().map(|process| format!("HAProxy {}, pid {}", process.version, process.pid));
        let state = paint(colour, &instance.state.to_string());
        let _ = match (&instance.state, process) {
            (_, None) => writeln!(text, "  {}  {state}", instance.name),
            (InstanceState::Unreachable { .. }, Some(process)) => {
                writeln!(text, "  {}  {state}\n    last seen as {process}", instance.name)
            }
            (_, Some(process)) => writeln!(text, "  {}  {state} ({process})", instance.name),
        };
        if let Some(apply) = &instance.last_apply {
            let _ = writeln!(
                text,
                "    last change {}: revision {} by {}: {} ({})",
                ago(apply.at),
                apply.revision,
                apply.strategy.label(),
                apply.counts,
                steps(&apply.steps)
            );
        }
        let drift: Vec<_> = instance.drift_healed.iter().map(|(kind, count)| format!("{} {count}", kind.label())).collect();
        if !drift.is_empty() {
            let _ = writeln!(text, "    drift healed: {}", drift.join(", "));
        }
    }
    text
}

fn source_row(source: &SourceStatus) -> Vec<String> {
    let entries = source.entries.map_or("no answer yet".to_owned(), |entries| format!("{entries} entries"));
    let answered = source.answered_at.map_or(String::new(), |at| format!("answered {}", ago(at)));
    let poll = source.last_poll.as_ref().map_or(String::new(), |poll| {
        let kind = match poll.kind {
            Some(PollKind::Full) => "full",
            Some(PollKind::Delta) => "delta",
            Some(PollKind::Unchanged) => "unchanged",
            None => return format!("last poll FAILED {} after {:.0} ms", ago(poll.at), poll.milliseconds),
        };
        format!("last poll {kind}, {:.0} ms, {} bytes", poll.milliseconds, poll.bytes)
    });
    vec![source.name.clone(), source.kind.clone(), entries, answered, poll]
}

/// A held change for people.
pub(super) fn held_text(held: &HeldChange) -> String {
    format!(
        "{}\n  {}\n  since {} ({}): {} entries in force, {} held: {}\n  let it through: mapsmith approve {}\n",
        paint(Colour::Red, "HELD BY THE GUARD: nothing of this change is applied"),
        held.reason,
        held.since.strftime("%Y-%m-%d %H:%M:%SZ"),
        ago(held.since),
        held.entries_in_force,
        held.entries_held,
        held.counts,
        held.id
    )
}
