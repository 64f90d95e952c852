//! The task of services, and what changed ones are begun with.

use std::collections::BTreeMap;
use std::sync::Arc;

use mapsmith_core::server::LastGoodList;
use mapsmith_core::{ServiceTexts, SourceState};
use metrics::gauge;
use tokio::sync::{mpsc, watch};

use super::daemon::Daemon;
use super::ground::Ground;
use crate::api::ServicesApi;
use crate::services::ServicesTask;
use crate::source::{Registries, SourceError, TargetedLookups};
use crate::store::SqliteStore;
use crate::supervise::SupervisorReport;
use crate::telemetry::{SERVICES_HELD, SERVICES_IN_FORCE, SERVICES_REJECTED};

impl Daemon {
    /// Polls the services' source, if there is one.
    pub(super) fn start_services_source(
        &mut self,
        registries: &Registries,
    ) -> Result<Option<watch::Receiver<SourceState<ServiceTexts>>>, SourceError> {
        let settings = self.settings();
        let Some((source, from)) = settings.services_source() else { return Ok(None) };
        let (name, feed, round) = (from.to_string(), registries.services(&from)?, self.round());
        Ok(Some(self.start_poller(name, source, feed, round, TargetedLookups::new())))
    }

    /// Follows what it says.
    pub(super) fn start_services(
        &mut self,
        ground: &Ground,
        source: Option<watch::Receiver<SourceState<ServiceTexts>>>,
        store: Option<SqliteStore>,
        haproxy: Option<watch::Receiver<SupervisorReport>>,
    ) -> Option<ServicesApi> {
        let (Some(source), Some(haproxy)) = (source, haproxy) else {
            // There may have been some with other settings.
            for none in [SERVICES_IN_FORCE, SERVICES_HELD] {
                gauge!(none).set(0.0);
            }
            for by in ["haproxy", "mapsmith"] {
                gauge!(SERVICES_REJECTED, "by" => by).set(0.0);
            }
            return None;
        };
        let (anew, changed) = mpsc::channel(1);
        let (file, known) = (ground.file.settings.clone(), ground.services.clone());
        let task = ServicesTask::new(file, known, source, haproxy, store, anew);
        let api = ServicesApi { status: task.status(), approvals: task.approvals() };
        self.known_services = Some(task.known());
        self.start_until_shutdown("services", task.run());
        self.changed_services = Some(changed);
        Some(api)
    }

    /// The lists in force, for those who begin with other settings.
    pub(super) fn lists_in_force(&self) -> BTreeMap<String, LastGoodList> {
        let desired = self.desired.as_ref().and_then(|desired| desired.borrow().servers.clone());
        let settings: Arc<_> = self.settings();
        let origins = super::lists::stored_lists(&settings);
        let list = |(backend, origin): (String, String)| {
            let servers = desired.as_ref()?.backends.get(&backend)?.servers.clone();
            Some((backend, LastGoodList { origin, since: None, confirmed: None, servers }))
        };
        origins.into_iter().filter_map(list).collect()
    }
}
