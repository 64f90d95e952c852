//! `mapsmith plan`: what a sync would change, changing nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::anyhow;
use futures_util::future::join_all;
use haproxy_runtime::{HaproxyVersion, MapName};
use mapsmith_core::EntryMap;
use mapsmith_core::desired::hold::Hold;
use mapsmith_core::desired::references::{Action, Actions};
use mapsmith_core::desired::rollout::Rollout;
use mapsmith_core::desired::shadow::ShadowStatus;
use mapsmith_core::plan::map::MapFacts;
use mapsmith_core::plan::{CostModel, Diff, MapPlan, plan_map};
use mapsmith_core::revision::{ChangeCounts, RouteChange};
use serde::Serialize;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::local::{errors, members, poll_all, shadows, stored, targets};
use super::output::{Colour, paint, pluralize, table};
use super::render::desired_with;
use super::{CHANGES, FAILED, HELD, OutputFormat, SUCCESS, print};
use crate::engine::preview::{self, ServersChange};
use crate::instance::apply;
use crate::settings::{self, Settings};
use crate::store::map_file::MapFileWriter;

mod configuration;
mod servers;

use configuration::ConfigurationPlan;

/// How many changed nodes are printed unless all are asked for.
const SHOWN: usize = 20;

#[derive(Debug, Serialize)]
struct PlanReport {
    entries_before: usize,
    entries_after: usize,
    #[serde(flatten)]
    counts: ChangeCounts,
    changes: Vec<RouteChange>,
    masters: Vec<Load>,
    /// Why the guard would hold a change back, or a part of one.
    held: Option<String>,
    /// What it would hold.
    held_counts: Option<ChangeCounts>,
    /// What would be applied all the same.
    applied_counts: Option<ChangeCounts>,
    /// What a rollback leaves: of what the sources say nothing is applied by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
    /// What is tried in some instances first: the map is what all others have.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<Rollout>,
    errors: Vec<String>,
    instances: Vec<InstancePlan>,
    /// The server lists that change, by the store.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backends: Vec<ServersChange>,
    /// What is compared and never applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shadows: Vec<ShadowStatus>,
    /// Of HAProxy's configuration; none where that is somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<ConfigurationPlan>,
}

#[derive(Debug, Serialize)]
struct Load {
    master: String,
    before: usize,
    after: usize,
}

#[derive(Debug, Serialize)]
struct InstancePlan {
    name: String,
    /// In sync, or how it would be brought there.
    plan: String,
    in_sync: bool,
    error: Option<String>,
}

pub(super) async fn plan(
    settings: Settings,
    format: OutputFormat,
    all: bool,
) -> anyhow::Result<u8> {
    let (states, lists) = poll_all(&settings).await;
    let mut errors = errors(&states);
    let unanswered = || {
        anyhow!(
            "there is nothing to plan with, because a required source gave no answer:\n  {}",
            errors.join("\n  ")
        )
    };
    if states.iter().any(|state| state.status.required && state.snapshot.is_none()) {
        return Err(unanswered());
    }
    let found = MapFileWriter::new(settings.map.file()).peek()?;
    let mut stored = stored(&settings).await?;
    let in_force = std::mem::take(&mut stored.lists);
    let preview = preview::map(
        &settings,
        // What is not ready at this moment is the daemon's to watch.
        Actions { not_ready: Action::Keep, ..settings.references_in_force() },
        found,
        targets(&settings).await,
        &states,
        stored,
    )
    // It decides in earnest and does nothing: what it would log has not happened.
    .with_subscriber(NoSubscriber::new())
    .await;
    if !preview.waiting_for.is_empty() {
        return Err(unanswered());
    }
    // It logs no more than that on the map.
    let members = members(&settings).await?;
    let servers = preview::servers(&settings, &lists, &preview, &in_force, members)
        .with_subscriber(NoSubscriber::new())
        .await;
    let shadows = shadows(&settings, &states, &lists, &servers.statuses).await;
    let desired = desired_with(&settings, &servers.desired);
    let configuration = configuration::plan(&settings, desired).await?;
    errors.extend(self::errors(&lists));
    let (has_file, before) = (preview.before.is_some(), preview.before.unwrap_or_default());
    let after = preview.map;
    let diff = Diff::between(&before, &after);
    let map = MapName::new(&settings.map.path.to_string_lossy());
    let instances = plan_instances(&settings, configuration.as_ref(), &map, &after).await;
    let shown = if all || format == OutputFormat::Json { usize::MAX } else { SHOWN };
    let report = PlanReport {
        entries_before: before.len(),
        entries_after: after.len(),
        counts: diff.counts(),
        changes: diff.changes(&before, &after).take(shown).collect(),
        masters: loads(&before, &after),
        held_counts: preview.held.as_ref().map(|held| held.counts),
        applied_counts: preview.held.as_ref().map(|held| held.applied),
        held: preview.held.map(|held| held.reason),
        hold: preview.hold,
        rollout: preview.rollout,
        errors,
        instances,
        backends: servers.changes,
        shadows,
        configuration,
    };
    print(format, &report, |report| text(report, &settings, all))?;
    Ok(report.exit_code(settings.keeps_map() && !has_file))
}

impl PlanReport {
    fn exit_code(&self, lacks_file: bool) -> u8 {
        let configuration = self.configuration.as_ref();
        let to_do = !self.counts.is_empty()
            || lacks_file
            || configuration.is_some_and(ConfigurationPlan::has_changes)
            || self.backends.iter().any(|change| change.count() > 0)
            || self.instances.iter().any(|instance| !instance.in_sync);
        let failed = !self.errors.is_empty()
            || configuration.is_some_and(ConfigurationPlan::failed)
            || self.instances.iter().any(|instance| instance.error.is_some());
        match () {
            () if self.held.is_some() || self.backends.iter().any(servers::is_held) => HELD,
            () if failed => FAILED,
            () if to_do => CHANGES,
            () => SUCCESS,
        }
    }
}

/// What each instance lacks of the map. A HAProxy that is yet to be started has nothing that could
/// be compared.
async fn plan_instances(
    settings: &Settings,
    configuration: Option<&ConfigurationPlan>,
    map: &MapName,
    wanted: &EntryMap,
) -> Vec<InstancePlan> {
    let starts = configuration.is_some_and(ConfigurationPlan::starts);
    let unborn = settings.own_instance().filter(|_| starts);
    let instances = settings.instances.iter().enumerate();
    let asked = instances.filter(|(index, _)| settings.keeps_map() && unborn != Some(*index));
    join_all(asked.map(|(_, instance)| plan_instance(instance, map, wanted))).await
}

fn loads(before: &EntryMap, after: &EntryMap) -> Vec<Load> {
    let mut loads: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (master, nodes) in before.load() {
        loads.entry(master).or_default().0 = nodes;
    }
    for (master, nodes) in after.load() {
        loads.entry(master).or_default().1 = nodes;
    }
    loads
        .into_iter()
        .map(|(master, (before, after))| Load { master: master.to_owned(), before, after })
        .collect()
}

async fn plan_instance(
    instance: &settings::Instance,
    map: &MapName,
    wanted: &EntryMap,
) -> InstancePlan {
    let client = instance.map_client(map);
    let observed = async {
        let probe = client.probe().await?;
        let (deviation, entries) = apply::read_back(&client, None, usize::MAX, wanted).await?;
        anyhow::Ok((probe, deviation, entries))
    };
    let (plan, in_sync, error) = match observed.await {
        Err(error) => (String::new(), false, Some(error.to_string())),
        Ok((probe, deviation, entries)) => {
            let counted = probe
                .map
                .and_then(|counters| counters.count(entries))
                .map_or(0, |counted| counted as usize);
            let version =
                probe.process.version.parse().unwrap_or(HaproxyVersion { major: 2, minor: 6 });
            let memory = MapFacts {
                entries,
                staged_entries: counted.saturating_sub(entries),
                cost: CostModel::new(version),
            };
            let counts = deviation.counts();
            match plan_map(wanted, &deviation, &memory) {
                MapPlan::InSync => ("in sync".to_owned(), true, None),
                MapPlan::Edit { reason, .. } => {
                    (format!("{counts}, by single commands: {reason}"), false, None)
                }
                MapPlan::Swap { reason } => (format!("{counts}, by a swap: {reason}"), false, None),
            }
        }
    };
    InstancePlan { name: instance.name.clone(), plan, in_sync, error }
}

fn text(report: &PlanReport, settings: &Settings, all: bool) -> String {
    let mut text = String::new();
    if settings.keeps_map() {
        text.push_str(&map_text(report));
    }
    text.push_str(&servers::text(&report.backends, if all { usize::MAX } else { SHOWN }));
    if let (Some(plan), Some(haproxy)) = (&report.configuration, &settings.haproxy) {
        text.push_str(&configuration::text(plan, haproxy, all));
    }
    if !report.shadows.is_empty() {
        text.push_str("shadows (compared, never applied)\n");
        report
            .shadows
            .iter()
            .for_each(|shadow| text.push_str(&super::status::shadows::text(shadow)));
    }
    for error in &report.errors {
        let _ = writeln!(text, "{}", paint(Colour::Red, error));
    }
    let in_sync = report.instances.iter().all(|instance| instance.in_sync)
        && !report.configuration.as_ref().is_some_and(ConfigurationPlan::has_changes);
    let in_sync = in_sync && report.backends.is_empty();
    if in_sync && report.counts.total() == 0 && report.errors.is_empty() {
        text.push_str("nothing to do\n");
    }
    if let Some(hold) = &report.hold {
        let of = hold.of;
        let note = format!("the sources are held back since the rollback to revision {of}");
        let _ = writeln!(text, "{} (`mapsmith resume`)", paint(Colour::Yellow, &note));
    }
    if let Some(rollout) = &report.rollout {
        let (id, instances) = (&rollout.id, rollout.instances.join(", "));
        let note = format!("{id} is tried in {instances} first, and what the sources say waits");
        let _ = writeln!(text, "{} (`mapsmith rollout`)", paint(Colour::Yellow, &note));
    }
    if let Some(reason) = &report.held {
        let _ =
            writeln!(text, "{}: {reason}", paint(Colour::Red, "the guard would hold this back"));
    }
    if let (Some(held), Some(applied)) = (report.held_counts, report.applied_counts)
        && !applied.is_empty()
    {
        let _ = writeln!(text, "  held: {held}; the rest would be applied: {applied}");
    }
    text
}

/// Of the map, and of what each instance holds of it.
fn map_text(report: &PlanReport) -> String {
    let mut text = format!(
        "map: {} -> {}: {}\n",
        report.entries_before,
        pluralize(report.entries_after, "entry"),
        report.counts
    );
    let none = || "no route".to_owned();
    for change in &report.changes {
        let colour = match (&change.from, &change.to) {
            (None, _) => Colour::Green,
            (_, None) => Colour::Red,
            _ => Colour::Yellow,
        };
        let (from, to) =
            (change.from.clone().unwrap_or_else(none), change.to.clone().unwrap_or_else(none));
        let _ = writeln!(text, "  {}", paint(colour, &format!("{}: {from} -> {to}", change.node)));
    }
    let more = report.counts.total().saturating_sub(report.changes.len());
    if more > 0 {
        let _ = writeln!(text, "  and {more} more (--all prints them)");
    }
    text.push_str("masters\n");
    let mut rows = vec![vec!["master".to_owned(), "nodes before".to_owned(), "after".to_owned()]];
    rows.extend(
        report
            .masters
            .iter()
            .map(|load| vec![load.master.clone(), load.before.to_string(), load.after.to_string()]),
    );
    text.push_str(&table("  ", &rows));
    // A HAProxy that is yet to be started has no map that could be compared.
    if !report.instances.is_empty() {
        text.push_str("instances\n");
    }
    for instance in &report.instances {
        let outcome = match &instance.error {
            Some(error) => paint(Colour::Red, error),
            None => instance.plan.clone(),
        };
        let _ = writeln!(text, "  {}: {outcome}", instance.name);
    }
    text
}
