//! `mapsmith explain NODE`.

use std::fmt::Write as _;

use jiff::Timestamp;
use mapsmith_core::desired::ownership::{OwnedNode, OwnerRecord, Phase};
use mapsmith_core::{Note, Registration};

use super::output::{Colour, ago, paint};
use super::remote::Connection;
use super::status::{held_text, time, to_text};
use super::{FAILED, OutputFormat, SUCCESS, print};
use crate::api::types::{
    ExplainInstance, ExplainRegistration, ExplainReport, ExplainSource, HoldReport, NodeElsewhere,
};

pub(super) async fn explain(
    connection: Connection,
    node: &str,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let report: ExplainReport = connection.get(&["v1", "nodes", node]).await?;
    print(format, &report, text)?;
    Ok(if report.master.is_some() { SUCCESS } else { FAILED })
}

fn text(report: &ExplainReport) -> String {
    if report.sources.is_empty() {
        let node = &report.node;
        return format!("there is no node map: no source says which master node {node} goes to\n");
    }
    let mut text = String::new();
    let revision = report
        .revision
        .map_or("no revision yet".to_owned(), |revision| format!("revision {revision}"));
    match &report.master {
        Some(master) => {
            let _ = writeln!(
                text,
                "node {} goes to {} ({revision})",
                report.node,
                paint(Colour::Green, master)
            );
        }
        None => {
            let none = paint(Colour::Red, "no route");
            let _ = writeln!(
                text,
                "node {} has {none} ({revision}): what HAProxy does without one applies",
                report.node
            );
        }
    }
    text.push_str(&history_text(report));
    text.push_str(&override_text(report));
    text.push_str("sources\n");
    report.sources.iter().for_each(|source| text.push_str(&source_text(source, report)));
    text.push_str("in memory right now\n");
    report.instances.iter().for_each(|instance| text.push_str(&instance_text(instance, report)));
    if let Some(HoldReport { hold, text: what, .. }) = &report.hold {
        let note = format!("rolled back to revision {}: {what} (`mapsmith resume`)", hold.of);
        let _ = writeln!(text, "  {}", paint(Colour::Yellow, &note));
    }
    if let Some(held) = &report.held {
        text.push_str(&held_text(held));
    }
    text
}

fn history_text(report: &ExplainReport) -> String {
    let mut text = String::new();
    match &report.last_change {
        Some(change) => {
            let from = change.from.as_deref().unwrap_or("no route");
            let to = change.to.as_deref().unwrap_or("no route");
            let _ = writeln!(
                text,
                "  since revision {}, {}: {from} -> {to}",
                change.revision,
                ago(change.at)
            );
        }
        None if report.master.is_some() => {
            text.push_str("  no change of it is remembered since Mapsmith started\n")
        }
        None => {}
    }
    text
}

/// What an operator ordered, and what keeps the node from where it should go.
fn override_text(report: &ExplainReport) -> String {
    let mut text = String::new();
    if let Some(ExplainRegistration { registration, elsewhere, .. }) = &report.registration {
        let Registration { master, since, until, note, .. } = registration;
        let until = until
            .map_or("until it is unregistered".to_owned(), |until| format!("until {until:.0}"));
        let order = order_text(*since, note);
        let _ = writeln!(text, "  registered with {master} {order}, {until}");
        if let Some(NodeElsewhere { why, .. }) = elsewhere {
            let _ =
                writeln!(text, "    {}", paint(Colour::Yellow, &format!("not in force: {why}")));
        }
    }
    if let Some(pin) = &report.pin {
        let until = pin
            .until
            .map_or("until it is unpinned".to_owned(), |until| format!("until {until:.0}"));
        let what = paint(Colour::Yellow, &format!("pinned to {}", pin.master));
        let _ = writeln!(text, "  {what} {}, {until}", order_text(pin.since, &pin.note));
    }
    if let Some(blocked) = &report.blocked {
        let until = blocked
            .until
            .map_or("until it is unblocked".to_owned(), |until| format!("until {until:.0}"));
        let what = paint(Colour::Yellow, "blocked: it is in no map,");
        let order = order_text(blocked.since, &blocked.note);
        let _ = writeln!(text, "  {what} {order}, {until}");
    }
    if let Some(drained) = &report.drained {
        let what =
            paint(Colour::Yellow, &format!("{} is drained {}", drained.master, to_text(drained)));
        let order = order_text(drained.since, &drained.note);
        let _ = writeln!(text, "  {what} {order}, until it is undrained");
    }
    if let Some(gone) = &report.gone {
        let what = format!(
            "no source names it any more: gone since {}, stays until {} (map.remove_after)",
            time(gone.since),
            time(gone.until)
        );
        let _ = writeln!(text, "  {}", paint(Colour::Yellow, &what));
    }
    if let Some(owned) = &report.owner {
        let _ = writeln!(text, "  {}", paint(Colour::Yellow, &owner_text(owned, report)));
    }
    for note in report.reference.iter().chain(&report.kept) {
        let _ = writeln!(text, "  {}", paint(Colour::Yellow, note));
    }
    if let Some(rejected) = &report.rejected {
        let stays = if report.master.is_some() { "; the entry in force stays" } else { "" };
        let _ = writeln!(text, "  {}", paint(Colour::Red, &format!("rejected: {rejected}{stays}")));
    }
    text
}

/// Who ordered something, when and why.
fn order_text(since: Timestamp, note: &Note) -> String {
    let by = note.by.as_deref().unwrap_or("an operator");
    let reason = note.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    format!("by {by} {}{reason}", ago(since))
}

/// Whose the node is, and what becomes of it.
fn owner_text(owned: &OwnedNode, report: &ExplainReport) -> String {
    let OwnerRecord { owner, since, ordered, .. } = &owned.record;
    let counts = report.sources.iter().find(|source| source.used);
    let names_owner = counts.is_some_and(|source| source.master.as_ref() == Some(owner));
    let whose = match ordered {
        true => format!("belongs to {owner} by an operator's word {}", ago(*since)),
        false if !report.sources.iter().any(|source| source.master.is_some()) => {
            format!("belongs to {owner}; no source names the node")
        }
        false if names_owner => {
            format!("belongs to {owner}; that the registry names it again is held back")
        }
        false => format!("belongs to {owner}, the registry names another since {}", ago(*since)),
    };
    match owned.phase {
        Phase::Away if report.pin.is_some() => format!("{whose}; goes back when its pin ends"),
        Phase::Away => format!("{whose}; goes back when {owner} serves again"),
        Phase::Returning { until: None } => {
            format!("{whose}; stays there until the registry names it, or moves it on purpose")
        }
        Phase::Returning { until: Some(until) } => {
            format!(
                "{whose}; stays there until the registry names it, or after {until:.0} still does \
                    not"
            )
        }
        Phase::Leaving { until } => format!(
            "{whose}; belongs to that one from {until:.0} on, unless {owner} turns out to be down"
        ),
    }
}

fn source_text(source: &ExplainSource, report: &ExplainReport) -> String {
    let says = match (&source.master, source.rejected, source.answered_at) {
        (Some(master), _, _) => master.clone(),
        (None, Some(reason), _) => paint(Colour::Yellow, &format!("rejected: {reason}")),
        (None, None, Some(_)) => "does not know the node".to_owned(),
        (None, None, None) if report.master.is_some() => paint(
            Colour::Yellow,
            "has not answered since the start; the map file's map stays in force",
        ),
        (None, None, None) => paint(Colour::Yellow, "has not answered yet"),
    };
    let answered = source.answered_at.map_or(String::new(), |at| format!(", answered {}", ago(at)));
    let used = match source.used {
        true if report.pin.is_some() || report.drained.is_some() => match report.owner {
            Some(_) => " (without the override its owner would count)",
            None => " (would count without the override)",
        },
        true if report.kept.is_some() && report.owner.is_some() => " (does not count yet)",
        true if source.master == report.master => " (counts)",
        true if report.owner.is_some() => " (its owner counts)",
        true if report.held.is_some() || report.hold.is_some() => " (held back)",
        true => " (not in force)",
        false => "",
    };
    format!("  {}: {says}{used}{answered}\n", source.name)
}

fn instance_text(instance: &ExplainInstance, report: &ExplainReport) -> String {
    let mut text = String::new();
    let wanted = instance.canary.as_ref().map_or(&report.master, |canary| &canary.master);
    let holds = match (&instance.error, &instance.master) {
        (Some(error), _) => paint(Colour::Red, error),
        (None, Some(master)) if Some(master) == wanted.as_ref() => paint(Colour::Green, master),
        (None, master) => {
            let colour = if master == wanted { Colour::Green } else { Colour::Red };
            let differs = if master == wanted { "" } else { ", which is not what it should hold" };
            paint(colour, &format!("{}{differs}", master.as_deref().unwrap_or("no entry")))
        }
    };
    let canary = instance.canary.as_ref();
    let canary = canary.map_or(String::new(), |it| format!(" (it has the canary {})", it.rollout));
    let _ = writeln!(text, "  {}: {holds}{canary}", instance.name);
    if let Some(learned) = &instance.learned {
        let master = paint(Colour::Yellow, &learned.master);
        let _ = writeln!(
            text,
            "    learned: {master}, first seen {}; it counts until the map agrees",
            ago(learned.since)
        );
    }
    text
}
