//! `mapsmith sync`: one round of the daemon's work.

use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::local::{errors, overrides, poll_all, targets};
use super::output::{Colour, paint, steps};
use super::status::held_text;
use super::{FAILED, Form, GOOD, HELD, print};
use crate::haproxy::MapName;
use crate::model::HeldChange;
use crate::model::revision::RevisionSummary;
use crate::model::status::{InstanceState, InstanceStatus};
use crate::reconcile::decide::Decider;
use crate::reconcile::instance::Instance;
use crate::reconcile::map_file::MapFileKeeper;
use crate::references::{Action, Actions};
use crate::settings::Settings;

/// How often an instance is tried: a commit overtaken by another writer is worth a second look.
const TRIES: usize = 3;

#[derive(Debug, Serialize)]
struct SyncReport {
    revision: Option<u64>,
    change: Option<RevisionSummary>,
    held: Option<HeldChange>,
    errors: Vec<String>,
    instances: Vec<InstanceStatus>,
}

pub(super) async fn sync(settings: Settings, form: Form, approve: Option<String>) -> anyhow::Result<u8> {
    let stored = Arc::new(overrides(&settings).await?);
    let overrides = Arc::new(stored.at(Timestamp::now()));
    let actions = Actions { not_ready: Action::Keep, ..settings.references_in_force() };
    let mut decider =
        Decider::start(settings.guard.clone(), MapFileKeeper::new(settings.map.file()), stored)?.with_actions(actions);
    let (states, targets) = tokio::join!(poll_all(&settings), targets(&settings));
    decider.see(targets);
    decider.decide(&states, Arc::clone(&overrides)).await;
    let mut errors = errors(&states);
    if let Some(id) = approve {
        match decider.approve(&id) {
            Ok(_) => decider.decide(&states, overrides).await,
            // What the guard lets through by itself is in the map file already: the instances must have it too.
            Err(error) => errors.push(format!("--approve {id}: {error}")),
        }
    }
    let decision = decider.decision().clone();
    errors.extend(decision.file.as_ref().and_then(|file| file.error.clone()));
    let mut report = SyncReport {
        revision: decision.in_force.as_ref().map(|revision| revision.number),
        change: decision.log.last().cloned(),
        held: decision.held,
        errors,
        instances: Vec::new(),
    };
    if let Some(wanted) = decider.wanted() {
        let map = MapName::new(&settings.map.path.to_string_lossy());
        let cycles = settings.instances.iter().map(|instance| {
            let mut task = Instance::new(instance, &map, &settings.schedule, None, None);
            let wanted = &wanted;
            async move {
                for _ in 0..TRIES {
                    if task.cycle(Some(wanted)).await {
                        break;
                    }
                }
                task.report().status.clone()
            }
        });
        report.instances = join_all(cycles).await;
    }
    print(form, &report, text)?;
    let in_step = report.instances.iter().all(|instance| matches!(instance.state, InstanceState::InStep { .. }));
    Ok(if report.held.is_some() {
        HELD
    } else if report.errors.is_empty() && in_step && !report.instances.is_empty() {
        GOOD
    } else {
        FAILED
    })
}

fn text(report: &SyncReport) -> String {
    let mut text = String::new();
    match (&report.change, report.revision) {
        (Some(change), _) => {
            let _ = writeln!(text, "revision {}: {}, {} entries", change.number, change.counts, change.entries);
        }
        (None, Some(revision)) if report.instances.is_empty() => {
            let _ = writeln!(text, "revision {revision} stays in the map file; no instance was touched");
        }
        (None, Some(revision)) => {
            let _ = writeln!(text, "revision {revision}: nothing changed");
        }
        (None, None) => text.push_str("there is no map yet; no instance was touched\n"),
    }
    for error in &report.errors {
        let _ = writeln!(text, "{}", paint(Colour::Red, error));
    }
    for instance in &report.instances {
        let good = matches!(instance.state, InstanceState::InStep { .. });
        let state = paint(if good { Colour::Green } else { Colour::Red }, &instance.state.to_string());
        let apply = instance.last_apply.as_ref().map_or("already in memory".to_owned(), |apply| {
            format!("{} by {} ({})", apply.counts, apply.strategy.label(), steps(&apply.steps))
        });
        let _ = writeln!(text, "instance {}: {state}{}", instance.name, if good { format!("; {apply}") } else { String::new() });
    }
    if let Some(held) = &report.held {
        text.push_str(&held_text(held).replace("mapsmith approve", "mapsmith sync --approve"));
    }
    text
}
