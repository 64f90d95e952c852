//! What the sources answer, and what the daemon would make of it.

use mapsmith_core::HeldChange;
use mapsmith_core::desired::shadow::ShadowStatus;
use mapsmith_core::status::{BackendStatus, SourceStatus};

use super::{Finding, NAMED, finding};
use crate::cli::output::pluralize;
use crate::cli::status::shadows::in_brief;
use crate::engine::preview::ServersChange;

pub(super) fn check_source(status: &SourceStatus) -> Finding {
    let result = match (&status.error, status.entries) {
        (Some(error), _) => Err(error.clone()),
        (None, entries) => {
            let rejected = rejected(status);
            let warning =
                status.warning.as_ref().map_or(String::new(), |warning| format!("; {warning}"));
            let entries = pluralize(entries.unwrap_or(0), "entry");
            Ok(format!("answers with {entries}{rejected}{warning}"))
        }
    };
    finding(format!("source {}", status.name), result)
}

/// `; 3 rejected: no master` for each reason.
fn rejected(status: &SourceStatus) -> String {
    let counts = status.rejections.counts.iter();
    counts.map(|(reason, count)| format!("; {count} rejected: {reason}")).collect()
}

/// What is compared and never applied: to differ is no failure, to give no answer is one.
pub(super) fn check_shadow(shadow: &ShadowStatus) -> Finding {
    let result = match &shadow.source.error {
        Some(error) => Err(error.clone()),
        None => {
            let rejected = rejected(&shadow.source);
            Ok(format!("{}{rejected}", in_brief(shadow)))
        }
    };
    finding(format!("shadow {}", shadow.source.name), result)
}

/// A change of the map that the daemon would hold.
pub(super) fn check_held(held: &HeldChange) -> Finding {
    let rest = match held.applied.is_empty() {
        true => String::new(),
        false => format!("; the rest would be applied: {}", held.applied),
    };
    let what = format!("the guard would hold {}: {}{rest}", held.counts, held.reason);
    finding("map", Err(what))
}

/// What the daemon would make of a server list, with the rows that it would leave out, and with
/// what changes of the list in force.
pub(super) fn check_backend(backend: &BackendStatus, change: Option<&ServersChange>) -> Finding {
    let servers = pluralize(backend.servers.as_ref().map_or(0, Vec::len), "server");
    let rows: Vec<_> = backend
        .rejected
        .iter()
        .take(NAMED)
        .map(|row| format!("{}: {}", row.place, row.reason))
        .collect();
    let more = backend.rejected_count.saturating_sub(rows.len() as u64);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let rejected = match rows.is_empty() {
        true => String::new(),
        false => format!("; rejected: {}{more}", rows.join("; ")),
    };
    let change = change.filter(|change| change.count() > 0).and_then(|change| {
        let before = change.servers_before?;
        Some(format!("{change}, of the {before} in force"))
    });
    let changes = change.as_ref().map_or(String::new(), |change| format!("; {change}"));
    let result = match (&backend.waiting_for, &backend.held) {
        (Some(waiting_for), _) if backend.servers.is_some() => {
            Err(format!("the {servers} last stored stay, waiting for {waiting_for}"))
        }
        (Some(waiting_for), _) => Err(format!("its servers are not known without {waiting_for}")),
        (None, Some(held)) => {
            let what = change.map_or(String::new(), |change| format!(" ({change})"));
            Err(format!("the guard would hold its list back{what}: {}{rejected}", held.reason))
        }
        _ if !rows.is_empty() => Err(format!("{servers} from {}{rejected}{changes}", backend.from)),
        (None, None) => Ok(format!("{servers} from {}{changes}", backend.from)),
    };
    finding(format!("backend {}", backend.name), result)
}
