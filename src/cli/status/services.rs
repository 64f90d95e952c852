//! The services of a registry.

use std::fmt::Write as _;

use mapsmith_core::services::{ListenerStatus, RejectedService, ServiceStatus, ServicesStatus};

use crate::cli::output::{Colour, ago, paint, pluralize};

/// The most services in force that are shown.
const SHOWN: usize = 20;

pub(super) fn text(services: &ServicesStatus) -> String {
    let ServicesStatus { source, in_force, listeners, stored_since, rejected, held, kept, closed } =
        services;
    let count = match in_force {
        Some(in_force) => pluralize(in_force.len(), "service"),
        None => paint(Colour::Red, "not known yet, so HAProxy's file stays as it is"),
    };
    let mut text = format!("\nservices ({})\n  {count}", source.name);
    match stored_since {
        Some(since) => {
            let note =
                format!(", of the store (stored {}): no answer since the start", ago(*since));
            let _ = writeln!(text, "{}", paint(Colour::Yellow, &note));
        }
        None => text.push('\n'),
    }
    if let Some(error) = &source.error {
        let _ = writeln!(text, "  {}", paint(Colour::Red, error));
    }
    if *closed {
        let note = "every listener is closed by order: loadbalancer is false";
        let _ = writeln!(text, "  {}", paint(Colour::Yellow, note));
    }
    if let Some(why) = kept {
        let note = match in_force {
            Some(_) => format!("what is in force stays: {why}"),
            None => why.clone(),
        };
        let _ = writeln!(text, "  {}", paint(Colour::Yellow, &note));
    }
    if let Some(held) = held {
        let note = match held.entries_in_force {
            0 => format!("the registry has no service yet: {}", held.id),
            _ => format!("services that are gone from the registry stay: {}", held.id),
        };
        let _ = writeln!(text, "  {}", paint(Colour::Yellow, &note));
    }
    let in_force = in_force.as_deref().unwrap_or_default();
    for ServiceStatus { name, kind, bind, servers } in in_force.iter().take(SHOWN) {
        let kind = kind.as_ref().map_or(String::new(), |kind| format!("{kind}, "));
        let _ = writeln!(text, "  {name}  {bind}, {kind}servers from {servers}");
    }
    if in_force.len() > SHOWN {
        let _ = writeln!(text, "  and {} more", in_force.len() - SHOWN);
    }
    for ListenerStatus { key, bind, purpose } in listeners {
        let _ = writeln!(text, "  {key}  {bind}, {purpose}");
    }
    for RejectedService { name, reason, by_haproxy, keeps_last_good } in rejected {
        let kind = if *by_haproxy { "quarantined" } else { "rejected" };
        let kept = if *keeps_last_good { ", its last good form stays" } else { "" };
        let note = format!("{name} {kind}{kept}: {reason}");
        let _ = writeln!(text, "  {}", paint(Colour::Red, &note));
    }
    text
}

/// Whether they are as their registry has them.
pub(super) fn are_well(services: &ServicesStatus) -> bool {
    let ServicesStatus { source, in_force, rejected, kept, .. } = services;
    source.error.is_none() && rejected.is_empty() && in_force.is_some() && kept.is_none()
}
