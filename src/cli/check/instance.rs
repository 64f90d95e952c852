//! One HAProxy: whether it answers, what its socket may do, its map, and its servers.

use std::collections::BTreeSet;

use haproxy_runtime::{HaproxyVersion, Level, MapClient, MapCounters, MapKind, MapName};
use mapsmith_core::{DesiredServers, EntryMap, ObservedServers};

use super::servers::{FileOf, check_declared, check_down, check_masters};
use super::{Finding, finding};
use crate::cli::output::pluralize;
use crate::instance::apply::read_back;
use crate::settings::{self, Backend};

/// What an instance is held against.
pub(super) struct Expected<'a> {
    /// Whether there is a node map.
    pub keeps_map: bool,
    pub masters: &'a BTreeSet<String>,
    pub in_file: &'a EntryMap,
    pub backends: &'a [Backend],
    /// What declared backends should have.
    pub desired: &'a DesiredServers,
    /// Whether the rendered configuration has the map.
    pub renders_map: bool,
}

/// What was found of an instance.
pub(super) struct Checked {
    pub findings: Vec<Finding>,
    /// The servers that it has; none where it does not show them.
    pub servers: Option<ObservedServers>,
}

pub(super) async fn check_instance(
    instance: &settings::Instance,
    map: &MapName,
    expected: &Expected<'_>,
    file: FileOf,
) -> Checked {
    let what = |part: &str| format!("instance {}{part}", instance.name);
    let client = instance.map_client(map);
    let probe = match client.probe().await {
        Ok(probe) => probe,
        Err(error) => {
            let findings = vec![finding(what(""), Err(error.to_string()))];
            return Checked { findings, servers: None };
        }
    };
    let version = &probe.process.version;
    let mut findings = vec![finding(
        what(""),
        Ok(format!("HAProxy {version} answers, pid {}", probe.process.pid)),
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
    if expected.keeps_map {
        let in_memory = match probe.map {
            Some(counters) => check_map(&client, counters, expected.in_file).await,
            None if denied => Err("not shown to this level".to_owned()),
            None if file == FileOf::Mapsmith && expected.renders_map => {
                Ok("not loaded yet; `mapsmith run` loads it with its configuration".to_owned())
            }
            None => Err(unused(map)),
        };
        findings.push(finding(what(", map"), in_memory));
    }
    let servers = match instance.servers_client().observe().await {
        Err(error) => {
            findings.push(finding(what(", masters"), Err(error.to_string())));
            None
        }
        Ok(observed) => {
            let version = version.parse().unwrap_or(HaproxyVersion { major: 2, minor: 6 });
            let masters =
                check_masters(&observed, expected.masters, expected.desired, version, file);
            findings.push(finding(what(", masters"), masters));
            let down = check_declared(&observed, expected.backends).err();
            findings.extend(down.map(|down| finding(what(", backends"), Err(down))));
            let down = check_down(&observed).err();
            findings.extend(down.map(|down| finding(what(", servers"), Err(down))));
            Some(observed)
        }
    };
    Checked { findings, servers }
}

/// That no line of the configuration has the map.
pub(super) fn unused(map: &MapName) -> String {
    format!(
        "HAProxy's configuration uses no map of the name {}: it must name exactly this path in a \
            map converter",
        map.as_str()
    )
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
        return Ok(in_memory(entries as usize));
    }
    let (deviation, entries) =
        read_back(client, None, usize::MAX, in_file).await.map_err(|error| error.to_string())?;
    match deviation.missing.first().filter(|_| !restricted.is_empty()) {
        None => Ok(in_memory(entries)),
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

fn in_memory(entries: usize) -> String {
    format!("{} in memory", pluralize(entries, "entry"))
}
