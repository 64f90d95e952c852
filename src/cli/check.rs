//! `mapsmith check`: every problem at once, changing nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use futures_util::future::join_all;
use haproxy_runtime::{Level, MapClient, MapCounters, MapKind, MapName};
use jiff::Timestamp;
use mapsmith_core::desired::references::{Actions, Targets};
use mapsmith_core::status::{BackendStatus, SourceStatus};
use mapsmith_core::{EntryMap, HeldChange, ObservedServers};
use serde::Serialize;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::local::{poll_all, poll_lists, stored};
use super::output::{Colour, paint, pluralize};
use super::{FAILED, OutputFormat, SUCCESS, print};
use crate::engine::preview;
use crate::http::Token;
use crate::instance::apply::read_back;
use crate::settings::{self, Backend, Settings};
use crate::store::Stored;
use crate::store::map_file::MapFileWriter;
use crate::tls_file::TlsFile;

/// How many masters without a backend or server are named.
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
    detail: String,
}

fn finding(what: impl Into<String>, result: Result<String, String>) -> Finding {
    let ok = result.is_ok();
    Finding { what: what.into(), ok, detail: result.unwrap_or_else(|error| error) }
}

pub(super) async fn check(settings: Settings, format: OutputFormat) -> anyhow::Result<u8> {
    let sources = pluralize(settings.sources.len() + settings.list_sources.len(), "source");
    let backends = match settings.backends.len() {
        0 => String::new(),
        count => format!(", {}", pluralize(count, "backend")),
    };
    let instances = pluralize(settings.instances.len(), "instance");
    let mut findings = vec![finding("settings", Ok(format!("{sources}{backends}, {instances}")))];
    if let Some(path) = &settings.api.token_file {
        let read = Token::read(path).map(|_| "readable".to_owned());
        findings.push(finding(
            "api.token_file",
            read.map_err(|error| error.trim_start_matches("api.token_file ").to_owned()),
        ));
    }
    findings.push(check_map_file(&settings));
    findings.extend(join_all(settings.tls_files.iter().map(check_tls_file)).await);
    let stored = stored(&settings).await;
    if settings.store.is_some() {
        let count = |Stored { overrides, .. }: &Stored| {
            let pins = pluralize(overrides.pins().len(), "pin");
            format!("{pins}, {} drained", overrides.drained().len())
        };
        findings.push(finding("store", stored.as_ref().map(count).map_err(ToString::to_string)));
    }
    let (states, lists) = tokio::join!(poll_all(&settings), poll_lists(&settings));
    findings.extend(states.iter().map(|state| check_source(&state.status)));
    findings.extend(lists.iter().map(|state| check_source(&state.status)));

    let found = MapFileWriter::new(settings.map.file()).peek().ok().flatten();
    let stored = stored.unwrap_or_default();
    // Without the sources it is the map in force: its masters should be there all the same. What
    // points nowhere stays in, for that is what is looked for.
    let map = preview::map(&settings, Actions::default(), found, Vec::new(), &states, stored)
        .with_subscriber(NoSubscriber::new())
        .await;
    findings.extend(map.held.as_ref().map(check_held));
    let masters: BTreeSet<String> =
        map.map.load().into_iter().map(|(master, _)| master.to_owned()).collect();
    let backends =
        preview::servers(&settings, &lists, &map).with_subscriber(NoSubscriber::new()).await;
    findings.extend(backends.iter().map(check_backend));
    let name = MapName::new(&settings.map.path.to_string_lossy());
    let in_file = map.before.clone().unwrap_or_default();
    let expected = Expected { masters: &masters, in_file: &in_file, backends: &settings.backends };
    let instances =
        settings.instances.iter().map(|instance| check_instance(instance, &name, &expected));
    findings.extend(join_all(instances).await.into_iter().flatten());

    let report = CheckReport { ok: findings.iter().all(|finding| finding.ok), findings };
    print(format, &report, text)?;
    Ok(if report.ok { SUCCESS } else { FAILED })
}

fn check_map_file(settings: &Settings) -> Finding {
    let mut writer = MapFileWriter::new(settings.map.file());
    let path = settings.map.file().display();
    let result = match (writer.probe(), writer.peek()) {
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
        (Ok(()), Ok(None)) => Err(format!(
            "{path} does not exist: HAProxy does not start without it; create it, empty"
        )),
        (Ok(()), Ok(Some(file))) => match file.rejected.first() {
            None => Ok(format!("{path}: {} entries in force, can be replaced", file.entries.len())),
            Some((line, reason)) => Err(format!(
                "{path}: lines that are not entries will be dropped at the first write: {}, the \
                    first is line {line}: {reason}",
                pluralize(file.rejected.len(), "line")
            )),
        },
    };
    finding("map file", result)
}

/// What the daemon would put into the file now.
async fn check_tls_file(file: &settings::TlsFile) -> Finding {
    let result = match TlsFile::new(file) {
        Ok((mut task, _)) => task.preview(Timestamp::now()).await.map(|held| held.join("; ")),
        Err(error) => Err(error.to_string()),
    };
    finding(format!("tls_file {}", file.path.display()), result)
}

fn check_source(status: &SourceStatus) -> Finding {
    let result = match (&status.error, status.entries) {
        (Some(error), _) => Err(error.clone()),
        (None, entries) => {
            let reasons: Vec<_> = status
                .rejections
                .counts
                .iter()
                .map(|(reason, count)| format!("{count} rejected: {reason}"))
                .collect();
            let rejected = if reasons.is_empty() {
                String::new()
            } else {
                format!("; {}", reasons.join("; "))
            };
            let warning =
                status.warning.as_ref().map_or(String::new(), |warning| format!("; {warning}"));
            Ok(format!("answers with {} entries{rejected}{warning}", entries.unwrap_or(0)))
        }
    };
    finding(format!("source {}", status.name), result)
}

/// A change of the map that the daemon would hold.
fn check_held(held: &HeldChange) -> Finding {
    let rest = match held.applied.is_empty() {
        true => String::new(),
        false => format!("; the rest would be applied: {}", held.applied),
    };
    let what = format!("the guard would hold {}: {}{rest}", held.counts, held.reason);
    finding("map", Err(what))
}

/// What the daemon would make of a server list, with the rows that it would leave out.
fn check_backend(backend: &BackendStatus) -> Finding {
    let servers = pluralize(backend.servers.as_ref().map_or(0, Vec::len), "server");
    let rows: Vec<_> = backend
        .rejected
        .iter()
        .take(NAMED)
        .map(|row| format!("{}: {}", row.place, row.reason))
        .collect();
    let more = backend.rejected.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let result = match (&backend.waiting_for, &backend.held) {
        (Some(waiting_for), _) => Err(format!("its servers are not known without {waiting_for}")),
        _ if !rows.is_empty() => {
            Err(format!("{servers} from {}; rejected: {}{more}", backend.from, rows.join("; ")))
        }
        (None, Some(held)) => Err(format!("the guard would hold its list back: {}", held.reason)),
        (None, None) => Ok(format!("{servers} from {}", backend.from)),
    };
    finding(format!("backend {}", backend.name), result)
}

/// How many entries memory has; and where the map takes some entries only, whether it has all of
/// the file's: what it lacks is mostly what keeps HAProxy from starting.
async fn check_map(
    client: &MapClient,
    counters: MapCounters,
    in_file: &EntryMap,
) -> Result<String, String> {
    let kind = client.kind().await.map_err(|error| error.to_string())?;
    let restricted = match kind {
        Some(MapKind::Restricted { by }) => by,
        Some(MapKind::Any) | None => String::new(),
    };
    if let (true, Some(entries)) = (restricted.is_empty(), counters.count(0)) {
        return Ok(format!("{entries} entries in memory"));
    }
    let (deviation, entries) =
        read_back(client, None, usize::MAX, in_file).await.map_err(|error| error.to_string())?;
    match deviation.missing.first().filter(|_| !restricted.is_empty()) {
        None => Ok(format!("{entries} entries in memory")),
        Some(first) => Err(format!(
            "memory lacks {} of the map file, the first is `{} {}`; this map takes some entries \
                only ({restricted}), and HAProxy does \
             not start from a file with another one",
            pluralize(deviation.missing.len(), "line"),
            in_file.key(*first as usize),
            in_file.value(*first as usize)
        )),
    }
}

/// What an instance is held against.
struct Expected<'a> {
    masters: &'a BTreeSet<String>,
    in_file: &'a EntryMap,
    backends: &'a [Backend],
}

async fn check_instance(
    instance: &settings::Instance,
    map: &MapName,
    expected: &Expected<'_>,
) -> Vec<Finding> {
    let what = |part: &str| format!("instance {}{part}", instance.name);
    let client = instance.map_client(map);
    let probe = match client.probe().await {
        Ok(probe) => probe,
        Err(error) => return vec![finding(what(""), Err(error.to_string()))],
    };
    let mut findings = vec![finding(
        what(""),
        Ok(format!("HAProxy {} answers, pid {}", probe.process.version, probe.process.pid)),
    )];
    let admin = match probe.level {
        Level::Admin => Ok("admin".to_owned()),
        _ => Err(format!(
            "{} is not an admin socket: add `level admin` to its `stats socket` line in HAProxy's \
                configuration",
            instance.runtime
        )),
    };
    let denied = admin.is_err();
    findings.push(finding(what(", level"), admin));
    findings.push(finding(
        what(", map"),
        match probe.map {
            Some(counters) => check_map(&client, counters, expected.in_file).await,
            None if denied => Err("not shown to this level".to_owned()),
            None => Err(format!(
                "HAProxy's configuration uses no map of the name {}: it must name exactly this \
                    path in a map converter",
                map.as_str()
            )),
        },
    ));
    match instance.servers_client().observe().await {
        Err(error) => findings.push(finding(what(", masters"), Err(error.to_string()))),
        Ok(observed) => {
            findings.push(finding(what(", masters"), check_masters(&observed, expected.masters)));
            if let Err(down) = check_declared(&observed, expected.backends) {
                findings.push(finding(what(", backends"), Err(down)));
            }
        }
    }
    findings
}

/// Whether each master of the map is a backend or server that takes requests.
fn check_masters(observed: &ObservedServers, masters: &BTreeSet<String>) -> Result<String, String> {
    let targets = Targets::from_observed(observed);
    let of_state = |state| {
        masters
            .iter()
            .map(String::as_str)
            .filter(|master| targets.ready(master) == state)
            .collect::<Vec<_>>()
    };
    let (missing, down) = (of_state(None), of_state(Some(false)));
    let mut problems = Vec::new();
    if !missing.is_empty() {
        problems.push(format!(
            "no backend or server is named {}: add them to HAProxy, or map the registry's names \
                by [source.masters]",
            named(&missing)
        ));
    }
    if !down.is_empty() {
        problems.push(format!(
            "{} of {} can't take requests (down, drained or in maintenance; HAProxy's `show stat` \
                says which): {}",
            down.len(),
            pluralize(masters.len(), "master"),
            named(&down)
        ));
    }
    match problems.is_empty() {
        true if masters.is_empty() => {
            Ok("no source and no map file names one yet, so none was checked".to_owned())
        }
        true => Ok(format!(
            "{} in the map, each a backend or server here, and ready",
            pluralize(masters.len(), "master")
        )),
        false => Err(problems.join("; ")),
    }
}

/// Whether a declared backend has servers and all that should serve are down by their checks.
/// Servers that are to come are no problem, nor those that somebody took out.
fn check_declared(observed: &ObservedServers, backends: &[Backend]) -> Result<(), String> {
    let down = |backend: &&Backend| {
        let servers =
            observed.get(&backend.name).into_iter().flat_map(|seen| seen.servers.values());
        let meant: Vec<bool> =
            servers.filter(|server| server.admin.ready()).map(|server| server.running).collect();
        !meant.is_empty() && !meant.contains(&true)
    };
    let down: Vec<_> = backends.iter().filter(down).map(|backend| backend.name.as_str()).collect();
    if down.is_empty() {
        Ok(())
    } else {
        Err(format!("every server is down by its health check in {}", named(&down)))
    }
}

/// The first few names, and how many more there are.
fn named(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}

fn text(report: &CheckReport) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let mark =
            if finding.ok { paint(Colour::Green, "ok  ") } else { paint(Colour::Red, "FAIL") };
        let _ = writeln!(text, "{mark}  {}: {}", finding.what, finding.detail);
    }
    let failures = report.findings.iter().filter(|finding| !finding.ok).count();
    let _ = match failures {
        0 => writeln!(text, "all is well"),
        count => writeln!(text, "{}", pluralize(count, "problem")),
    };
    text
}
