//! What needs a person, of all that the tasks say right now.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use mapsmith_core::attention::{self, ApiFiles, Attention, HoldStatus};
use mapsmith_core::desired::references::Dangling;
use mapsmith_core::objects::{ObjectKey, ObjectKind};
use mapsmith_core::overrides::ServerOverride;
use mapsmith_core::status::BackendStatus;
use mapsmith_core::{Overrides, Pin};

use super::Api;
use super::types::AttentionReport;
use crate::store::SqliteStore;

impl Api {
    /// What needs a person, worst first.
    pub fn attention(&self) -> AttentionReport {
        AttentionReport { as_of: Timestamp::now(), attention: self.attention_now() }
    }

    pub(crate) fn attention_now(&self) -> Attention {
        attention::attention(&self.attention_status(), Timestamp::now())
    }

    /// Servers with an override whose backend nobody declares, once the overrides of this number,
    /// which these backends go by, are the latest.
    fn left_over(&self, ordered: u64, backends: &[BackendStatus]) -> BTreeMap<String, Vec<String>> {
        let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let Some(service) = &self.overrides else { return left };
        let latest = service.latest();
        if ordered < latest.number() {
            return left;
        }
        let known: BTreeSet<&str> = backends.iter().map(|status| status.name.as_str()).collect();
        for ServerOverride { backend, server, .. } in latest.servers() {
            let is_stored = || self.object_number(&ObjectKey::new(ObjectKind::Backend, backend));
            if !known.contains(backend.as_str()) && is_stored().is_none() {
                left.entry(backend.clone()).or_default().push(server.clone());
            }
        }
        left
    }

    pub(crate) fn attention_status(&self) -> attention::Status {
        // Not the whole status: to count the nodes of each master takes its time.
        let decision = self.decision.borrow().clone();
        let held = decision.held().cloned().chain(self.held_services()).collect();
        let map = decision.map;
        let switches = self.versions_in_force().into_iter().map(|it| (it.version, it.waits_for));
        let switches = switches.collect();
        let owners = map.owners.error.map(|error| ("the owners of nodes", error));
        let lost = self.store.as_ref().and_then(SqliteStore::loss);
        let lost = lost.map(|error| ("what is ordered", error.to_string()));
        let history = map.history.error.map(|error| ("the revision in force", error));
        let hold_error = map.hold.error.map(|error| ("rollbacks and rollouts", error));
        let api = self.access.report().unwrap_or_default();
        let tls = api.tls.unwrap_or_default();
        let rejected_change = map.hold.state.rejected_change().cloned();
        attention::Status {
            started_at: self.started_at,
            map_decided: map.waiting_for.is_empty() && map.answered_at.is_some(),
            waiting_for: map.waiting_for,
            read_only: map.read_only,
            held,
            hold: map.hold.state.hold.map(|hold| HoldStatus { hold, waiting: map.hold.waiting }),
            rejected_change,
            rollout: map.rollout.rollouts.first().cloned(),
            stuck: map.stuck,
            flapping: map.flapping,
            conflicts: map.conflicts,
            pinned: pinned_to(&map.dangling, &map.overrides),
            dangling: (*map.dangling).clone(),
            refused_rows: (
                map.rejected.count,
                map.rejected.named.first().map(|row| row.to_string()),
            ),
            map_file: map.file,
            store_errors: [lost, owners, history, hold_error].into_iter().flatten().collect(),
            sources: self.source_statuses().into_iter().map(|(status, _)| status).collect(),
            left_over: self.left_over(decision.ordered, &decision.backends),
            backends: decision.backends,
            switches,
            tls_files: self.tls_files.iter().map(|file| file.borrow().status.clone()).collect(),
            certificates: self.certificates(),
            haproxy: self.haproxy.as_ref().map(|haproxy| haproxy.borrow().status.clone()),
            services: self.services.as_ref().map(|services| services.status.borrow().clone()),
            set_aside: self.set_aside(),
            waiting_frontends: self.waiting_frontends(),
            api: ApiFiles {
                token_file_error: api.token_file_error,
                tls_error: tls.error,
                tls_not_after: tls.not_after,
                crl_until: tls.crl_until,
            },
            own_instance: self
                .settings
                .own_instance()
                .and_then(|own| Some(self.settings.instances.get(own)?.name.clone())),
            instances: self.instance_reports().into_iter().map(|report| report.status).collect(),
            notify: self.notify.borrow().clone(),
        }
    }
}

/// The nodes that are pinned to masters that point nowhere.
fn pinned_to(dangling: &Dangling, overrides: &Overrides) -> BTreeMap<String, Vec<String>> {
    let mut pinned: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Pin { node, master, .. } in overrides.pins() {
        if dangling.unknown.contains_key(master) || dangling.not_ready.contains_key(master) {
            pinned.entry(master.clone()).or_default().push(node.clone());
        }
    }
    pinned
}
