//! `mapsmith sync`: one round of the daemon's work.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::bail;
use futures_util::future::join_all;
use haproxy_runtime::MapName;
use jiff::Timestamp;
use mapsmith_core::desired::hold::Hold;
use mapsmith_core::desired::references::{Action, Actions};
use mapsmith_core::revision::RevisionSummary;
use mapsmith_core::status::InstanceStatus;
use mapsmith_core::{Desired, HeldChange, Overrides, RejectedRows, SourceState};
use serde::Serialize;

use super::local::{errors, poll_map, stored, targets};
use super::output::{Colour, paint, pluralize, steps};
use super::status::{held_text, rejected_text};
use super::{FAILED, HELD, OutputFormat, SUCCESS, print};
use crate::engine::map::MapDecider;
use crate::engine::rows;
use crate::instance::Instance;
use crate::settings::Settings;
use crate::source::Registries;
use crate::store::map_file::MapFileWriter;
use crate::store::{OwnerStore, SqliteStore, Stored};

/// How often an instance is tried: a commit overtaken by another writer is worth a second try.
const TRIES: usize = 3;

#[derive(Debug, Serialize)]
struct SyncReport {
    revision: Option<u64>,
    change: Option<RevisionSummary>,
    held: Option<HeldChange>,
    /// What a rollback leaves: of what the sources say nothing is applied by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
    errors: Vec<String>,
    rejected: RejectedRows,
    instances: Vec<InstanceStatus>,
}

pub(super) async fn sync(
    settings: Settings,
    format: OutputFormat,
    approve: Option<String>,
) -> anyhow::Result<u8> {
    check_keeps_map(&settings)?;
    // What becomes of an owner must outlive this run, in a store that is nobody else's meanwhile.
    let store: Option<Arc<dyn OwnerStore>> = match &settings.store {
        Some(store) if settings.ownership.remember => {
            Some(Arc::new(SqliteStore::open(&store.path).await?))
        }
        _ => None,
    };
    let Stored { overrides, owners, hold, rollouts, .. } = stored(&settings).await?;
    let stored = Arc::new(overrides);
    let overrides = Arc::new(stored.at(Timestamp::now()));
    let map = MapName::new(&settings.map.path.to_string_lossy());
    let mut screens = Vec::new();
    let mut tasks: Vec<_> = settings
        .instances
        .iter()
        .map(|instance| {
            let (screen, rows) = rows::channel(&instance.name);
            screens.push(screen);
            Instance::new(instance, &map, &settings.schedule, None, None).with_rows(rows)
        })
        .collect();
    let map_file = MapFileWriter::new(settings.map.file()).with_site(settings.site.name.as_deref());
    let actions = Actions { not_ready: Action::Keep, ..settings.references_in_force() };
    let mut decider = MapDecider::start(settings.guard.clone(), map_file, stored)
        .await?
        .for_one_round()
        .with_actions(actions)
        .with_remove_after(settings.map.remove_after)
        .with_screens(screens)
        .with_ownership(settings.ownership.policy(), owners, store)
        .with_source_hold(hold, rollouts, None)
        .await;
    let nothing = Desired::default();
    let looks = join_all(tasks.iter_mut().map(|task| task.cycle(&nothing)));
    let registries = Registries::new(&settings);
    let polls = poll_map(&settings, &registries);
    let (states, targets, _) = tokio::join!(polls, targets(&settings), looks);
    decider.see(targets);
    let mut errors = errors(&states);
    tokio::select! {
        refused = decide(&mut decider, &states, overrides, approve) => errors.extend(refused),
        _ = join_all(tasks.iter_mut().map(Instance::answer_questions)) => {}
    }
    let decision = decider.decision().clone();
    errors.extend(decision.file.as_ref().and_then(|file| file.error.clone()));
    if let Some(writer) = &decision.read_only {
        errors.push(format!(
            "the map file is another Mapsmith's ({writer}): use `mapsmith reload` \
                or `approve`, or stop it first"
        ));
    }
    let mut report = SyncReport {
        revision: decision.in_force.as_ref().map(|revision| revision.number),
        change: decision.log.last().cloned(),
        held: decision.held,
        hold: decision.hold.state.hold,
        rejected: (*decision.rejected).clone(),
        errors,
        instances: Vec::new(),
    };
    if let Some(map) = decider.desired() {
        let canary = decider.desired_canary();
        let desired = Desired { generation: 1, map: Some(map), canary, ..Desired::default() };
        report.instances = join_all(tasks.into_iter().map(|task| apply(task, &desired))).await;
    }
    print(format, &report, text)?;
    Ok(report.exit_code())
}

/// Decides on the map, and lets the held change of this id through; why it can't, where it can't.
async fn decide(
    decider: &mut MapDecider,
    states: &[SourceState],
    overrides: Arc<Overrides>,
    approve: Option<String>,
) -> Option<String> {
    decider.decide(states, Arc::clone(&overrides)).await;
    let id = approve?;
    match decider.approve(&id) {
        Ok(_) => {
            decider.decide(states, overrides).await;
            None
        }
        // What the guard lets through by itself is in the map file already: the instances must
        // have it too.
        Err(error) => Some(format!("--approve {id}: {error}")),
    }
}

fn check_keeps_map(settings: &Settings) -> anyhow::Result<()> {
    if !settings.keeps_map() {
        bail!(
            "there is no map to sync: no [[source]] is one of the node map; `mapsmith run` keeps \
                HAProxy's configuration and servers"
        );
    }
    Ok(())
}

/// Brings one instance to the desired map.
async fn apply(mut instance: Instance, desired: &Desired) -> InstanceStatus {
    for _ in 0..TRIES {
        if instance.cycle(desired).await {
            break;
        }
    }
    instance.report().status.clone()
}

impl SyncReport {
    fn exit_code(&self) -> u8 {
        let in_sync = |instance: &InstanceStatus| instance.state.is_in_sync();
        let applied = !self.instances.is_empty() && self.instances.iter().all(in_sync);
        match () {
            () if self.held.is_some() => HELD,
            () if self.errors.is_empty() && applied => SUCCESS,
            () => FAILED,
        }
    }
}

fn text(report: &SyncReport) -> String {
    let mut text = String::new();
    match (&report.change, report.revision) {
        (Some(change), _) => {
            let _ = writeln!(
                text,
                "revision {}: {}, {}",
                change.number,
                change.counts,
                pluralize(change.entries, "entry")
            );
        }
        (None, Some(revision)) if report.instances.is_empty() => {
            let _ = writeln!(
                text,
                "revision {revision} stays in the map file; no instance was touched"
            );
        }
        (None, Some(revision)) => {
            let _ = writeln!(text, "revision {revision}: nothing changed");
        }
        (None, None) => text.push_str("there is no map yet; no instance was touched\n"),
    }
    for error in &report.errors {
        let _ = writeln!(text, "{}", paint(Colour::Red, error));
    }
    text.push_str(&rejected_text(&report.rejected));
    for instance in &report.instances {
        let good = instance.state.is_in_sync();
        let state =
            paint(if good { Colour::Green } else { Colour::Red }, &instance.state.to_string());
        let apply = instance.last_apply.as_ref().map_or("already in memory".to_owned(), |apply| {
            format!("{} by {} ({})", apply.counts, apply.strategy.label(), steps(&apply.steps))
        });
        let _ = writeln!(
            text,
            "instance {}: {state}{}",
            instance.name,
            if good { format!("; {apply}") } else { String::new() }
        );
    }
    if let Some(hold) = &report.hold {
        let of = hold.of;
        let note = format!("the sources are held back since the rollback to revision {of}");
        let _ = writeln!(text, "{} (`mapsmith resume`)", paint(Colour::Yellow, &note));
    }
    if let Some(held) = &report.held {
        text.push_str(&held_text(held).replace("mapsmith approve", "mapsmith sync --approve"));
    }
    text
}
