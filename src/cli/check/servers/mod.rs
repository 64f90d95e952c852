//! The servers that an instance has, beside those that it should have. Pure.

use std::collections::{BTreeMap, BTreeSet};

use haproxy_runtime::HaproxyVersion;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::plan::servers::{ServerHistory, ServerStep, plan_servers};
use mapsmith_core::{DesiredServers, ObservedServers};

use super::named;
use crate::cli::output::pluralize;
use crate::settings::Backend;

/// How `show stat` describes what a plain check gets from a port that wants TLS (measured: the first
/// on 2.6, the other from 3.0 on).
const NO_HTTP: [&str; 2] = ["Layer7 invalid response", "Socket error"];

/// Who writes the file that an instance starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileOf {
    /// Somebody else: what it lacks they have to write.
    Others,
    /// It is rendered from the settings.
    Mapsmith,
}

/// Masters that an instance lacks and that a `[[backend]]` lists, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Coming {
    /// Those that the daemon adds, with their backend.
    added: BTreeMap<String, String>,
    /// Those that no command can add, with what is in the way.
    needs_reload: BTreeMap<String, String>,
}

impl Coming {
    /// By the plan that the daemon would make of this observation. What of it needs a reload comes
    /// by one where HAProxy's file is Mapsmith's.
    fn new(
        observed: &ObservedServers,
        desired: &DesiredServers,
        version: HaproxyVersion,
        file: FileOf,
    ) -> Self {
        let plan = plan_servers(desired, observed, &ServerHistory::new(version));
        let mut coming = Self::default();
        for step in plan.before {
            let (name, backend) = match step {
                ServerStep::Add { backend, server } | ServerStep::AddOut { backend, server } => {
                    (server.name, backend)
                }
                ServerStep::AddBackend { backend, .. } => (backend.clone(), backend),
                _ => continue,
            };
            coming.added.insert(name, backend);
        }
        for cause in plan.needs_reload {
            let listed = desired.backends.get(&cause.backend).map(|backend| &backend.servers);
            let names: Vec<String> = match &cause.server {
                Some(server) => vec![server.clone()],
                None => {
                    let servers = listed.into_iter().flatten().map(|(name, _)| name.clone());
                    servers.chain([cause.backend.clone()]).collect()
                }
            };
            if file == FileOf::Mapsmith {
                coming.added.extend(names.into_iter().map(|name| (name, cause.backend.clone())));
                continue;
            }
            let text = format!("{}: {}", cause.backend, cause.cause);
            coming.needs_reload.extend(names.into_iter().map(|name| (name, text.clone())));
        }
        coming
    }

    /// What keeps which of these from being added, a sentence a cause.
    fn needing_reload(&self, missing: &[&str]) -> Vec<String> {
        let mut of_cause = BTreeMap::<&str, Vec<&str>>::new();
        for master in missing {
            if let Some(cause) = self.needs_reload.get(*master) {
                of_cause.entry(cause).or_default().push(master);
            }
        }
        let sentence = |(cause, masters): (&str, Vec<&str>)| {
            format!("{} can't be added without a reload of HAProxy: {cause}", named(&masters))
        };
        of_cause.into_iter().map(sentence).collect()
    }
}

/// Whether each master of the map is a backend or server that takes requests, or one that the
/// daemon will add.
pub(super) fn check_masters(
    observed: &ObservedServers,
    masters: &BTreeSet<String>,
    desired: &DesiredServers,
    version: HaproxyVersion,
    file: FileOf,
) -> Result<String, String> {
    let targets = Targets::from_observed(observed);
    let of_state = |state| {
        masters
            .iter()
            .map(String::as_str)
            .filter(|master| targets.ready(master) == state)
            .collect::<Vec<_>>()
    };
    let (mut missing, down) = (of_state(None), of_state(Some(false)));
    let coming = Coming::new(observed, desired, version, file);
    let added: Vec<String> = missing
        .iter()
        .filter_map(|master| Some((*master, coming.added.get(*master)?)))
        .map(|(master, backend)| match master == backend {
            true => format!("the backend {backend}"),
            false => format!("{backend}/{master}"),
        })
        .collect();
    missing.retain(|master| !coming.added.contains_key(*master));
    let mut problems = coming.needing_reload(&missing);
    missing.retain(|master| !coming.needs_reload.contains_key(*master));
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
    let added_at_first = match added.is_empty() {
        true => String::new(),
        false => format!("; will be added by `mapsmith run`: {}", named(&added)),
    };
    let count = pluralize(masters.len(), "master");
    match problems.is_empty() {
        true if masters.is_empty() => {
            Ok("no source and no map file names one yet, so none was checked".to_owned())
        }
        true if !added.is_empty() => {
            let here = masters.len() - added.len();
            Ok(format!("{count} in the map, {here} of them here and ready{added_at_first}"))
        }
        true => Ok(format!("{count} in the map, each a backend or server here, and ready")),
        false => Err(problems.join("; ") + &added_at_first),
    }
}

/// Whether a declared backend has servers and all that should serve are down by their checks.
/// Servers that are to come are no problem, nor those that somebody took out.
pub(super) fn check_declared(
    observed: &ObservedServers,
    backends: &[Backend],
) -> Result<(), String> {
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

/// Whether any server of the instance is down, declared or not. One that somebody took out is not
/// down.
pub(super) fn check_down(observed: &ObservedServers) -> Result<(), String> {
    let (mut down, mut in_plain) = (Vec::new(), Vec::new());
    for (backend, seen) in observed {
        for (name, server) in &seen.servers {
            if server.running || !server.admin.ready() {
                continue;
            }
            let why = match server.last_check.is_empty() {
                true => &server.status,
                false => &server.last_check,
            };
            down.push(format!("{backend}/{name} ({why})"));
            if server.tls && NO_HTTP.contains(&server.last_check.as_str()) {
                in_plain.push(format!("{backend}/{name}"));
            }
        }
    }
    if down.is_empty() {
        return Ok(());
    }
    let are = if down.len() == 1 { "is" } else { "are" };
    let mut text = format!("{} {are} down: {}", pluralize(down.len(), "server"), named(&down));
    if !in_plain.is_empty() {
        text += &format!(
            "; what speaks TLS and was added at runtime is checked in plain text unless its \
                options have `check-ssl`: see to {}",
            named(&in_plain)
        );
    }
    Err(text)
}

#[cfg(test)]
mod tests;
