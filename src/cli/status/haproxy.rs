//! What `mapsmith status` says of the HAProxy whose configuration is rendered.

use std::fmt::Write as _;
use std::time::Duration;

use mapsmith_core::config::status::{
    ConfigState, HaproxyStatus, ProcessStatus, Quarantined, ReloadOutcome, WorkerStatus,
};
use mapsmith_core::render::verdict::Remark;

use crate::cli::output::{Colour, ago, paint, pluralize};

/// The most of HAProxy's remarks that are shown.
const REMARKS: usize = 8;

pub(super) fn text(haproxy: &HaproxyStatus) -> String {
    let colour = match haproxy.state {
        ConfigState::InForce => Colour::Green,
        ConfigState::Starting
        | ConfigState::Stopped
        | ConfigState::Waiting { .. }
        | ConfigState::ReloadDue { .. } => Colour::Yellow,
        ConfigState::Refused { .. } | ConfigState::Edited | ConfigState::Failed { .. } => {
            Colour::Red
        }
    };
    let how = if haproxy.managed { "managed" } else { "attached" };
    let state = paint(colour, &haproxy.state.to_string());
    let mut text = format!("\nhaproxy ({how})\n  configuration {}: {state}\n", haproxy.config);
    if let Some(refused) = &haproxy.refused {
        let _ = writeln!(text, "    refused {}, see {}", ago(refused.at), refused.file);
        text.push_str(&remarks(&refused.remarks));
    }
    for Quarantined { object, remarks: said } in &haproxy.quarantined {
        // Whether a service has a last good form is told with the services.
        let note = match object.starts_with("service ") {
            true => format!("{object} is quarantined: HAProxy refuses what its registry has"),
            false => format!("{object} keeps its last good form: HAProxy refuses the new one"),
        };
        let _ = writeln!(text, "    {}", paint(Colour::Yellow, &note));
        text.push_str(&remarks(said));
    }
    if let Some(kept) = &haproxy.edit_kept {
        let _ = writeln!(text, "    an external edit was overwritten; it is kept in {kept}");
    }
    if let Some(reload) = &haproxy.last_reload {
        let (colour, outcome) = match reload.outcome {
            ReloadOutcome::Loaded => (Colour::Green, "loaded"),
            ReloadOutcome::Refused => (Colour::Red, "refused"),
            ReloadOutcome::Died => (Colour::Red, "HAProxy ended at it"),
            ReloadOutcome::Unknown => (Colour::Yellow, "outcome unknown"),
        };
        let _ = writeln!(
            text,
            "  last reload {} ({}): {}, {:.0} ms; {} in all",
            ago(reload.at),
            reload.reason,
            paint(colour, outcome),
            reload.milliseconds,
            pluralize(usize::try_from(haproxy.reloads).unwrap_or(usize::MAX), "reload")
        );
        reload.said.lines().take(REMARKS).for_each(|line| {
            let _ = writeln!(text, "    {line}");
        });
    }
    match &haproxy.process {
        Some(process) => text.push_str(&process_text(process)),
        None => {
            let _ = writeln!(text, "  {}", paint(Colour::Red, "no process answers"));
        }
    }
    text
}

fn remarks(remarks: &[Remark]) -> String {
    let shown = remarks.iter().take(REMARKS).map(|remark| format!("      {remark}\n"));
    shown.collect()
}

fn process_text(process: &ProcessStatus) -> String {
    let master = process.master_pid.map(|pid| format!(", master {pid}")).unwrap_or_default();
    let mut text = format!("  HAProxy {}{master}\n", process.version);
    for WorkerStatus { pid, age_seconds, old, connections, in_sync } in &process.workers {
        let kind = if *old { "old worker" } else { "worker" };
        let age = humantime::format_duration(Duration::from_secs(*age_seconds));
        let connections = connections
            .map(|count| {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                format!(", {}", pluralize(count, "connection"))
            })
            .unwrap_or_default();
        let behind = match in_sync {
            Some(false) => paint(Colour::Yellow, ", not in sync yet"),
            Some(true) | None => String::new(),
        };
        let _ = writeln!(text, "    {kind} {pid}, {age}{connections}{behind}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_not_said_to_have_a_last_good_form() {
        let quarantined = |object: &str| Quarantined { object: object.to_owned(), remarks: vec![] };
        let status = HaproxyStatus {
            managed: true,
            config: "/run/haproxy.cfg".to_owned(),
            state: ConfigState::InForce,
            loaded: None,
            process: None,
            last_reload: None,
            reloads: 0,
            starts: 0,
            refused: None,
            quarantined: vec![quarantined("service web"), quarantined("backend app")],
            edit_kept: None,
        };
        let text = text(&status);
        assert!(text.contains("service web is quarantined: HAProxy refuses"), "{text}");
        assert!(text.contains("backend app keeps its last good form"), "{text}");
    }
}
