//! `mapsmith check`: every problem at once, changing nothing. One file for each thing that is
//! checked.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use futures_util::future::join_all;
use haproxy_runtime::MapName;
use mapsmith_core::desired::references::Actions;
use serde::Serialize;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::local::{members, poll_all, shadows, stored, with_services};
use super::output::{Colour, paint, pluralize};
use super::{FAILED, OutputFormat, SUCCESS, print};
use crate::engine::preview::{self, Preview};
use crate::settings::Settings;
use crate::store::map_file::MapFileWriter;
use instance::Expected;
use servers::FileOf;

mod files;
mod haproxy;
mod instance;
mod options;
mod probe;
mod servers;
mod services;
mod sources;

/// How many of many are named.
const NAMED: usize = 10;

#[derive(Debug, Serialize)]
struct CheckReport {
    ok: bool,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    ok: bool,
    /// It is no failure, and worth a look.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    warning: bool,
    detail: String,
}

fn finding(what: impl Into<String>, result: Result<String, String>) -> Finding {
    let ok = result.is_ok();
    let detail = result.unwrap_or_else(|error| error);
    Finding { what: what.into(), ok, warning: false, detail }
}

fn warning(what: impl Into<String>, detail: String) -> Finding {
    Finding { what: what.into(), ok: true, warning: true, detail }
}

pub(super) async fn check(
    settings: Settings,
    format: OutputFormat,
    probe_masters: bool,
) -> anyhow::Result<u8> {
    let mut findings = vec![summary(&settings)];
    let (known, unreadable) = services::stored(&settings).await;
    findings.extend(unreadable);
    let (settings, services) = with_services(settings, known).await;
    findings.extend(services.iter().flat_map(services::check_services));
    findings.extend(check_files(&settings).await);
    let stored = stored(&settings).await;
    findings.extend(files::check_store(&settings, &stored));
    let (states, lists) = poll_all(&settings).await;
    findings.extend(states.iter().map(|state| sources::check_source(&state.status)));
    findings.extend(lists.iter().map(|state| sources::check_source(&state.status)));

    let found = MapFileWriter::new(settings.map.file()).peek().ok().flatten();
    let mut stored = stored.unwrap_or_default();
    let in_force = std::mem::take(&mut stored.lists);
    // Without the sources it is the map in force: its masters should be there all the same. What
    // points nowhere stays in, for that is what is looked for.
    let map = preview::map(&settings, Actions::default(), found, Vec::new(), &states, stored)
        .with_subscriber(NoSubscriber::new())
        .await;
    findings.extend(map.held.as_ref().map(sources::check_held));
    let masters = masters(&map);
    let members = members(&settings).await.unwrap_or_default();
    let backends = preview::servers(&settings, &lists, &map, &in_force, members)
        .with_subscriber(NoSubscriber::new())
        .await;
    findings.extend(backends.statuses.iter().map(|status| {
        let mut changes = backends.changes.iter();
        sources::check_backend(status, changes.find(|change| change.backend == status.name))
    }));
    let shadows = shadows(&settings, &states, &lists, &backends.statuses).await;
    findings.extend(shadows.iter().map(sources::check_shadow));
    let unstarted = haproxy::unstarted(&settings).await;
    // Without the services it would be another one.
    if services.as_ref().is_none_or(|services| services.in_force.is_some()) {
        findings.extend(haproxy::check_configuration(&settings, &backends.desired).await);
        findings.extend(haproxy::check_ports(&settings, &backends.desired, unstarted.is_none()));
        findings.extend(haproxy::check_shared_ports(&settings, &backends.desired));
    }
    findings.extend(options::check_options(&settings.backends, &backends.statuses));
    let name = MapName::new(&settings.map.path.to_string_lossy());
    let in_file = map.before.clone().unwrap_or_default();
    let expected = Expected {
        keeps_map: settings.keeps_map(),
        masters: &masters,
        in_file: &in_file,
        backends: &settings.backends,
        desired: &backends.desired,
        renders_map: haproxy::renders_map(&settings, &backends.desired, &name),
    };
    let file_of = |index| match settings.own_instance() == Some(index) {
        true => FileOf::Mapsmith,
        false => FileOf::Others,
    };
    findings.extend(unstarted.map(|own| {
        let uses_map = expected.renders_map || !expected.keeps_map;
        not_started(&settings.instances[own].name, &name, uses_map)
    }));
    let instances =
        settings.instances.iter().enumerate().filter(|(index, _)| Some(*index) != unstarted).map(
            |(index, instance)| {
                instance::check_instance(instance, &name, &expected, file_of(index))
            },
        );
    let mut observed = Vec::new();
    for checked in join_all(instances).await {
        findings.extend(checked.findings);
        observed.extend(checked.servers);
    }
    if probe_masters {
        findings.extend(probe::probe_masters(&masters, &backends.desired, &observed).await);
    }

    let report = CheckReport { ok: findings.iter().all(|finding| finding.ok), findings };
    print(format, &report, text)?;
    Ok(if report.ok { SUCCESS } else { FAILED })
}

fn not_started(instance: impl std::fmt::Display, map: &MapName, uses_map: bool) -> Finding {
    let said = match uses_map {
        true => Ok("not started yet; `mapsmith run` starts it".to_owned()),
        false => Err(instance::unused(map)),
    };
    finding(format!("instance {instance}"), said)
}

/// What is on disk.
async fn check_files(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::from_iter(files::check_api(settings));
    findings.extend(files::check_acme(settings));
    findings.extend(haproxy::check_folder(settings));
    if settings.keeps_map() {
        findings.push(files::check_map_file(settings));
    }
    let tls_files = settings.tls_files.iter().map(|file| files::check_tls_file(settings, file));
    findings.extend(join_all(tls_files).await);
    findings
}

/// The masters of the map. What would be held leaves the entries in force to those that they have.
fn masters(map: &Preview) -> BTreeSet<String> {
    let in_force = map.before.iter().filter(|_| map.held.is_some());
    let maps = in_force.chain([&map.map]);
    maps.flat_map(|map| map.load()).map(|(master, _)| master.to_owned()).collect()
}

/// What the settings have.
fn summary(settings: &Settings) -> Finding {
    let sources = pluralize(settings.sources.len(), "source");
    let backends = match settings.backends.len() {
        0 => String::new(),
        count => format!(", {}", pluralize(count, "backend")),
    };
    let instances = pluralize(settings.instances.len(), "instance");
    finding("settings", Ok(format!("{sources}{backends}, {instances}")))
}

/// The first few names, and how many more there are.
fn named<T: AsRef<str>>(names: &[T]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let first: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    format!("{}{more}", first.join(", "))
}

fn text(report: &CheckReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let mark = match (finding.ok, finding.warning) {
            (true, true) => paint(Colour::Yellow, "warn"),
            (true, false) => paint(Colour::Green, "ok  "),
            (false, _) => paint(Colour::Red, "FAIL"),
        };
        let _ = writeln!(text, "{mark}  {}: {}", finding.what, finding.detail);
    }
    let failures = report.findings.iter().filter(|finding| !finding.ok).count();
    let _ = match failures {
        0 => writeln!(text, "all is well"),
        count => writeln!(text, "{}", pluralize(count, "problem")),
    };
    text
}
