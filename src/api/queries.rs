//! What is only read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::gone::GoneNode;
use mapsmith_core::desired::ownership::Phase;
use mapsmith_core::status::NAMED_NODES;
use mapsmith_core::{DrainedMaster, HeldChange, Overrides};
use metrics::gauge;

use super::rollback::hold_report;
use super::types::{
    GoneNodeReport, GoneReport, LearnedReport, MasterLoad, NodeOverride, OverrideKind, OwnerLoad,
    OwnershipReport, Readiness, ReferencesReport, StatusReport,
};
use super::{Api, DECIDER, Error};
use crate::engine::map::OwnersDecision;
use crate::instance::InstanceReport;
use crate::settings::Backend;
use crate::source::poller::{Use, labels_of};
use crate::store::OverrideService;
use crate::telemetry::{self, SOURCE_ANSWER_AGE, SOURCE_ENTRIES, TASK_HEARTBEAT_AGE};

/// How long the task that decides may give no sign of life before the process counts as ill: many
/// times its longest work.
const DECIDES_WITHIN: Duration = Duration::from_secs(60);

impl Api {
    /// Everything at once.
    pub fn status(&self) -> StatusReport {
        let mut whole = self.decision.borrow().clone();
        for backend in &mut whole.backends {
            backend.from = self.list_of(&backend.name, &backend.from);
        }
        let held = whole.held().cloned().chain(self.held_services()).collect();
        let decision = whole.map;
        let load = |entries: &mapsmith_core::EntryMap| -> Vec<MasterLoad> {
            entries
                .load()
                .into_iter()
                .map(|(master, nodes)| MasterLoad { master: master.to_owned(), nodes })
                .collect()
        };
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            site: self.settings.site.name.clone(),
            attention: Some(self.attention_now()),
            revision: decision.in_force.as_ref().map(|revision| revision.number),
            entries: decision.in_force.as_ref().map_or(0, |revision| revision.entries.len()),
            masters: decision
                .in_force
                .as_ref()
                .map(|revision| load(&revision.entries))
                .unwrap_or_default(),
            last_change: decision.log.last().cloned(),
            held,
            waiting_for: decision.waiting_for,
            rejected_change: decision.hold.state.rejected.clone(),
            hold: hold_report(decision.hold),
            rollout: self.open_rollout(),
            read_only: decision.read_only,
            pins: decision.overrides.pins().len(),
            blocked: decision.overrides.blocked().len(),
            drained: decision.overrides.drained().cloned().collect(),
            stuck: decision.stuck,
            flapping: decision.flapping,
            conflicts: decision.conflicts,
            gone: GoneReport {
                count: decision.gone.len(),
                nodes: decision
                    .gone
                    .iter()
                    .take(NAMED_NODES)
                    .map(|(node, gone)| self.gone_node(node, gone))
                    .collect(),
            },
            ownership: self.settings.ownership.remember.then(|| ownership(&decision.owners)),
            references: ReferencesReport {
                dangling: (*decision.dangling).clone(),
                unknown_are: self.settings.references_in_force().unknown,
                not_ready_are: self.settings.references.not_ready,
            },
            rejected: (*decision.rejected).clone(),
            map_file: decision.file,
            sources: self.source_statuses().into_iter().map(|(status, _)| status).collect(),
            shadows: self.shadows.statuses(),
            servers_number: self.desired.borrow().servers.as_ref().map(|desired| desired.number),
            backends: whole.backends,
            versions: self.versions_in_force(),
            tls_files: self.tls_files.iter().map(|file| file.borrow().status.clone()).collect(),
            certificates: self.certificates(),
            haproxy: self.haproxy.as_ref().map(|haproxy| haproxy.borrow().status.clone()),
            services: self.services.as_ref().map(|services| services.status.borrow().clone()),
            api: self.access.report(),
            instances: self.instance_reports().into_iter().map(|report| report.status).collect(),
        }
    }

    /// The number of the map in force.
    pub fn revision_in_force(&self) -> Option<u64> {
        self.decision.borrow().map.in_force.as_ref().map(|revision| revision.number)
    }

    /// A node that no source names any more, with the time until which it stays.
    pub(super) fn gone_node(&self, node: &str, gone: &GoneNode) -> GoneNodeReport {
        let stays = self.settings.map.remove_after.unwrap_or_default();
        GoneNodeReport {
            node: node.to_owned(),
            master: gone.master.clone(),
            since: gone.since,
            until: gone.since.saturating_add(stays).unwrap_or(Timestamp::MAX),
        }
    }

    /// The changes that the guard holds back, the map's first and the services' last.
    pub fn held(&self) -> Vec<HeldChange> {
        self.decision.borrow().held().cloned().chain(self.held_services()).collect()
    }

    /// Which task stands still, if one does without which nothing is decided.
    pub fn stands_still(&self) -> Option<String> {
        let ages = self.heartbeats.ages();
        let (task, age) =
            ages.iter().find(|(task, age)| task == DECIDER && *age > DECIDES_WITHIN)?;
        Some(format!("the task {task:?} has not moved for {} s; restart Mapsmith", age.as_secs()))
    }

    /// Whether a desired map exists and at least one instance holds it.
    pub fn readiness(&self) -> Readiness {
        let decision = &self.decision.borrow().map;
        let mut missing: Vec<String> = decision
            .waiting_for
            .iter()
            .map(|name| format!("source {name} has not answered since the start"))
            .collect();
        match &decision.read_only {
            Some(_) => missing.push(
                "another Mapsmith writes the map file, so this one changes nothing".to_owned(),
            ),
            None if !decision.active && missing.is_empty() => {
                missing.push("there is no desired map yet".to_owned())
            }
            None => {}
        }
        let file = decision.file.as_ref().and_then(|file| file.error.as_ref());
        missing.extend(
            file.map(|_| {
                "the map file can't be written, so no change can come into force".to_owned()
            }),
        );
        let reports = self.instance_reports();
        let in_sync = |report: &&InstanceReport| report.status.state.is_in_sync();
        let ready =
            decision.active && file.is_none() && reports.iter().any(|report| in_sync(&report));
        let behind = reports.iter().filter(|report| !in_sync(report));
        // Whoever asks need not have shown a token, so no path and no error: those are in
        // `/v1/status`.
        missing.extend(behind.map(|report| {
            format!("instance {}: {}", report.status.name, report.status.state.in_brief())
        }));
        Readiness { ready, missing }
    }

    /// The learned routes of each instance whose stick table was read; none without `[learned]`.
    pub fn learned(&self) -> Vec<LearnedReport> {
        let report = |report: InstanceReport| {
            let status = report.status.learned?;
            Some(LearnedReport {
                instance: report.status.name,
                status,
                routes: report.learned.to_vec(),
            })
        };
        self.instance_reports().into_iter().filter_map(report).collect()
    }

    /// The overrides in force.
    ///
    /// # Errors
    /// [`Error::NoStore`].
    pub fn overrides(&self) -> Result<Arc<Overrides>, Error> {
        self.overrides.as_ref().map(OverrideService::latest).ok_or(Error::NoStore("overrides"))
    }

    /// What was ordered for a node. `node` is a valid key.
    ///
    /// # Errors
    /// [`Error::NoStore`], or [`Error::NoOverride`] where nothing was.
    pub fn node_override(&self, node: &str) -> Result<NodeOverride, Error> {
        let node = self.as_in_map(node);
        override_of(&*self.overrides()?, &node)
            .ok_or_else(|| Error::NoOverride(format!("node {node} has no pin")))
    }

    /// The drain of a master.
    ///
    /// # Errors
    /// [`Error::NoStore`], or [`Error::NoOverride`] where it has none.
    pub fn drain_of(&self, master: &str) -> Result<DrainedMaster, Error> {
        let found = self.overrides()?.drain(master).cloned();
        found.ok_or_else(|| Error::NoOverride(format!("master {master} is not drained")))
    }

    /// Which override a node has; a pin where it has none. `node` is a valid key.
    ///
    /// # Errors
    /// [`Error::NoStore`].
    pub fn override_kind(&self, node: &str) -> Result<OverrideKind, Error> {
        let blocked = self.overrides()?.block(&self.as_in_map(node)).is_some();
        Ok(if blocked { OverrideKind::Absent } else { OverrideKind::Pin })
    }

    /// The metrics in Prometheus's text format.
    pub fn metrics(&self) -> String {
        // An age grows by itself, so it is taken when it is asked for.
        let present = self.present();
        let shadows = self.shadows.statuses().into_iter().map(|shadow| shadow.source);
        let applied = self.source_statuses().into_iter().map(|(status, _)| status);
        let services = self.services.iter().map(|services| services.status.borrow().source.clone());
        for status in applied.chain(shadows).chain(services) {
            if let Some(at) = status.answered_at {
                let age = Timestamp::now().duration_since(at).as_secs_f64().max(0.0);
                let use_of_it = match present.shadows.contains(&status.name) {
                    true => Use::Compared,
                    false => Use::Applied,
                };
                let labels = labels_of(status.name, use_of_it);
                gauge!(SOURCE_ANSWER_AGE, labels.clone()).set(age);
                gauge!(SOURCE_ENTRIES, labels).set(status.entries.unwrap_or_default() as f64);
            }
        }
        for (task, age) in self.heartbeats.ages() {
            gauge!(TASK_HEARTBEAT_AGE, "task" => task).set(age.as_secs_f64());
        }
        telemetry::of_present(&self.metrics.render(), &present)
    }

    /// What there are metrics of. Settings that were read again may have other parts than before,
    /// and old workers come and go.
    fn present(&self) -> telemetry::Present<'static> {
        let settings = &*self.settings;
        let of_map: Vec<_> = settings.shadow_sources().map(|source| source.name.clone()).collect();
        let of_lists = settings.shadow_lists().into_iter().map(|(_, list)| list.to_string());
        let with_backend = |backend: &Backend| {
            Some((backend.shadow_from.as_ref()?.to_string(), Some(backend.name.clone())))
        };
        let compared = settings.backends.iter().filter_map(with_backend);
        telemetry::Present {
            compared: compared.chain(of_map.iter().map(|name| (name.clone(), None))).collect(),
            shadows: of_map.into_iter().chain(of_lists).collect(),
            parts: self.parts(),
        }
    }

    fn parts(&self) -> telemetry::Parts<'static> {
        let settings = &*self.settings;
        let sources = settings.map_sources().map(|source| source.name.clone());
        let lists = settings.server_lists().into_iter().chain(settings.shadow_lists());
        let lists = lists.map(|(_, list)| list.to_string());
        let shadows = settings.shadow_sources().map(|source| source.name.clone());
        let services = settings.services_source().map(|(_, from)| from.to_string());
        let instances = settings.instances.iter().map(|instance| instance.name.clone());
        let files = settings.tls_files.iter().map(|file| file.path.display().to_string());
        let certificates = settings.certificates.iter().filter(|it| it.is_obtained());
        let certificates = certificates.map(|certificate| certificate.name.to_string());
        let tasks = self.heartbeats.ages().into_iter().map(|(task, _)| task);
        telemetry::Parts::from([
            ("source", sources.chain(lists).chain(shadows).chain(services).collect()),
            ("haproxy", instances.chain([telemetry::MAP_FILE.to_owned()]).collect()),
            ("backend", settings.backends.iter().map(|backend| backend.name.clone()).collect()),
            ("file", files.collect()),
            ("certificate", certificates.collect()),
            ("task", tasks.collect()),
        ])
    }
}

/// A node's override, if it has one.
pub(super) fn override_of(overrides: &Overrides, node: &str) -> Option<NodeOverride> {
    let pin = overrides.pin(node).cloned().map(NodeOverride::Pin);
    let blocked = || overrides.block(node).cloned();
    pin.or_else(|| blocked().map(|blocked| NodeOverride::Absent { absent: true, blocked }))
}

fn ownership(owners: &OwnersDecision) -> OwnershipReport {
    let mut loads: BTreeMap<&str, OwnerLoad> = BTreeMap::new();
    for owned in owners.nodes.values() {
        let owner = owned.record.owner.as_str();
        let load = loads
            .entry(owner)
            .or_insert_with(|| OwnerLoad { owner: owner.to_owned(), ..OwnerLoad::default() });
        match owned.phase {
            Phase::Away => load.away += 1,
            Phase::Returning { .. } => load.returning += 1,
            Phase::Leaving { .. } => load.leaving += 1,
        }
    }
    OwnershipReport { owners: loads.into_values().collect(), error: owners.error.clone() }
}
