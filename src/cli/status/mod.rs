//! `mapsmith status`.

use std::fmt::Write as _;

use jiff::Timestamp;
use mapsmith_core::config::status::ConfigState;
use mapsmith_core::learned::LearnedStatus;
use mapsmith_core::members::SwitchPhase;
use mapsmith_core::status::{
    InstanceState, InstanceStatus, KeptNodes, PollKind, ServersState, ServersStatus, SourceStatus,
};
use mapsmith_core::{DrainedMaster, HeldChange, RejectedRows};

use crate::api::types::{
    GoneReport, OwnerLoad, OwnershipReport, ReferencesReport, StatusReport, VersionReport,
};
use crate::cli::certificates;
use crate::cli::members;
use crate::cli::output::{Colour, ago, paint, pluralize, steps, table};
use crate::cli::remote::Connection;
use crate::cli::rollout::open_text;
use crate::cli::{FAILED, HELD, OutputFormat, SUCCESS, print};
use backends::{first_lines, rejections};

mod attention;
mod backends;
mod haproxy;
mod hold;
mod services;
pub(super) mod shadows;
mod tls;

pub(super) async fn status(connection: Connection, format: OutputFormat) -> anyhow::Result<u8> {
    let report: StatusReport = connection.get(&["v1", "status"]).await?;
    print(format, &report, text)?;
    let in_sync = report.instances.iter().all(|instance| instance.state.is_in_sync());
    let sources = report.sources.iter().all(|source| source.error.is_none() || !source.required);
    let file = report.map_file.as_ref().is_none_or(|file| file.error.is_none());
    let config =
        report.haproxy.as_ref().is_none_or(|haproxy| haproxy.state == ConfigState::InForce);
    let services = report.services.as_ref();
    let services = services.is_none_or(services::are_well);
    Ok(if !report.held.is_empty() {
        HELD
    } else if in_sync && services && sources && file && config && report.read_only.is_none() {
        SUCCESS
    } else {
        FAILED
    })
}

fn text(report: &StatusReport) -> String {
    let mut text = report.attention.as_ref().map(attention::text).unwrap_or_default();
    let revision = match report.revision {
        None => "none yet".to_owned(),
        Some(0) => "0 (the map file as it was found)".to_owned(),
        Some(revision) => revision.to_string(),
    };
    let _ = writeln!(text, "revision   {revision}, {}", pluralize(report.entries, "entry"));
    if let Some(change) = &report.last_change {
        let _ = writeln!(
            text,
            "changed    {} by {}: {}",
            ago(change.at),
            change.sources.join(", "),
            change.counts
        );
    }
    if !report.masters.is_empty() {
        let load: Vec<_> = report
            .masters
            .iter()
            .take(12)
            .map(|load| format!("{} {}", load.master, load.nodes))
            .collect();
        let more = report.masters.len().saturating_sub(load.len());
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let _ = writeln!(text, "masters    {}{more}", load.join(", "));
    }
    text.push_str(&overrides_text(report));
    report.ownership.iter().for_each(|ownership| text.push_str(&ownership_text(ownership)));
    text.push_str(&map_file_text(report));
    text.push_str(&waiting_text(report));
    text.push_str(&hold::text(report, Timestamp::now()));
    report.rollout.iter().for_each(|rollout| text.push_str(&open_text(rollout)));
    report.held.iter().for_each(|held| text.push_str(&held_text(held)));
    text.push_str(&kept_text(
        "flapping  ",
        &report.flapping,
        "until the registry has named one master for a while",
    ));
    text.push_str(&kept_text(
        "conflicts ",
        &report.conflicts,
        "because an answer names other masters too, and none is newer",
    ));
    text.push_str(&gone_text(&report.gone));
    text.push_str(&references_text(&report.references));
    text.push_str(&rejected_text(&report.rejected));
    if !report.sources.is_empty() {
        text.push_str("\nsources\n");
        text.push_str(&table("  ", &report.sources.iter().map(source_row).collect::<Vec<_>>()));
    }
    report.sources.iter().for_each(|source| text.push_str(&source_notes(source)));
    if !report.shadows.is_empty() {
        text.push_str("\nshadows (compared, never applied)\n");
        report.shadows.iter().for_each(|shadow| text.push_str(&shadows::text(shadow)));
    }
    if !report.backends.is_empty() {
        text.push_str("\nbackends\n");
        text.push_str(&backends::text(&report.backends));
    }
    text.push_str(&switched_text(&report.versions));
    if !report.certificates.is_empty() {
        text.push_str("\ncertificates\n");
        text.push_str(&certificates::text(&report.certificates, Timestamp::now()));
    }
    if !report.tls_files.is_empty() {
        text.push_str("\nfiles of certificates and CRLs\n");
        report.tls_files.iter().for_each(|file| text.push_str(&tls::file(file, Timestamp::now())));
    }
    report.haproxy.iter().for_each(|haproxy| text.push_str(&haproxy::text(haproxy)));
    report.services.iter().for_each(|services| text.push_str(&services::text(services)));
    report.api.iter().for_each(|api| text.push_str(&tls::api(api, Timestamp::now())));
    text.push_str("\ninstances\n");
    report.instances.iter().for_each(|instance| text.push_str(&instance_text(instance)));
    text
}

/// The backends that somebody has switched to another version, or that are on their way there.
fn switched_text(versions: &[VersionReport]) -> String {
    // What is as its settings say needs no line.
    let is_shown =
        |it: &&VersionReport| it.version.is_switched() || it.version.phase != SwitchPhase::Settled;
    let lines: String =
        versions.iter().filter(is_shown).map(|it| format!("  {}", members::in_words(it))).collect();
    if lines.is_empty() { lines } else { format!("\nswitched\n{lines}") }
}

/// What operators have ordered.
fn overrides_text(report: &StatusReport) -> String {
    let mut text = String::new();
    if report.pins > 0 {
        let _ = writeln!(text, "pinned     {}", pluralize(report.pins, "node"));
    }
    if report.blocked > 0 {
        let _ = writeln!(text, "blocked    {}", pluralize(report.blocked, "node"));
    }
    if !report.drained.is_empty() {
        let drained: Vec<_> =
            report.drained.iter().map(|drained| drain_text(drained, &report.stuck)).collect();
        let _ = writeln!(text, "drained    {}", paint(Colour::Yellow, &drained.join(", ")));
    }
    text
}

/// Nodes that are not where they belong, or not for good.
fn ownership_text(report: &OwnershipReport) -> String {
    let owner = |load: &OwnerLoad| {
        let counts =
            [(load.away, "away"), (load.returning, "returning"), (load.leaving, "leaving")];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        format!("{} {}", load.owner, counts.join(" "))
    };
    let mut text = String::new();
    if !report.owners.is_empty() {
        let owners: Vec<_> = report.owners.iter().map(owner).collect();
        let _ = writeln!(text, "owners     {}", paint(Colour::Yellow, &owners.join(", ")));
    }
    if let Some(error) = &report.error {
        let note = format!("owners could not be stored, a restart would lose them: {error}");
        let _ = writeln!(text, "{}", paint(Colour::Red, &note));
    }
    text
}

/// The map file, and whether another Mapsmith writes it.
fn map_file_text(report: &StatusReport) -> String {
    let mut text = String::new();
    if let Some(file) = &report.map_file {
        let state = match &file.error {
            Some(error) => paint(Colour::Red, error),
            None if file.corrected > 0 => format!(
                "{} (lost or changed externally, and rewritten: {})",
                file.path, file.corrected
            ),
            None => file.path.clone(),
        };
        let _ = writeln!(text, "map file   {state}");
    }
    if let Some(writer) = &report.read_only {
        let note = format!(
            "READ-ONLY: another Mapsmith writes the map file ({writer}), so this one changes \
                nothing"
        );
        let _ = writeln!(
            text,
            "{}\n  stop one of the two, or start this one with `mapsmith run --take-over`",
            paint(Colour::Red, &note)
        );
    }
    text
}

/// Nothing to tell while every source that counts has answered.
fn waiting_text(report: &StatusReport) -> String {
    let mut text = String::new();
    if !report.waiting_for.is_empty() {
        let meanwhile = match report.revision {
            Some(1..) => "the map file's map stays in force",
            _ => "nothing is applied until then",
        };
        let waiting =
            format!("WAITING for an answer of {}: {meanwhile}", report.waiting_for.join(", "));
        let _ = writeln!(text, "{}", paint(Colour::Yellow, &waiting));
    }
    text
}

/// What went wrong with a source's last answers.
fn source_notes(source: &SourceStatus) -> String {
    let mut text = String::new();
    if let Some(error) = &source.error {
        let _ = writeln!(text, "  {} {}", paint(Colour::Red, &format!("{}:", source.name)), error);
    }
    if let Some(warning) = &source.warning {
        let _ =
            writeln!(text, "  {}", paint(Colour::Yellow, &format!("{}: {warning}", source.name)));
    }
    for note in rejections(source) {
        let note = format!("{}: {note}", source.name);
        let _ = writeln!(text, "  {}", paint(Colour::Yellow, &note));
    }
    text
}

fn instance_text(instance: &InstanceStatus) -> String {
    let mut text = String::new();
    let colour = match instance.state {
        InstanceState::InSync { .. } | InstanceState::NoMap => Colour::Green,
        InstanceState::Starting | InstanceState::Connected => Colour::Yellow,
        _ => Colour::Red,
    };
    let process = instance
        .process
        .as_ref()
        .map(|process| format!("HAProxy {}, pid {}", process.version, process.pid));
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
    text.push_str(&tls::of_instance(&instance.tls_files));
    if let Some(servers) = &instance.servers {
        text.push_str(&servers_text(servers));
    }
    if let Some(learned) = &instance.learned {
        text.push_str(&learned_text(learned));
    }
    let drift: Vec<_> = instance
        .drift_corrected
        .iter()
        .map(|(kind, count)| format!("{} {count}", kind.label()))
        .collect();
    if !drift.is_empty() {
        let _ = writeln!(text, "    drift corrected: {}", drift.join(", "));
    }
    text
}

/// Nothing to tell while no node is kept.
fn kept_text(title: &str, kept: &KeptNodes, until: &str) -> String {
    if kept.count == 0 {
        return String::new();
    }
    let shown: Vec<_> =
        kept.nodes.iter().take(5).map(|kept| format!("{} ({})", kept.node, kept.master)).collect();
    let more = if kept.count > shown.len() { ", ..." } else { "" };
    let (nodes, stay) =
        (pluralize(kept.count, "node"), if kept.count == 1 { "stays" } else { "stay" });
    let note = format!("{nodes} {stay} with the same master {until}: {}{more}", shown.join(", "));
    format!("{title} {}\n", paint(Colour::Yellow, &note))
}

/// Nothing to tell while the sources name every node.
fn gone_text(gone: &GoneReport) -> String {
    if gone.count == 0 {
        return String::new();
    }
    let shown: Vec<_> =
        gone.nodes.iter().take(5).map(|gone| format!("{} ({})", gone.node, gone.master)).collect();
    let more = if gone.count > shown.len() { ", ..." } else { "" };
    let (nodes, stay) =
        (pluralize(gone.count, "node"), if gone.count == 1 { "stays" } else { "stay" });
    let note = format!(
        "{nodes} that no source names any more {stay} until map.remove_after is over: {}{more}",
        shown.join(", ")
    );
    format!("gone       {}\n", paint(Colour::Yellow, &note))
}

/// Nothing to tell while every entry points somewhere.
fn references_text(references: &ReferencesReport) -> String {
    let mut text = String::new();
    let ReferencesReport { dangling, unknown_are, not_ready_are } = references;
    for (masters, what, action) in [
        (&dangling.unknown, "a master that an instance does not have", unknown_are),
        (&dangling.not_ready, "a master that is not ready in an instance", not_ready_are),
    ] {
        if masters.is_empty() {
            continue;
        }
        let shown: Vec<_> =
            masters.iter().take(5).map(|(master, nodes)| format!("{master} ({nodes})")).collect();
        let more = if masters.len() > shown.len() { ", ..." } else { "" };
        let nodes = pluralize(masters.values().sum(), "node");
        let note = format!("{nodes} with {what}, {action}: {}{more}", shown.join(", "));
        let _ = writeln!(text, "references {}", paint(Colour::Yellow, &note));
    }
    text
}

/// Nothing to tell while no HAProxy refuses an entry.
pub(super) fn rejected_text(rejected: &RejectedRows) -> String {
    let mut text = String::new();
    for row in rejected.named.iter().take(5) {
        let _ = writeln!(text, "rejected   {}", paint(Colour::Red, &row.to_string()));
    }
    let more = rejected.count.saturating_sub(5);
    if more > 0 {
        let _ = writeln!(
            text,
            "rejected   {}",
            paint(Colour::Red, &format!("{more} more, see GET /v1/status"))
        );
    }
    text
}

fn servers_text(servers: &ServersStatus) -> String {
    let colour = match servers.state {
        ServersState::InSync => Colour::Green,
        ServersState::Working | ServersState::NeedsReload => Colour::Yellow,
        ServersState::Failed { .. } => Colour::Red,
    };
    let mut text = format!("    {}\n", paint(colour, &servers.state.to_string()));
    let lists = [
        &servers.needs_reload,
        &servers.removing,
        &servers.checking,
        &servers.external,
        &servers.by_agent,
    ];
    for list in lists {
        for line in first_lines(list.iter().map(ToString::to_string), list.len() as u64) {
            let _ = writeln!(text, "      {line}");
        }
    }
    text
}

/// Nothing to tell while nothing is learned.
fn learned_text(learned: &LearnedStatus) -> String {
    let mut text = String::new();
    if learned.routes > 0 || learned.truncated > 0 {
        let since = learned
            .since
            .map_or(String::new(), |since| format!(", the oldest first seen {}", ago(since)));
        let truncated = if learned.truncated > 0 {
            format!(", and {} more that were not read", learned.truncated)
        } else {
            String::new()
        };
        let _ = writeln!(text, "    learned routes: {}{truncated}{since}", learned.routes);
    }
    if let Some(error) = &learned.error {
        let _ = writeln!(text, "    learned routes: {}", paint(Colour::Red, error));
    }
    text
}

pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `m1 (to the others)`.
fn drain_text(drained: &DrainedMaster, stuck: &[String]) -> String {
    let to = if stuck.contains(&drained.master) {
        "keeps its nodes, because no other master is left"
    } else {
        &to_text(drained)
    };
    format!("{} ({to})", drained.master)
}

pub(super) fn to_text(drained: &DrainedMaster) -> String {
    format!("to {}", drained.to.as_deref().unwrap_or("the others"))
}

fn source_row(source: &SourceStatus) -> Vec<String> {
    let entries =
        source.entries.map_or("no answer yet".to_owned(), |entries| pluralize(entries, "entry"));
    let answered = source.answered_at.map_or(String::new(), |at| format!("answered {}", ago(at)));
    let poll = source.last_poll.as_ref().map_or(String::new(), |poll| {
        let kind = match poll.kind {
            Some(PollKind::Full) => "full",
            Some(PollKind::Delta) => "delta",
            Some(PollKind::Unchanged) => "unchanged",
            None => {
                return format!(
                    "last poll FAILED {} after {:.0} ms",
                    ago(poll.at),
                    poll.milliseconds
                );
            }
        };
        format!("last poll {kind}, {:.0} ms, {} bytes", poll.milliseconds, poll.bytes)
    });
    let watch = source.watch.map_or(String::new(), |watch| watch.to_string());
    vec![source.name.clone(), source.kind.clone(), entries, answered, poll, watch]
}

pub(super) fn held_text(held: &HeldChange) -> String {
    let (of, part) = match held.of.as_str() {
        HeldChange::MAP => (String::new(), "entry"),
        HeldChange::SERVICES => (" of the services".to_owned(), "service"),
        of => (format!(" of {of}"), "server"),
    };
    let in_force = pluralize(held.entries_in_force, part);
    let (what, applied) = match held.applied.is_empty() {
        true => (format!("nothing of this change{of} is applied"), String::new()),
        false => (
            "the rest of the change is applied".to_owned(),
            format!("  applied meanwhile: {}\n", held.applied),
        ),
    };
    format!(
        "{}\n  {}\n  since {} ({}): {in_force} in force, {} held: {}\n{applied}  let it through: \
            mapsmith approve {}\n",
        paint(Colour::Red, &format!("HELD BY THE GUARD: {what}")),
        held.reason,
        time(held.since),
        ago(held.since),
        held.entries_held,
        held.counts,
        held.id
    )
}
